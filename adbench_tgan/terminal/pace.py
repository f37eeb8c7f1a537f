"""Words on how far a long computation is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import TypeVar

PAUSE = 10.0  # seconds without a word

Given = TypeVar("Given")
Made = TypeVar("Made")


def silent(_: str) -> None:
    """Say nothing."""


def paced(
    act: Callable[[Given], Made], done: str, total: int, say: Callable[[str], None], things: str = "jobs"
) -> Callable[[Given], Made]:
    """`act`, which is called once for each of so many `things`; now and then `say` is told of how many it is `done`."""
    count, said = 0, monotonic()

    def act_aloud(given: Given) -> Made:
        nonlocal count, said
        if monotonic() - said > PAUSE:
            said = monotonic()
            say(f"{done}: {count:,} of {total:,} {things}")
        count += 1
        return act(given)

    return act_aloud


def through(
    each: Iterable[Given], done: str, total: int, say: Callable[[str], None], things: str = "jobs"
) -> Iterator[Given]:
    """What is of so many `things`, one after another; now and then `say` is told of how many it is `done`."""
    return map(paced(lambda given: given, done, total, say, things), each)

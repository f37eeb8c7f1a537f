"""Questions to a store: an object store, which may take seconds over each, is asked several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeVar

from adbench_tgan.store.places import is_remote

AT_ONCE = 8  # botocore keeps ten connections

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def answers(question: Callable[[Asked], Answer], about: Iterable[Asked], store: Path) -> Iterator[Answer]:
    """What `question` returns about each, in their order.

    Of an object store all are asked soon. Threads that it leaves waiting keep no process from its end: those of
    `concurrent.futures` would.

    Raises:
        Exception: what `question` raised about the first that it did.
    """
    if not is_remote(store):
        yield from map(question, about)
        return
    with ThreadPool(AT_ONCE) as pool:
        yield from pool.imap(question, about)

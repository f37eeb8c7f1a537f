"""Ctrl-C and its like, which end a run also where a detector catches them and goes on with what it has."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

ENDS = tuple(kind for kind in signal.Signals if kind.name in ("SIGINT", "SIGTERM", "SIGHUP"))
# Batch systems say by these that time is nearly over; a program may have another use for them.
WARNINGS = tuple(kind for kind in signal.Signals if kind.name in ("SIGUSR1", "SIGUSR2", "SIGXCPU"))
KINDS = (*ENDS, *WARNINGS)
# Seconds in which a batch system ends a step and each of its processes: two signals for one end.
TOGETHER = 2.0


class Ending:
    """A handler that raises KeyboardInterrupt, once for signals that come together: the second would cost the tables."""

    last = -math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Be told of a signal."""
        before, self.last = self.last, monotonic()
        if self.last - before > TOGETHER:
            raise KeyboardInterrupt


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Let a polite kill, a closed terminal and a batch system raise KeyboardInterrupt as Ctrl-C does; not what is ignored."""
    ending = Ending()
    with handlers({kind: ending for kind in KINDS if kind is not signal.SIGINT}):
        yield


@contextmanager
def not_swallowed() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end if one came meanwhile, whatever became of it."""
    came = []

    def noting(handler: Callable[..., Any]) -> Callable[..., Any]:
        def note(number: int, frame: FrameType | None) -> Any:
            came.append(number)
            return handler(number, frame)

        return note

    now = {kind: signal.getsignal(kind) for kind in KINDS}
    ending = {kind: now[kind] for kind in KINDS if kind in ENDS or isinstance(now[kind], Ending)}
    try:
        with handlers({kind: noting(handler) for kind, handler in ending.items() if callable(handler)}):
            yield
    finally:  # also where it became another error
        if came:
            raise KeyboardInterrupt


@contextmanager
def handlers(wanted: dict[signal.Signals, Callable[..., Any]]) -> Iterator[None]:
    """Handle signals so, as far as they are not ignored, and put back what handled them; only the main thread may."""
    with handlers_kept():
        if _in_main_thread():
            for kind, handler in wanted.items():
                if signal.getsignal(kind) not in (signal.SIG_IGN, None):
                    signal.signal(kind, handler)
        yield


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back at the end what handles Ctrl-C and its like now, whatever was installed meanwhile."""
    if not _in_main_thread():  # no other one can install anything
        yield
        return
    before = {kind: signal.getsignal(kind) for kind in KINDS}
    try:
        yield
    finally:
        for kind, handler in before.items():
            # What was installed otherwise than by Python it cannot put back.
            if handler is not None and handler is not signal.getsignal(kind):
                signal.signal(kind, handler)


def within(seconds: float, act: Callable[[], object]) -> bool:
    """Whether something was done in time; else it goes on in its own thread, and no longer than this process.

    Raises:
        BaseException: what it raised.
    """
    raised: list[BaseException] = []

    def carry_out() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=carry_out, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    return not thread.is_alive()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()

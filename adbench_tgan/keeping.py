"""Stores what a job came to, and waits for a store that is away: a long training is not to be lost to a short outage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from adbench_tgan.errors import StoreAway, StoreError
from adbench_tgan.failures import failed
from adbench_tgan.results import Result, ResultStore, check_readable

if TYPE_CHECKING:
    from adbench_tgan.runner import Settings

LONGEST = 240.0  # seconds after which no new try begins: each may take minutes itself
PAUSES = (5, 10, 20, 40, 80, 80)  # seconds between tries; object stores' libraries have tries of their own

Made = TypeVar("Made")
Warn = Callable[[str], None]


def stored(result: Result, store: ResultStore, settings: Settings, warn: Warn) -> Result:
    """Store a result, and return what was: a failure, if of this one nothing could be written or read back.

    Raises:
        StoreError: the disk is full or cannot be written, or the store stayed away.
    """
    try:
        check_readable(result)
        patiently(partial(store.put, result), warn)
    except StoreError:
        raise
    except Exception as error:  # a detector's own state may be anything
        result = failed(result.job, settings, error)
        patiently(partial(store.put, result), warn)
    return result


def patiently(act: Callable[[], Made], warn: Warn) -> Made:
    """What `act` returns, which is tried again for some minutes while its store does not answer.

    Raises:
        StoreAway: it did not in all that time.
    """
    until = 0.0
    for number, pause in enumerate(PAUSES):
        try:
            return act()
        except StoreAway as error:
            if not number:
                until = monotonic() + LONGEST
                what_failed = str(error).rpartition("; ")[0]  # without the remedy
                warn(f"{what_failed}; trying again for {sum(PAUSES) // 60} minutes")
            elif monotonic() > until:
                raise
        sleep(pause)
    return act()

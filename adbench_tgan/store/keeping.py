"""Stores what a job came to, and waits for a store that is away: a long training is not to be lost to a short outage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

from adbench_tgan.errors import StoreAway, StoreError
from adbench_tgan.failures import failed
from adbench_tgan.results import Result, ResultStore, check_readable, write_files
from adbench_tgan.store.places import is_remote

if TYPE_CHECKING:
    from adbench_tgan.runner import Settings

LONGEST = 240.0  # seconds after which no new try begins: each may take minutes itself
PAUSES = (5, 10, 20, 40, 80, 80)  # seconds between tries; object stores' libraries have tries of their own

Made = TypeVar("Made")
Warn = Callable[[str], None]


def stored(result: Result, store: ResultStore, settings: Settings, warn: Warn) -> Result:
    """Store a result, and return what was: a failure, if of this one nothing could be written or read back.

    Raises:
        StoreError: the disk is full or cannot be written, or the store stayed away; see `kept_here`.
    """
    try:
        check_readable(result)
        patiently(partial(store.put, result), warn)
    except StoreError as error:
        raise kept_here(result, store, error) from None
    except Exception as error:  # a detector's own state may be anything
        result = failed(result.job, settings, error)
        patiently(partial(store.put, result), warn)
    return result


def kept_here(result: Result, store: ResultStore, error: StoreError) -> StoreError:
    """The error to raise for a result that was not stored: of an object store it says where on this machine the files are.

    Credentials may end within a long training, and no process that runs gets new ones.
    """
    if not is_remote(store.root) or result.status != "ok":
        return error
    target = store.folder(result.job)
    try:
        folder = Path(tempfile.mkdtemp(prefix="adbench-kept-")) / target.name
        folder.mkdir()
        write_files(result, folder)
    except OSError:  # the disk is full, too
        return error
    return type(error)(f"{error}; its files are kept in {folder}: copied to {target}, they count as stored")


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

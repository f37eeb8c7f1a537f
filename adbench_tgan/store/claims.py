"""Who is running which job, when several runs share a store: a small file a job, and no server.

A claim is a file that only one run can create: exclusively on a disk, by a conditional put in an object store, which
has to know them (S3 does; where it does not, two runs may both run a job). Its run touches it every `BEAT` seconds and removes it when the job is
stored. A claim is dead when its process has ended on this machine, or when it has not changed for `EXPIRY` seconds of
the watcher's own clock: no clocks of two machines are compared. The run that takes it over creates the claim's next
number, which again only one can. A run that was stopped for longer than `EXPIRY` and wakes up may finish a job that
another has taken over; then the later result stands whole, and no job is there twice.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from adbench_tgan.interrupts import within
from adbench_tgan.jobs import Job
from adbench_tgan.results import CLAIMS
from adbench_tgan.store.asking import answers
from adbench_tgan.store.drafts import draft_name, owner_is_gone
from adbench_tgan.store.listing import found
from adbench_tgan.store.places import (
    ABSENT,
    answering,
    create,
    is_remote,
    is_there,
    read_bounded,
    reading,
    stamp,
    touch,
    unwritten,
)

BEAT = 10.0  # seconds between two touches
EXPIRY = 90.0  # seconds without a touch after which a claim is dead
GRACE = 10.0  # seconds for the last claims to be removed
LARGEST = 4096  # bytes of a claim; one has a few hundred


class Claims:
    """The claims of one run in a store. Leave its context and they are gone."""

    def __init__(self, store: Path, *, beat: float = BEAT, expiry: float = EXPIRY):
        self.folder = store / CLAIMS
        self.beat, self.expiry = beat, expiry
        self.held: dict[str, Path] = {}  # by the job's key
        self.seen: dict[Path, tuple[str, float]] = {}  # of others: last change, and when we saw it first
        self.locks: dict[str, threading.Lock] = {}  # or a touch might bring back what was just removed
        self.over = threading.Event()
        self.heart = threading.Thread(target=self._touch_all, daemon=True)

    def __enter__(self) -> Self:
        self.heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        within(GRACE, self._remove_all)  # or they expire: a store that hangs must not keep a run from its end

    def take(self, job: Job) -> bool:
        """Claim a job; False if another run has it.

        Raises:
            StoreError: the claims cannot be read, or ours not written.
        """
        if job.key in self.held:
            return True
        numbers = self._numbers(job)
        last = numbers[-1] if numbers else -1
        if numbers and not self._is_dead(self._path(job, last)):
            return False
        path = self._path(job, last + 1)
        if not self._create(path):
            return False
        self.locks[job.key] = threading.Lock()
        self.held[job.key] = path
        for number in numbers:
            with suppress(Exception):  # it is dead, and ours comes after it
                self._path(job, number).unlink()
        return True

    def release(self, job: Job) -> None:
        """Give a job up: it is stored, or will not be."""
        if job.key in self.held:
            self._remove(job.key)

    def _path(self, job: Job, number: int) -> Path:
        return self.folder / f"{job.key}-{number}"

    def _numbers(self, job: Job) -> list[int]:
        names = (name.rpartition("-")[2] for name in found(self.folder, f"{job.key}-*"))
        # Of 007 the number would not give the name back.
        return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)

    def _create(self, path: Path) -> bool:
        """Create a claim; False if another run was faster."""
        text = draft_name()
        for _ in range(3):  # another run may remove the empty folder
            try:
                if not is_remote(path):
                    self.folder.mkdir(exist_ok=True)
                create(path, text)
                return True
            except FileExistsError:
                return _says(path, text)
            except FileNotFoundError:
                continue
            except OSError as error:
                # Two at the same moment: some stores refuse both in their own words.
                if is_remote(path) and is_there(path):
                    return _says(path, text)
                raise unwritten(path, error) from None
        return False

    def _is_dead(self, path: Path) -> bool:
        """Whether a claim's process is known to be gone, or has not touched it for as long as it takes."""
        try:
            owner = _owner(path)
            with answering():
                changed = stamp(path)
        except OSError:  # released just now; the next look will tell
            return False
        before, since = self.seen.get(path, ("", 0.0))
        if before != changed:
            self.seen[path] = (changed, monotonic())
            return owner_is_gone(owner)
        return owner_is_gone(owner) or monotonic() - since > self.expiry

    def _remove(self, key: str) -> None:
        with self.locks[key], suppress(Exception):  # or it expires
            self.held.pop(key).unlink()

    def _remove_all(self) -> None:
        self.heart.join()
        list(answers(self._remove, list(self.held), self.folder))
        if not is_remote(self.folder):
            with suppress(OSError):  # others have claims in it
                self.folder.rmdir()

    def _touch_all(self) -> None:
        while not self.over.wait(self.beat):
            # One after another, of many an object store would touch the last too late.
            list(answers(self._touch, list(self.held), self.folder))

    def _touch(self, key: str) -> None:
        with self.locks[key], suppress(Exception):  # a file server may be away for a while
            touch(self.held[key], draft_name())


def _owner(path: Path) -> str:
    """Whose a claim is; empty for what no run of ours wrote, which is dead once it stays as it is.

    Raises:
        OSError: it is missing or cannot be read.
    """
    try:
        return read_bounded(path, LARGEST).decode(errors="replace")
    except (ValueError, IsADirectoryError):
        return ""


def _says(path: Path, text: str) -> bool:
    """Whether a claim that is there already is ours: where a store's reply is lost, its library asks once more.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        with reading(path):
            return _owner(path) == text
    except ABSENT:  # another run's, released just now
        return False

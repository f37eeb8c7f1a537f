"""How long what is left will take, judged by what was done."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from statistics import fmean
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adbench_tgan.jobs import Job


class Forecast:
    """Of jobs: each is expected to take as long as those of its detector that have ended."""

    def __init__(self, jobs: Iterable[Job] = ()):
        self.left = Counter(job.detector for job in jobs)
        self.took: defaultdict[str, list[float]] = defaultdict(list)  # seconds, by detector
        self.began: dict[str, float] = {}  # of the jobs that are running, by key
        self.at_once = 1  # most jobs that ran at a time

    def start(self, job: Job) -> None:
        """It begins, or begins anew."""
        self.began[job.key] = monotonic()
        self.at_once = max(self.at_once, len(self.began))

    def end(self, job: Job) -> None:
        """It has ended, well or not."""
        if job.key in self.began:
            self.took[job.detector].append(monotonic() - self.began.pop(job.key))
            self.left[job.detector] -= 1

    def seconds(self) -> float | None:
        """Until all have ended; None while a detector has jobs left of which none has ended."""
        left = +self.left
        if not left or not left.keys() <= self.took.keys():
            return None
        return sum(count * fmean(self.took[detector]) for detector, count in left.items()) / self.at_once


class Pace:
    """Of one phase of a job, which does so many things one after another, such as epochs."""

    def __init__(self) -> None:
        self.first: tuple[int, float] | None = None  # how many were done when it was first told of, and when

    def seconds(self, done: int, total: int | None) -> float | None:
        """Until all are done, when `done` of them are; None if `total` is not known, or it is told for the first time."""
        before, since = self.first = self.first or (done, monotonic())
        if total is None or done <= before:
            return None
        return (monotonic() - since) / (done - before) * (total - done)


def left(seconds: float | None) -> str:
    """The words for so many seconds; none for less than one, or for what is not known."""
    if seconds is None or seconds < 1:
        return ""
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:,.1f} h left"

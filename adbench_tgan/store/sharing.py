"""How several runs that write into one store at the same time share its jobs out among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from time import monotonic, sleep

from adbench_tgan.jobs import Job
from adbench_tgan.results import ResultStore
from adbench_tgan.runner import Reporter
from adbench_tgan.store.claims import Claims
from adbench_tgan.store.keeping import patiently

PATIENCE = 1.0  # seconds between two looks at what others do
AGAIN = 600.0  # and between two words on whom we wait for


class Sharing:
    """The jobs that a run has to see to: each is run here, or another run finishes it.

    `before` holds each job's `ResultStore.stamp` from before it was found unfinished: what changes from then on is
    another run's doing.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        before: Mapping[str, str],
        store: ResultStore,
        claims: Claims,
        reporter: Reporter,
        *,
        with_model: bool = False,
    ):
        self.store, self.claims, self.reporter = store, claims, reporter
        self.with_model = with_model  # a job without its model is not finished
        self.before = before
        self.rest = list(jobs)
        self.elsewhere = 0  # jobs that another run finished
        self.tell_at = 0.0

    def rounds(self) -> Iterator[Iterable[Job]]:
        """Jobs for an executor, each claimed when it is asked for; again as long as others give some up.

        Ends when no job is left, which may mean to wait for other runs.
        """
        while self.rest:
            if (job := self._next()) is not None:
                yield chain([job], iter(self._next, None))
            elif self.rest:
                self._wait()
        if self.elsewhere:
            self.reporter.warn(f"{self.elsewhere} of these jobs were run by another run in the same folder")

    def _next(self) -> Job | None:
        """A job that is ours from now on; None if others have all that are left."""
        for job in list(self.rest):
            claimed, finished = patiently(partial(self._look, job), self.reporter.warn)
            if claimed or finished:
                self.rest.remove(job)
            if claimed and not finished:
                return job
            if finished:
                self.claims.release(job)
                self.elsewhere += 1
        return None

    def _look(self, job: Job) -> tuple[bool, bool]:
        """Whether a job is claimed for us, and whether another run has finished it."""
        claimed = self.claims.take(job)
        return claimed, self._is_finished(job)  # looked at after the claim: no gap between

    def _is_finished(self, job: Job) -> bool:
        """Whether another run has stored all that is asked for, or failed."""
        if self.store.stamp(job) == self.before[job.key]:
            return False
        if self.store.has(job, with_model=self.with_model):
            return True
        stored = self.store.outcome(job)
        return stored is not None and stored.status == "failed"

    def _wait(self) -> None:
        if monotonic() >= self.tell_at:
            self.tell_at = monotonic() + AGAIN
            self.reporter.warn(
                f"another run in the same folder has claimed {len(self.rest)} of these jobs, the first {self.rest[0]}; waiting for it"
            )
        sleep(PATIENCE)

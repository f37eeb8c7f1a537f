"""Ways to run jobs. Each takes jobs and yields a result a job, as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adbench_tgan.data.tasks import Tasks
from adbench_tgan.jobs import Job
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result
from adbench_tgan.runner import Reporter, Settings, announce, attempt


def local(
    jobs: Iterable[Job], settings: Settings, tasks: Tasks, registry: Registry, reporter: Reporter
) -> Iterator[Result]:
    """One job after another, in this process. Ctrl-C leaves no result of a training that it cut short."""
    for job in jobs:
        announce(job, registry, reporter)
        yield attempt(job, settings, tasks, registry, reporter)

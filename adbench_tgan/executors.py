"""Ways to run jobs. Each takes jobs and yields a result a job, as it comes."""

from __future__ import annotations

from collections.abc import Container, Generator, Iterable, Iterator

from adbench_tgan.data.tasks import Tasks
from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import one_line
from adbench_tgan.jobs import Job
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result
from adbench_tgan.runner import Executor, Reporter, Settings, announce, attempt


def local(
    jobs: Iterable[Job], settings: Settings, tasks: Tasks, registry: Registry, reporter: Reporter
) -> Iterator[Result]:
    """One job after another, in this process. Ctrl-C leaves no result of a training that it cut short."""
    for job in jobs:
        announce(job, registry, reporter)
        yield attempt(job, settings, tasks, registry, reporter)


def answerable(name: str, executor: Executor) -> Executor:
    """An executor whose mistakes are errors that name it: what it raises, and what is no result of a job that it took.

    Of a job it may give one result.
    """

    def execute(
        jobs: Iterable[Job], settings: Settings, tasks: Tasks, registry: Registry, reporter: Reporter
    ) -> Iterator[Result]:
        owed: set[str] = set()

        def taken() -> Iterator[Job]:
            for job in jobs:
                owed.add(job.key)
                yield job

        results = None
        try:
            results = executor(taken(), settings, tasks, registry, reporter)
            for result in results:
                check(result, owed)
                owed.remove(result.job.key)
                yield result
        except (AdbenchError, BrokenPipeError, MemoryError):  # each has words of its own
            raise
        except (Exception, SystemExit) as error:  # a stranger's executor may fail in any way
            raise AdbenchError(f"executor {name!r} failed: {one_line(error)}; --debug shows where") from error
        finally:
            if isinstance(results, Generator):
                results.close()

    return execute


def check(result: object, owed: Container[str]) -> None:
    """Refuse what is no result, or of none of the jobs that are owed, by key.

    Raises:
        TypeError, ValueError: saying what it is.
    """
    if not isinstance(result, Result):
        raise TypeError(f"it yielded a {type(result).__name__}, not a Result")
    if result.job.key not in owed:
        raise ValueError(
            f"it yielded a result of {result.job}, a job that it had not taken, or had already yielded"
        )

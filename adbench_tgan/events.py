"""TensorBoard's event files: the losses of each epoch, and pictures of training images. Never a metric of the test set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from adbench_tgan.errors import AdbenchError
from adbench_tgan.places import ensure_writable
from adbench_tgan.results import ResultStore

if TYPE_CHECKING:
    from adbench_tgan.jobs import Job
    from adbench_tgan.results import Result
    from adbench_tgan.runner import Reporter


class EventReporter:
    """Tells another reporter everything, and writes what it hears to a folder a job below `root`.

    A run goes on without these files when they cannot be written, and says so.
    """

    def __init__(self, inner: Reporter, root: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise AdbenchError(
                "--tensorboard needs tensorboard; install it with: pip install 'adbench-tgan[tensorboard]'"
            ) from None
        ensure_writable(root, "--tensorboard")
        self._open: Any = SummaryWriter
        self.inner: Any = inner
        self.root, self._failed = root, False
        self._store = ResultStore(root)  # whose folders these have the names of
        self._writers: dict[str, Any] = {}  # of the jobs that run, by key
        self._written: dict[str, int] = {}  # epochs, by the same keys

    def __enter__(self) -> Self:
        self._hook, threading.excepthook = threading.excepthook, self._of_thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        threading.excepthook = self._hook
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()

    def _of_thread(self, found: threading.ExceptHookArgs) -> None:
        """An exception in a thread; a writer's own raises its `OSError` here too, at the next write."""
        if not (
            isinstance(found.exc_value, OSError) and type(found.thread).__module__.startswith("tensorboard.")
        ):
            self._hook(found)

    def _try(self, write: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            write()
        except OSError as error:
            self._failed = True
            why = f"{error.strerror or error}; the run goes on without event files"
            self.inner.warn(f"--tensorboard {self.root} cannot be written: {why}")

    def planned(self, jobs: int, kept: int) -> None:
        """Pass it on."""
        self.inner.planned(jobs, kept)

    def job_started(self, job: Job) -> None:
        """Begin the job's folder; what an earlier attempt left there is overwritten from the first epoch on."""
        self.inner.job_started(job)
        self._try(lambda: self._begin(job))

    def phase(self, name: str, job: Job) -> None:
        """Pass it on."""
        self.inner.phase(name, job)

    def epoch(self, number: int, total: int | None, losses: Mapping[str, float], job: Job) -> None:
        """Write the losses."""
        self.inner.epoch(number, total, losses, job)
        if job.key in self._writers:
            self._try(lambda: self._losses(job.key, number, losses))

    def images(self, done: int, total: int, job: Job) -> None:
        """Pass it on."""
        self.inner.images(done, total, job)

    def job_finished(self, result: Result) -> None:
        """Write what is not written yet, and the pictures."""
        self.inner.job_finished(result)
        self._try(lambda: self._finish(result))

    def warn(self, message: str) -> None:
        """Pass it on."""
        self.inner.warn(message)

    def _finish(self, result: Result) -> None:
        key = result.job.key
        self._begin(result.job)
        for number, losses in enumerate(result.losses, start=1):
            if number > self._written[key]:
                self._losses(key, number, losses)
        writer = self._writers.pop(key)
        for name, pictures in result.pictures.items():
            add_pictures(writer, name, pictures, self._written[key])
        del self._written[key]
        writer.close()

    def _begin(self, job: Job) -> None:
        if job.key not in self._writers:
            self._writers[job.key] = self._open(str(self._store.folder(job)), purge_step=1)
            self._written[job.key] = 0

    def _losses(self, key: str, number: int, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self._writers[key].add_scalar(f"losses/{name}", value, number)
        self._writers[key].flush()
        self._written[key] = number


def add_pictures(writer: Any, name: str, pictures: Any, step: int) -> None:
    """Write images uint8 (N, C, H, W), or maps (N, H, W) in greys from the lowest to the highest value."""
    if pictures.ndim == 3:
        low, high = pictures.min(), pictures.max()
        pictures = ((pictures - low) / (high - low).clamp(min=1e-12))[:, None]
    writer.add_images(f"training/{name}", pictures, step)

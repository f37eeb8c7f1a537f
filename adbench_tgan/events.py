"""TensorBoard's event files: the losses of each epoch, and pictures of training images. Never a metric of the test set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from adbench_tgan.errors import AdbenchError
from adbench_tgan.results import ResultStore
from adbench_tgan.store.places import ensure_writable

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
        self._written: dict[str, set[int]] = {}  # epochs, by the same keys
        self._running: set[str] = set()

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

    def __getattr__(self, name: str) -> Any:  # of all that it writes nothing about
        return getattr(self.inner, name)

    def job_started(self, job: Job) -> None:
        """A job begins."""
        self.inner.job_started(job)
        self._running.add(job.key)

    def epoch(self, number: int, total: int | None, losses: Mapping[str, float], job: Job) -> None:
        """Write the losses."""
        self.inner.epoch(number, total, losses, job)
        if job.key in self._running:  # or it is told late
            self._try(lambda: self._losses(job, number, losses))

    def job_finished(self, result: Result) -> None:
        """Write what is not written yet, and the pictures."""
        self.inner.job_finished(result)
        self._try(lambda: self._finish(result))

    def _finish(self, result: Result) -> None:
        job = result.job
        self._running.discard(job.key)
        self._begin(job, 1)
        for number, losses in enumerate(result.losses, start=1):
            if number not in self._written[job.key]:
                self._losses(job, number, losses)
        writer = self._writers.pop(job.key)
        for name, pictures in result.pictures.items():
            add_pictures(writer, name, pictures, len(result.losses))
        del self._written[job.key]
        writer.close()

    def _begin(self, job: Job, number: int) -> None:
        """Begin a job's file with an epoch: of an earlier attempt those before it stay, which it went on from."""
        if job.key not in self._writers:
            folder = self._store.folder(job)
            before = set(range(1, number)) if any(folder.glob("events.*")) else set[int]()
            self._writers[job.key] = self._open(str(folder), purge_step=number)
            self._written[job.key] = before

    def _losses(self, job: Job, number: int, losses: Mapping[str, float]) -> None:
        if number in self._written.get(job.key, ()):  # the job was begun again
            self._writers.pop(job.key).close()
        self._begin(job, number)
        writer = self._writers[job.key]
        for name, value in losses.items():
            writer.add_scalar(f"losses/{name}", value, number)
        writer.flush()
        self._written[job.key].add(number)


def add_pictures(writer: Any, name: str, pictures: Any, step: int) -> None:
    """Write images uint8 (N, C, H, W), or maps (N, H, W) in greys from the lowest to the highest value."""
    if pictures.ndim == 3:
        low, high = pictures.min(), pictures.max()
        pictures = ((pictures - low) / (high - low).clamp(min=1e-12))[:, None]
    writer.add_images(f"training/{name}", pictures, step)

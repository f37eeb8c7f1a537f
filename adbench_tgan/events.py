"""TensorBoard's event files: the losses of each epoch, and pictures of training images. Never a metric of the test set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from adbench_tgan.errors import AdbenchError
from adbench_tgan.places import ensure_writable
from adbench_tgan.results import safe_name

if TYPE_CHECKING:
    from adbench_tgan.jobs import Job
    from adbench_tgan.results import Result
    from adbench_tgan.runner import Reporter


class EventReporter:
    """Tells another reporter everything, and writes what it hears to a folder a job below `root`.

    Losses are written as they come, if it is known of which job. Where it is not, with several at a time, they are
    written when their job has ended.
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
        self.root = root
        self._writers: dict[str, Any] = {}  # of the jobs that run, by key
        self._written: dict[str, int] = {}  # epochs, by the same keys

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def planned(self, jobs: int, kept: int) -> None:
        """Pass it on."""
        self.inner.planned(jobs, kept)

    def job_started(self, job: Job) -> None:
        """Begin the job's folder; what an earlier attempt left there is overwritten from the first epoch on."""
        self.inner.job_started(job)
        self._begin(job)

    def phase(self, name: str, job: Job | None = None) -> None:
        """Pass it on."""
        self.inner.phase(name, *_given(job))

    def epoch(
        self, number: int, total: int | None, losses: Mapping[str, float], job: Job | None = None
    ) -> None:
        """Write the losses, if it is plain whose they are."""
        self.inner.epoch(number, total, losses, *_given(job))
        keys = [key for key in self._writers if job is None or key == job.key]
        if len(keys) == 1:
            self._losses(keys[0], number, losses)

    def images(self, done: int, total: int, job: Job | None = None) -> None:
        """Pass it on."""
        self.inner.images(done, total, *_given(job))

    def job_finished(self, result: Result) -> None:
        """Write what is not written yet, and the pictures."""
        self.inner.job_finished(result)
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

    def warn(self, message: str) -> None:
        """Pass it on."""
        self.inner.warn(message)

    def _begin(self, job: Job) -> None:
        if job.key not in self._writers:
            self._writers[job.key] = self._open(str(self.root / folder_of(job)), purge_step=1)
            self._written[job.key] = 0

    def _losses(self, key: str, number: int, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self._writers[key].add_scalar(f"losses/{name}", value, number)
        self._writers[key].flush()
        self._written[key] = number


def _given(job: Job | None) -> tuple[Job, ...]:
    return () if job is None else (job,)


def folder_of(job: Job) -> Path:
    """The name of a job's run, below the folder of all."""
    names = (job.dataset, job.protocol, job.detector, f"{job.category}-seed{job.seed}-{job.key[:8]}")
    return Path(*map(safe_name, names))


def add_pictures(writer: Any, name: str, pictures: Any, step: int) -> None:
    """Write images uint8 (N, C, H, W), or maps (N, H, W) in greys from the lowest to the highest value."""
    if pictures.ndim == 3:
        low, high = pictures.min(), pictures.max()
        pictures = ((pictures - low) / (high - low).clamp(min=1e-12))[:, None]
    writer.add_images(f"training/{name}", pictures, step)

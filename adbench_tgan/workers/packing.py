"""Which jobs may run side by side: a number of them, or as many as one GPU's memory was measured to hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.machine import cores
from adbench_tgan.results import Result
from adbench_tgan.runner import Settings

MARGIN = 0.1  # share of the free memory that is left alone: what a job takes differs a little each time
MEMORY = "memory.json"  # what a process writes down of the device's memory
SIGNS = ("out of memory", "alloc_failed", "memory ran out")  # of a lack of memory, in an error or a note
# Of a GPU's failure, which under MPS is all clients'.
FAULTS = ("cuda error", "cublas_status_", "cudnn_status_")
CLIENTS = 48  # processes that MPS, before it had more, lets use one GPU

Kind = str  # what jobs of about the same need have in common


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one process took of its device's memory, in bytes, as it told at its end."""

    peak: int  # that torch held at most, its caches and graphs included
    held: int  # that torch held at the end
    free: int  # on the device at the end


def free_memory(device: str) -> int:
    """Bytes of a CUDA device that nobody uses now. To ask costs this process a context there, some hundred MB."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def read_footprint(folder: Path) -> Footprint | None:
    """What a process wrote by `write_footprint`; None if it did not come to that."""
    try:
        return Footprint(**json.loads((folder / MEMORY).read_text()))
    except (OSError, ValueError):
        return None


def write_footprint(device: str, folder: Path) -> None:
    """Let a process write down, at its end, what it took of a CUDA device. Of the CPU there is nothing to write."""
    import torch

    if not device.startswith("cuda") or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    try:
        facts = {
            "peak": torch.cuda.max_memory_reserved(device),
            "held": torch.cuda.memory_reserved(device),
            "free": torch.cuda.mem_get_info(device)[0],
        }
        (folder / MEMORY).write_text(json.dumps(facts))
    except (RuntimeError, OSError):  # a kernel failed, and the device tells no more; or the disk is full
        return


class Packing:
    """Decides which jobs may run side by side.

    At most `most` at a time. With `meter`, which tells the bytes that are free, also no more than fit: a job of a kind
    that was not measured yet runs alone, and is measured; others run side by side as far as their kinds' peaks add up
    to what was free when a job last began alone, less `MARGIN`. One job at a time may always run.
    """

    def __init__(self, most: int, meter: Callable[[], int] | None = None, *, on_gpu: bool = False):
        self.most, self.meter, self.on_gpu = most, meter, on_gpu
        self.peaks: dict[Kind, int] = {}  # largest of each kind, in bytes
        self.outside = 0  # bytes that a process takes beside torch's, such as for its context
        self.free = 0  # bytes, when a job last began alone
        self.alone: dict[str, str] = {}  # jobs, by key, that run once more, alone: why

    def warning(self) -> str:
        """What a reader of times should know; empty if no job has another beside it."""
        if self.most == 1:
            return ""
        many, where, option = f"{self.most} jobs at a time", "this machine", "--workers"
        if self.on_gpu:
            many, where, option = f"up to {many}" if self.meter else many, "the GPU", "--jobs-per-gpu"
        return f"{many} share {where}, which makes their times longer; for fair times, give {option} 1"

    def full(self, running: int) -> bool:
        """Whether no job whatever may begin."""
        return running >= self.most

    def admits(self, job: Job, running: Sequence[Job]) -> bool:
        """Whether `job` may begin beside those that run."""
        if not running:
            self.free = self.meter() if self.meter else 0
            return True
        jobs = (*running, job)
        if self.full(len(running)) or any(each.key in self.alone for each in jobs):
            return False
        return self.meter is None or self._fit(jobs)

    def share(self, job: Job) -> int:
        """Jobs that will share this machine's CPU cores while `job` runs, as far as is known."""
        if job.key in self.alone:
            return 1
        if self.meter is None:
            return self.most
        need = self.peaks.get(kind(job), self.free) + self.outside
        return max(1, min(self.most, self._room() // max(1, need)))

    def learn(self, job: Job, found: Footprint, *, at_once: int) -> None:
        """Learn what its kind needs from a job that ended well, and had `at_once` - 1 others beside it at most."""
        if at_once == 1:  # all that is missing on the device is its own
            self.outside = max(self.outside, self.free - found.free - found.held)
        self.peaks[kind(job)] = max(self.peaks.get(kind(job), 0), found.peak)

    def again(self, job: Job, result: Result, *, at_once: int) -> bool:
        """Whether a job has to run once more, alone: beside others it lacked memory, or fell with one of them."""
        if not self.on_gpu or at_once == 1 or not (why := trouble(result)):
            return False
        others = f"{at_once - 1} other job{'s' if at_once > 2 else ''}"
        self.alone[job.key] = f"{why} with {others} on the GPU"
        return True

    def noted(self, result: Result) -> Result:
        """The result; if it comes of a job that ran once more, with a note of it."""
        if (why := self.alone.get(result.job.key)) is None:
            return result
        note = f"{why}; this is the job run once more, alone"
        return replace(result, notes=(*result.notes, note))

    def _fit(self, jobs: Sequence[Job]) -> bool:
        kinds = [kind(each) for each in jobs]
        if not set(kinds) <= set(self.peaks):
            return False
        return sum(self.peaks[each] + self.outside for each in kinds) <= self._room()

    def _room(self) -> int:
        return int((1 - MARGIN) * self.free)


class Waiting:
    """The jobs that have not begun, and those that have to begin again, which come first."""

    def __init__(self, jobs: Iterable[Job]):
        self.jobs, self.again = iter(jobs), list[Job]()

    def take(self, packing: Packing, running: Sequence[Job]) -> Job | None:
        """The next job, if it may begin beside those that run; else it is kept, and no further one is looked at."""
        if packing.full(len(running)) or (job := self._first()) is None or not packing.admits(job, running):
            return None
        return self.again.pop(0)

    def _first(self) -> Job | None:
        if not self.again and (job := next(self.jobs, None)) is not None:
            self.again.append(job)
        return self.again[0] if self.again else None


def kind(job: Job) -> Kind:
    """The same detector with the same settings on the same data; categories differ, but little."""
    return json.dumps(
        [job.detector, dict(job.config), job.dataset, job.protocol, job.precision], sort_keys=True
    )


def trouble(result: Result) -> str:
    """What other jobs may have done to this one: it failed, or without memory went on otherwise; empty if nothing."""
    said = " ".join((result.error, *result.notes)).lower()
    if any(sign in said for sign in SIGNS):
        return "memory ran out"
    return "the GPU failed" if any(fault in result.error.lower() for fault in FAULTS) else ""


def packing_of(settings: Settings) -> Packing:
    """The packing that a run asks for.

    One process cannot do with less than a core: it launches the kernels one after another, and with more processes
    than cores they would wait for a core, not for the GPU.
    """
    if settings.jobs_per_gpu is None:
        return Packing(settings.workers or 1)
    if settings.jobs_per_gpu == "auto":
        return Packing(min(cores(), CLIENTS), lambda: free_memory(settings.device), on_gpu=True)
    return Packing(int(settings.jobs_per_gpu), on_gpu=True)


def check_packing(settings: Settings) -> None:
    """Refuse jobs that share a GPU where there is none, or where their number is given twice.

    Raises:
        AdbenchError: naming what to leave out.
    """
    asked = f"--jobs-per-gpu {settings.jobs_per_gpu}"
    if settings.jobs_per_gpu is None:
        return
    if not settings.device.startswith("cuda"):
        raise AdbenchError(f"{asked} needs a GPU, and the device is {settings.device}; use --workers instead")
    if settings.workers is not None:
        raise AdbenchError(f"{asked} and --workers {settings.workers} both say how many run; leave one out")

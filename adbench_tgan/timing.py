"""Honest clocks: synchronised at both ends, warm-up apart, every sample kept."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

WARMUP = 5  # unmeasured calls before latency is measured
SAMPLES = (5, 100)  # at least and at most so many latency samples ...
SHARE = 0.02  # ... and within these bounds as many as take this share of a job's fit and score ...
BUDGET = (0.05, 1.0)  # ... but no fewer and no more than take so many seconds
MARKS = count()  # of images that are timed
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Clock:
    """`seconds` on the wall; on a GPU also between CUDA events, which leaves out the last wait for it."""

    seconds: float = 0.0
    gpu_seconds: float | None = None

    @property
    def device_seconds(self) -> float:
        """The GPU's own time where there is one, else the wall's."""
        return self.seconds if self.gpu_seconds is None else self.gpu_seconds


@contextmanager
def stopwatch(device: str | torch.device) -> Iterator[Clock]:
    """Time a block. Kernels are asynchronous, so wait for them at both ends."""
    on_gpu = torch.device(device).type == "cuda"
    clock = Clock()
    if on_gpu:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        begin.record(torch.cuda.current_stream(device))
    start = perf_counter()
    yield clock
    if on_gpu:
        end.record(torch.cuda.current_stream(device))
        torch.cuda.synchronize(device)
        clock.gpu_seconds = begin.elapsed_time(end) / 1000
    clock.seconds = perf_counter() - start


def latency(score: Callable[[Tensor], object], image: Tensor, seconds: float) -> list[float]:
    """Milliseconds to score one image (1, C, H, W), one sample a call, after a warm-up; all samples.

    `seconds` are those of the job itself, by which is judged how long this may take.
    """
    budget = min(max(SHARE * seconds, BUDGET[0]), BUDGET[1])
    return [1000 * clock.device_seconds for clock in clocks(score, image, SAMPLES, budget)]


def clocks(
    score: Callable[[Tensor], object], images: Tensor, samples: tuple[int, int], budget: float
) -> list[Clock]:
    """Time calls on images (B, C, H, W), after a warm-up: at least and at most so many `samples`.

    Within these bounds no more calls than fit into `budget` seconds. No call gets images of an earlier one, from which
    scores may be kept: they are `marked`.
    """
    least, most = samples
    found: list[Clock] = []
    with corners_kept(images):
        started = perf_counter()
        for _ in range(WARMUP):
            score(marked(images))
            if perf_counter() - started > budget:
                break
        started = perf_counter()
        while len(found) < least or (len(found) < most and perf_counter() - started < budget):
            marked(images)
            with stopwatch(images.device) as clock:
                score(images)
            found.append(clock)
    return found


@contextmanager
def corners_kept(images: Tensor) -> Iterator[None]:
    """Let images (B, C, H, W) be `marked`, and be as before at the end: a copy would be counted as a detector's memory."""
    before = images[..., 0, [0, -1]].clone()
    try:
        yield
    finally:
        images[..., 0, [0, -1]] = before


def marked(images: Tensor) -> Tensor:
    """The same uint8 images (B, C, H, W), with another number than ever before in its two upper corners."""
    high, low = divmod(next(MARKS) % 2**16, 2**8)
    images[..., 0, 0], images[..., 0, -1] = low, high
    return images


class PeakMemory:
    """The largest memory in use since this was made, in MiB: the GPU's allocations, or this process's resident set.

    On the CPU what was freed before is given back first.
    """

    def __init__(self, device: str | torch.device):
        self.device = torch.device(device)
        self.began_anew = False  # the count of the CPU's memory
        if self.device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # a device with a number is not known before
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        give_back_freed()
        with suppress(OSError):
            CLEAR.write_text("5")  # Linux: VmHWM is now what is resident
            self.began_anew = True

    def megabytes(self) -> float | None:
        """The peak; None where the system does not tell, or tells only that of the process's whole life."""
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device)) / 2**20
        if self.began_anew:
            with suppress(OSError):
                for line in STATUS.read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        return int(line.split()[1]) / 1024
        return None


def give_back_freed() -> None:
    """Let glibc give freed memory back, which it keeps for later: it would count as the next job's."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        ctypes.CDLL(None).malloc_trim(0)


def flops(score: Callable[[Tensor], object], image: Tensor) -> int:
    """Floating-point operations to score one image (1, C, H, W): matrix products, convolutions, attention.

    Forward and backward, so that searches by gradient count in full. Attention is forced onto the math kernel on
    the CPU, whose fused kernel the counter of torch misses, as it does torch's fast path through whole layers of it.
    """
    counter = FlopCounterMode(display=False, custom_mapping=MISSED)
    plain = sdpa_kernel(SDPBackend.MATH) if image.device.type == "cpu" else nullcontext()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with plain, counter:
            score(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


def _of_products(rows: Sequence[int], columns: Sequence[int], *_: object, **__: object) -> int:
    """Of the scalar products of each of `rows` (..., N, F) with each of `columns` (..., M, F) or (F,), given their shapes."""
    return 2 * math.prod(rows) * (columns[-2] if len(columns) > 1 else 1)


# Matrix products that the counter of torch does not know.
MISSED = dict.fromkeys(
    (torch.ops.aten.mv, torch.ops.aten._euclidean_dist, torch.ops.aten._cdist_forward), _of_products
)

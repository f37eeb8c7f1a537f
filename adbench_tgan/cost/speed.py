"""How fast one detector scores, and at what cost. Its scores play no part, so it need not be trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adbench_tgan.cost.energy import LEAST, meter_of
from adbench_tgan.cost.timing_board import derived
from adbench_tgan.data.images import ImageSet, TrainSet
from adbench_tgan.detector import Detector
from adbench_tgan.failures import lacks_memory
from adbench_tgan.scoring import check_scores, operations, sample, scores_of
from adbench_tgan.timing import PeakMemory, clocks, corners_kept, marked, stopwatch
from adbench_tgan.training import fit, lay_out

LATENCY_SAMPLES = (5, 1000)  # at least and at most; a search of latent space takes seconds each time
BATCH_SAMPLES = (3, 50)
GAIN = 1.02  # a larger batch that is not this much faster ends the search, at the second time


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long each measurement may take, and on how much a detector that must be fitted is fitted."""

    seconds: float = 10.0
    max_batch: int = 1024
    fit_images: int = 0  # 0: all training images


def prepare(detector: Detector, train: TrainSet, images: Tensor, effort: Effort) -> tuple[Detector, str]:
    """A detector that can score, and how it came to: its networks as built, else fitted.

    Weights do not change how long a network takes. A detector that cannot score as built, such as one that keeps
    training images, is fitted. `images` (B, C, H, W) are scored to find out.
    """
    try:
        detector.build(train.shape)
        lay_out(detector)
        for network in detector.networks.values():
            # As after a fit: a latent search keeps nothing for weights.
            network.eval().requires_grad_(False)
        if detector.networks and bool(detector.score(images).isfinite().all()):
            return detector, "untrained"
    except torch.OutOfMemoryError:
        raise
    except Exception:  # what it lacks is unknown; if it is more than a fit, scoring will tell
        pass
    fitted = type(detector)(shortened(detector.config), device=detector.device, seed=detector.seed)
    small = TrainSet(*(_some(images, effort.fit_images) for images in (train.normal, train.anomalies)))
    fit(fitted, small)
    for each in (small.normal, small.anomalies):
        if each is not None:
            each.leave_gpu()
    return fitted, f"fitted on {len(small.normal)} images"


def shortened(config: Any) -> Any:
    """The same settings with one epoch of training, where there are epochs."""
    return config.model_copy(update={"epochs": 1}) if getattr(config, "epochs", 0) else config


def _some(images: ImageSet | None, count: int) -> Any:
    return sample(images, count) if images is not None and 0 < count < len(images) else images


def measure_speed(detector: Detector, images: Tensor, effort: Effort) -> dict[str, Any]:
    """All numbers of one detector; what cannot be told is None. `images` uint8 (N, C, H, W) on the CPU.

    Raises:
        AdbenchError: it gives no finite score for an image, be it at the second call: its times would be of nothing.
    """
    one = images[:1].to(detector.device)
    for _ in range(2):
        check_scores(scores_of(detector, one).float().cpu().numpy())
    memory = PeakMemory(detector.device)
    alone = clocks(detector.score, one, LATENCY_SAMPLES, effort.seconds)
    memory_alone = memory.megabytes()
    samples = {
        "batches": list(throughput(detector, images, effort)),
        "latency_samples_ms": [round(1000 * clock.device_seconds, 6) for clock in alone],
        "wall_samples_ms": [round(1000 * clock.seconds, 6) for clock in alone],
    }
    found = derived(samples)
    return {
        **found,
        "memory_mb_batch_1": memory_alone,
        "parameters": sum(detector.parameter_counts().values()),
        "flops_per_image": operations(detector, one),
        **energy(detector, repeated(images, found["best_batch"]).to(detector.device), effort),
        **samples,
    }


def throughput(detector: Detector, images: Tensor, effort: Effort) -> Iterator[dict[str, Any]]:
    """Images a second at batch 1, 2, 4, ..., until more is not faster, memory ends or `max_batch` is reached."""
    best, stalled, size = 0.0, 0, 1
    while size <= effort.max_batch and stalled < 2:
        try:
            line = one_batch(detector, repeated(images, size).to(detector.device), effort)
        except Exception as error:
            if not lacks_memory(error):
                raise
            yield {"batch": size, "images_per_second": None, "peak_memory_mb": None, "error": "out of memory"}
            return
        yield line
        rate = line["images_per_second"]
        stalled = 0 if rate > GAIN * best else stalled + 1
        best = max(best, rate)
        size *= 2


def one_batch(detector: Detector, images: Tensor, effort: Effort) -> dict[str, Any]:
    """Images a second at one size of batch, from the median call, and the memory that it takes."""
    memory = PeakMemory(detector.device)
    times = [c.device_seconds for c in clocks(detector.score, images, BATCH_SAMPLES, effort.seconds / 5)]
    rate = len(images) / float(np.median(times))
    return {"batch": len(images), "images_per_second": rate, "peak_memory_mb": memory.megabytes()}


def repeated(images: Tensor, count: int) -> Tensor:
    """The first `count` images, begun again where there are fewer."""
    return images[torch.arange(count) % len(images)]


def energy(detector: Detector, images: Tensor, effort: Effort) -> Mapping[str, Any]:
    """Mean power and energy an image while scoring one batch again and again, `marked` each time.

    None where NVML does not tell, or where `effort.seconds` are too few to tell.
    """
    meter = meter_of(detector.device)
    if meter is None or effort.seconds < LEAST:
        return {"watts": None, "joules_per_image": None}
    calls = 0
    with corners_kept(images), stopwatch(detector.device) as clock:
        before, started = meter(), perf_counter()
        while perf_counter() - started < effort.seconds:
            with stopwatch(detector.device):  # so that no queue of kernels builds up
                detector.score(marked(images))
            calls += 1
        joules = meter() - before
    return {"watts": joules / clock.seconds, "joules_per_image": joules / (calls * len(images))}

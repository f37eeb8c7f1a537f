"""What trained detectors share: the epoch loop with its guard, running means of losses, image scaling."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adbench_tgan.detector import Detector
from adbench_tgan.errors import TrainingDiverged

if TYPE_CHECKING:
    from adbench_tgan.data import TrainSet

Losses = Mapping[str, float]


def fit(
    detector: Detector, train: TrainSet, on_epoch: Callable[[int, Losses], None] | None = None
) -> list[dict[str, float]]:
    """Fit `detector` and return the losses of each epoch; every network ends in eval mode.

    Raises:
        TrainingDiverged: a loss is NaN or infinite.
    """
    history = []
    for number, losses in enumerate(epochs(detector, train), start=1):
        history.append(dict(losses))
        check_finite(losses, number)
        if on_epoch is not None:
            on_epoch(number, losses)
    for network in detector.networks.values():
        network.eval()
    return history


def epochs(detector: Detector, train: TrainSet) -> Iterator[Losses]:
    """The losses of each epoch of a training; none from a detector that only has `fit`."""
    if type(detector).fit is Detector.fit:
        yield from detector.epochs(train)
    else:
        detector.fit(train)


def check_finite(losses: Losses, epoch: int) -> None:
    """Raise `TrainingDiverged` naming the first loss that is NaN or infinite."""
    for name, value in losses.items():
        if not math.isfinite(value):
            raise TrainingDiverged(f"loss {name} became {value} in epoch {epoch}; try a lower learning rate")


def seed_everything(seed: int) -> None:
    """Seed every generator that a detector might use."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (strangers' detectors may use the global generator)
    torch.manual_seed(seed)  # every GPU too


def mean_losses(steps: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """The mean of each loss over an epoch's steps; read from the device once, at the end."""
    total: dict[str, Tensor] = {}
    count = 0
    for step in steps:
        count += 1
        for name, value in step.items():
            total[name] = total[name] + value.detach() if name in total else value.detach().clone()
    return {name: float(value) / count for name, value in total.items()}


def to_unit(images: Tensor) -> Tensor:
    """Uint8 in 0..255 -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8 in 0..255, clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

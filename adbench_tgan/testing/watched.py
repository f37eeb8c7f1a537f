"""Training images that remember what a detector asked them for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from adbench_tgan.data.images import ImageSet, TrainSet
from adbench_tgan.detector import Shape

OFFERED = {"normal", "anomalies", "shape", "on", "batches"}  # all that the contract names


class WatchedImages(ImageSet):
    """An `ImageSet` that gives what the contract offers and notes whatever else it is asked for."""

    def __init__(self, inner: ImageSet, asked: list[str]):
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "asked", asked)

    def __getattribute__(self, name: str) -> Any:
        return _offered(self, name)

    def __len__(self) -> int:
        return len(_inner(self))

    @property
    def shape(self) -> Shape:
        """Channels, height and width of each image."""
        return _inner(self).shape

    def on(self, device: str | torch.device) -> Tensor:
        """All images as one tensor."""
        return _inner(self).on(device)

    def batches(self, size: int, **how: Any) -> Iterator[Tensor]:
        """Yield uint8 (B, C, H, W)."""
        return _inner(self).batches(size, **how)


class WatchedTrainSet(TrainSet):
    """A `TrainSet` that notes whatever it is asked for beyond the contract."""

    def __init__(self, normal: ImageSet, anomalies: ImageSet | None, asked: list[str]):
        object.__setattr__(self, "asked", asked)
        object.__setattr__(self, "normal", WatchedImages(normal, asked))
        object.__setattr__(self, "anomalies", anomalies and WatchedImages(anomalies, asked))

    def __getattribute__(self, name: str) -> Any:
        return _offered(self, name)


def _inner(images: WatchedImages) -> ImageSet:
    inner: ImageSet = object.__getattribute__(images, "inner")
    return inner


def _offered(self: object, name: str) -> Any:
    if name in OFFERED or (name.startswith("__") and name.endswith("__")):
        return object.__getattribute__(self, name)
    object.__getattribute__(self, "asked").append(name)
    raise AttributeError(
        f"training images have no {name!r}: fit sees {', '.join(sorted(OFFERED))}, and no more"
    )

"""Datasets, protocols, and the image sets that detectors see. Importing this package does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adbench_tgan.data.spec import DatasetSpec, ProtocolSpec

if TYPE_CHECKING:
    from adbench_tgan.data.images import ImageSet, Split, TrainSet
    from adbench_tgan.data.samples import Cut, Dataset, Samples

__all__ = ["Cut", "Dataset", "DatasetSpec", "ImageSet", "ProtocolSpec", "Samples", "Split", "TrainSet"]


def __getattr__(name: str) -> Any:
    if name in ("ImageSet", "Split", "TrainSet"):
        from adbench_tgan.data import images

        return getattr(images, name)
    if name in ("Cut", "Dataset", "Samples"):
        from adbench_tgan.data import samples

        return getattr(samples, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

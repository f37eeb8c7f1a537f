"""A benchmark of visual anomaly detectors whose every number can be trusted, and checked by a stranger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adbench_tgan.data import DatasetSpec, ProtocolSpec
from adbench_tgan.detector import Detector, DetectorConfig, DetectorInfo
from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import CommandSpec, ExecutorSpec, hookimpl

if TYPE_CHECKING:
    from adbench_tgan.data import Cut, Dataset, ImageSet, Samples, TrainSet
    from adbench_tgan.training import mean_losses, to_uint8, to_unit

__version__ = "0.1.0"

__all__ = [
    "AdbenchError",
    "CommandSpec",
    "Cut",
    "Dataset",
    "DatasetSpec",
    "Detector",
    "DetectorConfig",
    "DetectorInfo",
    "ExecutorSpec",
    "ImageSet",
    "ProtocolSpec",
    "Samples",
    "TrainSet",
    "hookimpl",
    "mean_losses",
    "to_uint8",
    "to_unit",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used, so that listing detectors stays instant."""
    if name in ("Cut", "Dataset", "ImageSet", "Samples", "TrainSet"):
        from adbench_tgan import data

        return getattr(data, name)
    if name in ("mean_losses", "to_uint8", "to_unit"):
        from adbench_tgan import training

        return getattr(training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

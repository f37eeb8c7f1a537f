"""A benchmark of visual anomaly detectors whose every number can be trusted, and checked by a stranger."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from adbench_tgan.data import DatasetSpec, ProtocolSpec
from adbench_tgan.errors import AdbenchError, NotHere
from adbench_tgan.hooks import CommandSpec, ExecutorSpec, hookimpl
from adbench_tgan.info import DetectorInfo
from adbench_tgan.metrics import MetricSpec

if TYPE_CHECKING:
    from adbench_tgan.data import Cut, Dataset, ImageSet, Samples, TrainSet
    from adbench_tgan.detector import Detector, DetectorConfig
    from adbench_tgan.training import Endless, adam, captured, mean_losses, stepper, to_uint8, to_unit

__version__ = "0.1.0"

# A search of latent space has to be repeatable to the last bit. cuBLAS looks only once whether it is to be: at its first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

__all__ = [
    "AdbenchError",
    "CommandSpec",
    "Cut",
    "Dataset",
    "DatasetSpec",
    "Detector",
    "DetectorConfig",
    "DetectorInfo",
    "Endless",
    "ExecutorSpec",
    "ImageSet",
    "MetricSpec",
    "NotHere",
    "ProtocolSpec",
    "Samples",
    "TrainSet",
    "adam",
    "captured",
    "hookimpl",
    "mean_losses",
    "stepper",
    "to_uint8",
    "to_unit",
]


HOMES = (  # of names whose import takes time: pydantic's or torch's
    dict.fromkeys(("Detector", "DetectorConfig"), "detector")
    | dict.fromkeys(
        ("Endless", "adam", "captured", "mean_losses", "stepper", "to_uint8", "to_unit"), "training"
    )
    | dict.fromkeys(("Cut", "Dataset", "ImageSet", "Samples", "TrainSet"), "data")
)


def __getattr__(name: str) -> Any:
    """Import what takes time when it is first used, so that listing detectors stays instant."""
    if name in HOMES:
        return getattr(import_module(f"adbench_tgan.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

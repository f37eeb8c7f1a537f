"""What is known of a dataset or a protocol before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["classes", "defects"]  # class labels, or per category normal images and defects


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """`target` is a function ``(root: Path, fetch: bool) -> Dataset``; with `fetch` it may download into `root`.

    Its images are uint8 (C, H, W), with 1 or 3 channels.
    """

    name: str
    target: str
    layout: Layout
    protocol: str  # used if a command names none
    preset: str = "paper"  # used if a command names none
    channels: int = 3  # for which `adbench info` counts parameters; in a run the images decide
    summary: str = ""
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class ProtocolSpec:
    """`target` is a function ``(samples: Samples, category: str) -> Cut``.

    No test image may be among the training images; labels are 0 or 1.
    """

    name: str
    version: str
    target: str
    layout: Layout  # of the datasets that it can split
    datasets: tuple[str, ...] = ()  # names of the only datasets that it can split; empty: all of that layout
    categories: tuple[str, ...] = ()  # the only categories that it has; empty: those of the dataset
    summary: str = ""

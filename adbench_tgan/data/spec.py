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
    protocol: str  # used when none is asked for
    preset: str = "paper"  # used when none is asked for
    channels: int = 3  # of the networks that `adbench info` counts; those of a run have as many as the images
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
    layout: Layout  # of the datasets it can cut
    datasets: tuple[str, ...] = ()  # the only ones it can cut, by name; empty: all of that layout
    categories: tuple[str, ...] = ()  # the only ones it has; empty: those of the dataset
    summary: str = ""

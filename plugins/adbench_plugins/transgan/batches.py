"""Batches of training images with their features from a frozen network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adbench_tgan import to_unit


class Batch(NamedTuple):  # of tensors, so that a captured step can take it apart
    x: Tensor  # (B, C, H, W) in [-1, 1]
    feats: Tensor | None  # (B, F)


@dataclass(frozen=True)
class Images:
    """Training images and, where the backbone is frozen, their features."""

    pixels: Tensor  # uint8 (N, C, H, W)
    feats: Tensor | None  # (N, F)

    def take(self, index: Tensor, device: str | torch.device) -> Batch:
        pixels = self.pixels[index.to(self.pixels.device)].to(device, non_blocking=True)
        feats = None if self.feats is None else self.feats[index.to(self.feats.device)]
        return Batch(to_unit(pixels), feats)


def draw(count: int, wanted: int, shuffle: torch.Generator) -> Tensor:
    """`wanted` of `count` indices in random order; all of them before any comes again."""
    passes = -(-wanted // count)
    return torch.cat([torch.randperm(count, generator=shuffle) for _ in range(passes)])[:wanted]


def one_pass(
    normal: Images, anomalous: Images | None, size: int, shuffle: torch.Generator, device: str | torch.device
) -> Iterator[tuple[Batch, Batch | None]]:
    """All normal images, `size` at a time, an incomplete last batch dropped, and as many anomalous ones beside them."""
    size = min(size, len(normal.pixels))
    steps = len(normal.pixels) // size
    order = draw(len(normal.pixels), steps * size, shuffle).split(size)
    partners = draw(len(anomalous.pixels), steps * size, shuffle).split(size) if anomalous else ()
    for step in range(steps):
        partner = anomalous.take(partners[step], device) if anomalous else None
        yield normal.take(order[step], device), partner

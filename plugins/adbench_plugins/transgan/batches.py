"""Training images with the features of a frozen network, taken in batches."""

from __future__ import annotations

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

"""The images that detectors are checked with, made from a seed: nothing to download, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from adbench_tgan.detector import Shape


def smooth_images(count: int, shape: Shape, seed: int) -> Tensor:
    """Smooth random images around one pattern, uint8 (count, C, H, W): easier to learn than noise."""
    draw = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    ramp = torch.linspace(60, 160, height)[:, None] + torch.linspace(0, 40, width)
    coarse = torch.randn(count, channels, 4, 4, generator=draw) * 25
    detail = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (ramp + detail).round().clamp(0, 255).to(torch.uint8)


def negative(images: Tensor) -> Tensor:
    """The negatives of images: nothing like them was among the normal ones."""
    return 255 - images


def other_images(count: int, shape: Shape, seed: int) -> Tensor:
    """Images of another kind to train on, darker and mirrored: uint8 (count, C, H, W)."""
    return smooth_images(count, shape, seed).flip(3).div(2, rounding_mode="floor")


def noise(images: Tensor) -> Tensor:
    """As many images of independent pixels."""
    return torch.randint(0, 256, images.shape, generator=torch.Generator().manual_seed(3)).to(torch.uint8)


def with_chequers(images: Tensor) -> Tensor:
    """The images with black and white squares on all but a rim."""
    side = images.shape[-1]
    rim = side // 8
    index = torch.arange(side - 2 * rim) // max(rim, 1)
    marked = images.clone()
    marked[:, :, rim : side - rim, rim : side - rim] = 255 * ((index[:, None] + index) % 2).to(torch.uint8)
    return marked


DEFECTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "negative": negative,
    "noise": noise,
    "chequered": with_chequers,
    "black": torch.zeros_like,
    "white": lambda images: torch.full_like(images, 255),
}

"""DiffAugment: random, differentiable augmentations of the images that a discriminator sees in training.

Zhao, Liu, Lin, Zhu, Han: Differentiable Augmentation for Data-Efficient GAN Training, NeurIPS 2020,
https://arxiv.org/abs/2006.10738. `variant="mit"` has the magnitudes of that paper; `variant="asarigun"` those of the
TransGAN code that the thesis builds on: translation by up to 20 %, and a cutout of all images of a batch in three
batches of ten, and of none in the others.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Variant = Literal["mit", "asarigun", "none"]


def diffaugment(images: Tensor, variant: Variant) -> Tensor:
    """Shift, cut out and recolour images (B, C, H, W), each with random numbers of its own; not at all with "none"."""
    if variant == "none":
        return images
    images = translate(images, 0.125 if variant == "mit" else 0.2)
    images = cutout(images, 1.0 if variant == "mit" else 0.3)
    return contrast(saturation(brightness(images)))


def brightness(images: Tensor) -> Tensor:
    """Add one number in [-.5, .5) to each image."""
    return images + uniform(images, -0.5, 0.5)


def saturation(images: Tensor) -> Tensor:
    """Multiply each pixel's distance to its own grey by a number in [0, 2); grey images stay as they are."""
    grey = images.mean(1, keepdim=True)
    return (images - grey) * uniform(images, 0.0, 2.0) + grey


def contrast(images: Tensor) -> Tensor:
    """Multiply each image's distance to its mean by a number in [.5, 1.5)."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * uniform(images, 0.5, 1.5) + mean


def translate(images: Tensor, ratio: float) -> Tensor:
    """Shift each image by up to `ratio` of its sides; zeros come in from outside."""
    for dim in (2, 3):
        side = images.shape[dim]
        most = int(side * ratio + 0.5)
        shift = torch.randint(-most, most + 1, (len(images), 1), device=images.device)
        source = torch.arange(side, device=images.device) + shift  # (B, side)
        inside = along(dim, (source >= 0) & (source < side))
        index = along(dim, source.clamp(0, side - 1)).expand_as(images)
        images = images.gather(dim, index) * inside
    return images


def cutout(images: Tensor, probability: float) -> Tensor:
    """Set a square of half the side to zero, which may cross the border: with `probability` in all images, else in none."""
    hole = torch.ones(1, dtype=torch.bool, device=images.device)
    for dim in (2, 3):
        side = images.shape[dim]
        size = int(side * 0.5 + 0.5)
        centre = torch.randint(0, side + 1 - size % 2, (len(images), 1), device=images.device)
        from_first_line = torch.arange(side, device=images.device) - centre + size // 2
        hole = hole & along(dim, (from_first_line >= 0) & (from_first_line < size))
    chosen = torch.rand(1, device=images.device) < probability
    return images * ~(hole & chosen)


def uniform(images: Tensor, low: float, high: float) -> Tensor:
    """One random number for each image, (B, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, dtype=images.dtype, device=images.device) * (high - low) + low


def along(dim: int, lines: Tensor) -> Tensor:
    """(B, side) -> (B, 1, side, 1) for dim 2, (B, 1, 1, side) for dim 3."""
    return lines[:, None, :, None] if dim == 2 else lines[:, None, None, :]

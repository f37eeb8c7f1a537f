"""The losses of the two-discriminator TransGAN as functions of tensors; equations are those of Khemka's thesis."""

from __future__ import annotations

import torch
from torch import Tensor


def l1_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean absolute error of (B, C, H, W)."""
    return (x - x_hat).abs().mean()


def patch_loss(x: Tensor, x_hat: Tensor, size: int, top: int) -> Tensor:
    """Equation 3: the mean error of each image's `top` worst patches of `size` x `size`, averaged over images."""
    error = (x - x_hat).abs().mean(1)  # (B, H, W)
    patches = error.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (B, H/size, size, W/size, size)
    means = patches.mean((2, 4)).flatten(1)  # (B, patches)
    return means.topk(min(top, means.shape[1]), dim=1).values.mean()


def latent_loss(z: Tensor, z_hat: Tensor) -> Tensor:
    """Equation 4: the mean absolute difference between the z of an image and that of its reconstruction, (B, latent)."""
    return (z - z_hat).abs().mean()


def abc_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """Equation 7, with 1e-6 of ours: -log(1 - exp(-L1) + 1e-6) of each image's L1 error, averaged; falls as the error grows."""
    error = (x - x_hat).abs().mean((1, 2, 3))  # (B,)
    return -torch.log(-torch.expm1(-error) + 1e-6).mean()


def lsgan_loss(logits: Tensor, target: float) -> Tensor:
    """Mean squared distance of raw logits, (B,), to `target`."""
    return (logits - target).square().mean()


def lsgan_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Raw logits, (B,) each: real to 1, fake to 0."""
    return lsgan_loss(real, 1.0) + lsgan_loss(fake, 0.0)

"""The discriminator of Skip-GANomaly and its losses, which Skip-Attention GAN and AnoTrans use as well.

Akcay, Atapour-Abarghouei, Breckon, IJCNN 2019, https://arxiv.org/abs/1901.08954. The discriminator judges images. Its
codes of an image and of its reconstruction are compared in the losses and in the score.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adbench_baselines.layers import dcgan_init, encoder


class Discriminator(nn.Module):
    """x -> the logit that x is real (B,), and its code f(x) (B, latent), which is not activated."""

    def __init__(self, size: int, channels: int, width: int = 64, latent: int = 100):
        super().__init__()
        self.encoder = encoder(size, channels, width, latent)
        # Of its 9 taps only the centre sees the code.
        self.classifier = nn.Conv2d(latent, 1, 3, 1, 1, bias=False)
        self.apply(dcgan_init)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.encoder(x)  # (B, latent, 1, 1)
        return self.classifier(f).flatten(), f.flatten(1)


def adversarial_loss(logit: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of logits (B,) with the label "real" or "generated"."""
    return F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, float(real)))


def generator_loss(
    x: Tensor, x_hat: Tensor, f: Tensor, f_hat: Tensor, logit_hat: Tensor, config: Any
) -> Tensor:
    """Adversarial + contextual + latent loss, all element means."""
    return (
        config.w_adv * adversarial_loss(logit_hat, real=True)
        + config.w_con * F.l1_loss(x_hat, x)
        + config.w_lat * F.mse_loss(f_hat, f)
    )


def discriminator_loss(logit: Tensor, logit_hat: Tensor, f: Tensor, f_hat: Tensor, config: Any) -> Tensor:
    """Images towards 1, reconstructions towards 0, not halved; with `d_uses_lat`, plus the latent loss."""
    loss = adversarial_loss(logit, real=True) + adversarial_loss(logit_hat, real=False)
    return loss + config.w_lat * F.mse_loss(f_hat, f) if config.d_uses_lat else loss


def anomaly_score(x: Tensor, x_hat: Tensor, f: Tensor, f_hat: Tensor, score_lambda: float) -> Tensor:
    """A(x) = lambda R(x) + (1 - lambda) L(x), mean squares over pixels and over the code."""
    in_image = (x - x_hat).square().flatten(1).mean(1)  # (B,)
    in_code = (f.float() - f_hat.float()).square().mean(1)  # (B,)
    return score_lambda * in_image + (1 - score_lambda) * in_code

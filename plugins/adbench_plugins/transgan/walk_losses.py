"""The two losses of TransGAN's latent walk, each between an image and its reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor

from adbench_plugins.transgan.networks import Discriminator

Weight = Annotated[float, Field(ge=0)]


def mixed(mix: tuple[float, float]) -> tuple[float, float]:
    """Two weights of which one at least is not 0.

    Raises:
        ValueError: both are.
    """
    if not any(mix):
        raise PydanticCustomError(
            "mix", "both are 0, which leaves nothing of R; to search by D alone set lam=1"
        )
    return mix


Mix = Annotated[tuple[Weight, Weight], AfterValidator(mixed)]


def residual_loss(x: Tensor, x_hat: Tensor, mix: Mix) -> Tensor:
    """R of each image, (B,): its mean absolute and its mean squared error, weighted by `mix`."""
    error = (x - x_hat).flatten(1)
    return mix[0] * error.abs().mean(1) + mix[1] * error.square().mean(1)


def feature_loss(layers: Sequence[Tensor], layers_hat: Sequence[Tensor]) -> Tensor:
    """D of each image, (B,): the mean absolute difference of each layer, averaged over layers."""
    pairs = zip(layers, layers_hat, strict=True)
    return torch.stack([(a - b).abs().flatten(1).mean(1) for a, b in pairs]).mean(0)


def features(discriminator: Discriminator, x: Tensor) -> list[Tensor]:
    """The patch embedding, (B, n, width), and the tokens after each of the first half of the blocks."""
    patches = discriminator.embed(x).flatten(2).mT
    cls = discriminator.cls.expand(len(x), -1, -1)
    tokens = torch.cat([cls, patches], dim=1) + discriminator.positions  # (B, 1 + n, width)
    layers = [patches]
    for block in discriminator.blocks[: len(discriminator.blocks) // 2]:
        tokens = block(tokens)
        layers.append(tokens)
    return [layer.float() for layer in layers]

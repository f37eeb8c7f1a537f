"""What tests of networks begin with: images of noise, an optimiser that does nothing, and which weights have moved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adbench_baselines.latent_search import Ends
from adbench_tgan import Detector


def images(count: int = 16, channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    """Independent pixels: uint8 (count, channels, size, size)."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=draw)


def idle() -> torch.optim.Optimizer:
    """An optimiser that moves nothing of any network."""
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)


def weights(network: nn.Module) -> list[Tensor]:
    """Copies of a network's parameters."""
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(before: list[Tensor], network: nn.Module) -> list[bool]:
    """Of each parameter whether it is still as it was."""
    return [torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]


def changed(detector: Detector, **settings: object) -> Detector:
    """A detector that searches, with the same networks and other settings."""
    twin = type(detector)(detector.config.model_copy(update=settings), seed=detector.seed)
    twin.generator, twin.discriminator = detector.generator, detector.discriminator
    twin.ends = Ends(twin.generator)
    return twin

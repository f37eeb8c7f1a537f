"""What several papers share: the DCGAN pyramid and its initialisation, the gradient penalty, budgets in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from adbench_tgan import AdbenchError

REPORTS = 20


def check_size(size: int) -> None:
    """Refuse a side that the pyramid cannot halve down to 4."""
    if size < 16 or size & (size - 1):
        raise AdbenchError(f"image_size={size}: it must be a power of two, 16 or more; try 32 or 64")


def pyramid(size: int, channels: int, width: int) -> nn.Sequential:
    """(B, channels, size, size) -> (B, width * size // 8, 4, 4), halving the side and doubling the width."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    while (size := size // 2) > 4:
        layers += [
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
        ]
        width *= 2
    return nn.Sequential(*layers)


def encoder(size: int, channels: int, width: int, latent: int) -> nn.Sequential:
    """(B, channels, size, size) -> (B, latent, 1, 1)."""
    top = width * size // 8
    return nn.Sequential(pyramid(size, channels, width), nn.Conv2d(top, latent, 4, 1, 0, bias=False))


def decoder(size: int, channels: int, width: int, latent: int) -> nn.Sequential:
    """(B, latent, 1, 1) -> (B, channels, size, size) in [-1, 1]."""
    top = width * size // 8
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(latent, top, 4, 1, 0, bias=False),
        nn.BatchNorm2d(top),
        nn.ReLU(),
    ]
    while top > width:
        layers += [
            nn.ConvTranspose2d(top, top // 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(top // 2),
            nn.ReLU(),
        ]
        top //= 2
    return nn.Sequential(*layers, nn.ConvTranspose2d(top, channels, 4, 2, 1, bias=False), nn.Tanh())


def dcgan_init(module: nn.Module) -> None:
    """Convolutions N(0, .02), batch norm weights N(1, .02), biases 0; for `nn.Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP: mean of (||grad of the critic at a random mix||_2 - 1)^2, one mixing weight per image."""
    weight = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    mix = torch.lerp(fake.detach(), real.detach(), weight).requires_grad_()  # (B, C, H, W)
    (gradient,) = torch.autograd.grad(critic(mix).sum(), mix, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def portions(steps: int) -> Iterator[int]:
    """`steps` cut into about `REPORTS` equal parts, the last one smaller: how often losses are reported."""
    part = -(-steps // REPORTS)
    yield from (min(part, steps - start) for start in range(0, steps, part))

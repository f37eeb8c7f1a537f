"""Parts that several papers share: DCGAN's networks and initialisation, averages of weights, the gradient penalty,
budgets in steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Self

import torch
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from adbench_tgan import AdbenchError, DetectorConfig

Decay = Annotated[float, Field(ge=0, lt=1)]  # of a moment, as Adam takes it
Rate = Annotated[float, Field(gt=0, le=1e6)]  # of learning; with much larger ones optimisers overflow
REPORTS = 20
WON = 1e-5  # a discriminator whose loss falls under this has won, and is drawn anew
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081  # of MNIST's pixels in [0, 1]


def halved(size: int) -> int:
    """The side of images that the pyramid halves down to 4.

    Raises:
        ValueError: it cannot.
    """
    if size < 16 or size & (size - 1):
        raise PydanticCustomError("side", "image_size must be a power of two, 16 or more; try 32 or 64")
    return size


def check_weights(config: DetectorConfig, *names: str) -> None:
    """Refuse weights of the generator's losses that are all 0: it would learn nothing."""
    if not any(getattr(config, name) for name in names):
        raise PydanticCustomError(
            "weights",
            "{names} are all 0, with which the generator learns nothing; set one of them",
            {"names": ", ".join(names)},
        )


class PyramidConfig(DetectorConfig):
    """Settings of networks that halve images down to 4 x 4; those that begin with w_ are weights of the generator's losses."""

    image_size: Annotated[int, AfterValidator(halved)] = 32
    """side in pixels to which the benchmark resizes images for this detector: a power of two, 16 or more"""

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if weights := [name for name in type(self).model_fields if name.startswith("w_")]:
            check_weights(self, *weights)
        return self


def check_pair(size: int) -> None:
    """Refuse batches of one image where batch norm is applied to vectors: a single one has no variance."""
    if size < 2:
        raise AdbenchError("batch norm needs two images in a batch here; give more training images")


def check_grey(detector: str, channels: int) -> None:
    """Refuse MNIST's scaling for images that are not grey."""
    if channels != 1:
        raise AdbenchError(
            f"{detector}.legacy_mnist_norm is for grey images, not for those with {channels} channels; leave it off"
        )


def to_mnist_norm(images: Tensor) -> Tensor:
    """Uint8 in 0..255 -> float32 in [-0.42, 2.82]: MNIST's mean subtracted, divided by its standard deviation."""
    return (images.float() / 255 - MNIST_MEAN) / MNIST_STD


def from_mnist_norm(images: Tensor) -> Tensor:
    """Float in [-0.42, 2.82] -> uint8 in 0..255, clipped."""
    return ((images * MNIST_STD + MNIST_MEAN) * 255).round().clamp(0, 255).to(torch.uint8)


def pyramid(size: int, channels: int, width: int, extra_layers: int = 0) -> nn.Sequential:
    """(B, channels, size, size) -> (B, width * size // 8, 4, 4), halving the side and doubling the width."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for _ in range(extra_layers):
        layers += [*same_size(width), nn.LeakyReLU(0.2)]
    while (size := size // 2) > 4:
        layers += [
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
        ]
        width *= 2
    return nn.Sequential(*layers)


def same_size(width: int) -> list[nn.Module]:
    """A convolution that keeps size and width, and its batch norm."""
    return [nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]


def encoder(size: int, channels: int, width: int, latent: int, extra_layers: int = 0) -> nn.Sequential:
    """(B, channels, size, size) -> (B, latent, 1, 1)."""
    top = width * size // 8
    layers = pyramid(size, channels, width, extra_layers)
    return nn.Sequential(layers, nn.Conv2d(top, latent, 4, 1, 0, bias=False))


def decoder(size: int, channels: int, width: int, latent: int, extra_layers: int = 0) -> nn.Sequential:
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
    for _ in range(extra_layers):
        layers += [*same_size(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(top, channels, 4, 2, 1, bias=False), nn.Tanh())


class Discriminator(nn.Module):
    """x -> the logit that x is real, and the features f(x) before the last convolution."""

    def __init__(self, size: int, channels: int, width: int, extra_layers: int = 0):
        super().__init__()
        self.features = pyramid(size, channels, width, extra_layers)
        self.classifier = nn.Conv2d(width * size // 8, 1, 4, 1, 0, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.features(x)  # (B, width * H / 8, 4, 4)
        return self.classifier(f).flatten(), f  # (B,)


def dcgan_init(module: nn.Module) -> None:
    """Convolutions N(0, .02), batch norm weights N(1, .02), biases 0; for `nn.Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def restart_where(won: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """Reinitialise a DCGAN network if `won`, a boolean tensor () on its device, is true; return `won` as 0. or 1.

    Running statistics and the optimiser's moments are reset too. New weights are drawn in every call and undone if
    `won` is false, so that nothing waits for the device to report it.
    """
    values = [*network.parameters(), *network.buffers()]
    before = [value.clone() for value in values]
    for module in network.modules():
        dcgan_init(module)
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    for value, old in zip(values, before, strict=True):
        value.copy_(torch.where(won, value, old))
    for state in optimizer.state.values():
        for moment in state.values():
            moment.masked_fill_(won.to(moment.device), 0)
    return won.float()


def restart_if_won(discriminator: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """Reinitialise a discriminator that has won, with its optimiser; return whether it had, as 0. or 1."""
    return restart_where(loss.detach() < WON, discriminator, optimizer)


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """In this block, let gradients pass through `networks` and accumulate none in their parameters.

    A block that fails leaves nothing frozen: a step whose CUDA graph cannot be captured is run again without one.
    """
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


class Average:
    """A running average of a network's weights, `module`; its buffers, such as batch norm's statistics, are the live ones.

    Like torch's AveragedModel, which reads from the device at every step whether it is the first: a CUDA graph cannot.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.module = copy.deepcopy(network).requires_grad_(False)
        self.weight = 1.0  # of the live weights: at first they are the average
        self.next_weight = 1 - decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        averages, live = list(self.module.parameters()), list(network.parameters())
        torch._foreach_lerp_(averages, live, self.weight)
        self.weight = self.next_weight
        for average, buffer in zip(self.module.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """What `Detector.resume` keeps."""
        return {"module": self.module.state_dict(), "weight": self.weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the average whose state this is."""
        self.module.load_state_dict(state["module"])
        self.weight = state["weight"]


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP: mean of (||grad of the critic at a random mix||_2 - 1)^2, one mixing weight per image."""
    weight = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    fake = fake.detach().to(real.dtype)  # autocast may have made it shorter
    mix = torch.lerp(fake, real.detach(), weight).requires_grad_()  # (B, C, H, W)
    (gradient,) = torch.autograd.grad(critic(mix).sum(), mix, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def portions(steps: int) -> list[int]:
    """`steps` cut into about `REPORTS` equal parts, the last one smaller: how often losses are reported."""
    part = -(-steps // REPORTS)
    return [min(part, steps - start) for start in range(0, steps, part)]

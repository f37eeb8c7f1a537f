"""EGBAD: a BiGAN, whose discriminator judges pairs of an image x and a latent code z; an image is anomalous if its
reconstruction G(E(x)) differs from it, in pixels or in the discriminator's features.

Zenati, Foo, Lecouat, Manek, Chandrasekhar: "Efficient GAN-Based Anomaly Detection", ICLR Workshops 2018,
https://arxiv.org/abs/1802.06222. Authors' code: https://github.com/houssamzenati/Efficient-GAN-Anomaly-Detection

Where this differs from the authors' code, and why
1. Their networks are for MNIST at 28 x 28 pixels. To allow other sizes and colour, ours follow the topology that a
   PyTorch article on EGBAD gives for 64 x 64, a DCGAN with biases: E and D end in a 4 x 4 convolution, with 8 * width
   features of x, and G starts with a transposed one.
2. The article's D has no joint layer: its logit comes straight from 8 * width features of x and as many of z, and its
   feature vector f does not depend on z. The authors' D has a layer on top of both. We add one: linear, 16 * width ->
   16 * width, LeakyReLU, dropout, followed by the logit. This adds 1,049,600 parameters to the article's D at width
   64; `feature="image"` is the article's D.
3. Dropout follows every activation of D, as in the authors' code; the article has none (`dropout=0`).
4. The first blocks of E and D have no batch norm, as in the authors' code; the article has it there (`bn_first=True`).
   D's branch of z has batch norm, as in the article; the authors' has none.
5. lr is 2e-4 and z has 100 dimensions. Theirs are 1e-5, with no default number of epochs, and 200.
6. Training is counted in steps. Their code has no default number of epochs, and the averages of the weights reach back
   about 1,000 steps: after a fixed number of epochs, those of small categories would still be close to the initial
   weights.
7. Training and test images are split once. Their code draws a new permutation for each of the two sets, so that about
   80 % of its normal test images are training images.
8. The batch size is 100, or the whole training set if that is smaller (60 images for MVTec AD's toothbrush).
9. `anomaly_map`, |x - G(E(x))| averaged over channels, is our addition; their code has none.
10. G's running statistics of batch norm are of G(z) only. In their code G(E(x)) is in the graph, and counts too.
11. These statistics are updated whenever a network runs in training: D's also in the step of G and E, those of G and E
    also in D's step. In their code each network's are updated in its own step alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from adbench_baselines.layers import Average, Decay, PyramidConfig, Rate, check_pair, frozen, halved, portions
from adbench_tgan import Detector, Endless, TrainSet, adam, mean_losses, stepper, to_uint8, to_unit

SLOPE = 0.1  # of LeakyReLU
BN_EPS = 1e-3  # the authors', TensorFlow's default


class Config(PyramidConfig):
    latent: int = Field(default=100, ge=1)
    """length of z; 200 in the authors' code"""
    width: int = Field(default=64, ge=1)
    """channels after the first convolution of encoder and discriminator, and before the generator's last"""
    feature: Literal["joint", "image"] = "joint"
    """f, the features that fm compares: of a joint layer on x and z (joint), or of x alone, without such a layer, as in the
    PyTorch article on EGBAD (image)"""
    bn_first: bool = False
    """batch norm in the first block of encoder and discriminator too, as in the PyTorch article on EGBAD"""
    bn_momentum: float = Field(default=0.01, gt=0, le=1)
    """momentum of batch norm: weight of the latest batch in its running statistics"""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """dropout rate in the discriminator"""
    steps: int = Field(default=20_000, ge=1)
    """training steps; each updates the discriminator, then generator and encoder"""
    batch_size: int = Field(default=100, ge=2)
    """images per step"""
    lr: Rate = 2e-4
    """learning rate of the three Adam optimisers; 1e-5 in the authors' code"""
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    """betas of the three Adam optimisers"""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """decay of the moving averages of the weights, which are used for scoring"""
    m: Literal["fm", "cross-e"] = "fm"
    """the discriminator's part of the score: feature matching (fm), or the cross-entropy of (G(E(x)), E(x)) being real
    (cross-e)"""
    w: float = Field(default=0.1, ge=0, le=1)
    """weight of the discriminator's part of the score; that of the residual is 1 - w"""


def norm(channels: int, c: Config) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=c.bn_momentum)


def trunk(size: int, channels: int, c: Config, dropout: float = 0.0) -> nn.Sequential:
    """(B, channels, size, size) -> (B, 8 * width)."""
    layers: list[nn.Module] = []
    inputs, outputs = channels, c.width
    while size > 4:
        layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1))
        if layers[1:] or c.bn_first:
            layers.append(norm(outputs, c))
        layers += [nn.LeakyReLU(SLOPE), nn.Dropout(dropout)]
        inputs, outputs, size = outputs, 2 * outputs, size // 2
    return nn.Sequential(*layers, nn.Conv2d(inputs, 8 * c.width, 4, 1, 0), nn.Flatten())


def encoder(size: int, channels: int, c: Config) -> nn.Sequential:
    """x (B, channels, size, size) -> z (B, latent)."""
    return nn.Sequential(trunk(size, channels, c), nn.Linear(8 * c.width, c.latent))


def generator(size: int, channels: int, c: Config) -> nn.Sequential:
    """z (B, latent) -> x (B, channels, size, size) in [-1, 1]."""
    top = c.width * size // 8
    layers = [
        nn.Unflatten(1, (c.latent, 1, 1)),
        nn.ConvTranspose2d(c.latent, top, 4, 1, 0),
        norm(top, c),
        nn.ReLU(),
    ]
    while top > c.width:
        layers += [nn.ConvTranspose2d(top, top // 2, 4, 2, 1), norm(top // 2, c), nn.ReLU()]
        top //= 2
    return nn.Sequential(*layers, nn.ConvTranspose2d(top, channels, 4, 2, 1), nn.Tanh())


class Discriminator(nn.Module):
    """x, z -> the logit that z was encoded from x, not x generated from z, and the features f(x, z)."""

    def __init__(self, size: int, channels: int, c: Config):
        super().__init__()
        side, joint = 8 * c.width, 16 * c.width
        self.feature = c.feature
        self.x_branch = trunk(size, channels, c, c.dropout)
        self.z_branch = nn.Sequential(
            nn.Linear(c.latent, side),
            nn.BatchNorm1d(side, eps=BN_EPS, momentum=c.bn_momentum),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(c.dropout),
        )
        last = (nn.Linear(joint, joint), nn.LeakyReLU(SLOPE), nn.Dropout(c.dropout))
        self.joint = nn.Sequential(*last) if c.feature == "joint" else nn.Identity()
        self.critic = nn.Linear(joint, 1)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        f_x = self.x_branch(x)  # (B, 8 * width)
        f = self.joint(torch.cat([f_x, self.z_branch(z)], 1))  # (B, 16 * width)
        return self.critic(f).flatten(), f if self.feature == "joint" else f_x


def initialise(module: nn.Module) -> None:
    """Initialise as the authors do: kernels N(0, .02), biases 0; batch norm stays at 1 and 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class Optimizers:
    generator: torch.optim.Optimizer
    encoder: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer


class EGBAD(Detector):
    Config = Config
    presets = {
        "quick": {
            "width": 16,
            "steps": 40,
            "batch_size": 16,
            "lr": 1e-3,
            "bn_momentum": 0.1,
            "ema_decay": 0.9,
        }
    }

    def build(self, shape: tuple[int, int, int]) -> None:
        channels, size, _ = shape
        halved(size)
        self.generator = generator(size, channels, self.config)
        self.encoder = encoder(size, channels, self.config)
        self.discriminator = Discriminator(size, channels, self.config)
        for network in self.networks.values():
            network.to(self.device).apply(initialise)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks; after training, with averaged weights."""
        return {"generator": self.generator, "encoder": self.encoder, "discriminator": self.discriminator}

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        self.build(train.shape)
        optimizers = self.optimizers()
        step = stepper(self, lambda a, b: self.averaged_step(averages, a, b, optimizers))
        averages = {name: Average(network, self.config.ema_decay) for name, network in self.networks.items()}
        pairs = self.pairs(train)
        done = self.resume(
            pairs=pairs,
            **{f"optimizer_{name}": getattr(optimizers, name) for name in self.networks},
            **{f"average_{name}": average for name, average in averages.items()},
        )
        for count in portions(self.config.steps)[done:]:
            yield mean_losses(step(*next(pairs)) for _ in range(count))
        for name, network in self.networks.items():
            network.load_state_dict(averages[name].module.state_dict())

    def expected_epochs(self, train: TrainSet) -> int:
        return len(portions(self.config.steps))

    def optimizers(self) -> Optimizers:
        c = self.config
        return Optimizers(
            **{name: adam(network.parameters(), c.lr, c.betas) for name, network in self.networks.items()}
        )

    def pairs(self, train: TrainSet) -> Endless[tuple[Tensor, Tensor]]:
        """Pairs of batches without end, a and b in two different orders, both new in each pass."""
        size = min(self.config.batch_size, len(train.normal))
        check_pair(size)

        def one_pass(order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
            passes = (
                train.normal.batches(size, device=self.device, shuffle=order, drop_last=True) for _ in "ab"
            )
            return ((to_unit(a), to_unit(b)) for a, b in zip(*passes, strict=True))

        return Endless(one_pass, self.seed)

    def averaged_step(
        self, averages: Mapping[str, Average], a: Tensor, b: Tensor, optimizers: Optimizers
    ) -> dict[str, Tensor]:
        losses = self.step(a, b, optimizers)
        for name, network in self.networks.items():
            averages[name].update(network)
        return losses

    def step(self, a: Tensor, b: Tensor, optimizers: Optimizers) -> dict[str, Tensor]:
        """One step of the discriminator on batch a, then one of generator and encoder together on batch b."""
        return self.discriminator_step(a, optimizers) | self.generator_encoder_step(b, optimizers)

    def draw(self, count: int) -> Tensor:
        return torch.randn(count, self.config.latent, device=self.device)  # z (count, latent)

    def discriminator_step(self, x: Tensor, optimizers: Optimizers) -> dict[str, Tensor]:
        z = self.draw(len(x))
        with torch.no_grad():
            code, image = self.encoder(x), self.generator(z)
        logits, logits_drawn = self.discriminator(x, code)[0], self.discriminator(image, z)[0]
        loss = bce(logits, 1).mean() + bce(logits_drawn, 0).mean()
        optimizers.discriminator.zero_grad()
        loss.backward()
        optimizers.discriminator.step()
        return {"loss_d": loss}

    def generator_encoder_step(self, x: Tensor, optimizers: Optimizers) -> dict[str, Tensor]:
        z = self.draw(len(x))
        with frozen(self.discriminator):
            loss_g = bce(self.discriminator(self.generator(z), z)[0], 1).mean()
            loss_e = bce(self.discriminator(x, self.encoder(x))[0], 0).mean()
        optimizers.generator.zero_grad()
        optimizers.encoder.zero_grad()
        (loss_g + loss_e).backward()  # each depends on its own network only
        optimizers.generator.step()
        optimizers.encoder.step()
        return {"loss_g": loss_g, "loss_e": loss_e}

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        """(1 - w) sum |x - G(E(x))| + w C(x): sums over pixels and over features, not means."""
        x = to_unit(images)
        z = self.encoder(x)
        x_hat = self.generator(z)
        w = self.config.w
        return ((1 - w) * l1(x, x_hat) + w * self.discriminator_score(x, x_hat, z)).float()

    def discriminator_score(self, x: Tensor, x_hat: Tensor, z: Tensor) -> Tensor:
        """C(x), (B,)."""
        logit, f_hat = self.discriminator(x_hat, z)
        return l1(self.discriminator(x, z)[1], f_hat) if self.config.m == "fm" else bce(logit, 1)

    @torch.no_grad()
    def anomaly_map(self, images: Tensor) -> Tensor:
        x = to_unit(images)
        return (x - self.generator(self.encoder(x))).abs().mean(1).float()

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        return to_uint8(self.generator(self.encoder(to_unit(images))))


def l1(a: Tensor, b: Tensor) -> Tensor:
    """The sum of absolute differences of each image, (B,)."""
    return (a - b).abs().flatten(1).sum(1)


def bce(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of each logit, (B,)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none")

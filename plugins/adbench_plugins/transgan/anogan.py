"""TransGAN as AnoGAN: TransGAN learns normal images; an image is anomalous if no z makes the generator draw it.

Nayan Khemka: Anomaly Detection using TransGAN, thesis, sections 3.2 and 3.3; its networks from Jiang, Chang, Wang:
TransGAN, NeurIPS 2021, https://arxiv.org/abs/2102.07074, in the form of https://github.com/asarigun/TransGAN.

Where this differs from the authors' code, and why

1. G and D are in eval mode when they score. Theirs keep the dropout of training (.5), so that one z gives many images.
2. DiffAugment is outside of D: real, generated and interpolated images are changed in training, and none in the
   search. Theirs changes both images anew for every comparison, which adds noise to the loss.
3. n_critic works: G takes one step after every 5 of D. Their counter stays at 0, so that G takes a step every time.
4. Weights of G are averaged for the search, the penalty has the drift term that its name "wgangp_eps" promises, and
   Adam's betas are (0, .99), as in VITA's TransGAN. Batches of 32, shuffled, instead of 8 in order.
5. D's features are the patch embedding and what leaves the first half of the blocks, as the text says ("first few
   layers"), and their distances are averaged. Their hooks take every layer to the logit, and sum.
6. The reconstruction loss is L1 (text); `r_mix=(.25,.75)` is the mixture of L1 and MSE of their code. lambda is .1,
   that of their printed detector; `lam=.001` is their default argument. `walk_steps=1000` as in their Table 3.
7. Images walk side by side, each as it would alone, from a z seeded by the detector's seed and the image's pixels;
   see latent_search.py. Theirs walk one at a time, some with a random flip, and defects for fewer steps. Always 50 of
   them (`together`), because transformers round differently in batches of other sizes, and 500 steps amplify it.
8. Residual maps are of the z that was found; theirs are of a z drawn anew.
9. Scores are the loss itself. Theirs cut the two parts at thresholds that were chosen on the test images.
10. Attention scale, tanh and dropout: see networks.py.
11. A budget in steps: `iterations` counts those of D, so that G takes 4,000 of 20,000. Theirs is 300 to 1,000 epochs, with
    G in each step and random flips.
12. Not offered: the two parts of the loss as scores of their own and the rule "either is too large" over them; a lighter
    generator for 64 pixels; dropout in D.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from adbench_baselines.latent_search import Ends, Found, in_groups, search, starts
from adbench_baselines.layers import Average, gradient_penalty, portions
from adbench_plugins.transgan.diffaugment import POLICY, diffaugment
from adbench_plugins.transgan.networks import Discriminator
from adbench_plugins.transgan.settings import (
    Shape,
    TransGANConfig,
    build_discriminator,
    build_generator,
    check_shape,
    check_side,
)
from adbench_tgan import (
    Detector,
    Endless,
    TrainSet,
    adam,
    mean_losses,
    stepper,
    to_uint8,
    to_unit,
)


class TransGANAnoGAN(Detector):
    """Score: the loss at the end of the walk, (1 - lambda) R + lambda D."""

    class Config(TransGANConfig):
        image_size: int = 64
        """side in pixels: the thesis's networks at 64 and 32; other multiples of 4 from 16 on are no one's but ours"""
        iterations: int = Field(default=20_000, ge=1)
        """steps of the discriminator, each with a batch of its own"""
        n_critic: int = Field(default=5, ge=1)
        """steps of the discriminator for one of the generator; 1 is what the thesis's code does"""
        batch_size: int = Field(default=32, ge=1)
        """images a step; 8 in the thesis"""
        lr: float = Field(default=1e-4, gt=0)
        """learning rate of both Adams"""
        betas: tuple[float, float] = (0.0, 0.99)
        """betas of both Adams; (.0001, .9) in the thesis's notebooks"""
        w_penalty: float = 10.0
        """weight of the gradient penalty"""
        w_drift: float = 1e-3
        """weight of the squared mean of the discriminator's output on real images; 0 in the thesis"""
        ema: float = Field(default=0.999, ge=0, lt=1)
        """decay of the average of the generator's weights, which is what searches; 0, the last weights, in the thesis"""

        lam: float = Field(default=0.1, ge=0, le=1)
        """lambda: share of the discriminator's loss; .001 is the thesis's default argument"""
        r_mix: tuple[float, float] = (1.0, 0.0)
        """weights of the mean absolute and the mean squared error; (.25, .75) in the thesis's code"""
        walk_steps: int = Field(default=500, ge=1)
        """steps of the latent walk; 1,000 in the thesis's tables"""
        walk_lr: float = Field(default=2e-2, gt=0)
        """learning rate of the walk's Adam"""
        walk_clip: float = Field(default=1.0, gt=0)
        """largest norm of the gradient of one image's z"""
        restarts: int = Field(default=1, ge=1)
        """walks an image, of which the best one counts"""
        patience: int = Field(default=0, ge=0)
        """steps between looks at whether an image's walk still gets on; 0 lets each take all steps"""
        tolerance: float = Field(default=1e-3, ge=0, lt=1)
        """with patience: a walk ends when its loss fell by no more than this share of itself"""
        together: int | None = Field(default=50, ge=1)
        """images that walk side by side, always so many: scores are then the same to the last bit in any batch"""

        @model_validator(mode="after")
        def _fits(self) -> TransGANAnoGAN.Config:
            check_side("transgan_anogan", self.image_size)
            return self

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {
            "image_size": 32,
            "iterations": 20,
            "batch_size": 8,
            "lr": 1e-3,
            "ema": 0.5,
            "walk_steps": 10,
            "together": 4,
            "latent": 64,
            "generator_width": 64,
            "generator_depths": (1, 0, 0),
            "discriminator_width": 32,
            "discriminator_depth": 2,
        }
    }

    def build(self, shape: Shape) -> None:
        channels, side = check_shape("transgan_anogan", shape)
        self.generator = build_generator(self.config, channels, side).to(self.device)
        self.discriminator = build_discriminator(self.config, channels, side).to(self.device)
        self.ends = Ends(self.generator)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """While training those that learn, afterwards with the average of the generator."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        """Train for `iterations` in rounds of n_critic steps of D and one of G; yield about every 1/20 of them."""
        self.build(train.shape)
        c = self.config
        optimizer_g, optimizer_d = self.adam(self.generator), self.adam(self.discriminator)
        batches = self.batches(train)

        def train_round(images: Sequence[Tensor]) -> dict[str, Tensor]:
            losses = self.step([to_unit(batch) for batch in images], optimizer_g, optimizer_d)
            average.update(self.generator)
            return losses

        step = stepper(self, train_round)
        average = Average(self.generator, c.ema)
        done = self.resume(optimizer_g=optimizer_g, optimizer_d=optimizer_d, batches=batches, average=average)
        for count in self.rounds[done:]:
            self.ends = Ends(self.generator)
            yield mean_losses(step(list(islice(batches, c.n_critic))) for _ in range(count))
        self.generator = average.module
        self.ends = Ends(self.generator)
        self.discriminator.requires_grad_(False)

    @property
    def rounds(self) -> list[int]:
        """How many rounds of training each epoch has."""
        return portions(-(-self.config.iterations // self.config.n_critic))

    def expected_epochs(self, train: TrainSet) -> int:
        return len(self.rounds)

    def batches(self, train: TrainSet) -> Endless[Tensor]:
        """Batches of uint8 images, pass after pass."""
        size = min(self.config.batch_size, len(train.normal))
        passes = partial(train.normal.batches, size, device=self.device, drop_last=True)
        return Endless(lambda order: passes(shuffle=order), self.seed)

    def adam(self, network: nn.Module) -> torch.optim.Adam:
        return adam(network.parameters(), self.config.lr, self.config.betas)

    def step(
        self, reals: Sequence[Tensor], optimizer_g: torch.optim.Optimizer, optimizer_d: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        """One step of D on each batch of `reals`, then one of G; the means of D's losses."""
        judged = [self.discriminator_step(real, optimizer_d) for real in reals]
        means = {name: torch.stack([losses[name] for losses in judged]).mean() for name in judged[0]}
        return means | {"loss_g": self.generator_step(len(reals[0]), optimizer_g)}

    def discriminator_step(self, real: Tensor, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """WGAN-GP with drift: -D(real) + D(fake) + 10 penalty + 1e-3 D(real)^2."""
        c = self.config
        with torch.no_grad():
            fake = self.generator(self.prior(len(real)))
        on_real, on_fake = self.critic(real), self.critic(fake)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            penalty = gradient_penalty(self.critic, real, fake)
        loss = on_fake.mean() - on_real.mean() + c.w_penalty * penalty + c.w_drift * on_real.mean().square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss_d": loss.detach(), "penalty": penalty.detach()}

    def generator_step(self, count: int, optimizer: torch.optim.Optimizer) -> Tensor:
        self.discriminator.requires_grad_(False)
        loss = -self.critic(self.generator(self.prior(count))).mean()
        self.discriminator.requires_grad_(True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def critic(self, x: Tensor) -> Tensor:
        """What D says of changed images, (B,); for training only."""
        variant = self.config.diffaugment
        return self.discriminator(x if variant == "none" else diffaugment(x, POLICY, variant))

    def prior(self, count: int) -> Tensor:
        """`count` z from N(0, I), (count, latent)."""
        return torch.randn(count, self.config.latent, device=self.device)

    @property
    def side_by_side(self) -> int:
        return self.config.together or 1

    def score(self, images: Tensor) -> Tensor:
        return self.ends.new(images, self.find).loss

    @torch.no_grad()
    def anomaly_map(self, images: Tensor) -> Tensor:
        return (to_unit(images) - self.draw(self.ends.known(images, self.find))).abs().sum(1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        return to_uint8(self.draw(self.ends.known(images, self.find)))

    def draw(self, z: Tensor) -> Tensor:  # (B, latent) -> (B, C, H, W)
        return self.generator(z).float()

    def find(self, images: Tensor) -> Found:
        """The z with which the generator draws each image best, and its loss."""
        return in_groups(self.walk, images, self.config.together)

    def walk(self, images: Tensor) -> Found:
        """Walk at a steady rate, from a z of each image's own."""
        c = self.config
        x = to_unit(images)
        with torch.no_grad():
            targets = (x, *features(self.discriminator, x))
        z0 = starts(images, c.latent, self.seed, c.restarts)
        rates = [c.walk_lr] * c.walk_steps
        return search(
            self.loss,
            targets,
            z0,
            rates,
            clip=c.walk_clip,
            patience=c.patience,
            tolerance=c.tolerance,
            detector=self,
        )

    def loss(self, z: Tensor, x: Tensor, *layers: Tensor) -> Tensor:
        """(1 - lambda) R + lambda D of each image, (B,); `layers` are D's features of x."""
        lam = self.config.lam
        x_hat = self.draw(z)
        return (1 - lam) * residual_loss(x, x_hat, self.config.r_mix) + lam * feature_loss(
            layers, features(self.discriminator, x_hat)
        )


def residual_loss(x: Tensor, x_hat: Tensor, mix: tuple[float, float]) -> Tensor:
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

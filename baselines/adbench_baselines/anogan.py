"""AnoGAN: a GAN is trained on normal images; an image is anomalous if no latent z makes the generator produce it.

Schlegl, Seeboeck, Waldstein, Schmidt-Erfurth, Langs: "Unsupervised Anomaly Detection with Generative Adversarial
Networks to Guide Marker Discovery", IPMI 2017, https://arxiv.org/abs/1703.05921. The authors published no code. The
search for z follows the baseline in https://github.com/houssamzenati/Efficient-GAN-Anomaly-Detection (EGBAD), the
re-implementation whose settings are best specified.

Where this differs from that code, and why
1. The networks are DCGAN's for 32 and 64 pixels, with 100 dimensions of z; EGBAD's are for MNIST's 28 pixels. The
   search compares 4,096 features at 32 pixels (8,192 at 64), EGBAD's 1,024. Both parts of the loss are sums.
2. The learning rate is 2e-4, as in the other re-implementations, and the batch size is 64. EGBAD's rate is 1e-5
   (`lr`), without a default number of epochs. Ours is 25 epochs, or 10,000 steps for a training set as small as MVTec
   AD's. There 25 epochs would be some hundred steps: too few for the networks, and for moving averages to move away
   from the first weights. On 5,000 images 25 epochs are 1,950 steps, after which the first step's weights still make
   up 14 % of the averages.
3. The search uses the moving averages of the weights of both networks. EGBAD gives D the averages of G, so that D runs
   with its raw weights.
4. All images of a batch are searched together, each as if it were alone: see latent_search.py. The starting point z0
   depends only on the detector's seed and the image's pixels, so that a score does not depend on what was scored
   before. Always 50 are searched at once (`together`), because convolutions round differently in batches of other
   sizes, and 500 steps amplify it.
5. Running statistics of batch norm in D, whose features the search compares, include the images generated in G's step:
   two batches of generated images to one of real ones. Those of G are updated in D's step too. In EGBAD's code each
   network's statistics are updated in its own step alone. Batch norm's epsilon and momentum are PyTorch's, 1e-5 and
   .1; EGBAD's are 1e-3 and .01.
6. `restarts` and early stopping (`patience`) are our additions, both off by default. The learning rate of the search
   changes after 200 and 300 steps; in EGBAD's code, which counts from 0, after 201 and 301.
7. Training and test images are split once. EGBAD's code draws a new permutation for each of the two sets, so that
   about 80 % of its normal test images are training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from adbench_baselines.latent_search import Ends, Found, in_groups, search, starts
from adbench_baselines.layers import (
    Average,
    Discriminator,
    PyramidConfig,
    Rate,
    dcgan_init,
    decoder,
    frozen,
    halved,
    portions,
)
from adbench_tgan import Detector, Endless, TrainSet, adam, mean_losses, stepper, to_uint8, to_unit

SMALL_SET = 1000  # images; fewer make epochs too short to be counted by
MVTEC_ITERATIONS = 10_000


class Config(PyramidConfig):
    latent: int = Field(default=100, ge=1)
    """nz: length of z"""
    width: int = Field(default=64, ge=1)
    """channels after the first convolution of D and before the last one of G"""
    epochs: int = Field(default=25, ge=1)
    """passes over the training images"""
    iterations: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    """training steps, which replace epochs; null: train for `epochs`; auto: 10,000 steps with fewer than 1,000 training
    images, as in MVTec AD, else null, which is also what it is where only `epochs` is set"""
    batch_size: int = Field(default=64, ge=2)
    """images per step"""
    lr: Rate = 2e-4
    """learning rate of both Adam optimisers; 1e-5 in EGBAD's code"""
    beta1: float = Field(default=0.5, ge=0, lt=1)
    """beta1 of both Adam optimisers"""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """decay of the moving averages of both networks' weights, which the search uses; 0: the last weights"""

    lam: float = Field(default=0.1, ge=0, le=1)
    """lambda: weight of the discriminator's part of the search loss; that of the residual is 1 - lambda"""
    feature: Literal["fm", "cross-e"] = "fm"
    """the discriminator's part: the distance between the features of x and of G(z) (fm), or the cross-entropy of G(z) being
    real (cross-e)"""
    steps: int = Field(default=500, ge=1)
    """Gamma: steps of the search"""
    search_lr: tuple[Rate, Rate, Rate] = (0.01, 0.001, 0.0005)
    """the three learning rates of the search, used one after the other"""
    search_lr_until: tuple[int, int] = (200, 300)
    """the last step with the first of those rates, and with the second"""
    restarts: int = Field(default=1, ge=1)
    """searches per image, of which the one with the lowest loss counts"""
    patience: int = Field(default=0, ge=0)
    """early stopping: every so many steps, a search whose loss has hardly fallen ends (see tolerance); 0: never"""
    tolerance: float = Field(default=1e-3, ge=0, lt=1)
    """with patience: a search ends if its loss has fallen by no more than this fraction of itself since the last check"""
    together: int | None = Field(default=50, ge=1)
    """images searched at once, always this many, so that a score is the same to the last bit in any batch; null: the whole batch"""


class AnoGAN(Detector):
    Config = Config
    presets = {
        "quick": {
            "width": 16,
            "epochs": 15,
            "iterations": None,
            "batch_size": 16,
            "ema": 0.9,
            "steps": 20,
            "search_lr": (0.1, 0.01, 0.005),
            "search_lr_until": (8, 12),
            "together": None,
        }
    }

    @classmethod
    def plan(cls, config: Config) -> Config:
        """Let `epochs` that are set count, of a small training set too, unless `iterations` are set as well."""
        if "epochs" in config.model_fields_set and "iterations" not in config.model_fields_set:
            return config.model_copy(update={"iterations": None})
        return config

    def build(self, shape: tuple[int, int, int]) -> None:
        channels, size, _ = shape
        halved(size)
        c = self.config
        self.generator = decoder(size, channels, c.width, c.latent).to(self.device).apply(dcgan_init)
        self.discriminator = Discriminator(size, channels, c.width).to(self.device).apply(dcgan_init)
        self.ends = Ends(self.generator)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """During training the networks that learn, afterwards those with averaged weights."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        self.build(train.shape)
        c = self.config
        optimizer_g, optimizer_d = self.adam(self.generator), self.adam(self.discriminator)
        batches = self.batches(train)

        def averaged_step(images: Tensor) -> dict[str, Tensor]:
            losses = self.step(to_unit(images), optimizer_g, optimizer_d)
            for name, network in self.networks.items():
                averages[name].update(network)
            return losses

        step = stepper(self, averaged_step)
        averages = {name: Average(network, c.ema) for name, network in self.networks.items()}
        kept = {f"average_{name}": average for name, average in averages.items()}
        done = self.resume(optimizer_g=optimizer_g, optimizer_d=optimizer_d, batches=batches, **kept)
        for count in self.counts(train)[done:]:
            self.ends = Ends(self.generator)
            yield mean_losses(map(step, islice(batches, count)))
        self.generator, self.discriminator = (averages[name].module for name in self.networks)
        self.ends = Ends(self.generator)

    def counts(self, train: TrainSet) -> list[int]:
        """How many steps each epoch has."""
        c = self.config
        iterations = c.iterations
        if iterations == "auto":
            iterations = MVTEC_ITERATIONS if len(train.normal) < SMALL_SET else None
        if iterations is not None:
            return portions(iterations)
        return [len(train.normal) // min(c.batch_size, len(train.normal))] * c.epochs

    def expected_epochs(self, train: TrainSet) -> int:
        return len(self.counts(train))

    def batches(self, train: TrainSet) -> Endless[Tensor]:
        """Batches of uint8 images in pass after pass."""
        size = min(self.config.batch_size, len(train.normal))
        passes = partial(train.normal.batches, size, device=self.device, drop_last=True)
        return Endless(lambda order: passes(shuffle=order), self.seed)

    def adam(self, network: nn.Module) -> torch.optim.Adam:
        return adam(network.parameters(), self.config.lr, (self.config.beta1, 0.999))

    def step(
        self, x: Tensor, optimizer_g: torch.optim.Optimizer, optimizer_d: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        """One step of D, then one of G with newly drawn z."""
        with torch.no_grad():
            fake = self.generator(self.prior(x))
        loss_d = discriminator_loss(self.discriminator(x)[0], self.discriminator(fake)[0])
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()

        with frozen(self.discriminator):
            loss_g = real_loss(self.discriminator(self.generator(self.prior(x)))[0]).mean()
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()
        return {"loss_g": loss_g, "loss_d": loss_d}

    def prior(self, x: Tensor) -> Tensor:
        """As many z from N(0, I) as there are images, (B, latent, 1, 1)."""
        return torch.randn(len(x), self.config.latent, 1, 1, device=x.device)

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
        return self.generator(z[:, :, None, None]).float()

    def find(self, images: Tensor) -> Found:
        """The z found for each image, and its loss.

        In training mode no group is filled up with copies of an image, as these would enter batch norm's statistics.
        """
        return in_groups(self.walk, images, None if self.generator.training else self.config.together)

    def walk(self, images: Tensor) -> Found:
        """Search with the three learning rates in turn, from a starting point of each image's own."""
        c = self.config
        x = to_unit(images)
        with torch.no_grad():
            f = self.discriminator(x)[1].float()
        first, second = c.search_lr_until
        rates = [
            c.search_lr[(number > first) + (number > max(first, second))] for number in range(1, c.steps + 1)
        ]
        z0 = starts(images, c.latent, self.seed, c.restarts, prior="truncated")
        return search(self.loss, (x, f), z0, rates, patience=c.patience, tolerance=c.tolerance, detector=self)

    def loss(self, z: Tensor, x: Tensor, f: Tensor) -> Tensor:
        """(1 - lambda) R(z) + lambda F(z) of each image, (B,): sums over pixels and features, not means."""
        x_hat = self.draw(z)
        logit, f_hat = self.discriminator(x_hat)
        residual = (x - x_hat).abs().flatten(1).sum(1)
        if self.config.feature == "fm":
            judged = (f - f_hat.float()).abs().flatten(1).sum(1)
        else:
            judged = real_loss(logit.float())
        return (1 - self.config.lam) * residual + self.config.lam * judged


def real_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of each logit, (B,), with the label "real"."""
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none")


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy on logits (B,): real images towards 1, generated ones towards 0."""
    return (real_loss(real) + real_loss(-fake)).mean()

"""TransGAN as AnoGAN: TransGAN is trained on normal images; an image is anomalous if no z makes G produce it.

Nayan Khemka: Anomaly Detection using TransGAN, thesis, sections 3.2 and 3.3; its networks from Jiang, Chang, Wang:
TransGAN, NeurIPS 2021, https://arxiv.org/abs/2102.07074, in the form of https://github.com/asarigun/TransGAN.
TransGAN's official code is https://github.com/VITA-Group/TransGAN (VITA's below).

Where this differs from the authors' code, and why

1. G and D are in eval mode when scoring. Theirs keep G's dropout (.5) active, so that one z gives many images.
2. DiffAugment is outside of D: real, generated and interpolated images are augmented in training, and none in the
   search. Their code augments both images anew for every comparison, which adds noise to the loss. Magnitudes are
   those of DiffAugment's authors (MIT): theirs shift by up to 20 %, not 12.5 %, and cut out in three batches of ten,
   not in all (`diffaugment=asarigun`).
3. n_critic works: G takes one step after every 5 of D. Their counter stays at 0, so that G takes a step every time.
4. G's weights are averaged for the search, the loss has the drift term that its name "wgangp_eps" promises, and Adam's
   betas are (0, .99), all as in VITA's TransGAN. Batches have 32 images, shuffled, instead of 8 in order.
5. D's features are the patch embedding and the outputs of the first half of the blocks, as the text says ("first few
   layers"), and their distances are averaged. Their code takes all layers, including the logit, and sums.
6. The reconstruction loss is L1 (text); `r_mix=[0.25,0.75]` is the mixture of L1 and MSE in their code. lambda is .1,
   as in their printed detector; `lam=.001` is the default argument in their code. The search has 500 steps;
   `walk_steps=1000` is their Table 3's.
7. Images are searched together, each as if it were alone, from a z that depends on the detector's seed and the image's
   pixels; see latent_search.py. Theirs are searched one at a time, some with a random flip, and defects for fewer
   steps. Always 50 are searched at once (`together`), because transformers round differently in batches of other
   sizes, and 500 steps amplify it.
8. Residual maps are those of the z that was found; theirs are those of a newly drawn z.
9. The score is the loss itself. Their code compares its two parts with thresholds chosen on the test images, and calls
   an image anomalous if either is exceeded. `score_by=or` is that rule as a continuous score: the larger of loss_r /
   tau_r and loss_d / tau_d, where each tau is the 95 % quantile on normal images held out of training. `thresholds`
   sets them instead: theirs are .5 and 1.5, the latter for a sum over D's layers, where ours is a mean (5). A run has
   one score: `score_by=loss_r` and `loss_d` give the two parts.
10. Attention is scaled by the width of a head, twice as strongly as theirs, G ends in tanh, dropout is 0, D's linear
    layers keep random biases, and G's positional embeddings follow its initial side: see networks.py.
11. The budget is in steps: `iterations` counts those of D, so that G takes 4,000 of 20,000. Theirs is 300 to 1,000
    epochs, with a step of G for each of D, random flips, and a linear decay of the learning rate that never begins,
    for want of a counter.
12. `stem_width`, which makes the generator smaller, is our addition: see networks.py.

Not offered: dropout in D; hinge losses, an option of their code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from adbench_baselines.latent_search import Ends, Found, in_groups, repeatable, search, starts
from adbench_baselines.layers import Average, Decay, Rate, frozen, gradient_penalty, portions
from adbench_plugins.transgan.diffaugment import diffaugment
from adbench_plugins.transgan.settings import (
    Shape,
    TransGANConfig,
    build_discriminator,
    build_generator,
    check_shape,
    check_side,
)
from adbench_plugins.transgan.walk_losses import Mix, feature_loss, features, residual_loss
from adbench_tgan import (
    AdbenchError,
    Detector,
    Endless,
    ImageSet,
    TrainSet,
    adam,
    mean_losses,
    stepper,
    to_uint8,
    to_unit,
)

QUANTILE = 0.95  # of the losses of normal images held out, which are score_by=or's thresholds
Positive = Annotated[float, Field(gt=0)]


class TransGANAnoGAN(Detector):
    """Score: the loss at the end of the walk, (1 - lambda) R + lambda D."""

    class Config(TransGANConfig):
        image_size: int = 64
        """side in pixels: the thesis's networks at 64 and 32; other multiples of 4, from 16 on, are our own addition"""
        iterations: int = Field(default=20_000, ge=1)
        """discriminator steps, each on a batch of its own; rounded up to a multiple of n_critic"""
        n_critic: int = Field(default=5, ge=1)
        """discriminator steps per generator step; 1 is what the thesis's code does"""
        batch_size: int = Field(default=32, ge=1)
        """images per step; 8 in the thesis"""
        lr: Rate = 1e-4
        """learning rate of both Adam optimisers"""
        betas: tuple[Decay, Decay] = (0.0, 0.99)
        """betas of both Adam optimisers; [0.0001,0.9] in the thesis's notebooks"""
        w_penalty: float = Field(default=10.0, ge=0)
        """weight of the gradient penalty"""
        w_drift: float = Field(default=1e-3, ge=0)
        """weight of the squared mean of the discriminator's output on real images; 0 in the thesis"""
        ema: float = Field(default=0.999, ge=0, lt=1)
        """decay of the moving average of the generator's weights, which the walk uses; 0: the last weights, as in the thesis"""

        lam: float = Field(default=0.1, ge=0, le=1)
        """lambda: weight of the feature loss D; that of the residual loss R is 1 - lambda (.001 by default in the thesis's code)"""
        r_mix: Mix = (1.0, 0.0)
        """weights of the mean absolute and the mean squared error in R; [0.25,0.75] in the thesis's code"""
        walk_steps: int = Field(default=500, ge=1)
        """steps of the latent walk, the search for z; 1,000 in the thesis's tables"""
        walk_lr: Rate = 2e-2
        """learning rate of the walk (Adam)"""
        walk_clip: float = Field(default=1.0, gt=0)
        """clip the gradient of each image's z to this norm"""
        restarts: int = Field(default=1, ge=1)
        """walks per image, of which the one with the lowest loss counts"""
        patience: int = Field(default=0, ge=0)
        """early stopping: every so many steps, a walk whose loss has hardly fallen ends (see tolerance); 0: never"""
        tolerance: float = Field(default=1e-3, ge=0, lt=1)
        """with patience: a walk ends if its loss has fallen by no more than this fraction of itself since the last check"""
        together: int | None = Field(default=50, ge=1)
        """images searched at once, always this many, so that a score is the same to the last bit in any batch; null: the whole batch"""

        score_by: Literal["loss", "loss_r", "loss_d", "or"] = Field(
            default="loss", json_schema_extra={"later": True}
        )
        """score at the end of the walk: the loss, its part R (loss_r) or D (loss_d), or the larger of R / tau_r and D / tau_d (or)"""
        thresholds: tuple[Positive, Positive] | None = Field(default=None, json_schema_extra={"later": True})
        """with score_by=or: tau_r and tau_d, [0.5,1.5] in the thesis; null: 95 % quantiles on held-out normal images"""
        held_out: float = Field(default=0.1, gt=0, lt=1, json_schema_extra={"later": True})
        """with score_by=or and no thresholds: fraction of the normal images held out of training to find them"""

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
        if self.finds_thresholds:
            self.tau = torch.full((2,), torch.nan, device=self.device)  # of R and D, once training has ended

    @property
    def finds_thresholds(self) -> bool:
        """Whether some normal images are held out of training, to find thresholds on them."""
        return self.config.score_by == "or" and self.config.thresholds is None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """During training the networks that learn, afterwards the generator has averaged weights."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        """Train for `iterations` in rounds of n_critic steps of D and one of G; yield about every 1/20 of them."""
        self.build(train.shape)
        c = self.config
        optimizer_g, optimizer_d = self.adam(self.generator), self.adam(self.discriminator)
        learned, held_out = self.cut(train.normal) if self.finds_thresholds else (train.normal, None)
        batches = self.batches(learned)

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
        if held_out is not None:
            self.find_thresholds(held_out)

    def cut(self, normal: ImageSet) -> tuple[ImageSet, ImageSet]:
        """Images to train on, and images held out, chosen by the training seed."""
        count = min(max(round(self.config.held_out * len(normal)), 1), len(normal) - 1)
        if not count:
            raise AdbenchError(
                f"transgan_anogan: {len(normal)} normal images are too few to hold any out for score_by=or; "
                "set thresholds"
            )
        order = torch.randperm(len(normal), generator=torch.Generator().manual_seed(self.seed))
        pixels = normal.on("cpu")
        return ImageSet(pixels[order[count:]]), ImageSet(pixels[order[:count]])

    def find_thresholds(self, normal: ImageSet) -> None:
        """Set tau to the 95 % quantiles of R and D of images that training did not see."""
        for network in self.networks.values():
            network.eval()
        size = self.config.together or self.config.batch_size
        ends = [
            (part, in_groups(self.walk, part, self.config.together).z)
            for part in normal.batches(size, device=self.device)
        ]
        losses = torch.cat([torch.stack(self.parts(part, z), dim=1) for part, z in ends])  # (N, 2)
        self.tau = losses.quantile(QUANTILE, dim=0)
        tau_r, tau_d = self.tau.tolist()
        self.notes.append(
            f"tau_r = {tau_r:.4g}, tau_d = {tau_d:.4g}: 95 % quantiles on {len(normal)} normal images held out"
        )

    @property
    def rounds(self) -> list[int]:
        """How many rounds of training each epoch has."""
        return portions(-(-self.config.iterations // self.config.n_critic))

    def expected_epochs(self, train: TrainSet) -> int:
        return len(self.rounds)

    def batches(self, normal: ImageSet) -> Endless[Tensor]:
        """Batches of uint8 images, pass after pass."""
        size = min(self.config.batch_size, len(normal))
        passes = partial(normal.batches, size, device=self.device, drop_last=True)
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
        """WGAN-GP with drift: -D(real) + D(fake) + 10 penalty + 1e-3 D(real)^2, where D(...) are means over the batch."""
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
        with frozen(self.discriminator):
            loss = -self.critic(self.generator(self.prior(count))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def critic(self, x: Tensor) -> Tensor:
        """D's output for augmented images, (B,); for training only."""
        return self.discriminator(diffaugment(x, self.config.diffaugment))

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
        """The z found for each image, and its score."""
        return in_groups(self.judge, images, self.config.together)

    def judge(self, images: Tensor) -> Found:
        """The z at which each image's walk ends, and the score there, as chosen by `score_by`."""
        by = self.config.score_by
        tau_r, tau_d = self.known_thresholds() if by == "or" else (1.0, 1.0)
        found = self.walk(images)
        if by == "loss":
            return found
        loss_r, loss_d = self.parts(images, found.z)
        scores = {"loss_r": loss_r, "loss_d": loss_d, "or": torch.maximum(loss_r / tau_r, loss_d / tau_d)}
        return Found(found.z, scores[by])

    def known_thresholds(self) -> Sequence[float] | Tensor:
        """tau_r and tau_d.

        Raises:
            AdbenchError: they are to be found once training has ended, and it has not.
        """
        if not self.finds_thresholds:
            return self.config.thresholds
        if self.tau.isnan().any():
            raise AdbenchError(
                "transgan_anogan: score_by=or computes its thresholds at the end of training; to score before, set thresholds"
            )
        return self.tau

    @torch.no_grad()
    def parts(self, images: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """R and D of each image, (B,) each, at z (B, latent)."""
        x = to_unit(images)
        with repeatable():
            return self.losses(z, x, *features(self.discriminator, x))

    def walk(self, images: Tensor) -> Found:
        """Search with a constant learning rate, from a starting point of each image's own."""
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
        loss_r, loss_d = self.losses(z, x, *layers)
        return (1 - lam) * loss_r + lam * loss_d

    def losses(self, z: Tensor, x: Tensor, *layers: Tensor) -> tuple[Tensor, Tensor]:
        """R and D, (B,) each, between each image x and its reconstruction from z."""
        x_hat = self.draw(z)
        loss_r = residual_loss(x, x_hat, self.config.r_mix)
        return loss_r, feature_loss(layers, features(self.discriminator, x_hat))

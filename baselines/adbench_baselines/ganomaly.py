"""GANomaly: an encoder-decoder-encoder trained as a GAN; an image is anomalous if the second encoder does not recover
its code from the reconstruction.

Akcay, Atapour-Abarghouei, Breckon: "GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training", ACCV 2018,
https://arxiv.org/abs/1805.06725. Authors' code: https://github.com/samet-akcay/ganomaly

Where this differs from the authors' code, and why
1. Networks are in eval mode when scoring. Theirs stay in training mode, so that through batch norm every score depends
   on the other test images of its batch, and their CIFAR-10 loader sorts these by class.
2. The last epoch is kept. Their code keeps, and prints, the epoch of the best *test* AUROC.
3. Scores are not min-max scaled over the test set. This does not change AUROC; it would change thresholds.
4. Images of every dataset are scaled to [-1, 1], the range of the decoder's tanh. Their code scales MNIST to [-0.42,
   2.82], which tanh cannot reach (`legacy_mnist_norm`).
5. A discriminator whose loss falls below 1e-5 is reinitialised, as in their code. Here its running statistics and its
   optimiser's state are reset too; theirs keeps both. Since version 2 new weights are drawn at every step and used
   only if needed, so that no step waits for the GPU.
6. The batch size is 64, theirs for every dataset, or the whole training set if that is smaller (60 images for MVTec
   AD's toothbrush). On MVTec AD 15 epochs are few steps: 75 on screw's 320 images (`batch_size`, `epochs`).
7. `anomaly_map`, |x - x_hat| averaged over channels, is our addition; their code has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from adbench_baselines.layers import (
    Discriminator,
    PyramidConfig,
    Rate,
    check_grey,
    dcgan_init,
    decoder,
    encoder,
    from_mnist_norm,
    frozen,
    halved,
    restart_if_won,
    to_mnist_norm,
)
from adbench_tgan import Detector, TrainSet, adam, mean_losses, stepper, to_uint8, to_unit


class Generator(nn.Module):
    """x -> x_hat, z, z_hat: encoder, decoder, and a second encoder with weights of its own."""

    def __init__(self, size: int, channels: int, width: int, latent: int, extra_layers: int = 0):
        super().__init__()
        self.encoder1 = encoder(size, channels, width, latent, extra_layers)
        self.decoder = decoder(size, channels, width, latent, extra_layers)
        self.encoder2 = encoder(size, channels, width, latent, extra_layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.encoder1(x)  # (B, latent, 1, 1)
        x_hat = self.decoder(z)  # (B, C, H, W)
        return x_hat, z, self.encoder2(x_hat)


class Config(PyramidConfig):
    latent: int = Field(default=100, ge=1)
    """nz: length of the code"""
    width: int = Field(default=64, ge=1)
    """ngf: channels after the first convolution of each encoder and of the discriminator"""
    extra_layers: int = Field(default=0, ge=0, json_schema_extra={"later": True})
    """extralayers: size-preserving convolutions added after the first one of each encoder and of the discriminator, and
    before the decoder's last"""
    epochs: int = Field(default=15, ge=1)
    """passes over the training images"""
    batch_size: int = Field(default=64, ge=2)
    """images per step"""
    lr: Rate = 2e-4
    """learning rate of both Adam optimisers"""
    beta1: float = Field(default=0.5, ge=0, lt=1)
    """beta1 of both Adam optimisers"""
    w_adv: float = 1.0
    """weight of the adversarial loss, which is feature matching"""
    w_con: float = 50.0
    """weight of the reconstruction loss (L1)"""
    w_enc: float = 1.0
    """weight of the distance between the codes of an image and of its reconstruction"""
    score_norm: Literal["square", "l1"] = "square"
    """distance between the two codes in the score: mean squared (authors' code) or mean absolute difference (as the paper's
    score is usually quoted)"""
    legacy_mnist_norm: bool = Field(default=False, json_schema_extra={"later": True})
    """scale images to [-0.42, 2.82], as the authors' code does for MNIST, beyond the range of tanh; grey images only"""


class GANomaly(Detector):
    Config = Config
    presets = {"quick": {"width": 16, "batch_size": 16}}

    def build(self, shape: tuple[int, int, int]) -> None:
        channels, size, _ = shape
        halved(size)
        c = self.config
        if c.legacy_mnist_norm:
            check_grey("ganomaly", channels)
        generator = Generator(size, channels, c.width, c.latent, c.extra_layers)
        self.generator = generator.to(self.device).apply(dcgan_init)
        discriminator = Discriminator(size, channels, c.width, c.extra_layers)
        self.discriminator = discriminator.to(self.device).apply(dcgan_init)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        self.build(train.shape)
        optimizer_g = self.adam(self.generator)
        optimizer_d = self.adam(self.discriminator)
        order = torch.Generator().manual_seed(self.seed)
        size = min(self.config.batch_size, len(train.normal))
        step = stepper(self, lambda images: self.step(self.scaled(images), optimizer_g, optimizer_d))
        done = self.resume(optimizer_g=optimizer_g, optimizer_d=optimizer_d, order=order)
        for _ in range(done, self.config.epochs):
            batches = train.normal.batches(size, device=self.device, shuffle=order, drop_last=True)
            yield mean_losses(map(step, batches))

    def adam(self, network: nn.Module) -> torch.optim.Adam:
        return adam(network.parameters(), self.config.lr, (self.config.beta1, 0.999))

    def step(
        self, x: Tensor, optimizer_g: torch.optim.Optimizer, optimizer_d: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        """One step of the generator, then one of the discriminator, on the same batch and its one forward pass."""
        x_hat, z, z_hat = self.generator(x)
        logit_real, f_real = self.discriminator(x)
        logit_fake, _ = self.discriminator(x_hat.detach())

        with frozen(self.discriminator):
            _, f_fake = self.discriminator(x_hat)
        loss_g = generator_loss(x, x_hat, z, z_hat, f_real.detach(), f_fake, self.config)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()

        loss_d = discriminator_loss(logit_real, logit_fake)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        restarts = restart_if_won(self.discriminator, optimizer_d, loss_d)
        return {"loss_g": loss_g, "loss_d": loss_d, "restarts": restarts}

    def scaled(self, images: Tensor) -> Tensor:
        """Uint8 (B, C, H, W) -> float, as the networks take them."""
        return to_mnist_norm(images) if self.config.legacy_mnist_norm else to_unit(images)

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        _, z, z_hat = self.generator(self.scaled(images))
        difference = (z.float() - z_hat.float()).flatten(1)  # (B, latent)
        squared = self.config.score_norm == "square"
        return difference.square().mean(1) if squared else difference.abs().mean(1)

    @torch.no_grad()
    def anomaly_map(self, images: Tensor) -> Tensor:
        x = self.scaled(images)
        return (x - self.generator(x)[0]).abs().mean(1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        x_hat = self.generator(self.scaled(images))[0]
        return from_mnist_norm(x_hat) if self.config.legacy_mnist_norm else to_uint8(x_hat)


def generator_loss(
    x: Tensor, x_hat: Tensor, z: Tensor, z_hat: Tensor, f_real: Tensor, f_fake: Tensor, config: Config
) -> Tensor:
    """Feature matching + reconstruction + code consistency, all element means."""
    return (
        config.w_adv * F.mse_loss(f_fake, f_real)
        + config.w_con * F.l1_loss(x_hat, x)
        + config.w_enc * F.mse_loss(z_hat, z)
    )


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy on logits (B,): real images towards 1, reconstructions towards 0, halved."""
    on_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    on_fake = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    return (on_real + on_fake) / 2

"""Skip-GANomaly: a U-Net, trained as the generator of a GAN, reconstructs images; an image is anomalous if its
reconstruction differs from it, in pixels or in the discriminator's code.

Akcay, Atapour-Abarghouei, Breckon: "Skip-GANomaly: Skip Connected and Adversarially Trained Encoder-Decoder Anomaly
Detection", IJCNN 2019, https://arxiv.org/abs/1901.08954. Authors' code: https://github.com/samet-akcay/skip-ganomaly

Where this differs from the authors' code, and why
1. The discriminator sees the images again for its own step. Their code backpropagates through a graph whose weights
   the generator's step has changed, which current PyTorch refuses. So its running statistics, which scoring uses here,
   weigh images and reconstructions equally; in their code reconstructions count more.
2. The generator sees the images as they are (`input_noise_std` adds noise in training). Their code adds an
   uninitialised buffer, whatever was in memory.
3. Networks are in eval mode when scoring. Theirs stay in training mode, so that through batch norm every score depends
   on the other test images of its batch, and their CIFAR-10 loader sorts these by class.
4. The last of 25 epochs is kept. Their code keeps the epoch of the best *test* AUROC; in our audits of frog and ship
   that is the first of five.
5. Scores are not min-max scaled over the test set. This does not change AUROC; it would change thresholds.
6. Images of every dataset are scaled to [-1, 1], the range of tanh. Their code scales MNIST to [-0.42, 2.82]
   (`legacy_mnist_norm`).
7. A discriminator whose loss falls below 1e-5 is reinitialised, as in their code. Here its running statistics and its
   optimiser's state are reset too; theirs keeps both. Since version 2 new weights are drawn at every step and used
   only if needed, so that no step waits for the GPU.
8. The batch size is 64, or the whole training set if that is smaller.
9. No learning rate schedule: their code builds one and never steps it.
10. `anomaly_map`, |x - x_hat| averaged over channels, is our addition; their code has none.

Kept although it is odd: the discriminator, too, is trained to reduce the latent loss, the distance between its codes
of an image and of its reconstruction (`d_uses_lat`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from adbench_baselines.layers import (
    PyramidConfig,
    Rate,
    check_grey,
    dcgan_init,
    from_mnist_norm,
    frozen,
    halved,
    restart_if_won,
    to_mnist_norm,
)
from adbench_baselines.skip_discriminator import (
    Discriminator,
    anomaly_score,
    discriminator_loss,
    generator_loss,
)
from adbench_tgan import Detector, TrainSet, adam, mean_losses, stepper, to_uint8, to_unit


class Generator(nn.Module):
    """x -> x_hat: a U-Net whose bottleneck is one pixel."""

    def __init__(self, size: int, channels: int, width: int):
        super().__init__()
        depth = size.bit_length() - 1  # halvings down to one pixel
        widths = [width * min(2**level, 8) for level in range(depth)]  # 64, 128, 256, 512, 512 at 32 pixels
        self.downs = nn.ModuleList([nn.Conv2d(channels, width, 4, 2, 1, bias=False)])
        for level in range(1, depth):
            self.downs.append(down(widths[level - 1], widths[level], norm=level < depth - 1))
        self.ups = nn.ModuleList([up(widths[-1], widths[-2])])  # from the bottleneck up
        for level in reversed(range(1, depth - 1)):
            self.ups.append(up(2 * widths[level], widths[level - 1]))
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, channels, 4, 2, 1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        h = self.downs[0](x)  # (B, width, H / 2, W / 2)
        skips: list[Tensor] = []
        for halve in self.downs[1:]:
            h = F.leaky_relu(h, 0.2)
            skips.append(h)  # activated, as theirs is in place; the ReLU that follows hides the difference
            h = halve(h)  # ... (B, 8 * width, 1, 1)
        for double in self.ups:
            h = torch.cat([skips.pop(), double(h)], dim=1)  # ... (B, 2 * width, H / 2, W / 2)
        return self.last(h)  # (B, C, H, W) in [-1, 1]


def down(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs) if norm else nn.Identity())


def up(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(outputs))


class Config(PyramidConfig):
    latent: int = Field(default=100, ge=1)
    """nz: length of the discriminator's code"""
    width: int = Field(default=64, ge=1)
    """ngf: channels after the first convolution of both networks"""
    epochs: int = Field(default=25, ge=1)
    """passes over the training images"""
    batch_size: int = Field(default=64, ge=2)
    """images per step"""
    lr: Rate = 2e-4
    """learning rate of both Adam optimisers"""
    beta1: float = Field(default=0.5, ge=0, lt=1)
    """beta1 of both Adam optimisers"""
    w_adv: float = 1.0
    """weight of the adversarial loss"""
    w_con: float = 50.0
    """weight of the reconstruction loss (L1)"""
    w_lat: float = 1.0
    """weight of the latent loss: the distance between the discriminator's codes of an image and of its reconstruction"""
    d_uses_lat: bool = True
    """train the discriminator, too, to reduce the latent loss, as the authors' code does"""
    input_noise_std: float = Field(default=0.0, ge=0)
    """standard deviation of the noise that is added to the generator's input in training"""
    score_lambda: float = Field(default=0.9, ge=0, le=1)
    """lambda: weight of the image's error in the score; that of its code's error is 1 - lambda"""
    legacy_mnist_norm: bool = Field(default=False, json_schema_extra={"later": True})
    """scale images to [-0.42, 2.82], as the authors' code does for MNIST, beyond the range of tanh; grey images only"""


class SkipGANomaly(Detector):
    Config = Config
    presets = {"quick": {"width": 16, "epochs": 15, "batch_size": 16}}

    def build(self, shape: tuple[int, int, int]) -> None:
        channels, size, _ = shape
        halved(size)
        c = self.config
        if c.legacy_mnist_norm:
            check_grey("skip_ganomaly", channels)
        self.generator = Generator(size, channels, c.width).to(self.device).apply(dcgan_init)
        self.discriminator = Discriminator(size, channels, c.width, c.latent).to(self.device)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        self.build(train.shape)
        optimizer_g = self.adam(self.generator)
        optimizer_d = self.adam(self.discriminator)
        order = torch.Generator().manual_seed(self.seed)
        size = min(self.config.batch_size, len(train.normal))
        step = stepper(self, lambda images: self.train_batch(self.scaled(images), optimizer_g, optimizer_d))
        done = self.resume(optimizer_g=optimizer_g, optimizer_d=optimizer_d, order=order)
        for _ in range(done, self.config.epochs):
            batches = train.normal.batches(size, device=self.device, shuffle=order, drop_last=True)
            yield mean_losses(map(step, batches))

    def adam(self, network: nn.Module) -> torch.optim.Adam:
        return adam(network.parameters(), self.config.lr, (self.config.beta1, 0.999))

    def train_batch(
        self, x: Tensor, optimizer_g: torch.optim.Optimizer, optimizer_d: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        """One training step, after which a discriminator that has won is reinitialised."""
        losses = self.step(x, optimizer_g, optimizer_d)
        restarts = restart_if_won(self.discriminator, optimizer_d, losses["loss_d"])
        return losses | {"restarts": restarts}

    def step(
        self, x: Tensor, optimizer_g: torch.optim.Optimizer, optimizer_d: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        """One step of the generator, then one of the discriminator, on the same images and reconstructions."""
        std = self.config.input_noise_std
        x_hat = self.generator(x + std * torch.randn_like(x) if std else x)  # (B, C, H, W)

        with frozen(self.discriminator):
            _, f = self.discriminator(x)  # (B, latent)
            logit_hat, f_hat = self.discriminator(x_hat)  # (B,), (B, latent)
        loss_g = generator_loss(x, x_hat, f, f_hat, logit_hat, self.config)
        optimizer_g.zero_grad()
        loss_g.backward()
        optimizer_g.step()

        logit, f = self.discriminator(x)
        logit_hat, f_hat = self.discriminator(x_hat.detach())
        loss_d = discriminator_loss(logit, logit_hat, f, f_hat, self.config)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        return {"loss_g": loss_g, "loss_d": loss_d}

    def scaled(self, images: Tensor) -> Tensor:
        """Uint8 (B, C, H, W) -> float, as the networks take them."""
        return to_mnist_norm(images) if self.config.legacy_mnist_norm else to_unit(images)

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        x = self.scaled(images)
        x_hat = self.generator(x)
        _, f = self.discriminator(x)
        _, f_hat = self.discriminator(x_hat)
        return anomaly_score(x, x_hat, f, f_hat, self.config.score_lambda)

    @torch.no_grad()
    def anomaly_map(self, images: Tensor) -> Tensor:
        x = self.scaled(images)
        return (x - self.generator(x)).abs().mean(1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        x_hat = self.generator(self.scaled(images))
        return from_mnist_norm(x_hat) if self.config.legacy_mnist_norm else to_uint8(x_hat)

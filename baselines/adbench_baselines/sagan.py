"""Skip-Attention GAN (SAGAN): Skip-GANomaly with a U-Net of depthwise separable convolutions whose skip connections
pass through attention; an image is anomalous if its reconstruction differs from it, in pixels or in the
discriminator's code.

Liu, Lan et al.: "SAGAN: Skip-Attention GAN for Anomaly Detection", ICIP 2021, pp. 2468-2472,
https://doi.org/10.1109/ICIP42928.2021.9506332. Authors' code: https://github.com/SYLan2019/Skip-Attention-GAN. This is
not the "SAGAN" of Zhang et al., which uses self-attention.

Where this differs from the authors' code, and why
1. The generator is the paper's. Their code contains it but builds Skip-GANomaly's U-Net instead. Two depthwise filters
   per channel are our choice (`depth_multiplier`), because this comes nearest to the 5,181,089 parameters of the
   paper's Table 1: both networks together then have 5,102,035 parameters at 32 pixels; with one filter, as in their
   code, 3,131,765.
2. Pooling is max pooling, as in the paper; their code uses an external CUDA package for SoftPool. `softpool=True` is
   SoftPool in plain PyTorch.
3. The reconstruction loss has weight 40, as in the paper; theirs 50. The learning rate is 2e-4, as theirs; the paper's
   is 2e-3.
4. The generator ends in tanh, as images are in [-1, 1]; the output of their depthwise U-Net is unbounded
   (`out_act="none"`).
5. On other points where paper and code disagree, the code is followed. Only the skip connections and the bottleneck
   get feature maps after attention; in the paper the next level does too (`attend_path=True`). The image's error has
   weight .9 in the score; in the paper .2 (`score_lambda=0.2`).
6. The discriminator sees the images again for its own step, because current PyTorch refuses to backpropagate through a
   graph whose weights have changed. So its running statistics, which scoring uses here, weigh images and
   reconstructions equally; in their code reconstructions count more.
7. Networks are in eval mode when scoring, and the last epoch is kept. Theirs stay in training mode, so that every
   score depends on the test images in its batch, sorted by class; and their code keeps the epoch of the best *test*
   AUROC.
8. Scores are not min-max scaled over the test set. This does not change AUROC; it would change thresholds.
9. A discriminator whose loss falls below 1e-5 is reinitialised, as in their code. Here its running statistics and its
   optimiser's state are reset too; theirs keeps both. Since version 2 new weights are drawn at every step and used
   only if needed, so that no step waits for the GPU.
10. The batch size is 32, or the whole training set if that is smaller.
11. No learning rate schedule: the paper names one ("lambda decay"), but their code builds it and never steps it.
12. The generator sees the images as they are. Their code adds an uninitialised buffer, whatever was in memory.
13. Images of every dataset are scaled to [-1, 1]. Their code scales MNIST to [-0.42, 2.82], as Skip-GANomaly's does.
14. `anomaly_map`, |x - x_hat| averaged over channels, is our addition; their code has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from adbench_baselines.layers import (
    PyramidConfig,
    Rate,
    check_pair,
    dcgan_init,
    frozen,
    halved,
    restart_if_won,
)
from adbench_baselines.skip_discriminator import (
    Discriminator,
    anomaly_score,
    discriminator_loss,
    generator_loss,
)
from adbench_tgan import Detector, TrainSet, adam, mean_losses, stepper, to_uint8, to_unit


class Config(PyramidConfig):
    latent: int = Field(default=100, ge=1)
    """length of the discriminator's code"""
    width: int = Field(default=64, ge=1)
    """channels at the first level of the generator, and after the discriminator's first convolution"""
    depth_multiplier: int = Field(default=2, ge=1)
    """k: depthwise filters per channel (authors' code: 1)"""
    separable: bool = True
    """depthwise separable convolutions (DSC); false: ordinary convolutions, as in part of the paper's tables"""
    attention: bool = True
    """attention (CBAM) on the skip connections and the bottleneck; false: a plain U-Net"""
    attend_path: bool = False
    """feature maps go down to the next level after attention, as in the paper; false: before it"""
    softpool: bool = False
    """SoftPool (authors' code) instead of max pooling"""
    out_act: Literal["tanh", "none"] = "tanh"
    """last activation of the generator; none in the authors' code"""
    epochs: int = Field(default=25, ge=1)
    """passes over the training images"""
    batch_size: int = Field(default=32, ge=2)
    """images per step"""
    lr: Rate = 2e-4
    """learning rate of both Adam optimisers (paper: 2e-3)"""
    beta1: float = Field(default=0.5, ge=0, lt=1)
    """beta1 of both Adam optimisers"""
    w_adv: float = 1.0
    """weight of the adversarial loss"""
    w_con: float = 40.0
    """weight of the reconstruction loss (L1; authors' code: 50)"""
    w_lat: float = 1.0
    """weight of the latent loss: the distance between the discriminator's codes of an image and of its reconstruction"""
    d_uses_lat: bool = True
    """train the discriminator, too, to reduce the latent loss, as the authors' code does"""
    score_lambda: float = Field(default=0.9, ge=0, le=1)
    """lambda: weight of the image's error in the score (paper: 0.2); that of its code's error is 1 - lambda"""


class Generator(nn.Module):
    """x -> x_hat: a U-Net of five levels whose skips, and bottleneck, pass through attention."""

    def __init__(self, channels: int, config: Config):
        super().__init__()
        w = config.width
        widths = [w, 2 * w, 4 * w, 8 * w, 8 * w]
        inputs = [channels, *widths]
        self.encoder = nn.ModuleList(
            double_block(a, b, b, config) for a, b in zip(inputs, widths, strict=False)
        )
        self.attention = nn.ModuleList(cbam(c) if config.attention else nn.Identity() for c in widths)
        self.decoder = nn.ModuleList(
            double_block(a, a // 2, b, config)
            for a, b in [(16 * w, 4 * w), (8 * w, 2 * w), (4 * w, w), (2 * w, w)]
        )
        self.last = nn.Conv2d(w, channels, 1)
        self.out_act = nn.Tanh() if config.out_act == "tanh" else nn.Identity()
        self.pool = softpool if config.softpool else max_pool
        self.attend_path = config.attend_path

    def forward(self, x: Tensor) -> Tensor:
        attended: list[Tensor] = []  # (B, w, H, W), (B, 2w, H/2, W/2), ... (B, 8w, H/16, W/16)
        h = x
        for level, (block, attention) in enumerate(zip(self.encoder, self.attention, strict=True)):
            h = block(self.pool(h) if level else h)
            attended.append(attention(h))
            h = attended[-1] if self.attend_path else h
        h = attended.pop()
        for block in self.decoder:
            h = block(torch.cat([attended.pop(), upsample(h)], dim=1))  # (B, 4w, H/8, W/8), ... (B, w, H, W)
        return self.out_act(self.last(h))  # (B, C, H, W)


def double_block(inputs: int, middle: int, outputs: int, config: Config) -> nn.Sequential:
    """Twice: convolution 3x3, batch norm, ReLU."""
    layers: list[nn.Module] = []
    for a, b in ((inputs, middle), (middle, outputs)):
        k = config.depth_multiplier
        layers += separable_convolution(a, b, k) if config.separable else [nn.Conv2d(a, b, 3, padding=1)]
        layers += [nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers)


def separable_convolution(inputs: int, outputs: int, k: int) -> list[nn.Module]:
    """DSC: k filters 3x3 on each channel alone, then a 1x1 convolution over all."""
    return [Depthwise(inputs, k * inputs, 3, padding=1, groups=inputs), nn.Conv2d(k * inputs, outputs, 1)]


class Depthwise(nn.Conv2d):
    """k filters on each channel alone; its outputs are ordered by channel, then by filter."""

    def forward(self, x: Tensor) -> Tensor:
        k = self.out_channels // self.in_channels
        if x.is_cuda or k == 1:
            return super().forward(x)
        # A CPU has a fast way for one filter a channel only; two at once took 1.7 to 4.6 times as long in fp32.
        biases = [None] * k if self.bias is None else [self.bias[i::k] for i in range(k)]
        each = [self._conv_forward(x, self.weight[i::k], biases[i]) for i in range(k)]
        return torch.stack(each, dim=2).flatten(1, 2)


def cbam(channels: int) -> nn.Module:
    """Channel gate, then spatial gate (Woo et al., CBAM, ECCV 2018); its perceptron shrinks channels 16 times."""
    return CbamModule(channels, rd_channels=max(1, channels // 16), spatial_kernel_size=7, mlp_bias=True)


def max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def upsample(x: Tensor) -> Tensor:
    """Twice the side, bilinear."""
    if x.is_cuda:  # in the other layout one image comes after another, which was 39 % of a step
        x = x.contiguous(memory_format=torch.channels_last)
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def softpool(x: Tensor) -> Tensor:
    """The mean of each 2x2 window, weighted by the softmax of its values (Stergiou et al., ICCV 2021)."""
    windows = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))  # (B, C, 4, H / 2, W / 2)
    return (windows * windows.softmax(2)).sum(2)


class SAGAN(Detector):
    Config = Config
    # At 2e-4 a few steps leave the generator where it started; its training loss falls at the paper's rate.
    presets = {"quick": {"width": 8, "epochs": 6, "batch_size": 16, "lr": 2e-3}}

    def build(self, shape: tuple[int, int, int]) -> None:
        channels, size, _ = shape
        halved(size)
        c = self.config
        self.generator = Generator(channels, c).to(self.device).apply(dcgan_init)
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
        if train.shape[-1] == 16:  # which the encoder ends as one pixel
            check_pair(size)
        step = stepper(self, lambda images: self.train_batch(to_unit(images), optimizer_g, optimizer_d))
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
        x_hat = self.generator(x)  # (B, C, H, W)

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

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        x = to_unit(images)
        x_hat = self.generator(x)
        _, f = self.discriminator(x)
        _, f_hat = self.discriminator(x_hat)
        return anomaly_score(x, x_hat, f, f_hat, self.config.score_lambda)

    @torch.no_grad()
    def anomaly_map(self, images: Tensor) -> Tensor:
        x = to_unit(images)
        return (x - self.generator(x)).abs().mean(1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        return to_uint8(self.generator(to_unit(images)))

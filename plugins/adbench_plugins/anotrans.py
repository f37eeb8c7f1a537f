"""AnoTrans: Skip-GANomaly with a U-Net of Swin transformer blocks as its generator.

Yang, Lan et al., ICANN 2022. Authors' code: https://github.com/SYLan2019/Transformer-Gan-Anomaly-Detection (without a
licence: this file was written from a description in words). The generator is in swin_unet.py.

Where this differs from the authors' code, and why
1. It runs. Their code reads options that it never defines, and imports a file that is missing.
2. Patches are 2 x 2 pixels for images of 32 pixels; their script has 4 x 4, which leaves one token at the bottom,
   where attention has nothing to attend to. Patches of 2 give the levels of their figure. For images of 64 pixels and
   more, patches are 4 x 4, as theirs.
3. The pixels that a token produces form a square. Theirs are laid out as a piece of an image row, far from the token's
   place (`legacy_view`). With patches of 2 a token is one pixel, and the two layouts are the same.
4. The generator ends in tanh, because images are in [-1, 1]; theirs does not (`out_act="none"`).
5. The generator receives the gradient of the latent loss once. Theirs receives it twice, because the discriminator's
   loss contains it too and is not detached (`legacy_double_lat`).
6. The discriminator's loss is computed anew after the generator's step; their code runs both backward passes first.
   The discriminator's running statistics, which scoring uses here, weigh images and reconstructions equally; in their
   code reconstructions count more.
7. `skip="code"`, the default, has skip connections from before a level's attention at two levels, and the bare tokens
   at the third. `skip="figure"` is the generator of their figure: skip connections from after the attention at all
   three levels, and an input normalisation, for which we take the BatchNorm that their code creates and never calls.
8. What their code allocates and never calls is left out: embeddings of the image at a half and at a quarter of its
   size, and the BatchNorm before each of the three embeddings. That is 22,674 of 12,549,039 parameters at 32 pixels
   with patches of 4; 12,526,365 are left.
9. `attention="tf"`, attention over all tokens, is an option of their code: no table of relative positions, no biases
   of queries, keys and values, one LayerNorm for both halves of a block. It has 12,509,781 parameters, without the
   22,674 of item 8.
10. Networks are in eval mode when scoring, scores are not scaled over the test set, and the last epoch is kept, not
    that of the best *test* AUROC. Nothing is added to the input, where their code adds an uninitialised buffer.
11. The batch size is 128, or the whole training set if that is smaller. 25 epochs are theirs for 45,000 images, 8,775
    steps; on a category of MVTec AD they are 75 at most: give it more (`epochs`, `batch_size`). Images of every
    dataset are scaled to [-1, 1]; their code scales MNIST to [-0.42, 2.82].
12. `anomaly_map`, |x - x_hat| averaged over channels, is our addition; their code has none.

Kept: the discriminator is not reinitialised when its loss vanishes, and it, too, is trained to reduce the latent loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from adbench_baselines.layers import PyramidConfig, Rate, frozen, halved
from adbench_baselines.skip_discriminator import Discriminator, adversarial_loss
from adbench_plugins.swin_unet import HEADS, LEVELS, Attention, OutAct, SkipMode, SwinUNet
from adbench_tgan import AdbenchError, Detector, TrainSet, adam, mean_losses, stepper, to_uint8, to_unit


class Config(PyramidConfig):
    patch: int | None = Field(default=None, ge=2)
    """P: side of the patches that become tokens, a power of two; null: 2 for images under 64 pixels, else 4"""
    width: int = Field(default=64, ge=HEADS, multiple_of=HEADS)
    """channels of the generator's tokens at the first level; they double at each further level"""
    attention: Attention = "window"
    """attention within windows of 2 x 2 tokens, shifted in every other block (window), or over all tokens (tf)"""
    skip: SkipMode = "code"
    """skip connections as in the authors' code, or as in their figure, which also normalises the input"""
    legacy_view: bool = False
    """lay out a token's pixels in a row, as the authors' code does"""
    out_act: OutAct = "tanh"
    """last activation of the generator; none in the authors' code"""
    discriminator_width: int = Field(default=64, ge=1)
    """ndf: channels of the discriminator after its first convolution"""
    latent: int = Field(default=100, ge=1)
    """nz: length of the discriminator's code"""
    epochs: int = Field(default=25, ge=1)
    """passes over the training images"""
    batch_size: int = Field(default=128, ge=2)
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
    legacy_double_lat: bool = False
    """give the generator the gradient of the latent loss twice, as the authors' code does"""
    score_lambda: float = Field(default=0.9, ge=0, le=1)
    """lambda: weight of the image's error in the score; that of its code's error is 1 - lambda"""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        patch_side(self, self.image_size)
        return self


class AnoTrans(Detector):
    Config = Config
    presets = {
        "quick": {
            "patch": 4,
            "width": 32,
            "discriminator_width": 16,
            "epochs": 8,
            "batch_size": 16,
            "lr": 2e-3,  # the small initial weights hold training up, and the steps here are few
        }
    }

    def build(self, shape: tuple[int, int, int]) -> None:
        channels, size, _ = shape
        c = self.config
        self.generator = SwinUNet(
            size,
            channels,
            patch=patch_side(c, size),
            width=c.width,
            attention=c.attention,
            skip=c.skip,
            legacy_view=c.legacy_view,
            out_act=c.out_act,
        ).to(self.device)
        self.discriminator = Discriminator(size, channels, c.discriminator_width, c.latent).to(self.device)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        self.build(train.shape)
        optimizer_g = self.adam(self.generator)
        optimizer_d = self.adam(self.discriminator)
        order = torch.Generator().manual_seed(self.seed)
        size = min(self.config.batch_size, len(train.normal))
        step = stepper(self, lambda images: self.step(to_unit(images), optimizer_g, optimizer_d))
        done = self.resume(optimizer_g=optimizer_g, optimizer_d=optimizer_d, order=order)
        for _ in range(done, self.config.epochs):
            batches = train.normal.batches(size, device=self.device, shuffle=order, drop_last=True)
            yield mean_losses(map(step, batches))

    def adam(self, network: nn.Module) -> torch.optim.Adam:
        return adam(network.parameters(), self.config.lr, (self.config.beta1, 0.999))

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
        in_image = (x - x_hat).square().mean((1, 2, 3))  # (B,)
        f, f_hat = (self.discriminator(each)[1].float() for each in (x, x_hat))  # (B, latent)
        in_code = (f - f_hat).square().mean(1)  # (B,)
        return (self.config.score_lambda * in_image + (1 - self.config.score_lambda) * in_code).float()

    @torch.no_grad()
    def anomaly_map(self, images: Tensor) -> Tensor:
        x = to_unit(images)
        return (x - self.generator(x)).abs().mean(1).float()

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        return to_uint8(self.generator(to_unit(images)))


def patch_side(config: Config, size: int) -> int:
    """The patch's side for images of `size` pixels; an `AdbenchError` where the U-Net cannot halve its tokens."""
    halved(size)
    patch = config.patch or (2 if size < 64 else 4)
    fewest = 2**LEVELS
    if patch & (patch - 1) or size // patch < fewest:
        raise AdbenchError(
            f"anotrans: patch={patch} must be a power of two and at most image_size / {fewest}, "
            f"which is {size // fewest}; --set anotrans.patch=2"
        )
    return patch


def generator_loss(
    x: Tensor, x_hat: Tensor, f: Tensor, f_hat: Tensor, logit_hat: Tensor, config: Config
) -> Tensor:
    """Adversarial + contextual + latent loss, all element means."""
    w_lat = 2 * config.w_lat if config.legacy_double_lat else config.w_lat
    return (
        config.w_adv * adversarial_loss(logit_hat, real=True)
        + config.w_con * F.l1_loss(x_hat, x)
        + w_lat * F.mse_loss(f_hat, f)
    )


def discriminator_loss(logit: Tensor, logit_hat: Tensor, f: Tensor, f_hat: Tensor, config: Config) -> Tensor:
    """Images towards 1, reconstructions towards 0, not halved; plus the latent loss."""
    adversarial = adversarial_loss(logit, real=True) + adversarial_loss(logit_hat, real=False)
    return adversarial + config.w_lat * F.mse_loss(f_hat, f)

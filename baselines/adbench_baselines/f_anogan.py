"""f-AnoGAN: a WGAN-GP is trained on normal images, then an encoder learns to invert its generator; an image is
anomalous if its reconstruction differs from it, in pixels or in the critic's features.

Schlegl, Seeboeck, Waldstein, Langs, Schmidt-Erfurth: "f-AnoGAN: Fast unsupervised anomaly detection with generative
adversarial networks", Medical Image Analysis 54, 2019, https://doi.org/10.1016/j.media.2019.01.010. Authors' code:
https://github.com/tSchlegl/f-AnoGAN

Where this differs from the authors' code, and why
1. The encoder ends in a linear layer, because z is drawn from N(0, I), of which a third on each axis lies outside the
   range of tanh. Theirs ends in tanh by default, as in the paper's runs: `encoder_tanh=True`.
2. At 32 pixels, the default here, the generator lacks its first block, and critic and encoder lack their last, so that
   the feature map remains 4 x 4. Their images are 64 x 64 and grey (`image_size=64`).
3. Training images are not mirrored, since digits and many objects are not symmetric; `hflip=True` mirrors them.
4. Both stages are counted in steps, so that small categories get enough of them: 20,000 generator steps, each after
   `n_critic` critic steps, where theirs are 7 epochs of a large data set; 50,000 encoder steps, as theirs.
5. All test images are scored, in eval mode. Their code drops the incomplete last batch of each class, and validates
   the encoder with batch norm in training mode.
6. Batch norm has PyTorch's epsilon and momentum; theirs has TensorFlow's. The generator's running statistics are
   updated in the critic's steps too; theirs only in its own. RMSProp is PyTorch's as well: its mean square starts at
   0, theirs at 1. The encoder's first steps are therefore larger, a lead of some 100 steps of 50,000.
7. The batch size is 64, or the whole training set if that is smaller (60 images for MVTec AD's toothbrush).
8. `anomaly_map` averages |x - G(E(x))| over channels; the authors' images are grey.

`arch="mlp"` gives the networks for grey images of https://github.com/A03ki/f-AnoGAN. Its settings are image_size=28,
latent=100, lr=2e-4, betas=[0.5,0.999], encoder_optimizer=adam, encoder_lr=2e-4, encoder_betas=[0.5,0.999],
encoder_tanh=true and bn_eps=.8, the last by mistake: batch norm's second argument is epsilon, not momentum. There the
generator's step reuses the z of the last critic step; here it draws its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice, pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from adbench_baselines.layers import Decay, Rate, check_pair, frozen, gradient_penalty, halved, portions
from adbench_tgan import (
    AdbenchError,
    Detector,
    DetectorConfig,
    Endless,
    TrainSet,
    adam,
    mean_losses,
    stepper,
    to_uint8,
    to_unit,
)

MLP_FEATURES = 256


class Block(nn.Module):
    """A residual block: `body`(x) + `shortcut`(x)."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Sequential):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def conv(inputs: int, outputs: int, kernel: int, *, he: bool = False, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the size, with the authors' uniform weights: Glorot's variance, or twice that."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    nn.init.xavier_uniform_(layer.weight, gain=2**0.5 if he else 1.0)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def layer_norm(channels: int) -> nn.GroupNorm:
    """Over channels, height and width of each image, with a scale and a shift per channel."""
    return nn.GroupNorm(1, channels)


def up(inputs: int, outputs: int) -> Block:
    """(B, inputs, H, W) -> (B, outputs, 2H, 2W), by nearest neighbours before the first convolution."""
    body = nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        conv(inputs, outputs, 3, he=True, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        conv(outputs, outputs, 3, he=True),
    )
    return Block(body, nn.Sequential(nn.Upsample(scale_factor=2), conv(inputs, outputs, 1)))


def down(inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> Block:
    """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2), by mean pooling after the second convolution."""
    body = nn.Sequential(
        norm(inputs),
        nn.ReLU(),
        conv(inputs, inputs, 3, he=True, bias=False),
        norm(inputs),
        nn.ReLU(),
        conv(inputs, outputs, 3, he=True),
        nn.AvgPool2d(2),
    )
    return Block(body, nn.Sequential(nn.AvgPool2d(2), conv(inputs, outputs, 1)))


def widths(size: int, width: int) -> list[int]:
    """Channels at size, size / 2, ... 4: doubled with every halving, eight-fold at most."""
    return [width * min(2**level, 8) for level in range(size.bit_length() - 2)]


def trunk(size: int, channels: int, width: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """(B, channels, size, size) -> f, the flat (B, 16 * channels at 4 x 4)."""
    levels = widths(size, width)
    blocks = [down(inputs, outputs, norm) for inputs, outputs in pairwise(levels)]
    return nn.Sequential(conv(channels, width, 3), *blocks, nn.Flatten())


def generator(size: int, channels: int, width: int, latent: int) -> nn.Sequential:
    """(B, latent) -> (B, channels, size, size) in [-1, 1]."""
    levels = widths(size, width)[::-1]
    return nn.Sequential(
        linear(latent, 16 * levels[0]),
        nn.Unflatten(1, (levels[0], 4, 4)),
        *(up(inputs, outputs) for inputs, outputs in pairwise(levels)),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        conv(width, channels, 3, he=True),
        nn.Tanh(),
    )


def mlp_trunk(size: int) -> nn.Sequential:
    """(B, 1, size, size) -> f (B, 256)."""
    first, second = nn.Linear(size * size, 512), nn.Linear(512, MLP_FEATURES)
    return nn.Sequential(nn.Flatten(), first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2))


def mlp_generator(size: int, latent: int, bn_eps: float) -> nn.Sequential:
    """(B, latent) -> (B, 1, size, size) in [-1, 1]."""
    layers: list[nn.Module] = [nn.Linear(latent, 128), nn.LeakyReLU(0.2)]
    for inputs in (128, 256, 512):
        layers += [nn.Linear(inputs, 2 * inputs), nn.BatchNorm1d(2 * inputs, eps=bn_eps), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(1024, size * size), nn.Tanh(), nn.Unflatten(1, (1, size, size)))


class Critic(nn.Module):
    """x -> how real x is, unbounded, and the features f(x)."""

    def __init__(self, trunk: nn.Sequential, output: nn.Linear):
        super().__init__()
        self.trunk, self.output = trunk, output

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.trunk(x)  # (B, features)
        return self.output(f).flatten(), f  # (B,)


class Config(DetectorConfig):
    arch: Literal["resnet", "mlp"] = "resnet"
    """the authors' residual networks (resnet), or A03ki's fully connected ones, for grey images (mlp)"""
    latent: int = Field(default=128, ge=1)
    """length of z"""
    width: int = Field(default=64, ge=1)
    """channels of the residual networks at the image's full resolution"""
    n_critic: int = Field(default=5, ge=1)
    """critic steps before each generator step"""
    gan_steps: int = Field(default=20_000, ge=1)
    """generator steps of stage 1"""
    encoder_steps: int = Field(default=50_000, ge=1)
    """encoder steps of stage 2"""
    batch_size: int = Field(default=64, ge=2)
    """images per step"""
    lr: Rate = 1e-4
    """learning rate of Adam for generator and critic"""
    betas: tuple[Decay, Decay] = (0.0, 0.9)
    """Adam's betas for generator and critic"""
    w_penalty: float = Field(default=10.0, ge=0)
    """lambda: weight of the gradient penalty"""
    encoder_optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    """optimiser of the encoder"""
    encoder_lr: Rate = 5e-5
    """learning rate of the encoder"""
    encoder_betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Adam's betas for the encoder, with encoder_optimizer=adam"""
    encoder_tanh: bool = False
    """end the encoder in a tanh, as the paper's runs do"""
    kappa: float = Field(default=1.0, ge=0)
    """weight of the feature error in the encoder's loss and, with score_by=image, in the score"""
    score_by: Literal["image", "code"] = "image"
    """the score: error in pixels and features (image), or the authors' alternative, distance of E(x) and E(G(E(x))) (code)"""
    hflip: bool = False
    """mirror training images at random, as the authors do"""
    bn_eps: float = Field(default=1e-5, gt=0)
    """epsilon of batch norm in the mlp generator; .8 in A03ki's code"""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.arch == "resnet":
            halved(self.image_size)
        return self


class FAnoGAN(Detector):
    Config = Config
    presets = {
        "quick": {
            "width": 8,
            "n_critic": 2,
            "gan_steps": 10,
            "encoder_steps": 20,
            "batch_size": 8,
            "lr": 5e-4,
            "encoder_lr": 5e-4,
        }
    }

    def build(self, shape: tuple[int, int, int]) -> None:
        channels, size, _ = shape
        c = self.config
        parts, head = (self._mlps, nn.Linear) if c.arch == "mlp" else (self._resnets, linear)
        self.generator, critic_trunk, encoder_trunk, features = parts(channels, size)
        self.critic = Critic(critic_trunk, head(features, 1))
        last = nn.Tanh() if c.encoder_tanh else nn.Identity()
        self.encoder = nn.Sequential(encoder_trunk, head(features, c.latent), last)
        for network in self.networks.values():
            network.to(self.device)

    def _resnets(self, channels: int, size: int) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential, int]:
        halved(size)
        c = self.config
        trunks = [trunk(size, channels, c.width, norm) for norm in (layer_norm, nn.BatchNorm2d)]
        return generator(size, channels, c.width, c.latent), *trunks, 16 * widths(size, c.width)[-1]

    def _mlps(self, channels: int, size: int) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential, int]:
        if channels != 1:
            raise AdbenchError(f"f_anogan.arch=mlp is for grey images, not {channels} channels; use resnet")
        c = self.config
        return mlp_generator(size, c.latent, c.bn_eps), mlp_trunk(size), mlp_trunk(size), MLP_FEATURES

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "critic": self.critic, "encoder": self.encoder}

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        self.build(train.shape)
        c = self.config
        images = self.stream(train)
        optimizer_g = adam(self.generator.parameters(), c.lr, c.betas)
        optimizer_d = adam(self.critic.parameters(), c.lr, c.betas)
        optimizer_e = self.encoder_optimizer()
        step = stepper(self, lambda batches: self.gan_step(batches, optimizer_g, optimizer_d))
        done = self.resume(
            images=images, optimizer_g=optimizer_g, optimizer_d=optimizer_d, optimizer_e=optimizer_e
        )
        stage1, stage2 = portions(c.gan_steps), portions(c.encoder_steps)
        for count in stage1[done:]:
            yield mean_losses(step(list(islice(images, c.n_critic))) for _ in range(count))
        self.freeze_gan()
        step = stepper(self, lambda x: self.encoder_step(x, optimizer_e))
        for count in stage2[max(done - len(stage1), 0) :]:
            yield mean_losses(map(step, islice(images, count)))

    def expected_epochs(self, train: TrainSet) -> int:
        return len(portions(self.config.gan_steps)) + len(portions(self.config.encoder_steps))

    def stream(self, train: TrainSet) -> Endless[Tensor]:
        """Training batches (B, C, H, W) in [-1, 1] without end, in a new order in each pass."""
        size = min(self.config.batch_size, len(train.normal))
        if self.config.arch == "mlp":
            check_pair(size)

        def one_pass(order: torch.Generator) -> Iterator[Tensor]:
            batches = train.normal.batches(size, device=self.device, shuffle=order, drop_last=True)
            return (self.mirrored(x) if self.config.hflip else x for x in map(to_unit, batches))

        return Endless(one_pass, self.seed)

    def mirrored(self, x: Tensor) -> Tensor:
        """Each image flipped left to right with probability 1/2."""
        return torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)

    def freeze_gan(self) -> None:
        for network in (self.generator, self.critic):
            network.eval().requires_grad_(False)

    def encoder_optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        parameters = list(self.encoder.parameters())
        if c.encoder_optimizer == "adam":
            return adam(parameters, c.encoder_lr, c.encoder_betas)
        decay = 0.9  # TensorFlow's
        return torch.optim.RMSprop(parameters, c.encoder_lr, decay, capturable=parameters[0].is_cuda)

    def gan_step(
        self, batches: list[Tensor], optimizer_g: torch.optim.Optimizer, optimizer_d: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        """One critic step on each of `batches`, then one of the generator; every step draws its own z."""
        for x in batches:
            losses = self.critic_step(x, optimizer_d)
        return losses | self.generator_step(len(x), optimizer_g)

    def draw(self, count: int) -> Tensor:
        """`count` images of random z, (count, C, H, W)."""
        return self.generator(torch.randn(count, self.config.latent, device=self.device))

    def critic_step(self, x: Tensor, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.draw(len(x))
        distance = self.critic(x)[0].mean() - self.critic(fake)[0].mean()
        penalty = gradient_penalty(lambda mix: self.critic(mix)[0], x, fake)
        optimizer.zero_grad()
        (self.config.w_penalty * penalty - distance).backward()
        optimizer.step()
        return {"wasserstein": distance, "penalty": penalty}

    def generator_step(self, count: int, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        with frozen(self.critic):
            loss = -self.critic(self.draw(count))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss_g": loss}

    def encoder_step(self, x: Tensor, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        loss = self.residual(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss_e": loss}

    def residual(self, x: Tensor) -> Tensor:
        """(B,): MSE(x, G(E(x))) + kappa MSE(f(x), f(G(E(x)))), the izi_f loss and score."""
        x_hat = self.generator(self.encoder(x))
        f, f_hat = self.critic(x)[1], self.critic(x_hat)[1]
        return mse(x, x_hat) + self.config.kappa * mse(f, f_hat)

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        x = to_unit(images)
        if self.config.score_by == "image":
            return self.residual(x).float()
        z = self.encoder(x)
        return mse(z, self.encoder(self.generator(z))).float()

    @torch.no_grad()
    def anomaly_map(self, images: Tensor) -> Tensor:
        x = to_unit(images)
        return (x - self.generator(self.encoder(x))).abs().mean(1).float()

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        return to_uint8(self.generator(self.encoder(to_unit(images))))


def mse(a: Tensor, b: Tensor) -> Tensor:
    """The mean square difference of each image, (B,)."""
    return F.mse_loss(a, b, reduction="none").flatten(1).mean(1)

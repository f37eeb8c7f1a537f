"""TransGAN with two discriminators, one for normal and one for anomalous images.

Nayan Khemka: Anomaly Detection using TransGAN, thesis, section 3.4; its generator and discriminators from Jiang,
Chang, Wang: TransGAN, NeurIPS 2021, https://arxiv.org/abs/2102.07074; its losses from Kim, Jeong, Choi, Seo: GAN-based
Anomaly Detection in Imbalance Problems, ECCV Workshops 2020.

An image's ImageNet features are mapped to TransGAN's latent vector z, from which TransGAN's generator G reconstructs
the image. G is trained to reconstruct normal images well and anomalous ones badly, and to make D_norm take
reconstructions of normal images for real. The error is the score. Training uses labelled anomalies where a protocol
offers them; otherwise, and with `mode=unsupervised`, only the losses on normal images.

Where this differs from the authors' code, and why

* The mapper from features to z is one trained layer. Theirs is drawn at random anew in every call, also in the test,
  so that their scores are random functions of the features. Ours ends in a LayerNorm, not in a ReLU, so that z has the
  signs and the scale of the N(0, I) that TransGAN's generator is made for (`mapper_relu`).
* The features are the 2,048 pooled ones of ResNet-50, from images enlarged to 224 pixels and normalised like its
  training images; theirs are 1,000 class logits of raw 32-pixel images (`feat=logits1000`, `feature_size=32`). The
  network is frozen: their fine-tuning trained it through a mapper redrawn in each batch. Where its weights are not
  available, EfficientNet-Lite0 takes its place (`backbone=auto`), and the row names it.
* The patch loss uses square patches (equation 3); theirs averages three channel means, which is the L1 loss.
* The latent loss compares z with the z of the reconstruction (equation 4, in GANomaly's sense); theirs compares a
  vector with itself and is always 0. That vector comes from a separate encoder that is never trained
  (`latent_by=enc_random` has one).
* G and the mapper first learn one epoch of reconstruction from normal training images; theirs start from a TransGAN
  trained elsewhere.
* The discriminators learn from detached reconstructions, and DiffAugment is outside of them, in training only, with
  the magnitudes of DiffAugment's authors (`diffaugment=asarigun` for theirs).
* Attention is scaled by the width of a head, twice as strongly as theirs, G ends in tanh, its dropout is 0 (.5 in
  their notebooks: `generator_dropout`), D's linear layers keep random biases, and G's positional embeddings follow its
  initial side: see networks.py.
* Gradients of the generator are clipped, because the gradient of the ABC loss grows without bound as the error goes to
  0; for the same reason 1e-6 is added in its logarithm.
* Batches have 64 images instead of 1, and there are 10 epochs instead of 7: some 45 times fewer steps on CIFAR-10. On
  a category of MVTec AD 10 epochs are 10 to 60 steps: give it more (`iterations`, `batch_size`).
* Training images are not flipped, cropped or rotated; theirs are, once and for all before training. The latent loss is
  a mean, where equation 4 is a norm.
* Anomalies come from the training split only, and none is chosen by looking at the test split; the authors cluster the
  test images too. Their AUROC is computed on scores thresholded at .5, which makes it a balanced accuracy
  (`legacy_threshold=.5`).
* Without any pretrained weights it fails; the small trained encoder has to be asked for (`backbone=none`), since a
  benchmark must not change a network unasked.
* `anomaly_map` is our addition; their code has none. Without anomalies D_anom is built, and counted among the
  parameters, but is neither trained nor used.
* Not offered: dropout in D; fine-tuning of the backbone; a start from a TransGAN trained elsewhere.
* Kept: the six losses with their weights, and the target 0 of the anomaly adversarial loss, by which G helps D_anom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adbench_baselines.layers import frozen, portions
from adbench_plugins import features
from adbench_plugins.transgan.batches import Batch, Images, one_pass
from adbench_plugins.transgan.diffaugment import diffaugment
from adbench_plugins.transgan.dual_settings import (
    Config,
    build_backbone,
    build_enc,
    build_mapper,
    check_sides,
)
from adbench_plugins.transgan.losses import (
    abc_loss,
    l1_loss,
    latent_loss,
    lsgan_discriminator_loss,
    lsgan_loss,
    patch_loss,
)
from adbench_plugins.transgan.settings import Shape, build_discriminator, build_generator, check_shape
from adbench_tgan import Detector, Endless, TrainSet, adam, mean_losses, stepper, to_uint8, to_unit

Losses = dict[str, Tensor]
BATCH = 256  # training images whose features are taken at a time


class TransGANDual(Detector):
    """Score: the mean squared error of the reconstruction, with pixels in [-1, 1]."""

    Config = Config
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {
            "epochs": 2,
            "lr": 1e-3,
            "backbone": "tf_efficientnet_lite0",  # the same everywhere, and nothing to download
            "feature_size": 32,
            "latent": 128,
            "generator_width": 64,
            "generator_depths": (1, 1, 0),
            "discriminator_width": 64,
            "discriminator_depth": 1,
            "discriminator_patch": 8,
        }
    }

    @classmethod
    def plan(cls, config: Config) -> Config:
        name, weights = features.resolve(config.backbone, config.backbone_weights), config.backbone_weights
        sha256 = None
        if weights is not None:
            features.Backbone(name, weights=weights, head=config.feat == "logits1000")  # whether they fit it
            sha256 = features.digest(weights)
        return config.model_copy(update={"backbone": name, "backbone_sha256": sha256})

    def build(self, shape: Shape) -> None:
        channels, side = check_shape("transgan_dual", shape)
        check_sides(self.config, side)
        self.backbone = build_backbone(self, channels)
        self.mapper = build_mapper(self.config, self.backbone.features)
        self.generator = build_generator(self.config, channels, side)
        patch = self.config.discriminator_patch
        self.discriminator_normal = build_discriminator(self.config, channels, side, patch)
        self.discriminator_anomalous = build_discriminator(self.config, channels, side, patch)
        if self.config.latent_by != "mapper":
            self.enc = build_enc(self.config, channels)
        for network in self.networks.values():
            network.to(self.device)

    @property
    def networks(self) -> dict[str, nn.Module]:
        names = ("generator", "discriminator_normal", "discriminator_anomalous", "mapper", "backbone", "enc")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def epochs(self, train: TrainSet) -> Iterator[Mapping[str, float]]:
        c: TransGANDual.Config = self.config
        self.build(train.shape)
        for network in self.networks.values():
            network.train()
        optimise = self._optimisers()
        normal = self._with_features(train.normal.on(self.device))
        anomalies = train.anomalies if c.takes_anomalies else None
        anomalous = self._with_features(anomalies.on(self.device)) if anomalies is not None else None
        size = c.batch_size if anomalous is None else c.batch_size // 2
        shuffle = torch.Generator().manual_seed(self.seed)
        endless = Endless(lambda order: one_pass(normal, anomalous, size, order, self.device), self.seed)
        order = {"shuffle": shuffle} if c.iterations is None else {"shuffle": shuffle, "batches": endless}
        warmup_step = stepper(self, lambda batch, _: self._warmup_step(optimise, batch))
        done = self.resume(generator=optimise.generator, discriminators=optimise.discriminators, **order)
        for _ in range(done, c.warmup_epochs):
            batches = one_pass(normal, None, size, shuffle, self.device)
            yield mean_losses(warmup_step(*pair) for pair in batches)
        step = stepper(self, lambda *pair: self._step(optimise, *pair))
        for count in self._counts[max(done - c.warmup_epochs, 0) :]:
            whole = one_pass(normal, anomalous, size, shuffle, self.device)
            batches = whole if count is None else islice(endless, count)
            yield mean_losses(step(*pair) for pair in batches)

    @property
    def _counts(self) -> list[int] | list[None]:
        """How many steps each epoch after the warm-up has; None: one pass over the normal images."""
        c: TransGANDual.Config = self.config
        return [None] * c.epochs if c.iterations is None else portions(c.iterations)

    def expected_epochs(self, train: TrainSet) -> int:
        return self.config.warmup_epochs + len(self._counts)

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        error, threshold = self._error(images).mean((1, 2, 3)), self.config.legacy_threshold
        return error if threshold is None else (error >= threshold).float()

    @torch.no_grad()
    def anomaly_map(self, images: Tensor) -> Tensor:
        return self._error(images).mean(1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        return to_uint8(self._draw(self.backbone(images))[1])

    def _error(self, images: Tensor) -> Tensor:  # uint8 (B, C, H, W) -> (B, C, H, W)
        _, x_hat = self._draw(self.backbone(images))
        return (to_unit(images) - x_hat).square()

    def _draw(self, feats: Tensor) -> tuple[Tensor, Tensor]:
        z = self.mapper(feats)  # (B, latent)
        return z, self.generator(z).float()  # (B, C, H, W)

    def _optimisers(self) -> Optimisers:
        c: TransGANDual.Config = self.config
        drawing = [self.generator, self.mapper, self.backbone]
        drawing += [self.enc] if c.latent_by != "mapper" else []
        judging = [self.discriminator_normal, self.discriminator_anomalous]
        return Optimisers(
            generator=adam(trainable(drawing), c.lr, c.betas),
            discriminators=adam(trainable(judging), c.lr, c.betas),
        )

    def _with_features(self, pixels: Tensor) -> Images:
        """Training images with the features of a frozen backbone, which are the same in every epoch."""
        if trainable([self.backbone]):
            return Images(pixels, None)
        with torch.no_grad():
            feats = [self.backbone(part.to(self.device)) for part in pixels.split(BATCH)]
        return Images(pixels, torch.cat(feats))

    def _warmup_step(self, optimise: Optimisers, batch: Batch) -> Losses:
        _, x_hat = self._draw(self._features(batch))
        loss = l1_loss(batch.x, x_hat)
        self._descend(optimise.generator, loss)
        return {"l1": loss}

    def _step(self, optimise: Optimisers, normal: Batch, anomalous: Batch | None) -> Losses:
        """Reconstruct both halves once, then update the discriminators, then the generator."""
        halves = [normal] if anomalous is None else [normal, anomalous]
        z, x_hat = self._draw(torch.cat([self._features(half) for half in halves]))
        x_hats = x_hat.split([len(half.x) for half in halves])
        losses = self._discriminator_step(optimise, halves, [x_hat.detach() for x_hat in x_hats])
        with frozen(self.discriminator_normal, self.discriminator_anomalous):
            terms = self.normal_losses(normal.x, x_hats[0], z[: len(normal.x)])
            if anomalous is not None:
                terms |= self.anomalous_losses(anomalous.x, x_hats[1])
            total = self.weighted(terms)
            self._descend(optimise.generator, total)
        return losses | terms | {"generator": total}

    def _discriminator_step(self, optimise: Optimisers, halves: list[Batch], x_hats: list[Tensor]) -> Losses:
        judges = {"normal": self.discriminator_normal, "anomalous": self.discriminator_anomalous}
        losses = {}
        for (name, judge), half, x_hat in zip(judges.items(), halves, x_hats, strict=False):
            losses[f"discriminator_{name}"] = lsgan_discriminator_loss(
                judge(self._augment(half.x)), judge(self._augment(x_hat))
            )
        optimise.discriminators.zero_grad()
        sum(losses.values()).backward()
        optimise.discriminators.step()
        return losses

    def normal_losses(self, x: Tensor, x_hat: Tensor, z: Tensor) -> Losses:
        """What the generator minimises on normal images, before weighting; those of weight 0 are left out."""
        c: TransGANDual.Config = self.config
        losses = {"l1": l1_loss(x, x_hat)}
        if c.w_patch:
            losses["patch"] = patch_loss(x, x_hat, c.patch_size, c.patch_top)
        if c.w_adv_normal:
            losses["adv_normal"] = lsgan_loss(self.discriminator_normal(self._augment(x_hat)), 1.0)
        if c.w_latent:
            if c.latent_by == "mapper":
                losses["latent"] = latent_loss(z, self.mapper(self.backbone(x_hat)))
            else:
                losses["latent"] = latent_loss(self.enc(x), self.enc(x_hat))
        return losses

    def anomalous_losses(self, x: Tensor, x_hat: Tensor) -> Losses:
        """What the generator minimises on anomalous images, before weighting."""
        logits = self.discriminator_anomalous(self._augment(x_hat))
        return {"adv_anomalous": lsgan_loss(logits, self.config.anom_adv_target), "abc": abc_loss(x, x_hat)}

    def weighted(self, losses: Losses) -> Tensor:
        """The sum of `losses`, each times its weight ``w_NAME``."""
        return sum(getattr(self.config, f"w_{name}") * loss for name, loss in losses.items())

    def _descend(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], self.config.grad_clip)
        optimiser.step()

    def _features(self, batch: Batch) -> Tensor:
        return self.backbone(batch.x) if batch.feats is None else batch.feats

    def _augment(self, x: Tensor) -> Tensor:
        return diffaugment(x, self.config.diffaugment)


@dataclass(frozen=True)
class Optimisers:
    generator: torch.optim.Optimizer
    discriminators: torch.optim.Optimizer


def trainable(networks: list[nn.Module]) -> list[nn.Parameter]:
    return [p for network in networks for p in network.parameters() if p.requires_grad]

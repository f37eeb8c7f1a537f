"""The settings of the TransGAN with two discriminators, and those of its networks that no other detector has."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from adbench_baselines.layers import Decay, Rate, check_weights
from adbench_plugins import features
from adbench_plugins.features import BackboneName
from adbench_plugins.transgan.settings import TransGANConfig, check_side
from adbench_tgan import AdbenchError, Detector


class Config(TransGANConfig):
    """The settings of `transgan_dual`."""

    mode: Literal["labelled", "unsupervised"] = Field(default="labelled", json_schema_extra={"later": True})
    """unsupervised: ignore labelled anomalies, train the normal branch alone, and be ranked as one-class"""
    image_size: int = 32
    """side in pixels: the thesis's networks at 32 and 64; other multiples of 4, from 16 on, are our own addition"""
    epochs: int = Field(default=10, ge=0)
    """passes over the normal training images with all losses"""
    iterations: int | None = Field(default=None, ge=1, json_schema_extra={"later": True})
    """training steps with all losses, which replace epochs, for categories with few images; null: train for `epochs`"""
    warmup_epochs: int = Field(default=1, ge=0)
    """warm-up before that: passes with the L1 error of normal images as the only loss"""
    batch_size: int = Field(default=64, ge=2)
    """images per step: half normal and half anomalous, or all normal if there are no anomalies; warm-up steps have the
    normal ones only"""
    lr: Rate = 1e-4
    """learning rate of both Adam optimisers"""
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    """betas of both Adam optimisers"""
    grad_clip: float = Field(default=5.0, gt=0)
    """clip the gradient of the generator, and of all that is trained with it, to this norm"""

    w_patch: float = 1.5
    """weight of the patch loss: the error of normal images in their worst patches"""
    w_adv_normal: float = 0.5
    """weight of the generator's adversarial loss on normal images"""
    w_latent: float = 0.5
    """weight of the latent loss: the distance between the latent codes of a normal image and of its reconstruction"""
    latent_by: Literal["mapper", "enc_random", "enc_trained"] = Field(
        default="mapper", json_schema_extra={"later": True}
    )
    """what gives those codes: the mapper, or the thesis's Enc of four convolutions, left at its random initial weights as in
    the thesis's code (enc_random), or trained by this loss alone, which can make it constant (enc_trained)"""
    w_l1: float = 1.5
    """weight of the L1 error of normal images"""
    w_adv_anomalous: float = 1.0
    """weight of the generator's adversarial loss on anomalous images"""
    w_abc: float = 0.5
    """weight of the ABC loss of anomalous images, which falls as their error grows"""
    anom_adv_target: float = 0.0
    """target of the adversarial loss on anomalous images: 0, as printed in the thesis, or 1, to deceive the discriminator"""
    patch_size: int = Field(default=8, ge=1)
    """side of the patches of the patch loss"""
    patch_top: int = Field(default=3, ge=1)
    """number of an image's worst patches that count in the patch loss"""

    backbone: BackboneName = "auto"
    """network that gives the features; auto: resnet50 if its weights are on this machine or can be downloaded, else
    tf_efficientnet_lite0; none: a small encoder, trained from scratch"""
    backbone_weights: str | None = None
    """file with your own weights for the named backbone: a .safetensors or .pth state dict"""
    backbone_sha256: str | None = None
    """hash of the file backbone_weights; filled in when a job is planned"""
    feature_size: int = Field(default=224, ge=32)
    """side in pixels to which images are resized for the backbone"""
    feat: Literal["pooled", "logits1000"] = Field(default="pooled", json_schema_extra={"later": True})
    """features: those before the backbone's classifier (pooled), or its 1,000 logits, as in the thesis's code (logits1000)"""
    mapper_relu: bool = False
    """end the mapper in a ReLU, as the thesis does, instead of a LayerNorm"""
    discriminator_patch: int = Field(default=4, ge=1)
    """side of the patches that are the discriminators' tokens"""
    legacy_threshold: float | None = Field(default=None, gt=0, json_schema_extra={"later": True})
    """threshold on the error, .5 in the thesis: scores are 1 from there on and 0 below, so that AUROC is a balanced accuracy;
    null: the score is the error"""

    @property
    def pretrained(self) -> str | None:
        if self.backbone == "none":
            return None
        return f"{self.backbone}:{self.backbone_sha256[:8]}" if self.backbone_sha256 else self.backbone

    @property
    def takes_anomalies(self) -> bool:
        return self.mode == "labelled"

    @model_validator(mode="after")
    def _fits(self) -> Config:
        check_sides(self, self.image_size)
        if not (self.epochs or self.warmup_epochs or self.iterations):
            raise AdbenchError(
                "transgan_dual: with epochs=0 and warmup_epochs=0 nothing is trained; set one of them to 1 or more"
            )
        if self.epochs or self.iterations:
            normal, anomalous = ("w_patch", "w_adv_normal", "w_latent", "w_l1"), ("w_adv_anomalous", "w_abc")
            check_weights(self, *normal, *(anomalous if self.takes_anomalies else ()))
        if self.latent == 1 and not self.mapper_relu:
            raise AdbenchError(
                "transgan_dual: with latent=1 all images have the same z, as the LayerNorm of one number is constant; "
                "set a larger one"
            )
        if self.feat == "logits1000" and self.backbone == "none":
            raise AdbenchError(
                "transgan_dual: feat=logits1000 needs a classification head, and backbone=none has none; "
                "name another backbone, or set feat=pooled"
            )
        return self


def check_sides(config: Config, side: int) -> None:
    """Raise `AdbenchError` where no network can be made for images of `side` pixels."""
    check_side("transgan_dual", side)
    for name in ("patch_size", "discriminator_patch"):
        patch = getattr(config, name)
        if side % patch:
            raise AdbenchError(f"transgan_dual: {name} {patch} does not divide image_size {side}; use 4")


def build_backbone(detector: Detector, channels: int) -> features.Backbone | features.SmallEncoder:
    c = detector.config
    empty = features.brought_along(detector)
    name = c.backbone if empty else features.resolve(c.backbone, c.backbone_weights)
    if name == "none":
        return features.SmallEncoder(channels)
    return features.Backbone(
        name,
        feature_size=c.feature_size,
        weights=c.backbone_weights,
        device=detector.device,
        empty=empty,
        head=c.feat == "logits1000",
    )


def build_enc(config: Config, channels: int) -> features.SmallEncoder:
    """The thesis's Enc, (B, channels, H, W) -> (B, 2048)."""
    return features.SmallEncoder(channels).requires_grad_(config.latent_by == "enc_trained")


def build_mapper(config: Config, inputs: int) -> nn.Sequential:
    last = nn.ReLU() if config.mapper_relu else nn.LayerNorm(config.latent)
    return nn.Sequential(nn.Linear(inputs, config.latent), last)

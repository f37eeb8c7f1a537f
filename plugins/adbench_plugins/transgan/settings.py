"""The settings that TransGAN's detectors share, and the networks that follow from them."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt

from adbench_plugins.transgan.diffaugment import Variant
from adbench_plugins.transgan.networks import AttnScale, Discriminator, Generator, OutAct
from adbench_tgan import AdbenchError, DetectorConfig

Shape = tuple[int, int, int]
Depths = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]


class TransGANConfig(DetectorConfig):
    latent: int = Field(default=1024, ge=1)
    """length of z"""
    attn_scale: AttnScale = "head"
    """scale attention by the width of a head (head), or by the whole width (dim), as the thesis does"""
    out_act: OutAct = "tanh"
    """last activation of the generator; none in the thesis"""
    generator_width: int = Field(default=384, ge=64, multiple_of=64)
    """channels of the generator's first stage; a quarter and a sixteenth of it in the next two"""
    generator_depths: Depths | None = None
    """transformer blocks in the generator's three stages; null: 5, 4, 2 for images under 64 pixels, else 4, 3, 1"""
    stem_width: int | None = Field(default=None, ge=1, json_schema_extra={"later": True})
    """channels of the generator's first tokens, which a linear layer then widens to generator_width, to save parameters;
    null: no such layer, as in the thesis"""
    generator_dropout: float = Field(default=0.0, ge=0, lt=1)
    """dropout rate in the generator, in training; .5 in the thesis's notebooks"""
    discriminator_width: int = Field(default=384, ge=4, multiple_of=4)
    """channels of a discriminator's tokens"""
    discriminator_depth: int | None = Field(default=None, ge=0)
    """transformer blocks in a discriminator; null: 7 for images under 64 pixels, else 4"""
    diffaugment: Variant = "mit"
    """DiffAugment of the images that discriminators see in training: with the magnitudes of its paper (mit), with those of
    the code that the thesis builds on (asarigun), or none"""


def check_side(detector: str, side: int) -> None:
    """Raise `AdbenchError` where `detector`'s networks cannot be made for images of `side` pixels."""
    if side < 16 or side % 4:
        raise AdbenchError(
            f"{detector}: image_size {side} is not a multiple of 4 that is at least 16; use 32 or 64"
        )


def check_shape(detector: str, shape: Shape) -> tuple[int, int]:
    """The channels and the side of images of `shape`.

    Raises:
        AdbenchError: `detector`'s networks cannot be made for them.
    """
    channels, height, width = shape
    if height != width or channels not in (1, 3):
        raise AdbenchError(f"{detector} needs square images with 1 or 3 channels, not {shape}; resize them")
    check_side(detector, height)
    return channels, height


def build_generator(config: TransGANConfig, channels: int, side: int) -> Generator:
    """z (B, latent) -> (B, channels, side, side)."""
    return Generator(
        channels=channels,
        latent=config.latent,
        initial_size=side // 4,
        width=config.generator_width,
        depths=config.generator_depths or ((4, 3, 1) if side >= 64 else (5, 4, 2)),
        dropout=config.generator_dropout,
        attn_scale=config.attn_scale,
        out_act=config.out_act,
        stem_width=config.stem_width,
    )


def build_discriminator(config: TransGANConfig, channels: int, side: int, patch: int = 4) -> Discriminator:
    """(B, channels, side, side) -> (B,)."""
    depth = config.discriminator_depth
    return Discriminator(
        channels=channels,
        image_size=side,
        patch=patch,
        width=config.discriminator_width,
        depth=(4 if side >= 64 else 7) if depth is None else depth,
        attn_scale=config.attn_scale,
    )

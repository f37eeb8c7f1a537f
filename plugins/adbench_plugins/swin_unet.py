"""SwinUNet, AnoTrans's generator: a U-Net of Swin transformer blocks. anotrans.py lists where it differs from the
authors' code.

Yang, Lan et al., ICANN 2022; its blocks from Liu et al.: Swin Transformer, ICCV 2021,
https://arxiv.org/abs/2103.14030, as implemented in timm. Tokens are maps (B, side, side, dim) throughout.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

Attention = Literal["window", "tf"]
SkipMode = Literal["code", "figure"]
OutAct = Literal["tanh", "none"]
LEVELS = 3
HEADS = 4
WINDOW = 2


class SwinUNet(nn.Module):
    """x -> x_hat. With T = size / patch tokens a side, the three levels have T, T / 2 and T / 4, the bottom T / 8."""

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        patch: int,
        width: int = 64,
        attention: Attention = "window",
        skip: SkipMode = "code",
        legacy_view: bool = False,
        out_act: OutAct = "tanh",
    ):
        super().__init__()
        self.shape, self.legacy_view, self.out_act = (channels, size, size), legacy_view, out_act
        side = size // patch
        levels = [(width << i, side >> i) for i in range(LEVELS)]
        bottom = (width << LEVELS, side >> LEVELS)
        self.normalise = nn.BatchNorm2d(channels) if skip == "figure" else nn.Identity()
        self.embed = PatchEmbed(size, patch, channels, width, norm_layer=nn.LayerNorm, output_fmt="NHWC")
        self.position = nn.Parameter(torch.zeros(1, side, side, width))
        self.downs = nn.ModuleList(
            Down(*level, attention, skip, deepest=i == LEVELS - 1) for i, level in enumerate(levels)
        )
        self.bottom = nn.Sequential(att_block(*bottom, attention), PatchExpand(bottom[0]))
        self.ups = nn.ModuleList(Up(*level, attention) for level in reversed(levels))
        self.pixels = nn.Linear(width // 2, channels * (patch // 2) ** 2)
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.apply(normal_init)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        tokens = self.embed(self.normalise(x)) + self.position  # (B, T, T, width)
        skips = []
        for down in self.downs:
            tokens, skip = down(tokens)
            skips.append(skip)
        tokens = self.bottom(tokens)  # (B, T / 4, T / 4, 4 width)
        for up in self.ups:
            tokens = up(tokens, skips.pop())
        image = self.mix(self.to_image(self.pixels(tokens)))  # from (B, 2T, 2T, C * (patch / 2)^2)
        return torch.tanh(image) if self.out_act == "tanh" else image

    def to_image(self, tokens: Tensor) -> Tensor:
        """(B, 2T, 2T, C * r^2) -> (B, C, H, W): the pixels of a token side by side, or in the authors' order."""
        channels, height, width = self.shape
        if self.legacy_view:
            return tokens.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        return F.pixel_shuffle(tokens.permute(0, 3, 1, 2), height // tokens.shape[1])


class Down(nn.Module):
    """(B, s, s, dim) -> (B, s / 2, s / 2, 2 dim), and the skip (B, s, s, dim)."""

    def __init__(self, dim: int, side: int, attention: Attention, skip: SkipMode, *, deepest: bool):
        super().__init__()
        self.skip_mode = skip
        self.attend = att_block(dim, side, attention)
        bare = skip == "code" and deepest
        self.skip = nn.Identity() if bare else att_block(dim, side, attention)
        self.merge = PatchMerging(dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        attended = self.attend(tokens)
        skip = self.skip(tokens if self.skip_mode == "code" else attended)
        return self.merge(attended), skip


class Up(nn.Module):
    """(B, s, s, dim) and the skip (B, s, s, dim) -> (B, 2s, 2s, dim / 2)."""

    def __init__(self, dim: int, side: int, attention: Attention):
        super().__init__()
        self.fuse = nn.Linear(2 * dim, dim)
        self.attend = att_block(dim, side, attention)
        self.expand = PatchExpand(dim)

    def forward(self, tokens: Tensor, skip: Tensor) -> Tensor:
        return self.expand(self.attend(self.fuse(torch.cat([tokens, skip], dim=-1))))


class PatchExpand(nn.Module):
    """(B, s, s, dim) -> (B, 2s, 2s, dim / 2): the inverse of patch merging."""

    def __init__(self, dim: int):
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(dim // 2)

    def forward(self, tokens: Tensor) -> Tensor:
        finer = F.pixel_shuffle(self.expand(tokens).permute(0, 3, 1, 2), 2)  # (B, dim / 2, 2s, 2s)
        return self.norm(finer.permute(0, 2, 3, 1))


def att_block(dim: int, side: int, attention: Attention) -> nn.Sequential:
    """AttBlock, (B, side, side, dim) -> the same shape: two pre-norm blocks, LayerNorm and GELU.

    The second block's windows are shifted by one. Where a window covers all, timm makes it `side` and shifts nothing.
    """
    if attention == "tf":
        inner: list[nn.Module] = [plain_block(dim), plain_block(dim)]
        inner = [nn.Flatten(1, 2), *inner, nn.Unflatten(1, (side, side))]
    else:
        inner = [
            SwinTransformerBlock(dim, (side, side), HEADS, window_size=WINDOW, shift_size=shift)
            for shift in (0, WINDOW // 2)
        ]
    return nn.Sequential(*inner, nn.LayerNorm(dim), nn.GELU())


def plain_block(dim: int) -> nn.Module:
    """A block of attention over all tokens, (B, N, dim) -> the same shape; its two halves share their norm."""
    block = Block(dim, HEADS, qkv_bias=False, norm_layer=nn.LayerNorm)
    block.norm2 = block.norm1
    return block


def normal_init(module: nn.Module) -> None:
    """Linear layers and convolutions N(0, .02), biases 0; norms stay 1 and 0; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""The generator and the discriminator of TransGAN, two transformers without convolutions.

Jiang, Chang, Wang: TransGAN: Two Pure Transformers Can Make One Strong GAN, and That Can Scale Up, NeurIPS 2021,
https://arxiv.org/abs/2102.07074; in the sizes that Nayan Khemka's thesis uses at 32 and 64 pixels. Width 384, 4 heads.
Generator: initial side 8, depths 5-4-2, 34,591,275 parameters at 32 pixels; 16, 4-3-1 and 108,491,643 at 64.
Discriminator: patches of 4, depth 7, 12,458,497 parameters at 32; depth 4, 7,212,289 at 64.

Where this differs from the authors' code, and why

* Attention is scaled by head_dim ** -0.5, as in TransGAN's official code; the thesis and the code it builds on scale
  by width ** -0.5, which is half as much with 4 heads (`attn_scale="dim"`).
* The generator ends in tanh, because the images are in [-1, 1] (`out_act="none"` for the authors').
* Dropout is 0 unless asked for; the thesis's notebooks use .5 in the generator, also when they score.
* DiffAugment is outside the discriminator, which therefore is a function of its image.
* D's linear layers keep PyTorch's random biases; the code the thesis builds on sets them to 0. This is no improvement:
  the published rows were trained so, and stay comparable with new ones.
* The generator's positional embeddings follow the initial side; the thesis's listing hard-codes those of 8.

`stem_width` is our own addition: at 64 pixels the first layer holds 100.8 of the 108.5 million parameters. With it,
that layer makes narrow tokens, which a second layer, the same for all of them, widens.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AttnScale = Literal["head", "dim"]
OutAct = Literal["tanh", "none"]
HEADS = 4


class Attention(nn.Module):
    """Multi-head self-attention; no bias in queries, keys and values."""

    def __init__(self, dim: int, heads: int, dropout: float, attn_scale: AttnScale):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.scale = (dim if attn_scale == "dim" else dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # (B, n, 3, heads, d)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # (B, heads, n, d) each
        dropout = self.dropout if self.training else 0.0
        attended = attend(q, k, v, self.scale, dropout, multiple=8 if tokens.is_cuda else 1)
        return F.dropout(self.out(attended.transpose(1, 2).flatten(2)), self.dropout, self.training)


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float = 0.0, *, multiple: int = 1
) -> Tensor:
    """Softmax attention, (B, heads, n, d) each.

    Zeros fill up d to a `multiple`: they change nothing, but CUDA's fused kernels refuse d = 6, and without them
    the 1,024 x 1,024 weights of the last stage would be written out.
    """
    d = q.shape[-1]
    if d % multiple:
        q, k, v = (F.pad(t, (0, -d % multiple)) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)[..., :d]


class Block(nn.Module):
    """Pre-norm transformer block: attention, then an MLP four times as wide, each added to its input."""

    def __init__(self, dim: int, heads: int, dropout: float, attn_scale: AttnScale):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout, attn_scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim), nn.Dropout(dropout)
        )

    def forward(self, tokens: Tensor) -> Tensor:  # (B, n, dim) -> (B, n, dim)
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Generator(nn.Module):
    """z -> image of side 4 * initial_size: three stages, each with twice the side and a quarter of the channels."""

    def __init__(
        self,
        *,
        channels: int = 3,
        latent: int = 1024,
        initial_size: int = 8,
        width: int = 384,
        depths: tuple[int, int, int] = (5, 4, 2),
        dropout: float = 0.0,
        attn_scale: AttnScale = "head",
        out_act: OutAct = "tanh",
        stem_width: int | None = None,
    ):
        super().__init__()
        self.out_act = out_act
        dims = [width, width // 4, width // 16]
        sides = [initial_size, 2 * initial_size, 4 * initial_size]
        self.stem = nn.Linear(latent, initial_size**2 * (stem_width or width))
        self.widen = nn.Linear(stem_width, width) if stem_width else nn.Identity()
        self.positions = nn.ParameterList(
            torch.zeros(1, side**2, dim) for side, dim in zip(sides, dims, strict=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, HEADS, dropout, attn_scale) for _ in range(depth)))
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.to_image = nn.Conv2d(dims[-1], channels, 1)
        self.apply(xavier)

    def forward(self, z: Tensor) -> Tensor:  # (B, latent) -> (B, channels, 4s, 4s)
        tokens = self.widen(self.stem(z).unflatten(1, (self.positions[0].shape[1], -1)))  # (B, s * s, width)
        tokens = self.stages[0](tokens + self.positions[0])
        for position, stage in zip(self.positions[1:], self.stages[1:], strict=True):
            tokens = stage(upsample(tokens) + position)
        image = self.to_image(as_map(tokens))
        return torch.tanh(image) if self.out_act == "tanh" else image


class Discriminator(nn.Module):
    """Image -> logit, read from a class token."""

    def __init__(
        self,
        *,
        channels: int = 3,
        image_size: int = 32,
        patch: int = 4,
        width: int = 384,
        depth: int = 7,
        attn_scale: AttnScale = "head",
    ):
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, (image_size // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Block(width, HEADS, 0.0, attn_scale) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.logit = nn.Linear(width, 1)
        self.apply(xavier)
        nn.init.trunc_normal_(self.cls, std=0.2)
        nn.init.trunc_normal_(self.positions, std=0.2)

    def forward(self, images: Tensor) -> Tensor:  # (B, channels, H, W) -> (B,)
        patches = self.embed(images).flatten(2).mT  # (B, n, width)
        tokens = torch.cat([self.cls.expand(len(images), -1, -1), patches], dim=1) + self.positions
        tokens = self.blocks(tokens)
        return self.logit(self.norm(tokens)[:, 0]).squeeze(1)


def as_map(tokens: Tensor) -> Tensor:
    """(B, side * side, dim) -> (B, dim, side, side)."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.mT.unflatten(2, (side, side))


def upsample(tokens: Tensor) -> Tensor:
    """Pixel-shuffle: (B, n, dim) -> (B, 4n, dim / 4), the side of the map doubled."""
    return F.pixel_shuffle(as_map(tokens), 2).flatten(2).mT


def xavier(module: nn.Module) -> None:
    """Initialise the weight of a linear layer as TransGAN does; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)

"""Anchors, which a detector must beat to have learned anything: chance, brightness, the mean image, a linear model."""

from __future__ import annotations

import hashlib
from typing import Self

import torch
from pydantic import Field
from torch import Tensor

from adbench_tgan import AdbenchError, Detector, DetectorConfig, TrainSet, to_uint8, to_unit

BATCH = 512  # training images taken at a time


class Random(Detector):
    """A number in [0, 1) from a hash of the image's bytes and the seed: chance level, but repeatable."""

    def fit(self, train: TrainSet) -> Self:  # there is nothing to learn
        return self

    def score(self, images: Tensor) -> Tensor:
        key = self.seed.to_bytes(8, "big", signed=True)
        scores = [chance(image.tobytes(), key) for image in images.cpu().numpy()]
        return torch.tensor(scores, device=images.device)


def chance(image: bytes, key: bytes) -> float:
    """A number in [0, 1) of 24 bits, as many as float32 holds."""
    return int.from_bytes(hashlib.blake2b(image, digest_size=3, key=key).digest(), "big") / 2**24


class MeanPixel(Detector):
    """The mean pixel value, in units of [-1, 1]. This detector learns nothing.

    If its AUROC is far from .5, above or below, brightness alone separates the anomalies of a test set from its normal
    images.
    """

    def fit(self, train: TrainSet) -> Self:
        return self

    def score(self, images: Tensor) -> Tensor:
        return to_unit(images).double().mean((1, 2, 3)).float()


class MeanImage(Detector):
    """The mean squared difference between an image and the mean training image, with pixels in [-1, 1]."""

    def fit(self, train: TrainSet) -> Self:
        total = sum(
            to_unit(batch).double().sum(0) for batch in train.normal.batches(BATCH, device=self.device)
        )
        self.mean = (total / len(train.normal)).float()  # (C, H, W)
        return self

    def score(self, images: Tensor) -> Tensor:
        return (to_unit(images) - self.mean).square().mean((1, 2, 3))

    def anomaly_map(self, images: Tensor) -> Tensor:
        return (to_unit(images) - self.mean).square().mean(1)

    def reconstruct(self, images: Tensor) -> Tensor:
        return to_uint8(self.mean).expand_as(images).clone()


class PCA(Detector):
    """The mean squared error of an image's reconstruction from the principal components of the training images.

    All computations are in float64. The components do not depend on a seed, and a score does not depend on the batch.
    """

    class Config(DetectorConfig):
        components: int = Field(default=32, ge=1)
        """number of principal components kept; fewer if the training images span fewer"""

    def fit(self, train: TrainSet) -> Self:
        batches = train.normal.batches(BATCH, device=self.device)
        pixels = torch.cat([flatten(batch) for batch in batches])  # (N, C*H*W)
        self.mean = pixels.mean(0)
        self.basis = principal_directions(pixels - self.mean, self.config.components)
        kept, wanted = self.basis.shape[1], self.config.components
        if kept == len(self.mean):
            raise AdbenchError(
                f"pca.components={wanted}: {kept} components reconstruct any image of {kept} values, and leave no error to score; "
                f"set fewer than {kept}"
            )
        if kept < wanted:
            self.notes.append(f"{kept} of {wanted} components: the training images span no more")
        return self

    def score(self, images: Tensor) -> Tensor:
        return self._residual(images).square().mean(1).float()

    def anomaly_map(self, images: Tensor) -> Tensor:
        return self._residual(images).square().view(images.shape).mean(1).float()

    def reconstruct(self, images: Tensor) -> Tensor:
        return to_uint8((flatten(images) - self._residual(images)).view(images.shape))

    def _residual(self, images: Tensor) -> Tensor:  # (B, C*H*W)
        centred = flatten(images) - self.mean
        return centred - centred @ self.basis @ self.basis.T


def flatten(images: Tensor) -> Tensor:
    """Uint8 (B, C, H, W) -> float64 (B, C*H*W) in [-1, 1]."""
    return to_unit(images).double().flatten(1)


def principal_directions(centred: Tensor, wanted: int) -> Tensor:
    """At most `wanted` orthonormal directions of the greatest variance of (N, D), as (D, k).

    From the eigenvectors of the smaller of X X' and X' X.
    """
    count, dim = centred.shape
    wide = count < dim
    values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)  # ascending
    values, vectors = values.flip(0), vectors.flip(1)
    noise = max(count, dim) * torch.finfo(values.dtype).eps * values[0]
    kept = min(wanted, int((values > noise).sum()))
    chosen = vectors[:, :kept]
    return torch.linalg.qr(centred.T @ chosen).Q if wide else chosen

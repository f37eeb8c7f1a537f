"""Probabilistic PCA of patches: an image is anomalous where its patches are unlikely.

Tipping & Bishop: "Probabilistic Principal Component Analysis", JRSS B 61(3), 1999,
https://doi.org/10.1111/1467-9868.00196. Each patch, less the mean patch of its place, is drawn from a
Gaussian whose covariance has q free directions and the same variance in all others. Both are known in closed
form from the eigenvalues of the patches' covariance.

Where this differs from the paper, and why
1. The mean depends on the patch's place, the covariance does not: enough to know an aligned object, and there
   are many more patches than images to estimate a covariance from.
2. The variance of the other directions is at least that of rounding pixels to 8 bits; else images with a
   constant background would make it zero.
3. A patch's energy is its squared Mahalanobis distance over its length, without the constant of the
   likelihood. The image's score is the mean of its highest energies: a defect is small.
"""

from typing import Self

import torch
import torch.nn.functional as F
from adbench_tgan import AdbenchError, Detector, DetectorConfig, TrainSet, to_unit
from pydantic import Field
from torch import Tensor

BATCH = 128  # training images taken at a time
ROUNDING = (2 / 255) ** 2 / 12  # variance of rounding to 8 bits, pixels being in [-1, 1]


class PCAPatches(Detector):
    class Config(DetectorConfig):
        image_size: int = Field(default=32, ge=8)
        """side in pixels to which the benchmark resizes images"""
        patch: int = Field(default=8, ge=2)
        """side of a patch in pixels"""
        stride: int = Field(default=2, ge=1)
        """pixels from a patch to the next"""
        components: int = Field(default=24, ge=1)
        """q: free directions; fewer where a patch has fewer numbers"""
        top: float = Field(default=0.1, gt=0, le=1)
        """share of an image's patches, the most anomalous, whose mean energy is its score"""

    presets = {"quick": {}}

    def fit(self, train: TrainSet) -> Self:
        self._check_size(train.shape)
        batches = list(train.normal.batches(BATCH, device=self.device))
        sums, zero = (self.patches(batch).sum(0) for batch in batches), torch.zeros(())
        self.mean = sum(sums, zero) / len(train.normal)  # (P, D)
        scatter = sum((product(self.patches(batch) - self.mean) for batch in batches), zero)  # (D, D)
        values, vectors = torch.linalg.eigh(scatter / (len(train.normal) * len(self.mean)))  # ascending
        kept = min(self.config.components, len(values) - 1)
        others = values[: len(values) - kept].mean().clamp(min=ROUNDING)  # sigma squared
        self.basis = vectors[:, -kept:]  # (D, q)
        self.weight = 1 / values[-kept:].clamp(min=float(others)) - 1 / others  # (q,)
        self.precision = 1 / others  # ()
        return self

    def score(self, images: Tensor) -> Tensor:
        energies = self.energies(images)  # (B, P)
        count = max(1, round(self.config.top * energies.shape[1]))
        return energies.topk(count, dim=1).values.mean(1).float()

    def anomaly_map(self, images: Tensor) -> Tensor:
        """The mean energy of the patches over each pixel; pixels that no patch covers have none."""
        side, form = images.shape[2:], {"kernel_size": self.config.patch, "stride": self.config.stride}
        energies = self.energies(images)[:, None].expand(-1, self.config.patch**2, -1)  # (B, patch^2, P)
        total, count = (F.fold(each, side, **form) for each in (energies, torch.ones_like(energies)))
        return (total / count.clamp(min=1))[:, 0].float()

    def energies(self, images: Tensor) -> Tensor:
        """Uint8 (B, C, H, W) -> float64 (B, P): squared Mahalanobis distances over the length of a patch."""
        centred = self.patches(images) - self.mean
        inside = (centred @ self.basis).square() @ self.weight
        energies: Tensor = (inside + centred.square().sum(2) * self.precision) / centred.shape[2]
        return energies

    def patches(self, images: Tensor) -> Tensor:
        """Uint8 (B, C, H, W) -> float64 (B, P, D), D = C * patch^2."""
        unfolded = F.unfold(to_unit(images).double(), self.config.patch, stride=self.config.stride)
        return unfolded.transpose(1, 2)

    def _check_size(self, shape: tuple[int, int, int]) -> None:
        if min(shape[1:]) < self.config.patch:
            raise AdbenchError(
                f"patches of {self.config.patch} pixels do not fit images of {min(shape[1:])}; "
                "lower --set pca_patches.patch or raise --set pca_patches.image_size"
            )


def product(centred: Tensor) -> Tensor:
    """(B, P, D) -> (D, D), the sum over all patches of their outer products."""
    rows = centred.flatten(0, 1)
    return rows.T @ rows

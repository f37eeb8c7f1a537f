"""A metric of images is a function of one job's scores and labels."""

import numpy as np

FALSE_ALARMS = 0.05


def tpr_at_fpr5(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """Share of anomalies at or above the threshold at which at most 5 % of the normal images are."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(labels, scores.astype("float64"), drop_intermediate=False)
    return float(true[false <= FALSE_ALARMS].max())

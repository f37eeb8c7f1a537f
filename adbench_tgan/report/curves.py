"""Numbers of the charts, thinned so that a page stays small: curves, histograms, losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adbench_tgan.report.material import Material

POINTS = 200  # of a curve, at most
BINS = 40
# Percentiles between which a histogram's bars are even; the outermost take what is beyond.
CENTRAL = (0.5, 99.5)
CATEGORIES = 30  # at most so many are offered in the selector, and ...
ENTRIES = 24  # ... so many detectors have curves
COUNTS = ("restarts",)  # what detectors report beside their losses, but is none
Record = dict[str, Any]
Floats = NDArray[np.floating[Any]]


def curve_records(material: Material) -> Iterator[Record]:
    """Per detector and category, of the lowest seed: ROC and precision-recall curve, and histogram."""
    for (entry, category), key in chosen_jobs(material).items():
        table = material.scores(key)
        scores, labels = table["score"].to_numpy("float64"), table["label"].to_numpy() == 1
        false, true = roc(scores, labels)
        recall, precision = precision_recall(scores, labels)
        yield {
            "entry": entry,
            "category": category,
            "false": false,
            "true": true,
            "recall": recall,
            "precision": precision,
            "histogram": histogram(scores, labels),
            "threshold": material.thresholds.get(key),
        }


def chosen_jobs(material: Material) -> dict[tuple[str, str], str]:
    """The jobs whose curves are drawn, by entry and category."""
    entries, categories = material.entries[:ENTRIES], material.categories[:CATEGORIES]
    return {
        (entry, category): key
        for (entry, category), key in sorted(material.first_seeds().items())
        if entry in entries and category in categories
    }


def roc(scores: Floats, labels: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """False and true positive rates, thinned."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(labels, scores)
    return thin(false, true)


def precision_recall(scores: Floats, labels: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """Recall and precision, thinned; without the point (0, 1) that stands for no threshold."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    return thin(recall[:-1][::-1], precision[:-1][::-1])


def thin(x: Floats, y: Floats) -> tuple[list[float], list[float]]:
    """At most `POINTS` of a curve's own points, evenly along its length, both ends kept."""
    if len(x) > POINTS:
        length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
        wanted = np.linspace(0, length[-1], POINTS)
        index = np.unique(np.searchsorted(length, wanted).clip(0, len(x) - 1))
        x, y = x[index], y[index]
    return [round(float(value), 4) for value in x], [round(float(value), 4) for value in y]


def histogram(scores: Floats, labels: NDArray[np.bool_]) -> Record:
    """Shares of the normal and of the abnormal images in each of `BINS` bars; edges (BINS + 1,)."""
    low, high = np.percentile(scores, CENTRAL)
    if low == high:
        low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    within = scores.clip(edges[0], edges[-1])
    shares = {
        name: np.histogram(within[labels == wanted], edges)[0] / max(1, (labels == wanted).sum())
        for name, wanted in (("normal", False), ("abnormal", True))
    }
    plain = {name: [round(float(value), 5) for value in values] for name, values in shares.items()}
    wide = edges[1] - edges[0]
    # A thousandth of a bar; scores may be so large, or so close, that their bars have no width.
    places = 3 - math.floor(math.log10(wide)) if 0 < wide < math.inf else None
    return {
        "edges": [float(edge) if places is None else round(float(edge), places) for edge in edges],
        **plain,
    }


def loss_records(material: Material) -> Iterator[Record]:
    """Per detector, category and loss, of the lowest seed: at most `POINTS` epochs. Counts are left out."""
    for (entry, category), key in chosen_jobs(material).items():
        table = material.losses(key)
        if table is None:
            continue
        for name in table.columns.drop(["epoch", *COUNTS], errors="ignore"):
            there = table[np.isfinite(table[name])]  # a loss may begin later, such as after a warm-up
            if there.empty:
                continue
            rows = np.unique(np.linspace(0, len(there) - 1, POINTS).round().astype(int))
            yield {
                "entry": entry,
                "category": category,
                "loss": str(name),
                "epoch": [int(value) for value in there["epoch"].iloc[rows]],
                "value": [float(f"{value:.5g}") for value in there[name].iloc[rows]],
            }

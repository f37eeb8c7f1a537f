"""What a reader of a category's rows must know of its images, though nothing is refused for it."""

from __future__ import annotations

from adbench_tgan.data.samples import Cut, Indices, Pixels, Samples
from adbench_tgan.text import OF_IMAGES


def remarks(samples: Samples, cut: Cut, masks: Pixels | None, anomalies: Indices | None) -> tuple[str, ...]:
    """Notes on a cut's images; `masks` (n, H, W) are those of its test images as they are judged.

    `anomalies` are the training images that a detector may learn from as anomalies.
    """
    found = [
        *_lost(samples, cut, masks),
        *_repeated(samples, cut, cut.normal, "training image"),
        *([] if anomalies is None else _repeated(samples, cut, anomalies, "labelled anomaly of training")),
        *_both(samples, cut),
    ]
    return tuple(f"{OF_IMAGES}{note}" for note in found)


def _lost(samples: Samples, cut: Cut, masks: Pixels | None) -> list[str]:
    """How many masks of anomalies have no defect any more since they were brought to one size."""
    if masks is None or samples.read_mask is None:
        return []
    left = masks.any(axis=(1, 2))
    empty = cut.test[~left & (cut.labels == 1)].tolist()
    lost = sum(bool(samples.read_mask(index).any()) for index in empty)
    if not lost:
        return []
    height, width = masks.shape[1:]
    return [f"{lost} of {lost + left.sum()} masks have no defect pixel left at {width} x {height}"]


def _repeated(samples: Samples, cut: Cut, learned: Indices, what: str) -> list[str]:
    """How many test images are among those that are learned from, by their pixels."""
    test = _hashes(samples, cut.test)
    both = set(test).intersection(_hashes(samples, learned))
    count = sum(each in both for each in test)
    return [f"{count} of {len(test)} test images have the pixels of a {what}"] if count else []


def _both(samples: Samples, cut: Cut) -> list[str]:
    """How many pictures, by their pixels, the test set has with both labels."""
    normal, abnormal = (set(_hashes(samples, cut.test[cut.labels == label])) for label in (0, 1))
    count = len(normal & abnormal)
    pictures = f"{count} pictures are" if count > 1 else "1 picture is"
    return [f"{pictures} in the test set with both labels"] if count else []


def _hashes(samples: Samples, indices: Indices) -> list[bytes]:
    hashes: list[bytes] = samples.digests(indices).view("V32").ravel().tolist()
    return hashes

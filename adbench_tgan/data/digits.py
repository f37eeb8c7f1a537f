"""Scikit-learn's handwritten digits: 1,797 real grey images of 8x8 pixels, embedded in the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adbench_tgan.data.samples import ClassDataset, Samples

NAMES = tuple("0123456789")


def load(root: Path, fetch: bool) -> ClassDataset:
    """The digits as uint8 (1, 8, 8): a count of 0..16 becomes ``round(255 * count / 16)``, 0..255.

    The set has no official test part: of each class, every third image in order (the 3rd, 6th, ...) is one.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.floor(digits.images * 255 / 16 + 0.5).astype(np.uint8)[:, None]
    parts = np.full(len(pixels), "train")
    for label in range(len(NAMES)):
        parts[np.flatnonzero(digits.target == label)[2::3]] = "test"
    samples = Samples(
        read=lambda index: pixels[index],
        ids=[f"digit-{i:04}" for i in range(len(pixels))],
        classes=[NAMES[label] for label in digits.target],
        parts=parts.tolist(),
    )
    return ClassDataset(
        categories=NAMES, images=samples, note=f"{len(pixels):,} images embedded in scikit-learn"
    )

"""Drawn cloth: two weaves, each with holes and missing threads, and masks of both.

Whole numbers all the way, so that every machine draws the same pixels.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from adbench_tgan import AdbenchError, Samples

SIDE, THREAD = 64, 4  # pixels of an image and of a thread
WEAVES = ("plain", "twill")
COUNTS = {("train", "good"): 100, ("test", "good"): 40, ("test", "hole"): 20, ("test", "thread"): 20}


@dataclass(frozen=True)
class Fabric:
    """What `adbench_tgan.DatasetSpec` loads: categories, a note, and the samples of each category."""

    categories: tuple[str, ...] = WEAVES
    note: str = f"{len(WEAVES) * sum(COUNTS.values())} images drawn by a fixed seed"
    drawn: dict[str, Samples] = field(default_factory=dict)

    def samples(self, category: str) -> Samples:
        """The images of one weave, drawn when first asked for."""
        if category not in self.categories:
            raise AdbenchError(f"fabric has no category {category!r}; known: {', '.join(self.categories)}")
        if category not in self.drawn:
            self.drawn[category] = draw_category(category)
        return self.drawn[category]


def load(root: Path, fetch: bool) -> Fabric:
    """Nothing is read from `root`, and nothing downloaded."""
    return Fabric()


def draw_category(weave: str) -> Samples:
    kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
    draw = np.random.default_rng(WEAVES.index(weave))
    pairs = [draw_image(weave, defect, draw) for _, defect in kinds]
    return Samples(
        read=lambda index: pairs[index][0],
        read_mask=lambda index: pairs[index][1],
        ids=[f"{weave}-{part}-{defect}-{i:03}" for i, (part, defect) in enumerate(kinds)],
        classes=[defect for _, defect in kinds],
        parts=[part for part, _ in kinds],
    )


def draw_image(weave: str, defect: str, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (1, 64, 64), and the mask of its defect, uint8 (64, 64)."""
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    shift = draw.integers(0, 4 * THREAD, 2)  # where the weave begins
    column, row = (across + shift[0]) // THREAD, (down + shift[1]) // THREAD
    over = (column + row) % 2 if weave == "plain" else (column + row) % 4 // 2
    mask = np.zeros((SIDE, SIDE), bool)
    if defect == "hole":
        left, top = draw.integers(12, SIDE - 12, 2)
        mask = (across - left) ** 2 + (down - top) ** 2 <= draw.integers(9, 36)
    elif defect == "thread":
        mask = (row == draw.choice(np.unique(row)[1:-1])) & (across >= draw.integers(0, SIDE // 2))
    light = 90 + 70 * over + draw.integers(-8, 9)
    light = np.where(mask, 60 if defect == "hole" else 125, light)
    noisy = light + draw.integers(-12, 13, (SIDE, SIDE))
    return noisy.clip(0, 255).astype(np.uint8)[None], mask.astype(np.uint8)

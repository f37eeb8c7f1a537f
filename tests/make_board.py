"""A small board of made-up scores: no training, all that a published one has."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from make_runs import make_runs, toy_job

from adbench_tgan import boards
from adbench_tgan.boards import Board, Choice, from_runs
from adbench_tgan.boards.folder import parquet
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result

LABELS = np.repeat([0, 1], [40, 30]).astype(np.uint8)
CATEGORIES = ("ant", "bee")
FINGERPRINTS = {name: format(number, "x") * 64 for number, name in enumerate(CATEGORIES, start=10)}


def made(detector: str, category: str, seed: int, shift: float, **changes: object) -> Result:
    """A result whose anomalies score `shift` standard deviations above its normal images."""
    own = {"config": {"epochs": 2}, "split_fingerprint": FINGERPRINTS[category]}
    job = toy_job(detector, category, seed, **(own | changes))
    draw = np.random.default_rng([CATEGORIES.index(category), seed])
    scores = (draw.normal(size=len(LABELS)) + shift * LABELS).astype(np.float32)
    names = [f"test-{number:03}" for number in range(len(LABELS))]
    order = draw.permutation(len(LABELS))  # a store keeps the dataset's order, a board that of the names
    return Result(
        job=job,
        status="ok",
        metrics={"pixel_auroc": 0.75},
        timing={"fit_seconds": 1.25 + seed, "peak_memory_mb": 10.0, "latency_ms": [1.0, 2.0]},
        parameters={"generator": 7},
        threshold=1.5,
        purity_delta=1e-7,
        shape=(1, 8, 8),
        device="cpu",
        machine={"cpu": "an abacus", "python": "3.11", "versions": {"torch": "2"}},
        version="0.1.0",
        scores=pd.DataFrame({"sample_id": names, "label": LABELS, "score": scores}).iloc[order],
        losses=({"loss": 2.0 + seed}, {"loss": 1 / 3}),
    )


KINDS = {"good": 2.0, "fair": 1.0, "poor": 0.1, "taught": 1.5}


def grid(
    names: Sequence[str] = ("good", "fair", "poor"), categories: Sequence[str] = CATEGORIES
) -> list[Result]:
    """Detectors on categories, with three seeds; `taught` learns from labelled anomalies."""
    return [
        made(name, category, seed, KINDS[name], supervision="labelled" if name == "taught" else "one-class")
        for name in names
        for category in categories
        for seed in (0, 1, 2)
    ]


def stored(root: Path, results: list[Result]) -> Path:
    """A folder of runs that holds `results`."""
    return make_runs(root, *results)


def board_of(root: Path, results: list[Result], **options: object) -> Board:
    """The board of some results."""
    choice = options.pop("choice", Choice())
    return from_runs([stored(root, results)], Registry(_offers=NOTHING), name="toy", choice=choice, **options)


NOTHING = {kind: [] for kind in ("detector", "dataset", "protocol")}


def findings(folder: Path) -> list[tuple[str, str]]:
    """What `verify` finds, by file and place."""
    return [(each.file, each.where) for each in boards.verify(folder)]


def change_cell(path: Path, row: int, column: str) -> list[str]:
    """Change one digit of one cell, and return the row's cells."""
    lines = path.read_text().splitlines()
    at = lines[0].split(",").index(column)
    cells = lines[row].split(",")
    digit = re.search(r"[1-8](?=\D*$)", cells[at])
    changed = str(int(digit[0]) + 1)
    cells[at] = cells[at][: digit.start()] + changed + cells[at][digit.end() :]
    lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    return cells


def change_scores(folder: Path, column: str, change: Callable[[Any], Any]) -> pd.Series:
    """Change a column of one row of a file of scores, and return the row."""
    path = folder / "scores/good.parquet"
    frame = pq.read_table(path).to_pandas()
    frame.loc[100, column] = change(frame.loc[100, column])
    path.write_bytes(parquet(frame))
    return frame.loc[100]

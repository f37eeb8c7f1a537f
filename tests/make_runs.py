"""Folders of results made by hand, as ``adbench run`` writes them, without training anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from adbench_tgan.jobs import Job
from adbench_tgan.results import Result, ResultStore

LABELS = np.repeat([0, 1], [60, 40]).astype(np.uint8)


def toy_job(detector: str, category: str = "a", seed: int = 0, **changes: object) -> Job:
    """A job on a dataset that nobody has."""
    fields = {
        "detector": detector,
        "detector_version": "1",
        "config": {"epochs": 3},
        "dataset": "toy",
        "protocol": "one-vs-rest",
        "protocol_version": "1",
        "category": category,
        "seed": seed,
        "precision": "fp32",
        "supervision": "one-class",
        "split_fingerprint": f"{sum(category.encode()):064x}",
    }
    return Job(**(fields | changes))


def made(
    detector: str, category: str = "a", seed: int = 0, *, shift: float = 1.0, **changes: object
) -> Result:
    """A job's result whose anomalies score `shift` standard deviations above its normal images.

    `changes` are fields of the job, or of the result.
    """
    own = {name: changes.pop(name) for name in list(changes) if name in Job.__dataclass_fields__}
    job = toy_job(detector, category, seed, **own)
    if changes.get("status") == "failed":
        return Result(job=job, **({"error": "RuntimeError: boom", "device": "cpu"} | changes))
    draw = np.random.default_rng([sum(detector.encode()), sum(category.encode()), seed])
    scores = draw.normal(size=len(LABELS)) + shift * LABELS
    ids = [f"{category}-{i:03}" for i in range(len(LABELS))]
    auroc = float((scores[LABELS == 1][:, None] > scores[LABELS == 0]).mean())
    usual = {
        "status": "ok",
        "metrics": {"auroc": auroc, "average_precision": 0.8},
        "timing": {"latency_ms_p50": 1.5 * (1 + len(detector)), "fit_seconds": 3.25},
        "parameters": {"net": 7},
        "threshold": 1.6,
        "device": "cpu",
        "machine": {"cpu": "a processor", "versions": {"torch": "2.9"}},
        "version": "0.1.0",
        "losses": ({"loss": 3.0}, {"loss": 2.0, "late": 9.0}, {"loss": 1.0, "late": 8.0}),
        "scores": pd.DataFrame({"sample_id": ids, "label": LABELS, "score": scores.astype(np.float32)}),
    }
    return Result(job=job, **(usual | changes))


def make_runs(root: Path, *results: Result) -> Path:
    """Store results in a folder."""
    store = ResultStore(root)
    store.open()
    for result in results:
        store.put(result)
    return root

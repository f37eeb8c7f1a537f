"""The AUROCs of stored results, resampled: how far they would spread over other test images and other seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.results import Result
from adbench_tgan.statistics import Draws, Floats, draws, over_seeds, resampled_auroc

Read = Callable[[Job], pd.DataFrame]  # a job's per-image scores


def bootstrap(results: Sequence[Result], read: Read) -> dict[str, dict[str, Floats]]:
    """Resampled AUROCs by variant and category, (RESAMPLES,): test images drawn anew, and seeds.

    Raises:
        AdbenchError: a category has results on different images.
    """
    spreads: dict[str, dict[str, Floats]] = {variant_of(result.job): {} for result in results}
    by_category: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: (result.job.category, result.job.seed, result.job.key)):
        if result.status == "ok":
            by_category.setdefault(result.job.category, []).append(result)
    for category, fingerprint, drawn in _drawn(by_category, read):
        by_variant: dict[str, list[Floats]] = {}
        for result in by_category[category]:
            spread = resampled_auroc(_sorted(read(result.job))["score"].to_numpy(), drawn)
            by_variant.setdefault(variant_of(result.job), []).append(spread)
        for name, each in by_variant.items():
            spreads[name][category] = over_seeds(np.stack(each), fingerprint)
    return spreads


def _drawn(by_category: Mapping[str, Sequence[Result]], read: Read) -> Iterator[tuple[str, str, Draws]]:
    """Each category with its fingerprint, and its test images drawn anew together with all categories of the same images."""
    groups: dict[
        tuple[Any, ...], dict[str, NDArray[np.bool_]]
    ] = {}  # sample ids -> category -> which are anomalies
    for category, members in by_category.items():
        table = _sorted(read(members[0].job))
        groups.setdefault(tuple(table["sample_id"].to_list()), {})[category] = table["label"].to_numpy() == 1
    for group in groups.values():
        prints = [_one_fingerprint(category, by_category[category]) for category in group]
        together = prints[0] if len(prints) == 1 else hashlib.sha256("".join(prints).encode()).hexdigest()
        drawn = draws(together, np.stack(list(group.values())))
        yield from zip(group, prints, drawn, strict=True)


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values("sample_id", kind="stable")


def _one_fingerprint(category: str, members: Sequence[Result]) -> str:
    offers = {result.job.offer_fingerprint for result in members} - {""}  # of those that learn from anomalies
    for found in (offers, split := {result.job.split_fingerprint for result in members}):
        if len(found) > 1:
            raise AdbenchError(
                f"category {category!r} has results on {len(found)} different sets of images "
                f"({', '.join(sorted(each[:8] for each in found))}), which do not compare; keep the results of one"
            )
    return split.pop()


def variant_of(job: Job) -> str:
    """What makes two jobs of one detector the same entry: all but category and seed."""
    return json.dumps(
        [job.detector, job.detector_version, dict(job.config), job.precision, job.supervision], sort_keys=True
    )

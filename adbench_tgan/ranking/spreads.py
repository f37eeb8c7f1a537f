"""The AUROCs of stored results, resampled: how far they would spread over other test images and other seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.metrics import auroc
from adbench_tgan.ranking.statistics import ABSENT, Draws, Floats, draws, over_seeds, resampled_auroc
from adbench_tgan.results import Result, ResultStore, removal
from adbench_tgan.store.stored import ROUNDING

Read = Callable[[Job], pd.DataFrame]  # a job's per-image scores


def bootstrap(ordered: Sequence[Result], read: Read, judged: bool) -> dict[str, dict[str, Floats]]:
    """Resampled AUROCs by variant and category, (MOVES * RESAMPLES,): test images drawn anew, and seeds.

    The results are in the order of their categories, seeds and keys.

    Raises:
        AdbenchError: a category has results on different images, or on images of different names or labels, or
            two of its images share a name, or a stored AUROC is not that of its scores, which is asked unless `judged`.
    """
    spreads: dict[str, dict[str, Floats]] = {variant_of(result.job): {} for result in ordered}
    by_category: dict[str, list[Result]] = {}
    for result in ordered:
        if result.status == "ok":
            by_category.setdefault(result.job.category, []).append(result)
    first = {name: _by_image(members[0].job, read) for name, members in by_category.items()}
    for category, drawn in _drawn(by_category, {name: table["label"] for name, table in first.items()}):
        by_variant: dict[str, list[Floats]] = {}
        for number, result in enumerate(by_category[category]):
            table = _by_image(result.job, read) if number else first[category]
            if not table["label"].equals(first[category]["label"]):
                raise _unlike(by_category[category][0].job, result.job)
            if not judged:
                _check_auroc(result, table)
            spread = resampled_auroc(table["score"].to_numpy(), drawn)
            by_variant.setdefault(variant_of(result.job), []).append(spread)
        for name, each in by_variant.items():
            spreads[name][category] = over_seeds(np.stack(each))
    return spreads


def _drawn(
    by_category: Mapping[str, Sequence[Result]], labels: Mapping[str, pd.Series]
) -> Iterator[tuple[str, Draws]]:
    """Each category with its test images drawn anew, together with all categories that share some of them."""
    names = {category: set(each.index.tolist()) for category, each in labels.items()}
    for group in _sharing(names):
        prints = [_one_fingerprint(category, by_category[category]) for category in group]
        together = prints[0] if len(prints) == 1 else hashlib.sha256("".join(prints).encode()).hexdigest()
        images = sorted(set().union(*(names[category] for category in group)))
        rows = [labels[category].reindex(images, fill_value=ABSENT).to_numpy() for category in group]
        yield from zip(group, draws(together, np.stack(rows)), strict=True)


def _sharing(images: Mapping[str, set[str]]) -> list[list[str]]:
    """Categories in groups of which no two have a test image in common."""
    groups: list[tuple[list[str], set[str]]] = []
    for category, own in images.items():
        touched = [group for group in groups if not group[1].isdisjoint(own)]
        names = [name for group in touched for name in group[0]]
        groups = [group for group in groups if group not in touched]
        groups.append(([*names, category], own.union(*(group[1] for group in touched))))
    return [names for names, _ in groups]


def _by_image(job: Job, read: Read) -> pd.DataFrame:
    """A job's labels and scores by the names of their images, in the order of the names.

    Raises:
        AdbenchError: two images have one name.
    """
    table = read(job).sort_values("sample_id", kind="stable").set_index("sample_id")
    if table.index.has_duplicates:
        raise AdbenchError(f"{job}: test images share a sample_id; the dataset must give each its own")
    return table.astype({"label": "int8"})


def _check_auroc(result: Result, table: pd.DataFrame) -> None:
    """Raise unless the stored AUROC is that of the scores: a mean of edited ones would lie outside its own interval.

    Raises:
        AdbenchError: naming the job and its folder.
    """
    told = result.metrics.get("auroc")
    if told is None:
        return
    found = auroc(table["score"].to_numpy(), table["label"].to_numpy(), np.nan)
    if abs(told - found) > ROUNDING:
        raise AdbenchError(
            f"{result.job}: auroc is stored as {told}, its scores give {found}; {removal(result.job)}"
        )


def _unlike(one: Job, other: Job) -> AdbenchError:
    """The error for two jobs on the same pixels of which the names, or the labels, were others."""
    folders = " or ".join(str(ResultStore(Path()).folder(job)) for job in (one, other))
    return AdbenchError(
        f"{one} and {other} were scored on test images with different names or labels; remove the folder of the older one "
        f"({folders}) and run again, or give --out another folder"
    )


def _one_fingerprint(category: str, members: Sequence[Result]) -> str:
    learned = [result for result in members if result.job.supervision == "labelled"]
    offers = {result.job.offer_fingerprint for result in learned} - {""}
    chosen = {result.anomalies_fingerprint for result in learned} - {""}
    for found in (offers, chosen, split := {result.job.split_fingerprint for result in members}):
        if len(found) > 1:
            raise AdbenchError(
                f"category {category!r} has results on {len(found)} different sets of images "
                f"({', '.join(sorted(each[:8] for each in found))}), which do not compare; "
                "run the images that changed into another --out, and take that folder alone"
            )
    return split.pop()


def variant_of(job: Job) -> str:
    """What makes two jobs of one detector the same entry: all but category and seed."""
    return json.dumps(
        [job.detector, job.detector_version, dict(job.config), job.precision, job.supervision], sort_keys=True
    )

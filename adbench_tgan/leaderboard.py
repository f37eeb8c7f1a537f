"""Tables: a row a job, and from the stored per-image scores a row a detector, with its uncertainty."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adbench_tgan.jobs import Job
from adbench_tgan.results import Result

Floats = NDArray[np.float64]
Counts = NDArray[np.integer[Any]]

RESULT_COLUMNS = (
    "detector dataset protocol category seed status auroc average_precision f1_max fpr95 balanced_accuracy "
    "pixel_auroc aupro fit_seconds score_seconds latency_ms_p50 latency_ms_p99 images_per_second peak_memory_mb "
    "flops_per_image parameters device precision supervision pretrained preset detector_version "
    "split_fingerprint key adbench_version error purity_delta"
).split()
LEADERBOARD_COLUMNS = (
    "rank tie_group detector supervision pretrained preset auroc_mean auroc_ci_low auroc_ci_high auroc_seed_std "
    "average_precision_mean pixel_auroc_mean aupro_mean n_categories n_seeds n_failed fit_seconds latency_ms_p50 "
    "images_per_second peak_memory_mb parameters published_auroc published_source as_published_auroc "
    "remark"
).split()
METRICS = RESULT_COLUMNS[6:13]
TIMINGS = RESULT_COLUMNS[13:20]
INTEGERS = ("flops_per_image", "parameters", "rank", "tie_group")  # also where some cells are empty
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)  # percentiles
# By how much a score may change with its batch, relative to the largest score, before its row is flagged: rounding,
# which for tf32 and bf16 is a few units in the last place of what is multiplied.
PURITY = {"fp32": 1e-4, "tf32": 4 * 2**-10, "bf16": 4 * 2**-8}


def row(result: Result) -> dict[str, Any]:
    """One line of ``results.csv``; what was not measured is absent."""
    job = result.job
    cells: dict[str, Any] = {
        name: getattr(job, name)
        for name in ("detector", "dataset", "protocol", "category", "seed", "precision", "supervision")
    }
    cells |= {name: result.metrics.get(name) for name in METRICS}
    cells |= {name: result.timing.get(name) for name in TIMINGS}
    cells |= {
        "status": result.status,
        "parameters": sum(result.parameters.values()) if result.status == "ok" else None,
        "device": result.device,
        "pretrained": job.pretrained or "False",
        "preset": job.preset,
        "detector_version": job.detector_version,
        "split_fingerprint": job.split_fingerprint,
        "key": job.key,
        "adbench_version": result.version,
        "error": result.error or "; ".join(f"note: {note}" for note in result.notes),
        "purity_delta": result.purity_delta,
    }
    return cells


def results_table(results: Iterable[Result]) -> pd.DataFrame:
    """``results.csv``: a row a job, failures included, in a fixed order."""
    frame = pd.DataFrame([row(result) for result in results], columns=RESULT_COLUMNS)
    order = ["dataset", "protocol", "category", "detector", "preset", "seed", "key"]
    return _with_integers(frame.sort_values(order, ignore_index=True))


def leaderboard(results: Sequence[Result], read: Callable[[Job], pd.DataFrame]) -> pd.DataFrame:
    """``leaderboard.csv``: a row a detector, ranked within its kind of supervision.

    `results` share one dataset and protocol, and one fingerprint a category; `read` gives a job's per-image
    scores. A detector that lacks a category that others have stands without a rank.
    """
    variants: dict[str, list[Result]] = {}
    for result in results:
        variants.setdefault(_variant(result.job), []).append(result)
    everything = {result.job.category for result in results}
    lines, spreads, draws = [], [], Draws()
    for members in variants.values():
        good = [result for result in members if result.status == "ok"]
        spreads.append(bootstrap(good, read, draws))
        lines.append(_line(members, good, spreads[-1]))
    for line, members in zip(lines, variants.values(), strict=True):
        line["remark"] = "; ".join(remarks(members, everything))
    complete = [line["n_categories"] == len(everything) for line in lines]
    for block in ("one-class", "labelled"):
        inside = [i for i, line in enumerate(lines) if line["supervision"] == block and complete[i]]
        _rank([lines[i] for i in inside], [spreads[i] for i in inside])
    lines.sort(key=_shown)
    return _with_integers(pd.DataFrame(lines, columns=LEADERBOARD_COLUMNS))


def remarks(members: Sequence[Result], categories: set[str]) -> Iterator[str]:
    """What a reader must know of a detector's row: why it has no rank, whether it is pure, what it is known to fail."""
    missing = categories - {result.job.category for result in members if result.status == "ok"}
    if missing:
        yield f"not ranked: no result for {', '.join(sorted(missing))}"
    impure = [result for result in members if not is_pure(result)]
    if impure:
        worst = max(result.purity_delta or 0.0 for result in impure)
        yield f"impure: scores change with their batch, by up to {worst:.2g} of the largest"
    declared = {check: reason for result in members for check, reason in result.declared.items()}
    if declared:
        known = (f"{check.replace('_', ' ')} ({reason})" for check, reason in declared.items())
        yield f"declared failures: {', '.join(known)}"


def is_pure(result: Result) -> bool:
    """Whether a score depended on its own image alone, as far as the runner's probe of a few images tells."""
    return result.purity_delta is None or result.purity_delta <= PURITY[result.job.precision]


def _shown(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """One-class detectors first, each block by AUROC, unranked ones last."""
    auroc = line["auroc_mean"]
    return (
        line["supervision"] != "one-class",
        line.get("rank") is None,
        -auroc if auroc is not None else 0.0,
        line["detector"],
        line["preset"],
    )


def _variant(job: Job) -> str:
    """What makes two jobs of one detector the same entry: all but category and seed."""
    return json.dumps(
        [job.detector, job.detector_version, dict(job.config), job.precision, job.supervision], sort_keys=True
    )


def _line(members: Sequence[Result], good: Sequence[Result], spread: Floats) -> dict[str, Any]:
    job = members[0].job
    table = pd.DataFrame([row(result) for result in good], columns=RESULT_COLUMNS)
    one_machine = table["device"].nunique() == 1
    low, high = np.percentile(spread, INTERVAL) if good else (None, None)
    return {
        "detector": job.detector,
        "supervision": job.supervision,
        "pretrained": job.pretrained or "False",
        "preset": job.preset if job.precision == "fp32" else f"{job.preset}; precision={job.precision}",
        "auroc_mean": over_categories(table, "auroc"),
        "auroc_ci_low": low,
        "auroc_ci_high": high,
        "auroc_seed_std": seed_std(table),
        "average_precision_mean": over_categories(table, "average_precision"),
        "pixel_auroc_mean": over_categories(table, "pixel_auroc"),
        "aupro_mean": over_categories(table, "aupro"),
        "n_categories": table["category"].nunique(),
        "n_seeds": table["seed"].nunique(),
        "n_failed": len(members) - len(good),
        "fit_seconds": _middle(table, "fit_seconds") if one_machine else None,
        "latency_ms_p50": _middle(table, "latency_ms_p50") if one_machine else None,
        "images_per_second": _middle(table, "images_per_second") if one_machine else None,
        "peak_memory_mb": table["peak_memory_mb"].max() if one_machine else None,
        "parameters": _middle(table, "parameters"),
    }


def over_categories(table: pd.DataFrame, column: str) -> float | None:
    """The mean over seeds first, then over categories."""
    values = table.dropna(subset=[column]).groupby("category")[column].mean()
    return float(values.mean()) if len(values) else None


def seed_std(table: pd.DataFrame) -> float | None:
    """Standard deviation over seeds of the AUROC averaged over categories; absent with one seed."""
    means = table.groupby("seed")["auroc"].mean()
    return float(means.std()) if len(means) > 1 else None


def _middle(table: pd.DataFrame, column: str) -> float | None:
    values = table[column].dropna()
    return float(values.median()) if len(values) else None


class Draws:
    """How often each test image was drawn in each resample; the same for all detectors, so that they are paired."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[Counts, Counts]] = {}

    def of(self, fingerprint: str, labels: NDArray[np.bool_]) -> tuple[Counts, Counts]:
        """(RESAMPLES, anomalies) and (RESAMPLES, normal images), drawn within each class."""
        if fingerprint not in self._counts:
            random = np.random.default_rng(int(fingerprint[:16], 16))
            self._counts[fingerprint] = (
                _drawn(random, int(labels.sum())),
                _drawn(random, int((~labels).sum())),
            )
        return self._counts[fingerprint]


def _drawn(random: np.random.Generator, images: int) -> Counts:
    return random.multinomial(images, np.full(images, 1 / images), RESAMPLES).astype(np.uint8)


def bootstrap(results: Sequence[Result], read: Callable[[Job], pd.DataFrame], draws: Draws) -> Floats:
    """Resampled means over categories of the AUROC, (RESAMPLES,): test images drawn anew, and seeds."""
    by_category: dict[str, list[Result]] = {}
    for result in results:
        by_category.setdefault(result.job.category, []).append(result)
    means = [_category_spread(members, read, draws) for _, members in sorted(by_category.items())]
    return np.mean(means, axis=0) if means else np.full(RESAMPLES, np.nan)


def _category_spread(members: Sequence[Result], read: Callable[[Job], pd.DataFrame], draws: Draws) -> Floats:
    fingerprint = members[0].job.split_fingerprint
    tables = [read(result.job) for result in sorted(members, key=lambda result: result.job.seed)]
    labels = tables[0]["label"].to_numpy() == 1
    counts = draws.of(fingerprint, labels)
    spreads = np.stack([weighted_auroc(table["score"].to_numpy(), labels, *counts) for table in tables])
    random = np.random.default_rng([int(fingerprint[:16], 16), len(tables)])
    chosen = random.integers(len(tables), size=spreads.shape)
    mean: Floats = np.take_along_axis(spreads, chosen, axis=0).mean(axis=0)
    return mean


def weighted_auroc(
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.bool_],
    positives: Counts,
    negatives: Counts,
) -> Floats:
    """The AUROC of each resample: `positives` (R, P) and `negatives` (R, N) say how often each image was drawn."""
    normal = scores[~labels]
    order = np.argsort(normal, kind="stable")
    below = np.zeros((len(negatives), len(normal) + 1))
    np.cumsum(negatives[:, order], axis=1, out=below[:, 1:])  # drawn normals among the lowest k
    left = np.searchsorted(normal[order], scores[labels], side="left")
    right = np.searchsorted(normal[order], scores[labels], side="right")
    wins = np.einsum("rp,rp->r", positives, (below[:, left] + below[:, right]) / 2)
    total: Floats = wins / (positives.sum(axis=1) * negatives.sum(axis=1))
    return total


def _rank(lines: Sequence[dict[str, Any]], spreads: Sequence[Floats]) -> None:
    """Give ranks by AUROC; those whose paired difference to a group's best may be zero share its rank."""
    order = sorted(range(len(lines)), key=lambda i: -lines[i]["auroc_mean"])
    leader, group = -1, 0
    for position, i in enumerate(order, start=1):
        tied = leader >= 0 and np.percentile(spreads[leader] - spreads[i], INTERVAL[0]) <= 0
        if not tied:
            leader, group = i, group + 1
            lines[i]["rank"] = position
        else:
            lines[i]["rank"] = lines[leader]["rank"]
        lines[i]["tie_group"] = group


def _with_integers(frame: pd.DataFrame) -> pd.DataFrame:
    for name in INTEGERS:
        if name in frame:
            frame[name] = pd.to_numeric(frame[name]).round().astype("Int64")
    return frame


def comparable(results: Iterable[Result], jobs: Sequence[Job], versions: Mapping[str, str]) -> list[Result]:
    """Of all stored results those that may stand in one table with `jobs`.

    Same dataset, protocol and fingerprint of each category; results of another version of a detector that is
    installed are out of date.
    """
    first = jobs[0]
    fingerprints = {job.category: job.split_fingerprint for job in jobs}
    return [
        result
        for result in results
        if (result.job.dataset, result.job.protocol, result.job.protocol_version)
        == (first.dataset, first.protocol, first.protocol_version)
        and fingerprints.get(result.job.category) == result.job.split_fingerprint
        and is_current(result.job, versions)
    ]


def is_current(job: Job, versions: Mapping[str, str]) -> bool:
    """Whether a job was run by the installed version of its detector, or by one no longer installed."""
    return versions.get(job.detector, job.detector_version) == job.detector_version


def without_superseded(results: Sequence[Result]) -> list[Result]:
    """Leave out failures of what has since been run well, such as after a broken image was replaced."""
    done = {_task(result.job) for result in results if result.status == "ok"}
    return [result for result in results if result.status == "ok" or _task(result.job) not in done]


def _task(job: Job) -> tuple[Any, ...]:
    return _variant(job), job.dataset, job.protocol, job.protocol_version, job.category, job.seed

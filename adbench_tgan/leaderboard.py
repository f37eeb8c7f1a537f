"""Tables: a row a job, and from the stored per-image scores a row a detector, with its uncertainty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from adbench_tgan.codebase import shown_cpu, state_of
from adbench_tgan.jobs import Job
from adbench_tgan.ranking.spreads import bootstrap, variant_of
from adbench_tgan.ranking.statistics import Floats, groups, interval
from adbench_tgan.results import Result
from adbench_tgan.store.stored import LARGEST_COUNT
from adbench_tgan.text import DIGITS, OF_IMAGES, counted

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
ENTRY = ["detector", "supervision", "pretrained", "preset"]  # what tells the rows of a leaderboard apart
INTEGERS = ("flops_per_image", "parameters", "rank", "tie_group")  # also where some cells are empty
# By how much a score may change with its batch, relative to the largest score, before its row is flagged: rounding,
# which for tf32 and bf16 is a few units in the last place of what is multiplied.
PURITY = {"fp32": 1e-4, "tf32": 4 * 2**-10, "bf16": 4 * 2**-8}
FLAT = 1.0  # times one flat colour's squared error: from there on reconstructions are no better


def row(result: Result) -> dict[str, Any]:
    """One line of ``results.csv``; what was not measured is absent."""
    job = result.job
    cells: dict[str, Any] = {
        name: getattr(job, name)
        for name in ("detector", "dataset", "protocol", "category", "seed", "precision", "supervision")
    }
    cells |= {name: result.metrics.get(name) for name in METRICS}
    cells |= {name: _number(result.timing.get(name)) for name in TIMINGS}
    cells |= {
        "status": result.status,
        "parameters": _number(sum(result.parameters.values())) if result.status == "ok" else None,
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


def _number(value: Any) -> float | int | None:
    """A measured number; anything else that a file may hold in its place is absent."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= LARGEST_COUNT else None


def results_table(results: Iterable[Result]) -> pd.DataFrame:
    """``results.csv``: a row a job, failures included, in a fixed order. `preset` is as in ``leaderboard.csv``."""
    results = list(results)
    presets = shown_presets(results)
    rows = [row(result) | {"preset": presets[result.job.key]} for result in results]
    frame = pd.DataFrame(rows, columns=RESULT_COLUMNS)
    order = ["dataset", "protocol", "category", "detector", "preset", "seed", "key"]
    return _with_integers(frame.sort_values(order, ignore_index=True))


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a row needs to be ranked, besides a result for every category that others have."""

    seeds: int = 1  # for each category
    pure: bool = False  # the purity of every score was probed, and found


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A detector's row, and the resampled AUROCs behind it, (MOVES * RESAMPLES,) for each category."""

    members: tuple[Result, ...]
    line: Mapping[str, Any]
    spread: Mapping[str, Floats]
    ranked: bool  # or stands apart, for the reasons in its remark

    @property
    def name(self) -> tuple[str, str]:
        """Detector and preset."""
        return self.line["detector"], self.line["preset"]

    @cached_property
    def aurocs(self) -> dict[str, float]:
        """The mean over seeds, for each category."""
        good = [result for result in self.members if result.status == "ok"]
        found = pd.Series([r.metrics["auroc"] for r in good], [r.job.category for r in good], dtype="float64")
        return {str(name): float(mean) for name, mean in found.groupby(level=0).mean().items()}


def leaderboard_table(ordered: Sequence[Standing]) -> pd.DataFrame:
    """``leaderboard.csv``: a row a detector."""
    frame = pd.DataFrame([dict(each.line) for each in ordered], columns=LEADERBOARD_COLUMNS)
    return _with_integers(frame)


def standings(
    results: Sequence[Result],
    read: Callable[[Job], pd.DataFrame],
    rules: Rules | None = None,
    judged: bool = False,
) -> list[Standing]:
    """All detectors in the order in which they are shown, ranked within their kind of supervision.

    `results` share one dataset and protocol; `read` gives a job's per-image scores. If they are `judged`, their AUROCs
    were computed from these very scores; else they are compared with them.

    Raises:
        AdbenchError: a category has results on different images.
    """
    variants: dict[str, list[Result]] = {}
    ordered = sorted(results, key=lambda result: (result.job.category, result.job.seed, result.job.key))
    for result in ordered:
        variants.setdefault(variant_of(result.job), []).append(result)
    everything = {result.job.category for result in results}
    spreads = bootstrap(ordered, read, judged)
    presets = shown_presets(results)
    unranked = [
        _standing(members, spreads[name], presets[members[0].job.key], everything, rules or Rules())
        for name, members in sorted(variants.items())
    ]
    return sorted(_ranked(unranked), key=lambda each: _shown(each.line))


def shown_presets(results: Iterable[Result]) -> dict[str, str]:
    """By a job's key the preset that its leaderboard shows: with precision, and with what else tells its rows apart.

    Rows with one name meet where a detector is not installed in one version, such as a file's before and after an
    edit, and where a setting was resolved otherwise on another machine, such as the backbone that was found there.
    """
    jobs = [result.job for result in results]
    variant_by_key = {job.key: (job.dataset, job.protocol, variant_of(job)) for job in jobs}
    # Settings may be typed, or found to be the same: of their presets the one with most parts, sorted last, says most.
    told = sorted(jobs, key=lambda job: (plain_preset(job).count("; "), plain_preset(job)))
    most_told = {variant_by_key[job.key]: job for job in told}
    alike: dict[tuple[str, ...], dict[tuple[str, str, str], Job]] = {}
    for each, job in most_told.items():
        alike.setdefault((*each[:2], job.detector, job.supervision, plain_preset(job)), {})[each] = job
    names = {}
    for (*_, name), variants in alike.items():
        facts = {each: {"version": job.detector_version, **job.config} for each, job in variants.items()}
        telling = [
            fact
            for fact in dict.fromkeys(fact for each in facts.values() for fact in each)
            if len({str(each.get(fact)) for each in facts.values()}) > 1
        ]
        for each, known in facts.items():
            names[each] = "; ".join([name, *(f"{fact}={known.get(fact)}" for fact in telling)])
    return {key: names[variant] for key, variant in variant_by_key.items()}


def entry_names(rows: Sequence[Sequence[str]]) -> list[str]:
    """Short names of rows (`ENTRY`): the detector, with what tells its rows apart where it has several."""
    names: dict[tuple[str, ...], str] = {}
    for detector in {row[0] for row in rows}:
        own = [tuple(row) for row in rows if row[0] == detector]
        labels = told_apart([[*preset.split("; "), pretrained] for _, _, pretrained, preset in own])
        named = [f"{detector} ({label})" for label in labels] if len(own) > 1 else [detector]
        names |= dict(zip(own, named, strict=True))
    return [names[tuple(row)] for row in rows]


def told_apart(rows: Sequence[Sequence[str]]) -> list[str]:
    """Of each row as many parts as tell it from the others, leaving out what all of them have."""
    shared = set.intersection(*map(set, rows))
    own = [[part for part in row if part not in shared] or list(row[:1]) for row in rows]
    labels = ["; ".join(row) for row in own]
    for count in range(max(map(len, own)), 0, -1):
        shorter = ["; ".join(row[:count]) for row in own]
        if len(set(shorter)) < len(set(labels)):
            break
        labels = shorter
    return labels


def plain_preset(job: Job) -> str:
    """The preset, with the precision if it is not the usual one."""
    return job.preset if job.precision == "fp32" else f"{job.preset}; precision={job.precision}"


def _standing(
    members: Sequence[Result], spread: Mapping[str, Floats], preset: str, everything: set[str], rules: Rules
) -> Standing:
    lacking = list(lacks(members, everything, rules))
    remark = [f"not ranked: {'; '.join(lacking)}"] if lacking else []
    if impure := impurity(members):
        remark += [] if rules.pure else [impure]
    if known := declarations(members):
        remark.append(known)
    good = [result for result in members if result.status == "ok"]
    remark += filter(None, (unlearned(members), of_images(good)))
    if good and all(map(shared, good)) and any(result.timing for result in good):
        remark.append("its times are from jobs that shared the machine with others")
    if (states := len({state_of(result.machine) for result in good})) > 1:
        remark.append(f"its jobs were run with {states} different states of the code")
    line = _line(members, good, spread) | {"preset": preset, "remark": "; ".join(remark)}
    return Standing(members=tuple(members), line=line, spread=spread, ranked=not lacking)


def _ranked(unranked: Sequence[Standing]) -> Iterator[Standing]:
    """Give ranks by AUROC among those that may have one; each kind of supervision starts anew."""
    yield from (each for each in unranked if not each.ranked)
    for kind in ("one-class", "labelled"):
        block = [each for each in unranked if each.ranked and each.line["supervision"] == kind]
        means = [each.line["auroc_mean"] for each in block]
        whole = [np.mean(list(each.spread.values()), axis=0) for each in block]
        for each, (rank, group) in zip(block, groups(means, whole), strict=True):
            yield replace(each, line={**each.line, "rank": rank, "tie_group": group})


def lacks(members: Sequence[Result], categories: set[str], rules: Rules) -> Iterator[str]:
    """What keeps a detector from being ranked."""
    done = {(result.job.category, result.job.seed) for result in members if "auroc" in result.metrics}
    seeds = Counter(category for category, _ in done)
    missing = categories - set(seeds)
    if missing:
        yield f"no result for {', '.join(sorted(missing))}"
    fewest = min((seeds[category] for category in categories - missing), default=0)
    if 0 < fewest < rules.seeds:
        yield f"{fewest} of the {rules.seeds} seeds needed"
    if rules.pure and any(result.purity_delta is None for result in members if result.status == "ok"):
        yield "whether its scores depend on their batch was not checked"
    if rules.pure and (impure := impurity(members)):
        yield impure


def impurity(members: Sequence[Result]) -> str:
    """By how much scores depend on their batch, in words; empty if they do not."""
    impure = [result for result in members if not is_pure(result)]
    worst = max((result.purity_delta or 0.0 for result in impure), default=0.0)
    return (
        f"impure: scores or maps depend on their batch (relative change up to {worst:.2g})" if impure else ""
    )


def declarations(members: Sequence[Result]) -> str:
    """Which checks of conformance a detector is declared to fail, and why; empty if none."""
    declared = {check: reason for result in members for check, reason in result.declared.items()}
    known = (f"{check.replace('_', ' ')} ({reason})" for check, reason in declared.items())
    return f"declared to fail these checks: {', '.join(known)}" if declared else ""


def unlearned(members: Sequence[Result]) -> str:
    """In how many jobs one flat colour would be as good a reconstruction, in words; empty if in none."""
    errors = [each.reconstruction_error for each in members if each.reconstruction_error is not None]
    flat = sum(error >= FLAT for error in errors)
    where = f"in {flat} of {len(errors)} jobs its networks reconstruct training images no better than one flat colour"
    return f"{where} would" if flat else ""


def of_images(members: Sequence[Result]) -> str:
    """What a reader must know of the images, of the first category that there is something to say of; else empty."""
    told = sorted(
        {(each.job.category, note) for each in members for note in each.notes if note.startswith(OF_IMAGES)}
    )
    more = len({category for category, _ in told}) - 1
    first = "; ".join(note.removeprefix(OF_IMAGES) for category, note in told if category == told[0][0])
    others = f", and of {counted(more, 'more category', 'more categories')}" if more > 0 else ""
    return f"of {told[0][0]}'s images{others}: {first}" if told else ""


def shared(result: Result) -> bool:
    """Whether other jobs ran beside it, which its times show."""
    return bool(result.machine.get("jobs_at_once", 1) != 1)


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


def _line(members: Sequence[Result], good: Sequence[Result], spread: Mapping[str, Floats]) -> dict[str, Any]:
    job = members[0].job
    table = pd.DataFrame([row(result) for result in good], columns=RESULT_COLUMNS)
    timed = [result for result in good if not shared(result)] or good
    one_machine = len({device_of(each.device, each.machine) for each in timed}) == 1
    times = table[table["key"].isin({each.job.key for each in timed})]
    low, high = interval(np.mean(list(spread.values()), axis=0).clip(0, 1)) if good else (None, None)
    return {
        "detector": job.detector,
        "supervision": job.supervision,
        "pretrained": job.pretrained or "False",
        "auroc_mean": over_categories(table, "auroc"),
        "auroc_ci_low": low,
        "auroc_ci_high": high,
        "auroc_seed_std": seed_std(table),
        "average_precision_mean": over_categories(table, "average_precision"),
        "pixel_auroc_mean": over_categories(table, "pixel_auroc"),
        "aupro_mean": over_categories(table, "aupro"),
        "n_categories": table["category"].nunique(),
        "n_seeds": int(table.groupby("category")["seed"].nunique().min()) if good else 0,
        "n_failed": len(members) - len(good),
        "fit_seconds": _middle(times, "fit_seconds") if one_machine else None,
        "latency_ms_p50": _middle(times, "latency_ms_p50") if one_machine else None,
        "images_per_second": _middle(times, "images_per_second") if one_machine else None,
        "peak_memory_mb": times["peak_memory_mb"].max() if one_machine else None,
        "parameters": _middle(table, "parameters"),
    }


def device_of(device: str, machine: Mapping[str, Any]) -> str:
    """What times compare within: a GPU's name, or a processor's with its instructions and threads, and a container's limit."""
    threads, quota = machine.get("torch_threads"), machine.get("cpu_quota")
    limit = f", limited to the time of {quota} cores" if quota is not None else ""
    return device if device != "cpu" else f"{shown_cpu(machine)}, {threads} threads{limit}"


def over_categories(table: pd.DataFrame, column: str) -> float | None:
    """The mean over seeds first, then over categories; absent if a category lacks it, whose rivals would have it."""
    values = table.groupby("category")[column].mean()
    return round(float(values.mean()), DIGITS) if len(values) and values.notna().all() else None


def seed_std(table: pd.DataFrame) -> float | None:
    """Standard deviation over seeds of the AUROC averaged over categories.

    Absent with one seed, and where categories have different ones, whose means differ by more than their seeds.
    """
    if table.groupby("category")["seed"].agg(frozenset).nunique() > 1:
        return None
    means = table.groupby("seed")["auroc"].mean()
    return round(float(means.std()), DIGITS) if len(means) > 1 else None


def _middle(table: pd.DataFrame, column: str) -> float | None:
    values = table[column].dropna()
    return float(values.median()) if len(values) else None


def _with_integers(frame: pd.DataFrame) -> pd.DataFrame:
    for name in INTEGERS:
        if name in frame:
            frame[name] = pd.to_numeric(frame[name]).round().astype("Int64")
    return frame

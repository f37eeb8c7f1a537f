"""Whether the scores of a board are those that were published, by job and image, and each of its own image alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path

import pandas as pd

from adbench_tgan.boards.board import labels_hash, scores_hash
from adbench_tgan.boards.differences import Content, Found
from adbench_tgan.boards.document import results_of
from adbench_tgan.boards.folder import read_score_file, scores_file
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.leaderboard import METRICS, PURITY, is_pure
from adbench_tgan.results import Result


def sound_scores(
    path: Path, content: Content, suspect: set[str]
) -> tuple[dict[str, pd.DataFrame], list[Found]]:
    """The scores of all jobs by key, and what is wrong with them: a job that ended well and has none is a finding."""
    records = {job["key"]: job for job in content["jobs"] if job["status"] == "ok"}
    home = {
        record["key"]: scores_file(result.job.detector)
        for record, result in zip(content["jobs"], results_of(content), strict=True)
    }
    tables: dict[str, pd.DataFrame] = {}
    listed = {name: (path / name).is_file() for name in content["files"] if name.startswith("scores/")}
    found: list[Found] = [(name, "", "is missing") for name, there in listed.items() if not there]
    unlisted = {home[key] for key in records} - listed.keys()
    found += [
        ("board.json", "files", f"lacks {name}, which ought to hold scores") for name in sorted(unlisted)
    ]
    for name in (name for name, there in listed.items() if there):
        try:
            frame = read_score_file(path / name)
        except AdbenchError as error:
            found.append((name, "", str(error)))
            listed[name] = False  # of its jobs nothing can be said
            continue
        for (key, category, seed), group in frame.groupby(["key", "category", "seed"], sort=False):
            table = group[["sample_id", "label", "score"]].reset_index(drop=True)
            tables[str(key)] = table
            record = records.get(str(key))
            if record is None or (record["category"], record["seed"]) != (category, seed):
                problem = "board.json has no such job"
            elif name != home[str(key)]:
                problem = f"belongs into {home[str(key)]}"
            else:
                problem = _changed(table, None if f"jobs/{key}" in suspect else record["scores_sha256"])
            if problem:
                found.append((name, f"{key} ({category}, seed {seed})", problem))
    missing = [key for key in records if key not in tables and listed.get(home[key])]
    found += [(home[key], key, "the scores of this job are missing") for key in missing]
    return tables, [*found, *_labels(tables, records, home, _label_hashes(content, suspect))]


def _changed(table: pd.DataFrame, digest: str | None) -> str:
    """How a job's scores are not those that were published, in words; without a `digest` only their order tells."""
    if not table["sample_id"].is_monotonic_increasing:
        return "its images are not in the order of their sample_id"
    if digest is not None and scores_hash(table) != digest:
        return "a score was changed: the scores' SHA-256 does not match"
    return ""


def _label_hashes(content: Content, suspect: set[str]) -> dict[str, str]:
    """The hash of each category's images and labels, unless the section that states them was changed."""
    stated = {card["category"]: card["labels_sha256"] for card in content["categories"]}
    return {} if "categories" in suspect else stated


def implausible(content: Content) -> Iterator[Found]:
    """What jobs of ``board.json`` state that no run can have measured."""
    for job, result in zip(content["jobs"], results_of(content), strict=True):
        yield from (("board.json", f"jobs/{job['key']}", text) for text in impossible(result))


def impossible(result: Result) -> Iterator[str]:
    """What a result states that no run can have measured, in words."""
    if any(type(count) is not int or count < 0 for count in result.parameters.values()):
        yield "parameters must be whole numbers, none below 0"
    probed = {name: getattr(result, name) for name in ("purity_delta", "reconstruction_error")}
    stated = {**result.timing, **result.metrics, **probed}
    numbers = {name: value for name, value in stated.items() if isinstance(value, int | float)}
    others = result.metrics.keys() - set(METRICS)  # of plugins, which may be negative
    for name, value in numbers.items():
        if not isfinite(value) or (value < 0 and name not in others):
            yield f"{name} must not be {value}"
    if numbers.get("latency_ms_p50", 0) > numbers.get("latency_ms_p99", float("inf")):
        yield "latency_ms_p50 is above latency_ms_p99"
    if result.status == "ok" and (result.error or result.job.problem):
        yield "its status is ok, and it states an error"
    size = result.job.config.get("image_size")
    if result.shape is not None and size is not None and tuple(result.shape[1:]) != (size, size):
        yield f"images of {result.shape[1]} x {result.shape[2]} are not those of image_size={size}"
    if result.anomalies_fingerprint and result.job.supervision != "labelled":
        yield "it is one-class, and was trained on labelled anomalies"


def _labels(
    tables: Mapping[str, pd.DataFrame], records: Content, home: Mapping[str, str], labels: dict[str, str]
) -> Iterator[Found]:
    """Jobs whose test images or labels are not those of their category; the image is named if another job tells."""
    right: dict[str, pd.DataFrame] = {}
    wrong: list[str] = []
    for key, table in tables.items():
        if key in records:
            category = records[key]["category"]
            same = ["sample_id", "label"]
            if category in right and table[same].equals(right[category][same]):  # quicker than hashing again
                continue
            digest = labels_hash(table)
            if digest == labels.setdefault(category, digest):
                right[category] = table
            else:
                wrong.append(key)
    for key in wrong:
        category = records[key]["category"]
        image = _different(tables[key], right.get(category))
        where = f"{key} ({category}, seed {records[key]['seed']}){image}"
        yield home[key], where, "image or label was changed"


def _different(table: pd.DataFrame, right: pd.DataFrame | None) -> str:
    """The first image in which two tables differ, in words."""
    if right is None:
        return ""
    lines = [list(zip(each["sample_id"], each["label"], strict=True)) for each in (table, right)]
    changed = [image for image in lines[0] if image not in set(lines[1])]
    return f", {changed[0][0]}" if changed else ""


def impure(measured: Iterable[Result]) -> Iterator[tuple[Job, str]]:
    """Jobs whose scores depend on their batch, or were not probed for it, and that in words: none may be published."""
    for result in measured:
        job, delta = result.job, result.purity_delta
        if result.status == "ok" and delta is None:
            yield job, "whether its scores depend on their batch was not checked; run it again"
        elif result.status == "ok" and not is_pure(result):
            limit = f"relative change {delta:.2g}, at most {PURITY[job.precision]:.2g} is allowed"
            yield job, f"its scores depend on their batch ({limit}); publish without it (--detectors)"

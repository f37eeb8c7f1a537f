"""What papers print, beside our numbers: only where detector, dataset, protocol and category agree."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adbench_tgan.audit_table import differences
from adbench_tgan.errors import AdbenchError
from adbench_tgan.results import Result

AVERAGE = "average"  # how the table of published numbers calls a mean over categories
METRICS = {
    "AUROC": 1,
    "image AUROC": 1,
    "AUROC (as printed)": 1,
    "AUROC percent": 100,
}  # its names, and units
NUMBERED = re.compile(r"\d+ \((\w+)\)")  # a class's number before its name


@dataclass(frozen=True, kw_only=True, order=True)
class Paper:
    """One published AUROC, by our names; `protocol` in the source's own words where none of ours agrees."""

    detector: str
    protocol: str
    category: str
    auroc: float
    source: str


def read_papers(path: Path, dataset: str, detectors: Iterable[str]) -> tuple[Paper, ...]:
    """The AUROCs published of some detectors on a dataset, out of ``published_numbers.csv``.

    Raises:
        AdbenchError: the file cannot be read.
    """
    wanted = set(detectors)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [
                line
                for line in csv.DictReader(file)
                if line["metric"] in METRICS
                and line["our_dataset"] == dataset
                and line["our_detector"] in wanted
            ]
        return tuple(sorted(map(_paper, lines)))
    except (OSError, ValueError, KeyError) as error:
        raise AdbenchError(f"{path} cannot be read as a table of published numbers: {error}") from None


def _paper(line: Mapping[str, str]) -> Paper:
    return Paper(
        detector=line["our_detector"],
        protocol=line["our_protocol"] or f"'{line['protocol']}'",
        category=NUMBERED.sub(r"\1", line["category"]),
        auroc=float(line["value"]) / METRICS[line["metric"]],
        source=f"{line['source']}, {line['table']}" if line["table"] else line["source"],
    )


def published_cells(
    detector: str, protocol: str, categories: Sequence[str], papers: Iterable[Paper]
) -> tuple[float | None, str]:
    """``published_auroc`` and ``published_source``: a number only where every category of the row is covered."""
    mine = [paper for paper in papers if paper.detector == detector]
    agreeing = [paper for paper in mine if paper.protocol == protocol and paper.category in categories]
    best = max(_by_source(agreeing), key=len, default=[])
    mean = sum(paper.auroc for paper in best) / len(best) if best else 0.0
    if best and len(best) == len(categories):
        return mean, best[0].source
    if best:
        covered = f"{len(best)} of {len(categories)} categories"
        return None, f"{mean:.3f} over {covered} only ({best[0].source})"
    others = [paper for paper in mine if paper.protocol != protocol]
    told = [_elsewhere(group, categories) for group in _by_source(others)]
    return None, "; ".join(told)


def _by_source(papers: Iterable[Paper]) -> list[list[Paper]]:
    """Papers of one source and protocol together, one number a category."""
    found: dict[tuple[str, str], dict[str, Paper]] = {}
    for paper in papers:
        found.setdefault((paper.source, paper.protocol), {})[paper.category] = paper
    return [list(group.values()) for _, group in sorted(found.items())]


def _elsewhere(group: Sequence[Paper], categories: Sequence[str]) -> str:
    """What a source prints of these categories; where it lacks one of them, its average."""
    found = {paper.category: paper.auroc for paper in group}
    if categories and set(categories) <= found.keys():
        number, of = sum(found[category] for category in categories) / len(categories), ""
    else:
        others = [auroc for category, auroc in found.items() if category != AVERAGE]
        number, of = found.get(AVERAGE, sum(others) / max(len(others), 1)), " on average"
    return f"{number:.3f} published{of} under {group[0].protocol} ({group[0].source}): not comparable"


def read_audit(path: Path, keys: Iterable[str]) -> dict[str, float]:
    """Of an ``audit.csv`` the column ``as_published``, by key, of the jobs with those `keys`; nothing else.

    Raises:
        AdbenchError: the file cannot be read, or is not what the curves beside it say.
    """
    wanted = set(keys)
    if (path.parent / "curves").is_dir() and (wrong := next(differences(path.parent), None)):
        told = ": ".join(part for part in wrong if part)
        raise AdbenchError(f"{path.parent} does not match itself ({told}); audit again")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            found = {line["key"]: float(line["as_published"]) for line in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdbenchError(f"{path} cannot be read as an audit.csv: {error}") from None
    return {key: value for key, value in sorted(found.items()) if key in wanted}


def audited(members: Sequence[Result], audit: Mapping[str, float]) -> tuple[float | None, str]:
    """``as_published_auroc``, and a remark if not every category of a detector was audited."""
    by_category: dict[str, list[float]] = {}
    for result in members:
        if result.job.key in audit:
            by_category.setdefault(result.job.category, []).append(audit[result.job.key])
    if not by_category:
        return None, ""
    mean = sum(sum(each) / len(each) for each in by_category.values()) / len(by_category)
    everything = {result.job.category for result in members if result.status == "ok"}
    if everything <= set(by_category):
        return mean, ""
    return None, f"as published {mean:.3f} on {', '.join(sorted(by_category))}, no other category was audited"

"""What papers print, beside our numbers: only where detector, dataset, protocol, category and preset agree."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adbench_tgan.errors import AdbenchError
from adbench_tgan.store.places import read_bounded
from adbench_tgan.store.stored import LARGEST

if TYPE_CHECKING:
    from adbench_tgan.leaderboard import Standing

SHIPPED = Path(__file__).with_name("published_numbers.csv")  # a copy of the one beside the boards
AVERAGE = "average"  # how the table of published numbers calls a mean over categories
# What an AUROC is called there, in small letters, and of how many it is a share.
METRICS = {"auroc": 1, "image auroc": 1, "auroc (as printed)": 1, "auroc percent": 100}
NUMBERED = re.compile(r"\d+ \((\w+)\)")  # a class's number before its name
# What a source says of the settings that make a detector the published one.
SETTING = re.compile(r"\((\w+=\w+)\)")
NEEDED = "source table protocol category metric value our_detector our_dataset our_protocol".split()


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A line of the table: one AUROC, 0 to 1, by our names.

    `protocol` is in the source's own words, quoted, where none of ours agrees.
    """

    detector: str
    dataset: str
    protocol: str
    category: str
    auroc: float
    source: str
    table: str  # in the source


@dataclass(frozen=True, kw_only=True, order=True)
class Paper:
    """One published AUROC as a board keeps it, whose dataset is known; `source` names the table too."""

    detector: str
    protocol: str
    category: str
    auroc: float
    source: str


def read_published(path: Path) -> tuple[Printed, ...]:
    """The AUROCs in a table such as ``leaderboards/published_numbers.csv`` that are of a detector of ours.

    Raises:
        AdbenchError: it is no such table.
    """
    try:
        lines = read_lines(path, NEEDED)
        found = tuple(_printed(line) for line in lines if line["our_detector"] and _metric(line) in METRICS)
        if not found:
            raise ValueError("no line has an AUROC, and a detector in the column our_detector")
        _ensure_one_number_each(found)
        return found
    except (OSError, ValueError, csv.Error) as error:
        raise AdbenchError(
            f"{path} is not a table of published numbers ({type(error).__name__}: {error}); "
            "correct it, or name another with --published"
        ) from None


def read_lines(path: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    """The lines of a CSV file by column, of which it has those that are `needed`; a cell that a line lacks is None.

    Raises:
        ValueError, csv.Error: a column is missing or there twice, or a line has more cells than there are columns.
        OSError: it cannot be read.
    """
    text = read_bounded(path, LARGEST).decode("utf-8-sig")  # spreadsheets may begin a file with a mark
    reader = csv.DictReader(io.StringIO(text, newline=""))
    there = list(reader.fieldnames or ())
    for name in needed:
        if there.count(name) != 1:
            raise ValueError(
                f"it has no column {name}" if name not in there else f"it has two columns {name}"
            )
    lines = []
    for line in reader:
        if None in line:
            raise ValueError(
                f"line {reader.line_num} has more cells than there are columns: quote a cell with a comma"
            )
        lines.append(line)
    return lines


def _ensure_one_number_each(lines: Iterable[Printed]) -> None:
    """Raise `ValueError` where a source prints two AUROCs of the same: one of them would be passed over unsaid."""
    found: dict[Printed, float] = {}
    for line in lines:
        if found.setdefault(replace(line, auroc=0.0), line.auroc) != line.auroc:
            raise ValueError(f"two different AUROCs of {line.detector}, {line.category} from {line.source}")


def _metric(cells: Mapping[str, str | None]) -> str:
    return (cells["metric"] or "").strip().lower()


def _printed(line: Mapping[str, str | None]) -> Printed:
    cells = {name: line[name] for name in NEEDED}
    try:
        auroc = float(cells["value"] or "") / METRICS[_metric(cells)]
    except ValueError as error:
        raise ValueError(f"column value, the line of {cells['our_detector']}: {error}") from None
    if None in cells.values() or not 0 <= auroc <= 1:
        raise ValueError(
            f"the line of {cells['our_detector']} lacks a cell, or its AUROC is not within 0 to 1"
        )
    texts = {name: text or "" for name, text in cells.items()}
    return Printed(
        detector=texts["our_detector"],
        dataset=texts["our_dataset"],
        protocol=texts["our_protocol"] or f"'{texts['protocol']}'",
        category=NUMBERED.sub(r"\1", texts["category"]),
        auroc=auroc,
        source=texts["source"],
        table=texts["table"],
    )


def papers_of(lines: Iterable[Printed], dataset: str, detectors: Iterable[str]) -> tuple[Paper, ...]:
    """What is published of some detectors on a dataset."""
    wanted = set(detectors)
    papers = (
        Paper(
            detector=line.detector,
            protocol=line.protocol,
            category=line.category,
            auroc=line.auroc,
            source=f"{line.source}, {line.table}" if line.table else line.source,
        )
        for line in lines
        if line.dataset == dataset and line.detector in wanted
    )
    return tuple(sorted(papers))


def with_papers(standing: Standing, protocol: str, papers: Iterable[Paper]) -> Standing:
    """A leaderboard's row with what papers print beside it."""
    categories = tuple(standing.spread)
    printed, source = published_cells(standing.line["detector"], protocol, categories, papers)
    unofficial = any(result.unofficial for result in standing.members)
    printed, source = comparable_cells(printed, source, standing.line["preset"], unofficial=unofficial)
    return replace(standing, line={**standing.line, "published_auroc": printed, "published_source": source})


def beside_papers(
    ordered: Iterable[Standing], dataset: str, protocol: str, lines: Iterable[Printed]
) -> list[Standing]:
    """A leaderboard's rows with what the lines of a table print of them beside each."""
    ordered = list(ordered)
    papers = papers_of(lines, dataset, {each.line["detector"] for each in ordered})
    return [with_papers(each, protocol, papers) for each in ordered]


def comparable_cells(
    printed: float | None, source: str, preset: str, *, unofficial: bool
) -> tuple[float | None, str]:
    """A published number and its source; no number beside other images or another preset, and the source says so.

    `preset` is that of a row, with what was set by hand: "paper; epochs=1". That is for the reader to weigh.
    """
    if printed is None:
        return None, source
    base, *own = preset.split("; ")
    if unofficial:
        unlike = "on the official images"
    elif base != "paper":
        unlike = "with the preset paper"
    elif lacking := [setting for setting in SETTING.findall(source) if setting not in own]:
        unlike = f"with {lacking[0]}"
    else:
        return printed, source
    return None, f"{printed:.3f} published {unlike} ({source}): not comparable"


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

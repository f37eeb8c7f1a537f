"""``audit.csv``: what the stored curves of audits say, beside what papers print. No torch needed."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from adbench_tgan.errors import StoreError
from adbench_tgan.jobs import Job
from adbench_tgan.ranking.published import Printed, comparable_cells, read_published
from adbench_tgan.results import safe_name
from adbench_tgan.store.places import contents, read_bounded
from adbench_tgan.store.stored import LARGEST, newer, stamp
from adbench_tgan.text import csv_of

SCHEMA: Literal[1] = 1  # of a file of curves
CURVES = ("clean", "batch_statistics", "class_sorted")
COLOURS = {  # of the curves in pictures, by what is said of them there
    "clean: eval mode": "#0072B2",
    "+ batch statistics, shuffled": "#009E73",
    "+ sorted by class": "#E69F00",
    "+ best epoch so far": "#D55E00",
}
COLUMNS = (
    "detector dataset protocol category seed preset precision epochs clean batch_statistics class_sorted "
    "as_published best_epoch optimism published published_source device detector_version split_fingerprint key "
    "adbench_version curves_sha256"
).split()
Curve = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)]  # an AUROC an epoch


def drawn(record: Mapping[str, Any]) -> dict[str, list[float]]:
    """The curves of one audit as they are drawn, by the names that `COLOURS` has: AUROC an epoch."""
    curves = [list(record[name]) for name in CURVES]
    best = list(accumulate(curves[-1], max))
    return dict(zip(COLOURS, (*curves, best), strict=True))


def file_of(out: Path, job: Job) -> Path:
    """Where a job's audit is kept."""
    names = (job.dataset, job.protocol, job.detector, f"{job.category}-seed{job.seed}-{job.key[:8]}.json")
    return out.joinpath("curves", *map(safe_name, names))


def gather(
    out: Path, jobs: Sequence[Job], published: Iterable[Printed], say: Callable[[str], None] | None = None
) -> pd.DataFrame:
    """``audit.csv``: a row for every audit in `out`, those of `jobs` first and in their order; `say` hears of the others."""
    paths = dict.fromkeys([*(file_of(out, job) for job in jobs), *curves_in(out)])
    records: dict[str, dict[str, Any]] = {}
    for path in paths:
        record = read_curves(path)
        if record is not None:
            records.setdefault(Job(**record["job"]).key, record)
        elif say is not None and path.exists():
            say(f"{path} has no row: it is {newer(path, SCHEMA) or 'damaged'}")
    return table_of(records.values(), published)


def curves_in(folder: Path) -> list[Path]:
    """The files of all audits that a folder holds, without hidden ones: macOS puts ``._NAME`` beside a file it copies."""
    found = sorted((folder / "curves").rglob("*.json"))
    return [path for path in found if not path.name.startswith(".")]


def table_of(records: Iterable[Mapping[str, Any]], published: Iterable[Printed]) -> pd.DataFrame:
    """A row a record."""
    found = {(line.detector, line.dataset, line.protocol, line.category): line for line in published}
    return pd.DataFrame([row(record, found) for record in records], columns=COLUMNS)


class Record(BaseModel):
    """What a job's file must say; the rest of it is kept as it is."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    schema_number: Annotated[Literal[1], Field(alias="schema")]
    job: Job
    clean: Curve
    batch_statistics: Curve
    class_sorted: Curve
    authors: bool = True  # whether the authors' code scores so; absent from older audits
    device: str
    unofficial: str = ""  # how the images differ from the dataset's own; absent from older audits
    version: str


def read_record(out: Path, job: Job) -> dict[str, Any] | None:
    """The stored audit of a job; None when it is missing or damaged, or another job's.

    Raises:
        StoreError: it cannot be read.
    """
    record = read_curves(file_of(out, job))
    return record if record is not None and Job(**record["job"]).key == job.key else None


def read_curves(path: Path) -> dict[str, Any] | None:
    """What one file holds, and its SHA-256; None if it is missing, damaged, or its curves are of different lengths.

    Raises:
        StoreError: it cannot be read, which leaves open what is there.
    """
    try:
        if (data := contents(path, LARGEST)) is None:
            return None
        record = Record.model_validate_json(data)
    except ValueError:
        return None
    whole = len(record.clean) == len(record.batch_statistics) == len(record.class_sorted)
    return record.model_dump(by_alias=True) | {"sha256": hashlib.sha256(data).hexdigest()} if whole else None


def row(record: Mapping[str, Any], published: Mapping[tuple[str, str, str, str], Printed]) -> dict[str, Any]:
    """The last epoch of each curve, what the paper printed, and, where the authors scored so, the best as published."""
    job = Job(**record["job"])
    best = max(record["class_sorted"])
    found = published.get((job.detector, job.dataset, job.protocol, job.category))
    printed, source = (found.auroc, found.source) if found else (None, "")
    printed, source = comparable_cells(printed, source, job.preset, unofficial=bool(record["unofficial"]))
    names = ("detector", "dataset", "protocol", "category", "seed", "preset", "precision")
    return {
        **{name: getattr(job, name) for name in (*names, "detector_version", "split_fingerprint", "key")},
        **{name: record[name][-1] for name in CURVES},
        "epochs": len(record["clean"]),
        "as_published": best if record["authors"] else None,
        "best_epoch": list(record["class_sorted"]).index(best) + 1,
        "optimism": best - record["clean"][-1],
        "published": printed,
        "published_source": source,
        "device": record["device"],
        "adbench_version": record["version"],
        "curves_sha256": record["sha256"],
    }


Finding = tuple[str, str, str]  # file, where in it, what is wrong


def differences(folder: Path) -> Iterator[Finding]:
    """Where ``audit.csv``, the curves beside it and their pictures do not say the same.

    Numbers that papers print are those of ``published_numbers.csv`` in the folder above; without one, such as in a
    folder of one's own, they are passed over.
    """
    table = folder.parent / "published_numbers.csv"
    published = read_published(table) if table.exists() else ()
    records = {path: _curves_if_readable(path) for path in curves_in(folder)}
    good = {path: record for path, record in records.items() if record is not None}
    for path, record in records.items():
        yield from ((path.relative_to(folder).as_posix(), "", text) for text in _of_one(folder, path, record))
    wanted = table_of(good.values(), published)
    if not table.exists():
        wanted = wanted.drop(columns=["published", "published_source"])
    damaged = {path.stem[-8:] for path in records if path not in good}  # they are named already
    yield from (("audit.csv", where, text) for where, text in _of_table(folder, wanted, damaged))


def _curves_if_readable(path: Path) -> dict[str, Any] | None:
    try:
        return read_curves(path)
    except StoreError:
        return None


def _of_one(folder: Path, path: Path, record: Mapping[str, Any] | None) -> Iterator[str]:
    """What is wrong with a file of curves."""
    if record is None:
        yield "is no audit: damaged or unreadable, or an AUROC is not within 0 to 1"
    elif path != file_of(folder, Job(**record["job"])):
        yield "its file name is not that of its job"
    elif stamp(path.with_suffix(".png")) != record["sha256"]:
        yield "its picture is missing, or is not drawn from these curves"


def _of_table(folder: Path, wanted_table: pd.DataFrame, damaged: Set[str]) -> Iterator[tuple[str, str]]:
    """Where ``audit.csv`` is not `wanted_table`, but for the order of rows; columns that this lacks are passed over.

    `damaged` are the beginnings of keys whose curves cannot be read.
    """
    wanted = csv_of(wanted_table)
    try:
        data = read_bounded(folder / "audit.csv", LARGEST)
        text = data.decode("utf-8-sig")  # spreadsheets may begin a file with a mark
        there = lines_of(text)
    except (OSError, ValueError, csv.Error) as error:
        yield "", f"cannot be read ({type(error).__name__})"
        return
    right = next(csv.reader([text.partition("\n")[0]]), []) == COLUMNS
    if not right:
        yield "", f"its columns should be {','.join(COLUMNS)}"
    found = list(_of_rows(there, lines_of(wanted), damaged))
    yield from found
    comparable = right and not found and not damaged and list(wanted_table.columns) == COLUMNS
    if comparable and sorted(data.splitlines(True)) != sorted(wanted.encode().splitlines(True)):
        yield "", "holds the right cells, but other bytes than adbench audit writes; run it again"


def _of_rows(
    there: Sequence[Mapping[str, str]], wanted: Sequence[Mapping[str, str]], damaged: Set[str]
) -> Iterator[tuple[str, str]]:
    """The rows and cells that are not those that are wanted."""
    expected = {line["key"]: line for line in wanted}
    left = dict(expected)
    for line in there:
        key, name = line.get("key") or "", _named(line)
        if left.pop(key, None) is None:
            if key in expected:
                yield name, "this row is there twice"
            elif key[:8] not in damaged:
                yield name, "the folder curves has no file for this row"
            continue
        for column, value in expected[key].items():
            if line.get(column) != value:
                yield f"{name}, {column}", f"is {line.get(column)!r}, the curves say {value!r}"
    yield from ((_named(line), "this row is missing") for line in left.values())


def _named(line: Mapping[str, str]) -> str:
    return f"{line.get('detector')}, {line.get('category')}, seed {line.get('seed')}"


def lines_of(text: str) -> list[dict[str, str]]:
    """The lines of a CSV file by column."""
    return list(csv.DictReader(io.StringIO(text, newline="")))

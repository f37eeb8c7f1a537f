"""Recompute a published board from its scores, and name everything that does not match."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from adbench_tgan.boards import picture
from adbench_tgan.boards.board import assemble, canonical, labels_hash, scores_hash
from adbench_tgan.boards.cells import rows
from adbench_tgan.boards.document import facts_of, results_of, seal
from adbench_tgan.boards.folder import (
    facts_of_file,
    parse,
    read_content,
    read_losses,
    read_score_file,
    render,
)
from adbench_tgan.boards.readme import PICTURE
from adbench_tgan.boards.schemas import PAIRS, TABLES, Table, check
from adbench_tgan.errors import AdbenchError
from adbench_tgan.results import safe_name

Content = Mapping[str, Any]
SOURCES = ("name", "dataset", "protocol", "published", "audit", "machines", "configurations", "jobs")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that does not match."""

    board: str
    file: str
    where: str  # the row, the cell, the image or the section; empty for the whole file
    problem: str

    def __str__(self) -> str:
        return ": ".join(part for part in (f"{self.board}/{self.file}", self.where, self.problem) if part)


def find_boards(path: Path) -> list[Path]:
    """The boards in `path`, or `path` itself if it is one.

    Raises:
        AdbenchError: there is none.
    """
    if (path / "board.json").exists():
        return [path]
    found = [
        each
        for each in (sorted(path.iterdir()) if path.is_dir() else ())
        if not each.name.startswith(".") and ((each / "board.json").exists() or (each / "scores").is_dir())
    ]
    if not found:
        raise AdbenchError(f"there is no board in {path}; adbench publish makes one")
    return found


def verify(path: Path) -> list[Finding]:
    """All that does not match in one board; nothing when all is well. What is found is not searched twice.

    A table that was changed is named by its cells, a score or label by its job. Where the scores or the measurements
    of ``board.json`` are themselves wrong, the tables that follow from them are only compared with their hashes.
    """
    name = path.resolve().name
    try:
        content = read_content(path)
    except AdbenchError as error:
        return [Finding(board=name, file="board.json", where="", problem=str(error))]
    found = [
        Finding(board=name, file=file, where=where, problem=problem)
        for file, where, problem in _all(path, content)
    ]
    return list(dict.fromkeys(found))


Found = tuple[str, str, str]  # file, where, problem


def _all(path: Path, content: Content) -> Iterator[Found]:
    yield from _names(path, content)
    sealed = list(_seals(content))
    named = list(_contents(path, content, {where for _, where, _ in sealed}))
    yield from named
    told = {
        where.partition("/")[0]
        for file, where, _ in (*named, *sealed)
        if file == "board.json" and "/" in where
    }
    yield from (found for found in sealed if found[1] not in told)


def _contents(path: Path, content: Content, suspect: set[str]) -> Iterator[Found]:
    """Everything but names and seals; `suspect` are the parts of ``board.json`` whose seals are broken."""
    measured = results_of(content)
    there = {
        **content,
        "files": {name: each for name, each in content["files"].items() if (path / name).is_file()},
    }
    try:
        scores, unsound = _scores(path, there, suspect)
        yield from unsound
        changed = any(name in SOURCES or name.startswith("jobs/") for name in suspect)
        lacking = any(result.status == "ok" and result.job.key not in scores for result in measured)
        if unsound or changed or lacking:
            yield from _hashes(path, there)
            return
        board = assemble(facts_of(content), measured, scores, read_losses(path, there))
        files, expected = render(board)
    except AdbenchError as error:
        yield "board.json", "", f"its tables cannot be recomputed: {error}"
        yield from _hashes(path, there)
        return
    for table in TABLES:
        yield from _cells(path, table, files[table.file])
    yield from _page(path, files["README.md"])
    yield from _sections(content, expected)
    yield from _recorded(path, there, files, "files" in suspect)
    if (path / PICTURE).exists() and picture.stamp(path / PICTURE) != _sha(files[PAIRS.file]):
        yield PICTURE, "", "is not drawn from this pairs.csv; publish the board again"


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _names(path: Path, content: Content) -> Iterator[Found]:
    """The folder's name, files that should not be there, and files that should."""
    if content["name"] != path.resolve().name:
        yield "board.json", "name", f"is {content['name']!r}, the folder's is {path.resolve().name!r}"
    known = {*content["files"], "board.json", PICTURE}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name not in known:
            yield name, "", "should not be there: board.json does not list it"
    for name in content["files"]:
        if not (path / name).is_file():
            yield name, "", "is missing"


def _hashes(path: Path, content: Content) -> Iterator[Found]:
    """Tables and pages compared with their recorded hashes, where they cannot be recomputed."""
    for name, facts in content["files"].items():
        if not name.startswith("scores/") and facts_of_file((path / name).read_bytes()) != facts:
            yield name, "", "is not the file that board.json vouches for"


def _recorded(path: Path, content: Content, files: Mapping[str, bytes], suspect: bool) -> Iterator[Found]:
    """The recorded hashes of files that hold measurements; those of the tables are among the sections."""
    for name, facts in content["files"].items():
        if name.startswith(("scores/", "losses/")) and facts_of_file((path / name).read_bytes()) != facts:
            if suspect:
                yield "board.json", f"files/{name}", "is not the size and SHA-256 of that file"
            elif name.startswith("losses/"):
                yield name, "", "is not the file that board.json vouches for"
            else:
                yield name, "", "has other bytes than were published, though no score differs"


def _seals(content: Content) -> Iterator[Found]:
    """Parts of ``board.json`` that were changed, and jobs whose key is not that of what they say."""
    keys = [result.job.key for result in results_of(content)]
    for job, key in zip(content["jobs"], keys, strict=True):
        record = {name: value for name, value in job.items() if name != "seal"}
        if key != job["key"]:
            yield (
                "board.json",
                f"jobs/{job['key']}",
                f"its settings, protocol or fingerprint give the key {key}",
            )
        elif seal(record) != job["seal"]:
            yield "board.json", f"jobs/{job['key']}", "was changed: its seal does not match"
    seals = content.get("seals", {})
    for name, section in content.items():
        if name == "jobs":
            matches = seal([job["seal"] for job in section]) == seals.get(name)
        else:
            matches = name == "seals" or seal(section) == seals.get(name)
        if not matches:
            yield "board.json", name, "was changed: its seal does not match"


def _scores(path: Path, content: Content, suspect: set[str]) -> tuple[dict[str, pd.DataFrame], list[Found]]:
    """The scores of all jobs by key, and what is wrong with them."""
    records = {job["key"]: job for job in content["jobs"] if job["status"] == "ok"}
    labels = {card["category"]: card["labels_sha256"] for card in content["categories"]}
    if "categories" in suspect:
        labels = {}
    tables: dict[str, pd.DataFrame] = {}
    found: list[Found] = []
    for name in content["files"]:
        if not name.startswith("scores/"):
            continue
        try:
            frame = read_score_file(path / name)
        except AdbenchError as error:
            found.append((name, "", str(error)))
            continue
        for (key, category, seed), group in frame.groupby(["key", "category", "seed"], sort=False):
            where = f"{key} ({category}, seed {seed})"
            record = records.get(str(key))
            table = group[["sample_id", "label", "score"]].reset_index(drop=True)
            if record is None or (record["category"], record["seed"]) != (category, seed):
                found.append((name, where, "board.json has no such job"))
            elif not table["sample_id"].equals(canonical(table)["sample_id"]):
                found.append((name, where, "its images are not in the order of their sample_id"))
            elif scores_hash(table) != record["scores_sha256"] and f"jobs/{key}" not in suspect:
                found.append((name, where, "a score was changed: the scores' SHA-256 does not match"))
            tables[str(key)] = table
    missing = [key for key in records if key not in tables]
    detector = {result.job.key: result.job.detector for result in results_of(content)}
    for key in missing:
        file = f"scores/{safe_name(detector[key])}.parquet"
        if file in content["files"]:
            found.append((file, key, "the scores of this job are missing"))
    return tables, [*found, *_labels(tables, records, detector, labels)]


def _labels(
    tables: Mapping[str, pd.DataFrame], records: Content, detector: Content, labels: dict[str, str]
) -> Iterator[Found]:
    """Jobs whose test images or labels are not those of their category; the image is named if another job tells."""
    right: dict[str, pd.DataFrame] = {}
    wrong: list[str] = []
    for key, table in tables.items():
        if key in records:
            category = records[key]["category"]
            if labels_hash(table) == labels.setdefault(category, labels_hash(table)):
                right[category] = table
            else:
                wrong.append(key)
    for key in wrong:
        category = records[key]["category"]
        image = _different(tables[key], right.get(category))
        where = f"{key} ({category}, seed {records[key]['seed']}){image}"
        yield f"scores/{safe_name(detector[key])}.parquet", where, "image or label was changed"


def _different(table: pd.DataFrame, right: pd.DataFrame | None) -> str:
    """The first image in which two tables differ, in words."""
    if right is None:
        return ""
    lines = [list(zip(each["sample_id"], each["label"], strict=True)) for each in (table, right)]
    changed = [image for image in lines[0] if image not in set(lines[1])]
    return f", {changed[0][0]}" if changed else ""


def _cells(path: Path, table: Table, expected: bytes) -> Iterator[Found]:
    """The cells of a table that are not as recomputed."""
    if not (path / table.file).is_file():
        return
    data = (path / table.file).read_bytes()
    if data == expected:
        return
    try:
        header, lines = rows(data.decode())
    except UnicodeDecodeError as error:
        yield table.file, "", f"cannot be read: {error}"
        return
    wanted_header, wanted = rows(expected.decode())
    if header != wanted_header:
        yield table.file, "header", f"should be {','.join(wanted_header)}"
        return
    found = list(_differences(table, lines, wanted))
    yield from found
    if not found:
        yield table.file, "", "holds the right cells, but other bytes or another order than were published"
    try:
        check(parse(data, table), table)
    except AdbenchError as error:
        yield table.file, "", str(error)


def _differences(
    table: Table, lines: Sequence[dict[str, str]], wanted: Sequence[dict[str, str]]
) -> Iterator[Found]:
    have, want = _by_identity(lines, table), _by_identity(wanted, table)
    lost, new = [name for name in want if name not in have], [name for name in have if name not in want]
    if len(lost) == len(new) == 1 and len(lines) == len(wanted):  # its name was changed
        have = {lost[0] if name == new[0] else name: line for name, line in have.items()}
        lost, new = [], []
    for name in lost:
        yield table.file, name, "this row is missing"
    for name in new:
        yield table.file, name, "this row should not be there"
    for name, line in want.items():
        for column, value in line.items():
            found = have.get(name, line).get(column, "")
            if found != value:
                yield (
                    table.file,
                    f"{name}, {column}",
                    f"is {found!r}, recomputed {value!r}{_why(table, column, line)}",
                )


def _why(table: Table, column: str, line: Mapping[str, str]) -> str:
    return f" ({line['remark']})" if column in ("rank", "tie_group") and line.get("remark") else ""


def _by_identity(lines: Sequence[dict[str, str]], table: Table) -> dict[str, dict[str, str]]:
    """Rows by what tells them apart; equal ones are numbered."""
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        name = " ".join(line.get(column, "") for column in table.identity)
        if table.file == "results.csv":
            name = f"{name} ({line.get('detector')}, {line.get('category')}, seed {line.get('seed')})"
        while name in found:
            name += "'"
        found[name] = line
    return found


def _page(path: Path, expected: bytes) -> Iterator[Found]:
    """The first line of ``README.md`` that is not as it is made from the tables."""
    if not (path / "README.md").is_file() or (path / "README.md").read_bytes() == expected:
        return
    have = (path / "README.md").read_text(encoding="utf-8", errors="replace").splitlines()
    want = expected.decode().splitlines()
    at = next(
        (i for i, pair in enumerate(zip(have, want, strict=False)) if pair[0] != pair[1]),
        min(len(have), len(want)),
    )
    yield "README.md", f"line {at + 1}", "is not as the tables say"


def _sections(content: Content, expected: Content) -> Iterator[Found]:
    """The parts of ``board.json`` that follow from others, and the recorded hashes of the tables."""
    for name in expected:
        if name in ("jobs", "seals"):
            continue
        for where, have, want in _leaves(content.get(name), expected[name], name):
            if not where.startswith(("files/scores/", "files/losses/")):
                yield "board.json", where, f"is {have!r}, recomputed {want!r}"
    for name in content:
        if name not in expected:
            yield "board.json", name, "should not be there"


def _leaves(have: Any, want: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """The innermost places in which two documents differ."""
    if isinstance(have, Mapping) and isinstance(want, Mapping):
        for name in dict.fromkeys([*want, *have]):
            yield from _leaves(have.get(name), want.get(name), f"{where}/{name}")
    elif isinstance(have, list) and isinstance(want, list) and len(have) == len(want):
        for number, pair in enumerate(zip(have, want, strict=True)):
            yield from _leaves(*pair, f"{where}/{number}")
    elif have != want:
        yield where, have, want

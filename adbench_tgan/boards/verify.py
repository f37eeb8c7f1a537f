"""Recompute a published board from its scores, and name everything that does not match."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isclose
from pathlib import Path

import pandas as pd

from adbench_tgan import audit_table
from adbench_tgan.boards.audited import read_audit
from adbench_tgan.boards.board import assemble
from adbench_tgan.boards.differences import Content, Found, cells, leaves, page
from adbench_tgan.boards.document import facts_of, results_of, seal
from adbench_tgan.boards.folder import bytes_of, facts_of_file, read_content, read_losses, render
from adbench_tgan.boards.picture import PICTURES, Picture, digest
from adbench_tgan.boards.schemas import TABLES
from adbench_tgan.boards.settled import settled
from adbench_tgan.boards.soundness import implausible, impure, sound_scores
from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import one_line
from adbench_tgan.ranking.published import papers_of, read_published
from adbench_tgan.store.stored import stamp
from adbench_tgan.terminal.pace import silent
from adbench_tgan.text import plain

OTHER_BYTES = "its bytes are not those that adbench writes for its content, as with a repeated name, another order or spaces"
UNLIKE = "does not match its size and SHA-256 in board.json"
OTHER_RULES = (
    "are those of another version of adbench, which can explain cells that differ; rebuild the board by the current "
    "rules with adbench publish --again FOLDER --board NAME"
)
OTHER_PAGE = (
    "is not what this version of adbench writes for these tables; adbench publish --again FOLDER --board NAME writes it "
    "anew"
)
# What a board raises in which a stranger has written just anything.
MISREAD = (
    *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, OSError),
    csv.Error,
)
MARKS = ("board.json", "scores", "leaderboard.csv", "pairs.csv")  # any of them makes a folder a board
ROUNDED = 1e-6  # of an AUROC that an audit and a board both hold
OF_MACOS = re.compile(r"\.DS_Store|\._.+")  # what it leaves in folders that it shows or copies
SOURCES = ("name", "dataset", "protocol", "published", "audit", "machines", "configurations", "jobs")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that does not match."""

    board: str
    file: str
    where: str  # the row, the cell, the image or the section; empty for the whole file
    problem: str

    def __str__(self) -> str:
        parts = (f"{self.board}/{self.file}", self.where, self.problem)
        return plain(": ".join(part for part in parts if part))


def findings(path: Path, found: Iterable[Found]) -> list[Finding]:
    """What was found in the board in a folder."""
    name = path.resolve().name
    return [Finding(board=name, file=file, where=where, problem=text) for file, where, text in found]


def find_boards(path: Path) -> list[Path]:
    """`path` if it is a board, else those in it."""
    if (path / "board.json").exists():
        return [path]
    return [each for each in folders_in(path) if any((each / name).exists() for name in MARKS)]


def find_audits(path: Path) -> list[Path]:
    """`path` if it is an audit, and those in it."""
    return folders_with(("audit.csv",), path)


def folders_with(marks: Iterable[str], path: Path) -> list[Path]:
    """`path`, and those in it, if they hold one of these files."""
    return [each for each in (path, *folders_in(path)) if any((each / mark).exists() for mark in marks)]


def folders_in(path: Path) -> list[Path]:
    """Those in `path`, by name, without hidden ones, which a killed command may leave."""
    inside = sorted(path.iterdir()) if path.is_dir() else []
    return [each for each in inside if each.is_dir() and not each.name.startswith(".")]


def verify(path: Path, say: Callable[[str], None] = silent) -> list[Finding]:
    """All that does not match in one board, and impure scores; nothing when all is well. Nothing is searched twice.

    A table that was changed is named by its cells, a score or label by its job. Where the scores or the measurements
    of ``board.json`` are themselves wrong, the tables that follow from them are only compared with their hashes.
    `say` is told now and then how far the recomputing is.
    """
    return findings(path, dict.fromkeys(settled(path, lambda: _found(path, say), say)))


def verify_audit(path: Path) -> list[Finding]:
    """Where an audit's table is not what its curves say."""
    try:
        return findings(path, audit_table.differences(path))
    except AdbenchError as error:  # such as of the published numbers beside it
        return findings(path, [("audit.csv", "", str(error))])


def no_board(path: Path) -> list[Finding]:
    """That a folder among boards holds nothing that can be recomputed."""
    return findings(path, [("", "", "should not be there: it is no board, no timing board and no audit")])


def unsound(path: Path) -> list[Finding]:
    """What is wrong with the parts from which all of a board follows: scores, labels, losses, measurements.

    Raises:
        AdbenchError: one of them cannot be read.
    """
    content = read_content(path)
    with _understood(path):
        found = list(_seals(content))
        found += sound_scores(path, content, {where for _, where, _ in found})[1]
        found += _recorded(path, content, suspect=False)
    return findings(path, found)


def altered(path: Path) -> list[Finding]:
    """Which parts and files of a board are not those that its ``board.json`` vouches for. Recomputes nothing.

    Raises:
        AdbenchError: one of them cannot be read.
    """
    content = read_content(path)
    with _understood(path):
        found = [*_seals(content), *_hashes(path, content, scores=True)]
    return findings(path, found)


def refuse(found: Sequence[Finding], remedy: str) -> None:
    """Raise `AdbenchError` with the first of some findings, if there is one."""
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise AdbenchError(f"{found[0]}{more}; {remedy}")


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    try:
        yield
    except MISREAD as error:
        raise AdbenchError(
            f"{path / 'board.json'} cannot be understood ({one_line(error)}); publish the board again"
        ) from None


def _found(path: Path, say: Callable[[str], None]) -> list[Found]:
    found: list[Found] = []
    try:
        found.extend(_all(path, read_content(path), say))
    except AdbenchError as error:
        found.append(("board.json", "", str(error)))
    except MISREAD as error:
        found.append(("board.json", "", f"cannot be understood: {one_line(error)}"))
    return found


def _all(path: Path, content: Content, say: Callable[[str], None]) -> Iterator[Found]:
    """All findings; where one says exactly what was changed, those that only follow from it are left out."""
    names = list(_names(path, content))
    yield from names
    broken = [*_seals(content), *implausible(content)]
    exact = list(_contents(path, content, {where for _, where, _ in broken}, say))
    yield from _of_bytes_last(exact, others=bool(names or broken))
    yield from _papers(path, content)
    yield from _audits(path, content)
    yield from _unexplained(broken, exact)
    for job, problem in impure(results_of(content)):
        where = f"{job.key} ({job.detector}, {job.category}, seed {job.seed}), purity_delta"
        yield "results.csv", where, problem


def _of_bytes_last(exact: list[Found], *, others: bool) -> list[Found]:
    """That ``board.json`` has other bytes follows from any other change; it is a finding where there is none."""
    meaning = [found for found in exact if found[2] != OTHER_BYTES]
    return meaning if meaning or others else exact


def _unexplained(broken: list[Found], exact: list[Found]) -> list[Found]:
    """The broken seals of parts of ``board.json``, but of those in which a change is named: ``audit`` by ``audit/KEY``."""
    inside = [where for file, where, _ in (*exact, *broken) if file == "board.json" and "/" in where]
    named = {where.partition("/")[0] for where in inside} | {where for _, where, _ in exact}
    return [found for found in broken if found[1] not in named]


def _papers(path: Path, content: Content) -> Iterator[Found]:
    """Whether the board prints of papers what the table beside it says, if there is one."""
    table = path.resolve().parent / "published_numbers.csv"
    if not table.is_file():
        return
    facts = facts_of(content)
    detectors = {result.job.detector for result in results_of(content)}
    if facts.papers != papers_of(read_published(table), facts.dataset["name"], detectors):
        yield "board.json", "published", f"is not what {table.name} says; publish again from the runs"


def _audits(path: Path, content: Content) -> Iterator[Found]:
    """Where the board says of an audit what none of those beside it says, of those that hold the job."""
    printed = facts_of(content).audit or {}
    tables = [folder / "audit.csv" for folder in find_audits(path.resolve().parent)] if printed else []
    said: dict[str, list[float]] = {}
    for table in tables:
        try:
            for key, value in read_audit(table, printed).items():
                said.setdefault(key, []).append(value)
        except AdbenchError as error:
            yield "board.json", "audit", f"cannot be compared: {error}"
    for key, values in said.items():
        if not any(isclose(printed[key], value, rel_tol=0, abs_tol=ROUNDED) for value in values):
            problem = f"is {printed[key]!r}, the audit beside it says {' or '.join(map(repr, values))}"
            yield "board.json", f"audit/{key}", problem


def _contents(path: Path, content: Content, suspect: set[str], say: Callable[[str], None]) -> Iterator[Found]:
    """Everything but names and seals; `suspect` are the parts of ``board.json`` whose seals are broken."""
    measured = results_of(content)
    there = {
        **content,
        "files": {name: each for name, each in content["files"].items() if (path / name).is_file()},
    }
    try:
        scores, unsound = sound_scores(path, content, suspect)
        yield from unsound
        changed = any(name in SOURCES or name.startswith("jobs/") for name in suspect)
        if unsound or changed:
            yield from _hashes(path, there)
            return
        losses, unread = _losses(path, there)
        yield from unread
        board = assemble(facts_of(content), measured, scores, losses, say)
        as_stored = {name: bytes_of(path / name) for name in there["files"] if name.startswith("scores/")}
        files, expected = render(board, as_stored)
    except AdbenchError as error:
        yield "board.json", "", f"its tables cannot be recomputed: {error}"
        yield from _hashes(path, there)
        return
    if content.get("rules") != expected["rules"] and "rules" not in suspect:
        yield "board.json", "rules", OTHER_RULES
    for table in TABLES:
        yield from cells(path, table, files[table.file])
    yield from page(path, files["README.md"], OTHER_PAGE)
    yield from _sections(content, expected)
    yield from _recorded(path, there, suspect="files" in suspect)
    for picture in PICTURES:
        yield from _picture(path, picture, digest(picture, files) if picture.is_drawn(board) else None)
    if bytes_of(path / "board.json") != files["board.json"]:
        yield "board.json", "", OTHER_BYTES


def _picture(path: Path, picture: Picture, expected: str | None) -> Iterator[Found]:
    """A picture, whose bytes nobody vouches for: whether it is there when it should be, and of which table."""
    there = (path / picture.file).is_file()
    if there and expected is None:
        yield picture.file, "", "should not be there: such a table has none"
    elif expected and not there:
        yield picture.file, "", "is missing; publish the board again"
    elif there and stamp(path / picture.file) != expected:
        yield picture.file, "", f"is not drawn from this {picture.of}; publish the board again"


def _names(path: Path, content: Content) -> Iterator[Found]:
    """The folder's name, files that should not be there, and files that should."""
    if content["name"] != path.resolve().name:
        yield "board.json", "name", f"is {content['name']!r}, the folder's is {path.resolve().name!r}"
    known = {*content["files"], "board.json", *(picture.file for picture in PICTURES)}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_symlink() or not (file.is_file() or file.is_dir()):
            yield name, "", "should not be there: a board has plain files only"
        elif file.is_file() and name not in known and not OF_MACOS.fullmatch(file.name):
            yield name, "", "should not be there: board.json does not list it"
        elif file.is_dir() and name not in ("scores", "losses", *content["files"]):
            yield name, "", "should not be there: a board has no such folder"
    for name in content["files"]:
        if not (path / name).is_file():
            yield name, "", "is missing"


def _hashes(path: Path, content: Content, *, scores: bool = False) -> Iterator[Found]:
    """Tables and pages, and the files of `scores`, compared with their recorded hashes: nothing is recomputed."""
    for name, facts in content["files"].items():
        if (scores or not name.startswith("scores/")) and facts_of_file(bytes_of(path / name)) != facts:
            yield name, "", UNLIKE


def _losses(path: Path, content: Content) -> tuple[dict[str, pd.DataFrame], list[Found]]:
    """The losses of all jobs by key, and the files of losses that cannot be read."""
    tables: dict[str, pd.DataFrame] = {}
    found: list[Found] = []
    for name in content["files"]:
        try:
            tables |= read_losses(path, {"files": [name]})
        except AdbenchError as error:
            found.append((name, "", str(error)))
    return tables, found


def _recorded(path: Path, content: Content, *, suspect: bool) -> Iterator[Found]:
    """The recorded hashes of files that hold measurements; those of the tables are among the sections."""
    for name, facts in content["files"].items():
        if name.startswith(("scores/", "losses/")) and facts_of_file(bytes_of(path / name)) != facts:
            if suspect:
                yield "board.json", f"files/{name}", "does not match the size and SHA-256 of that file"
            elif name.startswith("losses/"):
                yield name, "", UNLIKE
            else:
                yield name, "", "has other bytes than were published, though no score differs"


def _seals(content: Content) -> Iterator[Found]:
    """Parts of ``board.json`` that were changed, and jobs whose key is not that of what they say."""
    parts = list(_sections_changed(content))
    yield from (("board.json", name, "was changed: its seal does not match") for name in parts)
    keyed = set(parts).isdisjoint(("dataset", "protocol", "configurations"))  # else no key is what it was
    keys = [result.job.key for result in results_of(content)]
    for job, key in zip(content["jobs"], keys, strict=True):
        record = {name: value for name, value in job.items() if name != "seal"}
        if key != job["key"] and keyed:
            yield (
                "board.json",
                f"jobs/{job['key']}",
                f"its settings, protocol or fingerprint give the key {key}",
            )
        elif seal(record) != job["seal"]:
            yield "board.json", f"jobs/{job['key']}", "was changed: its seal does not match"


def _sections_changed(content: Content) -> Iterator[str]:
    """The parts of ``board.json`` whose seals do not match, by name."""
    seals = content.get("seals", {})
    for name, section in content.items():
        if name == "jobs":
            matches = seal([job["seal"] for job in section]) == seals.get(name)
        else:
            matches = name == "seals" or seal(section) == seals.get(name)
        if not matches:
            yield name


def _sections(content: Content, expected: Content) -> Iterator[Found]:
    """The parts of ``board.json`` that follow from others, and the recorded hashes of the tables."""
    for name in expected:
        if name in ("jobs", "seals"):
            continue
        for where, have, want in leaves(content.get(name), expected[name], name):
            if not where.startswith(("files/scores/", "files/losses/")):
                yield "board.json", where, f"is {have!r}, recomputed {want!r}"
    for name in content:
        if name not in expected:
            yield "board.json", name, "should not be there"

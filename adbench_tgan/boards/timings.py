"""A timing board against itself: table and page against ``timing.json``, its numbers against the samples there."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

from adbench_tgan.boards.differences import Found, cells, page
from adbench_tgan.boards.schemas import Table
from adbench_tgan.boards.verify import MISREAD, OTHER_BYTES, Finding, findings, folders_with
from adbench_tgan.cost.timing_board import (
    COLUMNS,
    Board,
    Record,
    derived,
    files_of,
    fingerprint,
    parse,
    seal_of,
)
from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import one_line
from adbench_tgan.store.places import read_bounded
from adbench_tgan.store.stored import LARGEST

MARKS = ("timing.json", "timing.csv")  # either makes a folder a timing board
WORDS = (
    "detector preset pretrained precision weights device machine detector_version key adbench_version error"
)
TIMING = Table(
    file="timing.csv",
    columns=tuple(COLUMNS),
    words=tuple(WORDS.split()),
    whole=("image_size", "channels", "samples", "max_batch", "best_batch", "parameters"),
    identity=("detector", "preset", "precision", "key"),
)
ROUNDED = 1e-6  # of samples that are kept


def find_timings(path: Path) -> list[Path]:
    """`path` if it is a timing board, and those in it."""
    return folders_with(MARKS, path)


def verify_timing(path: Path) -> list[Finding]:
    """All that does not match in one timing board."""
    found: list[Found] = []
    try:
        found.extend(_all(path))
    except OSError as error:
        found.append(("timing.json", "", f"cannot be read: {error.strerror or error}"))
    except (AdbenchError, *MISREAD) as error:
        found.append(("timing.json", "", f"cannot be understood: {one_line(error)}"))
    return findings(path, found)


def _all(path: Path) -> Iterator[Found]:
    data = read_bounded(path / "timing.json", LARGEST)
    board = parse(data)
    changed = [_name(record) for record in board.records if record.get("seal") != seal_of(record)]
    yield from (("timing.json", name, "was changed: its seal does not match") for name in changed)
    files = {name: text.encode() for name, text in files_of(board).items()}
    if data != files["timing.json"] and not changed:
        yield "timing.json", "", OTHER_BYTES
    yield from _measured(board)
    for name in files:
        if not (path / name).is_file():
            yield name, "", "is missing"
    yield from cells(path, TIMING, files["timing.csv"])
    yield from page(path, files["README.md"])


def _measured(board: Board) -> Iterator[Found]:
    """Numbers of ``timing.json`` that do not follow from its samples, and rows of other machines."""
    if board.machine != fingerprint(board.facts):
        yield "timing.json", "machine", "is not the fingerprint of its facts"
    for record in board.records:
        wanted = {"machine": board.machine, "max_batch": record["effort"]["max_batch"]}
        wanted |= {} if record["error"] else derived(record)
        for column, value in wanted.items():
            if not _same(record[column], value):
                yield (
                    "timing.json",
                    f"{_name(record)}, {column}",
                    f"is {record[column]!r}, recomputed {value!r}",
                )


def _name(record: Record) -> str:
    return " ".join(record[part] for part in TIMING.identity)


def _same(have: Any, want: Any) -> bool:
    if isinstance(have, float) and isinstance(want, float):
        return isclose(have, want, rel_tol=0, abs_tol=ROUNDED)
    return bool(have == want)

"""Where a published table, page or document is not as recomputed: by row and column, by line, by place."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from adbench_tgan.boards.cells import rows
from adbench_tgan.boards.folder import bytes_of
from adbench_tgan.boards.schemas import Table

Content = Mapping[str, Any]
Found = tuple[str, str, str]  # file, where, problem


def cells(path: Path, table: Table, expected: bytes) -> Iterator[Found]:
    """The cells of a table that are not as recomputed."""
    if not (path / table.file).is_file():
        return
    data = bytes_of(path / table.file)
    if data == expected:
        return
    try:
        header, lines = rows(data.decode())
    except (UnicodeDecodeError, csv.Error) as error:
        yield table.file, "", f"cannot be read: {error}"
        return
    wanted_header, wanted = rows(expected.decode())
    if header != wanted_header:
        yield table.file, "header", _column(header, wanted_header)
        return
    found = list(_differences(table, lines, wanted))
    yield from found
    if not found:
        yield table.file, "", "holds the right cells, but other bytes or another order than were published"


def _column(have: Sequence[str], want: Sequence[str]) -> str:
    """The first column that is not the one it should be, in words."""
    pairs = enumerate(zip_longest(have, want), 1)
    number, names = next(each for each in pairs if each[1][0] != each[1][1])
    found, wanted = ("missing" if name is None else f"{name!r:.80}" for name in names)
    return f"column {number} is {found}, should be {wanted}"


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
    """Rows by what tells them apart, and those that lack it by their line; equal ones are numbered."""
    found: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines, 2):  # after the header
        name = " ".join(line.get(column, "") for column in table.identity)
        if not name.strip():
            name = f"line {number}"
        elif table.file == "results.csv":
            name = f"{name} ({line.get('detector')}, {line.get('category')}, seed {line.get('seed')})"
        while name in found:
            name += "'"
        found[name] = line
    return found


def page(path: Path, expected: bytes, problem: str = "does not match the tables") -> Iterator[Found]:
    """The first line of ``README.md`` that is not as it is made from the tables."""
    if not (path / "README.md").is_file() or (data := bytes_of(path / "README.md")) == expected:
        return
    have = data.decode(errors="replace").splitlines(keepends=True)
    want = expected.decode().splitlines(keepends=True)
    at = next(
        (i for i, pair in enumerate(zip(have, want, strict=False)) if pair[0] != pair[1]),
        min(len(have), len(want)),
    )
    yield "README.md", f"line {at + 1}", problem


def leaves(have: Any, want: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """The innermost places in which two documents differ."""
    if isinstance(have, Mapping) and isinstance(want, Mapping):
        for name in dict.fromkeys([*want, *have]):
            yield from leaves(have.get(name), want.get(name), f"{where}/{name}")
    elif isinstance(have, list) and isinstance(want, list) and len(have) == len(want):
        for number, pair in enumerate(zip(have, want, strict=True)):
            yield from leaves(*pair, f"{where}/{number}")
    elif have != want:
        yield where, have, want

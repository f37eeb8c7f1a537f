"""Strangers' text, such as a folder's name, made safe for a terminal line and a cell of a CSV file; and counts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would compute
MARK = "'"  # stands before such a cell, and before one that begins with it


def plain(text: str) -> str:
    """`text` on one line and printable: what moves a cursor, rings or turns text around shows as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unbroken(text: str) -> str:
    """`text` with a space for each line break, and printable."""
    return plain(" ".join(text.splitlines()))


def counted(count: int, one: str, many: str) -> str:
    """A number and what it counts: `one` such thing, or `many`."""
    return f"{count} {one if count == 1 else many}"


def cell(value: Any) -> Any:
    """A value for a CSV file: a text that a spreadsheet would take for a formula gets a ``'`` before it."""
    if not isinstance(value, str):
        return value
    return marked(plain(value))


def marked(text: str) -> str:
    """`text`, with a ``'`` before it if a spreadsheet could take it for a formula, or if it has one already."""
    return f"{MARK}{text}" if text.startswith((*FORMULA, MARK)) else text


def unmarked(text: str) -> str:
    """Undo `marked`."""
    return text.removeprefix(MARK)


def csv_of(frame: pd.DataFrame) -> str:
    """A table as the text of a CSV file, in which every text is a text."""
    safe = frame.rename(columns=cell)
    for name in safe.columns:
        if safe[name].dtype == object or str(safe[name].dtype) in ("str", "string"):
            safe[name] = safe[name].map(cell)
    return str(safe.to_csv(index=False))

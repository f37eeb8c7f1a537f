"""Strangers' text, such as a folder's name, made safe for a terminal line and for a cell of a CSV file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "'",
)  # how a cell begins that a spreadsheet would compute, or that we have marked


def plain(text: str) -> str:
    """`text` on one line and printable: what moves a cursor, rings or turns text around shows as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cell(value: Any) -> Any:
    """A value for a CSV file: a text that a spreadsheet would take for a formula gets a ``'`` before it."""
    if not isinstance(value, str):
        return value
    shown = plain(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def csv_of(frame: pd.DataFrame) -> str:
    """A table as the text of a CSV file, in which every text is a text."""
    safe = frame.rename(columns=cell)
    for name in safe.columns:
        if safe[name].dtype == object or str(safe[name].dtype) in ("str", "string"):
            safe[name] = safe[name].map(cell)
    return str(safe.to_csv(index=False))

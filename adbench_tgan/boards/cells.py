"""Tables as CSV text, the same bytes on every machine: six digits, and cells that are printable and no formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pandas as pd

from adbench_tgan.text import cell, unmarked

BEYOND = "beyond the last column"


def to_csv(frame: pd.DataFrame, words: Sequence[str]) -> str:
    """A `typed` table whose columns `words` hold text, and the others numbers. Absent is empty."""
    table = frame.assign(**{name: frame[name].map(cell) for name in words})
    return str(table.rename(columns=cell).to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def from_csv(text: str, words: Sequence[str], whole: Sequence[str]) -> pd.DataFrame:
    """Read what `to_csv` wrote; the columns `whole` hold whole numbers.

    Raises:
        ValueError: a number cannot be read.
    """
    table = pd.read_csv(io.StringIO(text, newline=""), dtype=str, keep_default_na=False)
    table = table.rename(columns=unmarked)
    for name in table.columns.intersection(list(words)):
        table[name] = table[name].map(unmarked)
    return typed(table, words, whole)


def typed(frame: pd.DataFrame, words: Sequence[str], whole: Sequence[str]) -> pd.DataFrame:
    """The same table with one type a column: text, where absent is empty, whole numbers, and other numbers."""
    table = frame.copy()
    for name in table.columns:
        if name in words:
            texts = ["" if pd.isna(text) else str(text) for text in table[name]]
            table[name] = pd.Series(texts, index=table.index, dtype=str)
        else:
            table[name] = pd.to_numeric(table[name]).astype("Int64" if name in whole else "float64")
    return table


def rows(text: str) -> tuple[list[str], list[dict[str, str]]]:
    """Header and lines of a CSV as plain text, for comparing them cell by cell; what a line has `BEYOND` its columns."""
    lines = list(csv.reader(io.StringIO(text, newline="")))
    header = lines[0] if lines else []
    last = len(header)
    return header, [
        {**dict(zip(header, line, strict=False)), BEYOND: ",".join(line[last:])} for line in lines[1:]
    ]

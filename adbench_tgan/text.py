"""Strangers' text, such as a folder's name, made safe for a terminal line and a cell of a CSV file; numbers and counts as text."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would compute
# What Unicode lets a font show as nothing (Default_Ignorable_Code_Point) though Python prints it, and the empty braille cell.
UNSEEN = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
DIGITS = 12  # beyond them an AUROC's are rounding, which differs between machines
OF_IMAGES = "images: "  # begins a note on what a job's images are
MARK = "'"  # stands before such a cell, and before one that begins with it


def plain(text: str) -> str:
    """`text` on one line and to be seen: what moves a cursor, rings, turns text around or is invisible shows as its escape."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(c) for c in text)
    return UNSEEN.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def unbroken(text: str) -> str:
    """`text` with a space for each line break, and printable."""
    return plain(" ".join(text.splitlines()))


def composed(name: str) -> str:
    """A name in Unicode's form NFC: the same text for a file that went through a Mac, which may take letters apart."""
    return unicodedata.normalize("NFC", name)


def counted(count: int, one: str, many: str) -> str:
    """A number and what it counts: `one` such thing, or `many`."""
    return f"{count:,} {one if count == 1 else many}"


def in_digits(value: Any, form: str = ".3f") -> str:
    """A number of a table in a format, of ``d`` as a whole one; nothing where there is none. A tie is rounded alike everywhere."""
    import pandas as pd

    if pd.isna(value):
        return ""
    return format(int(value) if form.endswith("d") else round(float(value), DIGITS), form)


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

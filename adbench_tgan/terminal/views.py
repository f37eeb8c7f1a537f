"""Tables for people to read on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from math import ceil, isnan, log10
from numbers import Real
from typing import TYPE_CHECKING, Any

from rich.markup import escape as escape_markup
from rich.table import Table

from adbench_tgan.text import in_digits, plain

if TYPE_CHECKING:
    import pandas as pd

    Cell = Callable[[pd.Series], str]

WORDS = ("detector", "preset", "pretrained")  # columns of text; the others hold numbers
ONE_SEED = "one seed: intervals and ranks omit variation between trainings"
LONGEST = 40  # characters of a name that is not folded
MOST_DECIMALS = 8  # of a number in a table


def leaderboard_views(board: pd.DataFrame, title: str, where: str = "this device") -> list[Table]:
    """The leaderboard as tables that a terminal of 80 columns can hold: how good, how good on pixels, at what cost.

    Each kind of supervision has a table of its own, since ranks start anew. A detector with a remark has a star, and
    its remark stands below the table, as does that one seed says nothing of luck where one is ranked by it. `where` the
    costs were measured is told.
    """
    views = []
    for kind in board["supervision"].unique():
        part = board[board["supervision"] == kind]
        views.append(_lines(part, _quality(), f"{title}, {kind}"))
        views[-1].caption = _remarks(part)
        views[-1].caption_justify = "left"
    name: list[tuple[str, Cell]] = [("detector", lambda line: escape(line["detector"]))]
    if board["detector"].duplicated().any():
        name.append(("preset", lambda line: escape(line["preset"])))
    if board["pixel_auroc_mean"].notna().any():
        views.append(_lines(board, name + _pixels(), f"{title}, anomaly maps"))
    if board["fit_seconds"].notna().any():
        views.append(_lines(board, name + _cost(board), f"cost, on {where}"))
    return views


def _quality() -> list[tuple[str, Cell]]:
    return [
        ("rank", lambda line: in_digits(line["rank"], "d")),
        ("detector", lambda line: escape(line["detector"]) + (" *" if line["remark"] else "")),
        ("preset", lambda line: escape(line["preset"])),
        ("AUROC", lambda line: in_digits(line["auroc_mean"])),
        ("95 % CI", _interval),
        ("AP", lambda line: in_digits(line["average_precision_mean"])),
        ("jobs", _jobs),
    ]


def _pixels() -> list[tuple[str, Cell]]:
    return [
        ("pixel AUROC", lambda line: in_digits(line["pixel_auroc_mean"])),
        ("AUPRO", lambda line: in_digits(line["aupro_mean"])),
    ]


def _cost(board: pd.DataFrame) -> list[tuple[str, Cell]]:
    weights: list[tuple[str, Cell]] = [
        ("pretrained", lambda line: "no" if line["pretrained"] == "False" else escape(line["pretrained"]))
    ]
    return (weights if (board["pretrained"] != "False").any() else []) + [
        ("parameters", lambda line: in_digits(line["parameters"], ",d")),
        ("fit s", lambda line: in_digits(line["fit_seconds"], ".2f")),
        ("ms/image", lambda line: in_digits(line["latency_ms_p50"], ".2f")),
        ("images per s", lambda line: in_digits(line["images_per_second"], ",.0f")),
        ("peak MiB", lambda line: in_digits(line["peak_memory_mb"], ",.0f")),
    ]


def _remarks(board: pd.DataFrame) -> str | None:
    """Each remark once, and whose it is; and what a rank of one seed leaves out."""
    remarks: dict[str, dict[str, None]] = {}
    for _, line in board.iterrows():
        if line["remark"]:
            remarks.setdefault(line["remark"], {})[line["detector"]] = None
    lines = [escape(f"* {', '.join(whose)}: {text}") for text, whose in remarks.items()]
    if (board["rank"].notna() & (board["n_seeds"] == 1)).any():
        lines.append(ONE_SEED)
    return "\n".join(lines) or None


def _lines(board: pd.DataFrame, columns: Sequence[tuple[str, Cell]], title: str) -> Table:
    """A line a detector."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    filled = []
    for name, cell in columns:
        filled.append([cell(line) for _, line in board.iterrows()])
        _add_column(table, name, filled[-1], number=name not in WORDS, whole=name == "detector")
    for line in zip(*filled, strict=True):
        table.add_row(*line)
    return table


def _add_column(table: Table, heading: str, cells: Sequence[str], *, number: bool, whole: bool) -> None:
    """Numbers stand to the right, below headings that are folded; they and what is `whole` are not."""
    longest = max(map(len, cells), default=0)
    if number:
        heading = textwrap.fill(heading, max(longest, *map(len, heading.split())))
    least = max(longest, *map(len, heading.splitlines()), 0) if number or whole else None
    table.add_column(
        escape_markup(heading),
        justify="right" if number else "left",
        overflow="fold",
        no_wrap=number or whole,
        min_width=least,
    )


def records_view(
    records: Sequence[Mapping[str, Any]], title: str, width: int = 0, spare: Sequence[str] = ()
) -> Table:
    """Any list of records as a table; the keys of the first are the columns, and empty columns are left out.

    While it is too wide for `width`, columns named in `spare` are left out too, and a line below names them.
    """
    names = [name for name in (records[0] if records else ()) if any(_filled(one[name]) for one in records)]
    table = _records(records, names, title)
    gone: list[str] = []
    for name in spare:
        if name in names and least_width(table) > width:
            names.remove(name)
            gone.append(_heading(name))
            table = _records(records, names, title)
    if gone:
        table.caption, table.caption_justify = f"not shown for lack of width: {', '.join(gone)}", "left"
    return table


def _records(records: Sequence[Mapping[str, Any]], names: Sequence[str], title: str) -> Table:
    """Numbers have as many decimals in all of a column."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    filled = []
    for name in names:
        values = [record[name] for record in records]
        number = all(_is_number(value) or not _filled(value) for value in values)
        filled.append(_numbers(values) if number else [escape(text_of(value)) for value in values])
        whole = name in (names[0], "category") and max(map(len, filled[-1])) <= LONGEST
        _add_column(table, _heading(name), filled[-1], number=number, whole=whole)
    for line in zip(*filled, strict=True):
        table.add_row(*line)
    return table


def least_width(view: Table) -> int:
    """The width that a table takes whose words and numbers are whole."""
    from rich.console import Console
    from rich.measure import Measurement

    endless = Console(width=10_000)
    return Measurement.get(endless, endless.options, view).minimum


def _heading(name: str) -> str:
    return plain(name if ":" in name else name.replace("_", " "))  # detector:preset is a name to be copied


def _filled(value: Any) -> bool:
    return not (value is None or value == "" or (isinstance(value, float) and isnan(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _numbers(values: Sequence[Any]) -> list[str]:
    """Four digits of the largest, and two of the smallest unless it takes more than three decimals.

    Where that takes more than `MOST_DECIMALS`, each has four digits and a power of ten.
    """
    if all(isinstance(value, int) or not _filled(value) for value in values):
        return [f"{value:,d}" if _filled(value) else "" for value in values]
    sizes = [abs(value) for value in values if _filled(value) and value] or [1]
    largest, smallest = (ceil(log10(size)) for size in (max(sizes), min(sizes)))
    decimals = max(0, 4 - largest, min(3, 2 - smallest))
    form = f",.{decimals}f" if decimals <= MOST_DECIMALS else ".3e"
    return [format(value, form) if _filled(value) else "" for value in values]


def escape(text: str) -> str:
    """Text that neither rich nor a terminal takes for a command."""
    return escape_markup(plain(text))


def text_of(value: Any) -> str:
    """A value for a table of different things."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text}" for key, text in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _interval(line: pd.Series) -> str:
    low, high = (in_digits(line[name]) for name in ("auroc_ci_low", "auroc_ci_high"))
    return f"{low.removeprefix('0')}-{high.removeprefix('0')}" if low else ""


def _jobs(line: pd.Series) -> str:
    shown = f"{line['n_categories']}x{line['n_seeds']}"
    return f"{shown}, {line['n_failed']} failed" if line["n_failed"] else shown

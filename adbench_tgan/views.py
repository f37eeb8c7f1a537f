"""Tables for people to read on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape as escape_markup
from rich.table import Table

from adbench_tgan.text import plain

if TYPE_CHECKING:
    import pandas as pd

    Cell = Callable[[pd.Series], str]

WORDS = ("detector", "supervision", "preset", "pretrained")  # columns of text; the others hold numbers


def leaderboard_views(board: pd.DataFrame, title: str) -> list[Table]:
    """The leaderboard as two tables, each narrow enough for a terminal: how good, and at what cost.

    A detector with a remark has a star, and its remark stands below the first table.
    """
    quality: list[tuple[str, Cell]] = [
        ("rank", lambda line: _number(line["rank"], "{:d}")),
        ("detector", lambda line: escape(line["detector"]) + (" *" if line["remark"] else "")),
        ("supervision", lambda line: escape(line["supervision"])),
        ("preset", lambda line: escape(line["preset"])),
        ("AUROC", lambda line: _number(line["auroc_mean"], "{:.3f}")),
        ("95 % CI", _interval),
        ("AP", lambda line: _number(line["average_precision_mean"], "{:.3f}")),
    ]
    if board["pixel_auroc_mean"].notna().any():
        quality.append(("pixel AUROC", lambda line: _number(line["pixel_auroc_mean"], "{:.3f}")))
        quality.append(("AUPRO", lambda line: _number(line["aupro_mean"], "{:.3f}")))
    quality.append(("jobs", _jobs))
    cost: list[tuple[str, Cell]] = [
        ("detector", lambda line: escape(line["detector"])),
        ("pretrained", lambda line: "no" if line["pretrained"] == "False" else escape(line["pretrained"])),
        ("parameters", lambda line: _number(line["parameters"], "{:,d}")),
        ("fit s", lambda line: _number(line["fit_seconds"], "{:.2f}")),
        ("ms/image", lambda line: _number(line["latency_ms_p50"], "{:.2f}")),
        ("images/s", lambda line: _number(line["images_per_second"], "{:,.0f}")),
        ("peak MB", lambda line: _number(line["peak_memory_mb"], "{:,.0f}")),
    ]
    if board["detector"].duplicated().any():
        cost.insert(1, ("preset", lambda line: escape(line["preset"])))
    views = [_blocks(board, quality, title)]
    remarks: dict[str, dict[str, None]] = {}  # and whose they are, each once
    for _, line in board.iterrows():
        if line["remark"]:
            remarks.setdefault(line["remark"], {})[line["detector"]] = None
    views[0].caption = (
        "\n".join(escape(f"* {', '.join(whose)}: {text}") for text, whose in remarks.items()) or None
    )
    views[0].caption_justify = "left"
    if board["fit_seconds"].notna().any():
        views.append(_blocks(board, cost, "cost, on this device"))
    return views


def _blocks(board: pd.DataFrame, columns: Sequence[tuple[str, Cell]], title: str) -> Table:
    """A line a detector; a rule between kinds of supervision, where ranks start anew."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for name, _ in columns:
        if name in WORDS:
            table.add_column(name, overflow="fold", no_wrap=name == "detector")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for kind in board["supervision"].unique():
        for _, line in board[board["supervision"] == kind].iterrows():
            table.add_row(*(cell(line) for _, cell in columns))
        table.add_section()
    return table


def records_view(records: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Any list of records as a table; the keys of the first are the columns."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for name in records[0] if records else ():
        heading = name if ":" in name else name.replace("_", " ")  # detector:preset is a name to be copied
        table.add_column(escape(heading), overflow="fold")
    for record in records:
        table.add_row(*(escape(_text(value)) for value in record.values()))
    return table


def escape(text: str) -> str:
    """Text that neither rich nor a terminal takes for a command."""
    return escape_markup(plain(text))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text}" for key, text in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: Any, form: str) -> str:
    import pandas as pd

    return "" if pd.isna(value) else form.format(int(value) if "d" in form else float(value))


def _interval(line: pd.Series) -> str:
    low, high = (_number(line[name], "{:.3f}") for name in ("auroc_ci_low", "auroc_ci_high"))
    return f"{low.removeprefix('0')}-{high.removeprefix('0')}" if low else ""


def _jobs(line: pd.Series) -> str:
    shown = f"{line['n_categories']}x{line['n_seeds']}"
    return f"{shown}, {line['n_failed']} failed" if line["n_failed"] else shown

"""The picture of a leaderboard: each row's AUROC with its 95 % interval, in the order of the table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import pandas as pd

from adbench_tgan.boards.board import Board
from adbench_tgan.leaderboard import ENTRY, entry_names
from adbench_tgan.text import in_digits, plain

LINE = 0.22  # inches of a row
FRAME = 1.3  # inches above and below all rows
MOST = 200  # rows that are drawn; of more nobody would see anything
CHANCE = 0.5
SCRATCH, PRETRAINED = "#0072B2", "#D55E00"  # everyone can tell them apart


def is_drawn(board: Board) -> bool:
    """Whether rows have an AUROC, and they are not too many."""
    return 0 < board.leaderboard["auroc_mean"].notna().sum() <= MOST


def figure(board: Board) -> Any:
    """A matplotlib figure."""
    from matplotlib.figure import Figure

    rows = board.leaderboard[board.leaderboard["auroc_mean"].notna()]
    places = _places(list(rows["supervision"]))
    drawing = Figure(figsize=(8, FRAME + LINE * places[-1]), layout="constrained")
    axes = drawing.subplots()
    axes.set_title(f"{board.facts.name}: AUROC with its 95 % interval", parse_math=False)
    axes.axvline(CHANCE, color="gray", linestyle=":", zorder=0)
    axes.grid(axis="x", color="#e0e0e0")
    for place, (_, row) in zip(places, rows.iterrows(), strict=True):
        _bar(axes, place, row)
    axes.set_ylim(places[-1] + 0.7, -0.7)
    names = map(plain, entry_names(rows[ENTRY].to_numpy().tolist()))
    axes.set_yticks(places, list(names), parse_math=False)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, [in_digits(mean) for mean in rows["auroc_mean"]])
    for side in (axes, right):
        side.tick_params(axis="y", length=0, labelsize="small")
        side.spines[:].set_visible(False)
    drawing.legend(handles=_key(rows), loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    return drawing


def _places(kinds: Sequence[str]) -> list[int]:
    """Where each row stands, from above: a line below the other, and a line between kinds of supervision."""
    gaps = accumulate(kind != before for before, kind in pairwise([kinds[0], *kinds]))
    return [line + gap for line, gap in enumerate(gaps)]


def _bar(axes: Any, place: int, row: Any) -> None:
    colour = SCRATCH if row["pretrained"] == "False" else PRETRAINED
    axes.hlines(place, row["auroc_ci_low"], row["auroc_ci_high"], color=colour, linewidth=3, alpha=0.5)
    marker = "o" if row["supervision"] == "one-class" else "D"
    inside = "white" if pd.isna(row["rank"]) else colour
    axes.plot(row["auroc_mean"], place, marker, color=colour, markerfacecolor=inside)


def _key(rows: pd.DataFrame) -> list[Any]:
    """What colours and shapes mean, of those that there are."""
    from matplotlib.lines import Line2D

    pretrained, labelled = rows["pretrained"] != "False", rows["supervision"] != "one-class"
    meanings = [
        ("no pretrained weights", ~pretrained, "o", SCRATCH, SCRATCH),
        ("pretrained weights", pretrained, "o", PRETRAINED, PRETRAINED),
        ("labelled anomalies", labelled, "D", "gray", "gray"),
        ("not ranked", rows["rank"].isna(), "o", "gray", "white"),
    ]
    return [
        Line2D([], [], linestyle="", label=name, marker=marker, color=colour, markerfacecolor=inside)
        for name, there, marker, colour, inside in meanings
        if there.any()
    ]

"""The critical-difference diagram: mean ranks over categories; a bar joins what Holm's tests cannot tell apart."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

from adbench_tgan.boards.board import Board
from adbench_tgan.leaderboard import ENTRY, Standing, entry_names
from adbench_tgan.text import plain

HEIGHT = 3.0  # inches of a diagram, or ...
ROOM = 0.25  # ... so many a detector, if that is more: a line for half its name, and one for a bar


def is_drawn(board: Board) -> bool:
    """Whether there is a diagram to draw: three detectors of one kind, ranked, on two categories or more."""
    return bool(_kinds(board))


def figure(board: Board) -> Any:
    """A matplotlib figure, with a panel for each kind of supervision."""
    from matplotlib.figure import Figure

    kinds = _kinds(board)
    heights = [max(HEIGHT, ROOM * len(_ranked(board, kind))) for kind in kinds]
    drawing = Figure(figsize=(8, sum(heights)), layout="constrained")
    panels = drawing.subplots(len(kinds), squeeze=False, height_ratios=heights)[:, 0]
    for kind, axes in zip(kinds, panels, strict=True):
        _diagram(board, kind, axes)
        floor = board.pairs.loc[board.pairs["supervision"] == kind, "holm_floor"].iloc[0]
        bars = f"a bar joins those with Holm's p of 0.05 or more; the smallest that it can be here is {floor:.2g}"
        axes.set_title(f"{board.facts.name}, {kind}: mean rank, 1 = best", parse_math=False)
        axes.text(0.5, 0, bars, transform=axes.transAxes, ha="center", va="top", fontsize="small")
    return drawing


def _kinds(board: Board) -> list[str]:
    """The kinds of supervision with enough pairs."""
    by_kind = board.pairs.groupby("supervision", sort=False)["n_categories"].agg(["size", "min"])
    return [str(kind) for kind in by_kind.index[(by_kind["size"] >= 3) & (by_kind["min"] >= 2)]]


def _ranked(board: Board, kind: str) -> list[Standing]:
    return [each for each in board.standings if each.ranked and each.line["supervision"] == kind]


def _diagram(board: Board, kind: str, axes: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that it imports
        from scikit_posthocs import critical_difference_diagram

    block = _ranked(board, kind)
    number = {" ".join(each.name): n for n, each in enumerate(block)}
    aurocs = pd.DataFrame([each.aurocs for each in block])
    p_values = pd.DataFrame(1.0, index=aurocs.index, columns=aurocs.index)
    of_kind = board.pairs[board.pairs["supervision"] == kind]
    for _, line in of_kind.iterrows():
        a, b = (number[f"{line[f'detector_{side}']} {line[f'preset_{side}']}"] for side in "ab")
        p_values.loc[a, b] = p_values.loc[b, a] = line["holm_p"]
    # By number: the library draws bars in the order of a set, which for texts is another in every process.
    names = entry_names([[each.line[fact] for fact in ENTRY] for each in block])
    critical_difference_diagram(
        aurocs.rank(ascending=False).mean(axis=1),
        p_values,
        ax=axes,
        label_fmt_left="{label}|{rank:.1f}",
        label_fmt_right="{label}|{rank:.1f}",
    )
    for text in axes.texts:
        label, _, rank = text.get_text().partition("|")
        text.set_text(f"{plain(names[int(label)])} ({rank})")

"""The tables of a page, as plain texts with the values they are sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from adbench_tgan.report.material import Material
from adbench_tgan.text import in_digits


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the leaderboard as it is shown; one that is empty in all rows is left out."""

    name: str
    title: str
    form: str = "{}"  # how its numbers are written
    numeric: bool = True
    low_is_good: bool = False
    help: str = ""

    @property
    def first(self) -> str:
        """How the first press of its heading sorts: the best at the top."""
        return "descending" if self.numeric and not self.low_is_good else "ascending"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is shown, and by what it is sorted; empty where nothing was measured."""

    text: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the leaderboard with what it can be filtered by."""

    entry: str
    supervision: str
    pretrained: str
    preset: str
    remark: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Heat:
    """One cell of the heat table; `strength` from 0 to 1 says how far the AUROC is from chance."""

    text: str
    value: str  # as of a `Cell`
    strength: float
    below_chance: bool


# The order in which a leaderboard stands: the first of these that holds for its rows.
INITIAL = {"rank": "ascending", "auroc_mean": "descending", "supervision": "descending"}
NOT_RANKED = "not ranked: "  # so begins a remark of why there is no rank
COLUMNS = (
    Column(
        name="rank",
        title="rank",
        form="{:.0f}",
        low_is_good=True,
        help="within its kind of supervision; shared in a tie group",
    ),
    Column(name="entry", title="detector", numeric=False),
    Column(name="auroc_mean", title="AUROC", form="{:.3f}", help="mean over seeds, then over categories"),
    Column(
        name="interval",
        title="95 % interval",
        help="over test images, by bootstrap, and over seeds, by Student's t",
    ),
    Column(
        name="auroc_seed_std",
        title="± seeds",
        form="{:.3f}",
        low_is_good=True,
        help="standard deviation over seeds",
    ),
    Column(name="supervision", title="supervision", numeric=False),
    Column(name="pretrained", title="pretrained", numeric=False),
    Column(name="preset", title="preset", numeric=False),
    Column(name="average_precision_mean", title="AP", form="{:.3f}", help="average precision"),
    Column(name="pixel_auroc_mean", title="pixel AUROC", form="{:.3f}"),
    Column(name="aupro_mean", title="AUPRO", form="{:.3f}"),
    Column(name="n_categories", title="categories", form="{:.0f}", help="with a result"),
    Column(name="n_seeds", title="seeds", form="{:.0f}"),
    Column(name="n_failed", title="failed", form="{:.0f}", help="jobs that ended in an error"),
    Column(name="fit_seconds", title="fit s", form="{:,.1f}", low_is_good=True, help="median over jobs"),
    Column(
        name="latency_ms_p50",
        title="ms / image",
        form="{:,.2f}",
        low_is_good=True,
        help="median, one image at a time",
    ),
    Column(name="images_per_second", title="images / s", form="{:,.0f}"),
    Column(name="peak_memory_mb", title="peak MiB", form="{:,.0f}", low_is_good=True),
    Column(name="parameters", title="parameters", form="{:,.0f}"),
    Column(
        name="published_auroc",
        title="published",
        form="{:.3f}",
        help="what the paper prints under this protocol",
    ),
    Column(
        name="as_published_auroc", title="as published", form="{:.3f}", help="under the authors' evaluation"
    ),
)


def leaderboard_columns(board: pd.DataFrame) -> list[Column]:
    """The columns in which some row has something to show."""
    return [column for column in COLUMNS if column.name == "interval" or _present(board[column.name]).any()]


def _present(column: pd.Series) -> pd.Series:
    return column.notna() & (column.astype(str) != "")


def leaderboard_rows(board: pd.DataFrame, columns: Sequence[Column]) -> list[Row]:
    """The leaderboard's rows in its own order."""
    return [
        Row(
            entry=line["entry"],
            supervision=line["supervision"],
            pretrained=_word(line["pretrained"]),
            preset=line["preset"],
            remark=line["remark"],
            cells=tuple(_cell(line, column) for column in columns),
        )
        for _, line in board.iterrows()
    ]


def _cell(line: pd.Series, column: Column) -> Cell:
    if column.name == "interval":
        return _interval(line)
    value = line[column.name]
    if pd.isna(value) or value == "":
        return Cell(text="", value="")
    if not column.numeric:
        text = _word(value) if column.name == "pretrained" else str(value)
        return Cell(text=text, value=text.lower())
    return Cell(text=column.form.format(float(value)), value=repr(float(value)))


def _interval(line: pd.Series) -> Cell:
    low, high = line["auroc_ci_low"], line["auroc_ci_high"]
    if pd.isna(low):
        return Cell(text="", value="")
    return Cell(text=f"{low:.3f} to {high:.3f}", value=repr(float(low)))


def _word(pretrained: Any) -> str:
    return "no" if str(pretrained) == "False" else str(pretrained)


def initial_order(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, str]:
    """By name the column by which the rows stand in order before a heading is pressed, if there is one, and which order."""
    for index, column in enumerate(columns):
        order = INITIAL.get(column.name)
        values = [row.cells[index].value for row in rows]
        keys: list[Any] = [float(value) if column.numeric else value for value in values if value]
        last = "" not in values[: len(keys)]  # what was not measured
        if order and last and len(set(keys)) > 1 and keys == sorted(keys, reverse=order == "descending"):
            return {column.name: order}
    return {}


def sources(board: pd.DataFrame) -> dict[str, str]:
    """By entry where its published number stands, or what was published that does not compare."""
    there = board[_present(board["published_source"])]
    return dict(zip(there["entry"], there["published_source"], strict=True))


def remarks(rows: Sequence[Row]) -> dict[str, str]:
    """What is to be said of rows, each remark once, by the entries it is of."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.remark:
            found.setdefault(row.remark, []).append(row.entry)
    return {", ".join(entries): remark for remark, entries in found.items()}


def unranked(board: pd.DataFrame) -> str:
    """How many rows have no rank, and why; empty if every row has one."""
    without = board[board["rank"].isna()]
    if without.empty:
        return ""
    reasons = sorted({remark.removeprefix(NOT_RANKED).split("; ")[0] for remark in without["remark"]})
    why = reasons[0] if len(reasons) == 1 else "see their remarks"
    return f"{len(without)} of {len(board)} rows have no rank: {why}."


def without_shared_reason(board: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard without what keeps every row of it from a rank, which `unranked` says for all of them."""
    first = {str(remark).partition("; ")[0] for remark in board["remark"]}
    if len(first) != 1 or not first.pop().startswith(NOT_RANKED):
        return board
    return board.assign(remark=[remark.partition("; ")[2] for remark in board["remark"]])


def heat_table(material: Material) -> dict[str, list[Heat]]:
    """AUROC by entry and category, the mean over seeds."""
    good = material.results[material.results["status"] == "ok"]
    means = good.groupby(["entry", "category"])["auroc"].mean()
    return {
        entry: [_heat(means.get((entry, category))) for category in material.categories]
        for entry in material.entries
    }


def _heat(auroc: float | None) -> Heat:
    if auroc is None or pd.isna(auroc):
        return Heat(text="", value="", strength=0, below_chance=False)
    strength = round(abs(auroc - 0.5) * 2, 3)
    return Heat(text=in_digits(auroc), value=repr(float(auroc)), strength=strength, below_chance=auroc < 0.5)


def audit_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The last epoch of each audit's curves, and what is between the clean number and the published way."""
    return [
        {
            "audit": record["audit"],
            "epochs": str(len(record["clean"])),
            "clean": in_digits(record["clean"][-1]),
            "+ batch statistics": in_digits(record["batch_statistics"][-1]),
            "+ sorted by class": in_digits(record["class_sorted"][-1]),
            "+ best epoch": in_digits(max(record["class_sorted"])),
            "optimism": in_digits(max(record["class_sorted"]) - record["clean"][-1], "+.3f"),
        }
        for record in records
    ]

"""The charts, as Vega-Lite specifications made with Altair.

Two parameters reach every chart from the page: `shown`, the entries that its filters leave, and where one is drawn
of many, `category` or `entry`. Colours are those of Okabe and Ito without black and yellow, which one of a light
and a dark background hides; with more entries than colours, dashes tell them apart. The page itself draws the legends
of lines: Vega makes no more room for one when it grows, and cuts names that are long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import altair as alt

from adbench_tgan.audit_table import COLOURS as AUDIT_COLOURS
from adbench_tgan.report.curves import Record

if TYPE_CHECKING:
    import pandas as pd

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2])
NORMAL, ABNORMAL = COLOURS[0], COLOURS[5]
AUDIT_DASHES = ([1, 0], [6, 3], [8, 2, 2, 2], [2, 2])  # as in the pictures that `adbench audit` draws
GREY = "#7F7F7F"
# ticks of a scale that is linear near zero and logarithmic beyond; those that find no room are left out
LOSS_TICKS = [0.0, *(sign * digit * 10.0**n for n in range(-1, 7) for digit in (1, 2, 5) for sign in (1, -1))]
HEIGHT = 320
PADDING = 10  # pixels between the outermost points and the frame
Spec = dict[str, Any]


def intervals(board: pd.DataFrame, entries: Sequence[str]) -> Spec:
    """AUROC of each entry with its 95 % interval; the mark of one without a rank is hollow."""
    names = ("entry", "supervision", "auroc_mean", "auroc_ci_low", "auroc_ci_high", "rank", "n_seeds")
    lines = _records(board, names)
    order = [line["entry"] for line in lines]
    base = _base(lines, order).encode(
        y=alt.Y("entry:N", sort=order, title=None, axis=_two_lines()),
        tooltip=[
            "entry:N",
            "supervision:N",
            *(_three(f"{name}:Q") for name in names[2:5]),
            "rank:Q",
            "n_seeds:Q",
        ],
    )
    zero = alt.Scale(zero=False, nice=False, padding=PADDING)
    bars = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("auroc_ci_low:Q", title="AUROC", scale=zero, axis=_decimals("x")),
        x2="auroc_ci_high:Q",
        color=_colour(order, entries),
    )
    points = base.mark_point(size=70, filled=True, opacity=1, strokeWidth=2).encode(
        x=alt.X("auroc_mean:Q", scale=zero), shape=_supervision(lines), **_hollow_without_rank(order, entries)
    )
    chance = _chance().encode(x=alt.datum(0.5))
    return _spec(bars + points + chance, height=32 * len(lines) + 10)


def _hollow_without_rank(order: Sequence[str], entries: Sequence[str]) -> dict[str, Any]:
    """How a point is painted: in its row's colour, within only if it has a rank."""
    return {
        "color": _colour(order, entries),
        "stroke": _colour(order, entries, alt.Stroke),
        "fillOpacity": alt.when("datum.rank === null").then(alt.value(0)).otherwise(alt.value(1)),
    }


def _two_lines() -> alt.Axis:
    """Of names such as ``knn (image_size=64)``, whose ends tell them apart."""
    two = "indexof(datum.label, ' (') >= 0"
    return alt.Axis(
        labelLimit=230,
        labelExpr="split(replace(datum.label, ' (', '\\n('), '\\n')",
        labelBaseline={"condition": {"test": two, "value": "bottom"}, "value": "middle"},
    )


def _decimals(channel: str) -> alt.Axis:
    """Of a scale that may span one number: Vega takes the decimals from the distance of two, and then writes none."""
    return alt.Axis(labelExpr=f"span(domain('{channel}')) ? datum.label : format(datum.value, '.3~f')")


def _chance() -> alt.Chart:
    """The line of what guesses; where nothing else is drawn, the page does not count it."""
    line: alt.Chart = alt.Chart(alt.Data(values=[{}]), name="chance").mark_rule(
        strokeDash=[3, 3], color=GREY, strokeWidth=1.5, aria=False
    )
    return line


def pareto(board: pd.DataFrame, entries: Sequence[str]) -> Spec:
    """AUROC against latency; a line joins the ranked ones of one supervision that no other of them beats in both."""
    names = ("entry", "supervision", "rank", "auroc_mean", "latency_ms_p50", "images_per_second")
    lines = _records(board, names)
    order = list(board["entry"])
    middle = _middle([line["latency_ms_p50"] for line in lines])
    for line in lines:
        line["right"] = line["latency_ms_p50"] > middle  # its name stands to the left, within the picture
        rivals = [other for other in lines if other["rank"] and other["supervision"] == line["supervision"]]
        line["best"] = line in rivals and not any(_beats(other, line) for other in rivals)
    base = _base(lines, order)
    x = alt.X(
        "latency_ms_p50:Q",
        title="milliseconds to score one image, median",
        scale=alt.Scale(type="log", padding=45),
    )
    zero = alt.Scale(zero=False, nice=False, padding=PADDING)
    y = alt.Y("auroc_mean:Q", title="AUROC", scale=zero, axis=_decimals("y"))
    front = base.transform_filter("datum.best").mark_line(color=GREY, strokeDash=[6, 3])
    front = front.encode(x=x, y=y, detail="supervision:N")
    points = base.mark_point(size=90, filled=True, opacity=1, strokeWidth=2).properties(name="points")
    points = points.encode(
        x=x,
        y=y,
        shape=_supervision(lines),
        **_hollow_without_rank(order, entries),
        tooltip=["entry:N", "supervision:N", _three("auroc_mean:Q"), _three("latency_ms_p50:Q"), "best:N"],
    )
    # The page hides names that would lie on others, or on points of others.
    side = alt.ExprRef("datum.right ? 'right' : 'left'")
    away, room = alt.ExprRef("datum.right ? -6 : 6"), alt.ExprRef("width / 2")
    texts = base.properties(name="names").mark_text(align=side, dx=away, dy=-9, limit=room)
    return _spec(front + points + texts.encode(x=x, y=y, text="entry:N"))


def _middle(values: Sequence[float]) -> float:
    """On a logarithmic axis."""
    return math.sqrt(min(values) * max(values))


def _beats(other: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
    no_worse = other["auroc_mean"] >= line["auroc_mean"] and other["latency_ms_p50"] <= line["latency_ms_p50"]
    return bool(
        no_worse
        and (other["auroc_mean"] > line["auroc_mean"] or other["latency_ms_p50"] < line["latency_ms_p50"])
    )


def roc(records: Sequence[Record], entries: Sequence[str]) -> Spec:
    """True against false positive rate, of the chosen category."""
    curves = _curves(records, entries, ("false", "false positive rate"), ("true", "true positive rate"))
    chance = _chance().encode(x=alt.datum(0), y=alt.datum(0), x2=alt.datum(1), y2=alt.datum(1))
    return _spec(curves + chance, legend="entry")


def precision_recall(records: Sequence[Record], entries: Sequence[str]) -> Spec:
    """Precision against recall, of the chosen category."""
    # A precision holds for the recall that it adds: so average precision counts it.
    curves = _curves(records, entries, ("recall", "recall"), ("precision", "precision"), "step-before")
    return _spec(curves, legend="entry")


def _curves(
    records: Sequence[Record],
    entries: Sequence[str],
    across: tuple[str, str],
    up: tuple[str, str],
    interpolate: Literal["linear", "step-before"] = "linear",
) -> alt.Chart:
    names, unit = ("entry", "category", across[0], up[0]), alt.Scale(domain=[0, 1])
    lines = [{name: record[name] for name in names} for record in records]
    drawn = {line["entry"] for line in lines}
    order = [entry for entry in entries if entry in drawn]
    chart: alt.Chart = (
        _base(lines, order, category=lines[0]["category"])
        .transform_flatten([across[0], up[0]])
        .mark_line(clip=True, interpolate=interpolate)
        .encode(
            x=alt.X(f"{across[0]}:Q", title=across[1], scale=unit),
            y=alt.Y(f"{up[0]}:Q", title=up[1], scale=unit),
            order=alt.Order(f"{across[0]}:Q"),
            color=_colour(order, entries),
            strokeDash=_dash(order, entries),
            tooltip=["entry:N", _three(f"{across[0]}:Q"), _three(f"{up[0]}:Q")],
        )
    )
    return chart


def histograms(records: Sequence[Record]) -> Spec:
    """Scores of normal and of abnormal images, of the chosen detector and category, with the threshold."""
    bars, marks = [], []
    for record in records:
        edges, where = record["histogram"]["edges"], {name: record[name] for name in ("entry", "category")}
        for kind in ("normal", "abnormal"):
            shares = record["histogram"][kind]
            bars.append(where | {"images": kind, "from": edges[:-1], "to": edges[1:], "share": shares})
        if record["threshold"] is not None:
            marks.append(where | threshold_mark(record["threshold"], edges[0], edges[-1]))
    chosen = records[0]["entry"], records[0]["category"]
    kinds = alt.Scale(domain=["normal", "abnormal"], range=[NORMAL, ABNORMAL])
    areas = (
        _one(bars, *chosen)
        .transform_flatten(["from", "to", "share"])
        .transform_calculate(nothing="0")
        .mark_rect(opacity=0.8)
        .encode(
            x=alt.X("from:Q", title="score", scale=alt.Scale(zero=False, nice=False, padding=PADDING)),
            x2="to:Q",
            y=alt.Y("share:Q", title="share of normal, or of abnormal, images", axis=alt.Axis(format="%")),
            y2="nothing:Q",
            color=alt.Color("images:N", scale=kinds, legend=alt.Legend(title="images", orient="bottom")),
            tooltip=["images:N", "from:Q", "to:Q", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    base = _one(marks, *chosen).encode(x="at:Q", tooltip=[alt.Tooltip("threshold:Q", format=".4g"), "note:N"])
    line = base.mark_rule(strokeDash=[4, 3], color=GREY, strokeWidth=2)
    low, high = (base.transform_filter(f"datum.beyond === {side}") for side in (-1, 1))
    names = low.mark_text(align="left", dx=5, y=10) + high.mark_text(align="right", dx=-5, y=10)
    return _spec(areas + line + names.encode(text="note:N"))


def threshold_mark(threshold: float, low: float, high: float) -> Record:
    """Where the line of a threshold is drawn over a histogram from `low` to `high`.

    The axis is widened to hold it, unless that would take from the bars more than half of their room: then the line
    stands at the edge, with a note.
    """
    width = high - low
    if low - width <= threshold <= high + width:
        return {"threshold": threshold, "at": threshold, "beyond": 0, "note": "on the axis"}
    beyond, edge = (1, high) if threshold > high else (-1, low)
    return {"threshold": threshold, "at": edge, "beyond": beyond, "note": f"{threshold:.4g}, beyond the axis"}


def losses(records: Sequence[Record]) -> Spec:
    """Training losses against epochs, of the chosen detector and category."""
    scale = alt.Scale(type="symlog", constant=0.1)
    axis = alt.Axis(values=LOSS_TICKS, format="~g", labelOverlap="greedy")
    chart = (
        _one(list(records), records[0]["entry"], records[0]["category"])
        .transform_flatten(["epoch", "value"])
        .mark_line(point=True)
        .encode(
            x=_epochs(),
            y=alt.Y("value:Q", title="mean loss per epoch, logarithmic from 0.1", scale=scale, axis=axis),
            color=alt.Color("loss:N", scale=alt.Scale(range=list(COLOURS)), legend=None),
            strokeDash=alt.StrokeDash("loss:N", scale=alt.Scale(range=list(DASHES)), legend=None),
            tooltip=["loss:N", "epoch:Q", alt.Tooltip("value:Q", format=".4g")],
        )
    )
    return _spec(chart, legend="loss")


def _epochs() -> alt.X:
    """An axis of whole numbers. `tickMinStep` would not do: Vega then asks for a tick more than there are steps."""
    whole = alt.ExprRef("max(1, min(ceil(width / 40), span(domain('x'))))")
    return alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickCount=whole, format="d"))


def audits(records: Sequence[Record]) -> Spec:
    """The four curves of the chosen audit: AUROC against epochs."""
    names, colours = list(AUDIT_COLOURS), list(AUDIT_COLOURS.values())
    chart = (
        alt.Chart(alt.Data(values=list(records)))
        .add_params(alt.param(name="audit", value=records[0]["audit"]))
        .transform_filter("datum.audit === audit")
        .transform_flatten(["epoch", "auroc"])
        .mark_line(point=True)
        .encode(
            x=_epochs(),
            y=alt.Y("auroc:Q", title="AUROC", scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("scored:N", scale=alt.Scale(domain=names, range=colours), legend=None),
            strokeDash=alt.StrokeDash(
                "scored:N", scale=alt.Scale(domain=names, range=list(AUDIT_DASHES)), legend=None
            ),
            tooltip=["scored:N", "epoch:Q", _three("auroc:Q")],
        )
    )
    return _spec(chart + _chance().encode(y=alt.datum(0.5)), legend="scored")


def _base(lines: list[Record], order: Sequence[str], category: str | None = None) -> alt.Chart:
    """A chart of the entries that the page shows, and of one category if it has many."""
    chart = alt.Chart(alt.Data(values=lines)).add_params(alt.param(name="shown", value=list(order)))
    if category is not None:
        chart = chart.add_params(alt.param(name="category", value=category))
        chart = chart.transform_filter("datum.category === category")
    return chart.transform_filter("indexof(shown, datum.entry) >= 0")


def _one(lines: list[Record], entry: str, category: str) -> alt.Chart:
    """A chart of one entry in one category."""
    chosen = (alt.param(name="entry", value=entry), alt.param(name="category", value=category))
    chart = alt.Chart(alt.Data(values=lines)).add_params(*chosen)
    return chart.transform_filter("datum.category === category && datum.entry === entry")


def _colour(order: Sequence[str], entries: Sequence[str], channel: Any = alt.Color) -> Any:
    """Each of a chart's entries has its place among all `entries`, so that it has one colour in all charts."""
    colours = [COLOURS[entries.index(entry) % len(COLOURS)] for entry in order]
    return channel("entry:N", scale=alt.Scale(domain=list(order), range=colours), legend=None)


def _dash(order: Sequence[str], entries: Sequence[str]) -> alt.StrokeDash:
    dashes = [DASHES[entries.index(entry) // len(COLOURS) % len(DASHES)] for entry in order]
    return alt.StrokeDash("entry:N", scale=alt.Scale(domain=list(order), range=dashes), legend=None)


def _supervision(lines: Sequence[Record]) -> alt.Shape:
    """A shape for each kind, with a legend where there are two."""
    both = len({line["supervision"] for line in lines}) > 1
    legend = alt.Legend(title=None, orient="bottom", symbolFillColor=GREY, symbolStrokeColor=GREY)
    kinds = alt.Scale(domain=["one-class", "labelled"], range=["circle", "diamond"])
    return alt.Shape("supervision:N", scale=kinds, legend=legend if both else None)


def _three(shorthand: str) -> alt.Tooltip:
    return alt.Tooltip(shorthand, format=".3f")


def _records(board: pd.DataFrame, names: Sequence[str]) -> list[Record]:
    """Plain records of some columns; what is absent is null."""
    plain = board[list(names)].astype(object)
    return [
        {str(name): value for name, value in line.items()}
        for line in plain.where(plain.notna(), None).to_dict("records")
    ]


def _spec(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: Any = HEIGHT, legend: str = "") -> Spec:
    """The chart at the width of the page, which is to say which line is of which `legend`, such as entry or loss."""
    size = {
        "width": "container",
        "height": height,
        "autosize": alt.AutoSizeParams(type="fit-x", contains="padding"),
    }
    spec: Spec = chart.properties(**size).to_dict()
    return spec | {"usermeta": {"legend": legend}}

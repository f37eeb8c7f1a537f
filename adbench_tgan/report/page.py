"""The page: sections with what there is to show, each with a sentence in place of what there is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adbench_tgan import __version__
from adbench_tgan.again import run_commands
from adbench_tgan.leaderboard import device_of
from adbench_tgan.report import audited, charts, curves, provenance, tables
from adbench_tgan.report.gallery import RULE, Gallery
from adbench_tgan.report.material import Material
from adbench_tgan.report.timed import Times
from adbench_tgan.text import counted, plain

TEMPLATE = Path(__file__).parent / "template"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart, or the sentence that stands in its place."""

    name: str
    title: str
    about: str = ""
    spec: charts.Spec | None = None
    absent: str = ""
    empty: str = "Nothing to draw for this choice."


def render(
    material: Material,
    galleries: Sequence[Gallery] = (),
    no_examples: str = "No examples were asked for.",
    audits: Sequence[dict[str, Any]] = (),
    no_audits: str = "",
    times: Times | None = None,
) -> str:
    """The page as one HTML text that needs no network. The same material gives the same text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        finalize=printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    board = tables.without_shared_reason(material.leaderboard)
    columns = tables.leaderboard_columns(board)
    rows = tables.leaderboard_rows(board, columns)
    records = list(curves.curve_records(material))
    return environment.get_template("page.html.jinja").render(
        material=material,
        version=__version__,
        columns=columns,
        rows=rows,
        order=tables.initial_order(rows, columns),
        extent=extent(material),
        sources=tables.sources(material.leaderboard),
        caveats=tables.remarks(rows),
        unranked=tables.unranked(material.leaderboard),
        filters={
            name: sorted({getattr(row, name) for row in rows})
            for name in ("supervision", "pretrained", "preset")
        },
        heat=tables.heat_table(material),
        overview=overview(material, times),
        curve_charts=curve_charts(material, records),
        detail_charts=detail_charts(records, list(curves.loss_records(material))),
        chosen=curves.chosen_jobs(material),
        rule=RULE,
        galleries=galleries,
        no_examples=no_examples,
        audits=tables.audit_rows(audits),
        audit_protocols=sorted({record["protocol"] for record in audits} - {material.protocol}),
        audit_chart=audit_chart(audits),
        no_audits=no_audits or ("" if audits else audited.NONE_GIVEN),
        passport=provenance.passport(material),
        machines=provenance.machine_lines(material.machines),
        commands=run_commands(material.jobs),
        remarks=provenance.remarks(material.results),
        style=(TEMPLATE / "page.css").read_text(),
        script=(TEMPLATE / "page.js").read_text(),
        bundle=bundle(),
    )


def printable(value: Any) -> Any:
    """A text from outside without control characters; what is marked as safe, such as a script, is left as it is."""
    return plain(value) if type(value) is str else value


def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, so that nothing is loaded from elsewhere."""
    import altair
    import vl_convert

    number = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    text = vl_convert.javascript_bundle(vl_version=number)  # type: ignore[call-arg]
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def extent(material: Material) -> str:
    """How much a page holds."""
    detectors, rows = material.leaderboard["detector"].nunique(), len(material.leaderboard)
    configurations = f" in {rows} configurations" if rows > detectors else ""
    categories = len(material.categories)
    more = f"{categories} of " if material.of_categories > categories else ""
    counts = (
        counted(detectors, "detector", "detectors") + configurations,
        more + counted(max(categories, material.of_categories), "category", "categories"),
        counted(material.results["seed"].nunique(), "seed", "seeds"),
        counted(len(material.results), "job", "jobs"),
    )
    return ", ".join(counts)


def overview(material: Material, times: Times | None = None) -> list[Chart]:
    """AUROC with intervals, and AUROC against latency: that of `times`, else of the jobs."""
    board = material.leaderboard
    ranked = board[board["auroc_mean"].notna()]
    timed = ranked if times is None else times.rows[times.rows["auroc_mean"].notna()]
    timed = timed[timed["latency_ms_p50"].notna()]
    comparable = times is not None or devices(material) == 1
    return [
        Chart(
            name="intervals",
            title="AUROC with its uncertainty",
            about="The bar is the 95 % confidence interval over test images (bootstrap) and seeds; with one seed it does "
            "not include variation between trainings. A bar shorter than its point is hidden by it. A hollow point has "
            "no rank. The dotted line is chance. Detectors of different supervision are not ranked together.",
            spec=charts.intervals(ranked, material.entries) if len(ranked) else None,
            absent="No job ended well, so there is no AUROC.",
        ),
        Chart(
            name="pareto",
            title="AUROC against latency",
            about="Up and to the left is better. A dashed line joins the Pareto front of the ranked detectors of one kind "
            "of supervision: no other of them is better in one respect and at least as good in the other. A hollow point "
            "has no rank. A name that would overlap another name or point is hidden: move the pointer to its point to "
            "read it. " + whose_times(times),
            spec=charts.pareto(timed, material.entries) if comparable and len(timed) else None,
            absent=no_times(material, times),
        ),
    ]


def whose_times(times: Times | None) -> str:
    """Where latencies come from, and which detectors have none."""
    if times is None:
        return "A latency is the median over the jobs of a detector that ran alone, or over all if none did."
    return (
        f"Latencies are those of {times.name}, measured one at a time on {times.device}; detectors that were not "
        "measured there with the settings that they have here (but for epochs) are left out."
    )


def no_times(material: Material, times: Times | None = None) -> str:
    """Why there is no latency to show."""
    if times is not None:
        return f"No detector was measured in {times.name} with the settings that it has here."
    if not devices(material):
        return "No job ended well, so there are no times."
    if material.results["latency_ms_p50"].notna().any():
        return "The jobs ran on several devices, whose times are not comparable."
    return "No times are recorded for these jobs."


def devices(material: Material) -> int:
    """On how many devices jobs ended well."""
    return len({device_of(machine["device"], machine) for machine in material.machines})


def curve_charts(material: Material, records: Sequence[curves.Record]) -> list[Chart]:
    """ROC and precision-recall curves of a category."""
    absent = "No job ended well, so there are no scores."
    return [
        Chart(
            name="roc",
            title="ROC curves",
            spec=charts.roc(records, material.entries) if records else None,
            absent=absent,
        ),
        Chart(
            name="precision-recall",
            title="Precision-recall curves",
            about="Random scores have the same precision at every recall, the share of anomalies: 'chance AP' under Provenance.",
            spec=charts.precision_recall(records, material.entries) if records else None,
            absent=absent,
        ),
    ]


def detail_charts(records: Sequence[curves.Record], losses: Sequence[curves.Record]) -> list[Chart]:
    """Histogram and losses of one detector in one category."""
    return [
        Chart(
            name="histogram",
            title="Scores of normal and abnormal images",
            about="The dashed line is the threshold, the 0.95 quantile of the scores of normal training images; if it lies "
            "beyond the axis, it is drawn at the edge, with its value. The outermost bars also count all scores beyond "
            "them.",
            spec=charts.histograms(records) if records else None,
            absent="No job ended well, so there are no scores.",
        ),
        Chart(
            name="losses",
            title="Training losses",
            empty="No losses: a detector that does not train in epochs reports none.",
            spec=charts.losses(losses) if losses else None,
            absent=no_losses(records),
        ),
    ]


def no_losses(records: Sequence[curves.Record]) -> str:
    """Why there are none to show."""
    if not records:
        return "No job ended well, so there are no losses."
    return "No job that ended well reports losses: a detector that does not train in epochs has none."


def audit_chart(audits: Sequence[dict[str, Any]]) -> Chart | None:
    """The four curves of an audit."""
    if not audits:
        return None
    records = audited.curve_records(list(audits))
    return Chart(
        name="audit", title="From the clean number to the published one", spec=charts.audits(records)
    )

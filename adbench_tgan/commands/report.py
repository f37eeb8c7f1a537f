"""``adbench report``: one offline HTML page of a benchmark's results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adbench_tgan.commands.options import (
    DataRoot,
    Device,
    Plugins,
    Published,
    ResultsData,
    ResultsProtocol,
    file_of,
    published_table,
    registry,
    root,
)
from adbench_tgan.commands.show import warn
from adbench_tgan.errors import AdbenchError, unknown
from adbench_tgan.text import plain

if TYPE_CHECKING:
    from adbench_tgan.registry import Registry
    from adbench_tgan.report.gallery import Gallery
    from adbench_tgan.report.material import Material

Audits = Annotated[Path | None, typer.Option(help="Folder written by adbench audit; adds its curves.")]
Timing = Annotated[Path | None, typer.Option(help="Folder written by adbench bench; adds its latencies.")]


def report(
    runs: Annotated[Path | None, typer.Option(help="Folder of results.  [default: runs]")] = None,
    board: Annotated[
        Path | None, typer.Option(help="Folder of a published board, instead of --runs.")
    ] = None,
    out: Annotated[str, typer.Option(metavar="FILE", help="The page to write.")] = "report.html",
    data: ResultsData = None,
    protocol: ResultsProtocol = None,
    audit: Audits = None,
    timing: Timing = None,
    examples: Annotated[
        str | None,
        typer.Option(help="Category to show example images of.  [default: the first with a saved model]"),
    ] = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    device: Device = "auto",
    published: Published = None,
) -> None:
    """Write a page with leaderboard, charts and example images. It is one HTML file that needs no network."""
    from adbench_tgan.report import check_extra

    check_extra()
    from adbench_tgan.report import page
    from adbench_tgan.report.audited import audits_of
    from adbench_tgan.report.material import from_board, from_store
    from adbench_tgan.report.timed import times_of
    from adbench_tgan.results import write_atomically

    file = file_of("--out", out, "report.html")
    found = registry(plugin)
    if board:
        ensure_left_out(board, runs, data, data_root, protocol, published)
        material = from_board(board)
    else:
        table = published_table(published)
        material = from_store(runs or Path("runs"), found, data, protocol, table, warn)
    for note in material.notes:
        warn(f"note: {note}")
    audits, no_audits = audits_of(audit, material.dataset, material.protocol, material.jobs)
    if audit and no_audits:
        warn(f"note: {no_audits}")
    times = times_of(timing, material) if timing else None
    galleries, no_examples = galleries_of(material, found, data_root, examples, device)
    text = page.render(material, galleries, no_examples, audits, no_audits, times)
    write_atomically(file, text)
    print(f"wrote {file}, {len(text.encode()) / 1e6:.1f} MB")


def ensure_left_out(board: Path, *options: object) -> None:
    """Raise `AdbenchError` where one of the options of runs is given beside a board."""
    if any(options):
        raise AdbenchError(
            "--runs, --data, --data-root, --protocol and --published do not apply to a board; leave them out with --board"
        )


def galleries_of(
    material: Material, found: Registry, data_root: Path | None, category: str | None, device: str
) -> tuple[list[Gallery], str]:
    """The example images; else, or for the detectors without, why there are none."""
    from adbench_tgan.report.gallery import DETECTORS, models, no_model, without_models

    category = category and plain(category)  # as the page has it
    if category is not None and category not in material.categories:
        raise unknown("category", category, material.categories)
    saved = models(material, category)
    if not saved:
        return [], without_models(material, category)
    from adbench_tgan.benchmark import usable  # torch, which pages without examples do without
    from adbench_tgan.data.tasks import Tasks
    from adbench_tgan.report.examples import gallery_of

    try:
        spec, protocol = found.find("dataset", material.dataset), found.find("protocol", material.protocol)
        tasks, here = Tasks(spec, protocol, root(data_root), fetch=False), usable(device)
    except AdbenchError as error:
        warn(f"note: no examples: {error}")
        return [], f"Examples are missing: {error}."
    shown: list[Gallery] = []
    missing: dict[str, list[str]] = {}  # why -> whose
    for entry, folder in saved.items():
        warn(f"examples of {entry}")
        try:
            shown.append(gallery_of(entry, folder, material, tasks, found, here))
        except AdbenchError as error:
            warn(f"note: no examples of {entry}: {error}")
            missing.setdefault(str(error), []).append(entry)
    if without := [entry for entry in material.entries if entry not in saved]:
        full = f"{DETECTORS} other detectors have examples, which is the limit of a page"
        missing[full if len(saved) == DETECTORS else no_model(category)] = without
    reasons = "; ".join(f"{', '.join(whose)} ({why})" for why, whose in missing.items())
    return shown, f"No examples of {reasons}." if missing else ""

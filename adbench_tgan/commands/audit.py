"""``adbench audit``: how a published number comes about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adbench_tgan.commands.options import (
    Categories,
    Data,
    DataRoot,
    Device,
    Plugins,
    Precision,
    Preset,
    Protocol,
    Published,
    Seeds,
    Set,
    complete,
    interruptible,
    published_table,
    registry,
    request_of,
)
from adbench_tgan.commands.show import show, tell, warn

SHOWN = "detector category seed epochs clean batch_statistics class_sorted as_published published optimism".split()
SPARE = ("epochs", "optimism", "seed")  # the first to go on a narrow terminal


def audit(
    detectors: Annotated[
        str, typer.Option(help="Comma-separated names.", autocompletion=complete("detector"))
    ] = "ganomaly",
    data: Data = "digits",
    data_root: DataRoot = None,
    protocol: Protocol = None,
    categories: Categories = None,
    seeds: Seeds = "0",
    preset: Preset = None,
    set_: Set = None,
    plugin: Plugins = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    out: Annotated[Path, typer.Option(help="Folder for the audits.")] = Path("audits"),
    published: Published = None,
) -> None:
    """Show how a published number comes about, step by step. One training, scored at each epoch in three ways."""
    from adbench_tgan.audits import run_audits
    from adbench_tgan.runner import Settings
    from adbench_tgan.terminal.progress import TerminalReporter

    found = registry(plugin)
    request = request_of(
        found, detectors, data, data_root, protocol, categories, seeds, preset, set_, precision
    )
    with TerminalReporter() as reporter, interruptible(reporter.say, out):
        numbers = published_table(published)
        table, failed = run_audits(request, Settings(device=device), found, reporter, out, numbers)
    if failed:
        warn(f"{failed} of these {len(table)} audits failed; {out / 'failed.csv'} says which, and why")
    if failed == len(table):
        raise typer.Exit(1)
    records = [dict(zip(SHOWN, line, strict=True)) for line in table[SHOWN].itertuples(index=False)]
    cut = found.find("protocol", request.protocol or found.find("dataset", data).protocol)
    show(records, f"AUROC, {data}, {cut.name}", spare=SPARE)
    tell(f"{out / 'audit.csv'} holds the details, {out / 'curves'} a picture of each")
    raise typer.Exit(1 if failed else 0)

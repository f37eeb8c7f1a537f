"""``adbench bench``: how fast detectors score, and at what cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adbench_tgan.commands.options import (
    Data,
    DataRoot,
    Detectors,
    Device,
    Json,
    Plugins,
    Precision,
    Preset,
    Protocol,
    Set,
    interruptible,
    registry,
    request_of,
)
from adbench_tgan.commands.show import answer, show

SHOWN = (
    "detector weights latency_ms_p50 latency_ms_p95 latency_ms_p99 images_per_second best_batch peak_memory_mb "
    "parameters flops_per_image joules_per_image error"
).split()
SPARE = ("latency_ms_p95", "flops_per_image", "best_batch", "latency_ms_p99", "weights")  # narrow terminals
UNITS = {"peak_memory_mb": "peak MiB"}  # the files keep the name of their column


def bench(
    detectors: Detectors = "ganomaly",
    data: Data = "digits",
    data_root: DataRoot = None,
    protocol: Protocol = None,
    category: Annotated[
        str | None, typer.Option(help="Category whose images are scored.  [default: the first]")
    ] = None,
    preset: Preset = None,
    set_: Set = None,
    plugin: Plugins = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", min=0.01, metavar="SECONDS", help="Time spent on the latency of each detector."
        ),
    ] = 10.0,
    max_batch: Annotated[int, typer.Option(min=1, metavar="N", help="Largest batch size to try.")] = 1024,
    fit_images: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Training images for detectors that must be fitted before they score; 0 for all.",
        ),
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write a timing board to this folder, such as timing-h100.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what scoring costs on this machine. Reports latency, throughput, memory, operations and energy."""
    from adbench_tgan.commands.options import tasks_of
    from adbench_tgan.cost.speed import Effort
    from adbench_tgan.cost.speeds import run_bench
    from adbench_tgan.terminal.progress import TerminalReporter

    found = registry(plugin)
    chosen = category or tasks_of(found, data, data_root, protocol, fetch=True).categories[0]
    request = request_of(found, detectors, data, data_root, protocol, chosen, "0", preset, set_, precision)
    effort = Effort(seconds=seconds, max_batch=max_batch, fit_images=fit_images)
    with TerminalReporter() as reporter, interruptible(reporter.say, out):
        board, records = run_bench(request, effort, device, found, reporter, out)
    if as_json:
        answer({"machine": board.machine, "facts": board.facts, "records": records})
    else:
        lines = [{UNITS.get(name, name): line.get(name) for name in SHOWN} for line in records]
        show(lines, f"scoring on {board.facts['device']}, machine {board.machine}", spare=SPARE)
        if out is not None:
            print(f"{out / 'timing.csv'} and {out / 'timing.json'} hold the details")
    raise typer.Exit(1 if any(record["error"] for record in records) else 0)

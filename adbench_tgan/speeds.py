"""The speeds of several detectors on one machine: measured one after another, kept as a folder that is a timing board."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adbench_tgan import __version__
from adbench_tgan.benchmark import usable
from adbench_tgan.data.images import TrainSet
from adbench_tgan.data.tasks import Tasks
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job, Request, plan
from adbench_tgan.machine import device_name, machine
from adbench_tgan.places import ensure_writable
from adbench_tgan.registry import Registry
from adbench_tgan.results import write_atomically
from adbench_tgan.runner import Reporter, explain, precision
from adbench_tgan.speed import Effort, measure_speed, prepare
from adbench_tgan.training import seed_everything

if TYPE_CHECKING:
    from adbench_tgan.progress import TerminalReporter

SCHEMA = 1
IMAGES = 256  # test images that are scored, over and over
COLUMNS = (
    "detector preset pretrained precision image_size channels weights latency_ms_p50 latency_ms_p95 latency_ms_p99 "
    "wall_ms_p50 wall_ms_p95 wall_ms_p99 samples best_batch images_per_second memory_mb_batch_1 peak_memory_mb "
    "parameters flops_per_image watts joules_per_image power_samples device machine detector_version key "
    "adbench_version error"
).split()
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Board:
    """What was measured on one machine. `machine` is its fingerprint: hardware, driver and versions."""

    facts: Mapping[str, Any]
    machine: str
    records: tuple[Record, ...] = ()


def run_bench(
    request: Request,
    effort: Effort,
    device: str,
    registry: Registry,
    reporter: TerminalReporter,
    out: Path | None,
) -> tuple[Board, list[Record]]:
    """Measure each detector that `out` does not hold yet; return the board, and the records of this request.

    Each is written the moment it is there, failures too; those are tried again the next time.

    Raises:
        AdbenchError: the request is wrong, or `out` holds the times of another machine.
    """
    device = usable(device)
    if out is not None:
        ensure_writable(out)
    planned = plan(request, registry, reporter.warn)
    board = read_board(out, here(device))
    keys = {job.key: key_of(job, effort) for job in planned.jobs}
    done = {record["key"] for record in board.records if not record["error"]}
    missing = [job for job in planned.jobs if keys[job.key] not in done]
    reporter.planned(len(planned.jobs), len(planned.jobs) - len(missing))
    for job in missing:
        reporter.job_started(job)
        record = {"key": keys[job.key]} | attempt(job, effort, device, planned.tasks, registry, reporter)
        record["machine"] = board.machine
        reporter.job_ended(job, said(record))
        board = with_record(board, record)
        if out is not None:
            write_board(board, out)
    asked = set(keys.values())
    return board, [record for record in board.records if record["key"] in asked]


def attempt(
    job: Job, effort: Effort, device: str, tasks: Tasks, registry: Registry, reporter: Reporter
) -> Record:
    """Measure one detector; whatever goes wrong becomes a row with an error."""
    detector_class = registry.detector(job.detector)
    config = detector_class.Config.model_validate(dict(job.config))
    record: Record = {
        **{name: getattr(job, name) for name in ("detector", "preset", "precision", "detector_version")},
        "pretrained": job.pretrained or "False",
        "image_size": config.image_size,
        "device": device_name(device),
        "adbench_version": __version__,
        "effort": asdict(effort),
        "error": job.problem,
    }
    if job.problem:
        return record
    try:
        reporter.phase("data")
        split = tasks.split(job.category, config.image_size, labelled=job.supervision == "labelled")
        images = split.test.on("cpu")[:IMAGES]
        with precision(job.precision, device):
            seed_everything(job.seed)
            reporter.phase("fit")
            fresh = detector_class(config, device=device, seed=job.seed)
            train = TrainSet(split.normal, split.anomalies)
            detector, weights = prepare(fresh, train, images[:2].to(device), effort)
            reporter.phase("measure")
            found = measure_speed(detector, images, effort)
        return record | {"channels": split.test.shape[0], "weights": weights} | found
    except (Exception, SystemExit) as error:
        return record | {"error": explain(error, device)}


def key_of(job: Job, effort: Effort) -> str:
    """A hash of all that could change what is measured, but the machine."""
    return hashlib.sha256(f"{job.key} {json.dumps(asdict(effort))}".encode()).hexdigest()[:16]


def here(device: str) -> Board:
    """An empty board of this machine."""
    facts = {"device": device_name(device), **machine(device)}
    text = json.dumps(facts, sort_keys=True, default=str)
    return Board(facts=facts, machine=hashlib.sha256(text.encode()).hexdigest()[:16])


def read_board(out: Path | None, this: Board) -> Board:
    """The board that a folder holds; the empty one of `this` machine if it holds none.

    Raises:
        AdbenchError: it is damaged, or of another machine: times of different machines share no table.
    """
    if out is None or not (out / "timing.json").exists():
        return this
    try:
        data = json.loads((out / "timing.json").read_text())
        board = Board(facts=data["facts"], machine=data["machine"], records=tuple(data["records"]))
        if data["schema"] != SCHEMA or not all({"key", "error"} <= set(record) for record in board.records):
            raise ValueError("another schema")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdbenchError(
            f"{out / 'timing.json'} cannot be read ({error}); give --out another folder"
        ) from None
    if board.machine != this.machine:
        raise AdbenchError(
            f"{out} holds times of another machine or other versions ({differences(board.facts, this.facts)}); "
            "times of different machines share no table: give --out another folder"
        )
    return board


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The names of the facts in which two machines differ."""
    names = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    return ", ".join(names) or "nothing that is named"


def with_record(board: Board, record: Record) -> Board:
    """The board with a record, in place of an earlier one of its key; sorted by name."""
    others = [kept for kept in board.records if kept["key"] != record["key"]]
    names = ("detector", "preset", "precision", "key")
    ordered = sorted([*others, record], key=lambda line: [line[name] for name in names])
    return replace(board, records=tuple(ordered))


def write_board(board: Board, out: Path) -> None:
    """Write ``timing.json`` with all samples, ``timing.csv`` and a README."""
    write_atomically(out / "README.md", readme(board))
    write_atomically(out / "timing.csv", table(board.records))
    text = {"schema": SCHEMA, "machine": board.machine, "facts": board.facts, "records": board.records}
    write_atomically(out / "timing.json", json.dumps(text, indent=1, sort_keys=True, default=str) + "\n")


def table(records: Sequence[Record]) -> str:
    """``timing.csv``: a row a detector; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def readme(board: Board) -> str:
    """The board for people: fastest first, the machine, and what the numbers mean."""
    good = sorted((r for r in board.records if not r["error"]), key=lambda r: float(r["latency_ms_p50"]))
    lines = [
        f"# Timing on {board.facts['device']}",
        "",
        "Made by `adbench bench`. All rows are of one machine with one set of versions; times of other machines do not",
        "compare. Each column is explained in the dictionary of columns, `leaderboards/README.md`.",
        "",
        "| detector | preset | ms/image p50 | p95 | p99 | images/s | at batch | peak MiB | GFLOP/image | parameters | J/image | weights |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    lines += [_readme_line(record) for record in good]
    failed = [f"* `{r['detector']}` failed: {plain(r['error'])}" for r in board.records if r["error"]]
    lines += ["", *failed] if failed else []
    lines += ["", "## The machine", ""]
    lines += [f"* {name}: {plain(value)}" for name, value in board.facts.items() if name != "versions"]
    versions = dict(board.facts.get("versions") or {})
    lines += [f"* {name} {number}" for name, number in versions.items() if number]
    return "\n".join([*lines, f"* fingerprint `{board.machine}`", ""])


def _readme_line(record: Record) -> str:
    gflops = record["flops_per_image"] / 1e9
    cells = [
        f"`{record['detector']}`",
        plain(record["preset"]),
        *(_number(record[f"latency_ms_p{q}"], ",.3f") for q in (50, 95, 99)),
        _number(record["images_per_second"], ",.0f"),
        str(record["best_batch"]),
        _number(record["peak_memory_mb"], ",.0f"),
        _number(gflops, ",.4g"),
        _number(record["parameters"], ",d"),
        _number(record["joules_per_image"], ".3g"),
        record["weights"],
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def plain(value: Any) -> str:
    """A text that a table of Markdown cannot misread."""
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def said(record: Record) -> str:
    """One line of progress."""
    if record["error"]:
        return f"failed: {record['error']}"
    middle, rate = record["latency_ms_p50"], record["images_per_second"]
    return f"{record['weights']}: {middle:.3g} ms an image alone, {rate:,.0f} images/s in batches"

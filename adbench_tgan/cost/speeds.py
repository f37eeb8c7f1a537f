"""The speeds of several detectors on one machine: measured one after another, kept as a folder that is a timing board."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adbench_tgan import __version__
from adbench_tgan.benchmark import ensure_fit, ensure_offered, usable
from adbench_tgan.codebase import code_behind
from adbench_tgan.cost.speed import Effort, measure_speed, prepare
from adbench_tgan.cost.timing_board import (
    FIRST,
    Board,
    Record,
    files_of,
    fingerprint,
    parse,
    with_record,
    write_board,
)
from adbench_tgan.data.images import TrainSet
from adbench_tgan.data.tasks import Tasks
from adbench_tgan.errors import AdbenchError
from adbench_tgan.failures import explain
from adbench_tgan.jobs import Job, Request, plan
from adbench_tgan.machine import device_name, machine
from adbench_tgan.registry import Registry
from adbench_tgan.runner import Reporter, begun
from adbench_tgan.store.places import read_bounded
from adbench_tgan.store.stored import LARGEST
from adbench_tgan.torch_settings import precision

if TYPE_CHECKING:
    from adbench_tgan.terminal.progress import TerminalReporter

IMAGES = 256  # test images that are scored, over and over, each time with other corners


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
    ensure_offered(request.precision, device, reporter.warn)
    if out is not None:
        ensure_fit(out, request, FIRST)
    planned = plan(request, registry, reporter.warn, reporter.reading)
    board = read_board(out, here(device))
    keys = {job.key: key_of(job, effort) for job in planned.jobs}
    done = {record["key"] for record in board.records if not record["error"]}
    missing = [job for job in planned.jobs if keys[job.key] not in done]
    reporter.planned(missing, len(planned.jobs) - len(missing))
    for job in missing:
        reporter.job_started(job)
        found = attempt(job, effort, device, planned.tasks, registry, reporter)
        record = {"key": keys[job.key]} | found
        record["machine"] = board.machine
        reporter.job_ended(job, said(record))
        board = with_record(read_board(out, board), record)  # to which another command may have added
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
        "code": code_behind(detector_class, registry.distribution(job.detector)),  # also of one that fails
        "effort": asdict(effort),
        "max_batch": effort.max_batch,
        "error": "",
    }
    try:
        with begun(job, device, tasks, registry, reporter) as begin, precision(job.precision, device):
            images = begin.split.test.on("cpu")[:IMAGES]
            reporter.phase("fit", job)
            train = TrainSet(begin.split.normal, begin.split.anomalies)
            # Nothing else may hold the one as built: where it has to be fitted, its networks would be counted twice.
            detector, weights = prepare(begin.detector(), train, images[:2].to(device), effort)
            reporter.phase("measure", job)
            found = measure_speed(detector, images, effort)
        return record | {"channels": begin.split.test.shape[0], "weights": weights} | found
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's detector may raise anything
        tasks.forget()  # images that it may have written to
        return record | {"error": explain(error, device)}


def key_of(job: Job, effort: Effort) -> str:
    """A hash of all that could change what is measured, but the machine."""
    return hashlib.sha256(f"{job.key} {json.dumps(asdict(effort))}".encode()).hexdigest()[:16]


def here(device: str) -> Board:
    """An empty board of this machine."""
    facts = {"device": device_name(device), **machine(device)}
    return Board(facts=facts, machine=fingerprint(facts))


def read_board(out: Path | None, this: Board) -> Board:
    """The board that a folder holds; the empty one of `this` machine if it holds none.

    Raises:
        AdbenchError: it is damaged, or of another machine: times of different machines share no table.
    """
    from adbench_tgan.boards.verify import MISREAD

    if out is None or not (out / "timing.json").exists():
        return this
    try:
        board = parse(read_bounded(out / "timing.json", LARGEST))
        files_of(board)  # or what is measured could not be written beside it
    except MISREAD as error:
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


def said(record: Record) -> str:
    """One line of progress."""
    if record["error"]:
        return f"failed: {record['error']}"
    middle, rate = record["latency_ms_p50"], record["images_per_second"]
    return f"{record['weights']}: {middle:.3g} ms an image alone, {rate:,.0f} images/s in batches"

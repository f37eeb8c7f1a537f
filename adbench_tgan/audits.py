"""Audits of several jobs: kept one file each, gathered in ``audit.csv``, drawn as curves."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from adbench_tgan import __version__
from adbench_tgan.audit import audit
from adbench_tgan.audit_table import COLOURS, COLUMNS, SCHEMA, curves_in, drawn, file_of, gather, read_record
from adbench_tgan.benchmark import ensure_fit, ensure_offered, usable
from adbench_tgan.data.images import TrainSet
from adbench_tgan.data.tasks import Tasks
from adbench_tgan.errors import AdbenchError, StoreError, unwritable
from adbench_tgan.failures import explain
from adbench_tgan.info import DetectorInfo
from adbench_tgan.jobs import Job, Request, plan
from adbench_tgan.leaderboard import PURITY
from adbench_tgan.machine import device_name, machine
from adbench_tgan.ranking.published import Printed, read_published
from adbench_tgan.registry import Registry
from adbench_tgan.results import write_atomically
from adbench_tgan.runner import Reporter, Settings, begun
from adbench_tgan.statements import notes_of
from adbench_tgan.store import places
from adbench_tgan.store.stored import STAMP, newer, stamp
from adbench_tgan.tables import LOOKS
from adbench_tgan.terminal.pace import silent
from adbench_tgan.text import csv_of, in_digits, plain
from adbench_tgan.torch_settings import precision

if TYPE_CHECKING:
    from adbench_tgan.terminal.progress import TerminalReporter

FAILED = "detector dataset protocol category seed preset precision detector_version split_fingerprint key error".split()


def run_audits(
    request: Request,
    settings: Settings,
    registry: Registry,
    reporter: TerminalReporter,
    out: Path,
    published: Path,
) -> tuple[pd.DataFrame, int]:
    """Audit what `out` does not hold yet; write ``audit.csv`` of all that it holds, also when interrupted, and a PNG a job.

    ``failed.csv`` is of a command that ended.

    Return the rows that were asked for, failed ones with their error, and how many failed.

    Raises:
        AdbenchError: the request or the table of published numbers is wrong, or `out` cannot be written.
    """
    printed = read_published(published)
    settings = replace(settings, device=usable(settings.device), data_root=request.data_root)
    ensure_offered(request.precision, settings.device, reporter.warn)
    ensure_fit(out, request, {"audit.csv": ",".join(COLUMNS[:3]), "failed.csv": ",".join(FAILED[:3])})
    planned = plan(request, registry, reporter.warn, reporter.reading)
    missing = unfinished(planned.jobs, out)
    reporter.planned(missing, len(planned.jobs) - len(missing))
    errors: dict[str, str] = {}
    try:
        for job in missing:
            if failure := attempted(job, settings, planned.tasks, registry, reporter, out):
                errors[job.key] = failure
    except KeyboardInterrupt:
        tabulate(out, planned.jobs, printed, reporter.warn)
        raise
    table = tabulate(out, planned.jobs, printed, reporter.warn)
    told = asked(table, planned.jobs, errors)
    write_failed(out / "failed.csv", told)
    return told, len(errors)


def unfinished(jobs: Sequence[Job], out: Path) -> list[Job]:
    """Those of which `out` holds no audit. A picture that is not of the curves beside it is drawn again.

    Raises:
        AdbenchError: the audit of one is of a later version, or `out` has no room for curves.
    """
    if (out / "curves").is_file():
        raise AdbenchError(f"{out / 'curves'} is a file, and should be a folder; give --out another folder")
    missing = []
    for job in jobs:
        path = file_of(out, job)
        record = read_record(out, job)
        if record is None:
            if why := newer(path, SCHEMA):
                raise AdbenchError(f"{path} is {why}, or give --out another folder")
            missing.append(job)
        elif stamp(path.with_suffix(".png")) != record["sha256"]:
            picture(record, path, record["sha256"])
    return missing


def attempted(
    job: Job, settings: Settings, tasks: Tasks, registry: Registry, reporter: TerminalReporter, out: Path
) -> str:
    """Audit a job and keep it in `out`; why it failed, if it did.

    Raises:
        StoreError: it cannot be kept.
    """
    reporter.job_started(job)
    try:
        record = audit_job(job, settings, tasks, registry, reporter)
    except (KeyboardInterrupt, StoreError):
        raise
    except BaseException as error:  # a stranger's detector may raise anything
        tasks.forget()  # images that it may have written to
        failure = explain(error, settings.device)
        reporter.job_ended(job, f"failed: {failure}")
        return failure
    keep(record, file_of(out, job))
    way = "as published" if record["authors"] else "best epoch, sorted by class"
    clean, best = in_digits(record["clean"][-1]), in_digits(max(record["class_sorted"]))
    reporter.job_ended(job, f"clean {clean}, {way} {best}")
    return ""


def tabulate(
    out: Path, jobs: Sequence[Job], printed: tuple[Printed, ...], say: Callable[[str], None]
) -> pd.DataFrame:
    """Write ``audit.csv`` of all audits in `out`, if there are any, and once more where others ended meanwhile."""
    there = curves_in(out)
    for _ in range(LOOKS):
        table = gather(out, jobs, printed, say)
        if len(table):
            write_atomically(out / "audit.csv", csv_of(table))
        before, there = there, curves_in(out)
        if there == before:
            break
        say = silent  # it was said
    return table


def asked(table: pd.DataFrame, jobs: Sequence[Job], errors: Mapping[str, str]) -> pd.DataFrame:
    """A row for each of `jobs`: that of `table`, or what is known of one that failed, and why it did."""
    lines: dict[str, Mapping[Any, Any]] = {line["key"]: line for line in table.to_dict("records")}
    for job in jobs:
        if job.key in errors:
            lines[job.key] = {**vars(job), "key": job.key, "error": errors[job.key]}
    columns = [*COLUMNS, "error"] if errors else COLUMNS
    rows = [lines[job.key] for job in jobs if job.key in lines]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def write_failed(path: Path, told: pd.DataFrame) -> None:
    """What was asked for and failed, with its error; no file if nothing did."""
    if "error" in told:
        write_atomically(path, csv_of(told.loc[told["error"].notna(), FAILED]))
    else:
        path.unlink(missing_ok=True)


def audit_job(
    job: Job, settings: Settings, tasks: Tasks, registry: Registry, reporter: Reporter
) -> dict[str, Any]:
    """Train one job's detector and return its curves, with all that made them."""
    device = settings.device
    with begun(job, device, tasks, registry, reporter) as begin, precision(job.precision, device):
        reporter.phase("fit", job)
        detector = begin.detector()
        train = TrainSet(begin.split.normal, begin.split.anomalies)
        total = detector.expected_epochs(train)
        found = audit(
            detector, begin.split, train, lambda number, means: reporter.epoch(number, total, means, job)
        )
        notes = [*begin.split.notes, *notes_of(detector)]
        if found.purity_delta > PURITY[job.precision]:
            notes.append(
                f"the clean scores depend on their batch too: relative change up to {found.purity_delta:.2g}"
            )
        for note in notes:
            reporter.warn(f"{job}: {note}")
    info = registry.find("detector", job.detector)
    facts = {
        "authors": as_its_authors(info, job.dataset),
        "device": device_name(device),
        "machine": {**machine(device), "code": begin.code},
        "unofficial": begin.split.unofficial,
        "notes": notes,
    }
    return {"schema": SCHEMA, "job": asdict(job), **asdict(found), **facts, "version": __version__}


def as_its_authors(info: DetectorInfo, dataset: str) -> bool:
    """Whether the best epoch of the last curve is how a detector's authors score on a dataset."""
    return not {"*", dataset}.isdisjoint(info.as_published_on)


def keep(record: Mapping[str, Any], path: Path) -> None:
    """Draw the curves, then write the record that vouches for them."""
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    picture(record, path, hashlib.sha256(text.encode()).hexdigest())
    write_atomically(path, text)


def picture(record: Mapping[str, Any], path: Path, digest: str) -> None:
    """Draw the curves beside the file that holds them, or will.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        places.replace(path.with_suffix(".png"), draw(record, digest))
    except OSError as error:
        raise unwritable(path.parent, error) from None


def draw(record: Mapping[str, Any], digest: str) -> bytes:
    """The curves of one audit as a PNG: AUROC against epoch, the best of the published way marked.

    It carries the SHA-256 of the file of its curves.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    job = Job(**record["job"])
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (label, values), style in zip(drawn(record).items(), ("-", "--", "-.", ":"), strict=True):
        axes.plot(range(1, len(values) + 1), values, style, color=COLOURS[label], label=label, marker=".")
    axes.axhline(0.5, color="0.6", linewidth=0.8)
    axes.set(xlabel="epoch", ylabel="AUROC", ylim=(0, 1.02))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(plain(f"{job}, {job.protocol}"), parse_math=False)
    axes.legend(fontsize="small")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110, metadata={STAMP: digest})
    return png.getvalue()

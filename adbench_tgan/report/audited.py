"""The curves of audits, read from the files that ``adbench audit`` keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adbench_tgan.audit_table import CURVES, curves_in, drawn, read_curves
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.report.curves import POINTS, Record
from adbench_tgan.store.stored import stamp
from adbench_tgan.text import counted, plain

NONE_GIVEN = "No audit was given; --audit takes a folder that adbench audit wrote."


# What may differ between audits of one name, and how the name then says it.
APART = {
    "precision": "",
    "detector_version": "version ",
    "protocol_version": "protocol's version ",
    "split_fingerprint": "images ",
}


def audits_of(
    folder: Path | None, dataset: str, protocol: str, jobs: Sequence[Job] = ()
) -> tuple[list[dict[str, Any]], str]:
    """The audits of a page's dataset that may stand beside its `jobs`; and why others, or all, are missing."""
    if folder is None:
        return [], NONE_GIVEN
    audits, name = audits_in(folder, dataset, protocol), folder.resolve().name
    if not audits:
        return [], f"The audits in {name} are of other datasets than {dataset}."
    kept = [record for record in audits if _may_stand(record["job"], protocol, jobs)]
    if len(kept) == len(audits):
        return audits, ""
    left = counted(len(audits) - len(kept), "audit", "audits")
    reason = "they are of other versions or images than this page's jobs; adbench audit makes current ones"
    return _named(kept, protocol), f"{left} in {name} left out: {reason}."


def _may_stand(job: Job, protocol: str, jobs: Sequence[Job]) -> bool:
    """Whether an audit is of the versions and images of a page's jobs; what none of them tells may be any."""
    known = [
        (job.detector_version, {each.detector_version for each in jobs if each.detector == job.detector})
    ]
    if job.protocol == protocol:
        images = {each.split_fingerprint for each in jobs if each.category == job.category} - {""}
        known += [
            (job.protocol_version, {each.protocol_version for each in jobs}),
            (job.split_fingerprint, images),
        ]
    return all(not of_page or own in of_page for own, of_page in known)


def audits_in(folder: Path, dataset: str, protocol: str) -> list[dict[str, Any]]:
    """The audits of one dataset: a name, the protocol and the AUROC after each epoch, by way of scoring.

    Those under `protocol` come first, the others have theirs in the name.

    Raises:
        AdbenchError: the folder holds no audits, or a file in it is not one.
    """
    paths = curves_in(folder)
    if not paths:
        raise AdbenchError(f"{folder} holds no audits; give --audit a folder that adbench audit wrote")
    records = [record for path in paths for record in [_read(path, dataset)] if record is not None]
    # A file may be there twice, under a name of one's own.
    once = {record["job"].key: record for record in records}.values()
    return _named(sorted(once, key=lambda record: bool(record["protocol"] != protocol)), protocol)


def _read(path: Path, dataset: str) -> dict[str, Any] | None:
    data = read_curves(path)
    if data is None:
        reason = "it is damaged, an AUROC is not within 0 to 1, or its curves differ in length"
        raise AdbenchError(f"{path} is no audit: {reason}; delete it and audit again")
    picture = path.with_suffix(".png")
    if picture.is_file() and stamp(picture) != data["sha256"]:
        raise AdbenchError(
            f"{path} was changed: {picture.name} is of other curves; delete both and audit again"
        )
    job, curves = Job(**data["job"]), {name: data[name] for name in CURVES}
    return {"job": job, "protocol": job.protocol, **curves} if job.dataset == dataset else None


def _named(records: Sequence[dict[str, Any]], protocol: str) -> list[dict[str, Any]]:
    """The audits, each under a name of its own, as `audit`: what differs between those that would share one is in it."""
    alike: dict[str, list[Job]] = {}
    for record in records:
        alike.setdefault(_name(record["job"], protocol), []).append(record["job"])
    named = []
    for record in records:
        job, name = record["job"], _name(record["job"], protocol)
        shared = alike[name]
        apart = [field for field in APART if len({getattr(each, field) for each in shared}) > 1]
        told = [f"{APART[field]}{getattr(job, field)[:16]}" for field in apart]
        if len({tuple(getattr(each, field)[:16] for field in apart) for each in shared}) < len(shared):
            told.append(f"job {job.key}")
        named.append(record | {"audit": plain(", ".join([name, *told]))})
    return named


def _name(job: Job, protocol: str) -> str:
    under = "" if job.protocol == protocol else f", under {job.protocol}"
    return f"{job.detector} ({job.preset}) on {job.category}, seed {job.seed}{under}"


def curve_records(audits: list[dict[str, Any]]) -> list[Record]:
    """A record a curve, for the chart; at most `POINTS` epochs, the last one among them."""
    records = []
    for audit in audits:
        for name, values in drawn(audit).items():
            step = -(-len(values) // POINTS)
            thinned = [(n, round(value, 4)) for n, value in enumerate(values, start=1)][::-step][::-1]
            epoch, auroc = zip(*thinned, strict=True)
            records.append(
                {"audit": audit["audit"], "scored": name, "epoch": list(epoch), "auroc": list(auroc)}
            )
    return records

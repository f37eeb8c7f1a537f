"""The curves of audits, read from the files that ``adbench audit`` keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adbench_tgan.audit_table import CURVES, curves_in, read_curves
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.report.charts import AUDIT_STYLES
from adbench_tgan.report.curves import POINTS, Record
from adbench_tgan.text import plain

NONE_GIVEN = "No audit was given: name a folder that adbench audit wrote with --audit."


def audits_of(folder: Path | None, dataset: str, protocol: str) -> tuple[list[dict[str, Any]], str]:
    """The audits of a page's dataset; else why there are none."""
    if folder is None:
        return [], NONE_GIVEN
    audits = audits_in(folder, dataset, protocol)
    reason = f"The audits in {folder.resolve().name} are of other datasets than {dataset}."
    return audits, "" if audits else reason


def audits_in(folder: Path, dataset: str, protocol: str) -> list[dict[str, Any]]:
    """The audits of one dataset: a name, the protocol and the AUROC after each epoch, by way of scoring.

    Those under `protocol` come first, the others have theirs in the name.

    Raises:
        AdbenchError: the folder holds no audits, or a file in it is not one.
    """
    paths = curves_in(folder)
    if not paths:
        raise AdbenchError(f"{folder} holds no audits; name the folder that adbench audit wrote with --audit")
    records = [record for path in paths for record in [_read(path, dataset, protocol)] if record is not None]
    return sorted(records, key=lambda record: bool(record["protocol"] != protocol))


def _read(path: Path, dataset: str, protocol: str) -> dict[str, Any] | None:
    data = read_curves(path)
    if data is None:
        reason = "it is damaged, an AUROC is not within 0 to 1, or its curves differ in length"
        raise AdbenchError(f"{path} is no audit: {reason}; delete it and audit again")
    job, curves = Job(**data["job"]), {name: data[name] for name in CURVES}
    if job.dataset != dataset:
        return None
    under = "" if job.protocol == protocol else f", under {job.protocol}"
    name = plain(f"{job.detector} ({job.preset}) on {job.category}, seed {job.seed}{under}")
    return {"audit": name, "protocol": job.protocol, **curves}


def curve_records(audits: list[dict[str, Any]]) -> list[Record]:
    """A record a curve, for the chart; at most `POINTS` epochs, the last one among them."""
    records = []
    for audit in audits:
        best = [max(audit["class_sorted"][: n + 1]) for n in range(len(audit["class_sorted"]))]
        step = -(-len(best) // POINTS)
        for name, values in zip(AUDIT_STYLES, (*(audit[curve] for curve in CURVES), best), strict=True):
            thinned = [(n, round(value, 4)) for n, value in enumerate(values, start=1)][::-step][::-1]
            epoch, auroc = zip(*thinned, strict=True)
            records.append(
                {"audit": audit["audit"], "scored": name, "epoch": list(epoch), "auroc": list(auroc)}
            )
    return records

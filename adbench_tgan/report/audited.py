"""The curves of audits, read from the files that ``adbench audit`` keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.report.charts import AUDIT_STYLES
from adbench_tgan.report.curves import POINTS, Record

CURVES = ("clean", "batch_statistics", "class_sorted")


def audits_in(folder: Path, dataset: str, protocol: str) -> list[dict[str, Any]]:
    """The audits of one dataset: a name, the protocol and the AUROC after each epoch, by way of scoring.

    Those under `protocol` come first, the others have theirs in the name.

    Raises:
        AdbenchError: the folder holds no audits, or a file in it is not one.
    """
    paths = sorted((folder / "curves").rglob("*.json"))
    if not paths:
        raise AdbenchError(f"{folder} holds no audits; name the folder that adbench audit wrote with --audit")
    records = [record for path in paths for record in [_read(path, dataset, protocol)] if record is not None]
    return sorted(records, key=lambda record: bool(record["protocol"] != protocol))


def _read(path: Path, dataset: str, protocol: str) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text())
        job = Job(**data["job"])
        curves = {name: [float(value) for value in data[name]] for name in CURVES}
        lengths = {len(values) for values in curves.values()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdbenchError(
            f"{path} is no audit ({type(error).__name__}); delete it and audit again"
        ) from None
    if len(lengths) != 1 or lengths == {0}:
        raise AdbenchError(f"{path} is no audit: its curves differ in length; delete it and audit again")
    if job.dataset != dataset:
        return None
    under = "" if job.protocol == protocol else f", under {job.protocol}"
    name = f"{job.detector} ({job.preset}) on {job.category}, seed {job.seed}{under}"
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

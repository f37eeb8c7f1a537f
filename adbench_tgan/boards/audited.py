"""AUROCs under the authors' evaluation, out of an audit, beside a board's own numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from adbench_tgan.audit_table import differences, lines_of
from adbench_tgan.errors import AdbenchError
from adbench_tgan.places import read_bounded
from adbench_tgan.results import Result
from adbench_tgan.stored import LARGEST


def read_audit(path: Path, keys: Iterable[str]) -> dict[str, float]:
    """Of an ``audit.csv`` the column ``as_published`` where it is not empty, by key, of the jobs with those `keys`.

    Raises:
        AdbenchError: the file cannot be read, or is not what the curves beside it say.
    """
    wanted = set(keys)
    if (path.parent / "curves").is_dir() and (wrong := next(differences(path.parent), None)):
        told = ": ".join(part for part in wrong if part)
        raise AdbenchError(f"{path.parent} does not match itself ({told}); audit again")
    try:
        lines = lines_of(read_bounded(path, LARGEST).decode())
        found = {line["key"]: float(line["as_published"]) for line in lines if line["as_published"] != ""}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise AdbenchError(f"{path} cannot be read as an audit.csv: {error}") from None
    return {key: value for key, value in sorted(found.items()) if key in wanted}


def audited(members: Sequence[Result], audit: Mapping[str, float]) -> tuple[float | None, str]:
    """``as_published_auroc``, and a remark if not every category of a detector was audited."""
    by_category: dict[str, list[float]] = {}
    for result in members:
        if result.job.key in audit:
            by_category.setdefault(result.job.category, []).append(audit[result.job.key])
    if not by_category:
        return None, ""
    mean = sum(sum(each) / len(each) for each in by_category.values()) / len(by_category)
    everything = {result.job.category for result in members if result.status == "ok"}
    if everything <= set(by_category):
        return mean, ""
    return None, f"as published {mean:.3f} on {', '.join(sorted(by_category))}, no other category was audited"

"""AUROCs under the authors' evaluation, out of an audit, beside a board's own numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from adbench_tgan.audit_table import differences
from adbench_tgan.errors import AdbenchError
from adbench_tgan.ranking.published import read_lines
from adbench_tgan.results import Result


def read_audit(path: Path, keys: Iterable[str]) -> dict[str, float]:
    """Of an ``audit.csv`` the column ``as_published`` where it is not empty, by key, of the jobs with those `keys`.

    Raises:
        AdbenchError: the file cannot be read, or is not what the curves beside it say.
    """
    wanted = set(keys)
    if (path.parent / "curves").is_dir() and (wrong := next(differences(path.parent), None)):
        told = ": ".join(part for part in wrong if part)
        raise AdbenchError(f"the files in {path.parent} do not match each other ({told}); audit again")
    if path.is_dir():
        raise AdbenchError(f"{path} is a folder; name the audit.csv in it with --audit")
    found: dict[str, float] = {}
    try:
        for line in read_lines(path, ("key", "as_published")):
            if line["as_published"] == "":
                continue
            auroc = _auroc(line["as_published"])
            if found.setdefault(line["key"], auroc) != auroc:
                raise ValueError(f"key {line['key']} is there twice, with different values of as_published")
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise AdbenchError(f"{path} cannot be read as an audit.csv: {error}; audit again") from None
    return {key: value for key, value in sorted(found.items()) if key in wanted}


def _auroc(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"column as_published: {value} is not within 0 to 1")
    return value


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

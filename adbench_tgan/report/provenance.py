"""How the numbers of a page came about: the images and the machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from adbench_tgan.codebase import shown_code
from adbench_tgan.metrics import chance_f1
from adbench_tgan.report.material import Material


def passport(material: Material) -> list[dict[str, Any]]:
    """Of each category the sizes of its test set, its chance levels and its fingerprint."""
    keys = {category: key for (_, category), key in sorted(material.first_seeds().items())}
    prints = material.results.set_index("key")["split_fingerprint"]  # a job that failed may have none
    lines = []
    for category in material.categories:
        if category not in keys:
            continue
        labels = material.scores(keys[category])["label"]
        share = float((labels == 1).mean())
        lines.append(
            {
                "category": category,
                "normal": int((labels == 0).sum()),
                "abnormal": int((labels == 1).sum()),
                "chance AP": f"{share:.3f}",
                "chance F1": f"{chance_f1(share):.3f}",
                "fingerprint": prints[keys[category]],
            }
        )
    return lines


def machine_lines(machines: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each machine as plain texts by name; versions in one line, and so the code."""
    lines: list[dict[str, str]] = []
    for facts in machines:
        versions = facts.get("versions") or {}
        line = {
            name: str(value)
            for name, value in facts.items()
            if name not in ("versions", "code") and value not in (None, "")
        }
        line["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
        line["code"] = shown_code(facts)
        if line not in lines:  # detectors of several packages have run on one
            lines.append(line)
    return lines


def remarks(results: pd.DataFrame) -> list[dict[str, str]]:
    """Jobs that failed, and notes of those that did not go as asked, each with its reason."""
    told = results.loc[results["error"].fillna("") != "", ["entry", "category", "seed", "status", "error"]]
    names = ("detector", "category", "seed", "status", "reason")
    return [dict(zip(names, map(str, line), strict=True)) for line in told.itertuples(index=False)]

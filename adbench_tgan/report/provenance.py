"""How the numbers of a page came about: the images, the machines, and the commands that make them again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from adbench_tgan.report.material import Material

Group = tuple[Any, ...]


def passport(material: Material) -> list[dict[str, Any]]:
    """Of each category the sizes of its test set, its chance levels and its fingerprint."""
    keys = {category: key for (_, category), key in sorted(material.first_seeds().items())}
    prints = material.results.drop_duplicates("category").set_index("category")["split_fingerprint"]
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
                "chance F1": f"{2 * share / (1 + share):.3f}",
                "fingerprint": prints[category],
            }
        )
    return lines


def commands(material: Material) -> list[str]:
    """Commands that run the jobs of a page again, one for each choice of settings, seeds and categories."""
    groups: dict[Group, list[str]] = {}
    settings: dict[Group, list[str]] = {}
    for variant, jobs in material.results.groupby(["detector", "preset", "precision"]):
        detector, label, precision = map(str, cast("tuple[str, str, str]", variant))
        preset, *changes = label.split("; ")
        seeds = ",".join(map(str, sorted(set(jobs["seed"]))))
        categories = ",".join(sorted(set(jobs["category"])))
        # one command sets a key of a detector once, so changed settings have a command of their own
        group = (preset, precision, seeds, categories, tuple(changes) and (detector, *changes))
        groups.setdefault(group, []).append(detector)
        settings[group] = [f"{detector}.{change}" for change in changes]
    return [
        _command(material, group, names, settings[group]) for group, names in sorted(groups.items(), key=str)
    ]


def _command(material: Material, group: Group, detectors: Sequence[str], settings: Sequence[str]) -> str:
    preset, precision, seeds, categories, _ = group
    words = ["adbench", "run", "--detectors", ",".join(sorted(detectors)), "--data", material.dataset]
    words += [
        "--protocol",
        material.protocol,
        "--categories",
        categories,
        "--seeds",
        seeds,
        "--preset",
        preset,
    ]
    words += [] if precision == "fp32" else ["--precision", precision]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join(words)


def machine_lines(machines: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each machine as plain texts by name; versions in one line."""
    lines = []
    for facts in machines:
        versions = facts.get("versions") or {}
        line = {
            name: str(value)
            for name, value in facts.items()
            if name != "versions" and value not in (None, "")
        }
        line["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
        lines.append(line)
    return lines


def remarks(results: pd.DataFrame) -> list[dict[str, str]]:
    """Jobs that failed, and notes of those that did not go as asked, each with its reason."""
    texts = results["error"].fillna("")
    return [
        {
            "detector": str(line["entry"]),
            "category": str(line["category"]),
            "seed": str(line["seed"]),
            "status": str(line["status"]),
            "reason": str(line["error"]),
        }
        for _, line in results[texts != ""].iterrows()
    ]

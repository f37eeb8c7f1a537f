"""Two detectors against each other, on the same images; and all pairs of a leaderboard."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from adbench_tgan.codebase import state_of
from adbench_tgan.errors import AdbenchError, unknown
from adbench_tgan.leaderboard import Standing
from adbench_tgan.ranking.statistics import holm, interval, p_floor, wilcoxon
from adbench_tgan.text import DIGITS, counted

PAIR_COLUMNS = (
    "supervision detector_a preset_a detector_b preset_b auroc_difference difference_ci_low difference_ci_high "
    "n_categories wilcoxon_p holm_p p_floor holm_floor"
).split()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """AUROCs of two detectors, and a's minus b's with its 95 % interval; paired by images and seeds."""

    category: str  # empty: the mean over categories
    auroc_a: float
    auroc_b: float
    difference: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Detector a against detector b, over the categories that both have."""

    a: str
    b: str
    categories: tuple[Difference, ...]
    overall: Difference
    wilcoxon_p: float  # two-sided signed-rank test over categories
    p_floor: float  # the smallest p that so many categories can give
    cautions: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """What the numbers say, in plain words."""
        better, worse = (self.a, self.b) if self.overall.difference >= 0 else (self.b, self.a)
        size = f"{abs(self.overall.difference):.3f} AUROC"
        sure = self.overall.ci_low > 0 or self.overall.ci_high < 0
        if not sure and abs(self.overall.difference) < 0.0005:
            return f"no difference shown: {better} and {worse} are alike, to three digits of AUROC"
        if not sure:
            return f"no difference shown: {better} is ahead by {size}, and the interval includes zero"
        count = sum(each.difference * self.overall.difference > 0 for each in self.categories)
        of_all = counted(len(self.categories), "category", "categories")
        text = f"{better} is better than {worse} by {size}, in {count} of {of_all}"
        if self.wilcoxon_p < 0.05:
            return f"{text}; the signed-rank test over categories agrees"
        reason = "cannot show it with so few" if self.p_floor >= 0.05 else "does not show it"
        return f"{text}, on these images and seeds; the signed-rank test over categories {reason}"


def compare(a: Standing, b: Standing) -> Comparison:
    """Compare two detectors of one dataset and protocol.

    Raises:
        AdbenchError: they are one, or have no category in common.
    """
    if a is b:
        raise AdbenchError(f"{_title(a)} would be compared with itself; name two")
    names = _shared(a, b)
    if not names:
        raise AdbenchError(f"{_title(a)} and {_title(b)} have no category in common; run both on one")
    return Comparison(
        a=_title(a),
        b=_title(b),
        categories=tuple(_difference(name, [name], a, b) for name in names),
        overall=_difference("", names, a, b),
        wilcoxon_p=_wilcoxon(names, a, b),
        p_floor=p_floor(len(names)),
        cautions=tuple(_cautions(a, b, len(names))),
    )


def _shared(a: Standing, b: Standing) -> list[str]:
    """The categories that both have."""
    return [name for name in sorted(a.spread) if name in b.spread]


def _wilcoxon(names: Sequence[str], a: Standing, b: Standing) -> float:
    return wilcoxon([a.aurocs[name] - b.aurocs[name] for name in names])


def _difference(category: str, names: Sequence[str], a: Standing, b: Standing) -> Difference:
    """Of the means over the categories `names`."""
    first, second = (float(np.mean([each.aurocs[name] for name in names])) for each in (a, b))
    spreads = [np.mean([each.spread[name] for name in names], axis=0) for each in (a, b)]
    low, high = interval((spreads[0] - spreads[1]).clip(-1, 1))
    return Difference(
        category=category,
        auroc_a=round(first, DIGITS),  # as in the tables
        auroc_b=round(second, DIGITS),
        difference=round(first - second, DIGITS) + 0.0,  # no minus before a zero
        ci_low=low,
        ci_high=high,
    )


def _cautions(a: Standing, b: Standing, shared: int) -> list[str]:
    found = []
    if a.line["supervision"] != b.line["supervision"]:
        kinds = [f"{_title(each)} is {each.line['supervision']}" for each in (a, b)]
        found.append(f"{' and '.join(kinds)}: they did not learn from the same data")
    seeds = [{(r.job.category, r.job.seed) for r in each.members if r.status == "ok"} for each in (a, b)]
    if {each for each in seeds[0] ^ seeds[1] if each[0] in a.spread and each[0] in b.spread}:
        found.append("they were not run with the same seeds: the difference includes variation between seeds")
    frameworks = [{state_of(r.machine)[0] for r in each.members if r.status == "ok"} for each in (a, b)]
    if frameworks[0] != frameworks[1]:
        found.append("they were not run by the same state of adbench-tgan's code")
    for each in (a, b):
        if len(each.spread) > shared:
            more = counted(len(each.spread) - shared, "more category, which is", "more categories, which are")
            found.append(f"{_title(each)} has {more} left out")
        if each.line["remark"]:
            found.append(f"{_title(each)}: {each.line['remark']}")
    return found


def _title(each: Standing) -> str:
    return ":".join(each.name)


def find(name: str, ordered: Sequence[Standing]) -> Standing:
    """The row called ``detector`` or ``detector:preset``.

    Raises:
        AdbenchError: there is none, or a detector has several.
    """
    titles = [_title(each) for each in ordered]
    found = [
        each for each, title in zip(ordered, titles, strict=True) if name in (title, each.line["detector"])
    ]
    if not found:
        raise unknown("detector of these results", name, titles)
    if len(found) > 1:
        choices = " or ".join(shlex.quote(_title(each)) for each in found)
        raise AdbenchError(f"{name!r} has several rows; write {choices}")
    return found[0]


def pairs(ordered: Sequence[Standing]) -> pd.DataFrame:
    """``pairs.csv``: every pair of ranked detectors of a kind, with Holm's adjustment over the pairs of that kind."""
    lines = []
    for kind in ("one-class", "labelled"):
        block = [each for each in ordered if each.ranked and each.line["supervision"] == kind]
        found = [(a, b, _shared(a, b)) for a, b in combinations(block, 2)]
        tested = [_wilcoxon(names, a, b) for a, b, names in found]
        for (a, b, names), p, adjusted in zip(found, tested, holm(tested), strict=True):
            overall, floor = _difference("", names, a, b), p_floor(len(names))
            lines.append(
                dict(zip(PAIR_COLUMNS, (kind, *a.name, *b.name), strict=False))
                | {
                    "auroc_difference": overall.difference,
                    "difference_ci_low": overall.ci_low,
                    "difference_ci_high": overall.ci_high,
                    "n_categories": len(names),
                    "wilcoxon_p": p,
                    "holm_p": adjusted,
                    "p_floor": floor,
                    "holm_floor": min(1.0, floor * len(found)),
                }
            )
    return pd.DataFrame(lines, columns=PAIR_COLUMNS)

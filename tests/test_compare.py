"""Detectors two by two: differences, their intervals and tests, and what `adbench compare` says of them."""

import itertools
import json
import math
from dataclasses import replace

import make_runs
import pandas as pd
import pytest
from make_board import board_of, grid, made

from adbench_tgan.leaderboard import over_categories
from adbench_tgan.ranking import comparison
from adbench_tgan.ranking.statistics import interval


def test_a_difference_of_rounding_is_zero_on_every_machine(tmp_path):
    """NumPy's and pandas' sums round as their version and the processor do; a board is to have the same bytes."""
    row = board_of(tmp_path, grid(("good", "fair"))).standings[0]
    a, b = (
        replace(row, members=tuple(replace(each, metrics={"auroc": auroc}) for each in row.members))
        for auroc in (0.1 + 0.2, 0.3)
    )
    assert a.aurocs != b.aurocs
    for found in (comparison.compare(a, b), comparison.compare(b, a)):
        assert [row.difference for row in (found.overall, *found.categories)] == [0, 0, 0]
        assert math.copysign(1, found.overall.difference) == 1
    table = pd.DataFrame({"category": [*"abc"], "auroc": [0.1, 0.2, 0.3]})
    assert over_categories(table, "auroc") == over_categories(table.assign(category=[*"cba"]), "auroc") == 0.2


def test_the_verdict_is_the_same_in_both_directions(tmp_path):
    tied = [made("good", "ant", seed, 40.0) for seed in (0, 1, 2)]  # 1.000 for both
    tied += [made("fair", "ant", seed, 40.0) for seed in (0, 1, 2)]
    other = [r for r in grid(("good", "fair")) if r.job.category == "bee"]
    named = {each.line["detector"]: each for each in board_of(tmp_path, [*tied, *other]).standings}
    verdicts = [
        comparison.compare(named[a], named[b]).verdict for a, b in (("good", "fair"), ("fair", "good"))
    ]
    assert verdicts[0] == verdicts[1]
    assert "in 1 of 2 categories" in verdicts[0]
    alike = comparison.compare(named["good"], replace(named["good"])).verdict
    assert alike == "no difference shown: good:paper and good:paper are alike, to three digits of AUROC"
    fewer = replace(named["fair"], spread={"bee": named["fair"].spread["bee"]})
    found = comparison.compare(named["good"], fewer)
    assert "in 1 of 1 category" in found.verdict
    assert "good:paper has 1 more category, which is left out" in found.cautions


def test_a_comparison_is_of_the_categories_that_both_have_and_of_each_against_the_other(tmp_path):
    named = {each.line["detector"]: each for each in board_of(tmp_path, grid(("good", "fair"))).standings}
    good, fair = named["good"], named["fair"]
    fewer = replace(
        fair,
        spread={"bee": fair.spread["bee"]},
        members=tuple(each for each in fair.members if each.job.category == "bee"),
    )
    found, back = comparison.compare(good, fewer), comparison.compare(fewer, good)
    for each in (found, back):
        (row,) = each.categories
        assert replace(row, category="") == each.overall
        assert (each.wilcoxon_p, each.p_floor) == (1.0, 1.0)
        assert not any("same seeds" in caution for caution in each.cautions)  # in what both have they were
    assert 0 < found.overall.ci_low < found.overall.difference < found.overall.ci_high
    assert (back.overall.ci_low, back.overall.ci_high) == pytest.approx(
        (-found.overall.ci_high, -found.overall.ci_low)
    )


@pytest.mark.parametrize(
    ("p", "floor", "told"),
    [(0.049, 0.01, "agrees"), (0.051, 0.049, "does not show it"), (0.1, 0.05, "cannot show it with so few")],
)
def test_a_verdict_says_what_the_signed_rank_test_makes_of_it_at_five_percent(p, floor, told):
    numbers = {"auroc_a": 0.9, "auroc_b": 0.8, "difference": 0.1, "ci_low": 0.05, "ci_high": 0.15}
    mean = comparison.Difference(category="", **numbers)
    found = comparison.Comparison(a="a", b="b", categories=(mean,), overall=mean, wilcoxon_p=p, p_floor=floor)
    assert found.verdict.endswith(f"the signed-rank test over categories {told}")
    unsure = replace(found, overall=replace(mean, ci_low=-0.05))
    assert unsure.verdict == "no difference shown: a is ahead by 0.100 AUROC, and the interval includes zero"


def test_pairs_are_of_ranked_rows_and_adjusted_for_as_many_as_there_are(tmp_path):
    ordered = board_of(tmp_path, grid(("good", "fair"))).standings
    (line,) = comparison.pairs(ordered).to_dict("records")
    assert (line["holm_p"], line["holm_floor"]) == (line["wilcoxon_p"], line["p_floor"]) == (0.5, 0.5)
    assert comparison.pairs([ordered[0], replace(ordered[1], ranked=False)]).empty


def test_pairs_have_an_interval_each_and_none_of_single_categories(tmp_path, monkeypatch):
    ordered, asked = board_of(tmp_path, grid(("good", "fair", "poor"))).standings, []
    monkeypatch.setattr(comparison, "interval", lambda spread: asked.append(1) or interval(spread))
    lines = comparison.pairs(ordered).to_dict("records")
    assert len(lines) == len(asked) == 3
    for line, (a, b) in zip(lines, itertools.combinations(ordered, 2), strict=True):
        found = comparison.compare(a, b)
        assert (line["detector_a"], line["detector_b"]) == (a.name[0], b.name[0])
        assert (line["wilcoxon_p"], line["holm_p"]) == (found.wilcoxon_p, 1.0) == (0.5, 1.0)
        names = {
            "difference": "auroc_difference",
            "ci_low": "difference_ci_low",
            "ci_high": "difference_ci_high",
        }
        assert all(getattr(found.overall, name) == line[column] for name, column in names.items())


def test_a_difference_of_rounding_alone_is_zero_without_a_minus(tmp_path):
    one = board_of(tmp_path, grid(("good",))).standings[0]
    nudged = [replace(each, metrics={"auroc": each.metrics["auroc"] + 1e-14}) for each in one.members]
    other = replace(one, members=tuple(nudged))
    found = comparison.compare(one, other)
    assert one.aurocs["ant"] < other.aurocs["ant"]
    assert found.categories[0].auroc_a == found.categories[0].auroc_b
    assert [str(each.difference) for each in (found.overall, *found.categories)] == ["0.0"] * 3
    assert found.wilcoxon_p == 1


def test_a_comparison_of_different_seeds_says_so(tmp_path):
    results = [each for each in grid() if (each.job.detector, each.job.seed) != ("fair", 2)]
    named = {each.line["detector"]: each for each in board_of(tmp_path, results).standings}
    for a, b in (("good", "fair"), ("fair", "good")):
        (caution,) = [c for c in comparison.compare(named[a], named[b]).cautions if "seeds:" in c]
        assert caution.startswith("they were not run with the same seeds")
    assert not any("same seeds" in c for c in comparison.compare(named["good"], named["poor"]).cautions)


def test_compare_rounds_as_tables_do(tmp_path):
    """What a sum leaves beyond the twelfth digit decides no third one, of 341 and 203 of 400 pairs."""
    aurocs, standings = (0.8524999999999999, 0.5075000000000001), []
    for one, auroc in zip(board_of(tmp_path, grid(("good", "poor"))).standings, aurocs, strict=True):
        members = [replace(each, metrics={"auroc": auroc}) for each in one.members]
        standings.append(replace(one, members=tuple(members)))
    overall = comparison.compare(*standings).overall
    assert (overall.auroc_a, overall.auroc_b, overall.difference) == (0.8525, 0.5075, 0.345)


def test_compare_says_in_words_what_it_says_in_json_and_cautions_apart(adbench, tmp_path):
    sound = {"metrics": {}, "purity_delta": 0.0}
    ran = make_runs.made
    results = [ran("one", "a", shift=3.0, **sound), ran("one", "b", **sound), ran("two", "a", **sound)]
    make_runs.make_runs(tmp_path / "runs", *results)
    found = json.loads(adbench("compare", "one", "two", "--json").out)
    ended = adbench("compare", "one", "two")
    (line,) = found["categories"]
    (row,) = [row for row in ended.out.splitlines() if row.startswith("│ a ")]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:5] == [
        "a",
        f"{line['auroc_a']:.3f}",
        f"{line['auroc_b']:.3f}",
        f"{line['difference']:+.3f}",
        f"{line['ci_low']:+.3f} to {line['ci_high']:+.3f}",
    ]
    told = f"p = {found['wilcoxon_p']:.2g}; the smallest that so many can give is {found['p_floor']:.2g}"
    assert told in ended.out
    assert ended.out.splitlines()[-1] == found["verdict"]
    assert "one:paper has 1 more category, which is left out" in found["cautions"]
    notes = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: {caution}" for caution in found["cautions"]]

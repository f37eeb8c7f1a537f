"""Tables: averages, intervals, ties and order, on results made by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from make_runs import toy_job
from rich.console import Console
from sklearn.metrics import roc_auc_score

from adbench_tgan.errors import AdbenchError
from adbench_tgan.leaderboard import (
    LEADERBOARD_COLUMNS,
    RESULT_COLUMNS,
    Rules,
    lacks,
    leaderboard_table,
    results_table,
    standings,
)
from adbench_tgan.ranking.selection import comparable, is_current, of_one_fingerprint, without_superseded
from adbench_tgan.ranking.spreads import _sharing
from adbench_tgan.results import Result
from adbench_tgan.terminal.views import leaderboard_views, records_view

LABELS = np.repeat([0, 1], [60, 40]).astype(np.uint8)


def result(detector, category="a", seed=0, shift=1.0, status="ok", device="cpu", **changes):
    """A job's result whose anomalies score `shift` standard deviations above its normal images."""
    own = {"config": {"epochs": 1}, "split_fingerprint": category * 64}
    job = toy_job(detector, category, seed, **(own | changes))
    if status == "failed":
        return Result(job=job, status="failed", error="RuntimeError: boom", device=device)
    draw = np.random.default_rng([ord(category[0]), seed])
    scores = draw.normal(size=100) + shift * LABELS
    table = pd.DataFrame({"sample_id": range(100), "label": LABELS, "score": scores.astype(np.float32)})
    metrics = {"auroc": roc_auc_score(LABELS, scores), "average_precision": 0.5}
    timing = {"fit_seconds": 2.0 + seed, "peak_memory_mb": 10.0 * (seed + 1)}
    return Result(
        job=job, status="ok", metrics=metrics, timing=timing, parameters={"g": 7}, device=device, scores=table
    )


def board(results):
    scores = {r.job.key: r.scores for r in results}
    return leaderboard_table(standings(results, lambda job: scores[job.key]))


def test_columns_are_those_of_the_contract():
    results = [result("good"), result("bad", status="failed")]
    assert list(results_table(results).columns) == RESULT_COLUMNS
    assert list(board(results).columns) == LEADERBOARD_COLUMNS
    assert len(RESULT_COLUMNS) == 32
    assert len(LEADERBOARD_COLUMNS) == 25


def test_the_two_tables_have_one_preset_for_the_same_settings_however_they_were_given():
    backbone = {"backbone": "lite"}
    found = [
        result("d", seed=0, preset="paper; epochs=1", config=backbone, precision="tf32"),
        result("d", seed=1, preset="paper; backbone=lite; epochs=1", config=backbone, precision="tf32"),
        result("d", seed=2, preset="paper", config={"backbone": "resnet"}),
        result("d", seed=3, preset="paper", config=backbone),
        result("d", seed=3, preset="paper", config={"backbone": "other"}, dataset="another", status="failed"),
    ]
    told = "paper; backbone=lite; epochs=1; precision=tf32"
    for results in (found, found[::-1]):
        presets = results_table(results).sort_values(["dataset", "seed"])["preset"]
        assert list(presets) == ["paper", told, told, "paper; backbone=resnet", "paper; backbone=lite"]
        assert set(board([each for each in results if each.status == "ok"])["preset"]) == set(presets) - {
            "paper"
        }


def test_absent_is_empty_never_zero_and_failures_are_rows(tmp_path):
    table = results_table([result("good"), result("bad", status="failed")])
    text = table.to_csv(index=False)
    bad, good = (pd.read_csv(__import__("io").StringIO(text)).iloc[i] for i in (0, 1))
    assert bad["status"] == "failed"
    assert bad["error"] == "RuntimeError: boom"
    assert bad[["auroc", "fit_seconds", "parameters"]].isna().all()
    assert good["parameters"] == 7
    assert pd.isna(good["aupro"])
    assert pd.isna(good["latency_ms_p50"])


@pytest.mark.parametrize("value", [10**300, -3, -1e300, float("nan"), 2.0**54], ids=str)
def test_a_time_or_count_that_nothing_can_have_taken_is_absent(value):
    one = replace(result("d"), timing={"flops_per_image": value, "fit_seconds": value})
    assert results_table([one])[["flops_per_image", "fit_seconds"]].isna().all(axis=None)
    many = replace(result("d"), parameters={str(number): 2**53 for number in range(1025)})
    assert results_table([many])["parameters"].isna().all()


def test_an_auroc_that_its_scores_do_not_give_is_ranked_nowhere():
    edited = replace(result("d"), metrics={"auroc": 0.123})
    with pytest.raises(
        AdbenchError, match=r"^d .*auroc is stored as 0.123, its scores give 0\.[5-9]\d*; remove its fol"
    ):
        board([edited, result("e")])


def test_seeds_are_averaged_before_categories():
    results = [result("d", "a", 0), result("d", "a", 1), result("d", "b", 0, shift=3.0)]
    a0, a1, b0 = (r.metrics["auroc"] for r in results)
    line = board(results).iloc[0]
    assert line["auroc_mean"] == pytest.approx(((a0 + a1) / 2 + b0) / 2)
    assert line["n_categories"] == 2
    assert line["n_seeds"] == 1  # in every category
    assert line["peak_memory_mb"] == 20
    assert line["fit_seconds"] == 2


def test_seed_deviation_is_that_of_whole_seeds_and_absent_with_one():
    results = [result("d", "a", seed) for seed in (0, 1, 2)]
    aurocs = [r.metrics["auroc"] for r in results]
    assert board(results).iloc[0]["auroc_seed_std"] == pytest.approx(np.std(aurocs, ddof=1))
    assert pd.isna(board(results[:1]).iloc[0]["auroc_seed_std"])


def test_the_interval_holds_the_mean_and_is_as_wide_as_theory_says():
    line = board([result("d")]).iloc[0]
    auroc = line["auroc_mean"]
    assert line["auroc_ci_low"] < auroc < line["auroc_ci_high"]
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)  # Hanley and McNeil 1982
    variance = (auroc * (1 - auroc) + 39 * (q1 - auroc**2) + 59 * (q2 - auroc**2)) / (40 * 60)
    width = line["auroc_ci_high"] - line["auroc_ci_low"]
    assert width == pytest.approx(2 * 1.96 * variance**0.5, rel=0.2)


def test_the_same_results_give_the_same_table():
    results = [result("d", "a", s) for s in (0, 1)] + [result("e", "a", s, shift=1.5) for s in (0, 1)]
    assert board(results).to_csv() == board(results[::-1]).to_csv()


def test_rows_that_may_be_equal_share_a_rank_and_others_do_not():
    results = [result("best", shift=3.0), result("twin", shift=2.99), result("poor", shift=0.2)]
    table = board(results).set_index("detector")
    assert list(table.index) == ["best", "twin", "poor"]
    assert list(table["rank"]) == [1, 1, 3]
    assert list(table["tie_group"]) == [1, 1, 2]


def test_supervision_is_ranked_apart_and_incomplete_rows_not_at_all():
    results = [
        result("plain", "a"),
        result("plain", "b"),
        result("partial", "a", shift=5.0),
        result("partial", "b", status="failed"),
        result("taught", "a", shift=5.0, supervision="labelled"),
        result("taught", "b", shift=5.0, supervision="labelled"),
    ]
    table = board(results).set_index("detector")
    assert list(table.index) == ["plain", "partial", "taught"]
    assert table.loc["plain", "rank"] == 1
    assert table.loc["taught", "rank"] == 1
    assert pd.isna(table.loc["partial", "rank"])
    assert table.loc["partial", "remark"] == "not ranked: no result for b"
    assert table.loc["plain", "remark"] == ""
    assert table.loc["partial", "n_failed"] == 1


def test_a_detector_that_only_failed_is_still_a_row():
    table = board([result("good"), result("bad", status="failed")]).set_index("detector")
    assert pd.isna(table.loc["bad", "auroc_mean"])
    assert table.loc["bad", "n_failed"] == 1
    assert pd.isna(table.loc["bad", "rank"])


@pytest.mark.parametrize(("precision", "rounding"), [("fp32", 5e-5), ("tf32", 2e-3), ("bf16", 1e-2)])
def test_impure_scores_are_flagged_and_rounding_is_not(precision, rounding):
    rows = [
        replace(result("pure", precision=precision), purity_delta=rounding),
        replace(result("impure", precision=precision), purity_delta=rounding * 3),
    ]
    remarks = board(rows).set_index("detector")["remark"]
    assert remarks["pure"] == ""
    assert remarks["impure"].startswith(
        "impure: scores or maps depend on their batch (relative change up to 0.0"
    )


def test_declared_failures_are_shown_with_their_reasons():
    known = {"scores_tell_images_apart": "it counts", "it_moves_between_devices": "CPU only"}
    remarks = board([replace(result("known"), declared=known), result("other")]).set_index("detector")[
        "remark"
    ]
    shown = "declared to fail these checks: scores tell images apart (it counts), it moves between devices (CPU only)"
    assert remarks["known"] == shown
    assert remarks["other"] == ""


def test_jobs_that_different_code_ran_are_said():
    def by(found, framework, detector="d", commit="c"):
        return replace(
            found, machine={"code": {"framework": framework, "detector": detector, "commit": commit}}
        )

    rows = [
        *(result("old", seed=seed) for seed in (0, 1)),  # of before this was recorded
        *(by(result("same", seed=seed), "f", commit=f"{seed}") for seed in (0, 1)),
        *(by(result("plugin", seed=seed), "f", f"{seed}") for seed in (0, 1)),
        *(by(result("mixed", seed=seed), f"{seed}") for seed in (0, 1)),
        result("mixed", seed=2),
        result("mixed", seed=3, status="failed"),
    ]
    remarks = board(rows).set_index("detector")["remark"]
    assert dict(remarks) == {
        "old": "",
        "same": "",
        "plugin": "its jobs were run with 2 different states of the code",
        "mixed": "its jobs were run with 3 different states of the code",
    }


def test_a_fallback_stands_in_the_row():
    table = results_table([replace(result("d"), notes=("trained without a graph", "and slowly"))])
    assert table.iloc[0]["error"] == "note: trained without a graph; note: and slowly"


def test_two_configurations_of_one_detector_are_two_rows():
    results = [result("d"), result("d", config={"epochs": 2}, preset="paper; epochs=2")]
    assert sorted(board(results)["preset"]) == ["paper", "paper; epochs=2"]


@pytest.mark.parametrize(
    ("name", "value"), [("precision", "bf16"), ("detector_version", "2"), ("supervision", "labelled")]
)
def test_jobs_that_differ_in_more_than_category_and_seed_share_no_row(name, value):
    table = board([result("d", seed=0), result("d", seed=1, **{name: value})])
    assert list(table["n_seeds"]) == [1, 1]


def test_times_of_two_machines_are_not_averaged():
    table = board([result("d", seed=0, device="cpu"), result("d", seed=1, device="NVIDIA H100")])
    assert pd.isna(table.iloc[0]["fit_seconds"])
    assert table.iloc[0]["auroc_mean"] > 0.5


def test_times_of_two_processors_or_numbers_of_threads_are_not_averaged():
    results = [result("d", seed=seed) for seed in (0, 1)]
    for machine, alike in (
        ({"cpu": "EPYC", "torch_threads": 1}, True),
        ({"cpu": "EPYC", "torch_threads": 1, "cpu_quota": 0.5}, False),
        ({"cpu": "EPYC", "torch_threads": 1, "cpu_capability": "AVX2"}, False),
        ({"cpu": "EPYC"}, False),
        ({}, False),
    ):
        mixed = [
            replace(results[0], machine={"cpu": "EPYC", "torch_threads": 1}),
            replace(results[1], machine=machine),
        ]
        assert pd.notna(board(mixed).iloc[0]["fit_seconds"]) == alike


def test_what_could_not_begin_is_superseded_by_what_then_ran_under_its_preset():
    """Settings that depend on the machine, such as the backbone found there, are resolved only where it can begin."""
    stuck = result("knn", status="failed", config={"backbone": "auto"}, problem="no weights")
    others = [
        replace(stuck, job=replace(stuck.job, **change)) for change in ({"seed": 1}, {"preset": "quick"})
    ]
    good = result("knn", config={"backbone": "resnet"})
    assert without_superseded([stuck, good, *others]) == [good, *others]
    crashed = result("knn", status="failed", config={"backbone": "lite0"})
    assert without_superseded([crashed, good]) == [crashed, good]


def test_images_that_could_not_be_read_do_not_outvote_those_that_could():
    unread = [result(name, status="failed", split_fingerprint="") for name in ("d", "e")]
    good = result("f")
    assert of_one_fingerprint([*unread, good]) == ([*unread, good], ())
    assert of_one_fingerprint(unread) == (unread, ())


def test_what_is_left_out_for_its_images_is_told_with_a_remedy_that_works():
    usual = [result(name, split_fingerprint="ab" * 32) for name in ("d", "e")]
    other = result("f", split_fingerprint="cd" * 32)
    kept, (note,) = of_one_fingerprint([other, *usual])
    assert kept == usual
    assert note.endswith(
        f"(of {other.job.category} images abababab under version 1 are shown, not images cdcdcdcd under version 1); "
        "run what has changed into another --out, and report that folder"
    )


def test_results_of_the_protocols_version_that_most_have_share_a_report():
    old, *new = (result(name, protocol_version=version) for name, version in zip("def", "122", strict=True))
    kept, (note,) = of_one_fingerprint([old, *new])
    assert kept == new
    assert "under version 2 are shown, not images aaaaaaaa under version 1" in note


def test_only_comparable_results_share_a_table():
    mine = result("d", "a")
    others = [
        result("d", "a", split_fingerprint="x" * 64),
        result("d", "a", dataset="other"),
        result("d", "a", protocol="leave-one-out"),
        result("d", "a", protocol_version="2"),
        result("d", "z"),
    ]
    assert comparable([mine, *others], [mine.job]) == [mine]


def test_results_of_another_version_than_the_installed_one_are_out_of_date():
    jobs = [result("d").job, result("d", detector_version="0").job, result("uninstalled").job]
    assert [is_current(job, {"d": "1"}) for job in jobs] == [True, False, True]


def test_a_row_with_a_remark_has_a_star_and_its_remark_below_the_table():
    table = board([result("pure"), replace(result("impure", shift=2.0), purity_delta=0.5)])
    console = Console(width=90)
    with console.capture() as shown:
        console.print(leaderboard_views(table, "toy")[0])
    lines = shown.get().splitlines()
    assert ["impure *" in line for line in lines].count(True) == 1
    assert "pure *" not in shown.get().replace("impure *", "")
    assert "* impure: impure: scores or maps depend on their batch" in " ".join(shown.get().split())


def test_a_rank_of_one_seed_says_below_the_table_what_it_leaves_out():
    of_one = [result("a"), result("b")]
    of_two = [result(name, seed=seed) for name in ("a", "b") for seed in (0, 1)]
    tables = [
        board(of_one),
        board(of_two),
        board(of_two).assign(n_seeds=[1, 2]),
        board(of_one).assign(rank=pd.NA),
    ]
    captions = [leaderboard_views(table, "toy")[0].caption for table in tables]
    told = "one seed: intervals and ranks omit variation between trainings"
    assert captions == [told, None, told, None]


def test_whole_numbers_stay_whole_beside_an_empty_cell():
    console = Console(width=40)
    with console.capture() as shown:
        console.print(records_view([{"of": "a", "epochs": ""}, {"of": "b", "epochs": 1200}], "toy"))
    assert "1,200 │" in shown.get()


def test_remarks_have_a_line_each_and_name_all_whose_they_are():
    results = [result(name) for name in ("one", "other", "third")]
    table = board(results).assign(remark=["few seeds", "few seeds", "[b]odd\n"])
    console = Console(width=90)
    with console.capture() as shown:
        console.print(leaderboard_views(table, "toy")[0])
    names = list(table["detector"])
    notes = [line.strip() for line in shown.get().splitlines() if line.startswith("* ")]
    assert notes == [f"* {names[0]}, {names[1]}: few seeds", rf"* {names[2]}: [b]odd\n"]


def test_seeds_that_differ_between_categories_have_no_common_deviation():
    results = [result("d", "a", seed) for seed in (0, 1)] + [result("d", "b", seed) for seed in (2, 3)]
    line = board(results).iloc[0]
    assert pd.isna(line["auroc_seed_std"])
    assert line["n_seeds"] == 2


def test_a_metric_that_one_category_lacks_has_no_mean():
    results = [result("d", "a"), result("d", "b")]
    results[0].metrics["pixel_auroc"] = 0.9
    assert pd.isna(board(results).iloc[0]["pixel_auroc_mean"])
    results[1].metrics["pixel_auroc"] = 0.7
    assert board(results).iloc[0]["pixel_auroc_mean"] == pytest.approx(0.8)


def test_one_seed_three_times_is_one_seed():
    again = [result("d", offer_fingerprint=str(n), supervision="labelled") for n in range(3)]
    assert list(lacks(again, {"a"}, Rules(seeds=3))) == ["1 of the 3 seeds needed"]


def beside(category, jobs, **timing):
    one = result("d", category, device="GPU")
    return replace(one, machine={"jobs_at_once": jobs}, timing={**one.timing, **timing})


def test_times_are_of_jobs_that_ran_alone_where_any_did():
    alone, others = beside("a", 1, fit_seconds=3.0), [beside(name, 4, fit_seconds=9.0) for name in "bc"]
    (row,) = board([alone, *others]).to_dict("records")
    assert (row["fit_seconds"], row["remark"].count("beside others")) == (3.0, 0)
    (row,) = board(others).to_dict("records")
    assert row["fit_seconds"] == 9.0
    assert "its times are from jobs that shared the machine with others" in row["remark"]
    (row,) = board([replace(each, timing={}) for each in others]).to_dict("records")
    assert "beside others" not in row["remark"]


def test_one_job_whose_purity_was_not_probed_keeps_a_row_from_its_rank():
    jobs = [replace(result("d", seed=seed), purity_delta=delta) for seed, delta in ((0, 1e-7), (1, None))]
    assert list(lacks(jobs, {"a"}, Rules(pure=True))) == [
        "whether its scores depend on their batch was not checked"
    ]
    assert list(lacks(jobs[:1], {"a"}, Rules(pure=True))) == []


def test_labelled_anomalies_out_of_different_images_never_share_a_table():
    results = [result(name, supervision="labelled", offer_fingerprint=name * 32) for name in ("ab", "cd")] + [
        result("d")
    ]
    with pytest.raises(
        AdbenchError, match=r"images \(abababab, cdcdcdcd\), which .* into another --out, and"
    ):
        board(results)
    kept = comparable(results, [results[0].job])
    assert [each.job.detector for each in kept] == ["ab", "d"]
    assert comparable(results, [results[2].job]) == [results[2]]
    assert len(comparable(results[1:], [results[2].job])) == 2


def test_scores_are_of_the_same_images_whatever_the_order_of_their_rows():
    results = [result("d"), result("e", shift=2.0)]
    mixed = [results[0], replace(results[1], scores=results[1].scores.sample(frac=1, random_state=0))]
    pd.testing.assert_frame_equal(board(mixed), board(results))


@pytest.mark.parametrize("column", ["sample_id", "label"])
def test_results_on_images_of_other_names_or_labels_never_share_a_table(column):
    results = sorted([result("d"), result("e")], key=lambda each: each.job.key)
    scores = results[1].scores
    others = scores["sample_id"].map("{}.png".format) if column == "sample_id" else 1 - scores["label"]
    results[1] = replace(results[1], scores=scores.assign(**{column: others}))
    with pytest.raises(AdbenchError) as caught:
        board(results)
    folders = " or ".join(f"toy/one-vs-rest/{r.job.detector}/a-seed0-{r.job.key[:8]}" for r in results)
    assert str(caught.value) == (
        f"{results[0].job} and {results[1].job} were scored on test images with different names or labels; remove the "
        f"folder of the older one ({folders}) and run again, or give --out another folder"
    )


def test_categories_that_a_third_one_joins_are_one_group():
    images = {"a": {"1", "2"}, "b": {"3", "4"}, "c": {"2", "3"}, "d": {"5"}}
    assert sorted(map(sorted, _sharing(images))) == [["a", "b", "c"], ["d"]]


def test_machines_and_parameters_of_jobs_whose_times_do_not_count():
    alone, other = beside("a", 1, fit_seconds=3.0), beside("b", 4, fit_seconds=9.0)
    other = replace(other, device="another GPU", parameters={"g": 9})
    (row,) = board([alone, other]).to_dict("records")
    assert (row["fit_seconds"], row["parameters"]) == (3.0, 8)  # the latter the median over all jobs


def test_as_good_as_one_flat_colour_is_no_better_than_it():
    flat = replace(result("flat"), reconstruction_error=1.0)
    assert board([flat])["remark"][0].startswith("in 1 of 1 jobs its networks reconstruct")


def test_code_of_jobs_that_failed_is_none_of_a_rows():
    def by(found, framework):
        return replace(found, machine={"code": {"framework": framework, "detector": "d"}})

    rows = [by(result("d"), "f"), by(result("d", seed=1, status="failed"), "g")]
    assert list(board(rows)["remark"]) == [""]


def test_a_failure_of_another_version_is_not_superseded():
    asked = {"backbone": "auto"}
    stuck = result("knn", status="failed", config=asked, problem="no weights", detector_version="2")
    good = result("knn", config={"backbone": "resnet"})
    assert without_superseded([stuck, good]) == [stuck, good]


def test_what_is_said_of_images_is_remarked():
    def noted(category, *notes):
        return replace(result("d", category), notes=notes)

    a = noted("a", "images: 1 of 7 is odd", "slow", "images: 2 of 7 are even")
    assert list(board([a])["remark"]) == ["of a's images: 1 of 7 is odd; 2 of 7 are even"]
    assert list(board([a, noted("b", "images: 3 of 7 are odd")])["remark"]) == [
        "of a's images, and of 1 more category: 1 of 7 is odd; 2 of 7 are even"
    ]
    assert list(board([noted("a", "slow")])["remark"]) == [""]


@pytest.mark.parametrize(
    "elsewhere",
    [{"category": "b"}, {"seed": 1}, {"dataset": "other"}, {"protocol": "other"}, {"protocol_version": "2"}],
    ids=str,
)
def test_a_failure_elsewhere_is_not_superseded(elsewhere):
    good, failed = result("d"), result("d", status="failed", **elsewhere)
    assert without_superseded([good, failed]) == [good, failed]
    begun = replace(failed, job=replace(failed.job, problem="no weights"))
    assert without_superseded([good, begun]) == [good, begun]


def test_what_could_not_begin_in_another_precision_is_not_superseded():
    stuck = result("d", status="failed", config={"backbone": "auto"}, problem="no weights", precision="bf16")
    assert without_superseded([stuck, result("d")])[0] == stuck


def test_a_failure_on_other_images_is_not_superseded():
    good, failed = result("d", split_fingerprint="b" * 64), result("d", status="failed")
    assert without_superseded([good, failed]) == [good, failed]
    assert comparable(without_superseded([good, failed]), [failed.job]) == [failed]
    unread = result("d", status="failed", split_fingerprint="")
    assert without_superseded([good, unread]) == [good]

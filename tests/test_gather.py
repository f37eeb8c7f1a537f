"""Which jobs a board takes, from which runs, and which of its rows are ranked."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from make_board import CATEGORIES, NOTHING, board_of, grid, made, stored

from adbench_tgan import boards
from adbench_tgan.boards import Choice, gather
from adbench_tgan.boards.board import IMAGE_METRICS, canonical, judge
from adbench_tgan.boards.choice import is_wanted, of_installed_protocol, of_presets, one_kind, select
from adbench_tgan.boards.gather import gaps
from adbench_tgan.data.spec import ProtocolSpec
from adbench_tgan.errors import AdbenchError
from adbench_tgan.registry import Registry
from adbench_tgan.results import ResultStore


def test_few_seeds_missing_categories_and_impure_scores_are_shown_unranked(tmp_path):
    results = grid(("good", "fair", "poor", "taught"))
    drop = [("fair", "bee", 2), *(("poor", "bee", seed) for seed in (0, 1, 2))]
    results = [r for r in results if (r.job.detector, r.job.category, r.job.seed) not in drop]
    results = [replace(r, purity_delta=0.01) if r.job.detector == "taught" else r for r in results]
    more = [made("unknown", c, s, 1.0) for c in CATEGORIES for s in (0, 1, 2)]
    results += [replace(r, purity_delta=None) for r in more]
    failed = made("poor", "bee", 0, 0.1)
    results.append(
        replace(
            failed,
            status="failed",
            error="=cmd|' /C calc'!A0",
            scores=None,
            losses=(),
            metrics={},
            parameters={},
        )
    )
    board = board_of(tmp_path / "runs", results)
    remark = board.leaderboard.set_index("detector")["remark"]
    assert remark["good"] == ""
    assert remark["fair"] == "not ranked: 2 of the 3 seeds needed"
    assert remark["poor"] == "not ranked: no result for bee"
    assert remark["taught"].startswith(
        "not ranked: impure: scores or maps depend on their batch (relative change up to 0.01"
    )
    assert remark["unknown"] == "not ranked: whether its scores depend on their batch was not checked"
    assert board.leaderboard.set_index("detector")["rank"].notna().sum() == 1
    assert boards.publish(board, tmp_path)
    assert ",'=cmd|" in (tmp_path / "toy/results.csv").read_text()
    assert (boards.read(tmp_path / "toy").results["error"] == "=cmd|' /C calc'!A0").sum() == 1
    found = [str(each) for each in boards.verify(tmp_path / "toy")]
    assert len(found) == 12
    for key, name, problem in (
        (
            results[-2].job.key,
            "unknown",
            "whether its scores depend on their batch was not checked; run it again",
        ),
        (
            next(r for r in results if r.job.detector == "taught").job.key,
            "taught",
            "its scores depend on their batch (relative change 0.01, at most 0.0001 is allowed); publish without it "
            "(--detectors)",
        ),
    ):
        (job,) = [each for each in found if key in each]
        assert re.fullmatch(rf"toy/results.csv: {key} \({name}, \w+, seed \d\), purity_delta: (.*)", job)
        assert job.endswith(problem)


def test_a_board_with_impure_scores_is_announced_as_one_that_verify_refuses(adbench, tmp_path):
    results = grid(("good", "poor", "taught"))
    for name, delta, status in (("pure", 5e-5, 0), ("impure", 5e-4, 1)):
        runs = stored(tmp_path / name, [*results[:-1], replace(results[-1], purity_delta=delta)])
        words = ("--board", name, "--out", tmp_path / "boards")
        ended = adbench("publish", "--runs", runs, *words)
        assert ended.status == 0
        told = "adbench verify will refuse this board: scores depend on their batch, or were not probed for it: taught"
        assert (told in ended.err) == (status == 1)
        ended = adbench("verify", tmp_path / "boards" / name)
        assert ended.status == status
    (line,) = [each for each in ended.out.splitlines() if "purity_delta" in each]
    assert line.startswith(f"impure/results.csv: {results[-1].job.key} (taught, bee, seed 2), purity_delta: ")


def test_a_result_that_no_run_can_have_measured_is_not_published(adbench, tmp_path):
    results = grid(("good", "poor"))
    edited = replace(results[-1], timing={"fit_seconds": -1.0})
    runs = stored(tmp_path / "runs", [*results[:-1], edited])
    ended = adbench("publish", "--runs", runs, "--board", "toy", "--out", tmp_path / "boards")
    assert ended.status == 2
    assert ended.error == (
        f"{edited.job}: fit_seconds must not be -1.0; remove its folder "
        f"({ResultStore(Path()).folder(edited.job)}) and run again"
    )
    assert not (tmp_path / "boards/toy").exists()


def test_runs_of_several_kinds_are_refused_until_one_is_chosen(tmp_path):
    results = [*grid(), made("good", "ant", 0, 1.0, dataset="other")]
    with pytest.raises(AdbenchError, match=r"other one-vs-rest .*toy one-vs-rest .*--data and --protocol"):
        board_of(tmp_path / "runs", results)
    board = board_of(tmp_path / "runs", [], choice=Choice(dataset="toy", detectors=["good", "poor"]))
    assert set(board.leaderboard["detector"]) == {"good", "poor"}
    with pytest.raises(AdbenchError, match="unknown detector of these runs 'godo'; did you mean good"):
        board_of(tmp_path / "runs", [], choice=Choice(dataset="toy", detectors=["godo"]))
    with pytest.raises(AdbenchError, match="unknown preset of these runs 'papr'; did you mean paper"):
        board_of(tmp_path / "runs", [], choice=Choice(dataset="toy", presets=["papr"]))
    with pytest.raises(
        AdbenchError, match="unknown protocol of these runs 'one-rest'; did you mean one-vs-rest"
    ):
        board_of(tmp_path / "runs", [], choice=Choice(protocol="one-rest"))
    with pytest.raises(AdbenchError, match="unknown dataset of these runs 'tiy'; did you mean toy"):
        board_of(tmp_path / "runs", [], choice=Choice(dataset="tiy"))
    for choice in (Choice(), Choice(dataset="toy", detectors=["good"])):
        with pytest.raises(AdbenchError, match="these runs hold no result; adbench run"):
            board_of(tmp_path / "empty", [], choice=choice)


def test_a_choice_that_no_result_fits_is_named():
    results = [made("good", "ant", 0, 1.0), made("poor", "ant", 0, 1.0, dataset="other", protocol="official")]
    registry = Registry(_offers=NOTHING)
    with pytest.raises(AdbenchError, match="unknown detector of these runs 'poor'; did you mean good"):
        select(results, Choice(dataset="toy", detectors=["poor"]), registry)
    with pytest.raises(AdbenchError, match="these runs hold no such result"):
        select(results, Choice(dataset="toy", protocol="official"), registry)


def test_two_versions_of_a_protocol_are_two_kinds():
    results = [made("good", "ant", 0, 1.0, protocol_version=version) for version in "12"]
    with pytest.raises(
        AdbenchError, match=r"toy one-vs-rest \(version 1\), toy one-vs-rest \(version 2\); install the"
    ):
        one_kind(results)


def test_jobs_of_another_version_of_an_installed_protocol_are_left_out(tmp_path):
    results = [
        made("good", "ant", seed, 1.0, protocol_version=version) for version in "12" for seed in (0, 1)
    ]
    runs = [stored(tmp_path / "runs", results)]
    for version in "12":
        said: list[str] = []
        spec = ProtocolSpec(name="one-vs-rest", version=version, target="none:none", layout="classes")
        registry = Registry(_offers=NOTHING | {"protocol": [(spec, None)]})
        board = boards.from_runs(runs, registry, say=said.append)
        assert [each.job.protocol_version for each in board.measured] == [version, version]
        assert said == ["left out: 2 jobs of another version of a protocol than the installed one"]
    other = made("good", "ant", 0, 1.0, dataset="other", protocol_version="1")  # of which nothing is newer
    assert of_installed_protocol([*results, other], registry, said.append) == [*results[2:], other]
    newer = replace(spec, version="3")
    with pytest.raises(AdbenchError, match="install the version to be used"):
        boards.from_runs(runs, Registry(_offers=NOTHING | {"protocol": [(newer, None)]}))
    one = [stored(tmp_path / "one", results[:2])]
    assert boards.from_runs(one, Registry(_offers=NOTHING | {"protocol": [(newer, None)]})).measured


def test_other_images_never_share_a_board(tmp_path):
    results = [made("good", "ant", 0, 1.0), made("fair", "ant", 0, 1.0, split_fingerprint="9" * 64)]
    with pytest.raises(
        AdbenchError, match=r"'ant' has results on 2 different sets of images \(99999999, aaaaaaaa\)"
    ):
        board_of(tmp_path / "a", results)
    one, other = made("good", "ant", 0, 1.0), made("fair", "ant", 0, 1.0)
    other.scores.loc[3, "label"] = 1 - other.scores.loc[3, "label"]
    with pytest.raises(
        AdbenchError,
        match="good on toy/ant seed 0 and fair on toy/ant seed 0 were scored on test images with different",
    ):
        board_of(tmp_path / "b", [one, other])


def test_a_metric_that_is_not_the_scores_own_is_refused(tmp_path):
    one = made("good", "ant", 0, 1.0)
    with pytest.raises(AdbenchError, match=r"good on toy/ant seed 0: auroc is stored as 0.99"):
        board_of(tmp_path, [replace(one, metrics={"auroc": 0.99})])


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_each_metric_of_images_is_compared_with_that_of_the_scores(name):
    one = made("good", "ant", 0, 1.0)
    judged = judge(one, {one.job.key: canonical(one.scores)})
    value = judged.metrics[name]

    def told(stored, scores):
        with pytest.raises(AdbenchError) as caught:
            gather.check_metrics([replace(one, metrics={name: stored})], [replace(one, metrics=scores)])
        return str(caught.value)

    gather.check_metrics([replace(one, metrics={name: value + 1e-10})], [judged])
    remedy = f"remove its folder ({ResultStore(Path()).folder(one.job)}) and run again"
    wrong = f"good on toy/ant seed 0: {name} is stored as {{}}, its scores give {{}}; {remedy}"
    assert told(value + 1e-8, judged.metrics) == wrong.format(value + 1e-8, value)
    assert told(value, {}) == wrong.format(value, None)


def test_results_of_several_folders_are_one_board(tmp_path):
    results = grid()
    halves = [stored(tmp_path / "a", results[:12]), stored(tmp_path / "b", results[8:])]
    board = boards.from_runs(halves, Registry(_offers=NOTHING), name="toy")
    assert len(board.results) == 18


def test_a_job_is_taken_from_the_first_folder_in_which_it_ended_well(tmp_path):
    good, worse = made("good", "ant", 0, 2.0), made("good", "ant", 0, 0.5)
    lost = replace(good, status="failed", error="out of memory", scores=None, metrics={})
    places = [
        stored(tmp_path / name, [each])
        for name, each in (("a", lost), ("b", good), ("c", worse), ("d", lost))
    ]
    several, alone = (boards.from_runs(each, Registry(_offers=NOTHING)) for each in (places, places[1:2]))
    assert [result.status for result in several.measured] == ["ok"]
    pd.testing.assert_frame_equal(several.leaderboard, alone.leaderboard)


def test_a_board_lacks_no_seed_in_silence(tmp_path, adbench):
    results = [made("good", "ant", 0, 2.0), made("good", "ant", 1, 2.0), made("poor", "ant", 0, 0.1)]
    path = ResultStore(stored(tmp_path / "runs", results)).folder(results[0].job) / "result.json"
    whole = path.read_text()
    newer = "of a newer adbench-tgan (schema 9); upgrade to read it"
    for text, why in (
        (whole.replace('"schema": 2', '"schema": 9'), newer),
        ('{"trunc', "damaged; run its job again"),
    ):
        path.write_text(text)
        ended = adbench("publish", "--board", "toy", "--detectors", "good", "--runs", tmp_path / "runs")
        assert ended.error == f"{path} would be missing from the board: {why}, or remove its folder"
    ended = adbench("compare", "good", "poor")
    note = (
        f"note: {path.relative_to(tmp_path)} is left alone and not in the tables: damaged; run its job again"
    )
    assert (ended.status, note in ended.err) == (0, True)


def test_a_gap_is_what_a_choice_may_have_taken():
    path = Path("runs/toy/one-vs-rest/good%2F1/ant-seed0-0123abcd/result.json")
    taken = ["0123abcd" + "0" * 56]
    for choice, keys, missed in (
        (Choice(), [], True),
        (Choice(), taken, False),  # it stands in another folder, or on the board
        (Choice(detectors=["good/1"], dataset="toy", protocol="one-vs-rest"), [], True),
        (Choice(detectors=["poor"]), [], False),
        (Choice(dataset="digits"), [], False),
        (Choice(protocol="leave-one-out"), [], False),
    ):
        assert gaps({path: "damaged"}, choice, keys) == ({path: "damaged"} if missed else {})


def test_a_failure_for_want_of_weights_may_give_way_to_what_ran_with_them(folder, monkeypatch):
    mended = made("good", "ant", 0, 1.0, preset="paper")
    job = replace(mended.job, config={"epochs": "auto"}, problem="no weights")
    lost = replace(mended, job=job, status="failed", error="no weights", scores=None, metrics={})
    registry = Registry(_offers=NOTHING)
    assert select([lost, mended], Choice(), registry) == [mended]
    assert select([lost], Choice(), registry) == [lost]
    monkeypatch.setattr(gather, "results_of", lambda _: (lost,))
    gather.check_lost(folder, [mended], None)
    with pytest.raises(AdbenchError, match=r"holds 1 job \(of good\) that the new board would lack"):
        gather.check_lost(folder, [made("good", "ant", 1, 1.0)], None)


def test_categories_with_other_seeds_have_commands_of_their_own(tmp_path):
    results = [made("good", "ant", seed, 1.0) for seed in (0, 1, 2)]
    results += [made("good", "bee", seed, 1.0) for seed in (3, 4, 5)]
    board = board_of(tmp_path / "runs", results)
    boards.publish(board, tmp_path)
    content = json.loads((tmp_path / "toy/board.json").read_text())
    assert [
        re.findall("--categories (.*) --seeds (.*) --preset", each) for each in content["commands"][:-1]
    ] == [[("ant", "0,1,2")], [("bee", "3,4,5")]]
    assert board.leaderboard.iloc[0]["n_seeds"] == 3


def test_a_preset_may_be_chosen_as_the_tables_have_it(tmp_path):
    results = [*grid(("good",)), *(made("good", "ant", seed, 1.0, precision="tf32") for seed in (0, 1, 2))]
    choice = Choice(presets=["paper; precision=tf32"])
    board = board_of(tmp_path / "runs", results, choice=choice)
    assert set(board.results["precision"]) == {"tf32"}
    one, other = (
        made("good", "bee", 0, 1.0, config={"backbone": name}, protocol_version="3")
        for name in ("one", "other")
    )
    board = board_of(tmp_path / "bee", [one, other], choice=Choice(presets=["paper; backbone=one"]))
    assert [each.job for each in board.measured] == [one.job]
    assert board.facts.protocol["version"] == "3"


def test_a_preset_may_be_chosen_with_a_precision_or_without():
    results = [made("good", "ant", 0, 1.0, precision=precision) for precision in ("fp32", "tf32")]
    assert of_presets(results, ["paper"]) == results
    assert of_presets(results, ["paper; precision=tf32"]) == results[1:]
    told_apart = [replace(each, job=replace(each.job, config={"net": "b"})) for each in results]
    assert of_presets([*results, *told_apart], ["paper; precision=tf32"]) == [results[1], told_apart[1]]


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({}, True),
        ({"detectors": ["fair", "good"], "dataset": "toy", "protocol": "one-vs-rest"}, True),
        ({"detectors": ["fair"]}, False),
        ({"dataset": "other"}, False),
        ({"protocol": "leave-one-out"}, False),
    ],
    ids=str,
)
def test_a_job_is_wanted_if_all_of_a_choice_is_its_own(choice, wanted):
    assert is_wanted(made("good", "ant", 0, 1.0).job, Choice(**choice)) == wanted


def test_jobs_of_another_version_of_an_installed_detector_are_left_out():
    found = SimpleNamespace(version="1")
    installed, said = SimpleNamespace(versions=lambda: {"good": "2"}, find=lambda *_: found), []
    results = [made("good", "ant", 0, 1.0, detector_version=version) for version in "12"]
    gone = made("gone", "ant", 0, 1.0)  # whose plugin is not installed
    assert select([*results, gone], Choice(), installed, said.append) == [results[1], gone]
    assert said == ["left out: 1 job of another version of a detector than the installed one (good)"]
    with pytest.raises(
        AdbenchError,
        match="all results are of other versions of their detectors than the installed ones; run them",
    ):
        select(results[:1], Choice(), installed)


def test_labelled_anomalies_that_were_chosen_otherwise_do_not_compare(tmp_path):
    results = [replace(each, anomalies_fingerprint="a" * 64) for each in grid(("taught",))]
    results[-1] = replace(results[-1], anomalies_fingerprint="b" * 64)
    with pytest.raises(AdbenchError, match="on 2 different sets of images"):
        board_of(tmp_path / "runs", results)


def test_images_of_one_name_are_refused(tmp_path):
    one = made("good", "ant", 0, 1.0)
    one.scores.loc[1, "sample_id"] = one.scores.loc[0, "sample_id"]
    with pytest.raises(AdbenchError, match="good on toy/ant seed 0: test images share a sample_id"):
        board_of(tmp_path, [one])

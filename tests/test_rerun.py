"""`adbench verify --against`: a board's jobs, run again."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from make_board import CATEGORIES, board_of, made, stored
from sklearn.metrics import roc_auc_score

from adbench_tgan import boards
from adbench_tgan.boards.board import canonical
from adbench_tgan.boards.folder import (
    parquet,
)
from adbench_tgan.boards.rerun import _differences


def test_runs_of_ones_own_are_compared_with_a_board(adbench, runs, tmp_path):
    assert adbench("publish", "--runs", runs, "--board", "toy", "--out", tmp_path).status == 0
    ended = adbench("verify", tmp_path / "toy", "--against", runs)
    assert (ended.status, ended.out.splitlines()[-1]) == (
        0,
        f"{tmp_path / 'toy'}: jobs run again: 24, with the same scores: 24",
    )
    half = next(runs.glob("*/*/*/*/result.json"))
    half.write_text('{"trunc')
    ended = adbench("verify", tmp_path / "toy", "--against", runs)
    assert ended.out.splitlines()[-1].endswith("jobs run again: 23, with the same scores: 23")
    told = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    assert told == [f"note: {half} is left alone and not compared: damaged; run its job again"]
    first, second, *_ = sorted(runs.glob("*/*/*/*/scores.parquet"))
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    ended = adbench("verify", tmp_path / "toy", "--against", runs)
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[-1].endswith("jobs run again: 21, with the same scores: 21")
    changed = f"was changed after it was written; delete {first.parent} and run again"
    gone = f"cannot be read (it is missing, or not a regular file); delete {second.parent} and run again"
    told = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    for path, why in ((first, changed), (second, gone)):
        assert f"note: {path} is left alone and not compared: {why}" in told
    one = made("good", "ant", 0, 2.0)
    one.scores.iloc[0, 2] += 1
    ended = adbench("verify", tmp_path / "toy", "--against", stored(tmp_path / "own", [one]))
    assert ended.status == 1
    (told,) = [
        line for line in ended.out.splitlines() if "good on toy/ant seed 0: scores differ by up to 0." in line
    ]
    drawn, low, high = re.search(
        r", ([\d.]+) in the run, within what .* \(([\d.]+) to ([\d.]+), 95 %\)$", told
    ).groups()
    assert 0 < float(low) < float(drawn) < float(high) <= 1
    one.scores["score"] *= -1
    ended = adbench("verify", tmp_path / "toy", "--against", stored(tmp_path / "own again", [one]))
    assert f" in the run, outside what another seed would have ({low} to {high}, 95 %)" in ended.out
    assert "jobs run again: 1, with the same scores: 0" in ended.out
    ended = adbench(
        "verify", tmp_path / "toy", "--against", stored(tmp_path / "others", [made("bad", "ant", 0, 2.0)])
    )
    assert ended.status == 2
    assert ended.error.startswith(
        f"--against: these runs have no job of {tmp_path / 'toy'}, so nothing was compared"
    )


def test_a_board_that_cannot_be_read_keeps_no_other_from_being_compared(adbench, material, tmp_path):
    toy, runs = material[1], material[1].parent / "runs"
    for name in ("broken", "lacking", "toy"):
        shutil.copytree(toy, tmp_path / "boards" / name)
    (tmp_path / "boards/broken/board.json").write_text("{")
    lost = next((tmp_path / "boards/lacking/scores").iterdir())
    frame = pd.read_parquet(lost)
    lost.write_bytes(parquet(frame[frame["key"] != frame["key"][0]]))
    ended = adbench("verify", "boards", "--against", runs)
    lines = ended.out.splitlines()
    assert ended.status == 1
    assert (
        "broken/board.json: cannot be compared with runs: boards/broken/board.json cannot be read"
        in ended.out
    )
    assert "boards/broken: jobs run again: 0, with the same scores: 0" in lines
    assert "ant seed 0: the board lacks its scores" in ended.out
    assert lines[-1].startswith("boards/toy: jobs run again: ")
    again, same = re.findall(r"\d+", lines[-1])
    assert again == same


def test_pixel_metrics_are_compared_with_those_of_a_run(adbench, tmp_path):
    one = made("good", "ant", 0, 2.0)
    runs = stored(tmp_path / "runs", [replace(one, metrics={**one.metrics, "aupro": 0.5})])
    forged = replace(one, metrics={**one.metrics, "aupro": 0.999})
    adbench("publish", "--runs", stored(tmp_path / "forged", [forged]), "--board", "toy", "--out", tmp_path)
    ended = adbench("verify", tmp_path / "toy", "--against", runs)
    assert ended.status == 1
    assert "aupro: 0.9990 published, 0.5000 in the run" in ended.out


def test_metrics_that_a_board_lacks_are_not_compared_and_said(adbench, tmp_path):
    runs = stored(tmp_path / "runs", [made("good", name, 0, 2.0) for name in CATEGORIES])
    bare = [replace(made("good", name, 0, 2.0), metrics={}) for name in CATEGORIES]
    adbench("publish", "--runs", stored(tmp_path / "bare", bare), "--board", "toy", "--out", tmp_path)
    adbench("publish", "--runs", runs, "--board", "full", "--out", tmp_path)
    ended = adbench("verify", "toy", "--against", runs)
    assert ended.out.splitlines()[-1] == "toy: jobs run again: 2, with the same scores: 2"
    assert "note: toy: pixel_auroc of 2 jobs not compared: the board lacks it" in ended.err.splitlines()
    assert "not compared" not in adbench("verify", "full", "--against", runs).err
    ended = adbench("verify", "full", "--against", tmp_path / "bare")
    assert ended.status == 1
    assert ended.out.count(" published, none in the run") == 2


@pytest.mark.parametrize("name", ["pixel_auroc", "aupro"])
@pytest.mark.parametrize("step", [1e-3, -1e-3])
def test_each_metric_of_pixels_is_compared(name, step):
    one = replace(made("good", "ant", 0, 2.0), metrics={"pixel_auroc": 0.5, "aupro": 0.5})
    other = replace(one, metrics={**one.metrics, name: 0.5 + step})
    scores = canonical(one.scores)
    assert list(_differences(one, scores, one, scores)) == []
    (told,) = _differences(one, scores, other, scores)
    assert told == f"{name}: 0.5000 published, {0.5 + step:.4f} in the run"


def test_failures_and_other_test_images_are_not_the_same_job_run_again(material, tmp_path):
    one = made("good", "ant", 0, 2.0)
    failed = replace(one, status="failed", error="boom", scores=None, metrics={}, losses=())
    told: list[Path] = []
    lost = stored(tmp_path / "failed", [failed])
    assert boards.rerun(material[1], [lost], lambda path, _: told.append(path)) == (0, [])
    boards.publish(board_of(tmp_path / "failed", []), tmp_path)
    assert boards.rerun(tmp_path / "toy", [stored(tmp_path / "ended", [one])]) == (0, [])
    assert told == []
    others = replace(one, scores=one.scores.assign(sample_id=one.scores["sample_id"] + ".png"))
    count, (found,) = boards.rerun(material[1], [stored(tmp_path / "others", [others])])
    assert (count, found.problem) == (1, "the run has other test images")


def test_scores_are_compared_to_the_rounding_of_their_precision_and_labels_too():
    one = replace(made("good", "ant", 0, 2.0, precision="tf32"), metrics={"aupro": 0.5})
    scores, again = canonical(one.scores), replace(one, metrics={"aupro": 0.502})
    close, turned = (scores.assign(score=scores["score"] * by) for by in (1.002, -1))
    assert list(_differences(one, scores, again, close)) == []
    exact = replace(one, job=replace(one.job, precision="fp32"))
    assert len(list(_differences(exact, scores, again, close))) == 2
    (told,) = _differences(one, scores, one, turned)
    auroc = roc_auc_score(scores["label"], scores["score"])
    assert told.endswith(f": AUROC {auroc:.4f} published, {1 - auroc:.4f} in the run")
    others = turned.assign(label=1 - turned["label"])
    assert list(_differences(one, scores, one, others)) == ["the run has other test images"]


def test_a_constant_in_all_scores_does_not_hide_that_others_came_out(adbench, tmp_path):
    plain, turned = made("good", "ant", 0, 2.0), made("good", "ant", 0, 2.0)
    plain.scores["score"] = 1e7 + plain.scores["score"]
    turned.scores["score"] = 2e7 - plain.scores["score"]
    adbench("publish", "--runs", stored(tmp_path / "one", [plain]), "--board", "toy", "--out", tmp_path)
    ended = adbench("verify", tmp_path / "toy", "--against", stored(tmp_path / "other", [turned]))
    assert (ended.status, "with the same scores: 0" in ended.out) == (1, True)


@pytest.mark.parametrize(
    ("capability", "told"),
    [
        (
            "AVX512",
            ["made on an abacus with AVX2, 1 threads, torch 2; run on an abacus with AVX512, 1 threads"],
        ),
        ("AVX2", []),
    ],
)
def test_where_scores_differ_other_instructions_are_told(capability, told, adbench, tmp_path):
    here = {"cpu": "an abacus", "torch_threads": 1, "versions": {"torch": "2"}}
    plain = replace(made("good", "ant", 0, 2.0), machine=here | {"cpu_capability": "AVX2"})
    other = replace(made("good", "ant", 0, 1.0), machine=here | {"cpu_capability": capability})
    adbench("publish", "--runs", stored(tmp_path / "one", [plain]), "--board", "toy", "--out", tmp_path)
    assert "* an abacus with AVX2: torch threads 1" in (tmp_path / "toy/README.md").read_text()
    ended = adbench("verify", tmp_path / "toy", "--against", stored(tmp_path / "other", [other]))
    assert (ended.status, "with the same scores: 0" in ended.out) == (1, True)
    notes = [line.partition("toy: ")[2] for line in ended.err.splitlines() if "made on" in line]
    assert [note.partition(", torch 2: these round")[0] for note in notes] == told


@pytest.mark.parametrize(
    ("precision", "by", "told"), [("fp32", 5e-5, 0), ("fp32", 2e-4, 1), ("tf32", 1e-3, 0), ("bf16", 1e-2, 0)]
)
def test_scores_may_differ_by_rounding_of_their_precision_and_no_more(precision, by, told):
    one = made("good", "ant", 0, 2.0, precision=precision)
    table = canonical(one.scores)
    own = table.assign(score=table["score"] * (1 + by))
    assert len(list(_differences(one, table, one, own))) == told

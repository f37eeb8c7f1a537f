"""Published boards: the same bytes again, from the scores alone; what is on them, and how they are replaced."""

import hashlib
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from make_board import CATEGORIES, NOTHING, board_of, change_cell, change_scores, grid, made, stored
from sklearn.metrics import roc_auc_score

from adbench_tgan import boards
from adbench_tgan.again import joined
from adbench_tgan.boards import folder as folder_module
from adbench_tgan.boards import gather
from adbench_tgan.boards.cells import from_csv, to_csv
from adbench_tgan.boards.document import commands
from adbench_tgan.boards.folder import (
    _encoded,
    _holds,
    unreadable,
)
from adbench_tgan.boards.readme import cell
from adbench_tgan.boards.schemas import RESULTS
from adbench_tgan.errors import AdbenchError
from adbench_tgan.ranking import comparison
from adbench_tgan.registry import Registry
from adbench_tgan.report.material import from_board, from_store
from adbench_tgan.store import places
from adbench_tgan.text import marked, plain, unmarked


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_a_board_has_all_its_files_and_publishing_again_changes_nothing(material, tmp_path):
    _, place = material
    names = ("good", "fair", "poor")
    files = "results.csv leaderboard.csv pairs.csv board.json README.md intervals.png critical_difference.png".split()
    files += [f"scores/{name}.parquet" for name in names] + [f"losses/{name}.csv" for name in names]
    first = contents(place)
    assert set(first) == set(files)
    again = board_of(tmp_path / "runs", grid()[::-1])
    assert not boards.publish(again, place.parent)
    assert boards.publish(again, tmp_path)
    assert contents(tmp_path / "toy") == first
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []


def test_a_last_digit_that_is_a_tie_falls_alike_whatever_the_last_bit(tmp_path):
    texts = []
    for value in (math.nextafter(0.7654325, 0), 0.7654325, math.nextafter(0.7654325, 1)):
        one = replace(made("good", "ant", 0, 2.0), metrics={"pixel_auroc": value})
        texts.append(to_csv(board_of(tmp_path / str(len(texts)), [one]).results, RESULTS.words))
    assert texts[0] == texts[1] == texts[2]


def test_the_command_rebuilds_a_board_from_its_scores_alone(material, tmp_path, adbench):
    place = tmp_path / "theirs" / "toy"
    shutil.copytree(material[1], place)
    for table in ("leaderboard.csv", "results.csv", "pairs.csv", "README.md"):
        (place / table).unlink()
    words = ("publish", "--again", place, "--out", tmp_path / "mine")
    assert adbench(*words, "--board", "toy").status == 0
    assert contents(tmp_path / "mine" / "toy") == contents(material[1])
    refused = adbench(*words, "--board", "other")
    assert refused.error == "--again holds the board 'toy', not 'other'; give --board toy"
    assert "recomputing" not in refused.err
    ended = adbench(*words, "--board", "toy", "--preset", "quick")
    assert "--preset and --audit apply to --runs; give --runs too" in ended.error


def test_runs_are_added_to_a_board(material, tmp_path, adbench):
    results, whole = grid(), material[1]
    part = stored(tmp_path / "part", [each for each in results if each.job.detector == "good"])
    rest = stored(tmp_path / "rest", [each for each in results if each.job.detector != "good"])
    words = ("publish", "--board", "toy", "--out", tmp_path / "boards")
    assert adbench(*words, "--runs", part, "--note", "By hand.").status == 0
    assert adbench(*words, "--runs", rest, "--again", tmp_path / "boards/toy").status == 0
    assert boards.verify(tmp_path / "boards/toy") == []
    both = json.loads((tmp_path / "boards/toy/board.json").read_text())
    assert both["note"] == "By hand."
    named = ("--board", "mine", "--again", tmp_path / "boards/toy", "--runs", rest)
    assert adbench("publish", "--out", tmp_path / "boards", *named).status == 0
    assert boards.verify(tmp_path / "boards/mine") == []
    assert (tmp_path / "boards/mine/results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    mine = json.loads((tmp_path / "boards/mine/board.json").read_text())
    assert mine["note"] == "This board has the jobs of toy, whose note says: By hand."
    names = ("leaderboard.csv", "results.csv", "pairs.csv", "scores/good.parquet", "losses/good.csv")
    for name in names:
        assert (tmp_path / "boards/toy" / name).read_bytes() == (whole / name).read_bytes()


def test_runs_of_several_datasets_add_those_of_the_boards_own(material, tmp_path, adbench):
    others = [made("mine", "ant", 0, 1.0, dataset="tools"), made("mine", "ant", 0, 1.0, protocol="official")]
    words = ("publish", "--board", "mine", "--out", "boards", "--again", material[1], "--runs")
    ended = adbench(*words, stored(tmp_path / "mixed", [made("mine", "ant", 0, 1.0), *others]))
    assert (ended.status, "boards/mine is written: 19 jobs" in ended.out) == (0, True), ended.err
    assert "note:" not in ended.err
    assert "cost, on the machine of each" in ended.out
    without = adbench(*words, stored(tmp_path / "others", others), "--replace")
    told = "note: nothing is added: toy (toy, one-vs-rest) has these jobs already, or --runs holds none of its kind"
    assert (without.status, told in without.err.splitlines()) == (0, True), without.err
    assert told in adbench(*words, stored(tmp_path / "same", grid()[:1])).err.splitlines()


def test_who_chooses_among_the_jobs_of_a_board_is_told_how_many_are_not_taken(material, tmp_path, adbench):
    runs = stored(tmp_path / "mine", [made("mine", "ant", 0, 1.0)])
    words = ("publish", "--board", "mine", "--out", "boards", "--again", material[1], "--runs", runs)
    ended = adbench(*words, "--detectors", "mine,good")
    told = (
        "note: 12 jobs of toy not taken: --detectors, --data, --protocol and --preset choose among them too"
    )
    assert (ended.status, told in ended.err.splitlines()) == (0, True), ended.err
    assert "not taken" not in adbench(*words, "--detectors", "mine,good,fair,poor").err


def test_runs_of_other_images_than_those_of_a_board_are_not_added(material, tmp_path, adbench):
    runs = stored(tmp_path / "mine", [made("mine", "ant", 0, 1.0, split_fingerprint="9" * 64)])
    ended = adbench("publish", "--board", "mine", "--out", "boards", "--again", material[1], "--runs", runs)
    assert ended.status == 2
    assert ended.error == (
        "mine on toy/ant seed 0: its images (99999999) are not those of toy (aaaaaaaa), so the scores do not compare; "
        "run it on the board's images, or leave out --again"
    )


def test_a_board_keeps_what_it_says_of_a_dataset_whose_plugin_is_gone(material, tmp_path):
    kept = material[0]
    told = {
        "dataset": {"name": "toy", "summary": "Insects.", "source": "https://toys.org", "licence": "CC0"},
        "protocol": {"name": "one-vs-rest", "version": "1", "summary": "One is normal."},
    }
    noted = replace(kept, facts=replace(kept.facts, **told))
    board = board_of(tmp_path, [made("mine", "ant", 0, 1.0)], kept=noted)
    assert (board.facts.dataset, board.facts.protocol) == (told["dataset"], told["protocol"])
    other = replace(kept, facts=replace(kept.facts, dataset=told["dataset"] | {"name": "other"}))
    assert board_of(tmp_path, [made("mine", "ant", 0, 1.0)], kept=other).facts.dataset["licence"] == ""


def test_a_board_keeps_its_own_scores_beside_those_of_runs(material, tmp_path, adbench):
    shutil.copytree(material[1], tmp_path / "boards/toy")
    # The key of a job of the board, and other scores.
    other = replace(made("good", "ant", 0, 1.0), metrics={"pixel_auroc": 0.5})
    runs = stored(tmp_path / "other", [other, made("mine", "ant", 0, 1.0)])
    words = ("publish", "--board", "toy", "--out", "boards")
    ended = adbench(*words, "--runs", runs, "--again", "boards/toy")
    assert ended.status == 0
    assert "note: good: 1 result left out: a folder read earlier has the same jobs" in ended.err
    assert ended.err.count("left out") == 1
    scores = Path("boards/toy/scores/good.parquet").read_bytes()
    assert scores == (material[1] / "scores/good.parquet").read_bytes()
    ended = adbench(*words, "--runs", runs, "--again", "boards/toy", "--detectors", "mine")
    assert (
        "holds 18 jobs (of fair, good, poor) that the new board would lack; name them in --detector"
        in ended.error
    )
    assert "left out" not in ended.err  # of what was not asked for


def test_a_board_of_other_images_is_not_to_be_added_to(material):
    new = [made("good", "ant", 0, 2.0, split_fingerprint="9" * 64)]
    remedy = "they are of other images or another protocol, another --board keeps both, --replace drops them"
    with pytest.raises(AdbenchError, match=rf"holds 18 jobs \(of fair, good, poor\) .*; {remedy}$"):
        boards.check_lost(material[1], new, None)
    unread = made("mine", "ant", 0, 2.0, split_fingerprint="")
    with pytest.raises(AdbenchError, match="with --runs keeps them, --replace drops them"):
        boards.check_lost(material[1], [unread], None)


def test_scores_that_ended_well_are_not_lost_to_failures(material, tmp_path, adbench):
    shutil.copytree(material[1], tmp_path / "boards/toy")
    failed = replace(
        made("good", "ant", 0, 2.0), status="failed", error="out of memory", scores=None, metrics={}
    )
    runs = stored(tmp_path / "failed", [failed, *[each for each in grid() if each.job.key != failed.job.key]])
    words = ("publish", "--board", "toy", "--out", "boards", "--runs", runs)
    assert "holds 1 job (of good) that the new board would lack; --again" in adbench(*words).error
    assert adbench(*words, "--again", "boards/toy").status == 0
    assert "18 jobs" in adbench(*words, "--replace").out
    assert (
        adbench("publish", "--board", "toy", "--out", "boards", "--runs", material[1].parent / "runs").status
        == 0
    )


@pytest.mark.parametrize("column", ["score", "label"])
def test_a_board_that_was_changed_is_not_made_again(folder, tmp_path, adbench, column):
    change_scores(folder, column, lambda value: 1 - value)
    ended = adbench("publish", "--again", folder, "--board", "toy", "--out", tmp_path / "clean")
    assert ended.status == 2
    assert "toy/scores/good.parquet: " in ended.error
    assert "--again needs a board whose scores, losses and measurements are as published" in ended.error
    told = adbench("compare", "good", "poor", "--board", folder).error
    first, *others = boards.unsound(folder)
    more = f", and {len(others)} more" if others else ""
    assert told == f"{first}{more}; adbench verify {folder} lists what does not match"
    assert not (tmp_path / "clean/toy").exists()


def test_losses_that_were_changed_are_not_made_again(folder, tmp_path, adbench):
    text = (folder / "losses/good.csv").read_text()
    (folder / "losses/good.csv").write_text(text.replace("0.333333", "0.333334", 1))
    ended = adbench("publish", "--again", folder, "--board", "toy", "--out", tmp_path / "clean")
    assert "toy/losses/good.csv: does not match its size and SHA-256 in board.json" in ended.error


def test_a_note_is_on_the_board_and_its_report_and_is_kept(material, tmp_path, adbench):
    text = "Bright <b>images</b> | are `abnormal`"
    words = ("publish", "--board", "toy", "--again")
    ended = adbench(*words, material[1], "--out", "noted", "--note", text)
    assert (ended.status, ended.err.splitlines()[-1]) == (0, "noted/toy: making its files")
    assert f"**Note.** {cell(text)}" in Path("noted/toy/README.md").read_text()
    assert "<b>" not in cell(text).replace(r"\<b>", "")
    assert f"--board toy --note '{text}'" in Path("noted/toy/README.md").read_text()
    assert adbench("verify", "noted").status == 0
    assert adbench(*words, "noted/toy", "--out", "again").status == 0
    assert contents(Path("noted/toy")) == contents(Path("again/toy"))
    assert adbench("report", "--board", "noted/toy", "--out", "page.html").status == 0
    assert "Bright &lt;b&gt;images&lt;/b&gt; | are `abnormal`</p>" in Path("page.html").read_text()
    board = json.loads(Path("noted/toy/board.json").read_text())
    Path("noted/toy/board.json").write_text(json.dumps(board | {"note": "nothing"}))
    assert "note" in adbench("verify", "noted").out


def test_the_page_rounds_what_the_table_says(material, tmp_path):
    board, _ = material
    assert boards.publish(
        replace(board, leaderboard=board.leaderboard.assign(auroc_ci_high=0.95849998)), tmp_path
    )
    shown = boards.read(tmp_path / "toy").leaderboard["auroc_ci_high"]
    assert shown.tolist() == [0.9585] * 3
    assert contents(tmp_path / "toy")["README.md"].decode().count(f" to {0.9585:.3f} |") == 3


def test_what_is_read_is_what_was_published(material):
    board, place = material
    read = boards.read(place)
    assert read.facts == board.facts
    for name in ("results", "leaderboard", "pairs"):
        pd.testing.assert_frame_equal(
            getattr(read, name), getattr(board, name), check_dtype=False, rtol=1e-5, atol=1e-6
        )
    key = board.measured[0].job.key
    pd.testing.assert_frame_equal(read.scores[key], board.scores[key], check_dtype=False)
    assert read.losses[key]["loss"].tolist() == pytest.approx(board.losses[key]["loss"], rel=1e-5)
    assert read.measured[0].job == board.measured[0].job


def test_the_tables_hold_what_the_scores_say(material):
    board, place = material
    frame = pq.read_table(place / "scores/good.parquet").to_pandas()
    assert list(frame.columns) == ["category", "seed", "key", "sample_id", "label", "score"]
    assert frame.equals(frame.sort_values(["category", "seed", "key", "sample_id"], kind="stable"))
    aurocs = frame.groupby(["category", "seed"]).apply(lambda one: roc_auc_score(one["label"], one["score"]))
    line = board.leaderboard.set_index("detector").loc["good"]
    assert line["auroc_mean"] == pytest.approx(aurocs.groupby("category").mean().mean())
    assert line["rank"] == 1
    assert line["pixel_auroc_mean"] == 0.75
    ranked = board.leaderboard.set_index("detector")["rank"]
    assert ranked.to_dict() == {"good": 1, "fair": 2, "poor": 3}
    pairs = board.pairs.set_index(["detector_a", "detector_b"])
    assert list(pairs.index) == [("good", "fair"), ("good", "poor"), ("fair", "poor")]
    assert pairs["p_floor"].tolist() == [0.5] * 3
    assert pairs["holm_floor"].tolist() == [1.0] * 3
    assert pairs.loc[("good", "poor"), "wilcoxon_p"] == 0.5
    assert pairs.loc[("good", "poor"), "holm_p"] == 1.0


def test_board_json_says_how_to_do_it_again(material):
    content = json.loads((material[1] / "board.json").read_text())
    assert content["commands"] == [
        "adbench run --detectors fair,good,poor --data toy --protocol one-vs-rest "
        "--categories ant,bee --seeds 0,1,2 --preset paper --precision fp32",
        "adbench publish --runs runs --board toy",
    ]
    assert len(content["jobs"]) == 18
    assert content["jobs"][0]["threshold"] == 1.5
    assert "latency_ms" not in content["jobs"][0]["timing"]
    assert next(iter(content["machines"].values()))["cpu"] == "an abacus"
    assert (
        "cannot" in content["provenance"]["pixel_metrics"] or "only" in content["provenance"]["pixel_metrics"]
    )
    card = content["categories"][0]
    assert (card["test_normal"], card["test_abnormal"]) == (40, 30)
    assert (card["chance_average_precision"], card["chance_f1"]) == (0.428571, 0.6)
    for name, facts in content["files"].items():
        assert hashlib.sha256((material[1] / name).read_bytes()).hexdigest() == facts["sha256"]


def test_settings_by_hand_are_in_the_commands(tmp_path):
    results = [
        made("good", "ant", 0, 1.0, preset="quick; epochs=3; name=a b", config={"epochs": 3}),
        made("good", "ant", 0, 1.0, preset="quick"),
        made("fair", "ant", 0, 1.0, precision="bf16", preset="quick"),
    ]
    board = board_of(tmp_path, results)
    assert commands(board.facts, [result.job for result in board.measured])[:-1] == [
        COMMAND.format("fair", "bf16"),
        COMMAND.format("good", "fp32"),
        COMMAND.format("good", "fp32") + " --set good.epochs=3 --set 'good.name=a b'",
    ]


COMMAND = (
    "adbench run --detectors {} --data toy --protocol one-vs-rest --categories ant --seeds 0 --preset quick "
    "--precision {}"
)


def test_only_a_board_is_replaced_and_names_are_folder_names(material, tmp_path):
    board, _ = material
    (tmp_path / "toy").mkdir()
    with pytest.raises(AdbenchError, match="is there and is no board"):
        boards.publish(board, tmp_path)
    for name in ("../x", "x/../y"):
        with pytest.raises(AdbenchError, match=f"--board '{name}': use small letters"):
            boards.publish(replace(board, facts=replace(board.facts, name=name)), tmp_path)


def test_only_files_of_the_same_scores_are_kept(material):
    board, place = material
    assert _encoded(board, place) == {
        name: data for name, data in contents(place).items() if name.startswith("scores/")
    }
    scores = {key: table.assign(score=table["score"] + np.float32(1)) for key, table in board.scores.items()}
    assert _encoded(replace(board, scores=scores), place) == {}


def test_a_folder_that_holds_more_or_other_files_is_written_anew(tmp_path):
    (tmp_path / "scores").mkdir()
    for name in ("a.csv", "scores/b.parquet"):
        (tmp_path / name).write_bytes(b"1")
    assert _holds(tmp_path, {"a.csv": b"1", "scores/b.parquet": b"1"})
    assert not _holds(tmp_path, {"a.csv": b"1", "scores/b.parquet": b"2"})
    assert not _holds(tmp_path, {"a.csv": b"1"})


def test_a_board_that_cannot_be_read_is_not_written_over(folder):
    (folder / "board.json").write_text("{")
    with pytest.raises(
        AdbenchError, match=r"board\.json cannot be read .*; --replace overwrites it without reading it"
    ):
        gather.check_lost(folder, [], None)


def test_cells_that_a_spreadsheet_would_run_are_neutral_and_come_back():
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "\nx", "'=x", "'", "plain", "", "a=b", 'a,"b"\nc', "NA"]
    frame = pd.DataFrame({"words": texts, "number": [-1.5] * len(texts)})
    text = to_csv(frame, ["words"])
    back = from_csv(text, ["words"], [])
    assert back["words"].tolist() == [plain(each) for each in texts]
    assert to_csv(back, ["words"]) == text
    assert all(line.isprintable() for line in text.splitlines())
    assert back["number"].tolist() == [-1.5] * len(texts)
    assert not any(marked(each).startswith(("=", "+", "-", "@", "\t", "\r")) for each in texts)
    assert [unmarked(marked(each)) for each in texts] == texts
    losses = pd.DataFrame({"=x": [1.0]})
    assert to_csv(losses, []) == "'=x\n1\n"
    assert from_csv(to_csv(losses, []), [], []).equals(losses)


def test_a_board_with_unprintable_names_is_printable_and_sound(tmp_path):
    name = "\x00a\n\x1b[31m\u202e"
    results = [
        replace(each, losses=({f"={name}": 1.0},), code=name)
        for seed in (0, 1, 2)
        for each in (made(name, "ant", seed, 1.0, preset=f"quick; x={name}"), made("good", "ant", seed, 2.0))
    ]
    board = board_of(tmp_path / "runs", results, say=lambda _: None)
    assert boards.publish(board, tmp_path)
    for path in (path for path in (tmp_path / "toy").rglob("*") if path.suffix in (".csv", ".md")):
        assert all(line.isprintable() for line in path.read_text().split("\n")), path
    assert boards.verify(tmp_path / "toy") == []
    assert boards.read(tmp_path / "toy").leaderboard["detector"].tolist() == ["good", plain(name)]
    material = from_board(tmp_path / "toy")
    assert material.entries == ["good", plain(name)]
    assert set(material.results["entry"]) == set(material.entries)


def test_a_page_says_how_a_detector_of_ones_own_is_ranked_there(material):
    page = (material[1] / "README.md").read_text()
    _, _, own = page.partition("## Rank a detector of your own")
    run = "adbench run --detectors mine --data toy --protocol one-vs-rest --categories ant,bee --seeds 0,1,2"
    assert own.partition("```console\n")[2].splitlines()[:3] == [
        f"{run} --out my-runs",
        "adbench publish --again BOARD --runs my-runs --board mine --out boards",
        "```",
    ]


def test_no_text_is_markup_on_a_page(tmp_path):
    name = "<img src=x onerror=alert(1)>|[a](b)`"
    results = [made("good", "ant", seed, 1.0, preset=name) for seed in (0, 1, 2)]
    board = board_of(tmp_path / "runs", results)
    boards.publish(board, tmp_path)
    page = (tmp_path / "toy/README.md").read_text().partition("## Reproduce")[0]
    assert r"\<img src=x onerror=alert(1)\>\|\[a\](b)\`" in page
    assert boards.verify(tmp_path / "toy") == []


def test_a_perfect_reconstruction_is_stored_as_any_other(tmp_path):
    errors = zip(grid(("good",)), (0.0, 0.0, 0.0, 0.5, 1.2, None), strict=True)
    board = board_of(tmp_path / "runs", [replace(each, reconstruction_error=error) for each, error in errors])
    assert boards.publish(board, tmp_path)
    assert "in 1 of 5 jobs its networks" in board.leaderboard.iloc[0]["remark"]
    assert boards.verify(tmp_path / "toy") == []


def test_configurations_that_differ_where_their_preset_does_not_are_told_apart(tmp_path):
    results = grid(("good", "fair", "poor"))
    found = {"backbone": "one"}, {"backbone": "other"}
    for shift, config in zip((1.0, 0.5), found, strict=True):
        results += [
            made("knn", category, seed, shift, config=config) for category in CATEGORIES for seed in (0, 1, 2)
        ]
    board = board_of(tmp_path / "runs", results)
    assert boards.publish(board, tmp_path)
    names = ["paper; backbone=one", "paper; backbone=other"]
    assert sorted(board.leaderboard.query("detector == 'knn'")["preset"]) == names
    page = (tmp_path / "toy/README.md").read_text().partition("AUROC of each category")[2]
    assert all(f"| knn | {name} |" in page for name in names)
    assert comparison.find("knn:paper; backbone=one", board.standings).line["preset"] == names[0]
    assert boards.verify(tmp_path / "toy") == []


def test_of_many_categories_each_has_a_line_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr("adbench_tgan.boards.readme.WIDE", 1)
    results = grid(("good", "fair"))
    starred = [replace(each, job=replace(each.job, category=f"{each.job.category}*")) for each in results]
    board = board_of(tmp_path / "runs", starred)
    assert boards.publish(board, tmp_path)
    table = (tmp_path / "toy/README.md").read_text().partition("AUROC of each category")[2].split("\n")[2:6]
    assert table[0] == "| category | good, paper | fair, paper |"
    mean = board.results.groupby(["category", "detector"])["auroc"].mean()
    ranked = [[f"{mean[f'{name}*', detector]:.3f}" for detector in ("good", "fair")] for name in CATEGORIES]
    assert table[2:] == [
        rf"| {name}\* | {' | '.join(cells)} |" for name, cells in zip(CATEGORIES, ranked, strict=True)
    ]
    assert boards.verify(tmp_path / "toy") == []
    monkeypatch.setattr("adbench_tgan.boards.readme.WIDE", 2)
    assert boards.publish(board, tmp_path)
    assert r"| detector | preset | ant\* | bee\* |" in (tmp_path / "toy/README.md").read_text()


def test_a_file_of_scores_that_nobody_could_read_again_is_not_published(tmp_path, monkeypatch):
    board = board_of(tmp_path / "runs", grid(("good", "fair")))
    monkeypatch.setattr("adbench_tgan.store.stored.ROWS", 100)
    with pytest.raises(
        AdbenchError, match=r"scores/fair\.parquet would be too large to be read again \(it has 420 rows"
    ):
        boards.publish(board, tmp_path)
    assert not (tmp_path / "toy").exists()


def test_long_work_on_a_board_says_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("adbench_tgan.terminal.pace.PAUSE", -1)
    said = []
    failed = replace(made("good", "ant", 3, 2.0), status="failed", scores=None, metrics={}, losses=())
    runs = stored(tmp_path / "runs", [*grid(("good", "fair")), failed])
    board = boards.from_runs([runs], Registry(_offers=NOTHING), name="toy", say=said.append)
    assert {
        "scores read: 0 of 12 jobs",
        "metrics computed: 5 of 13 jobs",
        "scores resampled: 11 of 12 jobs",
    } <= {*said}
    boards.publish(board, tmp_path)
    for work in (boards.verify, lambda place, say: boards.tabulate(boards.basis(place, say), say)):
        said.clear()
        work(tmp_path / "toy", said.append)
        assert len(said) == 25
    said.clear()
    more, kept = stored(tmp_path / "more", [made("poor", "ant", 0, 1.0)]), boards.basis(tmp_path / "toy")
    boards.from_runs([more], Registry(_offers=NOTHING), name="toy", kept=kept, say=said.append)
    assert [line for line in said if "computed" in line] == ["metrics computed: 0 of 1 jobs"]
    said.clear()
    boards.rerun(tmp_path / "toy", [runs], say=said.append)
    assert said == [f"scores compared: {number} of 12 jobs" for number in range(12)]
    said.clear()
    from_store(runs, Registry(_offers=NOTHING), say=said.append)
    assert said == [f"scores resampled: {number} of 12 jobs" for number in range(12)]


@pytest.mark.parametrize(
    "words",
    ["verify toy", "compare good poor --board toy", "publish --again toy --board toy --out new", "report"],
)
def test_commands_on_boards_say_how_far_they_are(words, material, tmp_path, adbench, monkeypatch, no_bundle):
    monkeypatch.setattr("adbench_tgan.terminal.pace.PAUSE", -1)
    shutil.copytree(material[1], tmp_path / "toy")
    shutil.copytree(material[1].parent / "runs", tmp_path / "runs")
    ended = adbench(*words.split())
    assert ended.status == 0
    assert "scores resampled: 0 of 18 jobs" in ended.err


def test_publish_verify_and_compare_from_the_command_line(adbench, runs, tmp_path):
    ended = adbench("publish", "--board", "toy", "--audit", "none.csv")
    assert "none.csv cannot be read as an audit.csv" in ended.error
    ended = adbench("publish", "--board", "toy")
    assert ended.status == 0
    assert "leaderboards/toy is written: 24 jobs" in ended.out
    assert "has not changed" in adbench("publish", "--board", "toy").out
    ended = adbench("verify")
    assert (ended.status, ended.out) == (0, "leaderboards/toy: every cell matches\n")
    from_board = json.loads(adbench("compare", "good", "poor", "--board", "leaderboards/toy", "--json").out)
    fewer = ("publish", "--board", "toy", "--detectors", "good,fair")
    told = "toy holds 12 jobs (of poor, taught) that the new board would lack; --again leaderboards/toy with --runs"
    assert told in adbench(*fewer).error
    assert "has not changed" in adbench("publish", "--board", "toy").out
    assert "toy is written: 12 jobs" in adbench(*fewer, "--replace").out
    change_cell(tmp_path / "leaderboards/toy/leaderboard.csv", 1, "auroc_mean")
    ended = adbench("verify", "leaderboards/toy", "--json")
    assert ended.status == 1
    (finding,) = json.loads(ended.out)["findings"]
    assert (finding["file"], finding["where"]) == (
        "leaderboard.csv",
        "good paper False one-class, auroc_mean",
    )
    assert "there is no board in nowhere" in adbench("verify", "nowhere").error

    ended = adbench("compare", "good", "poor", "--runs", runs)
    assert ended.status == 0
    assert "good:paper is better than poor:paper by 0." in ended.out
    assert "cannot show it with so few" in ended.out
    assert from_board == json.loads(adbench("compare", "good", "poor", "--json").out)
    assert [each["category"] for each in from_board["categories"]] == list(CATEGORIES)
    assert from_board["p_floor"] == 0.5
    ended = adbench("compare", "good", "taught")
    assert "they did not learn from the same data" in ended.err
    assert "unknown detector of these results 'gut'" in adbench("compare", "gut", "poor").error
    assert "unknown detector of these results 'f_anogan'" in adbench("compare", "fanogan", "poor").error
    assert "no folder" in adbench("compare", "good", "poor", "--runs", "absent").error
    assert adbench("compare", "good", "good").error.endswith(
        "good:paper would be compared with itself; name two"
    )


def test_a_killed_publication_leaves_the_old_board(material, tmp_path, monkeypatch):
    board, place = material
    shutil.copytree(place, tmp_path / "toy")
    fewer = boards.assemble(board.facts, board.measured[:10], board.scores, board.losses)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(AdbenchError, match="No space left on device; free some space"):
        boards.publish(fewer, tmp_path)
    assert contents(tmp_path / "toy") == contents(place)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_board_that_a_killed_publication_had_moved_aside_comes_back(
    adbench, material, tmp_path, monkeypatch
):
    board, place = material
    shutil.copytree(place, tmp_path / "toy")
    fewer = boards.assemble(board.facts, board.measured[:10], board.scores, board.losses)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    rename = os.rename

    def killed(source, target):
        if target == tmp_path / "toy":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(places.os, "getpid", lambda: dead.pid)
        patch.setattr(places.os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            boards.publish(fewer, tmp_path)
    assert not (tmp_path / "toy").exists()
    assert adbench("publish", "--board", "toy", "--again", "toy", "--out", ".").status == 0
    assert contents(tmp_path / "toy") == contents(place)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


READERS = {
    "verify": lambda adbench, runs: adbench("verify", "toy").status == 0,
    "rerun": lambda adbench, runs: boards.rerun(Path("toy"), [runs]) == (18, []),
    "compare": lambda adbench, runs: adbench("compare", "good", "poor", "--board", "toy").status == 0,
    "publish": lambda adbench, runs: adbench(
        "publish", "--board", "toy", "--again", "toy", "--out", "."
    ).out.endswith("toy has not changed: 18 jobs\n"),
    "report": lambda adbench, runs: len(from_board(Path("toy")).jobs) == 18,
}


@pytest.mark.parametrize("reads", READERS)
def test_a_board_that_is_published_anew_while_it_is_read_is_read_once_more(
    adbench, material, tmp_path, monkeypatch, reads
):
    board, place = material
    boards.publish(boards.assemble(board.facts, board.measured[:10], board.scores, board.losses), tmp_path)
    later, read = [board], folder_module.read_bounded

    def meanwhile(path, limit):
        data = read(path, limit)
        if later and path.suffix == ".parquet":
            boards.publish(later.pop(), tmp_path)
        return data

    monkeypatch.setattr(folder_module, "read_bounded", meanwhile)
    assert READERS[reads](adbench, place.parent / "runs")
    assert not later


def test_jobs_that_another_publication_adds_meanwhile_are_not_lost(adbench, material, tmp_path, monkeypatch):
    board, place = material
    boards.publish(boards.assemble(board.facts, board.measured[:10], board.scores, board.losses), tmp_path)
    later, render = [board], folder_module.render

    def meanwhile(*given):
        if later:
            boards.publish(later.pop(), tmp_path)
        return render(*given)

    monkeypatch.setattr(folder_module, "render", meanwhile)
    ended = adbench("publish", "--board", "toy", "--again", "toy", "--out", ".", "--note", "mine")
    assert "toy holds 8 jobs (of " in ended.error
    assert ended.status == 2
    assert contents(tmp_path / "toy") == contents(place)


def test_a_board_of_one_category_is_published_and_verified(tmp_path):
    board = board_of(tmp_path / "runs", grid(["good", "poor"], ["ant"]))
    assert list(board.pairs["wilcoxon_p"]) == [1.0]
    assert boards.publish(board, tmp_path)
    assert boards.verify(tmp_path / "toy") == []


def test_a_reason_with_control_characters_is_one_line():
    told = str(unreadable("good.parquet", "don't know what type: \x0e\nand more"))
    assert (
        told == "good.parquet cannot be read: don't know what type: \\x0e and more; publish the board again"
    )


def coded(result, framework, detector="d" * 64):
    """The result as code of these hashes would have made it."""
    code = {"commit": "c" * 40, "changed": True, "framework": framework, "detector": detector}
    return replace(result, machine={**result.machine, "code": code})


def test_the_code_stands_on_the_board_and_where_it_differs_in_the_row(tmp_path, adbench):
    results = grid(("good", "fair"))
    one = [coded(each, "f" * 64, each.job.detector * 16) for each in results]
    board = board_of(tmp_path / "one", one)
    assert boards.publish(board, tmp_path)
    page = (tmp_path / "toy/README.md").read_text()
    made_on = [line for line in page.partition("Machines:")[2].splitlines() if line.startswith("* an abacus")]
    assert len(made_on) == 1  # whatever package a detector is of
    assert made_on[0].endswith("torch 2; commit cccccccccccc with changes, sources ffffffffffff")
    assert set(board.leaderboard["remark"]) == {""}
    assert boards.verify(tmp_path / "toy") == []
    assert [each.machine["code"] for each in boards.basis(tmp_path / "toy").measured] == [
        each.machine["code"] for each in board.measured
    ]
    assert "has not changed" in adbench("publish", "--again", "toy", "--board", "toy", "--out", ".").out

    two = [coded(each, "0" * 64 if each.job.key == results[0].job.key else "f" * 64) for each in results]
    board = board_of(tmp_path / "two", two)
    remarks = board.leaderboard.set_index("detector")["remark"]
    assert dict(remarks) == {"good": "its jobs were run with 2 different states of the code", "fair": ""}
    cautions = comparison.compare(*board.standings).cautions
    assert "they were not run by the same state of adbench-tgan's code" in cautions
    assert any(remarks["good"] in caution for caution in cautions)
    assert not any(
        "state of" in each for each in comparison.compare(*board_of(tmp_path / "a", one).standings).cautions
    )


def test_whatever_stands_in_place_of_the_code_is_no_markup_and_no_error(tmp_path):
    codes = ["<b>", ["<b>"], {"commit": "<b>", "changed": "<b>", "framework": "<b>"}, {"commit": 7}]
    results = [
        replace(each, machine={**each.machine, "code": code})
        for each, code in zip(grid(), itertools.cycle(codes), strict=False)
    ]
    assert boards.publish(board_of(tmp_path / "runs", results), tmp_path)
    assert not re.search(r"(?<!\\)<b>", (tmp_path / "toy/README.md").read_text())
    assert boards.verify(tmp_path / "toy") == []


def test_a_command_stays_in_one_line_and_means_the_same():
    words = ["echo", "a\n```\n<b>", "it's\t\\n", "plain", "naïve", "x y"]
    line = joined(words)
    assert "\n" not in line
    told = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert told.stdout.decode().split("\0")[:-1] == words


def test_a_remark_says_once_that_scores_are_impure(tmp_path):
    board = board_of(tmp_path, [replace(each, purity_delta=0.01) for each in grid(("good",))])
    assert list(board.leaderboard["remark"]) == [
        "not ranked: impure: scores or maps depend on their batch (relative change up to 0.01)"
    ]

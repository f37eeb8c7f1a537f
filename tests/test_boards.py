"""Published boards: the same bytes again, from the scores alone, and every change is named."""

import hashlib
import itertools
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import make_runs
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_board import CATEGORIES, NOTHING, board_of, grid, made, stored
from sklearn.metrics import roc_auc_score
from test_hostile import in_time

from adbench_tgan import boards
from adbench_tgan.again import joined
from adbench_tgan.boards import Choice, gather
from adbench_tgan.boards import folder as folder_module
from adbench_tgan.boards.audited import audited
from adbench_tgan.boards.board import IMAGE_METRICS, canonical, completed, judge
from adbench_tgan.boards.cells import from_csv, to_csv
from adbench_tgan.boards.choice import is_wanted, of_installed_protocol, of_presets, one_kind, select
from adbench_tgan.boards.differences import OTHER_PAGE, cells, page
from adbench_tgan.boards.document import commands, seal, text_of
from adbench_tgan.boards.folder import (
    _encoded,
    _holds,
    parquet,
    parse,
    read_content,
    read_losses,
    read_score_file,
    unreadable,
)
from adbench_tgan.boards.gather import gaps
from adbench_tgan.boards.readme import cell
from adbench_tgan.boards.rerun import _differences
from adbench_tgan.boards.schemas import LEADERBOARD, PAIRS, RESULTS, check, check_scores
from adbench_tgan.boards.soundness import _changed, impossible, sound_scores
from adbench_tgan.boards.verify import _audits, _hashes, _names, _recorded, _seals
from adbench_tgan.data.spec import ProtocolSpec
from adbench_tgan.errors import AdbenchError
from adbench_tgan.leaderboard import over_categories
from adbench_tgan.predict import memory_limited
from adbench_tgan.ranking import comparison
from adbench_tgan.ranking.published import (
    Paper,
    comparable_cells,
    papers_of,
    published_cells,
    read_published,
    with_papers,
)
from adbench_tgan.ranking.statistics import interval
from adbench_tgan.registry import Registry
from adbench_tgan.report.material import from_board, from_store
from adbench_tgan.results import ResultStore
from adbench_tgan.store import places
from adbench_tgan.store.stored import stamp
from adbench_tgan.text import marked, plain, unmarked

ROOT = Path(__file__).parent.parent
PUBLISHED = [path.parent for path in sorted((ROOT / "leaderboards").glob("*/board.json"))]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A board in memory, and its folder."""
    place = tmp_path_factory.mktemp("boards")
    board = board_of(place / "runs", grid())
    assert boards.publish(board, place)
    return board, place / "toy"


@pytest.fixture
def folder(material, tmp_path):
    """A copy of the board's folder to spoil."""
    return Path(shutil.copytree(material[1], tmp_path / "toy"))


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


@pytest.mark.parametrize("place", PUBLISHED, ids=lambda path: path.name)
def test_published_boards_are_sound(place):
    assert boards.verify(place) == []


def findings(folder):
    return [(each.file, each.where) for each in boards.verify(folder)]


def change_cell(path, row, column):
    """Change one digit of one cell."""
    lines = path.read_text().splitlines()
    at = lines[0].split(",").index(column)
    cells = lines[row].split(",")
    digit = re.search(r"[1-8](?=\D*$)", cells[at])
    changed = str(int(digit[0]) + 1)
    cells[at] = cells[at][: digit.start()] + changed + cells[at][digit.end() :]
    lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    return cells


def test_a_digit_of_any_table_is_named_and_nothing_else(folder):
    expected = []
    for row, column in enumerate(
        ["auroc", "balanced_accuracy", "pixel_auroc", "fit_seconds", "purity_delta"], 4
    ):
        cells = change_cell(folder / "results.csv", row, column)
        key = next(cell for cell in cells if re.fullmatch("[0-9a-f]{16}", cell))
        expected.append(("results.csv", f"{key} ({cells[0]}, {cells[3]}, seed {cells[4]}), {column}"))
    for row, (name, column) in enumerate(
        [("good", "auroc_ci_low"), ("fair", "rank"), ("poor", "pixel_auroc_mean")], 1
    ):
        change_cell(folder / "leaderboard.csv", row, column)
        expected.append(("leaderboard.csv", f"{name} paper False one-class, {column}"))
    change_cell(folder / "pairs.csv", 1, "difference_ci_high")
    expected.append(("pairs.csv", "one-class good paper fair paper, difference_ci_high"))
    text = (folder / "README.md").read_text().replace("| 1 | good |", "| 2 | good |", 1)
    (folder / "README.md").write_text(text)
    number = 1 + text[: text.index("| 2 | good |")].count("\n")
    assert findings(folder) == [*expected, ("README.md", f"line {number}")]


def test_one_digit_of_one_cell_is_one_finding(folder):
    change_cell(folder / "leaderboard.csv", 2, "auroc_mean")
    (found,) = boards.verify(folder)
    assert re.fullmatch(
        r"toy/leaderboard.csv: fair paper False one-class, auroc_mean: is '0\.\d+', recomputed '0\.\d+'",
        str(found),
    )


ROWS = {
    "is missing": (lambda rows: rows[1:], ["one-class good paper fair paper: this row is missing"]),
    "is there twice": (
        lambda rows: [*rows, rows[0]],
        ["one-class good paper fair paper': this row should not be there"],
    ),
    "has another name": (
        lambda rows: [rows[0].replace("fair", "fare"), *rows[1:]],
        ["one-class good paper fair paper, detector_b: is 'fare', recomputed 'fair'"],
    ),
    "has a cell more": (
        lambda rows: [f"{rows[0]},7", *rows[1:]],
        ["one-class good paper fair paper, beyond the last column: is '7', recomputed ''"],
    ),
    "is of no known kind": (
        lambda rows: [rows[0].replace("one-class", "one", 1), *rows[1:]],
        ["one-class good paper fair paper, supervision: is 'one', recomputed 'one-class'"],
    ),
    "is empty": (lambda rows: [*rows, "," * rows[0].count(",")], ["line 5: this row should not be there"]),
    "is in another place": (
        lambda rows: rows[::-1],
        [": holds the right cells, but other bytes or another order than were published"],
    ),
}


@pytest.mark.parametrize("how", ROWS)
def test_a_row_that_is_not_as_recomputed_is_named(how, material, tmp_path):
    whole = (material[1] / "pairs.csv").read_bytes()
    head, *rows = whole.decode().splitlines()
    change, told = ROWS[how]
    (tmp_path / "pairs.csv").write_text("\n".join([head, *change(rows), ""]))
    assert [f"{where}: {problem}" for _, where, problem in cells(tmp_path, PAIRS, whole)] == told


def test_an_empty_row_of_results_is_named_by_its_line(material, tmp_path):
    whole = (material[1] / "results.csv").read_bytes()
    (tmp_path / "results.csv").write_bytes(whole + b"," * whole.partition(b"\n")[0].count(b",") + b"\n")
    told = ("results.csv", "line 20", "this row should not be there")
    assert list(cells(tmp_path, RESULTS, whole)) == [told]


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\nb\n", 3), ("a\nb\nc\nd\n", 4), ("a\nx\nc\n", 2), ("a\nb\nc", 3), ("a\r\nb\r\nc\r\n", 1)],
)
def test_the_first_line_of_a_page_that_is_not_as_made_is_named(text, line, tmp_path):
    (tmp_path / "README.md").write_text(text)
    (found,) = page(tmp_path, b"a\nb\nc\n")
    assert found == ("README.md", f"line {line}", OTHER_PAGE)


def test_a_column_that_has_another_name_is_named(material, tmp_path):
    whole = (material[1] / "pairs.csv").read_bytes()
    (tmp_path / "pairs.csv").write_bytes(whole.replace(b"wilcoxon_p", b"p", 1))
    assert [where for _, where, _ in cells(tmp_path, PAIRS, whole)] == ["header"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("wilcoxon_p", "p", 1), "column 10 is 'p', should be 'wilcoxon_p'"),
        (lambda text: f"\ufeff{text}", r"column 1 is '\ufeffsupervision', should be 'supervision'"),
        (lambda text: text.replace(",holm_floor", "", 1), "column 13 is missing, should be 'holm_floor'"),
        (lambda text: text.replace("\n", ",\n"), "column 14 is '', should be missing"),
        (lambda text: "x" * 999 + text, f"column 1 is '{'x' * 79}, should be 'supervision'"),
    ],
    ids=["another name", "a byte order mark", "gone", "one more", "long"],
)
def test_of_a_header_the_first_column_is_told_that_is_not_as_it_should_be(change, told, material, tmp_path):
    whole = (material[1] / "pairs.csv").read_bytes()
    (tmp_path / "pairs.csv").write_bytes(change(whole.decode()).encode())
    assert list(cells(tmp_path, PAIRS, whole)) == [("pairs.csv", "header", told)]


def change_scores(folder, column, change):
    path = folder / "scores/good.parquet"
    frame = pq.read_table(path).to_pandas()
    frame.loc[100, column] = change(frame.loc[100, column])
    path.write_bytes(parquet(frame))
    return frame.loc[100]


def test_one_score_is_named_by_its_job(folder):
    line = change_scores(folder, "score", lambda score: np.nextafter(score, np.float32(9)))
    where = f"{line['key']} ({line['category']}, seed {line['seed']})"
    assert findings(folder) == [("scores/good.parquet", where)]


def test_where_a_score_is_wrong_other_files_are_compared_with_their_hashes(folder):
    change_scores(folder, "score", lambda score: score + 1)
    change_cell(folder / "pairs.csv", 1, "difference_ci_high")
    text = (folder / "losses/good.csv").read_text()
    (folder / "losses/good.csv").write_text(text.replace("0.333333", "0.333334", 1))
    files = [file for file, _ in findings(folder)]
    assert files == ["scores/good.parquet", "losses/good.csv", "pairs.csv"]
    assert [file for file, _, _ in _hashes(folder, read_content(folder))] == files[1:]


def test_where_no_table_can_be_recomputed_all_are_compared_with_their_hashes(folder, monkeypatch):
    def refuse(*_):
        raise AdbenchError("other images")

    monkeypatch.setattr(sys.modules[_hashes.__module__], "assemble", refuse)
    change_cell(folder / "pairs.csv", 1, "difference_ci_high")
    assert findings(folder) == [("board.json", ""), ("pairs.csv", "")]


def test_scores_with_the_same_meaning_and_other_bytes_are_named(folder):
    path = folder / "scores/good.parquet"
    pq.write_table(pq.read_table(path), path, compression="none", store_schema=False)
    ((file, _, problem),) = _recorded(folder, read_content(folder), suspect=False)
    assert file == "scores/good.parquet"
    assert problem == "has other bytes than were published, though no score differs"


def test_a_board_under_another_name_is_named(tmp_path):
    content = {"name": "toy", "files": {}}
    assert list(_names(tmp_path, content)) == [
        ("board.json", "name", f"is 'toy', the folder's is {tmp_path.name!r}")
    ]


def test_one_label_is_named_by_its_image(folder):
    line = change_scores(folder, "label", lambda label: 1 - label)
    where = f"{line['key']} ({line['category']}, seed {line['seed']}), {line['sample_id']}"
    assert findings(folder) == [("scores/good.parquet", where)]


def test_scores_of_nobody_and_missing_ones_are_named(folder):
    path = folder / "scores/good.parquet"
    frame = pq.read_table(path).to_pandas()
    key = frame.loc[100, "key"]
    frame.loc[frame["key"] == key, "key"] = "f" * 16
    path.write_bytes(parquet(frame))
    found = findings(folder)
    assert {file for file, _ in found} == {"scores/good.parquet"}
    assert [where.split(" ")[0] for _, where in found] == ["f" * 16, key]


def test_a_label_that_was_changed_in_all_jobs_is_named_in_all(folder):
    for path in sorted((folder / "scores").iterdir()):
        frame = pq.read_table(path).to_pandas()
        changed = (frame["category"] == "ant") & (frame["sample_id"] == "test-003")
        path.write_bytes(parquet(frame.assign(label=(frame["label"] ^ changed).astype("uint8"))))
    content = read_content(folder)
    found = sound_scores(folder, content, set())[1]
    keys = [job["key"] for job in content["jobs"] if job["category"] == "ant"]
    assert sorted(where.partition(" ")[0] for _, where, _ in found) == sorted(keys)
    assert {told for _, _, told in found} == {"image or label was changed"}


def test_scores_in_another_order_are_named_even_where_no_hash_is_known(material):
    board = material[0]
    table = board.scores[board.measured[0].job.key]
    assert _changed(table, None) == ""
    told = "its images are not in the order of their sample_id"
    assert _changed(table[::-1].reset_index(drop=True), None) == told


@pytest.mark.parametrize(("column", "value"), [("category", "bee"), ("seed", 7)])
def test_scores_of_another_category_or_seed_are_named(column, value, folder):
    path = folder / "scores/good.parquet"
    frame = pq.read_table(path).to_pandas()
    key = frame.loc[0, "key"]
    frame.loc[frame["key"] == key, column] = value
    path.write_bytes(parquet(frame))
    ((file, where, told),) = sound_scores(folder, read_content(folder), set())[1]
    assert (file, told) == ("scores/good.parquet", "board.json has no such job")
    assert where.startswith(f"{key} (")


def test_scores_that_are_not_listed_are_named_and_vouch_for_no_table(folder):
    """Without them no table could be recomputed, and a hash in the same folder vouches for anything."""
    (folder / "scores/good.parquet").unlink()

    def change(content):
        del content["files"]["scores/good.parquet"]
        content["seals"]["files"] = seal(content["files"])

    edit(folder, change)
    told = "toy/board.json: files: lacks scores/good.parquet, which ought to hold scores"
    assert [str(finding) for finding in boards.verify(folder)] == [told]
    assert [str(finding) for finding in boards.unsound(folder)] == [told]


def edit(folder, change):
    """Change ``board.json`` as a hand would."""
    content = json.loads((folder / "board.json").read_text())
    change(content)
    (folder / "board.json").write_text(text_of(content))
    return content


def forge(folder, **facts):
    """Change the first job as someone would who knows of seals."""

    def change(content):
        record = content["jobs"][0] | facts
        record["seal"] = seal({name: value for name, value in record.items() if name != "seal"})
        content["jobs"][0] = record
        content["seals"]["jobs"] = seal([job["seal"] for job in content["jobs"]])

    edit(folder, change)


def flip(text):
    return ("1" if text[0] == "0" else "0") + text[1:]


def test_a_digit_of_a_files_or_a_categorys_hash_is_named(folder):
    def change(content):
        for file in ("results.csv", "README.md", "scores/good.parquet", "losses/good.csv"):
            content["files"][file]["sha256"] = flip(content["files"][file]["sha256"])
        for field in ("labels_sha256", "fingerprint"):
            content["categories"][1][field] = flip(content["categories"][1][field])

    edit(folder, change)
    assert sorted(findings(folder)) == [
        ("board.json", "categories/1/fingerprint"),
        ("board.json", "categories/1/labels_sha256"),
        ("board.json", "files/README.md/sha256"),
        ("board.json", "files/losses/good.csv"),
        ("board.json", "files/results.csv/sha256"),
        ("board.json", "files/scores/good.parquet"),
    ]


def test_whatever_was_changed_in_a_jobs_line_is_named(folder):
    def change(content):
        for number, field in enumerate(("scores_sha256", "seal", "split_fingerprint")):
            content["jobs"][number][field] = flip(content["jobs"][number][field])
        content["jobs"][3]["threshold"] = 1.6
        content["jobs"][4]["timing"]["fit_seconds"] = 0.1

    content = edit(folder, change)
    keys = [job["key"] for job in content["jobs"]]
    assert findings(folder) == [("board.json", f"jobs/{key}") for key in keys[:5]]


def test_a_digit_of_a_key_is_named(folder):
    content = edit(folder, lambda c: c["jobs"][3].update(key=flip(c["jobs"][3]["key"])))
    key = content["jobs"][3]["key"]
    found = findings(folder)
    assert ("board.json", f"jobs/{key}") in found
    assert all(key[1:] in where for _, where in found)


def test_a_job_under_the_key_of_another_is_named_whoever_wrote_the_seals(folder):
    content = read_content(folder)
    record = content["jobs"][0]
    record["split_fingerprint"] = flip(record["split_fingerprint"])
    record["seal"] = seal({name: value for name, value in record.items() if name != "seal"})
    content["seals"]["jobs"] = seal([job["seal"] for job in content["jobs"]])
    ((_, where, told),) = _seals(content)
    assert where == f"jobs/{record['key']}"
    assert told.startswith("its settings, protocol or fingerprint give the key ")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("dataset", lambda dataset: dataset.update(name="another")),
        ("protocol", lambda protocol: protocol.update(version="9")),
        ("configurations", lambda kinds: next(iter(kinds.values())).update(precision="bf16")),
    ],
)
def test_a_part_that_was_changed_is_named_without_the_jobs_whose_keys_it_gives(part, change, material):
    content = read_content(material[1])
    change(content[part])
    assert list(_seals(content)) == [("board.json", part, "was changed: its seal does not match")]


def test_a_job_that_was_taken_out_of_board_json_is_named(material):
    content = read_content(material[1])
    content["jobs"].pop()
    assert list(_seals(content)) == [("board.json", "jobs", "was changed: its seal does not match")]


def test_what_was_changed_in_the_parts_of_board_json_is_named(folder):
    def change(content):
        content["protocol"]["summary"] = "another"
        next(iter(content["machines"].values()))["cpu"] = "a faster one"
        content["seals"]["rules"] = "0" * 64

    edit(folder, change)
    assert findings(folder) == [
        ("board.json", "protocol"),
        ("board.json", "rules"),
        ("board.json", "machines"),
    ]


def test_a_board_of_another_versions_rules_comes_with_the_remedy(folder):
    def change(content):
        content["rules"]["moves_by_seeds"] += 1
        content["seals"]["rules"] = seal(content["rules"])

    edit(folder, change)
    found = [str(each) for each in boards.verify(folder)]
    assert "adbench publish --again FOLDER --board NAME" in found[0]
    assert "rules/moves_by_seeds: is" in found[1]


def test_parts_that_follow_from_others_are_made_anew(folder):
    def change(content):
        content["commands"].append("rm")
        content["more"] = 1
        del content["provenance"]
        content["seals"]["commands"] = seal(content["commands"])  # by someone who knows of seals

    edit(folder, change)
    assert findings(folder) == [
        ("board.json", "provenance"),
        ("board.json", "commands"),
        ("board.json", "more"),
    ]


def test_files_that_are_missing_or_should_not_be_there_are_named(folder):
    (folder / "notes.txt").write_text("hello")
    (folder / "losses/fair.csv").unlink()
    (folder / "pairs.csv").unlink()
    assert sorted(findings(folder)) == [("losses/fair.csv", ""), ("notes.txt", ""), ("pairs.csv", "")]


def test_a_board_that_was_looked_at_on_macos_is_sound(folder):
    for name in (".DS_Store", "scores/.DS_Store", "._board.json"):
        (folder / name).write_text("")
    assert findings(folder) == []
    (folder / ".hidden").write_text("")
    (folder / "._link").symlink_to("board.json")
    assert findings(folder) == [("._link", ""), (".hidden", "")]


def test_a_folder_is_no_file_and_a_board_has_few(folder):
    for name in ("results.csv", "scores/good.parquet"):
        (folder / name).unlink()
        (folder / name).mkdir()
    (folder / "more").mkdir()
    assert {("results.csv", ""), ("scores/good.parquet", ""), ("more", "")} <= set(findings(folder))


def test_another_version_of_the_parquet_library_finds_the_same_board(folder, material, monkeypatch):
    other = boards.folder.parquet
    monkeypatch.setattr(boards.folder, "parquet", lambda frame: other(frame) + b"by another version")
    assert findings(folder) == []
    assert not boards.publish(material[0], folder.parent)


def test_links_are_named_and_a_picture_that_is_gone(folder, tmp_path):
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    shutil.move(folder / "README.md", tmp_path / "README.md")
    (folder / "README.md").symlink_to(tmp_path / "README.md")
    (folder / "critical_difference.png").unlink()
    assert findings(folder) == [("README.md", ""), ("gone", ""), ("critical_difference.png", "")]


def test_a_picture_where_none_is_drawn_is_named(material, tmp_path):
    assert boards.publish(board_of(tmp_path / "runs", grid(("good", "fair"))), tmp_path)
    shutil.copy(material[1] / "critical_difference.png", tmp_path / "toy")
    assert findings(tmp_path / "toy") == [("critical_difference.png", "")]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("{", '{"name": "other", ', 1),  # a name twice: the last one counts
        lambda text: text + " ",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps({"jobs": json.loads(text)["jobs"], **json.loads(text)}),
    ],
)
def test_a_board_json_with_the_same_meaning_and_other_bytes_is_named(folder, change):
    text = (folder / "board.json").read_text()
    (folder / "board.json").write_text(change(text), newline="")
    assert [each.file for each in boards.verify(folder)] == ["board.json"]


def test_a_board_that_is_being_written_is_not_found(tmp_path):
    for name in (".a-host+1+ab+toy", "toy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "board.json").write_text("{}")
    assert boards.find_boards(tmp_path) == [tmp_path / "toy"]


def test_a_board_that_lost_what_it_rests_on_is_found_all_the_same(folder, adbench):
    shutil.copytree(folder, folder.parent / "rest")
    (folder.parent / "rest" / "board.json").unlink()
    shutil.rmtree(folder.parent / "rest" / "scores")
    ended = adbench("verify", folder.parent)
    assert ended.status == 1
    assert "rest/board.json: " in ended.out


def test_changed_losses_and_foreign_pictures_are_named(folder, material, tmp_path):
    text = (folder / "losses/good.csv").read_text()
    (folder / "losses/good.csv").write_text(text.replace("0.333333", "0.333334", 1))
    other = board_of(tmp_path / "runs", [*grid()[:-1], made("poor", "bee", 2, 0.5)])
    assert boards.publish(other, tmp_path / "other")
    for name in ("critical_difference.png", "intervals.png"):
        shutil.copy(tmp_path / "other/toy" / name, folder)
    assert findings(folder) == [
        ("losses/good.csv", ""),
        ("intervals.png", ""),
        ("critical_difference.png", ""),
    ]


def test_a_row_with_impure_scores_is_refused_as_ranked(folder):
    """Even when someone has written a seal anew."""

    forge(folder, purity_delta=0.5)
    found = boards.verify(folder)
    ranks = [str(each) for each in found if each.file == "leaderboard.csv" and each.where.endswith(", rank")]
    assert any(
        "not ranked: impure: scores or maps depend on their batch (relative change up to 0.5" in rank
        for rank in ranks
    )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("parameters", {"net": -5}, "whole numbers"),
        ("parameters", {"net": 3.5}, "whole numbers"),
        ("timing", {"fit_seconds": -100.0}, "fit_seconds must not be -100"),
        ("timing", {"latency_ms_p50": 2.0, "latency_ms_p99": 1.0}, "p50 is above"),
        ("purity_delta", -1.0, "purity_delta must not be -1"),
        ("reconstruction_error", -1.0, "reconstruction_error must not be -1"),
        ("error", "oops", "it states an error"),
        ("anomalies_fingerprint", "a" * 64, "is one-class"),
    ],
)
def test_what_no_run_can_have_measured_is_named_whoever_wrote_the_seals(folder, name, value, told):
    forge(folder, **{name: value})
    assert any(told in each.problem for each in boards.verify(folder))


def test_that_a_flat_colour_is_as_good_a_reconstruction_is_kept_and_told(tmp_path):
    errors = {"good": 0.1, "fair": 1.25}
    results = [replace(each, reconstruction_error=errors.get(each.job.detector)) for each in grid()]
    assert boards.publish(board_of(tmp_path / "runs", results), tmp_path)
    folder = tmp_path / "toy"
    assert list(boards.verify(folder)) == []
    jobs = json.loads((folder / "board.json").read_text())["jobs"]
    assert {job.get("reconstruction_error") for job in jobs} == {None, 0.1, 1.25}
    remarks = pd.read_csv(folder / "leaderboard.csv", keep_default_na=False).set_index("detector")["remark"]
    told = "in 6 of 6 jobs its networks reconstruct training images no better than one flat colour would"
    assert remarks.to_dict() == {"good": "", "fair": told, "poor": ""}


def test_a_metric_of_a_plugin_may_be_negative_but_is_a_number():
    one = made("one", CATEGORIES[0], 0, 1.0)
    assert list(impossible(replace(one, metrics={"spearman": -0.5, "auroc": 0.5}))) == []
    wrong = replace(one, metrics={"spearman": float("nan"), "auroc": -0.5})
    assert list(impossible(wrong)) == ["spearman must not be nan", "auroc must not be -0.5"]


def test_a_job_that_ended_well_had_no_problem():
    one = made("one", CATEGORIES[0], 0, 1.0)
    (told,) = impossible(replace(one, job=replace(one.job, problem="no weights")))
    assert told == "its status is ok, and it states an error"


def test_scores_in_the_file_of_another_detector_are_named(folder):
    files = [folder / f"scores/{name}.parquet" for name in ("good", "fair")]
    both = [file.read_bytes() for file in files]
    for file, data in zip(files, reversed(both), strict=True):
        file.write_bytes(data)
    told = {(each.file, each.problem) for each in boards.verify(folder)}
    assert ("scores/good.parquet", "belongs into scores/fair.parquet") in told


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"schema": 1}', b"\x00\xff", b"[" * 200_000])
def test_a_damaged_board_json_is_a_finding(folder, damage):
    (folder / "board.json").write_bytes(damage)
    assert findings(folder) == [("board.json", "")]


@pytest.mark.parametrize("file", ["scores/good.parquet", "results.csv", "losses/good.csv"])
def test_a_damaged_file_is_a_finding(folder, file):
    (folder / file).write_bytes(b"\x00\xffPAR1")
    assert {each for each, _ in findings(folder)} == {file}


def test_a_file_of_scores_that_cannot_be_read_is_one_finding(folder):
    (folder / "scores/good.parquet").write_bytes(b"")
    assert findings(folder) == [("scores/good.parquet", "")]


def test_where_a_board_json_cannot_be_read_is_told(folder):
    text = (folder / "board.json").read_text().replace('"name": "toy",', '"name": "toy"', 1)
    (folder / "board.json").write_text(text)
    with pytest.raises(
        AdbenchError, match=r"board\.json cannot be read \(.*line 4 column 2.*\); publish again"
    ):
        read_content(folder)


def test_a_board_json_without_seals_or_with_nonsense_is_a_finding(folder):
    edit(folder, lambda c: [job.pop("seal") for job in c["jobs"]])
    (found,) = boards.verify(folder)
    assert (found.file, found.problem) == ("board.json", "cannot be understood: KeyError: 'seal'")
    with pytest.raises(AdbenchError, match=r"board\.json cannot be understood \(KeyError: 'seal'\); publish"):
        boards.unsound(folder)


@pytest.mark.parametrize(
    "name", ["scores/../../x.parquet", "results.csv/../../x.csv", f"scores/{'p' * 3000}.parquet"]
)
def test_board_json_names_no_file_outside_its_folder_and_none_that_no_file_system_takes(folder, name):
    edit(folder, lambda c: c["files"].update({name: {}}))
    (found,) = boards.verify(folder)
    assert "no file of a board" in found.problem
    assert len(found.problem) < 600


def test_a_board_of_another_schema_is_not_read(folder):
    edit(folder, lambda c: c.update(schema=2))
    with pytest.raises(
        AdbenchError, match=r"board\.json has schema 2, and this adbench-tgan reads 1; use the"
    ):
        read_content(folder)


def test_pipes_and_devices_in_a_board_are_refused_without_waiting(folder):
    for name in ("losses/good.csv", "scores/good.parquet", "pairs.csv"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with in_time(), pytest.raises(AdbenchError, match=f"{name} cannot be read: .*not a regular file"):
            boards.read(folder)
    (folder / "board.json").unlink()
    os.mkfifo(folder / "board.json")
    with in_time():
        assert findings(folder) == [("board.json", "")]
    (folder / "board.json").unlink()
    (folder / "board.json").symlink_to("/dev/zero")
    (found,) = boards.verify(folder)
    assert "is a link" in found.problem


def test_a_hostile_board_keeps_no_other_from_being_checked(adbench, tmp_path):
    for name, text in {"a": "[" * 200_000, "b\x1b[31mred": "{}", "c": "nonsense"}.items():
        (tmp_path / "boards" / name).mkdir(parents=True)
        (tmp_path / "boards" / name / "board.json").write_text(text)
    ended = adbench("verify", "boards", "--json")
    assert ended.status == 1
    assert [each["board"] for each in json.loads(ended.out)["findings"]] == ["a", "b\x1b[31mred", "c"]
    ended = adbench("verify", "boards")
    assert ended.out.count(": 1 finding\n") == 3
    assert all(line.isprintable() for line in (ended.out + ended.err).splitlines())


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_picture_that_would_be_huge_is_no_diagram(tmp_path, side):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [header, b"IDAT" + zlib.compress(b"0" * 100), b"IEND"]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stamp(tmp_path / "x.png") == ""


def test_a_small_file_of_scores_makes_no_huge_table(tmp_path):
    def written(**columns):
        whole = {"category": "a", "seed": 0, "key": "k", "sample_id": "s", "label": 1, "score": 0.5} | columns
        table = pd.DataFrame(whole, index=range(1000))
        pq.write_table(pa.Table.from_pandas(table), tmp_path / "x.parquet", store_schema=False)

    for column, told in {"sample_id": "texts that are too large", "label": "label of type"}.items():
        written(**{column: pd.Categorical.from_codes([0] * 1000, ["x" * 2_000_000])})
        with memory_limited(2**30), pytest.raises(AdbenchError, match=told):
            read_score_file(tmp_path / "x.parquet")


def test_verify_needs_neither_torch_nor_plugins(material, tmp_path):
    code = (
        "import sys, json\nfrom adbench_tgan import cli\n"
        f"sys.argv = ['adbench', 'verify', {str(material[1])!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert "every cell matches" in ended.stdout
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))
    assert (
        loaded & {"torch", "torchvision", "anomalib", "timm", "adbench_plugins", "adbench_baselines"} == set()
    )
    assert {"pandas", "sklearn"} <= loaded


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


PAPERS = tuple(
    Paper(detector="good", protocol="one-vs-rest", category=name, auroc=value, source="a paper, Table 1")
    for name, value in (("ant", 0.8), ("bee", 0.9), ("average", 0.85))
)


def test_published_numbers_are_filled_only_where_all_categories_agree():
    assert published_cells("good", "one-vs-rest", ["ant", "bee"], PAPERS) == (
        pytest.approx(0.85),
        "a paper, Table 1",
    )
    assert published_cells("good", "one-vs-rest", ["ant", "bee", "cat"], PAPERS) == (
        None,
        "0.850 over 2 of 3 categories only (a paper, Table 1)",
    )
    assert published_cells("good", "leave-one-out", ["ant"], PAPERS) == (
        None,
        "0.800 published under one-vs-rest (a paper, Table 1): not comparable",
    )
    assert published_cells("good", "leave-one-out", ["cat"], PAPERS) == (
        None,
        "0.850 published on average under one-vs-rest (a paper, Table 1): not comparable",
    )
    assert published_cells("fair", "one-vs-rest", ["ant"], PAPERS) == (None, "")


def test_of_images_that_are_not_the_datasets_own_no_published_number_is_shown(tmp_path):
    table = tmp_path / "published.csv"
    head = "source,protocol,category,metric,value,table,our_detector,our_dataset,our_protocol"
    table.write_text(f"{head}\na paper,words,ant,AUROC,0.8,Table 1,good,toy,one-vs-rest\n")
    official = [each for each in grid(("good",)) if each.job.category == "ant"]
    board = board_of(tmp_path / "runs", official, published=table)
    assert board.leaderboard.loc[0, "published_auroc"] == 0.8
    text = "300 images; not the official 50,000"
    board = board_of(
        tmp_path / "copies", [replace(each, unofficial=text) for each in official], published=table
    )
    row = board.leaderboard.loc[0]
    assert pd.isna(row["published_auroc"])
    told = "0.800 published on the official images (a paper, Table 1): not comparable"
    assert row["published_source"] == told
    boards.publish(board, tmp_path)
    assert boards.verify(tmp_path / "toy") == []
    assert f"**Not the dataset's own images:** {text}." in (tmp_path / "toy/README.md").read_text()


def test_beside_other_networks_than_the_published_ones_no_published_number_is_shown():
    of = partial(comparable_cells, 0.9, "a paper (arch=mlp)", unofficial=False)
    assert of("paper; arch=mlp; epochs=1") == (0.9, "a paper (arch=mlp)")
    told = "0.900 published with {} (a paper (arch=mlp)): not comparable"
    assert of("paper; epochs=1") == (None, told.format("arch=mlp"))
    assert of("quick; arch=mlp") == (None, told.format("the preset paper"))
    assert comparable_cells(0.9, "a paper", "paper", unofficial=False) == (0.9, "a paper")
    assert comparable_cells(None, "", "quick", unofficial=False) == (None, "")
    (mnist,) = papers_of(read_published(ROOT / "leaderboards/published_numbers.csv"), "mnist", ["f_anogan"])
    assert comparable_cells(mnist.auroc, mnist.source, "paper", unofficial=False)[0] is None


def test_our_table_of_published_numbers_is_read():
    table = ROOT / "leaderboards/published_numbers.csv"
    printed = read_published(table)
    anogan = papers_of(printed, "cifar10", ["anogan"])
    assert published_cells("anogan", "one-vs-rest", ["airplane", "truck"], anogan)[0] == pytest.approx(0.611)
    papers = papers_of(printed, "cifar10", ["sagan", "ganomaly"])
    eight = ["frog", "bird", "cat", "deer", "dog", "horse", "ship", "truck"]
    number, source = published_cells("ganomaly", "leave-one-out-6k", eight, papers)
    assert number == pytest.approx(np.mean([0.777, 0.552, 0.647, 0.684, 0.815, 0.683, 0.818, 0.844]))
    assert source == "SAGAN paper (ICIP 2021), Table 2"
    number, source = published_cells("ganomaly", "one-vs-rest", eight, papers)
    assert number is None
    assert source.startswith("0.728 published under leave-one-out-6k (SAGAN paper (ICIP 2021), Table 2)")
    thesis = papers_of(printed, "cifar10", ["transgan_dual"])
    number, source = published_cells("transgan_dual", "one-vs-rest", ["ship"], thesis)
    assert number is None
    assert source.startswith(
        "0.830 published under 'one class normal, labelled anomalies in training; printed as"
    )
    assert source.endswith("(Khemka thesis (2024), Table 6): not comparable")


def test_a_detector_that_failed_everywhere_is_a_row_whatever_papers_print(tmp_path):
    lost = [replace(each, status="failed", error="oops", scores=None) for each in grid(("poor",))]
    published = tmp_path / "published.csv"
    published.write_text(
        "source,table,category,metric,value,protocol,our_detector,our_dataset,our_protocol\n"
        "Paper,,ant,AUROC,0.7,other,poor,toy,leave-one-out\n"
    )
    board = board_of(tmp_path / "runs", [*grid(("good",)), *lost], published=published)
    line = board.leaderboard.set_index("detector").loc["poor"]
    assert (line["n_failed"], line["n_seeds"]) == (6, 0)
    assert "not comparable" in line["published_source"]


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


def test_of_an_audit_only_the_as_published_number_enters(tmp_path):
    results = grid()
    keys = {(r.job.detector, r.job.category, r.job.seed): r.job.key for r in results}
    rows = [(keys["good", name, 0], 0.9 + number / 100, 0.1) for number, name in enumerate(CATEGORIES)]
    rows += [(keys["fair", "ant", 0], 0.95, 0.1), ("0" * 16, 0.5, 0.1)]
    audit = tmp_path / "audit.csv"
    pd.DataFrame(rows, columns=["key", "as_published", "clean"]).to_csv(audit, index=False)
    board = board_of(tmp_path / "runs", results, audit=audit)
    lines = board.leaderboard.set_index("detector")
    assert lines.loc["good", "as_published_auroc"] == pytest.approx(0.905)
    assert pd.isna(lines.loc["fair", "as_published_auroc"])
    assert lines.loc["fair", "remark"] == "as published 0.950 on ant, no other category was audited"
    assert lines.loc["fair", "rank"] == 2
    boards.publish(board, tmp_path)
    assert boards.verify(tmp_path / "toy") == []
    assert len(json.loads((tmp_path / "toy/board.json").read_text())["audit"]) == 3


def test_an_audit_of_none_of_the_jobs_is_said_to_give_no_number(tmp_path):
    (tmp_path / "audit.csv").write_text(f"key,as_published\n{'0' * 16},0.5\n")
    said: list[str] = []
    board = board_of(tmp_path / "runs", grid()[:1], audit=tmp_path / "audit.csv", say=said.append)
    assert said == [
        f"note: {tmp_path / 'audit.csv'} has no value of as_published for these jobs, and so adds nothing"
    ]
    assert not board.facts.audit


@pytest.mark.parametrize(
    ("printed", "rows", "told"),
    [
        ({"k": 0.9}, [("audit", "k,0.9")], None),
        ({"k": 0.9}, [("audit", "other,0.5")], None),
        ({"k": 0.9}, [("audit", "k,0.5"), ("later", "k,0.9000000001")], None),
        ({"k": 0.9}, [("audit", "k,0.9000004")], None),
        ({"k": 0.9}, [("audit", "k,0.90001")], ("audit/k", "is 0.9, the audit beside it says 0.90001")),
        ({"k": 0.9}, [("audit", "k,0.5")], ("audit/k", "is 0.9, the audit beside it says 0.5")),
        ({"k": 0.9}, [("audit", "k,x")], ("audit", "cannot be compared: ")),
        ({}, [("audit", "k,x")], None),
    ],
)
def test_what_a_board_says_of_an_audit_is_what_the_audit_beside_it_says(
    tmp_path, material, printed, rows, told
):
    content = json.loads((material[1] / "board.json").read_text()) | {"audit": printed}
    for name, row in rows:
        (tmp_path / name).mkdir()
        (tmp_path / name / "audit.csv").write_text(f"key,as_published\n{row}\n")
    found = [(where, problem) for _, where, problem in _audits(tmp_path / "toy", content)]
    assert len(found) == (told is not None)
    assert all(where == told[0] and problem.startswith(told[1]) for where, problem in found)


def test_an_audit_that_says_otherwise_is_a_finding_of_the_board(material, tmp_path):
    board, key = material[0], material[0].measured[0].job.key
    facts = replace(board.facts, audit={key: 0.999})
    boards.publish(boards.assemble(facts, board.measured, board.scores, board.losses), tmp_path)
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit/audit.csv").write_text(f"key,as_published\n{key},0.5\n")
    assert [each.where for each in boards.verify(tmp_path / "toy")] == [f"audit/{key}"]


def test_that_an_audit_is_of_a_part_is_told_beside_other_remarks(material):
    board = material[0]
    standing = replace(board.standings[0], line={**board.standings[0].line, "remark": "not ranked: so"})
    one = next(each for each in standing.members if each.job.category == "ant")
    told = completed(standing, replace(board.facts, audit={one.job.key: 0.9})).line["remark"]
    assert told == "not ranked: so; as published 0.900 on ant, no other category was audited"


def test_an_audit_of_jobs_that_are_left_out_is_left_out(material):
    board = material[0]
    one, other, _ = (each.job for each in board.measured if (each.job.category, each.job.seed) == ("ant", 0))
    kept = replace(board, facts=replace(board.facts, audit={one.key: 0.9, other.key: 0.8}))
    left = boards.from_runs([], Registry(_offers=NOTHING), kept=kept, choice=Choice(detectors=[one.detector]))
    assert left.facts.audit == {one.key: 0.9}


@pytest.fixture
def runs(tmp_path):
    return stored(tmp_path / "runs", grid(("good", "fair", "poor", "taught")))


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


def one_line_of(error):
    return str(error.value).isprintable()


# --- what fuzzers found: each was a traceback, or several lines --------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["detector\npca\n", "a,b\n1,2\n1,2,3,4\n", '"a\x1b",b\n1,2\n'],
    ids=["columns are missing", "a row is too long", "a column has another name"],
)
def test_a_table_that_is_none_of_ours_is_refused_in_one_line(text):
    with pytest.raises(AdbenchError, match=r"pairs\.csv ") as error:
        check(parse(text.encode(), PAIRS), PAIRS)
    assert one_line_of(error)


@pytest.mark.parametrize(("column", "value"), [("auroc_mean", 1.5), ("holm_p", -0.1), ("precision", "fp8")])
def test_a_cell_beyond_what_its_column_holds_is_refused(column, value, material):
    tables = {PAIRS: "pairs", LEADERBOARD: "leaderboard", RESULTS: "results"}
    ((table, name),) = [(table, name) for table, name in tables.items() if column in table.columns]
    frame = getattr(material[0], name)
    check(frame, table)
    with pytest.raises(AdbenchError, match=rf"{table.file} is not as its schema 1 says: .*{column}"):
        check(frame.assign(**{column: value}), table)


@pytest.mark.parametrize(
    "change",
    [{"label": [0, 2]}, {"score": [0.5, np.inf]}, {"seed": [0, -1]}, {"sample_id": ["s", "s"]}],
    ids=str,
)
def test_scores_that_are_none_are_refused(change):
    frame = pd.DataFrame({"category": "a", "seed": 0, "key": "0" * 16, "sample_id": ["s", "t"]})
    frame = frame.assign(label=[0, 1], score=0.5)
    kinds = {"label": "uint8", "score": "float32"}
    check_scores(frame.astype(kinds), "scores/x.parquet")
    with pytest.raises(AdbenchError, match=r"scores/x\.parquet is not as its schema 1 says"):
        check_scores(frame.assign(**change).astype(kinds), "scores/x.parquet")


def test_an_image_twice_in_a_job_is_told_once():
    frame = pd.DataFrame({"category": "a", "seed": 0, "key": "0" * 16, "sample_id": ["s"] * 1000})
    frame = frame.assign(label=np.uint8(1), score=np.float32(0.5))
    with pytest.raises(AdbenchError) as caught:
        check_scores(frame, "scores/x.parquet")
    told = "scores/x.parquet is not as its schema 1 says: an image (sample_id) twice in a job (key)"
    assert str(caught.value) == told


def test_scores_are_checked_when_they_are_read(folder):
    frame = read_score_file(folder / "scores/good.parquet")
    (folder / "scores/good.parquet").write_bytes(parquet(frame.assign(label=np.uint8(2))))
    with pytest.raises(AdbenchError, match=r"scores/good\.parquet is not as its schema 1 says: .*label"):
        read_score_file(folder / "scores/good.parquet")


def test_a_job_has_one_row(material):
    frame = material[0].results
    with pytest.raises(AdbenchError, match=r"results\.csv is not as its schema 1 says: .*key"):
        check(pd.concat([frame, frame[:1]], ignore_index=True), RESULTS)


@pytest.mark.parametrize(
    "text",
    [
        "category,seed,key,epoch,loss\na,0.5,k,1,1\n",
        "category,seed,key,epoch,loss\na,0,k,1,1,7,7\n,\n,,,,,,,,\n",
    ],
    ids=["half a seed", "a row is too long"],
)
def test_losses_that_cannot_be_read_are_refused_in_one_line(text, tmp_path):
    path = tmp_path / "losses/good.csv"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(AdbenchError, match=r"good\.csv cannot be read: ") as error:
        read_losses(tmp_path, {"files": ["losses/good.csv"]})
    assert one_line_of(error)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data.replace(b"\tsample_id", b"\tsam\xfcle_id"), lambda data: data[:-100]],
    ids=["a name is no text", "it is cut short"],
)
def test_scores_that_cannot_be_read_are_refused_in_one_line(damage, tmp_path):
    columns = {"category": "a", "seed": 0, "key": "k", "sample_id": "s", "label": np.uint8(0)}
    frame = pd.DataFrame({name: [value] for name, value in columns.items()})
    path = tmp_path / "good.parquet"
    path.write_bytes(damage(parquet(frame.assign(score=np.float32([0.5])))))
    with pytest.raises(AdbenchError, match=r"good\.parquet cannot be read: ") as error:
        read_score_file(path)
    assert one_line_of(error)


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


def test_a_board_is_compared_with_the_table_of_published_numbers_beside_it(tmp_path, monkeypatch):
    table = tmp_path / "published_numbers.csv"
    head = "source,protocol,category,metric,value,table,our_detector,our_dataset,our_protocol"
    table.write_text(f"{head}\na paper,words,ant,AUROC,0.8,Table 1,good,toy,one-vs-rest\n")
    boards.publish(board_of(tmp_path / "runs", grid(), published=table), tmp_path)
    assert boards.verify(tmp_path / "toy") == []
    table.write_text(table.read_text().replace("0.8", "0.9"))
    monkeypatch.chdir(tmp_path / "toy")
    assert findings(Path()) == [("board.json", "published")]


def test_images_of_one_name_are_refused(tmp_path):
    one = made("good", "ant", 0, 1.0)
    one.scores.loc[1, "sample_id"] = one.scores.loc[0, "sample_id"]
    with pytest.raises(AdbenchError, match="good on toy/ant seed 0: test images share a sample_id"):
        board_of(tmp_path, [one])


def test_audited_seeds_are_averaged_before_categories():
    members = [made("good", category, seed, 1.0) for category, seed in (("ant", 0), ("ant", 1), ("bee", 0))]
    audit = dict(zip([each.job.key for each in members], (0.6, 0.8, 0.9), strict=True))
    assert audited(members, audit) == (pytest.approx((0.7 + 0.9) / 2), "")


def test_images_of_another_side_than_the_settings_are_named():
    one = made("one", CATEGORIES[0], 0, 1.0, config={"epochs": 2, "image_size": 16})
    assert list(impossible(one)) == ["images of 8 x 8 are not those of image_size=16"]
    assert list(impossible(replace(one, shape=(1, 16, 16)))) == []


@pytest.mark.parametrize(
    ("precision", "by", "told"), [("fp32", 5e-5, 0), ("fp32", 2e-4, 1), ("tf32", 1e-3, 0), ("bf16", 1e-2, 0)]
)
def test_scores_may_differ_by_rounding_of_their_precision_and_no_more(precision, by, told):
    one = made("good", "ant", 0, 2.0, precision=precision)
    table = canonical(one.scores)
    own = table.assign(score=table["score"] * (1 + by))
    assert len(list(_differences(one, table, one, own))) == told


def test_a_remark_says_once_that_scores_are_impure(tmp_path):
    board = board_of(tmp_path, [replace(each, purity_delta=0.01) for each in grid(("good",))])
    assert list(board.leaderboard["remark"]) == [
        "not ranked: impure: scores or maps depend on their batch (relative change up to 0.01)"
    ]


def test_one_job_on_other_images_is_enough_to_show_no_published_number(tmp_path):
    row = board_of(tmp_path, grid(("good",))).standings[0]
    papers = [
        Paper(detector="good", protocol="p", category=name, auroc=0.9, source="S")
        for name in sorted(row.spread)
    ]
    assert with_papers(row, "p", papers).line["published_auroc"] == pytest.approx(0.9)
    mixed = replace(row, members=(replace(row.members[0], unofficial="a JPEG copy"), *row.members[1:]))
    line = with_papers(mixed, "p", papers).line
    assert line["published_auroc"] is None
    assert line["published_source"] == "0.900 published on the official images (S): not comparable"


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

"""`adbench verify`: our boards are sound, every change is named, and no file of a stranger does harm."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_board import CATEGORIES, board_of, change_cell, change_scores, findings, grid, made
from test_hostile import in_time

from adbench_tgan import boards
from adbench_tgan.boards.differences import cells, page
from adbench_tgan.boards.document import seal, text_of
from adbench_tgan.boards.folder import (
    parquet,
    parse,
    read_content,
    read_losses,
    read_score_file,
)
from adbench_tgan.boards.schemas import LEADERBOARD, PAIRS, RESULTS, check, check_scores
from adbench_tgan.boards.soundness import _changed, impossible, sound_scores
from adbench_tgan.boards.verify import _hashes, _names, _recorded, _seals
from adbench_tgan.errors import AdbenchError
from adbench_tgan.predict import memory_limited
from adbench_tgan.store.stored import stamp

ROOT = Path(__file__).parent.parent


PUBLISHED = [path.parent for path in sorted((ROOT / "leaderboards").glob("*/board.json"))]


@pytest.mark.parametrize("place", PUBLISHED, ids=lambda path: path.name)
def test_published_boards_are_sound(place):
    assert boards.verify(place) == []


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
    assert found == ("README.md", f"line {line}", "does not match the tables")


def test_a_page_of_another_version_comes_with_the_remedy(folder):
    page = folder / "README.md"
    page.write_text(page.read_text().replace("## Files", "## The files"))
    problems = [each.problem for each in boards.verify(folder) if each.file == "README.md"]
    assert len(problems) == 1
    assert "; adbench publish --again FOLDER --board NAME writes it anew" in problems[0]


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


def test_images_of_another_side_than_the_settings_are_named():
    one = made("one", CATEGORIES[0], 0, 1.0, config={"epochs": 2, "image_size": 16})
    assert list(impossible(one)) == ["images of 8 x 8 are not those of image_size=16"]
    assert list(impossible(replace(one, shape=(1, 16, 16)))) == []

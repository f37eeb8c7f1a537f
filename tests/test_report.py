"""The report's numbers, its texts, and what it says when there is nothing to show. The browser has tests of its own."""

import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_runs import LABELS, made, make_runs, toy_job
from sklearn.metrics import auc, roc_auc_score

from adbench_tgan import report
from adbench_tgan.again import run_commands
from adbench_tgan.boards import from_runs, publish
from adbench_tgan.commands.report import galleries_of
from adbench_tgan.errors import AdbenchError
from adbench_tgan.leaderboard import told_apart
from adbench_tgan.report import audited, charts, curves, examples, page, provenance, tables
from adbench_tgan.report.gallery import Example, Gallery, Picture
from adbench_tgan.report.material import from_board, from_store, name_entries
from adbench_tgan.results import ResultStore
from adbench_tgan.text import plain

BOARDS = Path(__file__).parent.parent / "leaderboards"
HOSTILE = "<img src=x onerror=alert(1)>"


pytestmark = pytest.mark.usefixtures("no_bundle")


def rendered(root, registry, **more):
    return page.render(from_store(root, registry), **more)


def specs(text):
    """The charts' specifications by name."""
    names = re.findall(r'class="chart" data-name="([\w-]+)"', text)
    found = re.findall(r'<script type="application/json" class="spec">(.*?)</script>', text, re.S)
    return dict(zip(names, map(json.loads, found), strict=True))


def test_everything_from_outside_is_escaped(tmp_path, registry):
    results = [
        made(HOSTILE, "</script><b>", preset=f"quick; x={HOSTILE}", pretrained=HOSTILE),
        made("plain", "</script><b>", notes=(f"fell back {HOSTILE}",), device=HOSTILE),
        made("bad", "</script><b>", status="failed", error=f"boom {HOSTILE}"),
    ]
    text = rendered(make_runs(tmp_path, *results), registry, no_examples=HOSTILE, no_audits=HOSTILE)
    assert "<img src=x" not in text
    assert "</script><b>" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 6
    assert {name: spec for name, spec in specs(text).items() if HOSTILE in json.dumps(spec)}


def test_the_page_is_printable_and_its_choices_are_the_texts_of_its_charts(tmp_path, registry):
    name, category = "a\x00\x9b31m\u202e", "c\xa0\x1b"
    results = [made(name, category, preset=f"quick; x={name}"), made(name, category, preset="quick")]
    text = rendered(make_runs(tmp_path, *results), registry, no_examples=name)
    assert all(line.isprintable() for line in text.split("\n"))
    records = specs(text)["roc"]
    for shown in (*re.findall(r'<tr data-entry="(.*?)"', text), plain(category)):
        assert json.dumps(shown) in json.dumps(records)


def test_same_material_gives_the_same_page(tmp_path, registry):
    make_runs(tmp_path, made("one"), made("two", shift=2.0))
    assert rendered(tmp_path, registry) == rendered(tmp_path, registry)


def test_page_names_nothing_to_load(tmp_path, registry):
    text = rendered(make_runs(tmp_path, made("one")), registry)
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text) == []
    assert "default-src 'none'" in text


def test_numbers_of_the_table_are_those_of_the_leaderboard(tmp_path, registry):
    make_runs(tmp_path, made("one", seed=0), made("one", seed=1), made("two", shift=3.0, seed=0))
    material = from_store(tmp_path, registry)
    text = page.render(material)
    for value in material.leaderboard["auroc_mean"]:
        assert f'data-value="{float(value)!r}" class="number">{value:.3f}</td>' in text


def test_a_published_board_gives_a_page_with_its_own_numbers():
    material = from_board(BOARDS / "digits-one-vs-rest")
    assert len(material.results) == 540
    assert material.first_seeds()["ganomaly", "0"] in set(material.results["key"])
    text = page.render(material)
    for name in material.entries:
        assert name in text
    (shown,) = material.leaderboard.loc[material.leaderboard["detector"] == "egbad", "auroc_mean"]
    assert f"{shown:.3f}" in text


def test_roc_is_thinned_but_keeps_its_area_and_ends():
    draw = np.random.default_rng(0)
    labels = draw.random(20_000) < 0.3
    scores = draw.normal(size=20_000) + labels
    false, true = curves.roc(scores, labels)
    assert len(false) == len(true) <= curves.POINTS
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert auc(false, true) == pytest.approx(roc_auc_score(labels, scores), abs=0.001)


def test_histogram_shares_add_up_and_keep_outliers():
    scores = np.concatenate([np.random.default_rng(0).normal(size=998), [1e6, -1e6]])
    labels = np.arange(1000) % 2 == 0
    found = curves.histogram(scores, labels)
    assert len(found["edges"]) == curves.BINS + 1
    assert abs(found["edges"][0]) < 10
    assert sum(found["normal"]) == pytest.approx(1, abs=0.001)
    assert sum(found["abnormal"]) == pytest.approx(1, abs=0.001)
    constant = curves.histogram(np.ones(4), np.array([True, False, True, False]))
    assert sum(constant["normal"]) == 1


def test_losses_that_begin_late_are_drawn_from_where_they_begin(tmp_path, registry):
    material = from_store(make_runs(tmp_path, made("one")), registry)
    records = {record["loss"]: record for record in curves.loss_records(material)}
    assert records["loss"]["epoch"] == [1, 2, 3]
    assert (records["late"]["epoch"], records["late"]["value"]) == ([2, 3], [9.0, 8.0])


def test_a_loss_without_bound_leaves_a_gap_and_no_chart_that_is_no_json(tmp_path, registry):
    diverged = made("one", losses=({"loss": 3.0}, {"loss": float("inf")}, {"loss": 2.0}))
    material = from_store(make_runs(tmp_path, diverged), registry)
    (record,) = curves.loss_records(material)
    assert (record["epoch"], record["value"]) == ([1, 3], [3.0, 2.0])


def test_counts_are_not_drawn_as_losses(tmp_path, registry):
    counted = made("one", losses=({"loss": 3.0, "restarts": 0.0}, {"loss": 2.0, "restarts": 1.0}))
    material = from_store(make_runs(tmp_path, counted), registry)
    assert [record["loss"] for record in curves.loss_records(material)] == ["loss"]


@pytest.mark.parametrize(
    ("threshold", "at", "beyond"),
    [(15.0, 15.0, 0), (8.0, 8.0, 0), (24.5, 24.5, 0), (1e6, 20.0, 1), (-3.0, 10.0, -1)],
)
def test_threshold_is_drawn_where_it_is_or_said_to_be_beyond(threshold, at, beyond):
    mark = charts.threshold_mark(threshold, 10.0, 20.0)
    assert (mark["threshold"], mark["at"], mark["beyond"]) == (threshold, at, beyond)
    assert mark["note"] == (f"{threshold:.4g}, beyond the axis" if beyond else "on the axis")


def test_charts_show_the_lowest_seed_and_stay_small(tmp_path, registry):
    results = [made("one", f"c{i:02}", 2) for i in range(31)]
    results += [made("one", "c00", 10), made("one", "c00", 1, status="failed")]
    material = from_store(make_runs(tmp_path, *results), registry)
    chosen = curves.chosen_jobs(material)
    assert len(chosen) == curves.CATEGORIES
    assert {material.results.set_index("key")["seed"][key] for key in chosen.values()} == {2}
    assert "Only the first 30 of 31 categories" in page.render(material)


def test_pareto_marks_those_that_none_beats(tmp_path, registry):
    make_runs(tmp_path, made("a", shift=1.0), made("bb", shift=3.0), made("ccc", shift=2.0))
    material = from_store(tmp_path, registry)
    spec = charts.pareto(material.leaderboard, material.entries)
    lines = {line["entry"]: line["best"] for line in spec["data"]["values"]}
    assert lines == {"a": True, "bb": True, "ccc": False}


def test_pareto_passes_over_rows_without_a_rank_and_of_other_supervision(tmp_path, registry):
    make_runs(tmp_path, made("a", shift=1.0), made("bb", shift=3.0), made("ccc", shift=2.0))
    board = from_store(tmp_path, registry).leaderboard.set_index("entry", drop=False)
    board.loc["bb", "rank"] = None
    spec = charts.pareto(board, list(board["entry"]))
    assert {line["entry"]: line["best"] for line in spec["data"]["values"]} == {
        "a": True,
        "bb": False,
        "ccc": True,
    }
    board.loc["ccc", "supervision"] = "labelled"
    board.loc["ccc", "latency_ms_p50"] = (
        board.loc["a", "latency_ms_p50"] / 2
    )  # beats a, but learned from more
    spec = charts.pareto(board, list(board["entry"]))
    assert {line["entry"]: line["best"] for line in spec["data"]["values"]} == {
        "a": True,
        "bb": False,
        "ccc": True,
    }


def test_rows_without_a_rank_are_counted_and_the_reason_is_said(tmp_path, registry):
    two = [made("one"), made("two")]
    material = from_store(make_runs(tmp_path / "ranked", *two), registry)
    assert tables.unranked(material.leaderboard) == ""
    bad = [made("bad", status="failed"), made("worse", "b", shift=2.0)]
    board = from_store(make_runs(tmp_path / "mixed", *two, *bad), registry).leaderboard
    assert tables.unranked(board) == "4 of 4 rows have no rank: see their remarks."
    remarks = ["", "not ranked: 1 of the 3 seeds needed", "not ranked: 1 of the 3 seeds needed; more"]
    board = pd.DataFrame({"rank": [1, None, None], "remark": remarks})
    assert tables.unranked(board) == "2 of 3 rows have no rank: 1 of the 3 seeds needed."
    assert list(tables.without_shared_reason(board)["remark"]) == remarks
    assert list(tables.without_shared_reason(board[1:])["remark"]) == ["", "more"]


def test_what_keeps_every_row_from_a_rank_is_said_once(tmp_path, registry):
    declared = {"training changes the scores": "it learns nothing"}
    sound = {"metrics": {}, "purity_delta": 0.0}
    runs = make_runs(tmp_path / "runs", made("one", **sound), made("two", **sound, declared=declared))
    publish(from_runs([runs], registry, name="small"), tmp_path)
    text = page.render(from_board(tmp_path / "small"))
    assert text.count("1 of the 3 seeds needed") == 1
    assert ": declared to fail these checks: training changes the scores (it learns nothing)<" in text


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        ("leaderboard.csv", ",", ";", "does not match its size and SHA-256"),
        ("results.csv", ",ok,", ",failed,", "does not match its size and SHA-256"),
        ("scores/one.parquet", "", "x", "does not match its size and SHA-256"),
        ("board.json", '"purity_delta": 0.0', '"purity_delta": 0.1', "was changed: its seal does not match"),
        ("board.json", '"seal": ', '"zeal": ', r"cannot be understood \(KeyError: 'seal'\)"),
    ],
    ids=["leaderboard", "results", "scores", "measurement", "seal"],
)
def test_no_page_is_made_of_a_board_that_was_changed(file, before, after, told, tmp_path, registry):
    runs = make_runs(tmp_path / "runs", made("one", metrics={}, purity_delta=0.0))
    publish(from_runs([runs], registry, name="small"), tmp_path)
    path = tmp_path / "small" / file
    from_board(tmp_path / "small")
    path.write_bytes(path.read_bytes().replace(before.encode(), after.encode(), 1))
    with pytest.raises(AdbenchError, match=rf"small/{file}.*{told}"):
        from_board(tmp_path / "small")


def test_order_in_which_the_table_opens_is_said():
    assert initial_order("mvtec-screw") == {"rank": "ascending"}
    assert initial_order("cifar10-one-vs-rest") == {"supervision": "descending"}  # then by AUROC


def initial_order(board):
    found = from_board(BOARDS / board).leaderboard
    columns = tables.leaderboard_columns(found)
    return tables.initial_order(tables.leaderboard_rows(found, columns), columns)


def test_the_page_says_how_much_it_holds(tmp_path, registry):
    small = from_store(make_runs(tmp_path / "small", made("one")), registry)
    assert page.extent(small) == "1 detector, 1 category, 1 seed, 1 job"
    jobs = [made(name, category, seed) for name in ("one", "two") for category in "abc" for seed in (0, 1)]
    large = from_store(make_runs(tmp_path / "large", *jobs), registry)
    assert page.extent(large) == "2 detectors, 3 categories, 2 seeds, 12 jobs"
    variants = [made("one", of_categories=15), made("one", preset="quick", config={"epochs": 1}), made("two")]
    partial = from_store(make_runs(tmp_path / "partial", *variants), registry)
    assert page.extent(partial) == "2 detectors in 3 configurations, 1 of 15 categories, 1 seed, 3 jobs"
    assert page.extent(from_board(BOARDS / "mvtec-screw")).startswith("12 detectors in 23 configurations, 1 ")


def test_the_page_names_no_path_of_the_machine_it_was_made_on(tmp_path, registry, monkeypatch):
    make_runs(tmp_path / "mine", made("one"))
    monkeypatch.chdir(tmp_path / "mine")
    for root in (tmp_path / "mine", Path()):
        text = rendered(root, registry)
        assert str(tmp_path) not in text
        assert " from mine. This file" in text
    told = audited.audits_of(audit_file(tmp_path / "audits"), "mvtec", "official")
    assert told == ([], "The audits in audits are of other datasets than mvtec.")


def test_the_code_stands_with_each_machine_once(tmp_path, registry):
    code = {"commit": "c" * 40, "changed": False, "framework": "f" * 64}
    for name in ("one", "two"):  # of two distributions
        machine = {"cpu": "a processor", "versions": {"torch": "2.9"}, "code": code | {"detector": name}}
        make_runs(tmp_path, made(name, machine=machine))
    lines = provenance.machine_lines(from_store(tmp_path, registry).machines)
    shown = {"device": "cpu", "cpu": "a processor", "versions": "torch 2.9"}
    assert lines == [shown | {"code": "commit cccccccccccc, sources ffffffffffff"}]
    assert provenance.machine_lines(
        [{"device": "cpu", "cpu": "a processor", "versions": {"torch": "2.9"}}]
    ) == [shown | {"code": ""}]
    assert "commit cccccccccccc, sources" in rendered(tmp_path, registry)


def test_a_result_that_cannot_be_read_is_named(tmp_path, registry):
    store = ResultStore(make_runs(tmp_path, made("one", seed=0), made("one", seed=1)))
    path = store.folder(made("one", seed=1).job) / "result.json"
    path.write_text("{")
    assert from_store(tmp_path, registry).notes == (
        f"{path.relative_to(tmp_path)} is left alone and not in the tables: damaged; run its job again",
    )


def test_of_many_results_that_cannot_be_read_a_few_are_named(tmp_path, registry):
    store = ResultStore(make_runs(tmp_path, *(made("one", seed=seed) for seed in range(8))))
    for seed in range(1, 8):
        (store.folder(made("one", seed=seed).job) / "result.json").write_text("{")
        if seed == 6:
            assert from_store(tmp_path, registry).notes[5:] == ("1 more result is left alone",)
    *named, rest = from_store(tmp_path, registry).notes
    assert [note.partition(" is left alone")[1] for note in named] == [" is left alone"] * 5
    assert rest == "2 more results are left alone"


def test_what_is_to_be_said_of_rows_stands_at_their_names_and_once_below_the_table(tmp_path, registry):
    material = from_store(make_runs(tmp_path, made("one"), made("two"), made("three")), registry)
    board = material.leaderboard
    board["remark"] = [HOSTILE if name != "three" else "" for name in board["detector"]]
    text = page.render(material)
    shown = HOSTILE.replace("<", "&lt;").replace(">", "&gt;")
    table, below = text.split("</table>")[:2]
    for name in ("one", "two"):
        star = f'>{name}&#160;<a href="#remarks" title="{shown}" aria-label="{shown}">*</a></th>'
        assert star in table
    assert ">three</th>" in table
    (names,) = re.findall(rf"<li><strong>\* (.*?)</strong>: {re.escape(shown)}</li>", below)
    assert sorted(names.split(", ")) == ["one", "two"]
    assert HOSTILE not in text
    assert "Every job finished without a note. Remarks on whole rows" in text


def test_no_latency_plot_over_several_devices(tmp_path, registry):
    make_runs(tmp_path, made("one"), made("two", device="a GPU"))
    text = rendered(tmp_path, registry)
    assert "pareto" not in specs(text)
    assert "times are not comparable" in text
    assert "No times are recorded" not in text


def test_a_job_that_belongs_to_no_row_is_named():
    material = from_board(BOARDS / "digits-one-vs-rest")
    others = material.leaderboard[material.leaderboard["detector"] != "pca"].copy()
    with pytest.raises(
        AdbenchError, match=r"leaderboard.csv has no row for pca: quick, .*; .*publish --again makes"
    ):
        name_entries(material.results, others)


def test_a_board_without_times_says_so_and_what_papers_print():
    text = page.render(from_board(BOARDS / "mvtec-screw"))
    assert "<dt>ganomaly (image_size=64; precision=tf32)</dt><dd>0.231 published under" in text
    assert "not comparable</dd>" in text
    assert "pareto" not in specs(text)
    assert "includes zero. Two\nrows with different ranks need not differ clearly" in text
    assert "No times are recorded for these jobs." in text
    assert "several devices" not in text


def test_what_is_absent_is_said(tmp_path, registry):
    text = rendered(
        make_runs(tmp_path, made("bad", status="failed"), made("worse", status="failed")), registry
    )
    assert specs(text) == {}
    for sentence in (
        "there is no AUROC",
        "there are no times",
        "there are no scores",
        "No audit was given",
        "there are no losses",
    ):
        assert sentence in text
    assert "RuntimeError: boom" in text
    make_runs(tmp_path, made("good", losses=()))
    assert "No job that ended well reports losses" in rendered(tmp_path, registry)


def test_two_rows_of_one_detector_have_two_names(tmp_path, registry):
    make_runs(tmp_path, made("one"), made("one", preset="quick", config={"epochs": 1}), made("two"))
    material = from_store(tmp_path, registry)
    assert sorted(material.entries) == ["one (paper)", "one (quick)", "two"]
    assert sorted(material.results["entry"]) == ["one (paper)", "one (quick)", "two"]


def test_other_images_are_left_out_and_said(tmp_path, registry):
    make_runs(tmp_path, made("one"), made("two"), made("three", split_fingerprint="f" * 64))
    material = from_store(tmp_path, registry)
    assert sorted(material.entries) == ["one", "two"]
    assert "1 job is left out: its images" in page.render(material)


def test_several_datasets_must_be_chosen_from(tmp_path, registry):
    make_runs(tmp_path, made("one"), made("one", dataset="other"))
    with pytest.raises(
        AdbenchError, match=r"other under one-vs-rest, toy under one-vs-rest; choose one with --data"
    ):
        from_store(tmp_path, registry)
    assert from_store(tmp_path, registry, "toy").dataset == "toy"
    with pytest.raises(
        AdbenchError, match="holds no results of nothing and official; give --runs the folder"
    ):
        from_store(tmp_path, registry, "nothing", "official")


def test_commands_name_settings_and_seeds(tmp_path, registry):
    make_runs(
        tmp_path,
        made("one", seed=0),
        made("one", seed=2),
        made("two", preset="quick; epochs=3; name=a b", precision="bf16"),
        made(
            "two", "b", preset="paper; net=lite", precision="tf32", pretrained="lite", config={"net": "lite"}
        ),
        made(
            "two", "c", precision="tf32", pretrained="lite", config={"net": "lite"}
        ),  # chosen by the machine
    )
    assert run_commands(from_store(tmp_path, registry).jobs) == [
        "adbench run --detectors one --data toy --protocol one-vs-rest --categories a --seeds 0,2 --preset paper "
        "--precision fp32",
        "adbench run --detectors two --data toy --protocol one-vs-rest --categories c --seeds 0 --preset paper "
        "--precision tf32 --set two.net=lite",
        "adbench run --detectors two --data toy --protocol one-vs-rest --categories b --seeds 0 --preset paper "
        "--precision tf32 --set two.net=lite",
        "adbench run --detectors two --data toy --protocol one-vs-rest --categories a --seeds 0 --preset quick "
        "--precision bf16 --set two.epochs=3 --set 'two.name=a b'",
    ]


def test_one_command_runs_only_detectors_with_the_same_jobs_and_names_those_in_files():
    both, alone = [toy_job(name) for name in ("one", "two")], toy_job("more", seed=1)
    mine = toy_job("mine", detector_version="dev mine.py 01234567")
    found = run_commands([*both, alone, mine])
    assert [re.findall(r"--detectors (\S+) .*--seeds (\S+)", line) for line in found[:-1]] == [
        [("mine,one,two", "0")],
        [("more", "1")],
    ]
    assert found[-1] == "# --plugin: mine is in a file, dev mine.py 01234567"


def test_passport_is_counted_from_the_scores(tmp_path, registry):
    (line,) = provenance.passport(from_store(make_runs(tmp_path, made("one")), registry))
    assert (line["normal"], line["abnormal"], line["chance AP"], line["chance F1"]) == (
        60,
        40,
        "0.400",
        "0.571",
    )


def test_a_category_in_which_every_job_failed_is_left_out_of_the_passport_alone(tmp_path, registry):
    results = made("one", "a", status="failed"), made("one", "b")
    lines = provenance.passport(from_store(make_runs(tmp_path, *results), registry))
    assert [line["category"] for line in lines] == ["b"]


def test_examples_are_chosen_by_rule():
    scores = np.arange(100, dtype=float)
    found = examples.chosen(scores, LABELS == 1)
    assert list(found.values())[:3] == [[99, 98, 97], [60, 61, 62], [59, 58, 57]]
    assert len(found["at random"]) == examples.EACH
    assert found == examples.chosen(scores, LABELS == 1)


def test_scores_that_differ_here_are_said():
    stored = np.array([1.0, 2.0, 4.0])
    assert examples.same_scores(np.array([2.0]), stored, [1], 1e-4) == ""
    assert "by up to 0.25" in examples.same_scores(np.array([3.0]), stored, [1], 1e-4)


def as_dict(job):
    return {name: getattr(job, name) for name in job.__dataclass_fields__}


def audit_file(root, name="a.json", **changes):
    data = {"schema": 1, "job": as_dict(made("one").job)}
    data |= {"device": "cpu", "version": "0.1.0", "clean": [0.5, 0.6], "batch_statistics": [0.7, 0.6]}
    path = root / "curves" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data | {"class_sorted": [0.9, 0.8]} | changes))
    return root


def test_audit_curves_are_on_the_page(tmp_path, registry):
    audits = audited.audits_in(audit_file(tmp_path / "audits"), "toy", "one-vs-rest")
    text = rendered(make_runs(tmp_path / "runs", made("one")), registry, audits=audits)
    lines = {line["scored"]: line["auroc"] for line in specs(text)["audit"]["layer"][0]["data"]["values"]}
    assert list(lines.values()) == [[0.5, 0.6], [0.7, 0.6], [0.9, 0.8], [0.9, 0.9]]
    assert "+0.300" in text
    assert "not comparable with the leaderboard" not in text
    assert audited.audits_in(tmp_path / "audits", "other", "one-vs-rest") == []


def test_audits_under_another_protocol_come_last_and_are_said(tmp_path, registry):
    audit_file(tmp_path / "audits", job=as_dict(made("two").job) | {"protocol": "leave-one-out"})
    audit_file(tmp_path / "audits", "b.json")
    audits = audited.audits_in(tmp_path / "audits", "toy", "one-vs-rest")
    names = ["one (paper) on a, seed 0", "two (paper) on a, seed 0, under leave-one-out"]
    assert [each["audit"] for each in audits] == names
    text = rendered(make_runs(tmp_path / "runs", made("one")), registry, audits=audits)
    assert (
        "Audits under leave-one-out are not comparable with the leaderboard, whose protocol is one-vs-rest."
        in text
    )


def test_audits_of_other_versions_or_images_are_left_out_and_said(tmp_path, registry):
    runs, folder = make_runs(tmp_path / "runs", made("one", "a"), made("one", "b")), tmp_path / "audits"
    material = from_store(runs, registry)

    def kept(**changes):
        shutil.rmtree(folder, ignore_errors=True)
        audit_file(folder)
        audit_file(folder, "b.json", job=as_dict(made("one", "a", **changes).job))
        return audited.audits_of(folder, material.dataset, material.protocol, material.jobs)

    told = (
        "1 audit in audits left out: they are of other versions or images than this page's jobs; "
        "adbench audit makes current ones."
    )
    for stale in ("detector_version", "protocol_version", "split_fingerprint"):
        audits, why = kept(**{stale: "9"})
        assert ([each["audit"] for each in audits], why) == (["one (paper) on a, seed 0"], told)
    assert told in page.render(material, (), "", audits, why).replace("&#39;", "'")
    elsewhere = {"protocol": "leave-one-out", "protocol_version": "9", "split_fingerprint": "9"}
    for other in (elsewhere, {"category": "b", "split_fingerprint": material.jobs[1].split_fingerprint}):
        job = replace(made("one", "a").job, **other)
        audit_file(folder, "b.json", job=as_dict(job))
        audits, why = audited.audits_of(folder, material.dataset, material.protocol, material.jobs)
        assert (len(audits), why) == (2, "")


def test_audits_that_would_share_a_name_say_what_differs(tmp_path):
    def names(*changes):
        shutil.rmtree(tmp_path / "curves", ignore_errors=True)
        for number, each in enumerate(changes):
            audit_file(tmp_path, f"{number}.json", job=as_dict(made("one", **each).job))
        return [each["audit"] for each in audited.audits_in(tmp_path, "toy", "one-vs-rest")]

    name = "one (paper) on a, seed 0"
    assert names({}, {"precision": "tf32"}) == [f"{name}, fp32", f"{name}, tf32"]
    assert names({}, {"detector_version": "2"}) == [f"{name}, version 1", f"{name}, version 2"]
    assert names({}, {}) == [name]
    other = made("one", config={"epochs": 9}).job.key
    assert names({}, {"config": {"epochs": 9}}) == [
        f"{name}, job {made('one').job.key}",
        f"{name}, job {other}",
    ]


def test_the_command_says_which_audits_are_left_out(adbench, tmp_path):
    make_runs(tmp_path / "runs", made("one"))
    audit_file(tmp_path / "audits", job=as_dict(made("one", detector_version="0").job))
    ended = adbench("report", "--audit", "audits")
    assert ended.status == 0, ended.err
    assert "note: 1 audit in audits left out: they are of other versions or images than this" in ended.err
    assert "1 audit in audits left out" in (tmp_path / "report.html").read_text()


def test_damaged_audits_are_named(tmp_path):
    with pytest.raises(AdbenchError, match="holds no audits"):
        audited.audits_in(tmp_path, "toy", "one-vs-rest")
    for wrong in ([0.5], [0.5, 7.5], [0.5, float("nan")], [0.5, "0.6"], []):
        with pytest.raises(AdbenchError, match=r"a\.json is no audit: .* or its curves differ in length"):
            audited.audits_in(audit_file(tmp_path, clean=wrong), "toy", "one-vs-rest")


def test_curves_that_were_changed_are_refused(tmp_path):
    shutil.copytree(BOARDS / "audit", tmp_path / "audit")
    assert audited.audits_in(tmp_path / "audit", "cifar10", "one-vs-rest")
    path = next((tmp_path / "audit").rglob("*.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"clean": [0.9, *record["clean"][1:]]}))
    with pytest.raises(AdbenchError, match=rf"{path.name} was changed: {path.stem}\.png is of other curves"):
        audited.audits_in(tmp_path / "audit", "cifar10", "one-vs-rest")


@pytest.mark.timeout(60)
def test_a_pipe_among_the_audits_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(audit_file(tmp_path) / "curves" / "b.json")
    with pytest.raises(AdbenchError, match=r"b\.json is no audit"):
        audited.audits_in(tmp_path, "toy", "one-vs-rest")


def test_command_writes_a_page_with_examples(adbench, tmp_path):
    ran = adbench("run", "--detectors", "pca,random", "--categories", "0", "--no-timing", "--save-models")
    assert ran.status == 0
    ended = adbench("report", "--device", "cpu", "--out", "pages/page.html")
    assert (ended.status, ended.out.split(",")[0]) == (0, "wrote pages/page.html")
    text = (tmp_path / "pages/page.html").read_text()
    assert text.count("data:image/webp;base64,") >= 12  # the images of pca at least
    assert "differ from the stored ones" not in text
    assert "found: anomalies scored highest" in text
    assert "adbench run --detectors pca,random --data digits" in text
    (saved,) = (tmp_path / "runs/digits/one-vs-rest/pca").rglob("model.safetensors")
    saved.write_bytes(b"")
    ended = adbench("report", "--device", "cpu", "--out", "pages/page.html")
    assert "note: no examples of pca: " in ended.err
    text = (tmp_path / "pages/page.html").read_text()
    assert "No examples of pca (" in text
    assert text.count("data:image/webp;base64,") >= 12  # those of random are there


def test_mistakes_are_one_line(adbench, tmp_path, monkeypatch):
    assert adbench("report").error.startswith("runs holds no results; give --runs the folder")
    for out, file in ((".", "report.html"), ("runs/", "runs/report.html")):
        told = f"--out {out} is a folder; name a file, such as {file}"
        assert adbench("report", "--out", out).error == told
    assert not (tmp_path / "runs").exists()
    make_runs(tmp_path / "runs", made("one"))
    assert adbench("report", "--out", "runs").error.startswith("--out runs is a folder; name a file, such as")
    assert "unknown category 'z'" in adbench("report", "--examples", "z").error
    monkeypatch.setitem(sys.modules, "altair", None)
    monkeypatch.setattr(report, "find_spec", lambda name: name != "altair" or None)
    assert "pip install 'adbench-tgan[report]'" in adbench("report").error


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (["paper", "quick"], ["paper", "quick"]),
        (["paper; side=64; precision=tf32; net", "paper; side=128; net"], ["side=64", "side=128"]),
        (["paper", "paper; epochs=5"], ["paper", "epochs=5"]),
        (["paper; a=1; b=1", "paper; a=1; b=2", "paper; a=2; b=2"], ["a=1; b=1", "a=1; b=2", "a=2; b=2"]),
        (["paper", "paper"], ["paper", "paper"]),
    ],
)
def test_rows_of_one_detector_are_named_by_what_tells_them_apart(rows, labels):
    assert told_apart([row.split("; ") for row in rows]) == labels


def test_a_row_is_filtered_by_what_its_own_cells_say(tmp_path, registry):
    one = made("one", pretrained="resnet50", preset="quick", supervision="labelled")
    text = rendered(make_runs(tmp_path, one, made("two")), registry)
    assert (
        '<tr data-entry="one" data-supervision="=labelled" data-pretrained="=resnet50" data-preset="=quick"'
        in text
    )
    assert (
        '<tr data-entry="two" data-supervision="=one-class" data-pretrained="=no" data-preset="=paper"'
        in text
    )
    for name, values in (
        ("supervision", "labelled one-class"),
        ("pretrained", "no resnet50"),
        ("preset", "paper quick"),
    ):
        (options,) = re.findall(rf'<select name="{name}">\n<option value="">all</option>\n(.*)', text)
        told = "".join(f'<option value="={value}">{value}</option>' for value in values.split())
        assert options.strip() == told


def test_cells_are_coloured_below_chance_and_sorted_by_whole_numbers(tmp_path, registry):
    results = [made("one", shift=-1.0), made("two", shift=2.0)]
    material = from_store(make_runs(tmp_path, *results), registry)
    text = page.render(material)
    for entry, (cell,) in tables.heat_table(material).items():
        below = " below" if entry == "one" else ""
        told = f'data-value="{cell.value}" class="number{below}" style="--strength: {cell.strength}">{cell.text}</td>'
        assert f'<th scope="row" data-value="{entry}">{entry}</th><td {told}' in text


def test_the_note_of_a_board_and_its_machines_and_losses_are_on_its_page(tmp_path, registry, monkeypatch):
    one = made("one", metrics={}, purity_delta=0.0, of_categories=7, threshold=0.0)
    board = from_runs([make_runs(tmp_path / "runs", one)], registry, name="small")
    publish(replace(board, facts=replace(board.facts, note="Read this first.")), tmp_path)
    material = from_board(tmp_path / "small")
    text = page.render(material)
    assert "<strong>Note.</strong> Read this first.</p>" in text
    assert "1 of 7 categories" in text
    assert "adbench run --detectors one" in text
    assert [each["value"] for each in curves.loss_records(material)] == [[3.0, 2.0, 1.0], [9.0, 8.0]]
    assert material.thresholds == {one.job.key: 0.0}
    monkeypatch.chdir(tmp_path / "small")
    assert from_board(Path()).source == "small"


def test_a_page_tells_what_a_dataset_and_a_protocol_say_of_themselves_if_they_are_installed(
    tmp_path, registry
):
    known = from_store(make_runs(tmp_path / "known", made("one", "0", dataset="digits")), registry)
    told = ["dataset", "dataset's source", "dataset's licence", "protocol", "protocol version"]
    assert list(known.facts) == told
    gone = from_store(make_runs(tmp_path / "gone", made("one", protocol="mine")), registry)
    assert gone.facts == {"protocol version": "1"}


def test_a_failure_that_a_later_run_mended_is_not_on_a_page(tmp_path, registry):
    lost = made("one", status="failed", config={"epochs": "auto"}, problem="no weights")
    runs = make_runs(tmp_path, lost, made("one"))
    assert list(from_store(runs, registry).results["status"]) == ["ok"]


def test_charts_open_on_the_first_choice_of_their_lists_and_follow_them(tmp_path, registry):
    results = [made(name, category) for name in ("one", "two") for category in "ab"]
    text = rendered(make_runs(tmp_path, *results), registry)
    found = specs(text)
    for name in ("histogram", "losses"):
        layer = found[name]["layer"][0] if "layer" in found[name] else found[name]
        assert layer["transform"][0]["filter"] == "datum.category === category && datum.entry === entry"
    for name in ("roc", "precision-recall"):
        layer = found[name]["layer"][0] if "layer" in found[name] else found[name]
        filters = [each["filter"] for each in layer["transform"] if "filter" in each]
        assert filters == ["datum.category === category", "indexof(shown, datum.entry) >= 0"]
    for name in ("intervals", "pareto"):
        assert "indexof(shown, datum.entry) >= 0" in json.dumps(found[name])
    params = [
        each for spec in found.values() for each in spec["params"] if each["name"] in ("entry", "category")
    ]
    opened = {(each["name"], each["value"]) for each in params}
    for signal in ("entry", "category"):
        first = re.findall(rf'data-signal="{signal}">\n<option>(.*?)</option>', text)
        assert {(signal, name) for name in first} == {each for each in opened if each[0] == signal}


def test_curves_are_of_so_many_detectors_and_categories_and_the_page_says_of_how_many(
    tmp_path, registry, monkeypatch
):
    monkeypatch.setattr(curves, "ENTRIES", 1)
    monkeypatch.setattr(curves, "CATEGORIES", 1)
    results = [
        made("one"),
        *(made(name, category, shift=9.0) for name in ("two", "six") for category in "ab"),
    ]
    material = from_store(make_runs(tmp_path, *results), registry)
    assert set(curves.chosen_jobs(material)) == {(material.entries[0], "a")}
    text = " ".join(page.render(material).split())
    assert "Only the first 1 of 2 categories are offered" in text
    assert (
        "Rows of the leaderboard without curves, for lack of a finished job in these categories or of room: 2."
        in text
    )


def test_what_must_be_known_of_examples_stands_with_them(tmp_path, registry):
    material = from_store(make_runs(tmp_path, made("one"), made("two")), registry)
    shown = Example(
        case="at random",
        sample_id="a-001",
        label="normal",
        score=1.5,
        pictures=(Picture(title="map", uri="data:,", side=96),),
    )
    gallery = Gallery(entry="one", category="a", examples=(shown,), note="scored again, they differ")
    text = page.render(material, [gallery], "No examples of two (out of memory).")
    assert '<summary>one on a</summary>\n<p class="absent">scored again, they differ.</p>' in text
    assert 'normal, score 1.5<br><span class="mono">a-001</span>' in text
    assert 'alt="map of a-001"' in text
    assert "No examples of two (out of memory)." in text
    assert "found: anomalies scored highest" not in text


def test_what_is_said_of_every_row_and_keeps_none_from_a_rank_stays():
    board = pd.DataFrame({"rank": [1, 2], "remark": ["declared to fail these checks: x (y)"] * 2})
    assert list(tables.without_shared_reason(board)["remark"]) == ["declared to fail these checks: x (y)"] * 2


def test_of_several_protocols_the_one_asked_for_is_shown(tmp_path, registry):
    runs = make_runs(tmp_path, made("one"), made("two", protocol="leave-one-out"))
    for protocol, entry in (("one-vs-rest", "one"), ("leave-one-out", "two")):
        material = from_store(runs, registry, None, protocol)
        assert (material.protocol, material.entries) == (protocol, [entry])
        assert material.facts["protocol version"] == "1"


def test_what_is_left_out_of_a_page_is_said_on_the_error_stream_too(adbench, tmp_path, no_bundle):
    make_runs(tmp_path / "runs", made("one"), made("two"), made("one", split_fingerprint="f" * 64, seed=1))
    ended = adbench("report")
    assert ended.status == 0, ended.err
    (note,) = [line for line in ended.err.splitlines() if line.startswith("note: ")]
    assert note.removeprefix("note: ") in (tmp_path / "report.html").read_text()
    assert re.fullmatch(r"wrote report\.html, \d+\.\d MB\n", ended.out)


def test_detectors_without_a_saved_model_are_named_with_the_reason(tmp_path, registry, monkeypatch):
    names = ("one", "two", "three")
    runs = make_runs(tmp_path, *(made(name, "0", dataset="digits") for name in names))
    material = from_store(runs, registry)
    for folder in material.folders.values():
        if "/three/" not in str(folder):
            (folder / "model.safetensors").touch()

    def shown(entry, *_):
        if entry == "two":
            raise AdbenchError("it does not load")
        return entry

    monkeypatch.setattr("adbench_tgan.report.examples.gallery_of", shown)
    told = "No examples of two (it does not load); three (no model of its lowest seed is saved)."
    assert galleries_of(material, registry, None, None, "cpu") == (["one"], told)


def test_without_the_dataset_a_page_has_no_examples_and_says_why(tmp_path, registry, capsys):
    material = from_store(make_runs(tmp_path, made("one")), registry)
    for folder in material.folders.values():
        (folder / "model.safetensors").touch()
    found, told = galleries_of(material, registry, None, None, "cpu")
    assert (found, told.partition(";")[0]) == ([], "Examples are missing: unknown dataset 'toy'")
    assert capsys.readouterr().err.startswith("note: no examples: unknown dataset 'toy'")


def test_categories_that_differ_in_case_alone_are_all_offered(tmp_path, registry):
    text = rendered(make_runs(tmp_path, made("one", "a"), made("one", "A")), registry)
    lists = re.findall(r'data-signal="category">\n(.*?)\n', text)
    assert lists == ["<option>A</option><option>a</option>"] * 2
    assert "are offered" not in text


def test_a_machine_whose_processor_has_no_name_is_shown(tmp_path, registry):
    text = rendered(make_runs(tmp_path, made("one", machine={"cpu": "", "system": "Linux"})), registry)
    assert "<summary>cpu</summary>" in text


def test_a_result_of_another_task_that_cannot_be_read_is_none_of_a_pages_business(tmp_path, registry):
    other = made("one", dataset="other")
    store = ResultStore(make_runs(tmp_path, made("one"), other))
    (store.folder(other.job) / "result.json").write_text("{")
    assert from_store(tmp_path, registry).notes == ()

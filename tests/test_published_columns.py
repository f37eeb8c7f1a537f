"""The columns of a board that others' numbers fill: what papers print, and what an audit found."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_board import CATEGORIES, NOTHING, board_of, findings, grid, made

from adbench_tgan import boards
from adbench_tgan.boards import Choice
from adbench_tgan.boards.audited import audited
from adbench_tgan.boards.board import completed
from adbench_tgan.boards.verify import _audits
from adbench_tgan.ranking.published import (
    Paper,
    comparable_cells,
    papers_of,
    published_cells,
    read_published,
    with_papers,
)
from adbench_tgan.registry import Registry

ROOT = Path(__file__).parent.parent


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


def test_a_board_is_compared_with_the_table_of_published_numbers_beside_it(tmp_path, monkeypatch):
    table = tmp_path / "published_numbers.csv"
    head = "source,protocol,category,metric,value,table,our_detector,our_dataset,our_protocol"
    table.write_text(f"{head}\na paper,words,ant,AUROC,0.8,Table 1,good,toy,one-vs-rest\n")
    boards.publish(board_of(tmp_path / "runs", grid(), published=table), tmp_path)
    assert boards.verify(tmp_path / "toy") == []
    table.write_text(table.read_text().replace("0.8", "0.9"))
    monkeypatch.chdir(tmp_path / "toy")
    assert findings(Path()) == [("board.json", "published")]


def test_audited_seeds_are_averaged_before_categories():
    members = [made("good", category, seed, 1.0) for category, seed in (("ant", 0), ("ant", 1), ("bee", 0))]
    audit = dict(zip([each.job.key for each in members], (0.6, 0.8, 0.9), strict=True))
    assert audited(members, audit) == (pytest.approx((0.7 + 0.9) / 2), "")


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

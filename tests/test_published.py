"""What papers print: how the table is read, which one is, and that a run puts it beside its numbers."""

from pathlib import Path

import pandas as pd
import pytest
from make_data import make_cifar10

from adbench_tgan.commands.options import published_table
from adbench_tgan.errors import AdbenchError
from adbench_tgan.ranking.published import SHIPPED, Paper, Printed, published_cells, read_published
from adbench_tgan.registry import Registry
from adbench_tgan.report.material import from_store

OURS = Path(__file__).parent.parent / "leaderboards/published_numbers.csv"
HEAD = "source,table,protocol,category,metric,value,our_detector,our_dataset,our_protocol"
LINE = "Paper,Table 1,words,0 (zero),AUROC percent,75,pca,digits,one-vs-rest"


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_shipped_table_is_the_one_beside_the_boards():
    assert SHIPPED.read_bytes() == OURS.read_bytes(), f"copy {OURS} to {SHIPPED}"


def test_a_line_is_read_by_our_names_and_in_our_unit(tmp_path):
    other = LINE.replace("AUROC percent", "accuracy"), LINE.replace("pca", "")
    elsewhere = "Paper,,their words,1,AUROC,0.5,pca,digits,"
    assert read_published(written(tmp_path / "p.csv", HEAD, LINE, *other, elsewhere)) == (
        Printed(
            detector="pca",
            dataset="digits",
            protocol="one-vs-rest",
            category="zero",
            auroc=0.75,
            source="Paper",
            table="Table 1",
        ),
        Printed(
            detector="pca",
            dataset="digits",
            protocol="'their words'",
            category="1",
            auroc=0.5,
            source="Paper",
            table="",
        ),
    )


def test_a_table_that_a_spreadsheet_saved_is_the_same_table(tmp_path):
    plain = read_published(written(tmp_path / "p.csv", HEAD, LINE, LINE))
    (tmp_path / "w.csv").write_bytes(f"\ufeff{HEAD}\r\n{LINE}\r\n{LINE}\r\n".encode())
    assert read_published(tmp_path / "w.csv") == plain
    assert len(set(plain)) == 1  # said twice, and the same


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((HEAD.replace("table,", ""), LINE), "it has no column table"),
        ((), "it has no column source"),
        (
            (HEAD, LINE.replace("75", "175")),
            "the line of pca lacks a cell, or its AUROC is not within 0 to 1",
        ),
        ((HEAD, LINE.replace("75", "nan")), "not within 0 to 1"),
        ((HEAD, LINE.replace("75", "much")), "could not convert string to float: 'much'"),
        ((HEAD, LINE.rpartition(",")[0]), "the line of pca lacks a cell"),
        ((HEAD, LINE.replace("75", "")), "column value, the line of pca: could not convert"),
        ((HEAD, LINE.replace("75", "7,5")), "line 2 has more cells than there are columns"),
        ((f"{HEAD},value", f"{LINE},99"), "it has two columns value"),
        ((HEAD, LINE, LINE.replace("75", "85")), "two different AUROCs of pca, zero from Paper"),
        ((HEAD,), "no line has an AUROC, and a detector in the column our_detector"),
        ((HEAD, LINE.replace("pca", "")), "no line has an AUROC, and a detector in"),
    ],
)
def test_a_table_that_is_none_is_refused(lines, reason, tmp_path):
    path = written(tmp_path / "p.csv", *lines)
    with pytest.raises(AdbenchError) as caught:
        read_published(path)
    assert str(caught.value).startswith(f"{path} is not a table of published numbers (")
    assert reason in str(caught.value)
    assert str(caught.value).endswith("; correct it, or name another with --published")


def test_the_numbers_of_protocols_that_have_a_name_now_are_found():
    (a03ki,) = [line for line in read_published(OURS) if line.protocol == "one-vs-rest-80"]
    assert (a03ki.detector, a03ki.dataset, a03ki.category, a03ki.auroc) == (
        "f_anogan",
        "mnist",
        "1",
        0.997676,
    )
    assert a03ki.source.endswith(" (arch=mlp) (image_size=28) (latent=100) (encoder_tanh=true)")


def papers(*lines: tuple[str, str, str, float]) -> list[Paper]:
    """Of a source, under a protocol, in a category."""
    names = ("source", "protocol", "category", "auroc")
    return [Paper(detector="pca", **dict(zip(names, line, strict=True))) for line in lines]


@pytest.mark.parametrize(
    ("printed", "number", "told"),
    [
        ([("A", "p", "a", 0.1), ("B", "p", "a", 0.6), ("B", "p", "b", 0.8)], 0.7, "B"),  # no source is mixed
        ([("A", "p", "a", 0.1), ("A", "p", "c", 0.9)], None, "0.100 over 1 of 2 categories only (A)"),
        ([("A", "p", "c", 0.9)], None, ""),  # what it prints is of none of the row's categories
        (
            [("A", "q", "a", 0.2), ("A", "q", "b", 0.4), ("A", "q", "average", 0.9)],
            None,
            "0.300 published under q (A): not comparable",
        ),
        (
            [("A", "q", "a", 0.2), ("A", "q", "average", 0.9)],
            None,
            "0.900 published on average under q (A): not comparable",
        ),
        (
            [("A", "q", "a", 0.2), ("A", "q", "c", 0.6), ("A", "r", "b", 1.0)],
            None,
            "0.400 published on average under q (A): not comparable; "
            "1.000 published on average under r (A): not comparable",
        ),
    ],
)
def test_a_rows_number_is_of_one_source_that_prints_all_its_categories(printed, number, told):
    found, source = published_cells("pca", "p", ["a", "b"], papers(*printed))
    assert (found, source) == (number and pytest.approx(number), told)


@pytest.mark.parametrize(
    ("metric", "value", "auroc"),
    [
        ("AUROC", "0.75", 0.75),
        ("image AUROC", "0.75", 0.75),
        ("AUROC (as printed)", "0.75", 0.75),
        ("AUROC percent", "75", 0.75),
        (" auroc Percent", "75", 0.75),
    ],
)
def test_every_unit_of_an_auroc_is_read(metric, value, auroc, tmp_path):
    line = LINE.replace("AUROC percent,75", f"{metric},{value}")
    (found,) = read_published(written(tmp_path / "p.csv", HEAD, line))
    assert found.auroc == auroc


def test_which_table_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert published_table(None) == SHIPPED
    (tmp_path / "leaderboards").mkdir()
    here = written(tmp_path / "leaderboards/published_numbers.csv", HEAD)
    assert published_table(None).absolute() == here
    assert published_table(Path("other.csv")) == Path("other.csv")


def test_a_run_puts_published_numbers_beside_its_own(adbench, tmp_path):
    table = written(tmp_path / "p.csv", HEAD, LINE.replace("zero", "0"))
    words = ("--detectors", "pca,mean_pixel", "--categories", "0", "--preset", "paper", "--no-timing")
    words += ("--out", tmp_path / "runs")
    assert adbench("run", *words, "--published", table).status == 0
    board = pd.read_csv(tmp_path / "runs/leaderboard.csv").set_index("detector")
    assert board.loc["pca", "published_auroc"] == 0.75
    assert board.loc["pca", "published_source"] == "Paper, Table 1"
    assert board.loc["mean_pixel", ["published_auroc", "published_source"]].isna().all()
    material = from_store(tmp_path / "runs", Registry.discover(), published=table)
    assert material.leaderboard.set_index("detector").loc["pca", "published_auroc"] == 0.75


def test_a_run_reads_the_shipped_table_and_compares_no_other_images(adbench, tmp_path):
    make_cifar10(tmp_path / "data", batch=100, test=100)
    words = ["run", "--detectors", "ganomaly", "--preset", "quick", "--no-timing", "--out", tmp_path / "runs"]
    words += ["--set", "ganomaly.epochs=1", "--set", "ganomaly.width=8", "--data", "cifar10"]
    words += ["--data-root", tmp_path / "data", "--protocol", "leave-one-out-6k", "--categories", "frog"]
    ended = adbench(*words)
    assert ended.status == 0, ended.err
    (line,) = pd.read_csv(tmp_path / "runs/leaderboard.csv").to_dict("records")
    assert pd.isna(line["published_auroc"])
    told = "0.777 published on the official images (SAGAN paper (ICIP 2021), Table 2): not comparable"
    assert line["published_source"] == told


@pytest.mark.parametrize("command", ["run", "audit"])
def test_a_table_that_is_not_there_is_refused_before_anything_is_done(command, adbench, tmp_path):
    ended = adbench(command, "--out", tmp_path / "out", "--published", tmp_path / "none.csv")
    assert ended.status == 2
    assert "none.csv is not a table of published numbers (FileNotFoundError" in ended.error
    assert not (tmp_path / "out").exists()

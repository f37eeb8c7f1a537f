"""A page's latencies from a timing board: of the same detectors with the same settings, and of no others."""

import json
from pathlib import Path

import pytest
from make_runs import made, make_runs
from test_report import BOARDS, specs
from typer.testing import CliRunner

from adbench_tgan.cli import app
from adbench_tgan.cost.timing_board import Board, write_board
from adbench_tgan.errors import AdbenchError
from adbench_tgan.report import page
from adbench_tgan.report.material import from_board, from_store
from adbench_tgan.report.timed import times_of

H200 = BOARDS / "timing-h200"


pytestmark = pytest.mark.usefixtures("no_bundle")


def record(detector, /, **changes):
    """What `adbench bench` measured of a detector of `made`: 4 ms an image, 500 images a second in batches."""
    usual = {
        "preset": "paper",
        "precision": "fp32",
        "detector_version": "1",
        "key": detector,
        "error": "",
        "parameters": 7,
        "latency_ms_p50": 99.0,  # not what its samples say
        "latency_samples_ms": [3.0, 4.0, 4.0, 4.0, 9.0],
        "wall_samples_ms": [5.0] * 5,
        "batches": [{"batch": 1, "images_per_second": 500.0, "peak_memory_mb": 1.0}],
    }
    return {"detector": detector} | usual | changes


def timing(folder, *records):
    """A timing board of these, as far as a page reads it."""
    folder.mkdir()
    content = {"schema": 2, "facts": {"device": "a card"}, "machine": "m", "records": records}
    (folder / "timing.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("changes", "there"),
    [
        ({}, True),
        ({"preset": "paper; epochs=3"}, True),  # the weights do not change how long a network takes
        ({"preset": "paper; epochs=3; width=8"}, False),
        ({"preset": "quick"}, False),
        ({"precision": "bf16"}, False),
        ({"detector_version": "2"}, False),
        ({"parameters": 8}, False),
        ({"detector": "other"}, False),
        ({"error": "it failed"}, False),
        ({"latency_samples_ms": [4.0] * 4}, False),  # too few to tell
    ],
)
def test_only_times_of_the_same_settings_are_taken(tmp_path, registry, changes, there):
    runs = make_runs(tmp_path / "runs", made("one", preset="paper; epochs=2"), made("two", preset="paper"))
    times = times_of(timing(tmp_path / "times", record("one", **changes)), from_store(runs, registry))
    assert (times.name, times.device) == ("times", "a card")
    assert list(times.rows["entry"]) == ["one"] * there
    assert list(times.rows["latency_ms_p50"]) == [4.0] * there
    assert list(times.rows["images_per_second"]) == [500.0] * there


def test_a_page_draws_latencies_of_a_timing_board_and_says_whose_they_are(tmp_path, registry):
    ran = made("one", preset="paper"), made("two", preset="paper", device="another")
    material = from_store(make_runs(tmp_path / "runs", *ran), registry)
    times = times_of(timing(tmp_path / "times", record("two")), material)
    text = page.render(material, times=times)
    (point,) = specs(text)["pareto"]["data"]["values"]
    assert (point["entry"], point["latency_ms_p50"]) == ("two", 4.0)
    assert "Latencies are those of times, measured one at a time on a card;" in text
    assert "times are not comparable" not in text
    table = text.partition("<tbody")[2].partition("</tbody>")[0]
    assert ">6.0" in table  # the jobs' own
    assert ">4.0" not in table


def test_where_none_was_measured_with_these_settings_the_page_says_so(tmp_path, registry):
    material = from_store(make_runs(tmp_path / "runs", made("one", preset="paper")), registry)
    text = page.render(material, times=times_of(timing(tmp_path / "times", record("two")), material))
    assert "No detector was measured in times with the settings that it has here." in text
    assert "pareto" not in specs(text)


def test_what_is_no_timing_board_is_said(tmp_path, registry):
    runs = make_runs(tmp_path / "runs", made("one"))
    material = from_store(runs, registry)
    with pytest.raises(
        AdbenchError, match=r"runs holds no times; give --timing a folder that adbench bench --out"
    ):
        times_of(runs, material)
    (timing(tmp_path / "times") / "timing.json").write_text("[]")
    short = record("one")
    del short["batches"]
    nested = timing(tmp_path / "nested")
    (nested / "timing.json").write_text('{"a":' * 100_000)
    for folder in (tmp_path / "times", timing(tmp_path / "short", short), nested):
        with pytest.raises(AdbenchError, match=r"timing\.json cannot be read; adbench verify .* says"):
            times_of(folder, material)


def test_a_timing_board_that_was_changed_is_refused(tmp_path, registry):
    material = from_store(make_runs(tmp_path / "runs", made("one", preset="paper")), registry)
    place = timing(tmp_path / "times", record("two"), record("one", seal="0" * 16))
    with pytest.raises(AdbenchError, match=r"timing\.json was changed after it was measured; adbench verify"):
        times_of(place, material)


def test_the_command_takes_a_timing_board(tmp_path):
    runs = make_runs(tmp_path / "runs", made("one", preset="paper"))
    board = Board(facts={"device": "a card"}, machine="m", records=())
    write_board(board, tmp_path / "times")
    words = [
        "report",
        "--runs",
        str(runs),
        "--timing",
        str(tmp_path / "times"),
        "--out",
        str(tmp_path / "x.html"),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "No detector was measured in times" in (tmp_path / "x.html").read_text()


def test_the_published_times_are_of_the_published_board():
    times = times_of(H200, from_board(BOARDS / "cifar10-one-vs-rest"))
    timed = {each["detector"]: each for each in json.loads(Path(H200, "timing.json").read_text())["records"]}
    assert times.device == "NVIDIA H200"
    assert {"ganomaly", "sagan", "transgan_dual", "knn"} <= set(times.rows["detector"])
    for _, row in times.rows.iterrows():
        assert row["latency_ms_p50"] == timed[row["detector"]]["latency_ms_p50"]

"""What a run says of itself, on a terminal and in a log."""

import io
from time import monotonic, sleep

import pandas as pd
import pytest
from rich.console import Console
from test_leaderboard import board, result

from adbench_tgan import progress
from adbench_tgan.commands.show import draw
from adbench_tgan.progress import TerminalReporter
from adbench_tgan.views import leaderboard_views


@pytest.fixture
def log():
    return io.StringIO()


def reporter(log, *, terminal=False):
    return TerminalReporter(Console(file=log, force_terminal=terminal, width=120))


def test_a_log_has_a_line_a_job_and_none_an_epoch(log):
    good, bad = result("good"), result("bad", status="failed")
    with reporter(log) as told:
        told.planned(3, 1)
        for ended in (good, bad):
            told.job_started(ended.job)
            told.phase("fit")
            told.epoch(1, 2, {"loss": 0.5})
            told.job_finished(ended)
    assert log.getvalue().splitlines() == [
        "1 of 3 jobs are finished already; 2 to run",
        f"[1/2] good on toy/a seed 0: AUROC {good.metrics['auroc']:.3f}, fit 2.0 s",
        "[2/2] bad on toy/a seed 0: failed: RuntimeError: boom",
    ]


def test_a_log_that_was_silent_for_long_tells_of_epochs(log, monkeypatch):
    monkeypatch.setattr(progress, "QUIET", -1.0)
    with reporter(log) as told:
        told.planned(2, 0)
        told.job_started(result("d").job)
        told.epoch(3, 10, {"loss_g": 0.25, "loss_d": 1.0})
        told.epoch(4, None, {"loss_g": 0.125})
    assert log.getvalue().splitlines() == [
        "[1/2] d on toy/a seed 0: epoch 3/10  loss_g 0.25  loss_d 1",
        "[1/2] d on toy/a seed 0: epoch 4  loss_g 0.125",
    ]


def test_a_log_tells_of_a_job_that_tells_nothing_itself(log, monkeypatch):
    monkeypatch.setattr(progress, "SILENT", (0.02, 0.05))
    with reporter(log) as told:
        told.planned(2, 0)
        told.job_started(result("d").job)
        told.phase("fit")
        deadline = monotonic() + 30
        while log.getvalue().count("\n") < 2 and monotonic() < deadline:
            sleep(0.01)
    lines = log.getvalue().splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"[1/2] d on toy/a seed 0: fit, for 0 s"}
    sleep(0.3)
    assert log.getvalue().splitlines() == lines  # it has ended


def test_a_log_that_was_silent_for_long_tells_of_images(log, monkeypatch):
    monkeypatch.setattr(progress, "QUIET", -1.0)
    with reporter(log) as told:
        told.planned(2, 0)
        told.job_started(result("d").job)
        told.phase("score")
        told.images(2_500, 10_000)
    assert log.getvalue().splitlines() == ["[1/2] d on toy/a seed 0: score 2,500/10,000 images"]


def test_a_terminal_shows_bars_with_losses_and_names_as_text(log):
    with reporter(log, terminal=True) as told:
        told.planned(1, 0)
        told.job_started(result("[bold]d", "[red]a").job)
        told.phase("fit")
        told.epoch(1, 2, {"loss": 0.5})
        told.progress.refresh()
    shown = log.getvalue()
    assert "[bold]d on toy/[red]a seed 0" in shown
    assert "loss 0.5" in shown


def test_the_tables_fit_a_narrow_terminal_and_every_cell_is_filled():
    table = board([result("detector_" + name, shift=shift) for name, shift in (("one", 1.0), ("two", 3.0))])
    table = table.assign(latency_ms_p50=1.25, images_per_second=1234.5)
    out = io.StringIO()
    for view in leaderboard_views(table, "toy, one-vs-rest"):
        Console(file=out, width=90).print(view)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 90
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert [row[1] for row in rows[:2]] == ["detector_two", "detector_one"]
    assert len(rows) == 4
    assert all(all(row) for row in rows)
    assert "…" not in out.getvalue()


def test_two_rows_of_a_detector_have_their_presets_beside_their_costs_too():
    two = [result("one", shift=1.0), result("one", shift=2.0, preset="quick", config={"image_size": 8})]
    rows = [
        [str(cell) for cell in column.cells] for column in leaderboard_views(board(two), "toy")[1].columns[:2]
    ]
    assert rows == [["one", "one"], ["quick", "paper"]]
    assert leaderboard_views(board(two[:1]), "toy")[1].columns[1].header == "pretrained"


def test_a_terminal_too_narrow_for_the_table_cuts_no_cell(monkeypatch, capsys):
    table = board([result("detector_" + name, shift=shift) for name, shift in (("one", 1.0), ("two", 3.0))])
    monkeypatch.setattr("adbench_tgan.commands.show.wide_console", lambda: Console(width=40))
    draw(leaderboard_views(table, "toy, one-vs-rest")[0])
    shown = capsys.readouterr().out
    assert "…" not in shown
    lines = [line.strip("│").split("│") for line in shown.splitlines() if line.startswith("│")]
    assert [line[1].strip() for line in lines] == ["detector_two", "detector_one"]
    assert all(cell.strip() for line in lines for cell in line)


def test_failed_detectors_leave_cells_empty_and_no_cost_without_timing():
    table = board([result("bad", status="failed")]).assign(fit_seconds=pd.NA)
    views = leaderboard_views(table, "toy")
    assert len(views) == 1
    out = io.StringIO()
    Console(file=out, width=120).print(views[0])
    assert "0x0, 1 failed" in out.getvalue()

"""What a run says of itself, on a terminal and in a log."""

import io
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from time import monotonic, sleep

import pandas as pd
import pytest
from rich.console import Console
from test_leaderboard import board, result

from adbench_tgan.commands.show import draw, show, wide_console
from adbench_tgan.terminal import pace, progress
from adbench_tgan.terminal.progress import TerminalReporter
from adbench_tgan.terminal.views import leaderboard_views, least_width, records_view
from adbench_tgan.text import counted


@pytest.fixture
def log():
    return io.StringIO()


def reporter(log, *, terminal=False):
    return TerminalReporter(Console(file=log, force_terminal=terminal, width=120))


def test_a_log_has_a_line_a_job_and_none_an_epoch(log):
    good, bad = result("good"), result("bad", status="failed")
    with reporter(log) as told:
        told.planned([good.job, bad.job], 1)
        for ended in (good, bad):
            told.job_started(ended.job)
            told.phase("fit", ended.job)
            told.epoch(1, 2, {"loss": 0.5}, ended.job)
            told.job_finished(ended)
    assert log.getvalue().splitlines() == [
        "1 of 3 jobs are finished already; 2 to run",
        f"[1/2] good on toy/a seed 0: AUROC {good.metrics['auroc']:.3f}, fit 2.0 s",
        "[2/2] bad on toy/a seed 0: failed: RuntimeError: boom",
    ]


def test_a_log_rounds_as_tables_do(log):
    """The area of 341 of 400 pairs comes out of its sum as less than .8525, and of 203 as more than .5075."""
    for auroc in (0.8524999999999999, 0.5075000000000001):
        with reporter(log) as told:
            told.job_finished(replace(result("good"), metrics={"auroc": auroc}))
    assert [line.partition("AUROC ")[2][:5] for line in log.getvalue().splitlines()] == ["0.853", "0.507"]


def test_a_note_of_all_jobs_of_a_detector_is_printed_twice_and_said_to_be_in_their_rows(log):
    with reporter(log) as told:
        for seed in range(4):
            told.job_finished(replace(result("good", seed=seed), notes=("no graph", f"memory of {seed}")))
        told.job_finished(replace(result("other"), notes=("no graph",)))
    notes = [line.removeprefix("note: ") for line in log.getvalue().splitlines() if line.startswith("note: ")]
    assert [line for line in notes if "graph" in line] == [
        "good on toy/a seed 0: no graph",
        "good on toy/a seed 1: no graph; of its further jobs only the rows say so",
        "other on toy/a seed 0: no graph",
    ]
    assert sum("memory" in line for line in notes) == 4


def test_a_log_that_was_silent_for_long_tells_of_epochs(log, monkeypatch):
    monkeypatch.setattr(progress, "QUIET", -1.0)
    with reporter(log) as told:
        told.planned([job := result("d").job] * 2, 0)
        told.job_started(job)
        told.epoch(3, 10, {"loss_g": 0.25, "loss_d": 1.0}, job)
        told.epoch(4, None, {"loss_g": 0.125}, job)
    assert log.getvalue().splitlines() == [
        "[1/2] d on toy/a seed 0: epoch 3/10  loss_g 0.25  loss_d 1",
        "[1/2] d on toy/a seed 0: epoch 4  loss_g 0.125",
    ]


def test_a_log_that_was_silent_for_long_tells_whose_images_are_read(log, monkeypatch):
    with reporter(log) as told:
        told.reading("bottle", 1, 15)
        monkeypatch.setattr(progress, "QUIET", -1.0)
        told.reading("[red]cable", 2, 15)
    assert log.getvalue() == "reading the images of [red]cable, category 2 of 15\n"


def test_a_log_tells_that_images_are_still_being_read(log, monkeypatch):
    monkeypatch.setattr(progress, "SILENT", (0.02, 0.05))
    with reporter(log) as told:
        told.reading("bottle", 1, 2)
        until = monotonic() + 20
        while "reading" not in log.getvalue() and monotonic() < until:
            sleep(0.01)
        told.planned([result("d").job], 0)
        sleep(0.2)
        before = log.getvalue()
        sleep(0.2)
        assert log.getvalue() == before
    assert before.startswith("reading the images of bottle, category 1 of 2, for 0 s\n")


def test_the_bar_tells_whose_images_are_read_and_then_counts_jobs(log):
    with reporter(log, terminal=True) as told:
        told.reading("[red]cable", 2, 15)
        told.progress.refresh()
        (bar,) = told.progress.tasks
        assert (bar.description, bar.completed, bar.total) == ("reading", 1, 15)
        told.planned([result("d").job] * 2, 1)
        (bar,) = told.progress.tasks
        assert (bar.description, bar.completed, bar.total, bar.fields) == (
            "jobs",
            0,
            2,
            {"until": None, "detail": ""},
        )
    assert "[red]cable" in log.getvalue()


def test_a_log_tells_of_a_job_that_tells_nothing_itself(log, monkeypatch):
    monkeypatch.setattr(progress, "SILENT", (0.02, 0.05))
    with reporter(log) as told:
        told.planned([job := result("d").job] * 2, 0)
        told.job_started(job)
        told.phase("fit", job)
        deadline = monotonic() + 30
        while log.getvalue().count("\n") < 2 and monotonic() < deadline:
            sleep(0.01)
    lines = log.getvalue().splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"[1/2] d on toy/a seed 0: fit, for 0 s"}
    sleep(0.3)
    assert log.getvalue().splitlines() == lines  # it has ended


def test_a_log_is_told_also_while_a_detector_silences_what_it_uses(capsys):
    with TerminalReporter() as told, redirect_stderr(io.StringIO()) as silenced:
        told.warn("still here")
    assert capsys.readouterr().err == "note: still here\n"
    assert silenced.getvalue() == ""


@pytest.mark.parametrize(
    ("where", "variables"),
    [
        ("terminal", {"TERM": "xterm-256color"}),
        ("file", {"TERM": "xterm-256color", "FORCE_COLOR": "1"}),
        ("notebook", {"TERM": "xterm-color", "GIT_PAGER": "cat", "FORCE_COLOR": "1"}),
        ("dumb", {"TERM": "dumb"}),
    ],
)
def test_bars_are_drawn_only_where_they_can_be_drawn_again(where, variables, monkeypatch, capsys):
    """Each refresh was a line more in a log with FORCE_COLOR, as CI sets it, and in a notebook after `!adbench run`."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: where != "file")
    monkeypatch.setattr(progress, "QUIET", -1.0)
    with TerminalReporter() as told:
        told.planned([job := result("d").job], 0)
        told.job_started(job)
        told.phase("fit", job)
        told.epoch(1, 2, {"loss": 0.5}, job)
    drawn = capsys.readouterr().err
    assert ("\x1b[?25l" in drawn) == (where == "terminal")
    assert ("] d on toy/a seed 0: epoch 1/2  loss 0.5\n" in drawn) == (where != "terminal")


def test_a_long_computation_says_how_far_it_is_after_ten_seconds_and_not_before(monkeypatch):
    now, said = [5.0], []
    monkeypatch.setattr(pace, "monotonic", lambda: now[0])

    def act(number):
        now[0] += 1 / 64
        return -number

    assert [*map(pace.paced(act, "done", 1500, said.append), range(1500))] == [-n for n in range(1500)]
    assert said == ["done: 641 of 1,500 jobs", "done: 1,282 of 1,500 jobs"]


def test_where_standard_error_is_closed_nothing_is_told_to_standard_output(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with TerminalReporter() as told:
        told.warn("unheard")
    assert capsys.readouterr().out == ""


def test_a_log_that_was_silent_for_long_tells_of_images(log, monkeypatch):
    monkeypatch.setattr(progress, "QUIET", -1.0)
    with reporter(log) as told:
        told.planned([job := result("d").job] * 2, 0)
        told.job_started(job)
        told.phase("score", job)
        told.images(2_500, 10_000, job)
    assert log.getvalue().splitlines() == ["[1/2] d on toy/a seed 0: score 2,500/10,000 images"]


def test_a_terminal_shows_bars_with_losses_and_names_as_text(log):
    with reporter(log, terminal=True) as told:
        told.planned([job := result("[bold]d", "[red]a").job], 0)
        told.job_started(job)
        told.phase("fit", job)
        told.epoch(1, 2, {"loss": 0.5}, job)
        told.progress.refresh()
    shown = log.getvalue()
    assert "[bold]d on toy/[red]a seed 0" in shown
    assert "loss 0.5" in shown


def test_a_job_that_has_ended_has_no_bar_and_is_told_of_no_more(log):
    ended = result("d")
    with reporter(log, terminal=True) as told:
        told.planned([ended.job] * 2, 0)
        told.job_started(ended.job)
        for name in ("fit", "score"):
            told.phase(name, ended.job)
            assert told.phases[ended.job.key][1] == name
        told.job_finished(ended)
        assert told.phases == {}
        assert [(task.description, task.completed) for task in told.progress.tasks] == [("jobs", 1)]


def test_a_job_that_is_begun_anew_has_one_bar(log):
    again = result("d")
    with reporter(log, terminal=True) as told:
        told.planned([again.job], 0)
        for _ in range(2):
            told.job_started(again.job)
            assert [task.description for task in told.progress.tasks] == ["jobs", "start"]
        told.job_finished(again)
        assert [task.description for task in told.progress.tasks] == ["jobs"]


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


def test_each_heading_stands_over_the_numbers_of_its_column_and_a_row_without_any_hides_no_table():
    table = board([result("good", pretrained="net"), result("bad", status="failed")])
    told = {
        "AUROC": {"auroc_mean": 0.75},
        "95 % CI": {"auroc_ci_low": 0.5, "auroc_ci_high": 0.875},
        "AP": {"average_precision_mean": 0.625},
        "jobs": {"n_categories": 3, "n_seeds": 2, "n_failed": 1},
        "pixel AUROC": {"pixel_auroc_mean": 0.5625},
        "AUPRO": {"aupro_mean": 0.25},
        "pretrained": {},
        "parameters": {"parameters": 1234},
        "fit s": {"fit_seconds": 2.5},
        "ms/image": {"latency_ms_p50": 3.25},
        "images per s": {"images_per_second": 456.0},
        "peak MiB": {"peak_memory_mb": 789.0},
    }
    for values in told.values():
        for name, value in values.items():
            table.loc[table["detector"] == "good", name] = value
    columns = [column for view in leaderboard_views(table, "toy") for column in view.columns]
    shown = {" ".join(str(column.header).split()): [*column.cells] for column in columns}
    assert {heading: shown[heading] for heading in told} == {
        "AUROC": ["0.750", ""],
        "95 % CI": [".500-.875", ""],
        "AP": ["0.625", ""],
        "jobs": ["3x2, 1 failed", "0x0, 1 failed"],
        "pixel AUROC": ["0.562", ""],
        "AUPRO": ["0.250", ""],
        "pretrained": ["net", "no"],
        "parameters": ["1,234", ""],
        "fit s": ["2.50", ""],
        "ms/image": ["3.25", ""],
        "images per s": ["456", ""],
        "peak MiB": ["789", ""],
    }


def test_two_rows_of_a_detector_have_their_presets_beside_their_costs_too():
    two = [result("one", shift=1.0), result("one", shift=2.0, preset="quick", config={"image_size": 8})]
    rows = [
        [str(cell) for cell in column.cells] for column in leaderboard_views(board(two), "toy")[1].columns[:2]
    ]
    assert rows == [["one", "one"], ["quick", "paper"]]
    assert leaderboard_views(board(two[:1]), "toy")[1].columns[1].header == "parameters"


def test_a_terminal_too_narrow_for_the_table_cuts_no_cell(monkeypatch, capsys):
    table = board([result("detector_" + name, shift=shift) for name, shift in (("one", 1.0), ("two", 3.0))])
    monkeypatch.setattr("adbench_tgan.commands.show.wide_console", lambda: Console(width=40))
    draw(leaderboard_views(table, "toy, one-vs-rest")[0])
    shown = capsys.readouterr().out
    assert "…" not in shown
    lines = [line.strip("│").split("│") for line in shown.splitlines() if line.startswith("│")]
    assert [line[1].strip() for line in lines] == ["detector_two", "detector_one"]
    assert all(cell.strip() for line in lines for cell in line)


def test_long_names_settings_and_weights_fit_eighty_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    names = ("anomalib_patchcore", "transgan_dual")
    table = board([result(name, shift=1.0, preset="paper; image_size=64; precision=tf32") for name in names])
    table = table.assign(
        latency_ms_p50=123.25,
        images_per_second=254_700.0,
        parameters=34_591_275,
        peak_memory_mb=12_345.0,
        pixel_auroc_mean=0.5,
        aupro_mean=0.25,
    )
    table.loc[table["detector"] == "transgan_dual", "supervision"] = "labelled"
    views = leaderboard_views(table, "toy, one-vs-rest")
    titles = ["toy, one-vs-rest, one-class", "toy, one-vs-rest, labelled", "toy, one-vs-rest, anomaly maps"]
    assert [view.title for view in views] == [*titles, "cost, on this device"]
    for view in views:
        draw(view)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("anomalib_patchcore") == 3
    assert shown.count("transgan_dual") == 3


def test_weights_are_shown_where_a_detector_has_some():
    table = board([result("one"), result("two", pretrained="tf_efficientnet_lite0")])
    cost = leaderboard_views(table, "toy")[-1]
    assert [str(cell) for cell in cost.columns[1].cells] == ["no", "tf_efficientnet_lite0"]


@pytest.mark.parametrize(("columns", "width"), [("100", 100), ("", 200), ("0", 200), ("many", 200)])
def test_a_pipe_is_as_wide_as_columns_says(columns, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert wide_console().width == width


def test_a_table_is_whole_however_narrow_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    show([{"image": "a folder/" * 4, "score": 0.25, "anomalous": True}], "toy")
    shown = capsys.readouterr().out
    assert [text in shown for text in ("score", "0.25", "anomalous", "True")] == [True] * 4


def cells_of(view):
    return [[str(cell) for cell in column.cells] for column in view.columns]


def test_numbers_of_a_column_have_the_same_decimals_and_stand_to_the_right():
    records = [
        {"name": "a", "images_per_second": 1.045e5, "auroc": 0.35, "chance": 1, "ms": 0.02, "empty": None},
        {
            "name": "b",
            "images_per_second": 1628.4,
            "auroc": 0.5105,
            "chance": 0.9995,
            "ms": 300.0,
            "empty": "",
        },
        {
            "name": "c",
            "images_per_second": None,
            "auroc": 1.0,
            "chance": float("nan"),
            "ms": 0,
            "empty": None,
        },
    ]
    view = records_view(records, "toy")
    assert cells_of(view) == [
        ["a", "b", "c"],
        ["104,500", "1,628", ""],
        ["0.3500", "0.5105", "1.0000"],
        ["1.0000", "0.9995", ""],
        ["0.020", "300.000", "0.000"],
    ]
    assert [column.justify for column in view.columns] == ["left", *["right"] * 4]
    assert view.columns[1].header == "images\nper\nsecond"
    assert cells_of(records_view([{"count": 3206528}, {"count": 7}], "toy")) == [["3,206,528", "7"]]
    assert cells_of(records_view([{"value": True}, {"value": 0.5}], "toy")) == [["True", "0.5"]]
    assert records_view([], "toy").columns == []


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.0, 1e-5], ["1.0000", "0.0000"]),
        ([-250.5, 0.25], ["-250.50", "0.25"]),
        ([1e-9, -2e-9], ["1.000e-09", "-2.000e-09"]),
        ([0.0, 0.0], ["0.0000", "0.0000"]),
        ([None, 1200], ["", "1,200"]),
        ([None, "a [b]\n"], ["None", r"a \[b]\n"]),
        ([{"a": 1, "b": "c"}, 0.123456], ["a: 1, b: c", "0.1235"]),
        ([[1, 2], ("x", None)], ["1, 2", "x, None"]),
    ],
)
def test_values_of_any_size_and_kind_are_shown(values, shown):
    assert cells_of(records_view([{"value": value} for value in values], "toy")) == [shown]


def test_names_are_whole_unless_they_are_long_and_headings_say_what_is_to_be_copied():
    records = [{"of": "o" * 40, "category": "a b", "my_net:[b]": 0.5, "other_text": "c d"}]
    columns = records_view(records, "toy").columns
    assert [column.no_wrap for column in columns] == [True, True, True, False]
    assert [column.header for column in columns] == ["of", "category", r"my_net:\[b]", "other text"]
    assert not records_view([{"of": "o" * 41}], "toy").columns[0].no_wrap


def test_spare_columns_go_one_after_another_until_a_table_fits():
    records = [{"name": "n" * 20, "first": "f" * 20, "second_one": "s" * 20, "third": ""}]
    spare = ("third", "second_one", "first")
    for width, headers, gone in (
        (80, ["name", "first", "second one"], None),
        (least_width(records_view(records, "toy")), ["name", "first", "second one"], None),
        (60, ["name", "first"], "not shown for lack of width: second one"),
        (40, ["name"], "not shown for lack of width: second one, first"),
        (10, ["name"], "not shown for lack of width: second one, first"),
    ):
        view = records_view(records, "toy", width, spare)
        assert ([column.header for column in view.columns], view.caption) == (headers, gone)


def test_failed_detectors_leave_cells_empty_and_no_cost_without_timing():
    table = board([result("bad", status="failed")]).assign(fit_seconds=pd.NA)
    views = leaderboard_views(table, "toy")
    assert len(views) == 1
    out = io.StringIO()
    Console(file=out, width=120).print(views[0])
    assert "0x0, 1 failed" in out.getvalue()


def test_what_is_counted_is_one_or_many_with_commas():
    assert [counted(n, "job", "jobs") for n in (0, 1, 1350)] == ["0 jobs", "1 job", "1,350 jobs"]

"""How long the rest of a run will take."""

import io

import pytest
from rich.console import Console
from test_leaderboard import result

from adbench_tgan.terminal import forecast, progress
from adbench_tgan.terminal.forecast import Forecast, Pace, left
from adbench_tgan.terminal.progress import TerminalReporter, TimeLeft


@pytest.fixture
def clock(monkeypatch):
    """What every clock shows, in seconds."""
    now = [0.0]
    for module in (forecast, progress):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def jobs_of(detector, count):
    return [result(detector, category=f"c{number}").job for number in range(count)]


def run(told, job, seconds, clock):
    told.start(job)
    clock[0] += seconds
    told.end(job)


def test_each_job_is_expected_to_take_as_long_as_others_of_its_detector(clock):
    slow, quick = jobs_of("slow", 3), jobs_of("quick", 4)
    told = Forecast([*slow, *quick])
    run(told, quick[0], 1.0, clock)
    assert told.seconds() is None  # of "slow" nothing is known
    run(told, slow[0], 100.0, clock)
    assert told.seconds() == 2 * 100 + 3 * 1
    run(told, slow[1], 50.0, clock)
    assert told.seconds() == 75 + 3 * 1
    for job in quick[1:]:
        run(told, job, 1.0, clock)
    assert told.seconds() == 75
    run(told, slow[2], 1.0, clock)
    assert told.seconds() is None  # all have ended


def test_jobs_that_run_at_a_time_take_the_rest_among_them(clock):
    jobs = jobs_of("d", 5)
    told = Forecast(jobs)
    told.start(jobs[0])
    told.start(jobs[1])
    clock[0] += 10.0
    told.end(jobs[0])
    assert told.seconds() == 4 * 10 / 2
    told.end(jobs[1])
    told.start(jobs[2])
    assert told.seconds() == 3 * 10 / 2


def test_a_job_that_is_begun_anew_is_timed_from_there_and_one_that_was_not_begun_tells_nothing(clock):
    first, second = jobs_of("d", 2)
    told = Forecast([first, second])
    told.end(second)
    assert told.seconds() is None
    told.start(first)
    clock[0] += 50.0
    run(told, first, 4.0, clock)
    assert told.seconds() == 4.0


def test_epochs_that_an_interrupted_training_brought_along_took_no_time(clock):
    pace = Pace()
    assert pace.seconds(8, 12) is None
    clock[0] += 30.0
    assert pace.seconds(9, 12) == 90.0
    clock[0] += 10.0
    assert pace.seconds(10, 12) == 40.0
    assert pace.seconds(10, None) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.9, ""),
        (1.0, "about 1 s left"),
        (89.4, "about 89 s left"),
        (90.0, "about 2 min left"),
        (89 * 60, "about 89 min left"),
        (90 * 60, "about 1.5 h left"),
        (4_000_000, "about 1,111.1 h left"),
    ],
)
def test_time_left_in_words(seconds, words):
    assert left(seconds) == words


def told_of_three(told, clock):
    """A job of a minute ends, and half of the next one's epochs; three were planned."""
    jobs = jobs_of("d", 3)
    told.planned(jobs, 0)
    told.job_started(jobs[0])
    clock[0] += 61.0
    told.job_ended(jobs[0], "well")
    told.job_started(jobs[1])
    told.phase("fit", jobs[1])
    for number in (1, 2):
        told.epoch(number, 4, {"loss": 0.5}, jobs[1])
        clock[0] += 31.0
    told.phase("score", jobs[1])
    for done in (100, 200):
        told.images(done, 300, jobs[1])
        clock[0] += 31.0


def test_a_log_tells_how_long_the_rest_will_take(clock):
    log = io.StringIO()
    with TerminalReporter(Console(file=log, force_terminal=False, width=200)) as told:
        told_of_three(told, clock)
        told.job_ended(jobs_of("d", 3)[1], "well")
        told.job_started(jobs_of("d", 3)[2])
        told.job_ended(jobs_of("d", 3)[2], "well")
    assert told.paces == {}
    assert log.getvalue().splitlines() == [
        "[1/3] d on toy/c0 seed 0: well",
        "1 of 3 jobs have ended, about 2 min left",
        "[2/3] d on toy/c1 seed 0: epoch 2/4 (about 62 s left)  loss 0.5",
        "[2/3] d on toy/c1 seed 0: score 100/300 images",
        "[2/3] d on toy/c1 seed 0: score 200/300 images (about 31 s left)",
        "[2/3] d on toy/c1 seed 0: well",
        "2 of 3 jobs have ended, about 2 min left",
        "[3/3] d on toy/c2 seed 0: well",
    ]


def test_a_log_tells_once_a_minute_how_long_the_rest_will_take(clock):
    log, jobs = io.StringIO(), jobs_of("d", 9)
    with TerminalReporter(Console(file=log, force_terminal=False, width=200)) as told:
        clock[0] += 100.0  # of reading images
        told.planned(jobs, 0)
        for job in jobs[:-1]:
            told.job_started(job)
            clock[0] += 20.0
            told.job_ended(job, "well")
    assert [line for line in log.getvalue().splitlines() if "left" in line] == [
        "4 of 9 jobs have ended, about 2 min left",
        "8 of 9 jobs have ended, about 20 s left",
    ]


def test_bars_tell_how_long_the_rest_will_take(clock):
    log = io.StringIO()
    with TerminalReporter(Console(file=log, force_terminal=True, width=200)) as told:
        told_of_three(told, clock)
        of_run, of_job = told.progress.tasks
        shown = TimeLeft().render
        assert shown(of_job).plain == ""  # it was expected to end just now
        clock[0] -= 31.0
        assert shown(of_job).plain == "about 31 s left"
        told.phase("metrics", jobs_of("d", 3)[1])
        assert shown(of_job).plain == ""
        clock[0] = 61.0
        assert shown(of_run).plain == "about 2 min left"
        clock[0] += 62.0
        assert shown(of_run).plain == "about 60 s left"
        told.progress.refresh()
    assert "1/3 " in log.getvalue()
    assert "about 60 s left" in log.getvalue()
    assert "have ended" not in log.getvalue()

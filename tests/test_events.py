"""TensorBoard's event files, read back."""

import errno
import os
import threading
from itertools import count

import pytest
from make_runs import made

pytest.importorskip("tensorboard", reason="tensorboard is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from adbench_tgan.events import EventReporter
from adbench_tgan.results import ResultStore


class Silent:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *words: self.told.append((name, *words))


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


def scalars(folder, name):
    return [(event.step, event.value) for event in read(folder).Scalars(name)]


def test_run_writes_losses_and_training_pictures_and_no_metric(adbench, tmp_path):
    small = ("--set", "ganomaly.epochs=2", "--set", "ganomaly.width=4", "--no-timing", "--device", "cpu")
    ended = adbench("run", "--detectors", "ganomaly", "--categories", "0", *small, "--tensorboard", "tb")
    assert ended.status == 0
    (folder,) = (tmp_path / "tb/digits/one-vs-rest/ganomaly").iterdir()
    tags = read(folder).Tags()
    (losses,) = (tmp_path / "runs").rglob("losses.csv")
    names = losses.read_text().splitlines()[0].split(",")[1:]
    assert sorted(tags["scalars"]) == sorted(f"losses/{name}" for name in names)
    assert [step for step, _ in scalars(folder, "losses/loss_g")] == [1, 2]
    assert {name.split("/")[1] for name in tags["images"]} == {"images", "reconstructions", "maps"}
    assert not any("auroc" in name for kind in tags.values() if isinstance(kind, list) for name in kind)


def test_losses_of_jobs_side_by_side_do_not_mix(tmp_path):
    one, two = made("one"), made("two")
    with EventReporter(Silent(), tmp_path) as reporter:
        reporter.job_started(one.job)
        reporter.epoch(1, 3, {"loss": 3.0}, one.job)
        reporter.job_started(two.job)
        reporter.epoch(1, 3, {"loss": 3.0}, two.job)
        reporter.epoch(2, 3, {"loss": 2.0}, one.job)
        reporter.job_finished(two)
        reporter.epoch(3, 3, {"loss": 77.0}, two.job)  # told late
        reporter.job_finished(one)
    for result in (one, two):
        assert scalars(ResultStore(tmp_path).folder(result.job), "losses/loss") == [
            (1, 3.0),
            (2, 2.0),
            (3, 1.0),
        ]


def test_a_training_that_goes_on_after_a_kill_keeps_the_epochs_before_it(tmp_path, monkeypatch):
    result, seconds = made("one"), count(1_000_000_000)
    monkeypatch.setattr("time.time", lambda: next(seconds))  # files of one second have no order
    with EventReporter(Silent(), tmp_path / "killed") as reporter:
        reporter.job_started(result.job)
        for number, loss in ((1, 3.0), (2, 99.0)):  # the second epoch was not kept
            reporter.epoch(number, 3, {"loss": loss}, result.job)
    for root in (tmp_path / "killed", tmp_path / "elsewhere"):
        with EventReporter(Silent(), root) as reporter:
            reporter.job_started(result.job)
            for number, loss in ((2, 2.0), (3, 1.0)):
                reporter.epoch(number, 3, {"loss": loss}, result.job)
            reporter.job_finished(result)
        found = scalars(ResultStore(root).folder(result.job), "losses/loss")
        assert sorted(found) == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_a_job_that_is_begun_again_within_a_run_has_each_epoch_once(tmp_path, monkeypatch):
    result, seconds = made("one"), count(1_000_000_000)
    monkeypatch.setattr("time.time", lambda: next(seconds))  # files of one second have no order
    with EventReporter(Silent(), tmp_path) as reporter:
        reporter.job_started(result.job)
        for number, loss in ((1, 9.0), (2, 8.0), (1, 3.0), (2, 2.0), (3, 1.0)):
            reporter.epoch(number, 3, {"loss": loss}, result.job)
        reporter.job_finished(result)
    found = scalars(ResultStore(tmp_path).folder(result.job), "losses/loss")
    assert found == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_a_job_that_has_ended_holds_no_file_and_no_thread(tmp_path):
    ended = made("one")
    with EventReporter(Silent(), tmp_path) as reporter:
        files, threads = set(os.listdir("/dev/fd")), threading.active_count()
        reporter.job_started(ended.job)
        reporter.epoch(1, 3, {"loss": 3.0}, ended.job)
        reporter.job_finished(ended)
        assert set(os.listdir("/dev/fd")) <= files
        assert threading.active_count() <= threads


def test_the_other_reporter_is_told_everything(tmp_path):
    inner, result = Silent(), made("one")
    with EventReporter(inner, tmp_path) as reporter:
        reporter.reading("a", 1, 2)
        reporter.planned([result.job], 1)
        reporter.job_started(result.job)
        reporter.phase("fit", result.job)
        reporter.epoch(1, None, {"loss": 3.0}, result.job)
        reporter.images(5, 10, result.job)
        reporter.warn("hm")
        reporter.job_finished(result)
    told = "reading planned job_started phase epoch images warn job_finished".split()
    assert [name for name, *_ in inner.told] == told


@pytest.mark.parametrize("number", range(7))  # of the first write that fails
def test_a_run_goes_on_without_event_files_when_the_disk_is_full(tmp_path, monkeypatch, number):
    write, count, heard = RecordWriter.write, iter(range(10_000)), []

    def written(self, data):
        if next(count) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", written)
    monkeypatch.setattr(threading, "excepthook", heard.append)
    inner, one, two = Silent(), made("one"), made("two")
    with EventReporter(inner, tmp_path) as reporter:
        for result in (one, two):
            reporter.job_started(result.job)
            for epoch in (1, 2):
                reporter.epoch(epoch, 3, {"loss": 3.0}, result.job)
            reporter.job_finished(result)
    told = [words for name, *words in inner.told if name == "warn"]
    why = "No space left on device; the run goes on without event files"
    assert told == [[f"--tensorboard {tmp_path} cannot be written: {why}"]]
    assert [name for name, *_ in inner.told if name == "job_finished"] == ["job_finished"] * 2
    assert heard == []


def test_what_fails_in_another_thread_is_still_told(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(threading, "excepthook", heard.append)

    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    with EventReporter(Silent(), tmp_path):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert [type(each.exc_value) for each in heard] == [OSError]
    assert threading.excepthook == heard.append

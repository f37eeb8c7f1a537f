"""Jobs in processes of their own: what a plugin breaks is one row, and results are those of `local`."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from subprocess import PIPE, Popen
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Ended
from make_data import make_ganomaly
from make_plugin import make_plugin
from make_process import Forked
from make_runs import toy_job
from test_leaderboard import result
from test_registry import LISTENER, VISITOR, VISITOR_PARTS
from test_runner import Silent

from adbench_tgan.benchmark import benchmark
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job, Request
from adbench_tgan.registry import Registry
from adbench_tgan.results import PARTIAL, ResultStore
from adbench_tgan.runner import Settings
from adbench_tgan.workers import processes, worker
from adbench_tgan.workers.nursery import LOST
from adbench_tgan.workers.processes import MANY, WORDS, Heard, Process, close, environment, pass_on, told
from adbench_tgan.workers.worker import read_back

Call = Callable[..., Ended]
RUN = ("run", "--data", "folder", "--data-root", "images", "--device", "cpu", "--no-timing")
RUN += ("--executor", "processes")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_ganomaly(tmp_path / "images")


# --- the demonstration ------------------------------------------------------------------------------------------

OFFERS = """
    from adbench_tgan import DetectorInfo, hookimpl

    @hookimpl
    def adbench_detectors():
        for name in ("Sound", "RaisesInFit", "RaisesInScore", "Crashes", "Leaves", "Hangs"):
            yield DetectorInfo(name=name.lower(), target=f"trouble_detectors:{name}")
"""
DETECTORS = """
    import ctypes, os, sys, threading, time
    from adbench_tgan import Detector

    class Sound(Detector):
        def fit(self, train):
            print("printed by a plugin")
            threading.Thread(target=time.sleep, args=(600,)).start()  # nobody waits for it
            return self

        def score(self, images):
            return images.float().mean((1, 2, 3))

    class RaisesInFit(Sound):
        def fit(self, train):
            raise ValueError("no way to learn this")

    class RaisesInScore(Sound):
        def score(self, images):
            raise RuntimeError("no score")

    class Crashes(Sound):
        def fit(self, train):
            ctypes.string_at(0)

    class Leaves(Sound):
        def fit(self, train):
            print("I am off", file=sys.stderr)
            sys.stderr.flush()
            os._exit(3)

    class Hangs(Sound):
        def fit(self, train):
            time.sleep(600)
"""
BAD_HOOK = (
    "from adbench_tgan import hookimpl\n@hookimpl\ndef adbench_detectors():\n    raise KeyError('no list')"
)
REASONS = {
    "raisesinfit": "ValueError: no way to learn this",
    "raisesinscore": "RuntimeError: no score",
    "crashes": "the process died by signal SIGSEGV in string_at (__init__.py, line ",
    "leaves": "the process ended with exit status 3; its last line: I am off",
    "hangs": "no result after 8 s: stopped; raise --job-timeout if it needs longer",
}


def test_each_mistake_of_a_plugin_is_one_row_or_one_line_and_the_rest_of_the_run_is_intact(
    site: Path, images: Path, adbench: Call
) -> None:
    make_plugin(site, "bad_import", "raise ImportError('half installed')")
    make_plugin(site, "bad_hook", BAD_HOOK)
    make_plugin(site, "trouble", OFFERS, files={"trouble_detectors": DETECTORS})
    ended = adbench(
        *(*RUN, "--detectors", ",".join(["hangs", *REASONS, "sound"]), "--out", "runs"),
        *("--workers", "2", "--job-timeout", "8"),
    )
    assert ended.status == 1
    rows = pd.read_csv("runs/results.csv", keep_default_na=False).set_index("detector")
    assert len(rows) == 6
    assert dict(rows["status"]) == dict.fromkeys(REASONS, "failed") | {"sound": "ok"}
    assert rows.loc["sound", "error"] == ""
    for name, reason in REASONS.items():
        assert str(rows.loc[name, "error"]).startswith(reason)
        assert sum(line.startswith(f"failed: {name} on ") for line in ended.err.splitlines()) == 1
    lines = [line for line in ended.err.splitlines() if line.startswith("plugin ")]
    assert lines == [
        "plugin bad_hook-dist:bad_hook is broken: KeyError: 'no list'",
        "plugin bad_import-dist:bad_import is broken: ImportError: half installed",
    ]
    assert "printed by a plugin" in ended.err
    assert "printed by a plugin" not in ended.out
    assert "Traceback" not in ended.err
    assert not any(Path("runs", PARTIAL).iterdir())
    traces = {
        path.parts[-3]: path.read_text().splitlines()[-1] for path in Path("runs").rglob("traceback.txt")
    }
    assert traces == {name: REASONS[name] for name in ("raisesinfit", "raisesinscore")}


# --- the same results as `local` --------------------------------------------------------------------------------

SAME = """
    import torch
    from adbench_tgan import Detector, DetectorConfig, DetectorInfo, hookimpl

    @hookimpl
    def adbench_detectors():
        yield DetectorInfo(name="drawn", target=f"{__name__}:Drawn", supervision="labelled")

    class Drawn(Detector):
        class Config(DetectorConfig):
            epochs: int = 3

        def epochs(self, train):
            self.network = torch.nn.Linear(32 * 32, 1).to(self.device)
            images = torch.cat([train.normal.on("cpu"), train.anomalies.on("cpu")]).float() / 255
            labels = torch.arange(len(images)) >= len(train.normal)
            optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-3)
            for _ in range(self.config.epochs):
                out = self.network(images.flatten(1))[:, 0]
                loss = torch.nn.functional.binary_cross_entropy_with_logits(out, labels.float())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                yield {"loss": loss.item() / 3, "other": 1}

        @property
        def networks(self):
            return {"network": self.network}

        @torch.no_grad()
        def score(self, images):
            return self.network(images.float().flatten(1) / 255)[:, 0]
"""


def test_results_are_those_of_local_to_the_byte_and_progress_is_told(tmp_path: Path) -> None:
    path = tmp_path / "same.py"
    path.write_text(dedent(SAME))
    request = Request(detectors=["drawn", "pca"], categories=["0"], seeds=[3])
    heard: dict[str, list[object]] = {}
    for executor, workers in (("local", None), ("processes", 2)):
        reporter = Told()
        registry = Registry.discover([path])
        settings = Settings(save_models=True, workers=workers)
        outcome = benchmark(request, settings, registry, reporter, tmp_path / executor, executor)
        assert outcome.failed == ()
        heard[executor] = [each for each in reporter.heard if each[0] in ("phase", "epoch")]
    assert_same_files(tmp_path / "local", tmp_path / "processes")
    drawn = [each[:-1] for each in heard["processes"] if each[-1] == "drawn on digits/0 seed 3"]
    assert [each[1] for each in drawn if each[0] == "phase"] == PHASES
    losses = ResultStore(tmp_path / "local").losses(outcome.results[0].job).drop(columns="epoch")
    assert [each[3] for each in drawn if each[0] == "epoch"] == losses.to_dict("records")
    assert len(losses) == 3
    assert ("warn", "2 jobs at a time share this machine") in [
        (what, str(rest[0])[:35]) for what, *rest in reporter.heard
    ]


PHASES = ["data", "fit", "score", "threshold", "purity", "timing", "metrics"]


class Told(Silent):
    """Remembers also of which job it was told."""

    def phase(self, name, job):
        self.heard.append(("phase", name, str(job)))

    def epoch(self, number, total, losses, job):
        self.heard.append(("epoch", number, total, dict(losses), str(job)))

    def images(self, done, total, job):
        self.heard.append(("images", done, total, str(job)))


def test_how_many_images_are_scored_is_told_across_the_border() -> None:
    lines, reporter = io.StringIO(), Told()
    worker.LineReporter(lines).images(300, 1000, "a job")
    pass_on(json.loads(lines.getvalue()), "a job", reporter)
    assert reporter.heard == [("images", 300, 1000, "a job")]


def test_a_warning_is_told_across_the_border() -> None:
    lines, reporter = io.StringIO(), Silent()
    worker.LineReporter(lines).warn("hm")
    pass_on(json.loads(lines.getvalue()), "a job", reporter)
    assert reporter.heard == [("warn", "hm")]


@pytest.mark.parametrize("total", [np.int64(3), None])
def test_numbers_of_numpy_are_told_across_the_border(total: Any) -> None:
    lines, reporter = io.StringIO(), Told()
    worker.LineReporter(lines).epoch(1, total, {"loss": np.float32(0.5)}, result("d").job)
    pass_on(json.loads(lines.getvalue()), "a job", reporter)
    assert reporter.heard == [("epoch", 1, total, {"loss": 0.5}, "a job")]


def assert_same_files(here: Path, there: Path) -> None:
    files = sorted(path.relative_to(here) for path in here.glob("*/*/*/*/*"))
    assert len(files) == 7  # result, scores and model of both, losses of one
    for name in files:
        if name.name != "result.json":
            assert (here / name).read_bytes() == (there / name).read_bytes(), name
            continue
        one, other = (json.loads((root / name).read_text()) for root in (here, there))
        assert set(one.pop("timing")) == set(timing := other.pop("timing"))
        assert 0 < timing["peak_memory_mb"] < 20_000
        assert other["machine"].pop("jobs_at_once") == 2
        assert other["machine"].pop("forked")
        assert one == other
        assert len(one["machine"]["code"]["framework"]) == 64


def test_a_plugins_dataset_protocol_and_metric_reach_the_processes_and_its_listener_is_told_here(
    site: Path, tmp_path: Path, adbench: Call
) -> None:
    make_plugin(site, "visitor", VISITOR, files={"visitor_parts": VISITOR_PARTS})
    make_plugin(site, "listener", LISTENER)
    words = ("--data", "stripes", "--detectors", "mean_image", "--device", "cpu", "--no-timing")
    ended = adbench("run", *words, "--executor", "processes", "--out", "runs")
    assert ended.status == 0, ended.err
    told = importlib.import_module("listener").HEARD  # here, not in the process of the job
    assert [line.split(":")[0] for line in told] == [
        f"{what} mean_image on stripes/wide seed 0" for what in ("started", "ok")
    ]
    (path,) = Path("runs").glob("stripes/halves/mean_image/wide-*/result.json")
    result = json.loads(path.read_text())
    assert result["metrics"]["spread"] == pytest.approx(result["threshold"] + 1000)


# --- nothing is left behind -------------------------------------------------------------------------------------

SLEEPER = """
    import os, signal, subprocess, time
    from pathlib import Path
    from adbench_tgan import Detector

    class Sleeper(Detector):
        def fit(self, train):
            child = subprocess.Popen(["sleep", "600"])
            draft = Path("pids.draft")
            draft.write_text(f"{os.getpid()} {child.pid}")
            draft.rename("pids")
            INTERRUPT
            time.sleep(600)

        def score(self, images):
            return images.float().mean((1, 2, 3))
"""


def all_gone(pids: list[int], seconds: float = 20) -> bool:
    """Whether none of these processes is running any more, or was soon after."""
    until = time.monotonic() + seconds
    while any(map(alive, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")


@linux
def test_ctrl_c_ends_the_processes_and_all_that_they_started(
    images: Path, tmp_path: Path, adbench: Call
) -> None:
    (tmp_path / "sleeper.py").write_text(
        dedent(SLEEPER).replace("INTERRUPT", f"os.kill({os.getpid()}, signal.SIGINT)")
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    words = ("--plugin", "sleeper.py", "--detectors", "sleeper", "--out", "runs", "--job-timeout", "60")
    try:
        ended = adbench(*RUN, *words)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.status == 130
    assert "interrupted; finished jobs are kept in runs" in ended.err
    pids = [int(pid) for pid in Path("pids").read_text().split()]
    assert len(pids) == 2
    assert all_gone(pids)
    assert not any(Path("runs", PARTIAL).iterdir())


@linux
def test_a_killed_command_leaves_no_orphans(images: Path, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(dedent(SLEEPER).replace("INTERRUPT", ""))
    process = Forked(*RUN, "--detectors", "sleeper.py:Sleeper", "--out", "runs", cwd=tmp_path)
    until = time.monotonic() + 120
    while not (tmp_path / "pids").exists() and process.process.is_alive() and time.monotonic() < until:
        time.sleep(0.05)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(alive, pids))
    process.send(signal.SIGKILL)
    process.wait()
    assert all_gone(pids)
    store = ResultStore(tmp_path / "runs")
    assert any((store.root / PARTIAL).iterdir())
    store.open()  # the next run clears what is left
    assert not any((store.root / PARTIAL).iterdir())


# --- options ----------------------------------------------------------------------------------------------------


def test_one_worker_is_what_jobs_in_this_process_have(adbench: Call) -> None:
    ended = adbench("run", "--detectors", "mean_image", "--categories", "0", "--workers", "1")
    assert ended.status == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            "--job-timeout 30",
            "--job-timeout 30: executor 'local' has no such option; use --executor processes or ray",
        ),
        ("--workers 4", "--workers 4: executor 'local' has no such option; use --executor processes or ray"),
    ],
)
def test_an_option_that_the_executor_would_not_heed_is_refused(words: str, error: str, adbench: Call) -> None:
    ended = adbench("run", "--detectors", "mean_image", *words.split())
    assert (ended.status, ended.error) == (2, error)


def test_workers_share_the_threads_unless_the_user_set_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [environment(workers).get("OMP_NUM_THREADS") for workers in (1, 2, 3, 16)] == [None, "4", "2", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment(2)["OMP_NUM_THREADS"] == "5"
    assert str(Path(__file__).parent) in environment(1)["PYTHONPATH"].split(os.pathsep)


def test_another_jobs_result_or_half_of_one_is_no_result(tmp_path: Path) -> None:
    outcome = benchmark(
        Request(detectors=["mean_image"], categories=["0", "1"]),
        Settings(timing=False),
        Registry.discover(),
        Silent(),
        tmp_path,
    )
    store = ResultStore(tmp_path)
    one, other = (result.job for result in outcome.results)
    assert read_back(one, store.folder(other)) is None
    found = read_back(one, store.folder(one))
    assert found is not None
    pd.testing.assert_frame_equal(found.scores, store.scores(one))
    scores = store.folder(one) / "scores.parquet"
    data = scores.read_bytes()
    scores.write_bytes(data[:-1])
    assert read_back(one, store.folder(one)) is None
    scores.write_bytes(data[:-1] + b"!")
    with pytest.raises(AdbenchError, match="was changed after it was written"):
        read_back(one, store.folder(one))


# --- across the border, in this process -------------------------------------------------------------------------


def sent(job: Job, **settings: Any) -> dict[str, Any]:
    """What a process is given to run a job."""
    spec = worker.spec_of(job, Settings(**settings), Registry.discover())
    return json.loads(json.dumps(spec))


def test_a_process_is_given_all_but_what_would_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"timing": False, "save_models": True, "checkpoint_every": 2}
    spec = sent(result("d").job, **asked, data_root=Path("data"), scratch=tmp_path, pictures=True)
    assert worker.read_spec(spec) == (result("d").job, Settings(**asked, data_root=tmp_path / "data"))


def test_a_process_tells_at_last_what_it_took_of_its_device_and_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(worker, "take_streams", io.StringIO)
    monkeypatch.setattr("faulthandler.enable", lambda file, **_: done.append(Path(file.name)))
    monkeypatch.setattr(worker, "carry_out", lambda spec, folder, reporter: done.append(folder))
    monkeypatch.setattr("adbench_tgan.workers.packing.write_footprint", lambda *given: done.append(given))
    monkeypatch.setattr("os._exit", done.append)
    (tmp_path / worker.SPEC).write_text(json.dumps(sent(result("d").job, device="cuda:1")))
    worker.main(tmp_path)
    assert done == [tmp_path / worker.FAULT, tmp_path / worker.RESULT, ("cuda:1", tmp_path), 0]


LOUD = """
import sys
from adbench_tgan import Detector

class Loud(Detector):
    def fit(self, train):
        return self

    def score(self, images):
        sys.stdout.write("to output")
        sys.stderr.write("to error")
        return images.float().mean((1, 2, 3))
"""


def test_what_a_job_printed_last_is_passed_on_without_an_end_of_its_line(
    adbench: Call, tmp_path: Path
) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    words = "--detectors loud --plugin loud.py --categories 0 --no-timing --executor processes"
    ended = adbench("run", *words.split())
    assert ended.status == 0
    assert "to output" in ended.err
    assert "to error" in ended.err


def test_a_process_downloads_no_data(tmp_path: Path) -> None:
    job = toy_job("mean_image", "airplane", dataset="cifar10")
    worker.carry_out(sent(job, data_root=tmp_path / "none"), tmp_path / "result", Silent())
    found = read_back(job, tmp_path / "result")
    assert found is not None
    assert found.error.endswith("or run 'adbench data fetch cifar10'")
    assert not (tmp_path / "none").exists()


def test_a_plugin_that_ends_its_process_before_the_job_is_a_failure_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = result("d").job
    spec = sent(job)
    monkeypatch.setattr(Registry, "discover", lambda *_: sys.exit("no licence"))
    worker.carry_out(spec, tmp_path / "result", Silent())
    found = read_back(job, tmp_path / "result")
    assert found is not None
    assert (found.status, found.error) == ("failed", "SystemExit: no licence")


def test_why_a_result_could_not_be_read_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = toy_job("mean_image", "0", dataset="digits")
    odd = replace(result("d"), job=job, metrics={"auroc": "high"})
    monkeypatch.setattr("adbench_tgan.runner.attempt", lambda *given: odd)
    worker.carry_out(sent(job), tmp_path / "result", Silent())
    found = read_back(job, tmp_path / "result")
    assert found is not None
    assert found.error.startswith("its result could not be read back (metrics.auroc")


# --- one process -----------------------------------------------------------------------------------------------


def shell(text: str) -> Popen[bytes]:
    """A process that stands in for a job's."""
    return Popen(["/bin/sh", "-c", text], stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)


def test_what_a_process_said_last_is_told_however_much_it_printed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "head -c 40000 /dev/zero | tr '\\0' '\\n' >&2; echo no licence >&2; exit 3"
    monkeypatch.setattr(processes, "begin", lambda *given: shell(text))
    monkeypatch.setattr(processes, "PATIENCE", 0.001)
    monkeypatch.setattr(processes, "LAST", 60.0)  # however slow this machine is
    registry, settings = Registry.discover(), Settings(timing=False, scratch=tmp_path)
    given_up: list[str] = []
    tasks = SimpleNamespace(release=lambda: given_up.append("images"))
    (found,) = processes.processes([result("d").job], settings, tasks, registry, Silent())
    assert found.error == "the process ended with exit status 3; its last line: no licence"
    assert given_up == ["images"]


@pytest.mark.parametrize("kind", ["TERM", "USR1"])
def test_a_process_that_is_told_to_end_has_not_failed_if_we_are_told_next(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "begin", lambda *given: shell(f"kill -{kind} $$"))
    monkeypatch.setattr(processes, "sleep", told)
    registry, settings = Registry.discover(), Settings(timing=False, scratch=tmp_path)
    tasks = SimpleNamespace(release=lambda: None)
    with pytest.raises(KeyboardInterrupt):
        list(processes.processes([result("d").job], settings, tasks, registry, Silent()))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_cannot_be_heard_is_ended_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = shell("exec sleep 10")

    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(processes, "begin", lambda *given: child)
    monkeypatch.setattr("threading.Thread.start", refuse)
    with (
        child,
        pytest.raises(AdbenchError, match=r"cannot start .*: can't start new thread; lower --workers"),
    ):
        Process(result("d").job, Settings(scratch=tmp_path), {}, Heard(MANY), {})
    assert child.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_too_many_open_files_for_another_process_end_the_run_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(processes, "begin", refuse)
    with pytest.raises(AdbenchError, match=r"Too many open files; lower --workers, or raise .* \(ulimit -n"):
        Process(result("d").job, Settings(scratch=tmp_path), {}, Heard(MANY), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            0,
            "its process ended before there was a result, and without an error; does the detector call os._exit?",
        ),
        (
            LOST,
            "its process could not be forked, or the process that forks died; its last line: No; "
            "run again, with fewer --workers if it comes again",
        ),
        (None, "not started after 62 s: stopped; is the machine too busy?"),
    ],
)
def test_a_process_that_ended_otherwise_is_a_failure_with_its_reason(
    tmp_path: Path, status: int | None, error: str
) -> None:
    ended = object.__new__(Process)
    facts = {"job": result("d").job, "settings": Settings(), "folder": tmp_path / "gone", "begun": False}
    facts |= {"limit": 2.0, "late": status is None, "last": "No"}
    vars(ended).update(facts, process=SimpleNamespace(returncode=status))
    assert ended.result().error == error


def bare(**facts: Any) -> Process:
    """A process that was never begun."""
    process = object.__new__(Process)
    vars(process).update({"begun": False, "last": "", "limit": 8.0, "deadline": 100.0, "readers": []} | facts)
    return process


def test_the_time_of_a_job_counts_from_its_begin_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    process = bare()
    for now, line in ((50.0, ["phase", "data"]), (55.0, ["phase", "fit"]), (56.0, ["epoch", 1, 2, {}])):
        monkeypatch.setattr(processes, "monotonic", lambda now=now: now)
        process.heed(line)
    assert (process.begun, process.deadline) == (True, 58.0)


def test_a_process_that_is_late_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[object] = []
    monkeypatch.setattr(processes, "stop", stopped.append)
    monkeypatch.setattr(processes, "monotonic", lambda: 50.0)
    child = SimpleNamespace(poll=lambda: None, returncode=None)
    assert not bare(process=child).ended()
    assert stopped == []
    process = bare(process=child, deadline=50.0)
    assert process.ended()
    assert process.late
    assert stopped == [child]


def test_a_reason_quotes_the_last_line_that_says_something() -> None:
    process = bare()
    for line in ("first\n", "no\x07 licence\r\n", " \x1b\n"):
        process.heed(["print", line])
    assert process.said() == "; its last line: no licence"
    process.heed(["print", "x" * 1000])
    assert len(process.last) == WORDS


def test_a_process_that_never_falls_silent_does_not_keep_us_from_looking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = count(step=processes.PATIENCE / 10)
    monkeypatch.setattr(processes, "monotonic", lambda: next(times))
    loud = SimpleNamespace(get=lambda timeout: (bare(job="a job"), ["print", "more"]))
    assert len(list(islice(told(loud), 100))) < 20


def test_all_processes_are_killed_before_any_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(processes, "kill", lambda name: done.append(f"kill {name}"))
    close(
        [SimpleNamespace(process=name, close=lambda name=name: done.append(f"close {name}")) for name in "ab"]
    )
    assert done == ["kill a", "kill b", "close a", "close b"]


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert [processes.signal_name(number) for number in (11, 35)] == ["SIGSEGV", "35"]


def test_a_result_of_no_machine_says_nothing_of_one() -> None:
    lost = result("d", status="failed")
    assert processes.beside(lost, 2, forked=True) is lost

"""What runs side by side on one GPU, decided from made-up memory; and a run packed so, in processes, on the CPU."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import Ended
from test_leaderboard import result
from test_runner import Silent

from adbench_tgan.errors import AdbenchError
from adbench_tgan.executors import local
from adbench_tgan.jobs import Job, Request, plan
from adbench_tgan.machine import cores
from adbench_tgan.registry import Registry
from adbench_tgan.results import ResultStore
from adbench_tgan.runner import Settings, run
from adbench_tgan.workers import packing as packings
from adbench_tgan.workers import processes
from adbench_tgan.workers.mps import PIPES
from adbench_tgan.workers.packing import (
    MEMORY,
    Footprint,
    Packing,
    Waiting,
    check_packing,
    packing_of,
    read_footprint,
    write_footprint,
)
from adbench_tgan.workers.processes import conclude

SMALL, LARGE = (
    [result(name, category, seed=seed).job for category in "ab" for seed in range(3)] for name in ("s", "l")
)


def took(peak: int, *, free: int = 900, held: int = 50) -> Footprint:
    return Footprint(peak=peak, held=held, free=free)


def measured(most: int = 8, *, peak: int = 100) -> Packing:
    """A GPU of which 1,000 bytes are free; a job of the small kind ran alone: 100 at its peak, 50 beside torch."""
    packing = Packing(most, lambda: 1000, on_gpu=True)
    assert packing.admits(SMALL[0], [])
    packing.learn(SMALL[0], took(peak), at_once=1)
    return packing


def fitting(packing: Packing, jobs: Sequence[Job]) -> int:
    """How many of the jobs run at once."""
    running: list[Job] = []
    for job in jobs:
        if not packing.admits(job, running):
            break
        running.append(job)
    return len(running)


# --- what is decided --------------------------------------------------------------------------------------------


def test_the_first_job_runs_alone_and_the_others_as_far_as_they_fit() -> None:
    packing = Packing(8, lambda: 1000, on_gpu=True)
    assert fitting(packing, SMALL) == 1
    packing.learn(SMALL[0], took(100), at_once=1)
    assert packing.outside == 50  # 1000 - 900 that are missing, less the 50 that torch held
    assert fitting(packing, SMALL) == 6  # (100 + 50) each of 900
    packing.learn(SMALL[1], took(170, free=0), at_once=6)
    assert packing.outside == 50  # what is missing on the device is others' too
    assert fitting(packing, SMALL) == 4  # a larger peak came by
    packing.learn(SMALL[1], took(20, free=0), at_once=4)
    assert fitting(packing, SMALL) == 4  # the largest counts


def test_another_kind_is_measured_alone_too_and_then_both_add_up() -> None:
    packing = measured()
    assert not packing.admits(LARGE[0], SMALL[:1])
    assert packing.admits(LARGE[0], [])
    packing.learn(LARGE[0], took(500), at_once=1)
    assert packing.admits(LARGE[1], SMALL[:2])  # 2 x 150 + 550
    assert not packing.admits(LARGE[1], SMALL[:3])
    assert not packing.admits(LARGE[1], LARGE[:1])


def test_other_settings_are_another_kind_and_another_category_or_seed_is_not() -> None:
    packing = measured()
    assert packing.admits(SMALL[4], SMALL[:1])
    assert not packing.admits(replace(SMALL[1], config={"batch_size": 512}), SMALL[:1])
    assert not packing.admits(replace(SMALL[1], precision="bf16"), SMALL[:1])


@pytest.mark.parametrize("change", [{"dataset": "other"}, {"protocol": "other"}, {"detector": "other"}])
def test_other_data_is_another_kind(change: dict[str, str]) -> None:
    assert not measured().admits(replace(SMALL[1], **change), SMALL[:1])


def test_one_at_a_time_runs_though_it_may_not_fit_and_never_more_than_the_most() -> None:
    assert fitting(measured(peak=5000), SMALL) == 1
    assert fitting(measured(most=2), SMALL) == 2
    assert fitting(Packing(3), SMALL) == 3
    assert fitting(Packing(1), SMALL) == 1


def test_memory_that_others_took_meanwhile_is_seen_when_no_job_runs() -> None:
    free = iter([1000, 400])
    packing = Packing(8, lambda: next(free), on_gpu=True)
    packing.admits(SMALL[0], [])
    packing.learn(SMALL[0], took(100), at_once=1)
    assert fitting(packing, SMALL) == 2


def test_a_job_that_has_to_wait_is_kept_and_no_other_is_claimed_meanwhile() -> None:
    unclaimed = iter([SMALL[0], LARGE[0], SMALL[1]])
    waiting, packing = Waiting(unclaimed), measured(most=2)
    assert waiting.take(packing, []) is SMALL[0]
    assert waiting.take(packing, SMALL[:1]) is None
    assert list(unclaimed) == SMALL[1:2]
    waiting.again.append(SMALL[0])
    assert waiting.take(packing, []) is LARGE[0]
    assert waiting.take(packing, LARGE[:2]) is None  # there are two already
    assert waiting.take(packing, []) is SMALL[0]
    assert waiting.take(packing, []) is None


def test_a_job_that_waits_keeps_others_unclaimed_however_often_it_is_looked_at() -> None:
    unclaimed = iter([LARGE[0], SMALL[1]])
    waiting, packing = Waiting(unclaimed), measured()
    assert [waiting.take(packing, SMALL[:1]) for _ in range(3)] == [None] * 3
    assert list(unclaimed) == SMALL[1:2]


def test_threads_are_shared_by_as_many_as_will_run() -> None:
    packing = Packing(8, lambda: 1000, on_gpu=True)
    packing.admits(SMALL[0], [])
    assert packing.share(SMALL[0]) == 1
    packing.learn(SMALL[0], took(100), at_once=1)
    assert packing.share(SMALL[1]) == 6
    assert Packing(3).share(SMALL[0]) == 3
    packing.again(SMALL[1], replace(result("s"), status="failed", error="out of memory on H100"), at_once=2)
    assert packing.share(SMALL[1]) == 1


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"status": "failed", "error": "out of memory on NVIDIA H100; lower batch_size"}, "memory ran out"),
        (
            {"status": "failed", "error": "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"},
            "memory ran out",
        ),
        (
            {"status": "failed", "error": "the process died by signal SIGKILL; if memory ran out, lower"},
            "memory ran out",
        ),
        (
            {"notes": ("no CUDA graph, steps run one kernel at a time: CUDA out of memory.",)},
            "memory ran out",
        ),
        (
            {"status": "failed", "error": "AcceleratorError: CUDA error: unspecified launch failure"},
            "the GPU failed",
        ),
        ({"status": "failed", "error": "loss adversarial became nan in epoch 3"}, ""),
        ({}, ""),
    ],
)
def test_a_job_that_suffered_from_others_runs_once_more_with_none(facts, why: str) -> None:
    packing = measured()
    found = replace(result("s"), job=SMALL[1], **facts)
    assert not packing.again(SMALL[1], found, at_once=1)
    assert not Packing(4).again(SMALL[1], found, at_once=3)  # CPU workers: the row says what happened
    assert packing.again(SMALL[1], found, at_once=3) == bool(why)
    assert packing.admits(SMALL[1], [])
    assert packing.admits(SMALL[1], SMALL[2:3]) != bool(why)
    assert packing.admits(SMALL[2], SMALL[1:2]) != bool(why)
    notes = packing.noted(found).notes
    note = f"{why} with 2 other jobs on the GPU; this is the job run once more, alone"
    assert notes == (*found.notes, note) if why else notes == found.notes


def test_the_options_say_how_many() -> None:
    assert packing_of(Settings()).most == 1
    assert packing_of(Settings(workers=3)).most == 3
    assert packing_of(Settings(jobs_per_gpu=5)).most == 5
    auto = packing_of(Settings(device="cuda", jobs_per_gpu="auto"))
    assert auto.most == cores()
    assert auto.meter is not None
    assert packing_of(Settings()).warning() == ""
    assert packing_of(Settings(jobs_per_gpu=5)).warning().startswith("5 jobs at a time share the GPU")


def test_jobs_share_a_gpu_as_far_as_mps_and_the_cores_that_are_ours_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(device="cuda", jobs_per_gpu="auto")
    for count, most in ((3, 3), (96, packings.CLIENTS)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, count=count: set(range(count)), raising=False)
        packing = packing_of(settings)
        assert (packing.most, packing.on_gpu) == (most, True)
    assert packing.warning().startswith("up to 48 jobs at a time share the GPU")


# --- what a process tells ---------------------------------------------------------------------------------------


def test_a_process_writes_down_what_it_took_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 9))
    for device, used in (("cpu", True), ("cuda", False)):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda used=used: used)
        write_footprint(device, tmp_path)
        assert read_footprint(tmp_path) is None
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    write_footprint("cuda", tmp_path / "on a full disk")
    write_footprint("cuda", tmp_path)
    assert read_footprint(tmp_path) == Footprint(peak=7, held=5, free=3)
    assert packings.free_memory("cuda") == 3


def test_one_that_a_failed_kernel_left_mute_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(device):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", failed)
    write_footprint("cuda", tmp_path)
    assert read_footprint(tmp_path) is None
    (tmp_path / "memory.json").write_text('{"peak": 1')
    assert read_footprint(tmp_path) is None


@pytest.mark.parametrize(
    ("status", "error", "at_once", "peak", "again"),
    [
        ("ok", "", 2, 170, False),
        ("failed", "boom", 2, 100, False),
        ("failed", "out of memory", 1, 100, False),
        ("failed", "out of memory", 2, 100, True),
    ],
)
def test_what_a_process_took_is_learned_of_those_that_ended_well(
    status: str, error: str, at_once: int, peak: int, again: bool, tmp_path: Path
) -> None:
    packing, folder = measured(), tmp_path / "one"
    folder.mkdir()
    (folder / MEMORY).write_text(json.dumps({"peak": 170, "held": 50, "free": 0}))
    found = replace(result("s"), job=SMALL[1], status=status, error=error)
    process = SimpleNamespace(job=SMALL[1], folder=folder, at_once=at_once)
    process.result = lambda: shutil.rmtree(folder) or found
    assert (conclude(process, packing) is None) == again
    assert (list(packing.peaks.values()), packing.outside) == ([peak], 50)


# --- a run ------------------------------------------------------------------------------------------------------

SHORT_OF_MEMORY = """
    import torch
    from pathlib import Path
    from adbench_tgan import Detector

    class Short(Detector):
        def fit(self, train):
            self.direction = torch.randn(32 * 32)
            tried = Path(PLACE, str(self.seed))
            if self.seed == 2 and not tried.exists():
                tried.touch()
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return self

        def score(self, images):
            return images.flatten(1).float() @ self.direction
"""


def test_jobs_that_share_a_gpu_have_the_scores_of_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "short.py"
    path.write_text(dedent(SHORT_OF_MEMORY).replace("PLACE", repr(str(tmp_path))))
    registry = Registry.discover([path])
    planned = plan(Request(detectors=["short"], categories=["0"], seeds=[1, 2]), registry)
    monkeypatch.setattr(processes, "read_footprint", lambda folder: took(100))
    reporter = Silent()
    reporter.phase = lambda name, job: None  # type: ignore[method-assign]
    packing = Packing(2, lambda: 1000, on_gpu=True)
    packing.admits(planned.jobs[0], [])
    packing.learn(planned.jobs[0], took(100), at_once=1)

    def packed(*arguments):
        return processes.packed(*arguments, packing)

    store = ResultStore(tmp_path / "packed")
    store.open()
    settings = Settings(scratch=store.scratch)
    found = list(run(planned.jobs, store, packed, settings, planned.tasks, registry, reporter))
    assert [(each.job.seed, each.status) for each in found] == [(1, "ok"), (2, "ok")]
    assert [each.machine.get("jobs_at_once") for each in found] == [2, None]
    note = "memory ran out with 1 other job on the GPU; this is the job run once more, alone"
    assert [each.notes for each in found] == [(), (note,)]
    assert [each[0] for each in reporter.heard].count("started") == 2
    assert (
        "warn",
        f"{planned.jobs[1]}: memory ran out with 1 other job on the GPU; it runs once more, alone",
    ) in reporter.heard
    alone = [each.scores for each in local(planned.jobs, settings, planned.tasks, registry, Silent())]
    for one, other in zip(found, alone, strict=True):
        pd.testing.assert_frame_equal(one.scores, other, check_exact=True)
    assert not alone[0].equals(alone[1])


class Played:
    """Stands in for a job's process: it has ended when it is looked at, and says a last word then."""

    begun: list[Played] = []

    def __init__(self, job, settings, spec, heard, env):
        self.job, self.heard, self.env, self.at_once, self.lines = job, heard, env, 1, []
        self.process, self.folder = SimpleNamespace(returncode=0), Path("nowhere")
        Played.begun.append(self)

    def heed(self, line):
        self.lines.append(line)

    def ended(self):
        self.heard.put((self, ["warn", f"last of {self.job.seed}"]))
        return True

    def silent(self):
        return True

    def result(self):
        assert self.lines, "it was not listened to"
        return replace(result("s"), job=self.job)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[Played]:
    """The processes that a run begins, none of them a real one."""
    monkeypatch.setattr(processes, "Process", Played)
    monkeypatch.setattr(Played, "begun", [])
    return Played.begun


def packed(packing: Packing, reporter: Silent) -> list[int]:
    """The seeds of the results of a few jobs, as they come."""
    registry = SimpleNamespace(files=[], words=[], tell=lambda *given, **more: None)
    found = processes.packed(SMALL[:3], Settings(timing=False), None, registry, reporter, packing)
    return [each.job.seed for each in found]


@pytest.mark.parametrize(("most", "pipe"), [(1, "none"), (2, "ours")])
def test_processes_that_share_a_gpu_are_given_mps_and_heard_to_the_end(
    most: int, pipe: str, played: list[Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PIPES, "none")
    monkeypatch.setattr(processes, "side_by_side", lambda warn: nullcontext({PIPES: "ours"}))
    reporter = Silent()
    assert packed(Packing(most, on_gpu=True), reporter) == [0, 1, 2]
    assert {each.env[PIPES] for each in played} == {pipe}
    said = [words[0] for what, *words in reporter.heard if what == "warn"]
    assert said == [f"last of {seed}" for seed in range(3)]  # and no word on times, which nobody measures


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            "--executor processes --jobs-per-gpu auto --device cpu",
            "--jobs-per-gpu auto needs a GPU, and the device is cpu; use --workers instead",
        ),
        (
            "--jobs-per-gpu 4",
            "--jobs-per-gpu 4: executor 'local' has no such option; use --executor processes",
        ),
        (
            "--executor ray --jobs-per-gpu auto",
            "--jobs-per-gpu auto: executor 'ray' has no such option; use --executor processes",
        ),
        (
            "--executor processes --jobs-per-gpu 0",
            "--jobs-per-gpu: '0' is not a number of jobs; give 1 or more, or auto",
        ),
        (
            "--executor processes --jobs-per-gpu many",
            "--jobs-per-gpu: 'many' is not a number of jobs; give 1 or more, or auto",
        ),
    ],
)
def test_what_cannot_be_heeded_is_refused(words: str, error: str, adbench: Callable[..., Ended]) -> None:
    ended = adbench("run", "--detectors", "mean_image", *words.split())
    assert (ended.status, ended.error) == (2, error)


def test_two_numbers_of_jobs_are_one_too_many() -> None:
    with pytest.raises(AdbenchError, match="--jobs-per-gpu auto and --workers 2 both say how many"):
        check_packing(Settings(device="cuda", jobs_per_gpu="auto", workers=2))
    check_packing(Settings(device="cuda", jobs_per_gpu="auto"))
    check_packing(Settings(workers=2))

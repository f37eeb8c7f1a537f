"""Processes of jobs are forked from one that has done the imports, and inherit nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from weakref import ref

import pytest
from test_leaderboard import result
from test_runner import Silent

from adbench_tgan import nursery
from adbench_tgan.benchmark import benchmark
from adbench_tgan.jobs import Request
from adbench_tgan.nursery import LOST, Child, Nursery, begin
from adbench_tgan.processes import MANY, Heard, Process, close, environment
from adbench_tgan.registry import Registry
from adbench_tgan.runner import Settings
from adbench_tgan.worker import SPEC

WORKER = "adbench_tgan.worker"
LOOK = """
import sys, threading
import torch
asked = []
for name in [name for name in dir(torch._C) if name.startswith("_cuda_get") or name == "_cuda_init"]:
    setattr(torch._C, name, lambda *given, name=name: asked.append(name) or 0)
from adbench_tgan.nursery import IMPORTED, import_all
import_all()
print(set(IMPORTED) - set(sys.modules), asked, threading.active_count())
print([name for name in sys.modules if name.startswith(("adbench_baselines", "adbench_plugins", "anomalib"))])
"""

HELD = """
import ctypes
from adbench_tgan.nursery import take_streams

def main(folder):
    print("begun", file=take_streams(), flush=True)
    ctypes.PyDLL(None).sleep(60)
"""


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> dict[object, Nursery]:
    """The nurseries that the test makes; they end with it."""
    made: dict[object, Nursery] = {}
    monkeypatch.setattr(nursery, "_nurseries", made)
    yield made
    for each in made.values():
        each.end()


@pytest.fixture
def quick(tmp_path: Path) -> dict[str, str]:
    """An environment without torch, in which imports end at once."""
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    env = environment(1)
    return env | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"}


def test_it_imports_the_framework_and_no_plugin_and_leaves_the_gpu_alone() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment(1), capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["set() [] 1", "[]"]


def test_a_child_has_its_session_its_folder_and_its_streams_and_its_status_is_told(
    tmp_path: Path, alone: dict[object, Nursery], quick: dict[str, str]
) -> None:
    child = begin(WORKER, tmp_path, quick)
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    assert child.wait(60) == 1
    assert b"FileNotFoundError" in child.stderr.read()  # there is no job in the folder
    (one,) = alone.values()
    assert child.pid not in (None, one.process.pid, os.getpid())


def test_each_process_finds_modules_by_a_path_of_its_own(
    tmp_path: Path, alone: dict[object, Nursery], quick: dict[str, str]
) -> None:
    (tmp_path / SPEC).write_text("{}")
    told = []
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "torch.py").write_text(f"raise ImportError('that of {name}')")
        child = begin(
            WORKER, tmp_path, quick | {"PYTHONPATH": f"{tmp_path / name}{os.pathsep}{quick['PYTHONPATH']}"}
        )
        assert child.wait(60) == 1
        told.append(child.stderr.read().splitlines()[-1])
    assert told == [b"ImportError: that of a", b"ImportError: that of b"]
    assert len(alone) == 1


def test_a_nursery_that_is_killed_is_told_of_by_each_child_and_the_next_process_has_another(
    tmp_path: Path, alone: dict[object, Nursery], quick: dict[str, str]
) -> None:
    os.mkfifo(tmp_path / SPEC)  # a job that is never begun
    children = [begin(WORKER, tmp_path, quick) for _ in range(2)]
    while not all(child.pid for child in children):
        assert [child.poll() for child in children] == [None, None]
    (one,) = alone.values()
    os.kill(one.process.pid, signal.SIGKILL)
    assert [child.wait(10) for child in children] == [LOST, LOST]
    for child in children:
        os.kill(child.pid, 0)  # it lives still
        child.stdin.close()
    (tmp_path / SPEC).unlink()
    third = begin(WORKER, tmp_path, quick)
    (other,) = alone.values()
    assert other is not one
    assert third.wait(60) == 1


def test_why_a_nursery_died_is_told(
    tmp_path: Path, alone: dict[object, Nursery], quick: dict[str, str]
) -> None:
    (tmp_path / "torch.py").write_text(
        "import os, sys\nsys.stderr.write('first\\nno such processor\\n')\nsys.stderr.flush()\nos._exit(3)\n"
    )
    child = begin(WORKER, tmp_path, quick)
    assert child.wait(60) == LOST
    for _ in range(2):
        assert child.nursery.last_words() == "no such processor"
        child.nursery.end()  # another took its place before this was asked


def test_what_cannot_be_imported_is_the_jobs_to_tell(
    tmp_path: Path, alone: dict[object, Nursery], quick: dict[str, str]
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('no such processor')")
    child = begin(WORKER, tmp_path, quick)
    assert child.wait(60) == 1
    assert b"FileNotFoundError" in child.stderr.read()


def test_a_job_that_keeps_pythons_lock_ends_with_the_command(
    tmp_path: Path, alone: dict[object, Nursery], quick: dict[str, str]
) -> None:
    (tmp_path / "held.py").write_text(HELD)
    child = begin("held", tmp_path, quick)
    assert child.stdout.readline()
    child.stdin.close()  # as the system does when the command is killed
    child.nursery.socket.close()
    assert child.wait(20) == -signal.SIGKILL


def test_processes_of_a_nursery_that_hangs_are_ended_at_once(
    tmp_path: Path, alone: dict[object, Nursery]
) -> None:
    job = result("d").job
    settings = Settings(scratch=tmp_path)
    begun = [Process(job, settings, {}, Heard(MANY), environment(1)) for _ in range(3)]
    (one,) = alone.values()
    os.kill(one.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    close(begun)
    assert time.monotonic() - began < 3
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def asked() -> Iterator[tuple[Nursery, socket.socket]]:
    """A nursery without a process, and where its requests arrive."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        one = object.__new__(Nursery)
        one.socket = ours
        one.process = SimpleNamespace(wait=lambda seconds: None)
        yield one, theirs


def test_a_child_that_is_killed_as_it_begins_is_told_with_its_number(
    tmp_path: Path, asked: tuple[Nursery, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nursery, "live", lambda *given: os.kill(os.getpid(), signal.SIGKILL))
    child, running = Child(asked[0], WORKER, tmp_path, ""), {}
    assert nursery.fork(asked[1], running)
    (pid,) = running
    while running:
        nursery.tell_of_ended(running)
    assert (child.wait(10), child.pid) == (-signal.SIGKILL, pid)


def test_a_request_that_lost_its_streams_is_answered_by_silence(
    tmp_path: Path, asked: tuple[Nursery, socket.socket]
) -> None:
    alike = SimpleNamespace(ask=lambda request, descriptors: asked[0].ask(request, descriptors[:3]))
    alike.process = asked[0].process
    child = Child(alike, WORKER, tmp_path, "")
    assert nursery.fork(asked[1], {})
    assert (child.wait(10), child.pid) == (LOST, None)


def test_what_cannot_be_forked_is_told_of(
    tmp_path: Path, asked: tuple[Nursery, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("os.fork", fork)
    child = Child(asked[0], WORKER, tmp_path, "")
    assert nursery.fork(asked[1], {})
    assert (child.wait(10), child.pid) == (LOST, None)
    assert child.stderr.read() == b"[Errno 12] Cannot allocate memory\n"
    asked[0].socket.close()
    assert not nursery.fork(asked[1], {})
    assert Child(asked[0], WORKER, tmp_path, "").wait(10) == LOST


def test_each_environment_has_a_nursery_and_few_are_kept_that_have_nothing_to_do(
    tmp_path: Path, alone: dict[object, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, busy = [], ["x"]

    def made(env: dict[str, str]) -> SimpleNamespace:
        children, process = SimpleNamespace(add=lambda child: None), SimpleNamespace(poll=lambda: None)
        words = {"idle": lambda: env["A"] not in busy, "end": lambda: ended.append(env["A"])}
        return SimpleNamespace(env=env, children=children, process=process, **words)

    monkeypatch.setattr(nursery, "Nursery", made)
    monkeypatch.setattr(nursery, "Child", lambda nursery, module, folder, path: nursery)
    given = [{"A": letter, "PYTHONPATH": "here"} for letter in "xyxz"]
    assert [begin(WORKER, tmp_path, env).env for env in given] == given
    assert ended == ["y"]
    busy[:] = "xyz"
    begin(WORKER, tmp_path, given[1])
    assert ended == ["y"]  # all three are at work
    busy[:] = "x"
    begin(WORKER, tmp_path, given[0])
    assert ended == ["y", "z"]
    alone.clear()


def test_a_nursery_that_is_needed_no_more_or_has_died_leaves_nothing(
    tmp_path: Path, alone: dict[object, Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(nursery, "KEPT", 1)
    before, made, pids = len(os.listdir("/dev/fd")), [], []
    for letter in "xyxx":
        child = begin(WORKER, tmp_path, {"A": letter, "PYTHONPATH": "here"})
        for stream in (child.stdin, child.stdout, child.stderr, child.status):
            stream.close()
        child.returncode = 1  # nobody waits for it
        made.append(ref(child.nursery))
        pids.append(child.nursery.process.pid)
        if len(made) == 3:
            child.nursery.process.kill()
            os.waitid(os.P_PID, pids[-1], os.WEXITED | os.WNOWAIT)
    for pid in pids[:3]:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    assert [each() for each in made] == [None, None, None, child.nursery]
    assert len(os.listdir("/dev/fd")) == before + 2  # where it is asked, and what it said


def test_where_nothing_can_be_forked_a_process_does_its_imports(
    tmp_path: Path, alone: dict[object, Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nursery, "FORKS", False)
    request = Request(detectors=["mean_image"], categories=["0"])
    outcome = benchmark(request, Settings(timing=False), Registry.discover(), Silent(), tmp_path, "processes")
    assert [result.status for result in outcome.results] == ["ok"]
    assert not alone

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
from textwrap import dedent
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest
from test_leaderboard import result
from test_runner import Silent

from adbench_tgan.benchmark import benchmark
from adbench_tgan.jobs import Request
from adbench_tgan.registry import Registry
from adbench_tgan.runner import Settings
from adbench_tgan.workers import nursery
from adbench_tgan.workers.nursery import LOST, Child, Nursery, begin, stop
from adbench_tgan.workers.processes import MANY, Heard, Process, close, environment
from adbench_tgan.workers.worker import SPEC

WORKER = "adbench_tgan.workers.worker"
LOOK = """
import sys, threading
import torch
asked = []
for name in [name for name in dir(torch._C) if name.startswith("_cuda_get") or name == "_cuda_init"]:
    setattr(torch._C, name, lambda *given, name=name: asked.append(name) or 0)
from adbench_tgan.workers.nursery import IMPORTED, import_all
import_all()
print(set(IMPORTED) - set(sys.modules), asked, threading.active_count())
print([name for name in sys.modules if name.startswith(("adbench_baselines", "adbench_plugins", "anomalib"))])
"""

HELD = """
import ctypes
from adbench_tgan.workers.nursery import take_streams

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


@pytest.mark.skipif(not nursery.OOM.exists(), reason="this system does not say who is killed for memory")
def test_where_memory_runs_out_a_process_of_a_job_is_killed_first(
    tmp_path: Path, alone: dict[object, Nursery], quick: dict[str, str]
) -> None:
    (tmp_path / "told.py").write_text(
        "def main(folder):\n    print(open('/proc/self/oom_score_adj').read(), flush=True)"
    )
    child = begin("told", tmp_path, quick)
    assert child.stdout.read().split() == [b"1000"]
    (one,) = alone.values()
    assert Path(f"/proc/{one.process.pid}/oom_score_adj").read_text() == nursery.OOM.read_text()


def test_why_a_nursery_died_is_told(
    tmp_path: Path, alone: dict[object, Nursery], quick: dict[str, str]
) -> None:
    (tmp_path / "torch.py").write_text(
        "import os, sys\nsys.stderr.write('first\\nno such processor\\n')\nsys.stderr.flush()\nos._exit(3)\n"
    )
    child = begin(WORKER, tmp_path, quick)
    assert child.wait(60) == LOST
    child.nursery.end()  # another took its place before this is asked
    assert child.nursery.last_words() == "no such processor"


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


def test_a_nursery_that_died_is_waited_for(tmp_path: Path, asked: tuple[Nursery, socket.socket]) -> None:
    """Else the next process would be asked of it too."""
    waited: list[float] = []
    asked[0].process = SimpleNamespace(wait=waited.append)
    asked[1].close()
    assert Child(asked[0], WORKER, tmp_path, "").wait(10) == LOST
    assert waited == [nursery.END]


@pytest.mark.parametrize("forks", [True, False])
def test_a_process_that_ended_leaves_no_descriptor_open(
    forks: bool, tmp_path: Path, asked: tuple[Nursery, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(nursery, "live", lambda *given: os._exit(3))
    if not forks:
        monkeypatch.setattr("os.fork", refuse)
    before, running = set(os.listdir("/dev/fd")), {}
    child = Child(asked[0], WORKER, tmp_path, "")
    assert nursery.fork(asked[1], running)
    while running:
        nursery.tell_of_ended(running)
    assert child.wait(10) == (3 if forks else LOST)
    for stream in (child.stdin, child.stdout, child.stderr):
        stream.close()
    assert set(os.listdir("/dev/fd")) <= before


def test_a_child_has_a_session_and_signals_of_its_own_and_lives_where_it_was_asked_for(
    tmp_path: Path, asked: tuple[Nursery, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = """
        import os, signal
        def main(folder):
            own = os.getsid(0) == os.getpid() and signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
            os.write(1, repr([own, os.getcwd(), os.environ["PYTHONPATH"], str(folder)]).encode())
    """
    (tmp_path / "what_it_is.py").write_text(dedent(told))
    monkeypatch.chdir(tmp_path)
    child, running = Child(asked[0], "what_it_is", Path("its folder"), str(tmp_path)), {}
    monkeypatch.chdir("/")
    before = signal.signal(signal.SIGCHLD, lambda *given: None)  # as a nursery has one
    try:
        assert nursery.fork(asked[1], running)
        said = child.stdout.read().decode()
    finally:
        signal.signal(signal.SIGCHLD, before)
    while running:
        nursery.tell_of_ended(running)
    assert said == repr([True, str(tmp_path), str(tmp_path), "its folder"])
    assert child.wait(10) == 1


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
    before, children = len(os.listdir("/dev/fd")), []

    def ask(letter: str) -> Nursery:
        children.append(begin(WORKER, tmp_path, {"A": letter, "PYTHONPATH": "here"}))
        return children[-1].nursery

    def end(child: Child) -> None:
        for stream in (child.stdin, child.stdout, child.stderr, child.status):
            stream.close()
        child.returncode = 1

    gone = [ask("x"), ask("y")]
    assert list(alone.values()) == gone  # both have work
    end(children[1])
    assert ask("x") is gone[0]
    assert list(alone.values()) == gone[:1]
    gone[0].process.kill()
    os.waitid(os.P_PID, gone[0].process.pid, os.WEXITED | os.WNOWAIT)
    last = ask("x")
    assert list(alone.values()) == [last]
    for each in gone:
        with pytest.raises(ChildProcessError):
            os.waitpid(each.process.pid, os.WNOHANG)
    for child in children:
        end(child)
    assert len(os.listdir("/dev/fd")) <= before + 2  # where it is asked, and what it said
    left = [ref(gone.pop()), ref(gone.pop())]
    del child, each, children[:]
    assert [each() for each in left] == [None, None]


def test_a_nursery_is_ended_by_its_owner_alone() -> None:
    done: list[str] = []
    one = object.__new__(Nursery)
    one.socket, one.said = SimpleNamespace(close=list), SimpleNamespace(close=list, closed=True)
    one.process = SimpleNamespace(kill=lambda: done.append("killed"), wait=lambda: done.append("waited"))
    one.owner, one.words = os.getpid() + 1, ""
    one.end()
    assert done == []
    one.owner = os.getpid()
    one.end()
    assert done == ["killed", "waited"]


def test_one_that_is_killed_hears_of_it_also_when_it_is_still_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(os, "killpg", lambda *given: done.append(given))
    child = SimpleNamespace(stdin=SimpleNamespace(close=lambda: done.append("closed")), pid=None)
    child.poll = lambda: None
    child.wait = lambda timeout: done.append(timeout)
    stop(child)
    assert done == ["closed", 0]  # nobody knows how long until it begins
    child.poll = lambda: setattr(child, "pid", 7)  # it began meanwhile
    done.clear()
    stop(child)
    assert done == ["closed", (7, signal.SIGKILL), nursery.END_OF_JOB]


def test_where_nothing_can_be_forked_a_process_does_its_imports(
    tmp_path: Path, alone: dict[object, Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nursery, "FORKS", False)
    request = Request(detectors=["mean_image"], categories=["0"])
    outcome = benchmark(request, Settings(timing=False), Registry.discover(), Silent(), tmp_path, "processes")
    assert [result.status for result in outcome.results] == ["ok"]
    assert not alone

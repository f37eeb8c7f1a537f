"""Processes of jobs are forked from one that has done the imports, and inherit nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_runner import Silent

from adbench_tgan import nursery
from adbench_tgan.benchmark import benchmark
from adbench_tgan.jobs import Request
from adbench_tgan.nursery import LOST, Child, Nursery, begin
from adbench_tgan.processes import environment
from adbench_tgan.registry import Registry
from adbench_tgan.runner import Settings

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


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> dict[object, Nursery]:
    """The nurseries that the test makes; they end with it."""
    made: dict[object, Nursery] = {}
    monkeypatch.setattr(nursery, "_nurseries", made)
    yield made
    for each in made.values():
        each.socket.close()


def test_it_imports_the_framework_and_no_plugin_and_leaves_the_gpu_alone() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment(1), capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["set() [] 1", "[]"]


def test_a_child_has_its_session_its_folder_and_its_streams_and_its_status_is_told(
    tmp_path: Path, alone: dict[object, Nursery]
) -> None:
    child = begin(tmp_path, environment(1))
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    assert child.wait(60) == 1
    assert b"FileNotFoundError" in child.stderr.read()  # there is no job in the folder
    (one,) = alone.values()
    assert child.pid not in (None, one.process.pid, os.getpid())


def test_a_nursery_that_is_killed_is_told_of_and_the_next_process_has_another(
    tmp_path: Path, alone: dict[object, Nursery]
) -> None:
    env = environment(1)
    first = begin(tmp_path, env)
    (one,) = alone.values()
    one.process.kill()
    one.process.wait()
    assert first.wait(10) == LOST
    second = begin(tmp_path, env)
    (other,) = alone.values()
    assert other is not one
    assert second.wait(60) == 1


def test_what_cannot_be_forked_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("os.fork", fork)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        asking = SimpleNamespace(ask=lambda *given: Nursery.ask(SimpleNamespace(socket=ours), *given))
        child = Child(asking, tmp_path)
        assert nursery.fork(theirs, {})
        assert (child.wait(10), child.pid) == (LOST, None)
        assert child.stderr.read() == b"[Errno 12] Cannot allocate memory\n"
        ours.close()
        assert not nursery.fork(theirs, {})


def test_each_environment_has_a_nursery_and_few_are_kept(
    tmp_path: Path, alone: dict[object, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def made(env: dict[str, str]) -> SimpleNamespace:
        return SimpleNamespace(env=env, socket=SimpleNamespace(close=lambda: closed.append(env)))

    monkeypatch.setattr(nursery, "Nursery", made)
    monkeypatch.setattr(nursery, "Child", lambda nursery, folder: nursery)
    given = [{"A": letter} for letter in "xyxz"]
    assert [begin(tmp_path, env).env for env in given] == given
    assert closed == [{"A": "x"}]


def test_where_nothing_can_be_forked_a_process_does_its_imports(
    tmp_path: Path, alone: dict[object, Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nursery, "FORKS", False)
    request = Request(detectors=["mean_image"], categories=["0"])
    outcome = benchmark(request, Settings(timing=False), Registry.discover(), Silent(), tmp_path, "processes")
    assert [result.status for result in outcome.results] == ["ok"]
    assert not alone

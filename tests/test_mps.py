"""MPS: found, started, ended, however the process that started it ends. What stands in for it here is a script."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from adbench_tgan import machine
from adbench_tgan.workers import mps

STAND_IN = """#!/bin/sh
if [ "$1" = -d ]; then
    [ -z "$REFUSE" ] || exit 3
    echo "started in $CUDA_MPS_PIPE_DIRECTORY$CUDA_VISIBLE_DEVICES" >> "$DIARY"
    touch "$CUDA_MPS_PIPE_DIRECTORY/control"
else
    echo "told to $(cat)" >> "$DIARY"
fi
"""


@pytest.fixture
def diary(tmp_path, monkeypatch):
    """What happened to a made-up MPS, which is installed."""
    program = tmp_path / mps.CONTROL
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DIARY", str(tmp_path / "diary"))
    monkeypatch.delenv(mps.PIPES, raising=False)
    monkeypatch.setattr(machine, "DEFAULT", str(tmp_path / "none"))
    return tmp_path / "diary"


def test_one_of_our_own_lasts_as_long_as_the_block(diary, monkeypatch):
    said = []
    monkeypatch.setenv(
        "CUDA_VISIBLE_DEVICES", "1"
    )  # by this number its clients ask for the GPU, so it must have all
    with mps.side_by_side(said.append) as own:
        folder = own[mps.PIPES]
        assert os.path.isdir(folder)
        assert diary.read_text() == f"started in {folder}\n"
    assert diary.read_text().endswith("told to quit\n")
    assert not os.path.exists(folder)
    assert said == []


def test_it_ends_when_the_block_fails(diary):
    with pytest.raises(KeyError), mps.side_by_side(print):
        raise KeyError
    assert diary.read_text().endswith("told to quit\n")


def test_it_ends_when_its_process_is_killed(diary, tmp_path):
    own = tmp_path / "temporary files"
    own.mkdir()
    text = (
        "import os, signal\nfrom adbench_tgan.workers import mps\n"
        "with mps.side_by_side(print):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", text], check=False, env=os.environ | {"TMPDIR": str(own)})
    assert done.returncode == -signal.SIGKILL
    until = time.monotonic() + 20
    while "told to quit" not in diary.read_text() or list(own.iterdir()):
        assert time.monotonic() < until, "MPS outlived the process that started it, or its folder did"
        time.sleep(0.05)


@pytest.mark.parametrize("named", [True, False])
def test_one_that_runs_already_is_used_and_left_alone(diary, monkeypatch, tmp_path, named):
    pipe = tmp_path / "theirs" / "control"
    pipe.parent.mkdir()
    pipe.touch()
    if named:
        monkeypatch.setenv(mps.PIPES, str(pipe.parent))
    else:
        monkeypatch.setattr(machine, "DEFAULT", str(pipe.parent))
    with mps.side_by_side(pytest.fail) as own:
        assert own == {mps.PIPES: str(pipe.parent)}
    assert not diary.exists()


def test_a_folder_that_is_named_but_holds_none_is_not_taken_for_one(diary, monkeypatch, tmp_path):
    monkeypatch.setenv(mps.PIPES, str(tmp_path / "gone"))
    assert machine.mps_folder() == ""
    with mps.side_by_side(pytest.fail) as own:
        assert own[mps.PIPES] != str(tmp_path / "gone")
    assert diary.exists()


def test_without_it_the_user_is_told(diary, monkeypatch):
    said = []
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(mps, "PLACES", ())
    with mps.side_by_side(said.append) as own:
        assert own == {}
    assert said == [
        f"{mps.CONTROL} is not installed: jobs take turns on the GPU, which is no faster than one after another"
    ]


def test_when_it_refuses_the_user_is_told(diary, monkeypatch):
    said = []
    monkeypatch.setenv("REFUSE", "1")
    with mps.side_by_side(said.append) as own:
        assert own == {}
    assert said == [f"{mps.CONTROL} does not start (exit status 3): jobs take turns on the GPU"]
    assert not diary.exists()


def test_the_one_that_is_ended_is_our_own_also_when_ctrl_c_ends_the_run(diary, monkeypatch):
    begun, real = [], subprocess.Popen

    def popen(words, **how):
        begun.append((words, how))
        return real(words, **how)

    monkeypatch.setattr(subprocess, "Popen", popen)
    with mps.side_by_side(pytest.fail) as own:
        assert own == {mps.PIPES: own[mps.PIPES], "CUDA_MPS_LOG_DIRECTORY": own[mps.PIPES]}
    (how,) = (how for words, how in begun if words[0] == "/bin/sh")
    assert how["env"].items() >= own.items()  # or it would end another's
    assert how["start_new_session"]  # Ctrl-C is not for it


@pytest.mark.parametrize("error", [PermissionError("no"), subprocess.TimeoutExpired("it", 10)])
def test_one_that_cannot_be_started_or_hangs_is_done_without(error, diary, monkeypatch):
    def run(words, *, timeout, **how):
        assert timeout == mps.PATIENCE
        raise error

    said = []
    monkeypatch.setattr(subprocess, "run", run)
    with mps.side_by_side(said.append) as own:
        assert own == {}
    why = type(error).__name__
    assert said == [f"{mps.CONTROL} does not start ({why}): jobs take turns on the GPU"]


def test_the_driver_says_its_version(tmp_path):
    told = tmp_path / "version"
    assert machine.driver_of(told) is None
    told.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\nGCC version: gcc 12.3.0\n"
    )
    assert machine.driver_of(told) == "580.95.05"
    told.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  565.57.01  Release Build\n")
    assert machine.driver_of(told) == "565.57.01"


def test_the_machine_of_a_row_says_whether_its_job_ran_under_it(diary, monkeypatch):
    properties = SimpleNamespace(name="NVIDIA X", total_memory=2**34)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert "mps" not in machine.machine("cuda")
    with mps.side_by_side(pytest.fail) as own:
        for name, value in own.items():
            monkeypatch.setenv(name, value)
        assert machine.machine("cuda")["mps"] is True
        assert "mps" not in machine.machine("cpu")


def test_the_processor_of_a_mac_is_told_by_sysctl_else_by_its_kind(monkeypatch, tmp_path):
    read = Path.read_text

    def without_proc(path, *how, **so):
        return read(tmp_path / "absent" if path.name == "cpuinfo" else path, *how, **so)

    monkeypatch.setattr(Path, "read_text", without_proc)
    monkeypatch.setattr("platform.processor", lambda: "arm")
    program = tmp_path / "sysctl"
    monkeypatch.setattr(machine, "SYSCTL", str(program))
    assert machine.machine("cpu")["cpu"] == "arm"
    program.write_bytes(b'#!/bin/sh\ntest "$*" = "-n machdep.cpu.brand_string" && echo Apple M1 Pro\n')
    program.chmod(0o700)
    assert machine.machine("cpu")["cpu"] == "Apple M1 Pro"


def test_a_machine_is_told_whose_processor_has_no_name_and_which_lacks_a_package(monkeypatch):
    read = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, *how, **so: "processor : 0\n" if path.name == "cpuinfo" else read(path, *how, **so),
    )
    monkeypatch.setattr("platform.processor", str)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no-such-package"))
    facts = machine.machine("cpu")
    assert facts["cpu"] == "aarch64"
    assert facts["versions"] == {"torch": version("torch"), "no-such-package": None}

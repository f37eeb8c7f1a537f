"""What all tests share: no network, no data of the user's, and the command line called in this process."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from make_plugin import installed

if TYPE_CHECKING:
    from adbench_tgan.boards import Board
    from adbench_tgan.registry import Registry

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["OMP_NUM_THREADS"] = "1"  # small networks on few cores: threads would only wait for each other


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong; notes may stand before it, nothing behind it."""
        lines = [line for line in self.err.splitlines() if line.startswith("adbench: ")]
        assert lines == self.err.splitlines()[-1:], f"not one line of error at the end:\n{self.err}"
        assert "Traceback" not in self.err
        return lines[0].removeprefix("adbench: ")


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Settings of the user's shell have no say in tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADBENCH_DATA", str(tmp_path_factory.mktemp("no-data")))
        for name in ("ADBENCH_DISABLE_PLUGINS", "PYTHONUNBUFFERED", "COLUMNS", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def registry() -> Registry:
    """What is installed."""
    from adbench_tgan.registry import Registry

    return Registry.discover()


@pytest.fixture
def memory() -> Path:
    """A place in an object store, which is in memory."""
    from adbench_tgan.store.places import place_of

    pytest.importorskip("upath")
    return place_of(f"memory://store-{uuid.uuid4().hex}/runs")


@pytest.fixture
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages come without the charts' library, which takes a while to make."""
    monkeypatch.setattr("adbench_tgan.report.page.bundle", lambda: "/* the charts' library */")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt: where tests run in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def adbench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Ended]]:
    """Call ``adbench WORDS`` in this process, in an empty folder."""
    from adbench_tgan import cli

    def call(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["adbench", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return Ended(status, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Board, Path]:
    """A board in memory, and its folder."""
    from make_board import board_of, grid

    from adbench_tgan import boards

    place = tmp_path_factory.mktemp("boards")
    board = board_of(place / "runs", grid())
    assert boards.publish(board, place)
    return board, place / "toy"


@pytest.fixture
def folder(material: tuple[Board, Path], tmp_path: Path) -> Path:
    """A copy of the board's folder to spoil."""
    return Path(shutil.copytree(material[1], tmp_path / "toy"))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs of four detectors, one of which learns from labelled anomalies."""
    from make_board import grid, stored

    return stored(tmp_path / "runs", grid(("good", "fair", "poor", "taught")))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder in which strangers' distributions are found by this process."""
    folder = tmp_path / "site"
    folder.mkdir()
    with installed(folder):
        yield folder


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., Ended]:
    """Call ``adbench WORDS`` as a process of its own, in an empty folder."""
    script = Path(sysconfig.get_path("scripts")) / "adbench"

    def call(*words: str, **variables: str) -> Ended:
        ended = subprocess.run(
            [script, *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | variables,
            timeout=300,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return call


def pytest_collection_finish() -> None:
    """Look for no garbage among what was imported and collected."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Leave the test's name out of the environment: processes of jobs are forked from one that has the same."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    return (yield)

"""Environments of their own for tests of what is shipped: nothing is downloaded, and nothing is written in the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = {
    "adbench_tgan": ROOT / "adbench_tgan",
    "adbench_plugins": ROOT / "plugins/adbench_plugins",
    "adbench_baselines": ROOT / "baselines/adbench_baselines",
}
OFFLINE = {
    "PIP_NO_DEPS": "1",
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_QUIET": "1",
}  # 0: none


def copy_of_tree(place: Path) -> Path:
    """What a build needs, so that nothing is built in the checkout."""
    place.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    for room in ROOMS.values():
        target = place / room.relative_to(ROOT)
        shutil.copytree(room, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return place


def call(*words: object, cwd: Path, **variables: str) -> str:
    """Run a command; its standard output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, f"{words}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def fresh_environment(place: Path) -> Path:
    """A new virtual environment that also sees what is installed here; its python."""
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    seen = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
    (site / "zz_here.pth").write_text(f"{seen}\n")  # a plain path would leave out what is editable there
    return place / "bin/python"


def install(python: Path, *what: object, cwd: Path) -> None:
    """Install into an environment, before what it sees elsewhere."""
    call(python, "-m", "pip", "install", "--ignore-installed", *what, cwd=cwd, **OFFLINE)


def wheel_of_checkout(place: Path) -> Path:
    """Build the wheel of this project, in a copy of the checkout."""
    tree = copy_of_tree(place / "tree")
    call(sys.executable, "-m", "pip", "wheel", "--wheel-dir", place, tree, cwd=place, **OFFLINE)
    (wheel,) = place.glob("*.whl")
    return wheel

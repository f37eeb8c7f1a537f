"""Plugins as their users install them: in an environment of its own, beside the wheel of this checkout.

The tutorial is followed word by word, and the example is tested. What they need besides comes from the environment
that runs these tests, so nothing is downloaded; ``tox -e example`` installs the example with all it needs.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from make_environment import OFFLINE, ROOT, call, fresh_environment, install, wheel_of_checkout

TUTORIAL = ROOT / "docs/tutorial.md"
EXAMPLE = ROOT / "plugins/adbench-example-pca"
pytestmark = pytest.mark.timeout(1800)  # on a busy machine; 40 s of computing each
BLOCK = re.compile(r'^```(\w+)(?: title="(.*?)")?\n(.*?)^```$', re.S | re.M)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment with the wheel."""
    place = tmp_path_factory.mktemp("beside-the-wheel")
    python = fresh_environment(place / "venv")
    install(python, wheel_of_checkout(place), cwd=place)
    return python


def bash(script: str, folder: Path, python: Path) -> str:
    """What a shell prints whose `python`, `pytest` and `adbench` are those of the environment."""
    ended = subprocess.run(
        ["bash", "-euc", f'pytest() {{ python -m pytest "$@"; }}\n{script}'],
        cwd=folder,
        env=os.environ | OFFLINE | {"PATH": f"{python.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{script}\n{ended.stdout}"
    return ended.stdout


def test_the_environment_holds_the_wheel(python: Path, tmp_path: Path) -> None:
    where = "import adbench_tgan, adbench_plugins; print(adbench_tgan.__file__, adbench_plugins.__file__)"
    assert call(python, "-c", where, cwd=tmp_path).count(str(python.parent.parent)) == 2


def test_a_reader_who_only_follows_the_tutorial_ends_with_a_working_plugin(
    python: Path, tmp_path: Path
) -> None:
    """Each block is a file to write, commands to call, or lines that the commands before it print."""
    blocks = BLOCK.findall(TUTORIAL.read_text())
    kinds = [kind for kind, _, _ in blocks]
    assert kinds.count("python") >= 2
    assert kinds.count("console") >= 5
    assert kinds.count("text") >= 2
    assert [title for kind, title, _ in blocks if kind == "console" and title] == [
        "in a checkout of adbench-tgan"
    ]
    (tmp_path / "adbench-tgan").symlink_to(ROOT)  # the checkout
    folder, printed = tmp_path, ""
    for kind, title, text in blocks:
        if title == "in a checkout of adbench-tgan":
            continue  # the installation of this package: here, the fixture
        if kind == "console":
            printed = bash(text + "\npwd", folder, python)
            printed, _, here = printed.rstrip().rpartition("\n")
            folder = Path(here)
        elif kind == "text":
            missing = [line for line in text.splitlines() if steady(line) not in steady(printed)]
            assert missing == [], f"not printed:\n{printed}"
        else:
            assert (folder / title).exists(), f"{title} should be there already"
            (folder / title).write_text(text)
    assert folder == tmp_path / "adbench-nearest"


def steady(text: str) -> str:
    """Without the blanks that line up columns."""
    return " ".join(text.split())


def test_the_example_passes_its_own_tests_beside_the_wheel(python: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    left = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".*")
    shutil.copytree(EXAMPLE, project, ignore=left)
    bash("python -m pip install .", project, python)
    printed = bash("pytest", project, python)
    (count,) = re.findall(r"(\d+) passed", printed)
    assert int(count) >= 13


def test_the_example_is_a_project_as_new_plugin_writes_them() -> None:
    """Its tox tests it as a new project is tested, and it ships nothing with the benchmark."""
    from adbench_tgan.scaffold import templates

    written = dict(templates())
    ours, theirs = configparser.ConfigParser(), configparser.ConfigParser()
    ours.read(EXAMPLE / "tox.ini")
    theirs.read_string(written["tox.ini"])
    assert {name: dict(ours[name]) for name in ours} == {name: dict(theirs[name]) for name in theirs}
    assert shlex.split(theirs["testenv"]["commands"]) == ["pytest", "{posargs}"]
    for tests in (written["tests/test_detector.py"], (EXAMPLE / "tests/test_detector.py").read_text()):
        assert re.search(r'check_detector\("\S+"\)', tests), "by name, which another process can import too"

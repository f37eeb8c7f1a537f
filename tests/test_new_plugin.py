"""``adbench new-plugin``: what it writes, and what it refuses. The written project is installed in test_plugin_projects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adbench_tgan.errors import AdbenchError
from adbench_tgan.scaffold import LONGEST, names_of, templates, write_plugin

FILES = """
.github/workflows/tests.yml .gitignore README.md pyproject.toml src/adbench_mine/__init__.py
src/adbench_mine/detector.py tests/test_detector.py tox.ini
"""


def written(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_it_writes_a_project_and_says_what_comes_next(adbench, tmp_path):
    ended = adbench("new-plugin", "adbench-mine", "--out", "made/here")
    assert ended.status == 0
    assert "adbench run --detectors mine,pca,random" in ended.out
    assert written(tmp_path / "made/here/adbench-mine") == FILES.split()
    assert [path.name for path in (tmp_path / "made/here").iterdir()] == ["adbench-mine"]
    assert (tmp_path / "made/here/adbench-mine").stat().st_mode & 0o777 == 0o755
    assert "LICENSE" not in FILES  # it is the author's to choose


@pytest.mark.parametrize(
    ("name", "detector", "cls"),
    [
        ("adbench-mine", "mine", "MineDetector"),
        ("My.Own__thing", "my_own_thing", "MyOwnThingDetector"),
        ("detector", "detector", "MyDetector"),
        ("edge-detector", "edge_detector", "EdgeDetector"),
    ],
)
def test_names_follow_from_the_distributions(name, detector, cls):
    names = names_of(name, ())
    assert (names.detector, names.cls) == (detector, cls)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "cannot name a distribution"),
        ("../up", "cannot name a distribution"),
        ("-x", "cannot name a distribution"),
        ("2gan", "cannot name a distribution"),
        ("mine-", "cannot name a distribution"),
        ("größe", "cannot name a distribution"),
        ("x\ny", "cannot name a distribution"),
        ("a" * (LONGEST + 1), "longer than 33 letters"),
        ("class", "is taken or reserved"),
        ("json", "is taken or reserved"),
        ("torch", "is taken or reserved"),
        ("tests", "is taken or reserved"),
        ("adbench-tgan", "is taken or reserved"),
        ("adbench-2gan", "starts with a digit"),
        ("adbench-ganomaly", "there is a detector 'ganomaly' already"),
    ],
)
def test_names_that_cannot_be_are_refused_in_one_line(adbench, tmp_path, name, reason):
    ended = adbench("new-plugin", "--", name)
    assert ended.status == 2
    assert reason in ended.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link to nothing"])
def test_nothing_is_overwritten(adbench, tmp_path, kind):
    place = tmp_path / "adbench-mine"
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.write_text("kept")
    else:
        place.symlink_to("nowhere")
    ended = adbench("new-plugin", "adbench-mine")
    assert ended.status == 2
    assert "is there already" in ended.error
    assert [path.name for path in tmp_path.iterdir()] == ["adbench-mine"]
    assert kind != "file" or place.read_text() == "kept"


def test_a_folder_that_cannot_be_written_is_one_line(adbench, tmp_path):
    (tmp_path / "file").write_text("")
    ended = adbench("new-plugin", "adbench-mine", "--out", "file")
    assert ended.status == 1
    assert ended.error.startswith("cannot write file/adbench-mine: File exists; give --out another folder")


def test_a_failure_leaves_no_half_of_a_project(tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(AdbenchError, match="No space left on device"):
        write_plugin(names_of("adbench-mine", ()), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "longer" * 5 + "abc"])
def test_the_project_is_as_ruff_would_have_it(tmp_path, name):
    """However short or long the name is, since lines grow with it."""
    assert len(name) in (1, LONGEST)
    project = write_plugin(names_of(name, ()), tmp_path)
    for words in (["check"], ["format", "--check"]):
        ended = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "."],
            cwd=project,
            capture_output=True,
            text=True,
            env=os.environ | {"RUFF_NO_CACHE": "true"},
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_placeholder_is_left(tmp_path):
    project = write_plugin(names_of("adbench-mine", ()), tmp_path)
    texts = {name: (project / name).read_text() for name in written(project)}
    assert len(texts) == len(list(templates()))
    left = [name for name, text in texts.items() if "$" in text.replace("${{ matrix.python }}", "")]
    assert left == []

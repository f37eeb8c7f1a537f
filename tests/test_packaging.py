"""What is shipped: the wheel holds the rooms' modules and nothing else, and works where it is installed.

Needs setuptools and build, and what ``adbench list`` imports; not torch. Run by ``tox -e packaging``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parent.parent
ROOMS = {
    "adbench_tgan": ROOT / "adbench_tgan",
    "adbench_plugins": ROOT / "plugins/adbench_plugins",
    "adbench_baselines": ROOT / "baselines/adbench_baselines",
}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
INFO = f"adbench_tgan-{VERSION}.dist-info"


def shipped() -> set[str]:
    """The files of the rooms as they should stand in a wheel."""
    modules = {
        path.relative_to(room.parent).as_posix() for room in ROOMS.values() for path in room.rglob("*.py")
    }
    template = {f"adbench_tgan/report/template/{name}" for name in ("page.html.jinja", "page.css", "page.js")}
    return modules | template | {"adbench_tgan/py.typed"}


def copy_of_tree(place: Path) -> Path:
    """What a build needs, so that nothing is built in the checkout."""
    place.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    for room in ROOMS.values():
        target = place / room.relative_to(ROOT)
        shutil.copytree(room, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return place


def leave_over(tree: Path) -> None:
    """What an earlier build leaves behind: a module that has since been deleted."""
    for name in ROOMS:
        ghost = tree / f"build/lib/{name}/deleted.py"
        ghost.parent.mkdir(parents=True)
        ghost.write_text("raise SystemExit('a module that was deleted')\n")


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


def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel built from it, of a tree with a left-over build folder.

    A wheel built straight from such a tree (``pip wheel .``) would ship what is in ``build/lib``; releases go
    through the sdist, as here.
    """
    tree = copy_of_tree(tmp_path_factory.mktemp("built") / "tree")
    leave_over(tree)
    call(sys.executable, "-m", "build", "--no-isolation", ".", cwd=tree)
    return tree / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_wheel_holds_the_rooms_and_nothing_else(wheel: Path) -> None:
    found = files(wheel)
    assert {name for name in found if not name.startswith(f"{INFO}/")} == shipped()
    assert {name.partition("/")[0] for name in found} == {*ROOMS, INFO}
    assert {f"{INFO}/entry_points.txt", f"{INFO}/licenses/LICENSE"} <= found


def test_sdist_holds_the_same_modules(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    rooms = {name.removeprefix("plugins/").removeprefix("baselines/") for name in names}
    assert {name for name in rooms if name.partition("/")[0] in ROOMS and "egg-info" not in name} == shipped()
    assert [name for name in names if name.startswith(("build/", "runs/", "data/"))] == []


def fresh_environment(place: Path) -> Path:
    """A new virtual environment that also sees what is installed here; its python."""
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "zz_here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin/python"


@pytest.mark.parametrize("way", ["wheel", "editable"])
def test_installed_package_works_from_another_folder(way: str, wheel: Path, tmp_path: Path) -> None:
    python = fresh_environment(tmp_path / "venv")
    pip = (python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet")
    tree = copy_of_tree(tmp_path / "tree") if way == "editable" else None
    what = ("-e", tree) if tree else (wheel,)
    call(*pip, "--ignore-installed", *what, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    adbench = python.parent / "adbench"
    assert call(adbench, "--version", cwd=elsewhere) == f"adbench-tgan {VERSION}\n"
    names = {record["name"] for record in json.loads(call(adbench, "list", "--json", cwd=elsewhere))}
    assert {"ganomaly", "transgan_dual", "pca", "mean_image", "random"} <= names
    plugins = {
        record["origin"]: record for record in json.loads(call(adbench, "plugins", "--json", cwd=elsewhere))
    }
    ours = {name: record["status"] for name, record in plugins.items() if name.startswith("adbench-tgan:")}
    assert ours == {f"adbench-tgan:{name}": "ok" for name in ("framework", "baselines", "plugins")}
    homes = call(python, "-c", WHERE, cwd=elsewhere).splitlines()
    assert homes == [VERSION, *([str(tree)] * 3 if tree else [str(tmp_path / "venv")] * 3)]


WHERE = """
import adbench_baselines, adbench_plugins, adbench_tgan
from importlib.metadata import version
from pathlib import Path
print(version("adbench-tgan"))
for package in (adbench_tgan, adbench_plugins, adbench_baselines):
    home = Path(package.__file__)
    print(next(above for above in home.parents if above.name in ("tree", "venv")))
"""

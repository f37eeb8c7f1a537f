"""What is shipped: the wheel holds the rooms' modules and nothing else, and works where it is installed.

Needs setuptools and build, and what ``adbench list`` imports; not torch. Run by ``tox -e packaging``.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from make_environment import ROOMS, ROOT, call, copy_of_tree, fresh_environment, install

pytestmark = pytest.mark.packaging

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
INFO = f"adbench_tgan-{VERSION}.dist-info"


def shipped() -> set[str]:
    """The files of the rooms, modules and templates, as they should stand in a wheel."""
    return {
        path.relative_to(room.parent).as_posix()
        for room in ROOMS.values()
        for path in room.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def leave_over(tree: Path) -> None:
    """What an earlier build leaves behind: a module that has since been deleted."""
    for name in ROOMS:
        ghost = tree / f"build/lib/{name}/deleted.py"
        ghost.parent.mkdir(parents=True)
        ghost.write_text("raise SystemExit('a module that was deleted')\n")


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


@pytest.mark.parametrize("way", ["wheel", "editable"])
def test_installed_package_works_from_another_folder(way: str, wheel: Path, tmp_path: Path) -> None:
    python = fresh_environment(tmp_path / "venv")
    tree = copy_of_tree(tmp_path / "tree") if way == "editable" else None
    install(python, *(("-e", tree) if tree else (wheel,)), cwd=tmp_path)
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

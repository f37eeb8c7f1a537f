"""The documentation keeps up with the code, and its example works as printed."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import typer.main

from adbench_tgan import cli, hooks
from adbench_tgan.audits import COLUMNS as AUDIT_COLUMNS
from adbench_tgan.leaderboard import LEADERBOARD_COLUMNS, RESULT_COLUMNS
from adbench_tgan.registry import Registry
from adbench_tgan.testing import CHECKS, IN_PROCESS, check_detector

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PLUGINS = (ROOT / "plugins/README.md").read_text()


def table_cells(text, heading):
    """The names in the first column of the table under a heading."""
    part = text.split(heading)[1].split("\n## ")[0]
    return [
        name
        for line in part.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]


def test_every_column_is_explained():
    text = (ROOT / "leaderboards/README.md").read_text()
    assert table_cells(text, "## `results.csv`") == RESULT_COLUMNS
    assert table_cells(text, "## `leaderboard.csv`") == LEADERBOARD_COLUMNS
    assert sorted(table_cells(text, "## `audit.csv`")) == sorted(AUDIT_COLUMNS)


def commands(group, prefix="adbench"):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


def test_every_command_is_in_the_readme():
    found = list(commands(typer.main.get_command(cli.app)))
    assert len(found) == 9
    assert [name for name in found if f"`{name}" not in README] == []


def test_every_hook_is_in_the_guide():
    names = [name for name in vars(hooks) if name.startswith("adbench_")]
    assert len(names) == 8
    assert [name for name in names if f"`{name}`" not in PLUGINS] == []


def test_every_detector_dataset_and_protocol_is_in_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text()
    registry = Registry.discover()
    for kind in ("detector", "dataset", "protocol"):
        assert [name for name in registry.names(kind) if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("*/README.md")), ids=str)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_number_of_checks_is_as_printed():
    assert f"{len(CHECKS)} checks" in README
    assert f"{len(CHECKS)} checks" in PLUGINS
    assert f"{len(CHECKS)} checks" in (ROOT / "CHANGELOG.md").read_text()


def test_the_guides_detector_works_as_printed(tmp_path, monkeypatch):
    package = tmp_path / "my_detector"
    package.mkdir()
    init, module = re.findall(
        r"```python\n# my_detector/(?:__init__|brightness)\.py.*?\n(.*?)```", PLUGINS, re.S
    )
    (package / "__init__.py").write_text(init)
    (package / "brightness.py").write_text(module)
    info = tmp_path / "my_detector-0.1.dist-info"
    info.mkdir()
    toml = re.search(r"```toml\n(.*?)```", PLUGINS, re.S)[1]
    point = re.search(r"\[project.entry-points.adbench\]\n(\w+) = \"(\w+)\"", toml)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-detector\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[adbench]\n{point[1]} = {point[2]}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    try:
        detector = Registry.discover().detector("brightness")
        assert not check_detector("brightness", checks=IN_PROCESS).failed
        assert detector.Config.model_fields["power"].description == "exponent of the distance"
    finally:
        for name in ("my_detector", "my_detector.brightness"):
            sys.modules.pop(name, None)


def test_ci_runs_the_readmes_test_command():
    commands = re.findall(r"```console\n(python3 .*?)\n```", README)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci/run").read_text().splitlines()

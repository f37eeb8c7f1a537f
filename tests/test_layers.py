"""Who may import whom, read from the syntax trees; that types fit; that nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import adbench_tgan

ROOT = Path(__file__).parent.parent
ROOMS = {
    "adbench_tgan": ROOT / "adbench_tgan",
    "adbench_plugins": ROOT / "plugins/adbench_plugins",
    "adbench_baselines": ROOT / "baselines/adbench_baselines",
}

LONGEST_FUNCTION, LONGEST_FILE = 60, 370  # lines

LAYERS = (  # bottom up; a module imports from its own layer or below
    """
    adbench_tgan errors text hooks interrupts codebase info detector checkpoints metrics timing machine training graphs
    builtins scoring statements torch_settings
    data cost.energy discovery.records discovery.sources ranking.statistics terminal.pace
    store.asking store.drafts store.listing store.places store.uploads workers.heads workers.mps workers.nursery
    """,
    """
    registry jobs again results audit_table describe testing audit scaffold
    cost.timing_board discovery.development ranking.published store.claims store.stored
    """,
    """
    runner failures leaderboard boards predict report events
    cost.speed ranking.comparison ranking.selection ranking.spreads store.keeping
    terminal.forecast terminal.progress terminal.views
    """,
    """
    executors tables benchmark audits
    cost.speeds store.sharing workers.clusters workers.packing workers.processes workers.worker
    """,
    "commands cli __main__",
)
LAYER = {name: height for height, names in enumerate(LAYERS) for name in names.split()}
PARTED = {
    name.partition(".")[0] for name in LAYER if "." in name
}  # packages whose modules are in several layers


def layer(module: str) -> int:
    """The layer of ``adbench_tgan.MODULE``: its own, else that of its package; empty packages are below all."""
    name = module.removeprefix("adbench_tgan.")
    if name in PARTED:
        return 0
    name = name if name in LAYER else name.partition(".")[0]
    assert name in LAYER, f"{module} has no layer yet: add it to the table of {Path(__file__).name}"
    return LAYER[name]


@cache
def modules(room: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    home = ROOMS[room].parent
    found = {}
    for path in sorted(ROOMS[room].rglob("*.py")):
        parts = path.relative_to(home).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path) -> Iterator[tuple[str, str]]:
    """The (module, name) pairs that a file imports, inside functions too; for type checkers only is left out."""
    return found_in(ast.parse(path.read_text()), module, path.name == "__init__.py")


def found_in(tree: ast.AST, module: str, package: bool) -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for rest in node.orelse:
                yield from found_in(ast.Module([rest], []), module, package)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) + package - node.level]
                source = ".".join([*above, source] if source else above)
            yield from ((source, alias.name) for alias in node.names)
        else:
            yield from found_in(node, module, package)


def our_imports(room: str) -> Iterator[tuple[str, str, str]]:
    """(importer, module, name) of the imports of a package that stay in this repository."""
    for module, path in modules(room).items():
        for source, name in imports(module, path):
            if source.partition(".")[0] in ROOMS:
                yield module, source, name


def target(source: str, name: str) -> str:
    """The module that ``from source import name`` reaches."""
    inner = f"{source}.{name}"
    return inner if inner in modules(source.partition(".")[0]) else source


def test_reader_of_imports_sees_those_in_functions_and_relative_ones() -> None:
    text = """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import left_out
        else:
            import taken
        from . import beside
        from ..above import thing
        class A:
            def f(self):
                try:
                    from deep import x
                finally:
                    import os.path
    """
    tree = ast.parse("\n".join(line[8:] for line in text.splitlines()))
    assert list(found_in(tree, "room.folder.module", False)) == [
        ("typing", "TYPE_CHECKING"),
        ("taken", ""),
        ("room.folder", "beside"),
        ("room.above", "thing"),
        ("deep", "x"),
        ("os.path", ""),
    ]


def test_every_module_has_a_layer() -> None:
    known = [layer(module) for module in modules("adbench_tgan")]
    assert len(known) > 30


def test_framework_imports_downwards_only() -> None:
    upwards = [
        f"{module} imports {target(source, name)}"
        for module, source, name in our_imports("adbench_tgan")
        if source.partition(".")[0] == "adbench_tgan" and layer(target(source, name)) > layer(module)
    ]
    assert upwards == []


@pytest.mark.parametrize("room", ROOMS)
def test_functions_and_files_are_short(room: str) -> None:
    for module, path in modules(room).items():
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST_FILE, f"{module} is too long: split it by noun"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines < LONGEST_FUNCTION, f"{module}.{node.name} has {lines} lines"


def test_framework_knows_no_method() -> None:
    assert [use for use in our_imports("adbench_tgan") if use[1].partition(".")[0] != "adbench_tgan"] == []


@pytest.mark.parametrize("room", ["adbench_baselines", "adbench_plugins"])
def test_methods_use_public_names_only(room: str) -> None:
    uses = [use for use in our_imports(room) if use[1].startswith("adbench_tgan")]
    private = [use for use in uses if use[1] != "adbench_tgan" or use[2] not in adbench_tgan.__all__]
    assert uses
    assert private == []


def test_no_paper_imports_another_paper() -> None:
    allowed = (
        "adbench_tgan",
        "adbench_baselines.layers",
        "adbench_baselines.latent_search",
        "adbench_baselines.skip_discriminator",
    )
    uses = [(module, target(source, name)) for module, source, name in our_imports("adbench_baselines")]
    assert ("adbench_baselines.ganomaly", "adbench_baselines.layers") in uses
    assert [use for use in uses if use[1] not in allowed] == []


def test_public_names_are_sorted_and_there() -> None:
    assert list(adbench_tgan.__all__) == sorted(adbench_tgan.__all__)
    assert [name for name in adbench_tgan.__all__ if not hasattr(adbench_tgan, name)] == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = adbench_tgan.nothing


QUICK = """
import json, sys
from adbench_tgan import cli
for words in ({words}):
    sys.argv = ["adbench", *words]
    try:
        cli.main()
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)
print()
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


@pytest.mark.parametrize(
    "code",
    [
        "import json, sys, adbench_tgan, adbench_plugins, adbench_baselines\nprint(json.dumps(sorted(sys.modules)))",
        QUICK.format(words="['--help'], ['list', 'detectors'], ['plugins', '--json'], ['--version']"),
    ],
    ids=["packages", "commands"],
)
def test_nothing_heavy_is_imported_to_list_detectors(code: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=True
    )
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))
    assert "adbench_tgan" in loaded
    assert loaded & {"torch", "torchvision", "anomalib", "pandas", "sklearn", "scipy", "timm"} == set()

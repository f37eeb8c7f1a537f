"""Modules imported by name, or by the path of a file that is not installed."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from adbench_tgan.errors import AdbenchError

# Files that this process has imported: by which import, and their hash then. A file may be edited while a program that has
# imported it, such as a notebook, goes on.
_seen: dict[Path, tuple[ModuleSpec, str]] = {}


def load_module(name: str) -> ModuleType:
    """Import ``package.module`` or ``path/to/file.py``.

    Raises:
        AdbenchError: a file is not there, or the name of its package is taken.
        Exception: whatever importing it raises.
    """
    module = load_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.has_location and spec.origin:
        path = Path(spec.origin).resolve()
        if _seen.get(path, (None, ""))[0] is not spec and path.is_file():  # none is in a zip
            _seen[path] = spec, digest(path.read_bytes())
    return module


def hash_of_file(path: Path) -> str:
    """A hash of a file as it was when this process imported it, or else as it is."""
    return _hash_when_imported(path) or digest(path.read_bytes())


def _hash_when_imported(path: Path) -> str:
    """Empty if the file was not imported, or was by something else since."""
    spec, found = _seen.get(path.resolve(), (None, ""))
    module = sys.modules.get(spec.name) if spec is not None else None
    return found if module is not None and module.__spec__ is spec else ""


def load_file(path: Path) -> ModuleType:
    """Import a file, as a member of its package where it lies in one; anew if it was edited since.

    The folder joins the end of `sys.path`: the file may import its neighbours, which hide nothing installed.
    """
    if not path.is_file():
        raise AdbenchError(f"{path} is not a file; give the path of a Python file")
    path = path.resolve()
    forget_bytecode(path)
    forget_edited(path)
    root, name = _home(path)
    search_last(root)
    spec = importlib.util.find_spec(name) if path.stem.isidentifier() else None
    if spec is not None and spec.origin and Path(spec.origin).resolve() == path:
        return importlib.import_module(name)
    if root != path.parent:  # inside a package
        raise AdbenchError(
            f"{path} cannot be imported as {name}: that is no valid name, or names another module; rename it"
        )
    return _import_apart(f"adbench_file_{name}_{digest(str(path).encode())}", path)


def forget_edited(path: Path) -> None:
    """Let a whole path's file be imported anew if it was edited since this process did."""
    if _hash_when_imported(path) not in ("", digest(path.read_bytes())):
        del sys.modules[_seen[path][0].name]


def forget_bytecode(path: Path) -> None:
    """Let a file be compiled anew: Python takes one that was edited within a second, to the same size, for the old one."""
    with suppress(OSError):
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def _home(path: Path) -> tuple[Path, str]:
    """The folder that has to be searched for a file, and the module's name from there."""
    root, names = path.parent, [path.stem]
    while (root / "__init__.py").exists():
        root, names = root.parent, [root.name, *names]
    return root, ".".join(names).removesuffix(".__init__")


def search_last(folder: Path) -> None:
    """Let modules be found in a folder, unless the name is found elsewhere."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()


def ensure_own_neighbours(path: Path, others: Iterable[Path]) -> None:
    """Raise `AdbenchError` if a file imports a neighbour and would get one that `others`, loaded before, have by its name."""
    root = _home(path)[0]
    folders = {_home(other)[0] for other in others} - {root}
    for name in _imported(path) if folders else ():  # of a single file nothing has to be read
        own, *theirs = ({folder / f"{name}.py", folder / name / "__init__.py"} for folder in (root, *folders))
        spec = importlib.util.find_spec(name) if any(file.is_file() for file in own) else None
        if spec is not None and spec.origin and Path(spec.origin).resolve() in set().union(*theirs):
            raise AdbenchError(
                f"{path} would import {spec.origin} instead of its neighbour of that name; rename one of them"
            )


def _imported(path: Path) -> Iterator[str]:
    """The outermost names that a file imports, but relatively; none where importing it will say why it cannot be."""
    with suppress(OSError, SyntaxError, ValueError):
        for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def _import_apart(name: str, path: Path) -> ModuleType:
    """Import a file whose own name is another module's under a name that is nobody's."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert isinstance(spec, ModuleSpec)
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def hash_of_module(name: str) -> str:
    """The file of ``package.module`` or ``path/to/file.py``, with a hash of it and not imported; empty if there is none.

    Of what was imported already as it was then, but for a path's file, which would be imported anew.
    """
    try:
        if name.endswith(".py"):
            return f"{Path(name).name} {digest(Path(name).read_bytes())}"
        spec = importlib.util.find_spec(name)
        path = spec.origin if spec is not None else None
        return f"{Path(path).name} {hash_of_file(Path(path))}" if path else ""
    except Exception:  # importing its package may raise anything, and says so where it matters
        return ""


def digest(data: bytes) -> str:
    """A short name for some bytes."""
    return hashlib.sha256(data).hexdigest()[:8]

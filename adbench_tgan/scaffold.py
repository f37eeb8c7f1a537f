"""Writes the project of a new plugin from the templates that are shipped with this package."""

from __future__ import annotations

import keyword
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from string import Template

from adbench_tgan import __version__
from adbench_tgan.errors import AdbenchError, unwritable

LONGEST = 33  # letters of a name: longer ones break the lines of the templates
SUFFIX = ".tmpl"


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the templates fill in."""

    distribution: str  # as pip knows it
    package: str  # as Python imports it
    detector: str  # as adbench lists it
    cls: str
    adbench: str = __version__


def names_of(distribution: str, taken: Collection[str]) -> Names:
    """The names in a new project; `taken` are the detectors that there are.

    Raises:
        AdbenchError: no distribution, module or detector can have that name.
    """
    if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?", distribution):
        raise AdbenchError(
            f"{distribution!r} cannot name a distribution; use letters, digits and single -, such as adbench-mine"
        )
    if len(distribution) > LONGEST:
        raise AdbenchError(f"{distribution!r} is longer than {LONGEST} letters; choose a shorter name")
    package = re.sub(r"[-_.]+", "_", distribution).lower()
    detector = package.removeprefix("adbench_")
    stem = "".join(part.capitalize() for part in detector.split("_")).removesuffix("Detector")
    names = Names(
        distribution=distribution, package=package, detector=detector, cls=f"{stem or 'My'}Detector"
    )
    _check_free(names, taken)
    return names


def _check_free(names: Names, taken: Collection[str]) -> None:
    if keyword.iskeyword(names.package) or names.package == "tests" or _is_a_module(names.package):
        raise AdbenchError(
            f"{names.distribution!r} would be imported as {names.package!r}, which is taken or reserved; "
            "choose another name"
        )
    if not names.detector.isidentifier():
        raise AdbenchError(
            f"{names.detector!r} cannot name a detector: it starts with a digit; choose another name"
        )
    if names.detector in taken:
        raise AdbenchError(f"there is a detector {names.detector!r} already; choose another name")


def _is_a_module(name: str) -> bool:
    spec = find_spec(name)
    return spec is not None and spec.origin is not None  # a folder without __init__.py is none


def write_plugin(names: Names, parent: Path) -> Path:
    """Write the project into a new folder of `parent`, in one step: the whole project, or nothing.

    Raises:
        AdbenchError: the folder is there already.
        StoreError: it cannot be written.
    """
    target = parent / names.distribution
    if target.exists() or target.is_symlink():
        raise AdbenchError(f"{target} is there already; choose another name, or another folder with --out")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{names.distribution}-", dir=parent))
        try:
            _fill(names, draft)
            draft.chmod(0o755)  # a temporary folder is its owner's alone
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise unwritable(target, error) from None
    return target


def _fill(names: Names, folder: Path) -> None:
    for place, text in templates():
        path = folder / place.replace("PACKAGE", names.package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text).substitute(asdict(names)), encoding="utf-8")


def templates() -> Iterator[tuple[str, str]]:
    """The path in the project, with ``PACKAGE`` for the package's name, and the text of each template."""
    yield from _walk(files("adbench_tgan") / "templates" / "plugin", "")


def _walk(folder: Traversable, place: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = re.sub("^dot_", ".", entry.name)  # wheels are built without names that start with a dot
        if entry.is_dir():
            yield from _walk(entry, f"{place}{name}/")
        elif name.endswith(SUFFIX):
            yield place + name.removesuffix(SUFFIX), entry.read_text(encoding="utf-8")

"""Detectors that no plugin offers: pointed at as ``module:Class``, ``path.py:Class`` or ``path.py``."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from adbench_tgan.discovery.sources import hash_of_file, hash_of_module, search_last
from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import load
from adbench_tgan.info import DetectorInfo

if TYPE_CHECKING:
    from adbench_tgan.detector import Detector


def is_word(name: str) -> bool:
    """Whether a detector's name is none, but says where to find it: ``module:Class`` or ``path.py[:Class]``."""
    return ":" in name or name.endswith(".py")


def points(word: str) -> bool:
    """Whether a word is ``path.py[:Class]`` or, of a module that can be imported, ``module:Class``; not ``detector:preset``."""
    place, _, name = word.partition(":")
    if place.endswith(".py"):
        return True
    if not (name.isidentifier() and name[0].isupper()):
        return False
    search_last(Path.cwd())
    package = place.partition(".")[0]
    return package.isidentifier() and importlib.util.find_spec(package) is not None


def find_detector(word: str) -> type[Detector]:
    """The class that ``module:Class``, ``path.py:Class``, or ``path.py`` with one detector in it, names.

    Raises:
        AdbenchError: it cannot be imported, or holds no such detector, or several and none is named.
    """
    from adbench_tgan.torch_settings import settings_kept

    with settings_kept():
        if word.endswith(".py"):
            return _only(word, detectors_in(load(word)))
        search_last(Path.cwd())  # a package may be tried out before it is installed
        return detector_class(word, load(word, "check its spelling, and that the module is installed"))


def import_kept(path: Path) -> AbstractContextManager[Any]:
    """Put back at the end what a file turns in torch's settings; torch is only imported if the file names it."""
    if b"torch" not in path.read_bytes():
        return nullcontext()
    from adbench_tgan.torch_settings import settings_kept

    return settings_kept()


def detector_class(name: str, found: object) -> type[Detector]:
    """What a detector's name or target leads to, once it is known to be one.

    Raises:
        AdbenchError: it is something else, or does not implement all that it must.
    """
    from adbench_tgan.detector import Detector

    if not (isinstance(found, type) and issubclass(found, Detector)):
        raise AdbenchError(
            f"detector {name!r} is {found!r}, not a subclass of adbench_tgan.Detector; derive the class from it"
        )
    if inspect.isabstract(found):
        missing = " and ".join(sorted(found.__abstractmethods__))
        raise AdbenchError(
            f"detector {name!r} cannot be created: {found.__name__} lacks {missing}; implement it"
        )
    return found


def _only(word: str, found: list[type[Detector]]) -> type[Detector]:
    if not found:
        raise AdbenchError(f"{word} defines no subclass of adbench_tgan.Detector with a score; write one")
    if len(found) > 1:
        choices = " or ".join(f"{word}:{one.__name__}" for one in found)
        raise AdbenchError(f"{word} defines {len(found)} detectors; name one: {choices}")
    return found[0]


def detectors_in(module: ModuleType) -> list[type[Detector]]:
    """The detectors that a module defines itself; names with an underscore before them are its own business."""
    from adbench_tgan.detector import Detector

    return [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Detector)
        and value.__module__ == module.__name__
        and not (inspect.isabstract(value) or name.startswith("_"))
    ]


def info_of(detector: type[Detector]) -> DetectorInfo:
    """The record of a detector that no plugin offers: named by its class, versioned by its file.

    Raises:
        AdbenchError: it is in no file, but was typed into a notebook or at a prompt.
    """
    try:
        path = Path(inspect.getfile(detector)).resolve(strict=True)
    except (OSError, TypeError) as error:
        name = detector.__name__
        raise AdbenchError(
            f"{name} is in no file, whose hash its results would have; write it into one, in a notebook by "
            f"%%writefile {snake_case(name)}.py, and name {snake_case(name)}.py"
        ) from error
    return DetectorInfo(
        name=snake_case(detector.__name__), target=f"{path}:{detector.__name__}", version=version_of(path)
    )


def version_of(path: Path) -> str:
    """Changes with every edit of a file, so that results of what it was before count as absent."""
    return f"dev {path.name} {hash_of_file(path)}"


def version_beside(info: DetectorInfo, path: Path) -> str:
    """A record's version that also changes with every edit of the file that offers it, and of that which holds it."""
    return f"{info.version} {with_holder(version_of(path), info.target)}"


def with_holder(offering: str, target: str) -> str:
    """What offers something, and the file that holds it with a hash, where that is another."""
    holding = hash_of_module(target.rpartition(":")[0])
    return offering if holding in offering else f"{offering}, {holding}"


def is_of_file(version: str) -> bool:
    """Whether a detector's version is that of a file that is not installed."""
    return "dev " in version


def snake_case(name: str) -> str:
    """``MeanImage`` -> ``mean_image``, ``PCA`` -> ``pca``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def shown(path: Path) -> str:
    """A path as the user would write it: from the working folder where it is below."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)

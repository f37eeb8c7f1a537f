"""What is there: files and objects by a pattern, and an error where that cannot be found out."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from adbench_tgan.store.places import ABSENT, answering, is_remote, name_of, reading, system_of

NOTHING = re.compile(r"(?!)")


def found(folder: Path, pattern: str) -> list[str]:
    """The names in a folder that match a pattern, as they were at one moment.

    Raises:
        StoreError: it cannot be listed.
    """
    if is_remote(folder):
        return [path.name for path in _objects(folder, [pattern])]
    return [os.path.basename(path) for path in _inside(str(folder), pattern)]


def listed(root: Path, pattern: str, besides: re.Pattern[str] = NOTHING) -> dict[Path, str]:
    """What matches a pattern below `root`, each with what changes whenever it is written.

    `besides` are folders in `root` that are not looked into, since others may have closed them. Folders may come and
    go meanwhile, which pathlib's glob does not bear; and it leaves out silently what cannot be listed.

    Raises:
        StoreError: a folder cannot be listed.
    """
    shape = pattern.split("/")
    if is_remote(root):
        return _objects(root, shape)
    names = [name for name in _inside(str(root), shape[0]) if not besides.fullmatch(os.path.basename(name))]
    for part in shape[1:]:
        names = [name for folder in names for name in _inside(folder, part)]
    stamps = {}
    for name in names:
        with suppress(*ABSENT), reading(Path(name)):
            stamps[Path(name)] = str(os.lstat(name).st_mtime_ns)
    return stamps


def _inside(folder: str, pattern: str) -> list[str]:
    """What matches in a folder; a name that is no pattern matches without a look."""
    if "*" not in pattern:
        return [os.path.join(folder, pattern)]
    with suppress(*ABSENT), reading(Path(folder)), os.scandir(folder) as entries:
        return [entry.path for entry in entries if fnmatch.fnmatchcase(entry.name, pattern)]
    return []


def _objects(root: Path, shape: Sequence[str]) -> dict[Path, str]:
    """As `listed`, by one listing of all that is there: a glob asks for each folder, and passes over errors."""
    top = name_of(root).strip("/") + "/"
    there: Mapping[str, Any] = {}
    with suppress(*ABSENT), reading(root), answering():
        there = system_of(root).find(name_of(root), detail=True)
    stamps = {}
    for name, facts in there.items():
        parts = name.strip("/").removeprefix(top).split("/")
        if len(parts) == len(shape) and all(map(fnmatch.fnmatchcase, parts, shape)):
            stamps[root.joinpath(*parts)] = str(facts)
    return stamps

"""A board that is published anew while it is read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from adbench_tgan.terminal.pace import silent

Made = TypeVar("Made")


def settled(path: Path, act: Callable[[], Made], say: Callable[[str], None] = silent) -> Made:
    """What `act` makes of the board in a folder, all of it one publication's: where another came meanwhile, once more.

    `say` is told of that. Raises what `act` raises of files that nobody has replaced.
    """
    while True:
        before = _publication(path)
        try:
            made = act()
        except Exception:
            if _publication(path) == before:
                raise
        else:
            if _publication(path) == before:
                return made
        say(f"{path}: was published anew meanwhile; once more")


def _publication(path: Path) -> tuple[int, int] | None:
    """What tells a publication from others; None if there is none."""
    with suppress(OSError):
        found = (path / "board.json").stat()
        return found.st_ino, found.st_mtime_ns
    return None

"""How commands print: records as tables or JSON, remarks to the standard error stream."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from adbench_tgan.text import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


FOLDED = 11  # width of settings, and of weights, on a narrow terminal


class Aside:
    """Stands for the standard output while JSON is asked for: what is printed goes to the standard error."""

    def __init__(self, behind: TextIO):
        self.behind = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


@contextmanager
def descriptor_aside() -> Iterator[None]:
    """Leave the process's standard output to `sys.stdout`, until this ends: what other programs print goes to the error stream.

    What is printed after that, at the process's end, goes there too.
    """
    with os.fdopen(os.dup(1), "w") as kept:
        os.dup2(2, 1)
        sys.stdout = kept
        try:
            yield
        finally:
            sys.stdout = sys.stderr


@contextmanager
def answering(*, in_json: bool) -> Iterator[None]:
    """Leave the standard output to `answer` alone if JSON is asked for: plugins and libraries print as they like."""
    if not in_json:
        yield
        return
    with redirect_stdout(Aside(sys.stdout)):
        yield


def answer(facts: Any) -> None:
    """Print JSON to the standard output."""
    print(json.dumps(facts, indent=1), file=getattr(sys.stdout, "behind", sys.stdout))


def show(records: list[dict[str, Any]], title: str, spare: tuple[str, ...] = ()) -> None:
    """Print records as a table, on narrow terminals without the columns `spare`; beyond their width if the others take it."""
    from rich.console import Console

    from adbench_tgan.terminal.views import least_width, records_view

    width = wide_console().width
    view = records_view(records, title, width, spare)
    fold(view, FOLDED)
    width = max(least_width(view), width)
    fold(view, None)
    Console(width=width).print(view)


def wide_console() -> Console:
    """The standard output; no table is folded for a file or a pipe unless ``COLUMNS`` says how wide it is."""
    from rich.console import Console

    columns = os.environ.get("COLUMNS", "")
    wide = int(columns) if columns.isdecimal() and int(columns) else 200
    return Console(width=None if sys.stdout.isatty() else wide)


def draw(view: Table) -> None:
    """Print a leaderboard. On a terminal too narrow for it, settings are folded, then lines broken, but no name cut."""
    from rich.console import Console

    from adbench_tgan.terminal.views import least_width

    width = wide_console().width
    if least_width(view) > width:
        fold(view, FOLDED)
    Console(width=max(least_width(view), width)).print(view)


def fold(view: Table, width: int | None) -> None:
    """Let a table's columns be no wider than that, but for names and numbers, which are whole."""
    for column in view.columns:
        column.max_width = None if column.no_wrap else width


def tell(message: str) -> None:
    """Print a line to the standard output."""
    print(plain(message))


def warn(message: str) -> None:
    """Print a line to the standard error stream."""
    print(plain(message), file=sys.stderr)


def fail(message: str, status: int = 2) -> NoReturn:
    """End with one line that says what is wrong."""
    warn(f"adbench: {message}")
    raise SystemExit(status)

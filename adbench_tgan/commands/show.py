"""How commands print: records as tables or JSON, remarks to the standard error stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from adbench_tgan.text import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from adbench_tgan.registry import Registry


class Aside:
    """Stands for the standard output while JSON is asked for: what is printed goes to the standard error."""

    def __init__(self, behind: TextIO):
        self.behind = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


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


def show(records: list[dict[str, Any]], as_json: bool, title: str, only: tuple[str, ...] = ()) -> None:
    """Print records as JSON, or as a table of the columns `only`."""
    if as_json:
        answer(records)
        return
    from adbench_tgan.views import records_view

    if only:
        records = [{key: record[key] for key in only if key in record} for record in records]
    wide_console().print(records_view(records, title))


def wide_console() -> Console:
    """The standard output; no table is folded for a file or a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200)


def draw(view: Table) -> None:
    """Print a leaderboard, at least as wide as its words and numbers take: a narrow terminal breaks lines, not cells."""
    from rich.console import Console
    from rich.measure import Measurement

    endless = Console(width=10_000)
    least = Measurement.get(endless, endless.options, view).minimum
    Console(width=max(least, wide_console().width)).print(view)


def tell(message: str) -> None:
    """Print a line to the standard output."""
    print(plain(message))


def warn(message: str) -> None:
    """Print a line to the standard error stream."""
    print(plain(message), file=sys.stderr)


def warn_of_broken(found: Registry) -> None:
    """A line for each plugin that offers less than it should."""
    for plugin in found.plugins():
        if plugin.error:
            warn(f"plugin {plugin.origin} is broken: {plugin.error}")


def fail(message: str, status: int = 2) -> NoReturn:
    """End with one line that says what is wrong."""
    warn(f"adbench: {message}")
    raise SystemExit(status)

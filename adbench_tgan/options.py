"""The options that several commands share, how their texts are read, and how the shell completes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adbench_tgan.errors import AdbenchError

if TYPE_CHECKING:
    from adbench_tgan.registry import Registry


def registry() -> Registry:
    """The installed plugins, found anew."""
    from adbench_tgan.registry import Registry

    return Registry.discover()


def complete(kind: str, *, several: bool = True) -> Any:
    """A shell completion of registered names, also after a comma."""

    def names(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [f"{before}{comma}{name}" for name in registry().names(kind) if name.startswith(last)]

    return names


Json = Annotated[bool, typer.Option("--json", help="Print JSON to the standard output.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the dataset, or will.  [default: $ADBENCH_DATA, else ./data]"),
]
Protocol = Annotated[
    str | None,
    typer.Option(help="How to cut it.  [default: the dataset's own]", autocompletion=complete("protocol")),
]
Categories = Annotated[str | None, typer.Option(help="Names, with commas between.  [default: all]")]
Data = Annotated[
    str, typer.Option(help="The dataset's name.", autocompletion=complete("dataset", several=False))
]
Preset = Annotated[
    str | None,
    typer.Option(help="paper, quick or tuned.  [default: the dataset's own: quick for digits, else paper]"),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="DETECTOR.KEY=VALUE; may be given several times.")
]


def root(given: Path | None) -> Path:
    """Where datasets are: the option, else ``$ADBENCH_DATA``, else ``data``."""
    return given if given is not None else Path(os.environ.get("ADBENCH_DATA") or "data")


def split(text: str, option: str) -> list[str]:
    """The names in a list with commas."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise AdbenchError(f"{option} is empty; give names with commas between")
    return names


def whole(text: str, option: str) -> int:
    """A number in an option, from 0 to what NumPy takes as a seed."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise AdbenchError(f"{option}: {text!r} is not a whole number from 0 to 4294967295")
    return int(text)

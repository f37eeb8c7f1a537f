"""``adbench check``: whether a detector keeps the contract, check by check."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any

import typer

from adbench_tgan.commands.options import Json, Plugins, Set, complete, registry
from adbench_tgan.commands.show import answer, warn
from adbench_tgan.errors import AdbenchError
from adbench_tgan.interrupts import as_ctrl_c


def check(
    detector: Annotated[
        str,
        typer.Argument(
            help="A name, module:Class, or path.py.", autocompletion=complete("detector", several=False)
        ),
    ],
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper, quick, or another that the detector has.  [default: quick if it has one, else paper]"
        ),
    ] = None,
    set_: Set = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CxHxW",
            help="Shape of the test images; repeatable.  [default: grey and RGB, of the detector's image_size]",
        ),
    ] = None,
    labelled: Annotated[
        bool,
        typer.Option(
            "--labelled", help="The class learns from labelled anomalies; for a class that is not registered."
        ),
    ] = False,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="The class gives the same scores for every seed; for a class that is not registered.",
        ),
    ] = False,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Run the conformance checks on a detector. Prints a line per check and how many ran; exit status 1 if one failed."""
    from adbench_tgan.testing import examine, subject

    shapes = tuple(shape_of(text) for text in shape) if shape else None
    settings, offered, word = settings_of(set_ or []), None, detector
    if plugin:
        found = registry(plugin)
        offered, word = found.find("detector", detector), found.word(detector)
    named = subject(word, info=offered, preset=preset).info
    check_names(set_ or [], (detector, named.name, *named.aliases))
    who = subject(word, info=offered, preset=preset, settings=settings)
    supervision = "labelled" if labelled else who.info.supervision
    info = replace(who.info, supervision=supervision, deterministic=deterministic or who.info.deterministic)
    who = replace(who, info=info)
    with as_ctrl_c():
        report = examine(who, shapes, say=(lambda outcome: warn(str(outcome))) if as_json else print)
    if as_json:
        answer(report.as_json())
    else:
        print(report)
    raise typer.Exit(1 if report.failed else 0)


def shape_of(text: str) -> tuple[int, int, int]:
    """Channels, height and width."""
    if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){2}", text):
        raise AdbenchError(f"--shape {text}: write it as CHANNELSxHEIGHTxWIDTH, such as 3x32x32")
    channels, height, width = map(int, text.split("x"))
    return channels, height, width


def settings_of(overrides: list[str]) -> dict[str, Any]:
    """What ``--set DETECTOR.KEY=VALUE`` asks for; there is one detector, so that ``KEY=VALUE`` will do."""
    found = {}
    for override in overrides:
        path, equals, value = override.partition("=")
        if not equals:
            raise AdbenchError(f"--set {override}: write it as DETECTOR.KEY=VALUE or KEY=VALUE")
        found[path.rpartition(".")[2]] = value
    return found


def check_names(overrides: list[str], names: tuple[str, ...]) -> None:
    """Refuse a ``--set`` of another detector than the one that has these names."""
    for override in overrides:
        name, dot, _ = override.partition("=")[0].rpartition(".")
        if dot and name not in names:
            raise AdbenchError(f"--set {override}: {names[1]} is checked; write {names[1]}.KEY=VALUE")

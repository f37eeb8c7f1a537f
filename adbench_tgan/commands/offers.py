"""``adbench list``, ``plugins`` and ``info``: what is installed, and what is known of it."""

from __future__ import annotations

from typing import Annotated

import typer

from adbench_tgan.commands.options import Data, Json, Plugins, Preset, Set, complete, registry
from adbench_tgan.commands.show import answer, show, warn

KINDS = ("detectors", "datasets", "protocols", "metrics", "executors")
SHOWN = "name family supervision pretrained layout protocol level version summary paper plugin".split()
OF_PLUGIN = "origin distribution version status hooks import_ms error".split()


def list_(
    kind: Annotated[
        str, typer.Argument(help=", ".join(KINDS) + ".", autocompletion=lambda: list(KINDS))
    ] = "detectors",
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """List what is registered."""
    from dataclasses import asdict

    from adbench_tgan.errors import unknown

    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    found = registry(plugin)
    offers = found.offers(kind.removesuffix("s"))
    records = [asdict(record) | {"plugin": origin} for record, origin in offers]
    if as_json:
        answer(records)
    else:
        lines = [{name: record[name] for name in SHOWN if name in record} for record in records]
        show(lines, kind, spare=("paper", "plugin"))


def plugins(plugin: Plugins = None, as_json: Json = False) -> None:
    """List the plugins, broken ones too. Shows their hooks and import times."""
    found = registry(plugin, quiet=True).plugins()
    records = [{name: getattr(each, name) for name in OF_PLUGIN} for each in found]
    if as_json:
        answer(records)
    else:
        show(records, "plugins", spare=("import_ms", "distribution"))


def info(
    detector: Annotated[str, typer.Argument(autocompletion=complete("detector", several=False))],
    data: Data = "cifar10",
    preset: Preset = None,
    set_: Set = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Show a detector: its paper, settings and parameters. Parameters are counted for a dataset's images."""
    from adbench_tgan.describe import describe_detector
    from adbench_tgan.jobs import Request, check_overrides, entry
    from adbench_tgan.terminal.views import text_of

    found = registry(plugin)
    check_overrides(Request(detectors=[detector], overrides=set_ or ()), found)
    dataset = found.find("dataset", data)
    each = entry(found, detector, preset or dataset.preset, set_ or (), warn)
    card = describe_detector(each, dataset) | {"plugin": found.origin(each.info)}
    if as_json:
        answer(card)
        return
    config, counts = card.pop("config"), card.pop("parameters")
    show([{"": key, " ": value} for key, value in card.items()], each.info.name)
    settings = [
        {"setting": key} | {name: text_of(value) for name, value in fields.items()}
        for key, fields in config.items()
    ]
    show(settings, "settings (--set)")
    rows = [{"network": key, "parameters": count} for key, count in counts.items()]
    show(rows, f"parameters on {data}")

"""``adbench data``: look at a dataset, or bring it here."""

from __future__ import annotations

from typing import Annotated

import typer

from adbench_tgan.commands.options import (
    Categories,
    DataRoot,
    Json,
    Plugins,
    Protocol,
    complete,
    registry,
    root,
    split,
    tasks_of,
)
from adbench_tgan.commands.show import answer, show, tell, warn

# Columns that narrow terminals do without, the first of them first.
SPARE = ("chance_average_precision", "masks", "chance_f1", "labelled_on_offer", "prevalence")


def info(
    name: Annotated[str, typer.Argument(autocompletion=complete("dataset", several=False))],
    data_root: DataRoot = None,
    protocol: Protocol = None,
    categories: Categories = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Print a dataset's passport. Shows sizes, prevalence, chance levels and fingerprint of each category."""
    from adbench_tgan.describe import passports
    from adbench_tgan.terminal.progress import TerminalReporter

    tasks = tasks_of(registry(plugin), name, data_root, protocol, fetch=False)
    chosen = split(categories, "--categories") if categories is not None else tasks.categories
    with TerminalReporter() as reporter:
        cards = passports(tasks, tuple(map(tasks.named, chosen)), reporter.reading)
    good = [card for card in cards["categories"] if "error" not in card]
    status = 0 if len(good) == len(cards["categories"]) else 1
    if as_json:
        answer(cards)
        raise typer.Exit(status)
    for key in ("summary", "source", "licence"):
        tell(f"{key}: {cards['dataset'][key] or 'not stated'}")
    tell(
        f"protocol: {cards['protocol']['name']} version {cards['protocol']['version']}: {cards['protocol']['summary']}"
    )
    tell(f"found: {cards['note']}")
    lines = [card | {"fingerprint": card["fingerprint"][:12]} for card in good]  # whole in --json
    for line in lines:
        del line["notes"]  # sentences, which follow the table
    show(lines, name, spare=SPARE)
    for card in good:
        for note in card["notes"]:
            tell(f"{card['category']}: {note}")
    for card in cards["categories"]:
        if "error" in card:
            warn(f"{card['category']}: {card['error']}")
    raise typer.Exit(status)


def fetch(
    name: Annotated[str, typer.Argument(autocompletion=complete("dataset", several=False))],
    data_root: DataRoot = None,
    plugin: Plugins = None,
) -> None:
    """Download and verify a dataset, unless it is here already."""
    tasks = tasks_of(registry(plugin), name, data_root, None, fetch=True)
    tell(f"{name} is in {root(data_root)}: {tasks.note}")

"""Latencies that ``adbench bench`` measured, for the detectors of a page that it measured with the same settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from adbench_tgan.boards.verify import MISREAD
from adbench_tgan.cost.timing_board import Record, derived, parse, seal_of
from adbench_tgan.errors import AdbenchError
from adbench_tgan.report.material import Material
from adbench_tgan.store.places import read_bounded
from adbench_tgan.store.stored import LARGEST
from adbench_tgan.text import plain

MEASURED = ["latency_ms_p50", "images_per_second"]  # as a leaderboard has them too
EPOCHS = re.compile(r"; epochs=[^;]*")  # in a preset; of training alone, which adbench bench cuts short too


@dataclass(frozen=True, kw_only=True)
class Times:
    """What of a timing board is of a page's rows."""

    name: str  # of its folder
    device: str
    rows: pd.DataFrame  # of the page's leaderboard, those that were timed, with `MEASURED` from there


def times_of(folder: Path, material: Material) -> Times:
    """The times of a page's rows: of the same detector, version, settings, precision and number of parameters.

    Epochs may be others, since the weights do not change how long a network takes.

    Raises:
        AdbenchError: the folder holds no times, or they are damaged.
    """
    device, timed = measured(folder)
    lines, found = material.leaderboard, {}
    sizes = dict(zip(lines["entry"], lines["parameters"], strict=True))
    entries = dict(zip(material.results["key"], material.results["entry"], strict=True))
    for job in material.jobs:
        record = timed.get(_settings(asdict(job)))
        entry = entries.get(job.key)
        # Images of other channels, and of memories of more images, have other numbers of parameters.
        if record and entry and record["parameters"] == sizes[entry]:
            found[entry] = record
    rows = lines[lines["entry"].isin(found)].copy()
    for column in MEASURED:
        rows[column] = [float(found[entry][column]) for entry in rows["entry"]]
    return Times(name=plain(folder.resolve().name), device=plain(device), rows=rows)


def measured(folder: Path) -> tuple[str, dict[tuple[str, ...], Record]]:
    """The device of a timing board, and what its samples say of each detector, by its settings."""
    file = folder / "timing.json"
    if not file.is_file():
        raise AdbenchError(f"{folder} holds no times; give --timing a folder that adbench bench --out wrote")
    try:
        board = parse(read_bounded(file, LARGEST))
        good = [record for record in board.records if not record["error"]]
        found = {_settings(each): {"parameters": each["parameters"], **derived(each)} for each in good}
    except MISREAD:
        raise AdbenchError(
            f"{file} cannot be read; adbench verify {folder} says what does not match"
        ) from None
    if any(each.get("seal", seal_of(each)) != seal_of(each) for each in good):  # older records have none
        raise AdbenchError(
            f"{file} was changed after it was measured; adbench verify {folder} says what does not match"
        )
    return str(board.facts.get("device", "")), {
        settings: record for settings, record in found.items() if None not in map(record.get, MEASURED)
    }


def _settings(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What of a record, or of a job, must be the same."""
    preset = EPOCHS.sub("", facts["preset"])
    return facts["detector"], preset, facts["precision"], facts["detector_version"]

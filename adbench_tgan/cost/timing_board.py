"""A timing board: ``timing.json`` with all samples, and the table and page that follow from it. No torch needed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adbench_tgan.results import write_atomically
from adbench_tgan.text import cell, plain

SCHEMA = 2  # 1 had no max_batch
COLUMNS = (
    "detector preset pretrained precision image_size channels weights latency_ms_p50 latency_ms_p95 latency_ms_p99 "
    "wall_ms_p50 wall_ms_p95 wall_ms_p99 samples max_batch best_batch images_per_second memory_mb_batch_1 peak_memory_mb "
    "parameters flops_per_image watts joules_per_image device machine detector_version key "
    "adbench_version error"
).split()
TITLE = "# Timing on "
FIRST = {"README.md": TITLE, "timing.csv": ",".join(COLUMNS[:3]), "timing.json": "{"}  # how files begin
TEXTS = "detector preset precision key error".split()  # of each record: they name and order it
NEEDED = {50: 5, 95: 20, 99: 100}  # samples under which a percentile is not given
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Board:
    """What was measured on one machine. `machine` is its fingerprint: hardware, driver and versions."""

    facts: Mapping[str, Any]
    machine: str
    records: tuple[Record, ...] = ()


def fingerprint(facts: Mapping[str, Any]) -> str:
    """A hash of what a machine is."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal_of(record: Record) -> str:
    """A hash of all else that a record holds."""
    return fingerprint({name: value for name, value in record.items() if name != "seal"})


def derived(record: Record) -> Record:
    """What of a record follows from its samples."""
    best = max(record["batches"], key=lambda line: float(line["images_per_second"] or 0))
    return {
        **percentiles("latency_ms", record["latency_samples_ms"]),
        **percentiles("wall_ms", record["wall_samples_ms"]),
        "samples": len(record["latency_samples_ms"]),
        "best_batch": best["batch"],
        "images_per_second": best["images_per_second"],
        "peak_memory_mb": best["peak_memory_mb"],
    }


def percentiles(name: str, samples: Sequence[float]) -> dict[str, float | None]:
    """The 50th, 95th and 99th percentile; None where there are too few samples to tell."""
    return {
        f"{name}_p{q}": float(np.percentile(samples, q)) if len(samples) >= needed else None
        for q, needed in NEEDED.items()
    }


def parse(data: bytes) -> Board:
    """A board out of ``timing.json``.

    Raises:
        ValueError, KeyError, TypeError: it is damaged, or of another schema.
    """
    content = json.loads(data)
    if (schema := content["schema"]) != SCHEMA:
        reason = "upgrade to read it" if type(schema) is int and schema > SCHEMA else "measure again"
        raise ValueError(f"it has schema {schema!r:.100}, and this adbench-tgan reads {SCHEMA}: {reason}")
    board = Board(facts=content["facts"], machine=content["machine"], records=tuple(content["records"]))
    known = isinstance(board.facts, dict) and isinstance(board.machine, str)
    if not known or not all(map(_is_named, board.records)):
        raise ValueError("a record or its machine lacks fields that name it")
    return board


def _is_named(record: object) -> bool:
    return isinstance(record, dict) and all(isinstance(record.get(name), str) for name in TEXTS)


def with_record(board: Board, record: Record) -> Board:
    """The board with a record, in place of an earlier one of its key; sorted by name."""
    others = [kept for kept in board.records if kept["key"] != record["key"]]
    names = ("detector", "preset", "precision", "key")
    ordered = sorted([*others, record], key=lambda line: [line[name] for name in names])
    return replace(board, records=tuple(ordered))


def write_board(board: Board, out: Path) -> None:
    """Write the page, the table and last what they follow from."""
    for name, text in files_of(board).items():
        write_atomically(out / name, text)


def files_of(board: Board) -> dict[str, str]:
    """The files of a board by name; the others are made from what ``timing.json`` says once it is read again."""
    # A record that has a seal keeps it: what was edited after it was measured is not vouched for anew.
    records = [{"seal": seal_of(record), **record} for record in board.records]
    content = {"schema": SCHEMA, "machine": board.machine, "facts": board.facts, "records": records}
    text = json.dumps(content, indent=1, sort_keys=True, default=str) + "\n"
    kept = parse(text.encode())
    return {"README.md": readme(kept), "timing.csv": table(kept.records), "timing.json": text}


def table(records: Sequence[Record]) -> str:
    """``timing.csv``: a row a detector; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in record.items()} for record in records)
    return text.getvalue()


def readme(board: Board) -> str:
    """The board for people: fastest first, the machine, and what the numbers mean."""
    good = sorted((r for r in board.records if not r["error"]), key=lambda r: float(r["latency_ms_p50"]))
    lines = [
        f"{TITLE}{board.facts['device']}",
        "",
        "Made by `adbench bench`. All rows are of one machine with one set of versions; times of other machines do not",
        "compare. Each column is explained in the dictionary of columns, `leaderboards/README.md`.",
        "",
        "| detector | preset | ms/image p50 | p95 | p99 | images/s | at batch, of at most | peak MiB | GFLOP/image | parameters | J/image | weights |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    lines += [_readme_line(record) for record in good]
    failed = [
        f"* `{in_table(r['detector'])}` failed: {in_table(r['error'])}" for r in board.records if r["error"]
    ]
    lines += ["", *failed] if failed else []
    lines += ["", "## The machine", ""]
    lines += [f"* {name}: {in_table(value)}" for name, value in board.facts.items() if name != "versions"]
    versions = dict(board.facts.get("versions") or {})
    lines += [f"* {name} {number}" for name, number in versions.items() if number]
    return "\n".join([*lines, f"* fingerprint `{board.machine}`", ""])


def _readme_line(record: Record) -> str:
    gflops = record["flops_per_image"] / 1e9
    precision = "" if record["precision"] == "fp32" else f"; precision={record['precision']}"
    cells = [
        f"`{in_table(record['detector'])}`",
        in_table(record["preset"] + precision),
        *(_number(record[f"latency_ms_p{q}"], ",.3f") for q in (50, 95, 99)),
        _number(record["images_per_second"], ",.0f"),
        f"{record['best_batch']} of {record['max_batch']}",
        _number(record["peak_memory_mb"], ",.0f"),
        _number(gflops, ",.4g"),
        _number(record["parameters"], ",d"),
        _number(record["joules_per_image"], ".3g"),
        record["weights"],
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def in_table(value: Any) -> str:
    """A printable text that a table of Markdown cannot misread."""
    return plain(str(value).replace("\n", " ")).replace("|", "\\|").replace("<", "&lt;")

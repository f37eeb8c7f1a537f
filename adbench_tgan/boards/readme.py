"""A board's ``README.md``: the table as a forge shows it, and how to run, publish and check it again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from adbench_tgan.again import joined
from adbench_tgan.boards.board import RULES, Board
from adbench_tgan.boards.picture import DIAGRAM, INTERVALS, Picture
from adbench_tgan.codebase import shown_code, shown_cpu
from adbench_tgan.ranking.statistics import p_floor
from adbench_tgan.text import counted, in_digits, marked, plain

WIDE = 20  # categories that stand side by side; of more, each has a line
SPECIAL = re.compile(r"([\\`*\[\]<>&|~!#])")


def cell(text: Any) -> str:
    """Any text as one printable cell of a Markdown table: nothing in it is markup, HTML or a formula."""
    return SPECIAL.sub(r"\\\1", marked(plain(" ".join(str(text).split()))))


def readme(board: Board, content: Mapping[str, Any]) -> str:
    """The whole page."""
    notes = _notes(board.leaderboard)
    parts = [
        f"# {cell(board.facts.name)}",
        _what(content),
        *([f"**Note.** {cell(board.facts.note)}"] if board.facts.note else []),
        *_shown(board, INTERVALS, "AUROC of each row of the table below, with its interval"),
        _table(_leaderboard_rows(board.leaderboard, notes)),
        *(["\n".join(f"{number}. {cell(text)}" for text, number in notes.items())] if notes else []),
        _how_sure(board),
        *_shown(board, DIAGRAM, "critical difference diagram"),
        "## AUROC of each category",
        _table(_category_rows(board)),
        "## Rank a detector of your own",
        YOURS,
        "\n".join(["```console", *_yours(content), "```"]),
        "## Files",
        FILES,
        "## Reproduce",
        "\n".join(["```console", *content["commands"], "adbench verify .   # in this folder", "```"]),
        _machines(content),
        *_code(content),
    ]
    return "\n\n".join(parts) + "\n"


YOURS = """It has to be run on the same images. None of the detectors above is trained again: their rows are made from their scores.
`BOARD` is this folder."""

FILES = """`leaderboard.csv` has all columns of the table, `results.csv` one row per job, `pairs.csv` one row per pair of ranked
detectors, `scores/` the score of every test image, `losses/` the training losses. `board.json` has the protocol, the
settings and machine of each job, thresholds, fingerprints, and the SHA-256 of every file. `adbench verify` recomputes
all tables from the scores; it needs neither a GPU nor the images nor the detectors."""


def _what(content: Mapping[str, Any]) -> str:
    dataset, protocol = content["dataset"], content["protocol"]
    cards = content["categories"]
    images = sorted({card["test_normal"] + card["test_abnormal"] for card in cards})
    sizes = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}" if images else "no"
    return (
        f"{cell(dataset['name'])}: {cell(dataset['summary']) or 'no summary'}. Protocol {cell(protocol['name'])}, "
        f"version {cell(protocol['version'])}: {cell(protocol['summary']) or 'no summary'}. "
        f"{_count(content)} of {sizes} test images.{_unofficial(content)}"
    )


def _unofficial(content: Mapping[str, Any]) -> str:
    """That the images are not the dataset's own, where it is known of a job."""
    told = sorted({text for job in content["jobs"] if (text := job.get("unofficial"))})
    return f" **Not the dataset's own images:** {cell('; '.join(told))}." if told else ""


def _yours(content: Mapping[str, Any]) -> list[str]:
    """The commands that rank another detector among the board's."""
    dataset, protocol = content["dataset"]["name"], content["protocol"]["name"]
    names = ",".join(card["category"] for card in content["categories"])
    run = ["adbench", "run", "--detectors", "mine", "--data", dataset, "--protocol", protocol]
    seeds = ",".join(map(str, range(RULES.seeds)))
    return [
        joined([*run, "--categories", names, "--seeds", seeds, "--out", "my-runs"]),
        "adbench publish --again BOARD --runs my-runs --board mine --out boards",
    ]


def _count(content: Mapping[str, Any]) -> str:
    """How many categories the board has, and of how many if the dataset has more."""
    here = len(content["categories"])
    every = max((job.get("of_categories") or 0 for job in content["jobs"]), default=0)
    if every > here:
        return f"{here} of {every} categories"
    return f"{here} {'category' if here == 1 else 'categories'}"


def _shown(board: Board, picture: Picture, words: str) -> list[str]:
    return [f"![{words}]({picture.file})"] if picture.is_drawn(board) else []


def _notes(frame: pd.DataFrame) -> dict[str, int]:
    """What is to be said of rows, each text once and numbered."""
    texts = (text for line in frame.to_dict("records") for text in _told(line))
    return {text: number for number, text in enumerate(dict.fromkeys(texts), start=1)}


def _told(line: Mapping[Any, Any]) -> list[str]:
    """The long texts of a row."""
    published = line["published_source"] and f"published: {line['published_source']}"
    return [text for text in (line["remark"], published) if text]


def _leaderboard_rows(frame: pd.DataFrame, notes: Mapping[str, int]) -> list[dict[str, str]]:
    return [
        {
            "rank": in_digits(line["rank"], "d"),
            "detector": cell(line["detector"]),
            "AUROC": in_digits(line["auroc_mean"]),
            "95 % CI": _interval(line["auroc_ci_low"], line["auroc_ci_high"]),
            "std over seeds": in_digits(line["auroc_seed_std"]),
            "AP": in_digits(line["average_precision_mean"]),
            "pixel AUROC": in_digits(line["pixel_auroc_mean"]),
            "AUPRO": in_digits(line["aupro_mean"]),
            "published": in_digits(line["published_auroc"]),
            "as published": in_digits(line["as_published_auroc"]),
            "categories x seeds": f"{line['n_categories']}x{line['n_seeds']}",
            "notes": ", ".join(str(notes[text]) for text in _told(line)),
            "supervision": line["supervision"],
            "pretrained": cell(line["pretrained"]) if line["pretrained"] != "False" else "",
            "preset": cell(line["preset"]),
        }
        for line in frame.to_dict("records")
    ]


def _category_rows(board: Board) -> list[dict[str, str]]:
    good = board.results[board.results["status"] == "ok"]
    order = [str(name) for name in dict.fromkeys(board.leaderboard["detector"])]
    names = sorted(good["category"].unique())
    table = good.groupby(["detector", "preset", "category"])["auroc"].mean()
    rows = []
    for detector, preset in sorted(
        {key[:2] for key in table.index}, key=lambda key: (order.index(key[0]), key)
    ):
        values = {cell(name): in_digits(table.get((detector, preset, name))) for name in names}
        rows.append({"detector": cell(detector), "preset": cell(preset)} | values)
    return rows if len(names) <= WIDE else _turned(rows, [cell(name) for name in names])


def _turned(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[dict[str, str]]:
    """A line a category, with a column for each of `rows`."""
    return [
        {"category": name} | {f"{row['detector']}, {row['preset']}": row[name] for row in rows}
        for name in names
    ]


def _how_sure(board: Board) -> str:
    count, pairs = board.results["category"].nunique(), board.pairs
    text = (
        "Rows share a rank if the paired 95 % interval of their difference from the best of them includes zero; "
        f"pairs.csv lists every difference. Only rows with {RULES.seeds} seeds, every category, and scores that do not "
        "depend on their batch are ranked. Each kind of supervision is ranked separately. With one seed, the interval "
        "does not cover the variation between trainings, and it is narrow for a detector that scores an image much the "
        "same in every category."
    )
    if pairs.empty:
        return text
    floors = [
        f"{block['holm_floor'].iloc[0]:.2g} over the {counted(len(block), 'pair', 'pairs')} of {kind} rows"
        for kind, block in pairs.groupby("supervision", sort=False)
    ]
    over = counted(count, "category", "categories")
    return (
        f"{text} Over {over}, no p-value of the Wilcoxon signed-rank test can be below {p_floor(count):.2g}; "
        f"with Holm's adjustment none can be below {' and '.join(floors)}."
    )


def _machines(content: Mapping[str, Any]) -> str:
    lines = [
        f"* {cell(facts.get('gpu') or shown_cpu(facts))}: "
        f"torch threads {cell(facts.get('torch_threads', 'unknown'))}, "
        + (f"CPU time of {cell(quota)} cores, " if (quota := facts.get("cpu_quota")) is not None else "")
        + f"Python {cell(facts.get('python'))}, "
        + ", ".join(f"{cell(k)} {cell(v)}" for k, v in (facts.get("versions") or {}).items() if v)
        + (f"; {cell(code)}" if (code := shown_code(facts)) else "")
        for facts in content["machines"].values()
        if facts  # a job that failed may have none
    ]
    return "\n".join(["Machines:", "", *sorted(set(lines))])


def _code(content: Mapping[str, Any]) -> list[str]:
    """Whose detectors they are that do not come with this package."""
    found = {
        (content["configurations"][job["configuration"]]["detector"], job["code"])
        for job in content["jobs"]
        if job.get("code")
    }
    lines = [f"* {cell(name)}: {cell(code)}" for name, code in sorted(found)]
    return ["\n".join(["Detectors of other packages:", "", *lines])] if lines else []


def _interval(low: Any, high: Any) -> str:
    return f"{in_digits(low)} to {in_digits(high)}" if in_digits(low) else ""


def _table(records: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table; columns in which no row has anything are left out."""
    names = [name for name in (records[0] if records else ()) if any(record[name] for record in records)]
    lines: Iterable[str] = (_line([record[name] for name in names]) for record in records)
    return "\n".join([_line(names), _line(["---"] * len(names)), *lines])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"

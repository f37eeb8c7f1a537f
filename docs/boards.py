"""Gives every folder of ``leaderboards/`` a page in the site, with its files and, of a board, the page of its charts.

mkdocs calls this file (see ``mkdocs.yml``); nothing that it makes is committed. A README there is made from what strangers
hand in, for a forge: here only its tables, links, code and emphasis are Markdown, and all else is text. No torch is needed.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

ROOT = Path(__file__).resolve().parent.parent
BOARDS = ROOT / "leaderboards"
AUDIT = BOARDS / "audit"
KINDS = ("board.json", "timing.json", "audit.csv")  # what adbench verify checks has one of them
OVERVIEW = "leaderboards/README.md"  # of the site, which keeps the folders of the repository
OFFERED = (".csv", ".json", ".parquet", ".png")
CHARTS = "charts.html"  # of a board, beside its page
INTRODUCTION = (
    "Every number here can be recomputed from the scores beside it. [How to read a leaderboard](../leaderboards.md) "
    "explains ranks, intervals and columns; [how to submit one](../submit.md), how to check these and add to them. "
    "Before you quote a number, read [what the boards show](../findings.md) and "
    "[what a board does not show](../leaderboards.md#what-a-board-does-not-show)."
)
WIDE = "---\nhide:\n  - toc\n---\n\n"  # tables need the room

FENCE = re.compile(r"^(```(?:console|text|python)?\n(?:(?!```).*\n)*```)$", re.M)
TOKEN = re.compile(
    r"(?P<code>`[^`<{\[\n]+`)|\\(?P<escaped>[\\`*\[\]<>&|~!#])"
    r"|(?P<start>!?\[(?P<words>[^][<>{}`\\\n]*)\])\((?P<target>[^()\s<>{}`]*)\)|(?P<mark>[]<>{}`~[])"
)
TABLE = re.compile(r"^(?:\|.*\|\n)+", re.M)
NUMBER = re.compile(r"([\dx.,+-]+( to [\d.]+)?( \(.+\))?)?")
LONG = 60  # characters of a cell that is worth more than one line
UP = re.compile(r"\]\(\.\./leaderboards/")


def on_config(config: Any) -> Any:
    """Called by mkdocs: the pages follow the overview in the menu."""
    (section,) = [each["Leaderboards"] for each in config.nav if "Leaderboards" in each]
    section += [{folder.name: f"leaderboards/{folder.name}/README.md"} for folder in folders()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs: the pages and files are added to those of ``docs/``."""
    from mkdocs.structure.files import File

    made = pages() | {f"leaderboards/{folder.name}/{CHARTS}": charts(folder) for folder in boards()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for path in attachments(BOARDS):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page: what a page of ``docs/`` says of ``../leaderboards`` is in the site too."""
    return markdown if page.file.src_uri.startswith("leaderboards/") else UP.sub("](leaderboards/", markdown)


def folders() -> list[Path]:
    """All that have a page: boards by name, then audits and timings; nothing else, and nothing that lies elsewhere."""
    found = {folder for kind in KINDS for folder in with_page(kind)}
    return sorted(found, key=lambda folder: (folder not in boards(), folder.name))


def boards() -> list[Path]:
    """The published boards."""
    return with_page("board.json")


def with_page(kind: str) -> list[Path]:
    """The folders with a file of that name and a README."""
    found = sorted(path.parent for path in BOARDS.glob(f"[!.]*/{kind}") if is_here(path))
    return [folder for folder in found if is_here(folder / "README.md")]


def is_here(path: Path) -> bool:
    """Whether it is a file, and neither it nor a folder above it is a link."""
    return path.is_file() and path.resolve() == path


def attachments(folder: Path) -> list[Path]:
    """Every file that is offered as it is: tables, scores and pictures, no pages, and none from elsewhere."""
    found = (path for path in folder.rglob("*") if path.suffix in OFFERED and is_here(path))
    return sorted(path for path in found if not is_hidden(path.relative_to(folder)))


def is_hidden(path: Path) -> bool:
    """Whether a file or a folder above it is one that a killed command may leave."""
    return any(part.startswith(".") for part in path.parts)


def pages() -> dict[str, str]:
    """The Markdown of each page, by its place in the site."""
    return {OVERVIEW: overview()} | {
        f"leaderboards/{folder.name}/README.md": page_of(folder) for folder in folders()
    }


def page_of(folder: Path) -> str:
    """What the folder's README says, with a link to the charts and to every file."""
    text = as_text((folder / "README.md").read_text(encoding="utf-8"), folder)
    title, what, rest = TABLE.sub(wide, text).split("\n\n", 2)
    button = f"[Charts and sortable tables]({CHARTS}){{ .md-button .md-button--primary }}"
    parts = [title, what, *([button] if folder in boards() else []), rest.strip(), *pictures(folder)]
    return WIDE + "\n\n".join([*parts, "## Download", "\n".join(downloads(folder))]) + "\n"


def wide(rows: re.Match[str]) -> str:
    """A README's table, for a page: numbers stand to the right, long cells are folded."""
    head, _, *lines = [line[2:-2].split(" | ") for line in rows[0].splitlines()]
    if {len(line) for line in lines} != {len(head)}:
        return rows[0]
    ends = ["--:" if all(NUMBER.fullmatch(line[i]) for line in lines) else "---" for i in range(len(head))]
    folded = [
        [f"<span class='words'>{cell}</span>" if len(cell) > LONG else cell for cell in line]
        for line in lines
    ]
    made = (f"| {' | '.join(line)} |" for line in (head, ends, *folded))
    return framed("\n".join(made), "board ranked" if head[0] == "rank" else "board") + "\n"


def framed(markdown: str, kind: str) -> str:
    """A part of a page that ``site.css`` knows by name."""
    return f"<div class='{kind}' markdown>\n\n{markdown}\n\n</div>"


def pictures(folder: Path) -> Iterator[str]:
    """The curves of an audit."""
    found = [path for path in attachments(folder / "curves") if path.suffix == ".png"]
    if not found:
        return
    alts = [entities(f"AUROC after each epoch: {path.parent.name}, {path.stem}") for path in found]
    links = [quote(path.relative_to(folder).as_posix()) for path in found]
    yield "## Curves"
    yield framed(" ".join(f"![{alt}]({link})" for alt, link in zip(alts, links, strict=True)), "curves")


def downloads(folder: Path) -> Iterator[str]:
    """A line for each place where there are files, those of the folder itself first."""
    found: dict[str, list[str]] = {}
    for path in attachments(folder):
        name = path.relative_to(folder)
        link = f"[{entities(name.name)}]({quote(name.as_posix())})"
        found.setdefault(name.parent.as_posix(), []).append(link)
    for place, links in sorted(found.items()):
        yield f"* {'' if place == '.' else f'{entities(place)}: '}{', '.join(links)}"


def charts(folder: Path) -> str:
    """The page of ``adbench report``, which needs no network."""
    sys.path += [str(ROOT)] if str(ROOT) not in sys.path else []  # where nothing is installed
    from adbench_tgan.report import audited, page, timed
    from adbench_tgan.report.gallery import without_models
    from adbench_tgan.report.material import from_board

    board = from_board(folder)
    audits = audited.audits_of(AUDIT if AUDIT.exists() else None, board.dataset, board.protocol, board.jobs)
    times = [timed.times_of(place, board) for place in with_page("timing.json")]
    best = max((each for each in times if len(each.rows)), key=lambda each: len(each.rows), default=None)
    return page.render(board, (), without_models(board), *audits, best)


# -- a README as a page


def as_text(markdown: str, folder: Path) -> str:
    """A README of `folder` in which nothing but tables, links, code and emphasis means anything."""
    parts = FENCE.split(markdown)
    return "".join(
        framed(part, "commands") if i % 2 else TOKEN.sub(lambda token: plain(token, folder), part)
        for i, part in enumerate(parts)
    )


def plain(token: re.Match[str], folder: Path) -> str:
    """A piece of Markdown that is safe: what a backslash or nothing stands before is an entity."""
    if token["code"]:
        return token["code"]
    if token["start"]:
        place = in_site(token["target"], folder, picture=token["start"].startswith("!"))
        return f"{token['start']}({place})" if place else entities(token["words"])
    return entities(token["escaped"] or token["mark"])


def entities(text: str) -> str:
    """Any text, whatever Markdown would make of it."""
    return re.sub(r"[^\w\s.,:;/=()+-]|_", lambda character: f"&#{ord(character[0])};", text)


def in_site(target: str, folder: Path, *, picture: bool) -> str:
    """Where a link leads in the site; empty if it leads nowhere there, and for a picture from elsewhere."""
    if target.startswith("https://"):
        return "" if picture else target
    path, mark, section = target.partition("#")
    found = folder.joinpath(unquote(path)).resolve()
    if not (path and found.is_file() and found.is_relative_to(ROOT)):
        return ""
    name = found.relative_to(ROOT)
    if name.parts[0] not in ("leaderboards", "docs") or name.suffix not in (".md", *OFFERED):
        return ""
    here = PurePosixPath(folder.relative_to(ROOT).as_posix())
    up = "../" * len(here.parts)
    return quote(f"{up}{name.as_posix().removeprefix('docs/')}") + mark + section


# -- the overview


def overview() -> str:
    """A line a board, and the other folders."""
    others = [folder for folder in folders() if folder not in boards()]
    parts = [
        "# Leaderboards",
        INTRODUCTION,
        framed(table([line(folder) for folder in boards()]), "boards"),
        "The highest is by mean AUROC over seeds and categories, of ranked rows where there are any, with its 95 % "
        "interval. Of one seed an interval is over images only. One-class and labelled detectors are ranked apart.",
        *(["## Beside the leaderboards"] if others else []),
        "\n".join(f"* [{entities(title_of(folder))}]({quote(folder.name)}/README.md)" for folder in others),
    ]
    return WIDE + "\n\n".join(filter(None, parts)) + "\n"


def title_of(folder: Path) -> str:
    """What a folder's README is called."""
    return (folder / "README.md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def line(folder: Path) -> dict[str, str]:
    """A board in the table of all."""
    content = json.loads((folder / "board.json").read_text(encoding="utf-8"))
    with (folder / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    name, link = entities(folder.name), quote(folder.name)
    seeds = [int(row["n_seeds"]) for row in rows]
    return {
        "board": f"[{name}]({link}/README.md)<br>[charts]({link}/{CHARTS})",
        "dataset, protocol": "<br>".join(entities(content[kind]["name"]) for kind in ("dataset", "protocol")),
        "categories, size": f"{images(content['categories'])}<br>{size(folder, content)}",
        "detectors, seeds": f"{len({row['detector'] for row in rows})}<br>seeds: {span(seeds)}",
        "ranked": entities(ranked(rows)),
        "highest one-class": highest(rows, "one-class"),
        "highest labelled": highest(rows, "labelled"),
    }


def images(categories: list[dict[str, Any]]) -> str:
    """How many categories of how many test images."""
    counts = [each["test_normal"] + each["test_abnormal"] for each in categories]
    return f"{len(counts)} of {span(counts)}<br>test images"


def span(counts: list[int]) -> str:
    """One number, or from the least to the most."""
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def ranked(rows: list[dict[str, str]]) -> str:
    """How many rows have a rank, and why the others have none."""
    without = [row["remark"] for row in rows if not row["rank"]]
    if not without:
        return f"all {len(rows)} rows"
    reasons = sorted({remark.removeprefix("not ranked: ").partition("; ")[0] for remark in without})
    count = f"{len(rows) - len(without)} of {len(rows)} rows" if len(without) < len(rows) else "none"
    return f"{count}: {reasons[0] if len(reasons) == 1 else 'see each remark'}"


def highest(rows: list[dict[str, str]], supervision: str) -> str:
    """The row of one kind that leads, ranked ones before all others, and how many share its rank."""
    found = [row for row in rows if row["supervision"] == supervision and row["auroc_mean"]]
    if not found:
        return ""
    best = max(found, key=lambda row: (bool(row["rank"]), float(row["auroc_mean"])))
    low, high, mean = (f"{float(best[f'auroc_{name}']):.3f}" for name in ("ci_low", "ci_high", "mean"))
    sharing = sum(row["rank"] == best["rank"] for row in found) - 1 if best["rank"] else 0
    told = [
        best["detector"],
        f"{mean} ({low}\u00a0to\u00a0{high})",
        *([f"rank shared with {sharing} more"] if sharing else []),
    ]
    return "<br>".join(map(entities, told))


def size(folder: Path, content: dict[str, Any]) -> str:
    """How many scores a board holds, and what all its files take."""
    tested = {each["category"]: each["test_normal"] + each["test_abnormal"] for each in content["categories"]}
    scores = sum(tested[job["category"]] for job in content["jobs"] if job["status"] == "ok")
    return f"{scores:,} scores<br>{sum(path.stat().st_size for path in attachments(folder)) / 1e6:.1f} MB"


def table(lines: list[dict[str, str]]) -> str:
    """A Markdown table."""
    rows = (
        [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)] if lines else []
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

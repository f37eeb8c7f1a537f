"""``adbench publish``, ``verify`` and ``compare``: leaderboards that anyone can check."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adbench_tgan.commands.options import (
    DataRoot,
    Json,
    Plugins,
    Published,
    ResultsData,
    ResultsProtocol,
    complete,
    published_table,
    registry,
    root,
    split,
)
from adbench_tgan.commands.show import answer, draw, show, tell, warn
from adbench_tgan.discovery.development import points
from adbench_tgan.errors import AdbenchError
from adbench_tgan.text import counted

if TYPE_CHECKING:
    from adbench_tgan.boards import Basis, Board, Choice, Finding, Part
    from adbench_tgan.registry import Registry

    Check = Callable[[Path], list[Finding]]

Runs = Annotated[
    list[Path] | None, typer.Option(metavar="FOLDER", help="Folder of results; repeatable.  [default: runs]")
]
Detectors = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated names, of the jobs of --again too.  [default: all]",
        autocompletion=complete("detector"),
    ),
]
PartOf = Annotated[
    str,
    typer.Option(
        help="Make a board of this protocol, whose test images are a subset of those of the results, from their scores.",
        autocompletion=complete("protocol", several=False),
    ),
]
Again = Annotated[
    Path | None,
    typer.Option(
        help="Rebuild this published board from its scores alone; with --runs, add their jobs of its dataset and protocol."
    ),
]
Audit = Annotated[Path | None, typer.Option(help="An audit.csv, which fills the column as_published_auroc.")]
AS_PUBLISHED = "--again needs a board whose scores, losses and measurements are as published"
Presets = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        metavar="PRESET",
        help="Preset as the tables name it, of the jobs of --again too; repeatable.  [default: all]",
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Overwrite a board even if it has jobs that the new one lacks.")
]


def publish(
    board: Annotated[str, typer.Option(help="Name of the board and of its folder.")],
    runs: Runs = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the boards.")] = Path("leaderboards"),
    detectors: Detectors = None,
    data: ResultsData = None,
    protocol: ResultsProtocol = None,
    preset: Presets = None,
    plugin: Plugins = None,
    published: Published = None,
    audit: Audit = None,
    again: Again = None,
    part: PartOf = "",
    data_root: DataRoot = None,
    replace: Replace = False,
    note: Annotated[str, typer.Option(help="A note that stands above the numbers.")] = "",
) -> None:
    """Write a leaderboard with everything needed to check it."""
    from adbench_tgan import boards
    from adbench_tgan.store.places import ensure_writable
    from adbench_tgan.terminal.views import leaderboard_views

    boards.check_name(board)
    ensure_writable(out)
    boards.put_back(out)
    found = registry(plugin)
    choice = _choice(found, detectors, data, protocol, preset)
    cut = _part(part, data_root)
    if again and not runs and not cut:
        made = _alone(again, board, choice, audit)
    else:
        kept = _sound(again) if again else None
        places = runs or ([] if kept else [Path("runs")])
        for place in places:
            boards.store_of(place)  # refuses what is no folder, before it is said to be read
        warn("reading results and scores, resampling them")
        made = boards.from_runs(
            places,
            found,
            name=board,
            choice=choice,
            published=published_table(published),
            audit=audit,
            kept=kept,
            part=cut,
            say=warn,
            whole=True,
        )
    _ensure_possible(made)
    made = _noted(made, note)
    lost = partial(boards.check_lost, out / board, made.measured, again)
    changed = boards.publish(made, out, warn, (lambda: None) if replace else lost)
    for view in leaderboard_views(made.leaderboard, board, where="the machine of each"):
        draw(view)
    _warn_of_impure(made)
    tell(f"{out / board} {'is written' if changed else 'has not changed'}: {len(made.results)} jobs")


def verify(
    path: Annotated[
        Path, typer.Argument(help="A leaderboard, a timing board, an audit, or a folder of boards.")
    ] = Path("leaderboards"),
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUNS", help="Also compare with the scores of your own runs; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute every cell of published boards. Names each cell, row, hash or file that does not match."""
    from dataclasses import asdict

    from adbench_tgan import boards

    found = []
    checks = _checks(path)
    for place, check in checks:
        warn(f"{place}: recomputing")
        findings = boards.verify(place, warn) if check is boards.verify else check(place)
        found += findings
        if not as_json:
            for finding in findings:
                print(finding)
            tell(
                f"{place}: {counted(len(findings), 'finding', 'findings') if findings else 'every cell matches'}"
            )
    unread: dict[Path, str] = {}
    compared = 0
    for place in (place for place, check in checks if against and check is boards.verify):
        again, differing = boards.rerun(
            place, against or (), unread.__setitem__, lambda told: warn(f"note: {told}")
        )
        found += differing
        compared += again
        if not as_json:
            for finding in differing:
                print(finding)
            others = len({finding.where for finding in differing if finding.where})
            tell(f"{place}: jobs run again: {again}, with the same scores: {again - others}")
    for of_runs, why in unread.items():
        warn(f"note: {of_runs} is left alone and not compared: {why}")
    if against and not compared and not found:
        raise AdbenchError(
            f"--against: these runs have no job of {path}, so nothing was compared; its README.md has its command"
        )
    if as_json:
        answer({"boards": [str(place) for place, _ in checks], "findings": list(map(asdict, found))})
    raise typer.Exit(1 if found else 0)


def _ensure_possible(board: Board) -> None:
    """Raise `AdbenchError` where a result states what no run can have measured: `verify` would refuse the board."""
    from adbench_tgan import boards
    from adbench_tgan.results import removal

    for result in board.measured:
        for problem in boards.impossible(result):
            raise AdbenchError(f"{result.job}: {problem}; {removal(result.job)}")


def _warn_of_impure(board: Board) -> None:
    """Say so when `verify` will refuse a board for scores that depend on their batch."""
    from adbench_tgan import boards

    names = sorted({job.detector for job, _ in boards.impure(board.measured)})
    if names:
        reason = "scores depend on their batch, or were not probed for it"
        warn(f"note: adbench verify will refuse this board: {reason}: {', '.join(names)}")


def _checks(path: Path) -> list[tuple[Path, Check]]:
    """The boards in `path`, or `path` itself, and how each is checked; what is of two kinds, as both. Other folders are refused.

    Raises:
        AdbenchError: there is none.
    """
    from adbench_tgan import boards

    found, audits = boards.find_boards(path), boards.find_audits(path)
    checks: list[tuple[Path, Check]] = [(each, boards.verify) for each in found]
    checks += [(each, boards.verify_audit) for each in audits]
    checks += [(each, boards.verify_timing) for each in boards.find_timings(path)]
    if not checks and (path / "curves").is_dir():
        raise AdbenchError(
            f"{path} holds an unfinished audit, without audit.csv; run the same adbench audit again to finish it"
        )
    if not checks:
        raise AdbenchError(f"there is no board in {path}; adbench publish makes one")
    if path in found:
        return checks  # it names itself what else it holds
    known = {*(each for each, _ in checks), *([path / "curves"] if path in audits else [])}
    return checks + [(each, boards.no_board) for each in boards.folders_in(path) if each not in known]


def compare(
    a: Annotated[str, typer.Argument(help="A detector, detector:preset, or path.py:Class.")],
    b: Annotated[str, typer.Argument(help="The detector to compare it with.")],
    runs: Runs = None,
    board: Annotated[Path | None, typer.Option(help="A published board, instead of --runs.")] = None,
    data: ResultsData = None,
    protocol: ResultsProtocol = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Compare two detectors on the same images. Reports each category, the mean, and how certain the difference is."""
    from dataclasses import asdict

    from adbench_tgan import boards
    from adbench_tgan.leaderboard import Rules
    from adbench_tgan.ranking import comparison

    plugins = registry(plugin)
    names = _named(a, plugins), _named(b, plugins)
    if board is not None:
        if runs:
            raise AdbenchError("give --runs or --board, not both")
        if data or protocol:
            raise AdbenchError("--data and --protocol choose among --runs; leave them out with --board")
        made = boards.tabulate(_sound(board, f"adbench verify {board} lists what does not match"), warn)
    else:
        choice = boards.Choice(dataset=data or "", protocol=protocol or "")
        made = boards.from_runs(runs or [Path("runs")], plugins, choice=choice, rules=Rules(), say=warn)
    found = comparison.compare(*(comparison.find(name, made.standings) for name in names))
    if as_json:
        answer(asdict(found) | {"verdict": found.verdict})
        return
    lines = [*found.categories, found.overall]
    records = [
        {
            "category": line.category or "mean",
            found.a: f"{line.auroc_a:.3f}",
            found.b: f"{line.auroc_b:.3f}",
            "difference": f"{line.difference:+.3f}",
            "95 % CI": f"{line.ci_low:+.3f} to {line.ci_high:+.3f}",
        }
        for line in lines
    ]
    show(records, f"AUROC, {made.facts.dataset['name']}, {made.facts.protocol['name']}")
    print(
        f"signed-rank test over {counted(len(found.categories), 'category', 'categories')}: p = {found.wilcoxon_p:.2g}; "
        f"the smallest that so many can give is {found.p_floor:.2g}"
    )
    tell(found.verdict)
    for caution in found.cautions:
        warn(f"note: {caution}")


def _sound(path: Path, remedy: str = AS_PUBLISHED) -> Basis:
    """What a published board rests on.

    Raises:
        AdbenchError: its scores, losses or measurements are not those that were published.
    """
    from adbench_tgan import boards

    def read() -> Basis:
        boards.refuse(boards.unsound(path), remedy)
        return boards.basis(path, warn)

    warn(f"{path}: recomputing")
    return boards.settled(path, read, warn)


def _alone(path: Path, name: str, choice: Choice, audit: Path | None) -> Board:
    """A published board made again of no other jobs than its own; it keeps its name.

    Raises:
        AdbenchError: it has another name, or an option chooses among runs.
    """
    from adbench_tgan import boards

    if choice != boards.Choice() or audit:
        raise AdbenchError(
            "--detectors, --data, --protocol, --preset and --audit apply to --runs; give --runs too, or leave them out"
        )
    if (own := boards.read_content(path)["name"]) != name:
        raise AdbenchError(f"--again holds the board {own!r}, not {name!r}; give --board {own}")
    return boards.tabulate(_sound(path), warn)


def _part(protocol: str, data_root: Path | None) -> Part | None:
    """What ``--part`` asks for, if it is given.

    Raises:
        AdbenchError: there is nothing to compare with the dataset.
    """
    from adbench_tgan.boards import Part

    if protocol:
        return Part(protocol=protocol, root=root(data_root))
    if data_root is not None:
        raise AdbenchError("--data-root is for --part, which compares images; give both or neither")
    return None


def _noted(board: Board, note: str) -> Board:
    """A board with another note, if there is one."""
    from dataclasses import replace

    return replace(board, facts=replace(board.facts, note=" ".join(note.split()))) if note else board


def _choice(
    found: Registry, detectors: str | None, data: str | None, protocol: str | None, presets: list[str] | None
) -> Choice:
    from adbench_tgan.boards import Choice

    words = split(detectors, "--detectors") if detectors is not None else ()
    names = tuple(_named(word, found) for word in words)
    return Choice(detectors=names, dataset=data or "", protocol=protocol or "", presets=presets or ())


def _named(word: str, found: Registry) -> str:
    """The row that a word asks for: the name of the detector with that alias, or in that file or module."""
    if points(word):
        return str(found.find("detector", word).name)
    name, colon, preset = word.partition(":")
    aliases = {alias: info.name for info, _ in found.offers("detector") for alias in info.aliases}
    return f"{aliases.get(name, name)}{colon}{preset}"

"""What a page is made of, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.leaderboard import (
    ENTRY,
    entry_names,
    leaderboard_table,
    results_table,
    standings,
)
from adbench_tgan.ranking.published import beside_papers, read_published
from adbench_tgan.ranking.selection import is_current, of_one_fingerprint, without_superseded
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result, ResultStore, dataset_folder, left_alone, safe_name
from adbench_tgan.terminal.pace import paced, silent
from adbench_tgan.text import counted, plain

if TYPE_CHECKING:
    import pandas as pd

NAMED = 5  # of the results that cannot be read; of more a page says how many


@dataclass(frozen=True, kw_only=True)
class Material:
    """The results of one dataset under one protocol. Both tables have a further column `entry`: a row's short name."""

    dataset: str
    protocol: str
    source: str  # the name of the folder it was read from; not its path, for pages are handed around
    results: pd.DataFrame  # a row a job
    leaderboard: pd.DataFrame  # a row a detector
    scores: Callable[[str], pd.DataFrame]  # by a job's key: sample_id, label, score
    # By a job's key: epoch and a column a loss; None if it has none.
    losses: Callable[[str], pd.DataFrame | None]
    thresholds: Mapping[str, float]  # by a job's key: the quantile of training scores
    machines: tuple[Mapping[str, Any], ...] = ()  # of each job that ended well
    # What the dataset and the protocol say of themselves.
    facts: Mapping[str, str] = field(default_factory=dict)
    # By a job's key, where a model may have been saved.
    folders: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was left out, and why
    note: str = ""  # what a board's reader must know before the numbers
    jobs: tuple[Job, ...] = ()  # all that were run
    of_categories: int = 0  # that the dataset has; 0 where no result says so

    @property
    def entries(self) -> list[str]:
        """The short names of the leaderboard's rows, in its order."""
        return list(self.leaderboard["entry"])

    @property
    def categories(self) -> list[str]:
        """All categories in the order of their names."""
        return sorted(self.results["category"].unique())

    def first_seeds(self) -> dict[tuple[str, str], str]:
        """The key of the finished job with the lowest seed, by entry and category."""
        good = self.results[self.results["status"] == "ok"].sort_values("seed")
        lines = good.drop_duplicates(["entry", "category"])[["entry", "category", "key"]]
        return {(entry, category): key for entry, category, key in lines.itertuples(index=False)}


def _told(passed_over: Sequence[str]) -> list[str]:
    more = len(passed_over) - NAMED
    rest = [f"{counted(more, 'more result is', 'more results are')} left alone"] if more > 0 else []
    return [*passed_over[:NAMED], *rest]


def from_store(
    root: Path,
    registry: Registry,
    dataset: str | None = None,
    protocol: str | None = None,
    published: Path | None = None,
    say: Callable[[str], None] = silent,
) -> Material:
    """The material in a folder that ``adbench run`` wrote; `published` is a table of what papers print.

    `say` is told now and then how far it is.

    Raises:
        AdbenchError: there are no results, or those of several datasets or protocols and none is chosen, or the table
            is none.
    """
    from adbench_tgan.boards.choice import card

    store = ResultStore(root)
    versions = registry.versions()
    unread: list[tuple[Path, str]] = []
    every = list(store.results(lambda path, why: unread.append((path, why))))
    stored = [result for result in every if is_current(result.job, versions)]
    if every and not stored:
        raise AdbenchError(f"{root} holds results of other versions of their detectors only; run them again")
    chosen = of_one_task(stored, root, dataset, protocol)
    results, notes = of_one_fingerprint(without_superseded(chosen))
    jobs = {result.job.key: result.job for result in results}
    first = results[0].job
    task = dataset_folder(first.dataset), safe_name(first.protocol)  # see `ResultStore.folder`
    passed_over = [
        left_alone(Path(*path.parts[-5:]), why) for path, why in unread if path.parts[-5:-3] == task
    ]
    printed = read_published(published) if published else ()
    good = sum(result.status == "ok" for result in results)
    ranked = standings(results, paced(store.scores, "scores resampled", good, say))
    ordered = beside_papers(ranked, first.dataset, first.protocol, printed)
    table, board = results_table(results), leaderboard_table(ordered)
    name_entries(table, board)
    return Material(
        dataset=first.dataset,
        protocol=first.protocol,
        source=root.resolve().name,
        results=table,
        leaderboard=board,
        scores=lambda key: store.scores(jobs[key]),
        losses=lambda key: store.losses(jobs[key]),
        thresholds={r.job.key: r.threshold for r in results if r.threshold is not None},
        machines=machines_of(results),
        facts=facts_of(
            card(registry, "dataset", first.dataset, ("summary", "source", "licence")),
            card(registry, "protocol", first.protocol, ("summary",)),
        )
        | {"protocol version": first.protocol_version},
        folders={key: store.folder(job) for key, job in jobs.items()},
        notes=(*_told(passed_over), *notes),
        jobs=tuple(jobs.values()),
        of_categories=most_categories(results),
    )


def from_board(folder: Path) -> Material:
    """The material of a published board; nothing of it is registered, and no model is there.

    Raises:
        AdbenchError: the folder holds no board, or one that does not match itself.
    """
    from adbench_tgan.boards import Board, altered, read, refuse, settled

    def whole() -> Board:
        refuse(altered(folder), f"adbench verify {folder} lists what does not match")
        return read(folder)

    board = settled(folder, whole)
    table, ranked = board.results.copy(), board.leaderboard.copy()
    name_entries(table, ranked)
    facts = board.facts
    return Material(
        dataset=facts.dataset["name"],
        protocol=facts.protocol["name"],
        source=folder.resolve().name,
        results=table,
        leaderboard=ranked,
        scores=board.scores.__getitem__,
        losses=board.losses.get,
        thresholds={r.job.key: r.threshold for r in board.measured if r.threshold is not None},
        machines=machines_of(board.measured),
        facts=facts_of(facts.dataset, facts.protocol),
        note=facts.note,
        jobs=tuple(result.job for result in board.measured),
        of_categories=most_categories(board.measured),
    )


def of_one_task(
    results: Sequence[Result], root: Path, dataset: str | None, protocol: str | None
) -> list[Result]:
    """The results of the dataset and protocol asked for, or of the only ones there are."""
    chosen = [
        result
        for result in results
        if dataset in (None, result.job.dataset) and protocol in (None, result.job.protocol)
    ]
    asked = f" of {' and '.join(filter(None, (dataset, protocol)))}" if dataset or protocol else ""
    if not chosen:
        raise AdbenchError(f"{root} holds no results{asked}; give --runs the folder that adbench run wrote")
    tasks = sorted({f"{result.job.dataset} under {result.job.protocol}" for result in chosen})
    if len(tasks) > 1:
        raise AdbenchError(f"{root} holds {', '.join(tasks)}; choose one with --data and --protocol")
    return chosen


def name_entries(table: pd.DataFrame, board: pd.DataFrame) -> None:
    """Give both tables the column `entry`: the detector, with what tells its rows apart where several have it.

    Raises:
        AdbenchError: a job of `table` belongs to no row of `board`.
    """
    for frame in (table, board):  # as the page shows them, whose filters and choices go by these texts
        for name in {*ENTRY, "category"} & set(frame.columns):
            frame[name] = [plain(str(text)) for text in frame[name]]
    variants = board[ENTRY].to_numpy().tolist()
    board["entry"] = entry_names(variants)
    names = dict(zip(map(tuple, variants), board["entry"], strict=True))
    keys = list(table[ENTRY].itertuples(index=False, name=None))
    if lost := sorted(set(keys) - set(names)):
        raise AdbenchError(
            f"leaderboard.csv has no row for {': '.join(lost[0][::3])}, which results.csv has; of a board of an "
            "earlier adbench-tgan, adbench publish --again makes both anew"
        )
    table["entry"] = [names[key] for key in keys]


def most_categories(results: Sequence[Result]) -> int:
    """How many categories the dataset has, by the result that knows of most; 0 if none says so."""
    return max((result.of_categories or 0 for result in results), default=0)


def machines_of(results: Sequence[Result]) -> tuple[Mapping[str, Any], ...]:
    """The machine that finished each job, with the device."""
    return tuple({"device": result.device, **result.machine} for result in results if result.status == "ok")


def facts_of(dataset: Mapping[str, str], protocol: Mapping[str, str]) -> dict[str, str]:
    """What a dataset and a protocol say of themselves, under the names that a page has for it."""
    return {
        kind if key == "summary" else f"{kind}'s {key}": text
        for kind, told in (("dataset", dataset), ("protocol", protocol))
        for key, text in told.items()
        if key != "name" and text
    }

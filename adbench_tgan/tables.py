"""The tables of a run, ``results.csv`` and ``leaderboard.csv``: what its store holds, also after Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import pandas as pd

from adbench_tgan.errors import StoreError
from adbench_tgan.interrupts import within
from adbench_tgan.jobs import Job
from adbench_tgan.leaderboard import leaderboard_table, results_table, standings
from adbench_tgan.ranking.published import Printed, beside_papers
from adbench_tgan.ranking.selection import comparable, is_current, without_superseded
from adbench_tgan.registry import Registry
from adbench_tgan.results import ResultStore, left_alone, write_atomically
from adbench_tgan.store.asking import answers
from adbench_tgan.store.places import is_remote
from adbench_tgan.store.stored import SCORES, parsed_scores, vouched
from adbench_tgan.terminal.pace import paced, silent, through
from adbench_tgan.text import csv_of

# Jobs of a category whose scores are asked for at a time: those of a large grid would fill the memory.
AHEAD = 16
LOOKS = 10  # at results that others keep storing; the last of them writes tables of its own after it
GRACE = 30.0  # seconds that an object store has for the tables after Ctrl-C


@contextmanager
def saying_interrupted(warn: Callable[[str], None]) -> Iterator[None]:
    """Say at once that Ctrl-C has come: what is still to be done may take a while."""
    try:
        yield
    except KeyboardInterrupt:
        warn("interrupted; giving up what is not finished, and writing the tables")
        raise


def write_in_time(write: Callable[[], object], store: ResultStore, warn: Callable[[str], None]) -> None:
    """Write the tables after Ctrl-C; an object store that does not answer goes without them.

    Raises:
        StoreError: a folder cannot be read or written.
    """
    if not is_remote(store.root):
        write()
        return
    try:
        why = "" if within(GRACE, write) else f"{store.root} does not answer"
    except StoreError as error:
        why = str(error).rpartition("; ")[0]  # without the remedy
    if why:
        warn(f"{why}; the tables are left out, and the next run writes them")


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Say each thing the first time only: tables that a store did not take are written again."""
    said: set[str] = set()

    def tell(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    return tell


def scores_of(store: ResultStore, jobs: Sequence[Job]) -> Callable[[Job], pd.DataFrame]:
    """What `ResultStore.scores` gives for any of these jobs; an object store is asked for `AHEAD` of them at a time.

    Each is asked for once where those of a category are read in the order of seeds and keys, as `spreads.bootstrap` does.
    """
    if not is_remote(store.root):
        return store.scores
    by_category: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: (job.seed, job.key)):
        by_category.setdefault(job.category, []).append(job)
    held: dict[str, Path | BytesIO] = {}  # as they are stored: as tables they take several times the memory

    def read(job: Job) -> pd.DataFrame:
        if job.key not in held:
            of_category = by_category[job.category]
            ahead = of_category[of_category.index(job) :][:AHEAD]
            there = answers(partial(vouched, name=SCORES), map(store.folder, ahead), store.root)
            held.update(zip((each.key for each in ahead), there, strict=True))
        return parsed_scores(store.folder(job), held.pop(job.key))

    return read


def write_tables(
    store: ResultStore,
    jobs: tuple[Job, ...],
    registry: Registry,
    printed: Sequence[Printed] = (),
    say: Callable[[str], None] = silent,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Write both tables from what is stored, and once more where other runs stored something meanwhile.

    Each of several runs so writes tables that miss nothing, whichever comes last.

    Returns the leaderboard, which is of the jobs' dataset, protocol and categories, and the other categories there.
    """
    there = store.listed()
    for _ in range(LOOKS):
        written = _write_tables(store, there, jobs, registry, printed, say)
        before, there = there, store.listed()
        if there == before:
            break
        say = silent  # it was said
    return written


def _write_tables(
    store: ResultStore,
    there: Collection[Path],
    jobs: tuple[Job, ...],
    registry: Registry,
    printed: Sequence[Printed],
    say: Callable[[str], None],
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    versions = registry.versions()
    results = store.results(lambda path, why: say(left_alone(path, why)), there)
    results = through(results, "results read", len(there), say)
    current = without_superseded([result for result in results if is_current(result.job, versions)])
    first = jobs[0]
    compared = comparable(current, jobs)
    good = [each.job for each in compared if each.status == "ok"]
    ordered = standings(compared, paced(scores_of(store, good), "scores resampled", len(good), say))
    board = leaderboard_table(beside_papers(ordered, first.dataset, first.protocol, printed))
    write_atomically(store.root / "results.csv", csv_of(results_table(current)))
    write_atomically(store.root / "leaderboard.csv", csv_of(board))
    asked = {job.category for job in jobs}
    stored = {
        r.job.category for r in current if (r.job.dataset, r.job.protocol) == (first.dataset, first.protocol)
    }
    return board, tuple(sorted(stored - asked))

"""A published board against runs of one's own: whether the same jobs gave the same scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from adbench_tgan import metrics
from adbench_tgan.boards.board import Board, canonical
from adbench_tgan.boards.folder import read
from adbench_tgan.boards.gather import PassedOver, homes, ignore, store_of
from adbench_tgan.boards.settled import settled
from adbench_tgan.boards.verify import MISREAD, Finding
from adbench_tgan.codebase import shown_cpu
from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import one_line
from adbench_tgan.jobs import Job
from adbench_tgan.leaderboard import PURITY
from adbench_tgan.ranking.spreads import variant_of
from adbench_tgan.ranking.statistics import of_another_seed, relative_change
from adbench_tgan.results import Result
from adbench_tgan.store.stored import SCORES
from adbench_tgan.terminal.pace import paced, silent
from adbench_tgan.text import counted

PIXELS = ("pixel_auroc", "aupro")  # which no score of a board tells


def rerun(
    path: Path, runs: Sequence[Path], passed_over: PassedOver = ignore, say: Callable[[str], None] = silent
) -> tuple[int, list[Finding]]:
    """How many of a board's jobs `runs` hold too, and those whose scores differ by more than rounding.

    A board that cannot be read is a finding, and so are scores of a job that it lacks. `passed_over` is told of each
    result of the runs that cannot be read, and of each whose scores cannot; `say`, of metrics that the board lacks,
    and now and then how far it is.

    Raises:
        AdbenchError: one of `runs` is no folder.
    """
    stores = [store_of(path, "--against") for path in runs]
    own = {key: found for key, found in homes(stores, passed_over).items() if found[0].status == "ok"}
    name = path.resolve().name
    try:
        board = settled(path, lambda: read(path))
    except (AdbenchError, *MISREAD) as error:
        told = str(error) if isinstance(error, AdbenchError) else one_line(error)
        return 0, [
            Finding(board=name, file="board.json", where="", problem=f"cannot be compared with runs: {told}")
        ]
    found, count, lacking, elsewhere = [], 0, Counter[str](), set[tuple[str, str]]()
    seeds = _aurocs_of_seeds(board)
    both = [result for result in board.measured if result.job.key in own and result.status == "ok"]

    def scores_of(job: Job) -> pd.DataFrame:
        return canonical(own[job.key][1].scores(job))

    read_own = paced(scores_of, "scores compared", len(both), say)
    for result in both:
        again, source = own[result.job.key]
        try:
            scores = read_own(again.job)
        except AdbenchError as error:
            lost = source.folder(again.job) / SCORES
            passed_over(lost, str(error).removeprefix(f"{lost} "))
            continue
        count += 1
        lacking.update(set(PIXELS) & again.metrics.keys() - result.metrics.keys())
        others = seeds.get(_apart_from_seed(result.job), [])
        problems = [*_differences(result, board.scores.get(result.job.key), again, scores, others)]
        if problems:
            elsewhere.add((_made_on(result), _made_on(again)))
        found += [
            Finding(board=name, file="scores", where=str(result.job), problem=problem) for problem in problems
        ]
    for metric, jobs in sorted(lacking.items()):
        say(f"{path}: {metric} of {counted(jobs, 'job', 'jobs')} not compared: the board lacks it")
    for published, here in sorted(elsewhere):
        if published != here:
            how = "these round differently, and trainings make much of it"
            say(f"{path}: made on {published}; run on {here}: {how}")
    return count, found


def _apart_from_seed(job: Job) -> tuple[str, str]:
    return variant_of(job), job.category


def _aurocs_of_seeds(board: Board) -> dict[tuple[str, str], list[float]]:
    """The AUROCs of jobs that differ in their seed alone."""
    aurocs = board.results.set_index("key")["auroc"].dropna()
    found: dict[tuple[str, str], list[float]] = {}
    for job in (result.job for result in board.measured if result.job.key in aurocs):
        found.setdefault(_apart_from_seed(job), []).append(float(aurocs[job.key]))
    return found


def _made_on(result: Result) -> str:
    facts = result.machine
    versions = facts.get("versions")
    torch = versions.get("torch") if isinstance(versions, Mapping) else None
    place = facts.get("gpu") or f"{shown_cpu(facts)}, {facts.get('torch_threads')} threads"
    return f"{place}, torch {torch}"


def _differences(
    result: Result,
    published: pd.DataFrame | None,
    again: Result,
    own: pd.DataFrame,
    seeds: Sequence[float] = (),
) -> Iterator[str]:
    if published is None:
        yield "the board lacks its scores"
        return
    for name in PIXELS:
        told, found = result.metrics.get(name), again.metrics.get(name)
        if told is not None and found is None:
            yield f"{name}: {told:.4f} published, none in the run"
        elif told is not None and found is not None and abs(told - found) > PURITY[result.job.precision]:
            yield f"{name}: {told:.4f} published, {found:.4f} in the run"
    if not published[["sample_id", "label"]].equals(own[["sample_id", "label"]]):
        yield "the run has other test images"
        return
    before, after = (table["score"].to_numpy("float64") for table in (published, own))
    change = relative_change(before, after, before)
    if change > PURITY[result.job.precision]:
        labels = published["label"].to_numpy()
        aurocs = [metrics.auroc(scores, labels, 0.0) for scores in (before, after)]
        pair = f"AUROC {aurocs[0]:.4f} published, {aurocs[1]:.4f} in the run"
        yield f"scores differ by up to {change:.2g} (relative): {pair}{_as_seeds(aurocs[1], seeds)}"


def _as_seeds(auroc: float, seeds: Sequence[float]) -> str:
    """Whether an AUROC is what another seed might have, in words; empty where seeds do not tell."""
    if (reach := of_another_seed(seeds)) is None:
        return ""
    low, high = max(reach[0], 0.0), min(reach[1], 1.0)
    place = "within" if low <= auroc <= high else "outside"
    return f", {place} what another seed would have ({low:.4f} to {high:.4f}, 95 %)"

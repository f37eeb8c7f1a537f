"""A leaderboard with all that it rests on. Its tables follow from what was measured and from the scores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from adbench_tgan import metrics
from adbench_tgan.boards.audited import audited
from adbench_tgan.boards.cells import typed
from adbench_tgan.boards.schemas import LEADERBOARD, PAIRS, RESULTS
from adbench_tgan.jobs import Job
from adbench_tgan.leaderboard import METRICS, Rules, Standing, leaderboard_table, results_table, standings
from adbench_tgan.ranking.comparison import pairs
from adbench_tgan.ranking.published import Paper, with_papers
from adbench_tgan.results import Result
from adbench_tgan.terminal.pace import paced, silent
from adbench_tgan.text import DIGITS

RULES = Rules(seeds=3, pure=True)  # of a published board
IMAGE_METRICS = ("auroc", "average_precision", "f1_max", "fpr95", "balanced_accuracy")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a board states and no score can tell."""

    name: str
    dataset: Mapping[str, str]  # name, summary, source, licence
    protocol: Mapping[str, str]  # name, version, summary
    papers: tuple[Paper, ...] = ()  # what was published of these detectors on this dataset
    audit: Mapping[str, float] | None = None  # job key -> AUROC under the authors' evaluation
    note: str = ""  # what a reader must know before the numbers


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a leaderboard rests on: one dataset, one protocol, one set of images a category."""

    facts: Facts
    measured: tuple[Result, ...]  # one a job, in the order of results.csv; image metrics come from the scores
    scores: Mapping[str, pd.DataFrame]  # by job key: sample_id, label, score, sorted by sample_id
    losses: Mapping[str, pd.DataFrame]  # by job key: epoch, and the mean of each loss


@dataclass(frozen=True, kw_only=True)
class Board(Basis):
    """All of one leaderboard."""

    results: pd.DataFrame  # results.csv
    leaderboard: pd.DataFrame  # leaderboard.csv
    pairs: pd.DataFrame  # pairs.csv
    # Behind the leaderboard's rows; empty if the tables were read from files.
    standings: tuple[Standing, ...] = ()


def assemble(
    facts: Facts,
    measured: tuple[Result, ...],
    scores: Mapping[str, pd.DataFrame],
    losses: Mapping[str, pd.DataFrame],
    say: Callable[[str], None] = silent,
    rules: Rules = RULES,
    judged: Container[str] = (),
) -> Board:
    """Compute the tables. The scores must be `canonical`; `say` is told now and then how far it is.

    Of jobs that are `judged`, by key, the image metrics follow from the scores already.

    Raises:
        AdbenchError: a category has results on different images.
    """
    measured = judge_all(measured, scores, say, judged)
    # A tie in a cell's last digit must fall alike on every machine.
    table = results_table(measured).round(dict.fromkeys(METRICS, DIGITS))
    place = {key: position for position, key in enumerate(table["key"])}
    measured = tuple(sorted(measured, key=lambda result: place[result.job.key]))

    def read(job: Job) -> pd.DataFrame:
        return scores[job.key]

    ranked = standings(measured, paced(read, "scores resampled", len(scores), say), rules, judged=True)
    ordered = tuple(completed(each, facts) for each in ranked)
    return Board(
        facts=facts,
        measured=measured,
        scores=scores,
        losses=losses,
        results=typed(table, RESULTS.words, RESULTS.whole),
        leaderboard=typed(leaderboard_table(ordered), LEADERBOARD.words, LEADERBOARD.whole),
        pairs=typed(pairs(ordered), PAIRS.words, PAIRS.whole),
        standings=ordered,
    )


def tabulate(basis: Basis, say: Callable[[str], None] = silent) -> Board:
    """The board that rests on that, whose results are judged already; `say` is told now and then how far it is."""
    judged = {result.job.key for result in basis.measured}
    return assemble(basis.facts, basis.measured, basis.scores, basis.losses, say, judged=judged)


def judge_all(
    measured: Sequence[Result],
    scores: Mapping[str, pd.DataFrame],
    say: Callable[[str], None],
    judged: Container[str] = (),
) -> tuple[Result, ...]:
    """Each result as `judge` makes it, but for those `judged` already; `say` is told now and then how far it is."""
    count = sum(result.job.key not in judged for result in measured)
    judging = paced(partial(judge, scores=scores), "metrics computed", count, say)
    return tuple(result if result.job.key in judged else judging(result) for result in measured)


def judge(result: Result, scores: Mapping[str, pd.DataFrame]) -> Result:
    """Replace a result's image metrics by those of its scores; pixel metrics stay, their maps are not kept."""
    if result.status != "ok":
        return result
    table = scores[result.job.key]
    # Each metric sorts them, which is soon done where they are in order.
    falling = np.argsort(-table["score"].to_numpy(), kind="stable")
    values, labels = (table[name].to_numpy()[falling] for name in ("score", "label"))
    names = [name for name in IMAGE_METRICS if name != "balanced_accuracy" or result.threshold is not None]
    found = {name: getattr(metrics, name)(values, labels, result.threshold) for name in names}
    return replace(result, metrics={**result.metrics, **found})


def completed(standing: Standing, facts: Facts) -> Standing:
    """A row with what papers print beside it, and what comes out under their evaluation."""
    standing = with_papers(standing, facts.protocol["name"], facts.papers)
    as_published, caution = audited(standing.members, facts.audit or {})
    remark = "; ".join(text for text in (standing.line["remark"], caution) if text)
    return replace(standing, line={**standing.line, "as_published_auroc": as_published, "remark": remark})


def canonical(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores in the one form that is published: text ids in order, labels of a byte, scores in single precision."""
    table = scores[["sample_id", "label", "score"]].astype(
        {"sample_id": str, "label": "uint8", "score": "float32"}
    )
    return table.sort_values("sample_id", kind="stable", ignore_index=True)


def labels_hash(scores: pd.DataFrame) -> str:
    """SHA-256 of the test images' names and labels."""
    columns = (scores[name].tolist() for name in ("sample_id", "label"))  # lists are quicker to walk through
    lines = (f"{name}\t{label}\n" for name, label in zip(*columns, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def scores_hash(scores: pd.DataFrame) -> str:
    """SHA-256 of the scores alone, as little-endian single precision."""
    return hashlib.sha256(scores["score"].to_numpy().astype("<f4").tobytes()).hexdigest()

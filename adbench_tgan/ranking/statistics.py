"""How sure a number is: resampled AUROCs, paired by images and seeds; tests of differences over categories.

The generators are NumPy's frozen ones, whose streams no release changes: anyone gets the same intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adbench_tgan.text import DIGITS

Floats = NDArray[np.float64]
Counts = NDArray[np.float32]  # whole numbers, and halves for ties

RESAMPLES = 1000
MOVES = 20  # of each resample, by other seeds: a thousand draws of Student's t leave its tails to chance
INTERVAL = (2.5, 97.5)  # percentiles
ABSENT = -1  # the label of an image that a category does not have
SPREADS = 100  # times the spread of scores: no more than that is what a change is measured by
EXACT = 15  # up to so many categories all signs are tried, 2**15 of them


@dataclass(frozen=True)
class Draws:
    """How often each test image was drawn, of all categories; and which rows of that are one category's, in order."""

    counts: Counts  # (images, RESAMPLES)
    rows: NDArray[np.int64]  # (N,)
    labels: NDArray[np.bool_]  # (N,), True = anomaly


def draws(fingerprint: str, labels: NDArray[np.integer[Any]]) -> Iterator[Draws]:
    """Draw the test images of one or more categories anew; a `Draws` for each category, of its own images.

    `labels` (categories, images): 1 for an anomaly, 0 for a normal image, `ABSENT` for one of other categories only.
    Categories share what is drawn of the images that they share, such as all in one-vs-rest. Images are drawn within
    strata: of the same labels in every category, which for one-vs-rest are the classes. The same for all detectors
    and seeds, so that they are paired.
    """
    random = np.random.RandomState([int(fingerprint[start : start + 8], 16) for start in (0, 8)])
    counts = np.empty((labels.shape[1], RESAMPLES), np.float32)
    _, strata = np.unique(labels, axis=1, return_inverse=True)
    for stratum in range(strata.max() + 1):
        chosen = strata.ravel() == stratum
        counts[chosen] = _drawn(random, int(chosen.sum()))
    for of_category in labels:
        rows = np.flatnonzero(of_category != ABSENT)
        yield Draws(counts, rows, of_category[rows] == 1)


def _drawn(random: np.random.RandomState, images: int) -> Counts:
    chosen = random.randint(0, images, size=(RESAMPLES, images), dtype=np.int32)
    counted = np.empty((RESAMPLES, images), np.float32)
    for row, of_row in zip(counted, chosen, strict=True):  # one after another, each in the processor's cache
        row[:] = np.bincount(of_row, minlength=images)
    return np.ascontiguousarray(counted.T)


def resampled_auroc(scores: NDArray[np.floating[Any]], drawn: Draws) -> Floats:
    """The AUROC of each resample, (RESAMPLES,); ties count half.

    An anomaly wins over the normals below it: images of the larger group are added up by how many images of the
    smaller are below them, all resamples at once. All sums are exact.
    """
    from scipy.sparse import csr_matrix

    anomalies_are_few = 2 * int(drawn.labels.sum()) < len(drawn.labels)
    is_few = drawn.labels == anomalies_are_few
    few, many = scores[is_few], scores[~is_few]
    order = np.argsort(few, kind="stable")
    # How many are drawn among the lowest k, exact below 2**24; row by row, which is four times as fast as cumsum.
    below = np.zeros((len(few) + 1, drawn.counts.shape[1]), np.float32)
    for place, row in enumerate(drawn.rows[is_few][order]):
        np.add(below[place], drawn.counts[row], out=below[place + 1])
    left, right = (np.searchsorted(few[order], many, side=side) for side in ("left", "right"))
    tied = left < right
    columns = drawn.rows[~is_few]
    entries = np.concatenate([left, right[tied]]), np.concatenate([columns, columns[tied]])
    weights = np.concatenate([np.where(tied, 0.5, 1), np.full(tied.sum(), 0.5)]).astype(np.float32)
    shape = (len(below), len(drawn.counts))
    gathered = csr_matrix((weights, entries), shape=shape) @ drawn.counts
    above = np.einsum("kr,kr->r", gathered, below, dtype=np.float64)  # pairs that the larger group wins
    pairs = len(few) * len(many)  # as many as there are are drawn
    total: Floats = (pairs - above if anomalies_are_few else above) / pairs
    return total


def over_seeds(aurocs: Floats) -> Floats:
    """Means over seeds as other images and other seeds would spread them: (seeds, RESAMPLES) -> (MOVES * RESAMPLES,).

    Few seeds drawn from themselves vary too little: intervals of three would hold the truth 75 times of 100. So the
    mean of the resampled images is moved by what other seeds may do to it, `MOVES` times: the standard error over
    seeds times a variate of Student's t, by weights of the seeds' deviations that are the same in every category,
    which may share a seed's luck, and for all detectors, which are thereby paired by seeds.
    """
    count = len(aurocs)
    mean: Floats = np.tile(aurocs.mean(axis=0), MOVES)
    if count == 1:
        return mean
    random = np.random.RandomState(count)
    normal = random.standard_normal((count, len(mean)))
    weights = normal / np.sqrt(count * random.chisquare(count - 1, len(mean)))
    each = aurocs.mean(axis=1)
    moved: Floats = mean + (each - each.mean()) @ weights
    return moved


def relative_change(before: Floats, after: Floats, among: Floats) -> float:
    """The largest change of a score; 1 where one is no number any more.

    Relative to the largest of the scores `among` which it is, or to `SPREADS` times their spread (5th to 95th
    percentile) where that is less, so that a constant in all scores hides nothing.
    """
    change = float(np.abs(after - before).max())
    if not np.isfinite(change):
        return 1.0
    largest = np.abs(among).max()
    spread = SPREADS * np.subtract(*np.percentile(among.astype(np.float64), (95, 5)))
    return float(change / max(min(largest, spread) if spread else largest, np.finfo(np.float32).tiny))


def interval(spread: Floats) -> tuple[float, float]:
    """The 95 % interval of a resampled number, to `DIGITS`: one that is zero but for rounding is zero."""
    low, high = np.round(np.percentile(spread, INTERVAL), DIGITS) + 0.0  # no minus before a zero
    return float(low), float(high)


def of_another_seed(values: Sequence[float]) -> tuple[float, float] | None:
    """Where one more value like these would be, 95 times of 100: a prediction interval by Student's t.

    None where that cannot be told: there are fewer than three, or all are equal.
    """
    from scipy.stats import t

    count = len(values)
    if count < 3 or len(set(values)) == 1:
        return None
    mean = float(np.mean(values))
    reach = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1)) * (1 + 1 / count) ** 0.5
    return mean - reach, mean + reach


def groups(means: Sequence[float], spreads: Sequence[Floats]) -> list[tuple[int, int]]:
    """Rank and tie group of each: those whose paired difference to a group's best may be zero share its rank."""
    found: dict[int, tuple[int, int]] = {}
    leader = -1
    for position, i in enumerate(sorted(range(len(means)), key=lambda i: -means[i]), start=1):
        if leader >= 0 and interval(spreads[leader] - spreads[i])[0] <= 0:
            found[i] = found[leader]
        else:
            found[i] = position, found[leader][1] + 1 if leader >= 0 else 1
            leader = i
    return [found[i] for i in range(len(means))]


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of the signed-rank test over categories; exact, also with ties, up to `EXACT` categories."""
    from scipy import stats

    values = np.round(differences, DIGITS)  # equal ones are equal on every machine
    values = values[values != 0]
    if len(values) < 2:  # one category alone points somewhere by any chance
        return 1.0
    if len(values) > EXACT:
        return float(stats.wilcoxon(values, method="approx").pvalue)
    ranks = stats.rankdata(np.abs(values))
    found, of_chance = ranks[values > 0].sum(), np.zeros(1)  # sums of halves: exact
    for rank in ranks:  # every way in which they could have pointed
        of_chance = np.concatenate([of_chance, of_chance + rank])
    return float(min(1.0, 2 * min((of_chance <= found).mean(), (of_chance >= found).mean())))


def p_floor(categories: int) -> float:
    """The smallest p that the signed-rank test can give: all categories point the same way, or only `EXACT` differ."""
    floor = 2.0 ** (1 - min(max(categories, 1), EXACT))
    return min(floor, wilcoxon(range(1, categories + 1))) if categories > EXACT else floor


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment for testing several hypotheses at once."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(p) for p in adjusted]

"""Resampling, tie groups and tests, against brute force and other libraries."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from adbench_tgan.ranking.statistics import (
    ABSENT,
    MOVES,
    RESAMPLES,
    Draws,
    draws,
    groups,
    holm,
    interval,
    of_another_seed,
    over_seeds,
    p_floor,
    relative_change,
    resampled_auroc,
    wilcoxon,
)

FINGERPRINT = "0123456789abcdef" * 4


def positives(drawn):
    """How often each anomaly was drawn."""
    return drawn.counts[drawn.rows[drawn.labels]]


def negatives(drawn):
    return drawn.counts[drawn.rows[~drawn.labels]]


def test_resampled_auroc_equals_scikit_learn_on_the_images_drawn():
    draw = np.random.default_rng(0)
    scores = draw.integers(0, 8, 50).astype(np.float32)  # many ties
    labels = draw.random(50) < 0.4
    (drawn,) = draws(FINGERPRINT, labels[None])
    found = resampled_auroc(scores, drawn)
    weights = np.empty(50)
    for i in range(20):
        weights[labels], weights[~labels] = positives(drawn)[:, i], negatives(drawn)[:, i]
        assert found[i] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12)


def test_without_resampling_it_is_the_auroc():
    labels = np.repeat([False, True], [7, 5])
    scores = np.random.default_rng(1).normal(size=12)
    once = Draws(np.ones((12, RESAMPLES), np.float32), np.arange(12), labels)
    assert resampled_auroc(scores, once) == pytest.approx(roc_auc_score(labels, scores))


def test_draws_are_within_each_class_and_the_same_everywhere():
    labels = np.arange(30) % 3 == 0
    (one,), (other,) = draws(FINGERPRINT, labels[None]), draws(FINGERPRINT[::-1], labels[None])
    assert (positives(one).sum(axis=0) == 10).all()
    assert (negatives(one).sum(axis=0) == 20).all()
    assert (positives(one) != positives(other)).any()
    # NumPy promises that this generator's stream never changes; a published interval rests on it.
    assert negatives(one)[:10, 0].tolist() == [0, 1, 2, 1, 0, 0, 2, 1, 0, 1]
    assert positives(one).mean(axis=1) == pytest.approx(np.ones(10), abs=0.15)


def test_categories_of_the_same_images_share_what_is_drawn():
    classes = np.repeat(np.arange(3), [20, 30, 50])
    labels = np.stack([classes != category for category in range(3)])
    drawn = list(draws(FINGERPRINT, labels))
    counts = np.empty((100, RESAMPLES), np.float32)
    counts[labels[0]], counts[~labels[0]] = positives(drawn[0]), negatives(drawn[0])
    for category, each in enumerate(drawn):
        assert (positives(each) == counts[labels[category]]).all()
        assert (negatives(each) == counts[~labels[category]]).all()
        assert (negatives(each).sum(axis=0) == (classes == category).sum()).all()


def test_categories_that_share_some_images_share_what_is_drawn_of_them():
    labels = np.full((2, 60), ABSENT, np.int8)
    labels[0, :40] = np.arange(40) % 2  # 20 images of its own, 20 shared
    labels[1, 20:] = np.arange(40) % 4 == 0
    one, other = draws(FINGERPRINT, labels)
    assert (len(one.labels), len(other.labels)) == (40, 40)
    assert [*one.labels[:3], *other.labels[:2]] == [False, True, False, True, False]
    counts = np.full((2, 60, RESAMPLES), np.nan, np.float32)
    for row, each in enumerate((one, other)):
        counts[row, labels[row] == 1], counts[row, labels[row] == 0] = positives(each), negatives(each)
        assert (positives(each).sum(axis=0) == each.labels.sum()).all()
    assert (counts[0, 20:40] == counts[1, 20:40]).all()
    assert np.isnan(counts[0, 40:]).all()


def test_the_mean_over_categories_spreads_as_the_images_that_they_share():
    """Of 300 shared normal images and 60 anomalies of each category, against test sets that are drawn again."""
    made = np.random.default_rng(7)

    def mean_auroc(normal, abnormal):
        return (normal < abnormal[..., None]).mean()

    again = [mean_auroc(made.normal(size=300), made.normal(1, 1, (6, 60))) for _ in range(400)]
    normal, abnormal = made.normal(size=300), made.normal(1, 1, (6, 60))
    labels = np.full((6, 660), ABSENT, np.int8)
    labels[:, :300] = 0
    for category in range(6):
        labels[category, 300 + 60 * category : 360 + 60 * category] = 1
    spreads = [
        resampled_auroc(np.append(normal, abnormal[category]), drawn)
        for category, drawn in enumerate(draws(FINGERPRINT, labels))
    ]
    assert np.mean(spreads, axis=0).std() == pytest.approx(np.std(again), rel=0.15)


def test_seeds_are_drawn_alike_in_every_category():
    luck = np.array([[0.9], [0.5], [0.1]]) + np.zeros(RESAMPLES)
    assert over_seeds(luck) + over_seeds(1 - luck) == pytest.approx(np.ones(MOVES * RESAMPLES))


def test_of_one_score_for_all_categories_the_mean_does_not_spread():
    classes = np.repeat(np.arange(4), 50)
    scores = np.random.default_rng(5).normal(size=200)  # such as noise that knows no category
    labels = np.stack([classes != category for category in range(4)])
    together = np.mean([resampled_auroc(scores, drawn) for drawn in draws(FINGERPRINT, labels)], axis=0)
    apart = [next(draws(FINGERPRINT[n:] + FINGERPRINT[:n], each[None])) for n, each in enumerate(labels)]
    independent = np.mean([resampled_auroc(scores, drawn) for drawn in apart], axis=0)
    assert together == pytest.approx(
        np.full(RESAMPLES, 0.5)
    )  # classes of one size win over each other to a half
    assert independent.std() > 0.01


def test_the_interval_over_seeds_is_as_wide_as_seeds_and_images_together():
    draw = np.random.default_rng(2)
    means = draw.normal(0.8, 0.05, 40)
    aurocs = means[:, None] + draw.normal(0, 0.01, RESAMPLES)  # all seeds see the same images
    spread = over_seeds(aurocs)
    assert spread.std() == pytest.approx(np.hypot(means.std() / 40**0.5, 0.01), rel=0.15)
    assert over_seeds(aurocs[:1]) == pytest.approx(np.tile(aurocs[0], MOVES))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_intervals_of_few_seeds_hold_the_truth_as_often_as_they_say(count):
    draw = np.random.default_rng(4)
    found = [over_seeds(np.repeat(draw.normal(0, 1, count)[:, None], RESAMPLES, 1)) for _ in range(1000)]
    covered = np.mean([low <= 0 <= high for low, high in map(interval, found)])
    assert 0.935 < covered < 0.965
    alike = [
        interval(a - b) for a, b in zip(found[::2], found[1::2], strict=True)
    ]  # detectors as good as each other
    assert np.mean([low > 0 or high < 0 for low, high in alike]) < 0.09


def test_intervals_of_seeds_far_apart_near_1_are_as_much_too_narrow_as_the_columns_say():
    draw, mean, spread = np.random.default_rng(2), 0.97, 0.04
    both = mean * (1 - mean) / spread**2 - 1  # parameters of the beta distribution together
    seeds = draw.beta(mean * both, (1 - mean) * both, (600, 3))
    found = [interval(over_seeds(np.repeat(each[:, None], RESAMPLES, 1))) for each in seeds]
    assert 0.79 < np.mean([low <= mean <= high for low, high in found]) < 0.87


@pytest.mark.parametrize("count", [3, 5])
def test_to_each_side_of_few_seeds_there_is_what_students_t_says(count):
    """Whichever way the seeds differ: of a thousand draws the arms were .7 to 1.2 of that."""
    for means in np.random.default_rng(6).normal(size=(50, count)):
        low, high = interval(over_seeds(np.repeat(means[:, None], RESAMPLES, 1)))
        arm = stats.t.ppf(0.975, count - 1) * means.std(ddof=1) / count**0.5
        assert [means.mean() - low, high - means.mean()] == pytest.approx([arm, arm], rel=0.08)


@pytest.mark.parametrize("count", [3, 10])
def test_another_seed_is_where_it_is_said_to_be_as_often_as_is_said(count):
    values = np.random.default_rng(0).normal(0.9, 0.01, (4000, count + 1))
    inside = [low <= another <= high for *seeds, another in values for low, high in [of_another_seed(seeds)]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)
    assert of_another_seed([0.9, 0.8]) is None
    assert of_another_seed([0.9] * count) is None


def test_a_difference_of_rounding_is_none():
    noise = np.full(RESAMPLES, 2e-16)
    low, high = interval(-noise)
    assert (low, high, np.signbit(low)) == (0, 0, False)
    assert groups([0.5 + 2e-16, 0.5], [0.5 + noise, np.full(RESAMPLES, 0.5)]) == [(1, 1), (1, 1)]


def test_groups_are_led_by_their_best():
    noise = np.random.default_rng(3).normal(0, 0.01, RESAMPLES)
    spreads = [0.90 + noise, 0.95 + noise[::-1], 0.94 + noise, 0.5 + noise]
    assert groups([0.90, 0.95, 0.94, 0.5], spreads) == [(3, 2), (1, 1), (1, 1), (4, 3)]
    assert groups([], []) == []


def test_wilcoxon_is_exact_and_reaches_its_floor():
    up = [0.01, 0.02, 0.03, 0.05, 0.08]
    assert wilcoxon(up) == p_floor(5) == 0.0625
    assert p_floor(10) == 2**-9
    assert p_floor(25) == wilcoxon(np.arange(1.0, 26.0)) < p_floor(15)
    assert p_floor(16) == wilcoxon(
        [0.0, *np.arange(1.0, 16.0)]
    )  # one of them is a tie, and the rest are exact
    mixed = [0.03, -0.01, 0.02, 0.05, -0.04, 0.07, 0.011]
    assert wilcoxon(mixed) == pytest.approx(stats.wilcoxon(mixed, method="exact").pvalue)
    assert wilcoxon([0.0, 0.0]) == 1.0
    assert wilcoxon([0.3]) == wilcoxon([0.3, 0.0]) == p_floor(1) == 1.0
    assert wilcoxon([*up, 0.0]) == 0.0625
    assert wilcoxon([0.1 + 0.2, 0.3, -0.3]) == wilcoxon([0.3, 0.3, -0.3])  # ties despite rounding
    assert 0 < wilcoxon(np.linspace(0.01, 0.4, 40)) < 1e-6


def test_wilcoxon_with_ties_tries_every_sign():
    every_sign = stats.PermutationMethod(n_resamples=2**9)
    for differences in np.random.default_rng(0).integers(-3, 4, size=(20, 8)):
        expected = stats.wilcoxon(differences[differences != 0], method=every_sign).pvalue
        assert wilcoxon(differences) == pytest.approx(expected)


def test_wilcoxon_makes_no_table_of_all_signs():
    wilcoxon([0.1, 0.2])  # imports
    tracemalloc.start()
    assert wilcoxon(np.arange(1.0, 16.0)) == 2**-14
    assert tracemalloc.get_traced_memory()[1] < 3 * 8 * 2**15  # bytes: sums, and what they come from
    tracemalloc.stop()


def test_a_change_is_relative_to_the_largest_score_but_to_no_more_than_a_hundred_spreads():
    scores = np.arange(101.0)  # from the 5th to the 95th percentile 90
    few = scores[:3]
    assert relative_change(few, few - np.array([0, 0.5, -0.25]), scores) == 0.5 / 100
    assert relative_change(few, few + 0.5, scores + 1e6) == pytest.approx(0.5 / 9000)
    assert relative_change(few, few + 0.5, -scores) == 0.5 / 100
    assert relative_change(few, few + 0.5, np.append(np.full(100, 8.0), 16.0)) == 0.5 / 16  # without a spread
    assert relative_change(few, few, np.zeros(5)) == 0.0
    for wrong in (np.nan, np.inf):
        assert relative_change(few, np.append(few[:2], wrong), scores) == 1.0


def test_holm_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = [0.04, 0.001, 0.03, 0.2, 0.005]
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_of_more_categories_the_signed_rank_test_is_the_normal_one_without_a_correction():
    differences = np.arange(1.0, 21.0) * np.where(np.arange(20) % 4 == 0, -1, 1)
    won, count = differences[differences > 0].sum(), 20  # each is its own rank
    deviation = (count * (count + 1) * (2 * count + 1) / 24) ** 0.5
    expected = 2 * stats.norm.sf(abs(won - count * (count + 1) / 4) / deviation)
    assert wilcoxon(differences) == pytest.approx(expected)

"""Metrics against values worked out by hand and properties that must hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_auc_score

from adbench_tgan import metrics

LABELS = np.array([0, 0, 0, 1, 1], dtype=np.uint8)
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.38], dtype=np.float32)  # one normal image above one anomaly

pairs = st.lists(st.tuples(st.integers(-1000, 1000), st.booleans()), min_size=4, max_size=40).filter(
    lambda items: len({label for _, label in items}) == 2
)


def arrays(items):
    return np.array([s for s, _ in items], dtype=np.float32), np.array([int(y) for _, y in items])


def test_values_by_hand():
    assert metrics.auroc(SCORES, LABELS, 0) == pytest.approx(5 / 6)
    assert metrics.average_precision(SCORES, LABELS, 0) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.f1_max(SCORES, LABELS, 0) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert metrics.fpr95(SCORES, LABELS, 0) == pytest.approx(1 / 3)
    assert metrics.balanced_accuracy(SCORES, LABELS, 0.39) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_the_operating_point_of_fpr95_is_the_first_that_reaches_it():
    scores, labels = np.repeat(np.arange(20.0), 2), np.array([0, 1] * 20)  # a diagonal of twenty equal steps
    assert metrics.fpr95(scores, labels, 0) == 0.95


def test_the_best_f1_may_have_a_precision_and_a_recall_of_less_than_half():
    labels = np.repeat([0, 1, 0, 1], [6, 4, 84, 6])  # from the highest score down
    assert metrics.f1_max(-np.arange(100.0), labels, 0) == pytest.approx(
        0.4
    )  # 4 of the first 10, and 4 of 10


def test_a_score_at_the_threshold_is_normal_and_one_that_is_above_it_by_the_last_bit_is_not():
    scores, labels = np.array([0.5, 0.7], np.float32), np.array([0, 1])
    for threshold in (0.5, float(scores[1]) - 1e-9):
        assert metrics.balanced_accuracy(scores, labels, threshold) == 1.0
    assert metrics.balanced_accuracy(scores, labels, float(scores[1])) == 0.5


@settings(deadline=None)
@given(pairs)
def test_the_auroc_is_that_of_scikit_learn_to_the_bit(items):
    scores, labels = arrays(items)
    assert metrics.auroc(scores, labels, 0) == roc_auc_score(labels, scores.astype("float64"))


def test_large_scores_keep_their_order():
    """A sigmoid would turn all of these into 1, and the AUROC into 0.5."""
    assert metrics.auroc(SCORES * 10 + 4000, LABELS, 0) == pytest.approx(5 / 6)


def test_an_auroc_below_half_is_not_flipped():
    assert metrics.auroc(-SCORES, LABELS, 0) == pytest.approx(1 / 6)


def test_balanced_accuracy_is_not_an_auroc():
    """The thesis's .7798 is the balanced accuracy of 871/1000 and 688/999 (specification, 10.6)."""
    labels = np.repeat([0, 1], [1000, 999])
    scores = np.concatenate([np.arange(1000) < 129, np.arange(999) < 688]).astype(np.float32)
    noise = np.linspace(0, 0.4, 1999, dtype=np.float32)
    value = metrics.balanced_accuracy(scores + noise, labels, 0.5)
    assert value == pytest.approx(0.7798443443, abs=1e-9)
    assert metrics.auroc(scores, labels, 0.5) == pytest.approx(value)
    assert metrics.auroc(scores + noise, labels, 0.5) != pytest.approx(value, abs=1e-3)


@settings(deadline=None)
@given(pairs)
def test_auroc_counts_pairs(items):
    scores, labels = arrays(items)
    wins = [(a > b) + (a == b) / 2 for a in scores[labels == 1] for b in scores[labels == 0]]
    assert metrics.auroc(scores, labels, 0) == pytest.approx(np.mean(wins))


@settings(deadline=None)
@given(pairs, st.integers(0, 2**32 - 1))
def test_order_of_images_and_increasing_maps_change_nothing(items, seed):
    scores, labels = arrays(items)
    order = np.random.default_rng(seed).permutation(len(scores))
    for metric in (metrics.auroc, metrics.average_precision, metrics.f1_max, metrics.fpr95):
        value = metric(scores, labels, 0)
        assert metric(scores[order], labels[order], 0) == pytest.approx(value)
        assert metric(scores * 3 - 7, labels, 0) == pytest.approx(value)


def aupro_by_hand(maps, masks, limit=0.3):
    """Per-region overlap integrated over the false positive rate, thresholds at every value (float64)."""
    from scipy.ndimage import label

    regions = [m == k for m in (label(mask)[0] for mask in masks) for k in range(1, m.max() + 1)]
    owner = [i for i, mask in enumerate(masks) for _ in range(label(mask)[1])]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        hit = maps >= threshold
        false = (hit & (masks == 0)).sum() / (masks == 0).sum()
        points.append(
            (false, np.mean([hit[i][region].mean() for i, region in zip(owner, regions, strict=True)]))
        )
    x, y = np.array(points).T
    inside = x <= limit
    edge = np.interp(limit, x, y)
    return auc([*x[inside], limit], [*y[inside], edge]) / limit


def test_pixel_metrics_against_a_direct_computation():
    draw = np.random.default_rng(0)
    masks = np.zeros((3, 16, 16), dtype=np.uint8)
    masks[0, 2:6, 2:6] = 1
    masks[0, 10:12, 9:15] = 1
    masks[1, 5:9, 1:3] = 1
    maps = (draw.random((3, 16, 16)) + 0.5 * masks).astype(np.float32)
    assert metrics.aupro(maps, masks) == pytest.approx(aupro_by_hand(maps, masks), abs=1e-5)
    wins = maps[masks == 1][:, None] > maps[masks == 0][None]
    assert metrics.pixel_auroc(maps, masks) == pytest.approx(wins.mean())
    assert metrics.aupro(maps * 40 + 7, masks) == pytest.approx(metrics.aupro(maps, masks), abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("metric", [metrics.aupro, metrics.pixel_auroc])
def test_maps_that_are_not_finite_have_no_pixel_metric(metric, value):
    maps, masks = np.zeros((1, 8, 8), np.float32), np.zeros((1, 8, 8), np.uint8)
    maps[0, 0, 0], masks[0, 2:4, 2:4] = value, 1
    with pytest.raises(ValueError, match=r"not finite|NaN|infinity"):
        metric(maps, masks)


def touching_masks() -> np.ndarray:
    """Of three images: a square, two pixels that touch at a corner, nothing."""
    masks = np.zeros((3, 8, 8), np.uint8)
    masks[0, 2:5, 2:5] = masks[1, 1, 1] = masks[1, 2, 2] = 1
    return masks


def test_regions_are_those_of_anomalib_where_each_mask_leaves_a_pixel_free():
    import torch
    from anomalib.metrics.aupro import _AUPRO

    draw = np.random.default_rng(0)
    for masks in (
        touching_masks(),
        *((draw.random((4, 24, 24)) < share).astype(np.uint8) for share in (0.1, 0.4)),
    ):
        maps = (draw.random(masks.shape) + 0.3 * masks).astype(np.float32)
        theirs = _AUPRO(fpr_limit=0.3)
        theirs.update(torch.from_numpy(maps), torch.from_numpy(masks).long())
        assert metrics.aupro(maps, masks) == float(theirs.compute())


@pytest.mark.parametrize("whole", [1, 2])
def test_a_mask_that_covers_its_whole_image_is_a_region(whole):
    masks = touching_masks()
    masks[:whole] = 1
    assert metrics.aupro(masks.astype(np.float32), masks) == 1


def test_masks_that_leave_no_pixel_free_have_no_false_positive_rate():
    masks = np.ones((2, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="no false positive rate"):
        metrics.aupro(masks.astype(np.float32), masks)


def test_masks_without_a_defect_have_no_region_to_overlap():
    masks = np.zeros((2, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="no region to overlap"):
        metrics.aupro(np.ones((2, 8, 8), np.float32), masks)

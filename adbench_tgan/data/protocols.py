"""The protocols: how one category of a dataset is cut into training and test images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adbench_tgan.data.samples import Cut, Indices, Samples
from adbench_tgan.errors import DataError

SPLIT_SEED = 0  # of every random choice in a protocol; the training seed is another number
KMEANS_SIDE = 32  # images are compared at this side at most when labelled anomalies are chosen


def one_vs_rest(samples: Samples, category: str) -> Cut:
    """Train on one class; test on the whole official test split, in which all other classes are anomalies."""
    normal, test = samples.where("train", only=category), samples.where("test")
    others = samples.where("train", but=category)
    return Cut(
        normal=normal,
        test=test,
        labels=_is_not(samples, test, category),
        on_offer=others,
        choose_anomalies=lambda: sample_by_kmeans(samples, others, len(normal)),
    )


def one_vs_rest_1k(samples: Samples, category: str) -> Cut:
    """As one-vs-rest, on a fixed subset of 1,000 test images, stratified by class."""
    from sklearn.model_selection import train_test_split

    cut = one_vs_rest(samples, category)
    if len(cut.test) < 1000:
        raise DataError(f"one-vs-rest-1k needs 1,000 test images, there are {len(cut.test)}; use one-vs-rest")
    if len(cut.test) == 1000:
        return cut
    classes = [samples.classes[i] for i in cut.test]
    try:
        chosen, _ = train_test_split(cut.test, train_size=1000, stratify=classes, random_state=SPLIT_SEED)
    except ValueError as error:  # a class of one image, or fewer images left over than classes
        raise DataError(f"1,000 test images cannot be chosen by class ({error}); use one-vs-rest") from None
    test = np.sort(chosen)
    labels = _is_not(samples, test, category)
    return replace(cut, test=test, labels=labels)


def leave_one_out(samples: Samples, category: str) -> Cut:
    """Train on all classes but one; test on the official test split, in which that one is the anomaly."""
    test = samples.where("test")
    labels = 1 - _is_not(samples, test, category)
    return Cut(normal=samples.where("train", but=category), test=test, labels=labels)


def leave_one_out_6k(samples: Samples, category: str) -> Cut:
    """As leave-one-out, with all images of the abnormal class, training split included, as test anomalies.

    The test set of the GANomaly family: on CIFAR-10 9,000 normal and 5,000 + 1,000 abnormal images.
    """
    cut = leave_one_out(samples, category)
    test = np.concatenate(
        [
            samples.where("test", but=category),
            samples.where("train", only=category),
            samples.where("test", only=category),
        ]
    )
    return Cut(normal=cut.normal, test=test, labels=1 - _is_not(samples, test, category))


def official(samples: Samples, category: str) -> Cut:
    """Train on the dataset's own good training images; test on its own test images, with masks."""
    test = samples.where("test")
    return Cut(normal=samples.where("train", only="good"), test=test, labels=_is_not(samples, test, "good"))


def sample_by_kmeans(samples: Samples, others: Indices, wanted: int) -> Indices:
    """Choose about `wanted` of the images `others`, spread over clusters of their pixels.

    As the TransGAN thesis does for its labelled anomalies, but on training images only, and k-means begins once
    instead of nine times: one cluster a class, and ``wanted // clusters`` images, at least one, drawn from each (all
    of a cluster that has fewer).
    """
    from sklearn.cluster import KMeans

    clusters = len({samples.classes[i] for i in others})
    if clusters == 0:
        raise DataError("there is no class besides the normal one from which anomalies could be chosen")
    height = samples.read(int(others[0])).shape[1]
    pixels = samples.images(others, min(height, KMEANS_SIDE)).flatten(1).numpy().astype(np.float32) / 255
    cluster = KMeans(clusters, n_init=1, random_state=SPLIT_SEED).fit_predict(pixels)
    each = max(1, wanted // clusters)
    draw = np.random.default_rng(SPLIT_SEED)
    chosen = []
    for number in range(clusters):
        members = others[cluster == number]
        chosen.append(draw.choice(members, min(len(members), each), replace=False))
    return np.sort(np.concatenate(chosen))


def _is_not(samples: Samples, indices: Indices, name: str) -> np.ndarray:
    return np.array([samples.classes[i] != name for i in indices], dtype=np.uint8)

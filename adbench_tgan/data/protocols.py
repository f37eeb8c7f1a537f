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


def one_vs_rest_80(samples: Samples, category: str) -> Cut:
    """Train on the first 80 % of one class's training images; test on all other images of both splits.

    As A03ki's f-AnoGAN does: on MNIST's digit 1 5,393 training images, and 64,607 test images, 96 % of them abnormal.
    """
    own = samples.where("train", only=category)
    kept = len(own) * 4 // 5
    test = np.concatenate([own[kept:], samples.where("train", but=category), samples.where("test")])
    return Cut(normal=own[:kept], test=test, labels=_is_not(samples, test, category))


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


def leave_one_out_pooled(samples: Samples, category: str) -> Cut:
    """Train on 80 % of the images, of both splits, of all classes but one; test on the others and on all of that one.

    As EGBAD's code means to do, which draws training and test images one after the other, so that four fifths of its
    normal test images were trained on; here all is drawn once. GANomaly's code does it when it is given a seed: on
    CIFAR-10 43,200 training images, 10,800 normal and 6,000 abnormal test images.
    """
    from sklearn.model_selection import train_test_split

    pool = np.concatenate([samples.where("train", but=category), samples.where("test", but=category)])
    if len(pool) < 2:
        raise DataError(
            f"leave-one-out-pooled needs 2 images besides those of {category!r}, there are {len(pool)}; add some"
        )
    normal, others = train_test_split(pool, train_size=len(pool) * 4 // 5, random_state=SPLIT_SEED)
    abnormal = [samples.where("train", only=category), samples.where("test", only=category)]
    test = np.concatenate([np.sort(others), *abnormal])
    return Cut(normal=np.sort(normal), test=test, labels=1 - _is_not(samples, test, category))


def egbad_article(samples: Samples, category: str) -> Cut:
    """Train on the first 400 sevens and eights of MNIST; test on the first 600 test images of them and of `category`."""
    normal = _first(400, samples, "train", ("7", "8"))
    test = _first(600, samples, "test", ("7", "8", category))
    return Cut(normal=normal, test=test, labels=1 - _is_not(samples, test, category))


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


def _first(wanted: int, samples: Samples, part: str, classes: tuple[str, ...]) -> Indices:
    """The first images, in the files' order, of a part that are of one of the `classes`."""
    found = np.sort(np.concatenate([samples.where(part, only=name) for name in classes]))
    if len(found) < wanted:
        raise DataError(
            f"{wanted} {part} images of {', '.join(classes)} are needed, there are {len(found)}; "
            "use the whole dataset, or another --protocol"
        )
    return found[:wanted]

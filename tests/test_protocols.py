"""Each protocol: what it trains on, what it tests on, with which labels; and what a fingerprint notices."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import weakref
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from make_data import make_imagefolder, make_mnist, make_mvtec, save
from make_runs import toy_job
from PIL import Image

from adbench_tgan.commands.options import tasks_of
from adbench_tgan.data import cifar10, digits, files, imagefolder, mnist, mvtec, protocols
from adbench_tgan.data.cuts import checked
from adbench_tgan.data.files import Cache
from adbench_tgan.data.samples import (
    ChangedError,
    Cut,
    Samples,
    fingerprint,
    fingerprint_of,
    labelled_arrays,
    resize,
    split,
)
from adbench_tgan.data.tasks import Tasks
from adbench_tgan.describe import passport
from adbench_tgan.errors import AdbenchError, DataError
from adbench_tgan.failures import failed
from adbench_tgan.jobs import Request, plan
from adbench_tgan.registry import Registry
from adbench_tgan.runner import Settings

MINI = Path(__file__).parents[2] / "shared/data/cifar10_mini"
CLASSES = ("a", "b", "c", "d")


def tasks_in(root, dataset="digits"):
    """A dataset's categories under its own protocol."""
    return tasks_of(Registry.discover(), dataset, root, None, fetch=True)


def grey_samples(
    train: int = 10, test: int = 5, *, classes: tuple[str, ...] = CLASSES, side: int = 4
) -> Samples:
    """`train` and `test` noisy images a class, the classes in turn, each of its own brightness."""

    def part(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count * len(classes)) % len(classes)
        noise = np.random.default_rng(seed).integers(0, 20, (len(labels), 1, side, side))
        return (noise + 50 * labels[:, None, None, None]).astype(np.uint8), labels

    return labelled_arrays(classes, part(train, 0), part(test, 1))


def unreadable(samples: Samples, part: str) -> Samples:
    """The same samples, except that reading an image of `part` fails."""

    def read(index: int) -> np.ndarray:
        assert samples.parts[index] != part, f"{part} image {index} was read"
        return samples.read(index)

    return replace(samples, read=read)


def classes(samples: Samples, indices: np.ndarray) -> list[str]:
    return [samples.classes[i] for i in indices]


def tally(samples: Samples, indices: np.ndarray) -> dict[str, int]:
    names = classes(samples, indices)
    return {name: names.count(name) for name in sorted(set(names))}


def parts(samples: Samples, indices: np.ndarray) -> set[str]:
    return {samples.parts[i] for i in indices}


# what is trained on and tested on


def test_one_vs_rest():
    samples = grey_samples()
    cut = protocols.one_vs_rest(samples, "b")
    assert cut.normal.tolist() == list(range(1, 40, 4))
    assert cut.test.tolist() == list(range(40, 60))
    assert cut.labels.dtype == np.uint8
    assert cut.labels.tolist() == [1, 0, 1, 1] * 5
    checked(samples, cut, "b")


def test_one_vs_rest_offers_labelled_training_images_of_the_other_classes():
    samples = grey_samples()
    anomalies = protocols.one_vs_rest(samples, "b").choose_anomalies()
    assert tally(samples, anomalies) == {
        "a": 3,
        "c": 3,
        "d": 3,
    }  # 10 normal images, 10 // 3 from each cluster
    assert parts(samples, anomalies) == {"train"}
    assert anomalies.tolist() == sorted(set(anomalies.tolist()))


def test_anomalies_are_the_same_every_time():
    first = protocols.one_vs_rest(grey_samples(), "b").choose_anomalies()
    np.random.seed(5)  # noqa: NPY002 (a global generator that must not matter)
    second = protocols.one_vs_rest(grey_samples(), "b").choose_anomalies()
    assert first.tolist() == second.tolist()


def test_anomalies_are_chosen_without_seeing_a_test_image():
    samples = grey_samples()
    seen = protocols.one_vs_rest(samples, "b").choose_anomalies()
    blind = protocols.one_vs_rest(unreadable(samples, "test"), "b").choose_anomalies()
    assert blind.tolist() == seen.tolist()
    with pytest.raises(AssertionError, match="train image 0 was read"):  # the guard works
        protocols.one_vs_rest(unreadable(samples, "train"), "b").choose_anomalies()


def test_other_test_images_change_no_training_image():
    few, many = grey_samples(test=5), grey_samples(test=50)
    for name in ("one_vs_rest", "leave_one_out"):
        cuts = [getattr(protocols, name)(samples, "c") for samples in (few, many)]
        assert cuts[0].normal.tolist() == cuts[1].normal.tolist()
    chosen = [protocols.one_vs_rest(samples, "c").choose_anomalies().tolist() for samples in (few, many)]
    assert chosen[0] == chosen[1]


def test_anomalies_are_drawn_from_one_clustering_with_seeds_of_the_protocol(monkeypatch):
    samples, asked = grey_samples(), []
    others = samples.where("train", but="b")

    class Clusters:
        def __init__(self, *words, **named):
            asked.append((words, named))

        def fit_predict(self, pixels):
            asked.append((pixels.shape, pixels.dtype, pixels.max() <= 1))
            return np.arange(30) % 3

    monkeypatch.setattr("sklearn.cluster.KMeans", Clusters)
    chosen = protocols.sample_by_kmeans(samples, others, 10)
    assert asked == [((3,), {"n_init": 1, "random_state": 0}), ((30, 16), np.float32, True)]
    draw = np.random.default_rng(0)
    expected = [draw.choice(others[number::3], 3, replace=False) for number in range(3)]
    assert chosen.tolist() == sorted(np.concatenate(expected).tolist())


@pytest.mark.parametrize(("side", "compared"), [(8, 8), (32, 32), (40, 32)])
def test_anomalies_are_chosen_by_pixels_of_at_most_32_a_side(side, compared, monkeypatch):
    samples, seen, images = grey_samples(side=side), [], Samples.images
    monkeypatch.setattr(Samples, "images", lambda self, *given: seen.append(given[1]) or images(self, *given))
    protocols.one_vs_rest(samples, "b").choose_anomalies()
    assert seen == [compared]


def test_a_cluster_smaller_than_its_share_gives_all_it_has():
    labels = np.array([0] * 20 + [1] * 20 + [2] * 2)
    pixels = np.repeat((labels * 100).astype(np.uint8)[:, None, None, None], 4, axis=3)
    pixels = pixels + np.arange(42, dtype=np.uint8)[:, None, None, None] % 5
    samples = labelled_arrays(("a", "b", "c"), (pixels, labels), (pixels, labels))
    anomalies = protocols.one_vs_rest(samples, "a").choose_anomalies()
    assert tally(samples, anomalies) == {"b": 10, "c": 2}


def test_fewer_normals_than_classes_still_offer_one_anomaly_a_cluster():
    samples = grey_samples()
    anomalies = protocols.sample_by_kmeans(samples, samples.where("train", but="a"), 2)
    assert tally(samples, anomalies) == {"b": 1, "c": 1, "d": 1}


def test_no_other_class_no_anomalies():
    samples = grey_samples(classes=("a",))
    with pytest.raises(DataError, match="there is no class besides the normal one"):
        protocols.one_vs_rest(samples, "a").choose_anomalies()


def test_one_vs_rest_1k_is_stratified_and_fixed():
    samples = grey_samples(train=3, test=500)
    cut = protocols.one_vs_rest_1k(samples, "a")
    assert tally(samples, cut.test) == {"a": 250, "b": 250, "c": 250, "d": 250}
    assert cut.test.tolist() == sorted(set(cut.test.tolist()))
    assert parts(samples, cut.test) == {"test"}
    assert cut.labels.tolist() == [name != "a" for name in classes(samples, cut.test)]
    assert cut.normal.tolist() == protocols.one_vs_rest(samples, "a").normal.tolist()
    assert cut.choose_anomalies is not None
    assert cut.test[:9].tolist() == [15, 16, 17, 18, 20, 21, 22, 27, 28]  # a draw; now and with any version
    for category in CLASSES:  # one subset for all categories
        assert protocols.one_vs_rest_1k(samples, category).test.tolist() == cut.test.tolist()


def test_one_vs_rest_1k_keeps_a_thousand():
    samples = grey_samples(train=3, test=250)
    assert protocols.one_vs_rest_1k(samples, "a").test.tolist() == list(range(12, 1012))


def test_one_vs_rest_1k_of_too_few_images():
    with pytest.raises(DataError, match=r"needs 1,000 test images, there are 596; use one-vs-rest"):
        protocols.one_vs_rest_1k(digits.load(Path(), False).samples("0"), "0")


def test_one_vs_rest_1k_that_cannot_be_stratified():
    samples = grey_samples(train=3, test=251)
    samples = replace(samples, classes=[*samples.classes[:-1], "alone"])
    with pytest.raises(DataError, match=r"1,000 test images cannot be chosen by class .*; use one-vs-rest"):
        protocols.one_vs_rest_1k(samples, "a")


def test_leave_one_out():
    samples = grey_samples()
    cut = protocols.leave_one_out(samples, "b")
    assert tally(samples, cut.normal) == {"a": 10, "c": 10, "d": 10}
    assert parts(samples, cut.normal) == {"train"}
    assert cut.test.tolist() == list(range(40, 60))
    assert cut.labels.dtype == np.uint8
    assert cut.labels.tolist() == [0, 1, 0, 0] * 5
    assert cut.choose_anomalies is None


def test_leave_one_out_6k():
    samples = grey_samples()
    cut = protocols.leave_one_out_6k(samples, "b")
    assert cut.normal.tolist() == protocols.leave_one_out(samples, "b").normal.tolist()
    assert cut.labels.tolist() == [0] * 15 + [1] * 15
    assert tally(samples, cut.test[:15]) == {"a": 5, "c": 5, "d": 5}
    assert parts(samples, cut.test[:15]) == {"test"}
    assert cut.test[15:25].tolist() == list(range(1, 40, 4))  # the class's training images
    assert tally(samples, cut.test[25:]) == {"b": 5}
    assert cut.choose_anomalies is None


def test_official(tmp_path):
    samples = mvtec.load(make_mvtec(tmp_path), False).samples("screw")
    cut = protocols.official(samples, "screw")
    assert cut.normal.tolist() == list(range(6))
    assert [samples.ids[i].split("/")[2] for i in cut.test] == ["dent"] * 2 + ["good"] * 3 + ["scratch"] * 2
    assert cut.labels.tolist() == [1, 1, 0, 0, 0, 1, 1]
    made = split(samples, cut, 8, fingerprint(samples, cut))
    assert made.masks.shape == (7, 16, 16)  # at the masks' own size, not that of the images
    assert made.masks.sum(axis=(1, 2)).tolist() == [16, 16, 0, 0, 0, 16, 16]
    assert made.test.shape == made.normal.shape == (3, 8, 8)
    assert made.anomalies is None
    assert made.test_ids[0] == "screw/test/dent/000.png"


PROTOCOLS = (
    "one_vs_rest one_vs_rest_1k one_vs_rest_80 leave_one_out leave_one_out_6k leave_one_out_pooled".split()
)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("category", CLASSES)
def test_no_image_is_trained_on_and_tested(name, category):
    samples = grey_samples(train=6, test=300)
    cut = getattr(protocols, name)(samples, category)
    checked(samples, cut, category)
    anomalies = cut.choose_anomalies() if cut.choose_anomalies else []
    sets = [set(cut.normal), set(anomalies), set(cut.test)]
    assert sum(map(len, sets)) == len(set.union(*sets)) == len(cut.normal) + len(anomalies) + len(cut.test)
    assert set(cut.labels.tolist()) == {0, 1}
    assert len(cut.labels) == len(cut.test)
    wanted = "normal" if name.startswith("one") else "abnormal"
    assert {samples.classes[i] == category for i in cut.normal} == {wanted == "normal"}


# the sizes that papers and their code have, of datasets without images: only the classes count

MNIST = (
    (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
)
POOLED_NORMALS = (
    12620,
    12425,
    12602,
    12572,
    12636,
    12738,
    12625,
    12542,
    12635,
    12609,
)  # of EGBAD's test sets
POOLED_PREVALENCE = (0.354, 0.388, 0.357, 0.362, 0.351, 0.331, 0.353, 0.368, 0.351, 0.356)


def imageless(
    train: tuple[int, ...], test: tuple[int, ...], names: tuple[str, ...] = mnist.DIGITS
) -> Samples:
    """So many images of each class in random order, and none can be read."""
    draw = np.random.default_rng(7)
    classes, ids, parts = [], [], []
    for part, counts in (("train", train), ("test", test)):
        classes += draw.permutation(np.repeat(names, counts)).tolist()
        ids += [f"{part}-{i}" for i in range(sum(counts))]
        parts += [part] * sum(counts)

    def read(index: int) -> np.ndarray:
        raise AssertionError("no protocol here looks at images")

    return Samples(read=read, ids=ids, classes=classes, parts=parts)


@pytest.fixture(scope="module")
def digits_70k() -> Samples:
    return imageless(*MNIST)


def sizes(cut: Cut) -> tuple[int, int, int]:
    """Training images, normal and abnormal test images."""
    return len(cut.normal), int((cut.labels == 0).sum()), int(cut.labels.sum())


def test_pooled_mnist_has_the_test_sets_of_egbad(digits_70k):
    cuts = {name: protocols.leave_one_out_pooled(digits_70k, name) for name in mnist.DIGITS}
    assert tuple(sizes(cut)[1] for cut in cuts.values()) == POOLED_NORMALS
    assert tuple(round(float(cut.labels.mean()), 3) for cut in cuts.values()) == POOLED_PREVALENCE
    for name, cut in cuts.items():
        checked(digits_70k, cut, name)
        assert not set(cut.normal) & set(cut.test)  # their code: see the next test
        assert len(cut.normal) + len(cut.test) == 70_000
        assert {digits_70k.classes[i] == name for i in cut.test[cut.labels == 1]} == {True}
        assert len(parts(digits_70k, cut.normal)) == len(parts(digits_70k, cut.test[cut.labels == 0])) == 2


def test_two_draws_would_test_on_what_was_trained_on(digits_70k):
    """What EGBAD's code does, and `leave_one_out_pooled` does not: a permutation for training, one for testing."""
    for name in mnist.DIGITS:
        draw = np.random.RandomState(42)  # theirs
        normals = np.flatnonzero(np.array(digits_70k.classes) != name)
        cut_at = int(len(normals) * 0.8)
        trained = normals[draw.permutation(len(normals))][:cut_at]
        draw.permutation(70_000 - cut_at)  # of a test set that is thrown away
        tested = normals[draw.permutation(len(normals))][cut_at:]
        assert 0.797 <= round(float(np.isin(tested, trained).mean()), 3) <= 0.804


def test_the_pool_is_drawn_once_and_for_all():
    cuts = []
    for seed in (5, 6):
        np.random.seed(seed)  # noqa: NPY002 (a global generator that must not matter)
        cuts.append(protocols.leave_one_out_pooled(grey_samples(), "b"))
    assert cuts[0].normal.tolist() == cuts[1].normal.tolist() == sorted(cuts[0].normal)
    assert sizes(cuts[0]) == (36, 9, 15)
    assert cuts[0].test[:9].tolist() == [6, 14, 15, 34, 36, 38, 40, 50, 51]  # now and with any version


def test_one_vs_rest_80_of_a_digit_is_the_split_of_a03ki(digits_70k):
    cut = protocols.one_vs_rest_80(digits_70k, "1")
    assert (len(cut.normal), len(cut.test)) == (5_393, 64_607)
    assert sizes(cut) == (5_393, 1_349 + 1_135, 53_258 + 10_000 - 1_135)
    own = digits_70k.where("train", only="1")
    assert cut.normal.tolist() == own[:5_393].tolist()  # the first ones
    assert cut.test[:1_349].tolist() == own[5_393:].tolist()
    assert cut.choose_anomalies is None  # those of the training split are test images


def test_the_settings_of_ganomaly_have_their_sizes():
    samples = imageless((5_000,) * 10, (1_000,) * 10, cifar10.NAMES)
    assert sizes(protocols.leave_one_out_6k(samples, "automobile")) == (45_000, 9_000, 6_000)
    assert sizes(protocols.leave_one_out_pooled(samples, "automobile")) == (43_200, 10_800, 6_000)


def test_the_split_of_the_egbad_article_is_of_the_first_rows(digits_70k):
    cut = protocols.egbad_article(digits_70k, "2")
    assert (len(cut.normal), len(cut.test)) == (400, 600)
    assert set(classes(digits_70k, cut.normal)) == {"7", "8"}
    assert parts(digits_70k, cut.normal) == {"train"}
    wanted = [i for i in digits_70k.where("test") if digits_70k.classes[i] in ("2", "7", "8")][:600]
    assert cut.test.tolist() == wanted
    assert cut.labels.tolist() == [int(digits_70k.classes[i] == "2") for i in wanted]
    with pytest.raises(DataError, match=r"^400 train images of 7, 8 are needed, there are 20; use the whole"):
        protocols.egbad_article(imageless((10,) * 10, (500,) * 10), "2")


def test_the_split_of_the_egbad_article_is_of_mnist_and_has_one_category(tmp_path):
    registry = Registry.discover()
    protocol = registry.find("protocol", "egbad-article")
    with pytest.raises(AdbenchError) as caught:
        Tasks(registry.find("dataset", "digits"), protocol, tmp_path)
    assert str(caught.value) == (
        "protocol 'egbad-article' is for mnist alone, not for 'digits'; use --protocol one-vs-rest"
    )
    make_mnist(tmp_path, train=2000, test=2000)
    request = Request(detectors=["mean_pixel"], dataset="mnist", data_root=tmp_path, protocol="egbad-article")
    planned = plan(request, registry)
    assert [(job.category, job.problem) for job in planned.jobs] == [("2", "")]
    assert [sum(sizes(planned.tasks.cut(name)[1])) for name in planned.tasks.categories] == [1000]
    with pytest.raises(AdbenchError, match=r"^unknown category of mnist under egbad-article '7'; known: 2$"):
        plan(replace(request, categories=["7"]), registry)


def test_a_pool_that_cannot_be_divided_is_refused():
    samples = imageless((3, 1), (2, 0), ("a", "b"))
    with pytest.raises(DataError, match="needs 2 images besides those of 'a', there are 1; add some"):
        protocols.leave_one_out_pooled(samples, "a")
    assert sizes(protocols.leave_one_out_pooled(samples, "b")) == (4, 1, 1)


# the datasets under their protocols


def test_digits_one_vs_rest():
    samples = digits.load(Path(), False).samples("1")
    cut = protocols.one_vs_rest(samples, "1")
    assert (len(cut.normal), len(cut.test), int(cut.labels.sum())) == (122, 596, 536)
    made = split(samples, cut, 8, fingerprint(samples, cut))
    assert made.anomalies is None
    assert made.anomalies_fingerprint == ""
    assert made.normal.shape == (1, 8, 8)


def test_cifar10_mini_one_vs_rest():
    if not MINI.is_dir():
        pytest.skip("the real images of cifar10_mini are not in ../shared/data")
    samples = cifar10.load(MINI, False).samples("cat")
    cut = protocols.one_vs_rest(samples, "cat")
    made = split(samples, cut, 32, fingerprint(samples, cut), cut.choose_anomalies())
    assert (len(made.normal), len(made.anomalies), len(made.test)) == (300, 9 * 33, 1000)
    assert made.labels.sum() == 900
    assert made.test_ids[0] == "test-00000"
    anomalies = cut.choose_anomalies()
    assert parts(samples, anomalies) == {"train"}
    assert "cat" not in tally(samples, anomalies)
    assert made.anomalies_fingerprint == fingerprint_of(samples, anomalies)
    assert made.fingerprint == "a12c9e7715514d8d699ef83e37ca9f44e6131e3fab85dbfe7488685524ae0c49"
    assert protocols.one_vs_rest_1k(samples, "cat").test.tolist() == cut.test.tolist()
    assert len(protocols.leave_one_out_6k(samples, "cat").test) == 900 + 300 + 100


def test_cifar10_as_papers_cut_it():
    """The sizes are those of the official images where $ADBENCH_DATA has them, else in proportion."""
    if not (root := cifar10_here()):
        pytest.skip("CIFAR-10 is not in $ADBENCH_DATA, nor cifar10_mini in ../shared/data")
    samples = cifar10.load(root, False).samples("automobile")
    train, test = (len(samples.where(part, only="automobile")) for part in ("train", "test"))
    assert sizes(protocols.leave_one_out_6k(samples, "automobile")) == (9 * train, 9 * test, train + test)
    pooled = protocols.leave_one_out_pooled(samples, "automobile")
    assert sizes(pooled) == (9 * (train + test) * 4 // 5, 9 * (train + test) // 5, train + test)
    first = protocols.one_vs_rest_80(samples, "automobile")
    assert sizes(first) == (train * 4 // 5, train // 5 + test, 9 * (train + test))
    if (train, test) == (5_000, 1_000):
        assert (len(pooled.normal), len(pooled.test)) == (43_200, 16_800)


def cifar10_here() -> Path | None:
    roots = (Path(os.environ.get("ADBENCH_DATA", MINI)), MINI)
    return next((root for root in roots if (root / cifar10.FOLDER).is_dir()), None)


def test_imagefolder_one_vs_rest(tmp_path):
    samples = imagefolder.load(make_imagefolder(tmp_path), False).samples("dog")
    cut = protocols.one_vs_rest(samples, "dog")
    made = split(samples, cut, 8, fingerprint(samples, cut), cut.choose_anomalies())
    assert (len(made.normal), len(made.anomalies), len(made.test)) == (8, 8, 6)
    assert made.labels.tolist() == [1, 1, 0, 0, 1, 1]
    assert made.masks is None


# what the fingerprint notices


def small(
    train: np.ndarray | None = None, test: np.ndarray | None = None, masks: np.ndarray | None = None
) -> tuple[Samples, Cut]:
    """Two training and four test images of 1x2x3, the last two abnormal."""
    ramp = np.arange(36, dtype=np.uint8).reshape(6, 1, 2, 3)
    train, test = ramp[:2] if train is None else train, ramp[2:] if test is None else test
    samples = labelled_arrays(("good", "bad"), (train, np.zeros(2, int)), (test, np.array([0, 0, 1, 1])))
    if masks is not None:
        samples = replace(samples, read_mask=lambda index: masks[index - 2])
    return samples, protocols.official(samples, "x")


def changed(array: np.ndarray, *place: int) -> np.ndarray:
    array = array.copy()
    array[place] ^= 1
    return array


def test_fingerprint_is_of_the_contents_alone():
    samples, cut = small()
    first = fingerprint(samples, cut)
    assert len(first) == 64
    assert first == fingerprint(*small())
    renamed = replace(samples, ids=[f"other-{i}" for i in range(6)])
    assert fingerprint(renamed, cut) == first


def test_fingerprint_can_be_recomputed_by_hand():
    def image(number: int) -> bytes:
        return hashlib.sha256(b"1x2x3" + bytes(range(6 * number, 6 * number + 6))).digest()

    text = b"".join(b"train" + image(i) for i in (0, 1))
    text += b"".join(b"test" + image(i) + bytes([label]) for i, label in ((2, 0), (3, 0), (4, 1), (5, 1)))
    assert fingerprint(*small()) == hashlib.sha256(text).hexdigest()


def test_fingerprint_changes_with_a_pixel():
    ramp = np.arange(36, dtype=np.uint8).reshape(6, 1, 2, 3)
    first = fingerprint(*small())
    assert fingerprint(*small(train=changed(ramp[:2], 1, 0, 1, 2))) != first
    assert fingerprint(*small(test=changed(ramp[2:], 0, 0, 0, 0))) != first
    assert fingerprint(*small(train=ramp[:2].copy(), test=ramp[2:].copy())) == first


def test_fingerprint_changes_with_a_label():
    samples, cut = small()
    other = Cut(normal=cut.normal, test=cut.test, labels=changed(cut.labels, 1))
    assert fingerprint(samples, other) != fingerprint(samples, cut)


def test_fingerprint_changes_with_the_order():
    samples, cut = small()
    first = fingerprint(samples, cut)
    test = Cut(normal=cut.normal, test=cut.test[[1, 0, 2, 3]], labels=cut.labels)
    train = Cut(normal=cut.normal[::-1], test=cut.test, labels=cut.labels)
    assert len({first, fingerprint(samples, test), fingerprint(samples, train)}) == 3


def test_fingerprint_changes_with_the_part():
    samples, cut = small()
    moved = Cut(
        normal=cut.normal[:1], test=np.append(cut.normal[1:], cut.test), labels=np.append(0, cut.labels)
    )
    assert fingerprint(samples, moved) != fingerprint(samples, cut)


def test_fingerprint_changes_with_a_mask_pixel():
    masks = np.zeros((4, 2, 3), np.uint8)
    masks[2:, 0] = 1
    first = fingerprint(*small(masks=masks))
    assert fingerprint(*small(masks=changed(masks, 3, 1, 2))) != first
    assert fingerprint(*small()) != first
    assert fingerprint(*small(masks=masks.copy())) == first


def test_fingerprint_tells_wide_from_tall():
    ramp = np.arange(36, dtype=np.uint8)
    wide, tall = ramp.reshape(6, 1, 2, 3), ramp.reshape(6, 1, 3, 2)
    assert fingerprint(*small(wide[:2], wide[2:])) != fingerprint(*small(tall[:2], tall[2:]))


def test_replaced_samples_do_not_inherit_digests():
    samples, cut = small()
    first = fingerprint(samples, cut)
    assert fingerprint(replace(samples, read=lambda index: samples.read(index) + 1), cut) != first


def test_fingerprint_of_anomalies():
    samples, _ = small()
    first = fingerprint_of(samples, np.array([0, 1]))
    assert first != fingerprint_of(samples, np.array([1, 0]))
    assert first == fingerprint_of(samples, np.array([0, 1]))


# what cannot be used


@pytest.mark.parametrize(
    ("normal", "labels", "reason"),
    [
        ([], [0, 1], "no normal training image; add some"),
        ([0], [1, 1], "no normal test image, which an AUROC needs; add some"),
        ([0], [0, 0], "no abnormal test image, which an AUROC needs; add some"),
        ([0], [], "no normal test image, which an AUROC needs; add some"),
    ],
)
def test_a_useless_cut_is_refused(normal, labels, reason):
    cut = Cut(
        normal=np.array(normal, np.int64),
        test=np.arange(1, 1 + len(labels)),
        labels=np.array(labels, np.uint8),
    )
    with pytest.raises(DataError, match=f"^screw: there is {reason}$"):
        checked(small()[0], cut, "screw")


def test_a_usable_cut_passes():
    cut = Cut(normal=np.array([0]), test=np.array([1, 2]), labels=np.array([1, 0], np.uint8))
    checked(small()[0], cut, "screw")


@pytest.mark.parametrize("kind", [bool, float, np.int64, list])
def test_labels_of_any_kind_become_bytes(kind):
    labels = [1, 0] if kind is list else np.array([1, 0]).astype(kind)
    cut = checked(small()[0], Cut(normal=[0], test=[1, 2], labels=labels), "screw")
    assert cut.labels.dtype == np.uint8
    assert cut.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("normal", "test", "labels", "told"),
    [
        ([0], [1, 2], [0, 2], "labels must be 0 or 1, one for each of its test images"),
        ([0], [1, 2], [0.0, 0.5], "labels must be 0 or 1, one for each of its test images"),
        ([0], [1, 2], [0, 1, 1], "labels must be 0 or 1, one for each of its test images"),
        ([0, 1], [1, 2], [0, 1], "1 test images are among those it trains on; leave them out of normal"),
        ([0], [1, 6], [0, 1], "test must be indices into its 6 images"),
        ([0], [-1, 1], [0, 1], "test must be indices into its 6 images"),
        ([True, False], [1, 2], [0, 1], "normal must be indices into its 6 images"),
        ([[0], [1]], [2, 3], [0, 1], "normal must be indices into its 6 images"),
    ],
)
def test_a_cut_that_is_none_is_refused(normal, test, labels, told):
    with pytest.raises(DataError, match=f"^screw: {told}$"):
        checked(small()[0], Cut(normal=normal, test=test, labels=labels), "screw")


def offering(monkeypatch, tmp_path, **offer) -> Tasks:
    """One-vs-rest on the digits with another offer of labelled anomalies: functions of samples and category."""
    tasks = tasks_in(tmp_path)

    def cut(samples, category):
        changed = {name: value and value(samples, category) for name, value in offer.items()}
        return replace(protocols.one_vs_rest(samples, category), **changed)

    monkeypatch.setattr(tasks, "_cut", cut)
    return tasks


@pytest.mark.parametrize(
    ("offer", "told"),
    [
        (
            {"on_offer": lambda samples, _: [*samples.where("train", but="1"), samples.where("test")[0]]},
            "1 test images are among those on_offer; offer training images alone",
        ),
        (
            {"on_offer": lambda samples, _: np.asarray(samples.parts) == "train"},
            "on_offer must be indices into its 1797 images",
        ),
        ({"on_offer": None}, "on_offer and choose_anomalies go together; give both or neither"),
        ({"choose_anomalies": None}, "on_offer and choose_anomalies go together; give both or neither"),
    ],
    ids=["of test images", "no indices", "nothing", "never"],
)
def test_an_offer_that_no_detector_may_learn_from_is_refused(offer, told, monkeypatch, tmp_path):
    tasks = offering(monkeypatch, tmp_path, **offer)
    with pytest.raises(DataError) as caught:
        tasks.fingerprint("1")
    assert str(caught.value) == f"protocol 'one-vs-rest', category '1': {told}"


@pytest.mark.parametrize(
    "choice",
    [
        lambda samples, category: samples.where("test", but=category),
        lambda samples, category: samples.where("train"),  # the normal ones too
        lambda samples, category: np.asarray(samples.classes) != category,
        lambda samples, category: samples.where("train", but=category)[None],
    ],
    ids=["of test images", "of more", "no indices", "not flat"],
)
def test_anomalies_that_were_not_on_offer_are_refused(choice, monkeypatch, tmp_path):
    tasks = offering(monkeypatch, tmp_path, choose_anomalies=lambda *given: lambda: choice(*given))
    assert tasks.split("1", 8, labelled=False).anomalies is None
    with pytest.raises(DataError) as caught:
        tasks.split("1", 8, labelled=True)
    assert str(caught.value) == (
        "protocol 'one-vs-rest', category '1': choose_anomalies() gives images that are not among those on_offer; "
        "choose from on_offer alone"
    )


def test_labelled_anomalies_are_some_and_none_is_a_normal_training_image(monkeypatch, tmp_path):
    tasks = offering(monkeypatch, tmp_path, choose_anomalies=lambda *_: list)
    with pytest.raises(DataError, match="'1': choose_anomalies\\(\\) chooses no image; let it choose one"):
        tasks.split("1", 8, labelled=True)
    everything = {
        "on_offer": lambda samples, _: samples.where("train"),
        "choose_anomalies": lambda samples, _: lambda: samples.where("train"),
    }
    tasks = offering(monkeypatch, tmp_path, **everything)
    count = len(tasks.cut("1")[1].normal)
    with pytest.raises(DataError, match=f"'1': {count} of the labelled anomalies are normal training images"):
        tasks.split("1", 8, labelled=True)


@pytest.mark.parametrize("name", ["normal", "test", "labels", "on_offer"])
def test_a_protocol_that_draws_by_chance_is_refused_before_a_run(name, monkeypatch, tmp_path):
    draw = np.random.default_rng(0)
    offer = {
        "normal": lambda samples, category: draw.permutation(samples.where("train", only=category)),
        "test": lambda samples, category: draw.permutation(samples.where("test")),
        "labels": lambda samples, category: draw.permutation(protocols.one_vs_rest(samples, category).labels),
        "on_offer": lambda samples, category: draw.permutation(samples.where("train", but=category)),
    }
    tasks = offering(monkeypatch, tmp_path, **{name: offer[name]})
    with pytest.raises(DataError) as caught:
        tasks.cut("1")
    assert str(caught.value) == (
        f"protocol 'one-vs-rest', category '1': {name} differs between two calls; "
        "use a random generator with a fixed seed"
    )


def test_categories_are_texts(monkeypatch, tmp_path):
    tasks = offering(monkeypatch, tmp_path)
    monkeypatch.setattr(tasks, "loaded", SimpleNamespace(categories=(1, 2)))
    with pytest.raises(
        AdbenchError, match=r"^dataset 'digits': TypeError: category 1 is not a string; --debug"
    ):
        tasks.categories  # noqa: B018


@pytest.mark.parametrize("name", ["", " "])
def test_categories_have_names(monkeypatch, tmp_path, name):
    tasks = offering(monkeypatch, tmp_path)
    monkeypatch.setattr(tasks, "loaded", SimpleNamespace(categories=("a", name)))
    told = f"^dataset 'digits': ValueError: category '{name}' has no name; give it one; --debug"
    with pytest.raises(AdbenchError, match=told):
        tasks.categories  # noqa: B018


def test_a_split_is_made_anew_for_another_size_and_for_anomalies(monkeypatch, tmp_path):
    tasks = offering(
        monkeypatch, tmp_path, choose_anomalies=lambda *_: lambda: samples.where("train", only="2")
    )
    samples = tasks.cut("1")[0]
    asked = [(8, False), (4, False), (8, True), (8, False)]
    made = [tasks.split("1", size, labelled=labelled) for size, labelled in asked]
    assert [each.test.shape[-1] for each in made] == [8, 4, 8, 8]
    assert [each.anomalies is None for each in made] == [True, True, False, True]
    assert made[3] is made[0]


def test_an_offer_may_be_a_list(monkeypatch, tmp_path):
    asked = {
        "on_offer": lambda samples, category: samples.where("train", but=category).tolist(),
        "choose_anomalies": lambda samples, category: (
            lambda: samples.where("train", but=category)[:7].tolist()
        ),
    }
    tasks = offering(monkeypatch, tmp_path, **asked)
    samples = tasks.cut("1")[0]
    assert tasks.offer_fingerprint("1") == fingerprint_of(samples, samples.where("train", but="1"))
    made = tasks.split("1", 8, labelled=True)
    assert len(made.anomalies) == 7


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image: image.astype(np.float32) / 255,
        lambda image: image[0],
        lambda image: image.repeat(3, 0).transpose(1, 2, 0),
    ],
    ids=["floats", "no channels", "channels last"],
)
def test_images_that_are_not_bytes_with_channels_are_refused(wrong):
    samples, cut = small()
    with pytest.raises(
        DataError, match=r"^image .* is .*; a dataset must read uint8 \(C, H, W\), with 1 or 3 channels$"
    ):
        fingerprint(replace(samples, read=lambda index: wrong(samples.read(index))), cut)


@pytest.mark.parametrize("short", ["ids", "classes", "parts"])
def test_each_image_needs_an_id_a_class_and_a_part(short):
    samples, _ = small()
    ids, classes, parts = (5 if name == short else 6 for name in ("ids", "classes", "parts"))
    told = f"{ids} ids, {classes} classes and {parts} parts"
    with pytest.raises(ValueError, match=f"^samples have {told}; give one of each for each image$"):
        replace(samples, **{short: getattr(samples, short)[:5]})


def masked(read_mask) -> tuple[Samples, Cut]:
    """Those of `small`, with other masks."""
    samples, cut = small()
    return replace(samples, read_mask=read_mask), cut


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (np.full((2, 3), 255, np.uint8), "uint8 up to 255"),
        (np.ones((2, 3), np.float32), "float32 (2, 3)"),
        (np.ones((1, 2, 3), np.uint8), "uint8 (1, 2, 3)"),
        (None, "NoneType"),
    ],
    ids=["of 255", "floats", "with channels", "nothing"],
)
def test_masks_of_another_kind_are_refused(mask, found):
    samples, cut = masked(lambda index: mask if index == 3 else np.zeros((2, 3), np.uint8))
    for use in (lambda: fingerprint(samples, cut), lambda: samples.masks(cut.test)):
        with pytest.raises(DataError) as caught:
            use()
        assert str(caught.value) == (
            f"mask of test-00001 is {found}; masks are uint8 (H, W): 1 = defect, and 0 all over where there is none"
        )


def test_masks_of_truth_values_are_as_good_as_bytes():
    kinds = [masked(lambda index, kind=kind: np.eye(2, 3).astype(kind)) for kind in (bool, np.uint8)]
    assert len({fingerprint(*each) for each in kinds}) == 1
    made = [samples.masks(cut.test) for samples, cut in kinds]
    assert [masks.dtype for masks in made] == [np.uint8, np.uint8]
    assert np.array_equal(*made)


def test_the_mistake_of_a_dataset_or_a_protocol_is_told_with_its_name(monkeypatch, tmp_path):
    made = tasks_in(tmp_path)
    monkeypatch.setattr(made, "_cut", lambda samples, category: None)
    with pytest.raises(
        AdbenchError, match=r"^protocol 'one-vs-rest': AttributeError: .*; --debug shows where$"
    ):
        made.cut("0")
    monkeypatch.setattr(made, "loaded", SimpleNamespace(categories=("0",), samples={}.__getitem__))
    with pytest.raises(AdbenchError, match=r"^dataset 'digits': KeyError: '0'; --debug shows where$"):
        made.cut("0")
    with pytest.raises(
        AdbenchError, match=r"^dataset 'digits': AttributeError: .* no attribute 'note'; --debug"
    ):
        _ = made.note
    monkeypatch.setattr(made.loaded, "samples", lambda category: sys.exit(3))
    with pytest.raises(AdbenchError, match=r"^dataset 'digits': SystemExit: 3; --debug shows where$"):
        made.cut("0")
    monkeypatch.setattr(made.loaded, "samples", lambda category: None)
    told = r"^dataset 'digits': TypeError: samples\('0'\) gave NoneType, not Samples; --debug shows where$"
    with pytest.raises(AdbenchError, match=told):
        made.cut("0")
    monkeypatch.setattr(made, "loaded", None)  # of a loader without a return
    with pytest.raises(
        AdbenchError, match=r"^dataset 'digits': AttributeError: .* no attribute 'categories'; -"
    ):
        _ = made.categories


@pytest.mark.parametrize(
    ("planned", "error"), [(False, ZeroDivisionError("boom")), (True, FileNotFoundError("boom"))]
)
def test_the_mistake_of_a_datasets_reader_is_told_with_its_name_and_category(
    planned, error, monkeypatch, tmp_path
):
    made = tasks_in(tmp_path)
    if planned:
        made.fingerprint("0")
    samples, cut = made.cut("0")

    def broken(_):
        raise error

    monkeypatch.setitem(made._cuts, "0", (replace(samples, read=broken, read_many=None), cut))
    told = f"dataset 'digits', category '0': {type(error).__name__}: boom; --debug shows where"
    with pytest.raises(AdbenchError, match=told):
        passport(made, "0")
    with pytest.raises(AdbenchError) as caught:
        made.split("0", 8, labelled=False)
    assert str(caught.value) == told
    result = failed(toy_job("d"), Settings(), caught.value)
    assert result.error == told
    assert "in broken" in result.trace


def test_test_images_that_share_an_id_are_refused():
    samples, cut = small()
    checked(replace(samples, ids=["x", "x", "a", "b", "c", "d"]), cut, "screw")
    with pytest.raises(DataError) as caught:
        checked(replace(samples, ids=["x", "y", "a", "b", "b", "x"]), cut, "screw")
    assert str(caught.value) == "screw: two test images have the id 'b'; each needs an id of its own"


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (
            "test",
            r"dataset 'digits', category '0': the id '\udcff.png' cannot be written as UTF-8; rename it",
        ),
        ("train", ""),  # no table has it
        (
            "overlap",
            "protocol 'one-vs-rest', category '0': 1 test images are among those it trains on; leave ",
        ),
    ],
)
def test_a_wrong_cut_and_an_id_that_cannot_be_written_are_told_with_whose_they_are(
    part, told, tmp_path, monkeypatch
):
    tasks = tasks_in(tmp_path)
    samples = tasks.loaded.samples("0")
    ids = list(samples.ids)
    cut = protocols.one_vs_rest(samples, "0")
    if part == "overlap":
        tasks._cut = lambda *_: replace(cut, normal=np.append(cut.normal, cut.test[0]))
    else:
        ids[cut.test[3] if part == "test" else cut.normal[3]] = "\udcff.png"
    monkeypatch.setattr(tasks, "loaded", replace(tasks.loaded, images=replace(samples, ids=ids)))
    with pytest.raises(DataError) if told else nullcontext() as caught:
        tasks.cut("0")
    assert not told or str(caught.value).startswith(told)


def test_a_mask_of_another_size_is_refused(tmp_path):
    make_mvtec(tmp_path)
    save(tmp_path / "screw/ground_truth/dent/001_mask.png", np.full((8, 12), 255, np.uint8))
    samples = mvtec.load(tmp_path, False).samples("screw")
    with pytest.raises(DataError) as caught:
        samples.masks(samples.where("test"))
    assert str(caught.value) == (
        "mask of screw/test/dent/001.png is 12x8 pixels, its image 16x16; replace the mask"
    )


def test_a_mask_that_lies_on_its_side_is_refused():
    samples = Samples(
        read=lambda index: np.zeros((1, 4, 8), np.uint8),
        read_mask=lambda index: np.zeros((8, 4), np.uint8),
        ids=["a"],
        classes=["dent"],
        parts=["test"],
    )
    with pytest.raises(DataError) as caught:
        samples.masks(np.array([0]))
    assert str(caught.value) == (
        "mask of a is 4x8 pixels, its image 8x4 (a rotation noted in EXIF is not applied); replace the mask"
    )


def test_large_masks_are_judged_at_256(tmp_path):
    make_mvtec(tmp_path, train=1, good=1, defects={"dent": 1}, size=512)
    samples = mvtec.load(tmp_path, False).samples("screw")
    masks = samples.masks(samples.where("test"))
    assert masks.shape == (2, 256, 256)
    assert masks.sum(axis=(1, 2)).tolist() == [64 * 64, 0]
    assert masks[0, :64, :64].all()


def test_images_of_different_channels_are_refused():
    samples = Samples(
        read=lambda index: np.zeros((1 + 2 * index, 4, 4), np.uint8),
        ids=["a", "b"],
        classes=["good", "good"],
        parts=["train", "train"],
    )
    with pytest.raises(DataError, match=r"images with \[1, 3\] channels in one dataset"):
        samples.images(np.array([0, 1]), 4)


def test_resizing_takes_in_every_pixel_and_rounds_to_the_nearest():
    """The fingerprint is of the images before it, and would not tell."""
    line = np.zeros((1, 16, 16), np.uint8)
    line[..., 0] = 255  # where bilinear sampling alone would not look; 45.54 of it in a fourth of the columns
    wide = np.full((1, 2, 4), 10, np.uint8)
    wide[..., 2:] = 13  # 10, 10, 13, 13, and with twice as many columns 10.75 and 12.25 in between
    samples = Samples(read=[line, wide].__getitem__, ids="ab", classes=["good"] * 2, parts=["train"] * 2)
    small = samples.images(np.array([0]), 4)[0, 0]
    assert small.unique(dim=0).tolist() == [[46, 0, 0, 0]]
    assert samples.images(np.array([1]), 8)[0, 0, 0].tolist() == [10, 10, 10, 11, 12, 13, 13, 13]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [4, 8])
def test_pixels_that_cannot_be_written_are_resized(size):
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    writable = resize(image.copy(), size)
    image.setflags(write=False)
    assert torch.equal(resize(image, size), writable)


def test_photographs_are_resized_one_after_another_not_all_at_once():
    """Seven hundred of a phone at their own size would fill 25 GB."""
    held: list[weakref.ref[np.ndarray]] = []
    most = 0

    def read(index: int) -> np.ndarray:
        nonlocal most
        image = np.full((1, 64, 64), index, np.uint8)
        held.append(weakref.ref(image))
        most = max(most, sum(each() is not None for each in held))
        return image

    names = [str(number) for number in range(9)]
    samples = Samples(read=read, ids=names, classes=["good"] * 9, parts=["train"] * 9)
    assert samples.images(np.arange(9), 8)[:, 0, 0, 0].tolist() == list(range(9))
    assert most <= 2


def test_a_large_mask_is_sampled_at_the_middle_of_its_pixels():
    mask = np.zeros((512, 512), np.uint8)
    mask[:, 1::2] = 1
    samples = Samples(
        read=lambda index: np.zeros((1, 512, 512), np.uint8),
        read_mask=lambda index: mask,
        ids=["a"],
        classes=["dent"],
        parts=["test"],
    )
    assert samples.masks(np.array([0])).all()


def test_resizing_keeps_a_flat_image_flat():
    samples = Samples(
        read=lambda index: np.full((3, 9, 5), 77, np.uint8), ids=["a"], classes=["good"], parts=["train"]
    )
    images = samples.images(np.array([0]), 16)
    assert images.shape == (1, 3, 16, 16)
    assert images.unique().tolist() == [77]


def test_a_passport_says_what_brightness_alone_would_reach(tmp_path):
    make_mvtec(tmp_path, good=3)  # a defect is a white square
    tasks = tasks_in(tmp_path, "mvtec")
    assert passport(tasks, "screw")["brightness_auroc"] == 1


@pytest.mark.parametrize("changed", ["train/good/001", "test/good/000", "ground_truth/dent/001_mask", ""])
def test_images_that_change_after_planning_are_noticed_when_they_are_read_again(changed, tmp_path):
    make_mvtec(tmp_path, defects={"dent": 3})
    tasks = tasks_in(tmp_path, "mvtec")
    object.__setattr__(tasks.loaded, "_cache", Cache(budget=0))  # as for a dataset of many gigabytes
    before = tasks.fingerprint("screw")
    if changed:
        path = tmp_path / f"screw/{changed}.png"
        save(path, 255 - np.asarray(Image.open(path)))
        with pytest.raises(AdbenchError) as caught:
            tasks.split("screw", 8, labelled=False)
        assert str(caught.value) == "the images of 'screw' changed since the job was planned; run again"
    else:
        assert tasks.split("screw", 8, labelled=False).fingerprint == before


def test_images_that_memory_does_not_hold_are_decoded_once_to_be_hashed_and_once_to_be_resized(
    tmp_path, monkeypatch
):
    make_mvtec(tmp_path, good=3)
    real, decoded = files._decoded, Counter()
    monkeypatch.setattr(files, "_decoded", lambda path, to: decoded.update([path]) or real(path, to))
    tasks = tasks_in(tmp_path, "mvtec")
    object.__setattr__(tasks.loaded, "_cache", Cache(budget=0))
    tasks.fingerprint("screw")
    tasks.split("screw", 8, labelled=False)
    assert set(decoded.values()) == {2}


@pytest.mark.parametrize(("make", "name"), [(make_mvtec, "mvtec"), (make_imagefolder, "imagefolder")])
def test_images_of_full_size_are_in_memory_until_they_are_resized(make, name, tmp_path, monkeypatch):
    make(tmp_path)
    given_up, clear = [], Cache.clear
    monkeypatch.setattr(Cache, "clear", lambda cache: given_up.append(len(cache._kept)) or clear(cache))
    tasks = tasks_in(tmp_path, name)
    first, *_ = tasks.categories
    tasks.fingerprint(first)
    assert given_up == []
    tasks.split(first, 8, labelled=False)
    tasks.release()
    assert given_up == [1, 0]


def test_labelled_anomalies_that_change_after_they_were_hashed_are_noticed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    samples = labelled_arrays(("a", "b"), (pixels[:20], np.arange(20) % 2), (pixels[20:], np.arange(20) % 2))
    cut = protocols.one_vs_rest(samples, "a")
    fingerprint_of(samples, cut.on_offer)
    chosen = cut.choose_anomalies()
    pixels[chosen[0]] += 1
    with pytest.raises(ChangedError, match="train-"):
        samples.images(chosen, 4)


@pytest.mark.parametrize("lost", [1, 2])
def test_masks_that_lose_their_defect_at_the_size_of_judging_are_told(tmp_path, lost):
    make_mvtec(tmp_path, train=1, good=1, defects={"dent": 2}, size=512)
    thin = np.zeros((512, 512), np.uint8)
    thin[2] = 255  # every second row is left
    for i in range(lost):
        save(tmp_path / f"screw/ground_truth/dent/{i:03}_mask.png", thin)
    tasks = tasks_in(tmp_path, "mvtec")
    told = (f"images: {lost} of 2 masks have no defect pixel left at 256 x 256",)
    assert tasks.split("screw", 16, labelled=False).notes == told
    assert passport(tasks, "screw")["notes"] == list(told)


@pytest.mark.parametrize(
    ("copies", "note"),
    [
        ({"train/good/002.png": ["good/001.png"]}, "1 of 7 test images have the pixels of a training image"),
        ({"test/dent/000.png": ["good/001.png"]}, "1 picture is in the test set with both labels"),
        (
            {"test/dent/000.png": ["good/001.png"], "test/dent/001.png": ["good/000.png", "good/002.png"]},
            "2 pictures are in the test set with both labels",
        ),
    ],
)
def test_copies_of_one_picture_are_told(copies, note, tmp_path):
    make_mvtec(tmp_path, good=3, defects={"dent": 4})
    for source, targets in copies.items():
        for target in targets:
            shutil.copy(tmp_path / "screw" / source, tmp_path / "screw/test" / target)
    tasks = tasks_in(tmp_path, "folder")
    assert tasks.split("screw", 16, labelled=False).notes == (f"images: {note}",)
    assert passport(tasks, "screw")["notes"] == [f"images: {note}"]


def test_labelled_anomalies_that_are_test_images_are_told(tmp_path):
    make_imagefolder(tmp_path, parts=True)
    for image in (tmp_path / "train/dog").iterdir():
        shutil.copy(tmp_path / "test/dog/000.png", image)
    tasks = tasks_in(tmp_path, "imagefolder")
    told = "images: 1 of 15 test images have the pixels of a labelled anomaly of training"
    assert passport(tasks, "cat")["notes"] == [told]
    assert tasks.split("cat", 16, labelled=True).notes == (told,)
    assert tasks.split("cat", 16, labelled=False).notes == ()


def test_a_split_has_images_names_and_labels_in_one_order():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    samples = labelled_arrays(("a", "b"), (pixels[:20], np.arange(20) % 2), (pixels[20:], np.arange(20) % 2))
    cut = protocols.leave_one_out_6k(samples, "a")  # which has not the order of the samples
    made = split(samples, cut, 8, "")
    assert list(cut.test) != sorted(cut.test)
    for image, name, label in zip(made.test.on("cpu").numpy(), made.test_ids, made.labels, strict=True):
        index = list(samples.ids).index(name)
        assert (image == samples.read(index)).all()
        assert label == (samples.classes[index] == "a")


def test_a_split_tells_which_anomalies_were_chosen_not_what_was_on_offer():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    samples = labelled_arrays(("a", "b"), (pixels[:20], np.arange(20) % 2), (pixels[20:], np.arange(20) % 2))
    cut = protocols.one_vs_rest(samples, "a")
    chosen = cut.on_offer[:3]
    made = split(samples, cut, 8, "", chosen)
    assert (made.anomalies.on("cpu").numpy() == samples.read_many(chosen)).all()
    assert made.anomalies_fingerprint == fingerprint_of(samples, chosen)
    assert made.anomalies_fingerprint != fingerprint_of(samples, cut.on_offer)


def of_sizes(*shapes):
    """Images of these sizes, (H, W), each with a defect in its last row."""
    images = [np.zeros((3, *shape), np.uint8) for shape in shapes]
    masks = [np.zeros(shape, np.uint8) for shape in shapes]
    for mask in masks:
        mask[-1] = 1
    names = [f"{i}" for i in range(len(shapes))]
    return Samples(
        read=images.__getitem__,
        read_mask=masks.__getitem__,
        ids=names,
        classes=["dent"] * len(names),
        parts=["test"] * len(names),
    )


@pytest.mark.parametrize(
    ("shapes", "judged"),
    [
        ([(16, 16), (16, 16)], (16, 16)),
        ([(128, 256), (128, 256)], (128, 256)),
        ([(16, 16), (32, 32)], (256, 256)),
        ([(16, 16), (257, 16)], (256, 256)),
        ([(257, 16), (257, 16)], (256, 256)),
    ],
    ids=str,
)
def test_masks_are_judged_at_their_one_size_else_at_256(shapes, judged):
    found = of_sizes(*shapes).masks(np.arange(2))
    assert found.shape == (2, *judged)
    assert found[:, -1].all()
    assert not found[:, 0].any()

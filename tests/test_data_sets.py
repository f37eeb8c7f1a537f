"""Each dataset: what it accepts, what it says of it, and how it refuses the rest."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import os
import pickle
import re
import shutil
import tarfile
import unicodedata
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from make_data import (
    make_cifar10,
    make_ganomaly,
    make_imagefolder,
    make_mnist,
    make_mvtec,
    make_stl10,
    picture,
    save,
    write_idx,
)
from PIL import Image
from test_runner import Silent

from adbench_tgan.audits import run_audits
from adbench_tgan.benchmark import benchmark
from adbench_tgan.commands.options import tasks_of
from adbench_tgan.cost.speeds import run_bench
from adbench_tgan.data import cifar10, digits, folder, imagefolder, mnist, mvtec, stl10
from adbench_tgan.data.classfolders import ensure_apart
from adbench_tgan.data.samples import Samples, labelled_arrays
from adbench_tgan.errors import AdbenchError, DataError
from adbench_tgan.jobs import Request
from adbench_tgan.ranking.published import SHIPPED
from adbench_tgan.registry import Registry
from adbench_tgan.runner import Settings

SHARED = Path(__file__).parents[2] / "shared/data"
LOADERS = {
    "cifar10": cifar10.load,
    "mnist": mnist.load_mnist,
    "fashion_mnist": mnist.load_fashion_mnist,
    "stl10": stl10.load,
    "mvtec": mvtec.load,
    "folder": folder.load,
    "imagefolder": imagefolder.load,
}


def shared(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the real images of {name} are not in ../shared/data")
    return SHARED / name


def counts(samples: Samples) -> dict[tuple[str, str], int]:
    pairs = list(zip(samples.parts, samples.classes, strict=True))
    return {pair: pairs.count(pair) for pair in sorted(set(pairs))}


def failing(error: Exception):
    """A stand-in for a download."""

    def download(*args, **options):
        raise error

    return download


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_root_names_itself_and_the_remedy(tmp_path, name):
    with pytest.raises(DataError, match="--data-root") as caught:
        LOADERS[name](tmp_path / "nowhere", False)
    assert str(tmp_path / "nowhere") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist", "stl10", "mvtec"])
def test_an_empty_root_names_the_command_that_fetches(tmp_path, name):
    with pytest.raises(DataError, match=rf"ADBENCH_DATA, or run 'adbench data fetch {name}'$"):
        LOADERS[name](tmp_path, False)


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    error = URLError("no route\nto host")
    monkeypatch.setattr("torchvision.datasets.utils.download_url", failing(error))
    for name in ("cifar10", "mnist", "fashion_mnist", "stl10"):
        with pytest.raises(DataError, match="could not be downloaded") as caught:
            LOADERS[name](tmp_path, True)
        assert "no route to host" in str(caught.value)
        assert "--data-root" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_labelled_arrays_keep_the_parts_apart():
    train = np.arange(6, dtype=np.uint8).reshape(3, 1, 1, 2), np.array([1, 0, 1])
    test = np.arange(6, 10, dtype=np.uint8).reshape(2, 1, 1, 2), np.array([0, 1])
    samples = labelled_arrays(("a", "b"), train, test)
    assert [samples.read(i).ravel().tolist() for i in range(5)] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert list(samples.classes) == ["b", "a", "b", "a", "b"]
    assert list(samples.parts) == ["train"] * 3 + ["test"] * 2
    assert list(samples.ids) == ["train-00000", "train-00001", "train-00002", "test-00000", "test-00001"]
    for some in ([2, 0], [4, 3], [4, 0, 2, 3]):  # of one part, of the other, of both
        assert samples.read_many(np.array(some)).tolist() == [samples.read(i).tolist() for i in some]
    chosen = np.array([4, 0, 2, 3])
    assert samples.digests(chosen).tolist() == [list(samples.digest(i)) for i in chosen.tolist()]


# digits


def test_digits():
    from sklearn.datasets import load_digits

    dataset = digits.load(Path("unused"), False)
    samples = dataset.samples("3")
    assert dataset.categories == tuple("0123456789")
    assert dataset.note == "1,797 images embedded in scikit-learn"
    assert len(samples) == 1797
    assert (samples.ids[0], samples.ids[1], samples.ids[-1]) == ("digit-0000", "digit-0001", "digit-1796")
    raw = load_digits()
    assert list(samples.classes) == [str(label) for label in raw.target]
    pixels = np.stack([samples.read(i) for i in range(1797)])
    assert (pixels.shape, pixels.dtype) == ((1797, 1, 8, 8), np.uint8)
    scale = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert (pixels[:, 0] == np.array(scale)[raw.images.astype(int)]).all()


def test_every_third_digit_of_a_class_is_a_test_image():
    samples = digits.load(Path("unused"), False).samples("0")
    for name in "0123456789":
        parts = [part for part, kind in zip(samples.parts, samples.classes, strict=True) if kind == name]
        assert parts[:7] == ["train", "train", "test", "train", "train", "test", "train"]
        assert parts.count("test") == len(parts) // 3


def test_an_unknown_category_is_named_with_the_nearest():
    with pytest.raises(AdbenchError, match="unknown category 'aeroplane'; did you mean airplane"):
        cifar10.load(shared("cifar10_mini"), False).samples("aeroplane")


# CIFAR-10


@pytest.mark.parametrize("place", ["", "cifar10"])
@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_is_found(tmp_path, place, inside):
    path = make_cifar10(tmp_path / place)
    dataset = cifar10.load(path if inside else tmp_path, False)
    samples = dataset.samples("cat")
    assert dataset.categories[3] == "cat"
    assert dataset.note == "100 + 20 images; not the official 50,000 + 10,000"
    assert counts(samples)["train", "truck"] == 10
    assert counts(samples)["test", "truck"] == 2
    assert (samples.ids[0], samples.ids[100], samples.ids[-1]) == ("train-00000", "test-00000", "test-00019")
    second = np.random.default_rng(1).integers(0, 256, (20, 3072), dtype=np.uint8)  # data_batch_2
    assert samples.read(25).shape == (3, 32, 32)
    assert (samples.read(25).ravel() == second[5]).all()
    assert samples.classes[25] == "dog"


def test_cifar10_mini_is_real():
    dataset = cifar10.load(shared("cifar10_mini"), False)
    samples = dataset.samples("cat")
    assert dataset.note == "3,000 + 1,000 images; not the official 50,000 + 10,000"
    assert set(counts(samples).values()) == {300, 100}
    frog = samples.where("train", only="frog")[0]
    assert samples.read(int(frog)).std() > 10  # a photograph, not a blank


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("text", [False, True])
def test_cifar10_of_old_and_new_numpy(tmp_path, module, text):
    """The official files were written by Python 2 and a numpy of 2009: other names, str for bytes."""
    path = make_cifar10(tmp_path) / "data_batch_1"
    data = path.read_bytes()
    assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
    data = data.replace(b"numpy._core.multiarray", module.encode())
    if text:  # keys as text
        entry = pickle.loads(path.read_bytes(), encoding="bytes")  # our own file
        data = pickle.dumps({key.decode(): value for key, value in entry.items()}, protocol=2)
    path.write_bytes(data)
    pixels, labels = cifar10.read_batch(path)
    expected = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    assert (pixels.reshape(20, 3072) == expected).all()
    assert labels.tolist() == [i % 10 for i in range(20)]


class Hostile:
    """Unpickled naively, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_refused_without_being_run(tmp_path, protocol):
    batch, trap = make_cifar10(tmp_path) / "data_batch_3", tmp_path / "owned"
    batch.write_bytes(pickle.dumps({b"data": Hostile(trap), b"labels": []}, protocol=protocol))
    with pytest.raises(
        DataError, match=r"data_batch_3 is not a CIFAR-10 batch .*asks for (\w+\.open|PUT), which is refused"
    ):
        cifar10.load(tmp_path, False)
    assert not trap.exists()
    pickle.loads(batch.read_bytes()).get(b"data").close()
    assert trap.exists()  # the trap works


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", "numpy.ndarray.__class__"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "another codec than latin1"),
    ],
)
def test_nothing_but_arrays_is_admitted(tmp_path, text, refused):
    (tmp_path / "x").write_bytes(text)
    with pytest.raises(DataError) as caught:
        cifar10.read_batch(tmp_path / "x")
    assert f"asks for {refused}, which is refused" in str(caught.value)


PIXELS = np.zeros((4, 3072), np.uint8)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ([1, 2], "it holds a list, not a dict"),
        ({b"labels": [0]}, "no 'data' in it"),
        ({b"data": PIXELS}, "no 'labels' in it"),
        (
            {b"data": PIXELS.astype(np.float32), b"labels": [0] * 4},
            "data is float32 (4, 3072), not uint8 (N, 3072)",
        ),
        ({b"data": PIXELS[:, :3000], b"labels": [0] * 4}, "data is uint8 (4, 3000), not uint8 (N, 3072)"),
        ({b"data": b"abc", b"labels": [0]}, "data is bytes, not uint8 (N, 3072)"),
        ({b"data": PIXELS, b"labels": [0] * 3}, "labels are int64 (3,), not 4 whole numbers"),
        ({b"data": PIXELS, b"labels": [0.5] * 4}, "labels are list, not 4 whole numbers"),
        ({b"data": PIXELS, b"labels": np.zeros(4)}, "labels are float64 (4,), not 4 whole numbers"),
        ({b"data": PIXELS, b"labels": ["a"] * 4}, "labels are list, not 4 whole numbers"),
        ({b"data": PIXELS, b"labels": [0, 1, 2, 10]}, "labels 0 to 10 are not within 0 to 9"),
        ({b"data": PIXELS, b"labels": [0, 1, 2, -1]}, "labels -1 to 2 are not within 0 to 9"),
        ({b"data": PIXELS[:0], b"labels": []}, "no image in it"),
    ],
)
def test_a_batch_with_other_contents_is_refused(tmp_path, entry, reason):
    (tmp_path / "x").write_bytes(pickle.dumps(entry))
    with pytest.raises(DataError) as caught:
        cifar10.read_batch(tmp_path / "x")
    remedy = "remove its folder and run 'adbench data fetch cifar10'"
    assert str(caught.value) == f"{tmp_path}/x is not a CIFAR-10 batch ({reason}); {remedy}"


def test_a_batch_means_the_same_however_its_arrays_lie_in_memory(tmp_path):
    pixels = np.arange(2 * 3072).reshape(2, 3072).astype(np.uint8)
    entry = {b"data": np.asfortranarray(pixels), b"labels": np.array([3, 7], ">i8")}
    (tmp_path / "x").write_bytes(pickle.dumps(entry, protocol=2))
    images, labels = cifar10.read_batch(tmp_path / "x")
    assert (images.reshape(2, 3072) == pixels).all()
    assert labels.tolist() == [3, 7]


def test_a_batch_that_is_larger_than_any_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST", 1000)
    make_cifar10(tmp_path, batch=1, test=1)
    with pytest.raises(DataError, match=r"data_batch_1 .* \(it has more than 1,000 bytes\)"):
        cifar10.load(tmp_path, False)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "noise"])
def test_a_damaged_batch_is_named(tmp_path, damage):
    path = make_cifar10(tmp_path) / "test_batch"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"empty": b"", "truncated": path.read_bytes()[:500], "noise": b"\xff\xfenoise"}[damage]
        )
    with pytest.raises(
        DataError, match=r"test_batch is not a CIFAR-10 batch \(.+\); remove its folder and run"
    ):
        cifar10.load(tmp_path, False)


def test_official_pixels_are_known_by_their_hashes(monkeypatch):
    pixels = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 3, 2, 2))
    part = pixels, np.arange(10)
    images, labels = pixels.tobytes(), bytes(range(10))
    assert cifar10.hashes(part) == (hashlib.sha256(images).hexdigest(), hashlib.sha256(labels).hexdigest())

    train = np.zeros((50_000, 3, 1, 1), np.uint8), np.zeros(50_000, np.int64)
    test = np.zeros((10_000, 3, 1, 1), np.uint8), np.zeros(10_000, np.int64)
    assert cifar10.made_of(train, test).note == "50,000 + 10,000 images; not the official pixels and labels"
    monkeypatch.setitem(cifar10.OFFICIAL, "train", cifar10.hashes(train))
    assert cifar10.made_of(train, test).note == "50,000 + 10,000 images; not the official pixels and labels"
    monkeypatch.setitem(cifar10.OFFICIAL, "test", cifar10.hashes(test))
    assert cifar10.made_of(train, test).note == "official pixels"
    test[1][7] = 1
    assert cifar10.made_of(train, test).note == "50,000 + 10,000 images; not the official pixels and labels"


def test_hashes_tell_channel_from_row():
    """Official hashes are of pixels with the channels first, however the array lies in memory."""
    part = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3).transpose(0, 3, 1, 2), np.array([1])
    apart = bytes([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11])
    assert cifar10.hashes(part)[0] == hashlib.sha256(apart).hexdigest()


def archive(folder: Path, path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)


def test_cifar10_is_fetched_once(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    asked = []

    def download_url(url, root, filename, md5):
        asked.append((url, md5))
        archive(make_cifar10(tmp_path / "source"), Path(root, filename))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    for _ in range(2):
        assert len(cifar10.load(tmp_path / "root", True).samples("cat")) == 120
    assert asked == [(CIFAR10.url, CIFAR10.tgz_md5)]
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["cifar-10-batches-py"]


def test_an_archive_cannot_write_outside(tmp_path, monkeypatch):
    def download_url(url, root, filename, md5):
        (tmp_path / "file").write_text("x")
        with tarfile.open(Path(root, filename), "w:gz") as tar:
            tar.add(tmp_path / "file", "../../escaped")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    with pytest.raises(DataError, match=r"could not be downloaded .*OutsideDestinationError"):
        cifar10.load(tmp_path / "root", True)
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "root").exists()


# MNIST and Fashion-MNIST

MNISTS = [("mnist", "MNIST", "4"), ("fashion_mnist", "FashionMNIST", "coat")]


@pytest.mark.parametrize(("name", "torchvision_name", "fourth"), MNISTS)
@pytest.mark.parametrize("place", ["{torchvision}/raw", "{own}", ""])
def test_mnist_is_found(tmp_path, name, torchvision_name, fourth, place):
    make_mnist(tmp_path / place.format(torchvision=torchvision_name, own=name))
    dataset = LOADERS[name](tmp_path, False)
    samples = dataset.samples(fourth)
    assert len(dataset.categories) == 10
    assert not any("/" in category or " " in category for category in dataset.categories)  # names of folders
    assert dataset.note == dataset.unofficial == "30 + 20 images; not the official 60,000 + 10,000"
    assert (samples.classes[4], samples.parts[4], samples.ids[34]) == (fourth, "train", "test-00004")
    assert counts(samples)["train", fourth] == 3
    assert counts(samples)["test", fourth] == 2
    expected = np.random.default_rng(1).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    assert samples.read(34).shape == (1, 28, 28)  # grey stays one channel
    assert (samples.read(34)[0] == expected[4]).all()


@pytest.mark.parametrize(("name", "torchvision_name", "fourth"), MNISTS)
def test_other_images_of_the_official_number_are_not_the_official_ones(
    tmp_path, name, torchvision_name, fourth, monkeypatch
):
    """KMNIST has the names and the numbers of MNIST, too."""
    make_mnist(tmp_path, train=60_000, test=10_000)
    told = "60,000 + 10,000 images; not the official pixels and labels"
    assert LOADERS[name](tmp_path, False).unofficial == told
    official = mnist.OFFICIAL[torchvision_name]
    for file in official:
        monkeypatch.setitem(official, file, hashlib.md5((tmp_path / file).read_bytes()).hexdigest())
    dataset = LOADERS[name](tmp_path, False)
    assert (dataset.note, dataset.unofficial) == ("official files", "")


@pytest.mark.parametrize("count", [19, 21])
def test_mnist_labels_must_fit(tmp_path, count):
    make_mnist(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(count, np.uint8))
    with pytest.raises(
        DataError, match=rf"t10k-labels-idx1-ubyte is not a sound idx file \({count} labels for 20 images\)"
    ):
        mnist.load_mnist(tmp_path, False)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.full(20, 10, np.uint8))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte .*\(label 10 is not within 0 to 9\)"):
        mnist.load_mnist(tmp_path, False)


@pytest.mark.parametrize(
    "name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"]
)
@pytest.mark.parametrize(
    "damage", [b"", b"\0\0\x08", b"\0\0\x08\x03" + b"\0\0\0\x05" * 3 + b"short", b"x" * 99]
)
def test_damaged_mnist_is_named(tmp_path, name, damage):
    make_mnist(tmp_path)
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(
        DataError, match=rf"/{name} is not a sound idx file \(.+\); remove its folder and fetch"
    ) as caught:
        mnist.load_mnist(tmp_path, False)
    assert "\n" not in str(caught.value)


def test_an_mnist_file_that_is_none_is_named(tmp_path):
    path = make_mnist(tmp_path) / "t10k-images-idx3-ubyte"
    path.unlink()
    path.symlink_to("/dev/null")
    with pytest.raises(
        DataError, match=r"t10k-images-idx3-ubyte is not .* \(not a regular file\); remove it"
    ):
        mnist.load_mnist(tmp_path, False)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_an_mnist_file_that_is_larger_than_any_is_not_read(tmp_path, name, monkeypatch):
    make_mnist(tmp_path)
    kind = name.removeprefix("train-")
    monkeypatch.setitem(mnist.LARGEST, kind, (tmp_path / name).stat().st_size)
    mnist.load_mnist(tmp_path, False)
    os.truncate(tmp_path / name, mnist.LARGEST[kind] + 1)
    with pytest.raises(
        DataError, match=rf"{name} is not .* \(it has more than {mnist.LARGEST[kind]:,} bytes\)"
    ):
        mnist.load_mnist(tmp_path, False)


def test_missing_mnist_file_is_named(tmp_path):
    make_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte .* \(No such file or directory\); remove"):
        mnist.load_mnist(tmp_path, False)


@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw"])
def test_mnist_that_is_still_packed_is_told_of(tmp_path, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "train-images-idx3-ubyte.gz").touch()
    for fetch in (False, True):
        with pytest.raises(DataError, match=r"holds the files of MNIST still compressed; unpack them"):
            mnist.load_mnist(tmp_path, fetch)


def test_mnist_is_fetched_from_the_first_mirror_that_answers(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    asked = []
    make_mnist(tmp_path / "source")

    def download_url(url, root, filename, md5):
        asked.append(url)
        assert [filename, md5] in [list(each) for each in MNIST.resources]
        if len(asked) == 1:
            raise RuntimeError("File not found or corrupted.")
        Path(root).mkdir(parents=True, exist_ok=True)
        packed = gzip.compress((tmp_path / "source" / filename.removesuffix(".gz")).read_bytes())
        Path(root, filename).write_bytes(packed)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    assert mnist.load_mnist(tmp_path / "root", True).note.startswith("30 + 20 images")
    assert len(asked) == 4 + 1
    assert len({url.rpartition("/")[0] for url in asked}) == 2
    assert len(list((tmp_path / "root/MNIST/raw").iterdir())) == 4  # nothing packed is left
    assert mnist.load_mnist(tmp_path / "root", False).note.startswith("30 + 20 images")


# STL-10


@pytest.mark.parametrize("place", ["", "stl10"])
@pytest.mark.parametrize("inside", [False, True])
def test_stl10_is_found(tmp_path, place, inside):
    path = make_stl10(tmp_path / place)
    dataset = stl10.load(path if inside else tmp_path, False)
    samples = dataset.samples("monkey")
    assert dataset.note == dataset.unofficial == "20 + 10 images; not the official 5,000 + 8,000"
    assert (samples.classes[7], samples.classes[27], samples.ids[27]) == ("monkey", "monkey", "test-00007")
    expected = np.random.default_rng(1).integers(0, 256, (10, 3, 96, 96), dtype=np.uint8)
    assert (samples.read(27) == expected[7]).all()  # rows are rows again


def test_stl10_agrees_with_torchvision(tmp_path, monkeypatch):
    from torchvision.datasets import STL10

    make_stl10(tmp_path)
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    theirs = STL10(tmp_path, split="train")
    ours = stl10.load(tmp_path, False).samples("car")
    for i in range(20):
        assert (ours.read(i) == np.asarray(theirs[i][0]).transpose(2, 0, 1)).all()
        assert stl10.NAMES.index(ours.classes[i]) == theirs[i][1]


def test_stl10_official_files_are_known(tmp_path, monkeypatch):
    from torchvision.datasets import STL10

    path = make_stl10(tmp_path)

    def listed(part: str) -> list[list[str]]:
        names = [f"{part}_X.bin", f"{part}_y.bin"]
        return [[name, hashlib.md5((path / name).read_bytes()).hexdigest()] for name in names]

    monkeypatch.setattr(STL10, "train_list", [*listed("train"), ["unlabeled_X.bin", "not needed"]])
    assert stl10.load(tmp_path, False).note == "20 + 10 images; not the official 5,000 + 8,000"
    monkeypatch.setattr(STL10, "test_list", listed("test"))
    dataset = stl10.load(tmp_path, False)
    assert (dataset.note, dataset.unofficial) == ("official files", "")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train_X.bin", b"abc", "3 bytes are not whole images of 3x96x96"),
        ("train_X.bin", b"\0" * 96**2, "9,216 bytes are not whole images of 3x96x96"),
        ("train_X.bin", b"", "it is empty"),
        ("test_y.bin", b"\1" * 9, "9 labels for 10 images"),
        ("test_y.bin", b"\1" * 11, "11 labels for 10 images"),
        ("test_y.bin", b"\0" * 10, "labels 0 to 0 are not within 1 to 10"),
        ("test_y.bin", b"\1" * 9 + b"\x0b", "labels 1 to 11 are not within 1 to 10"),
        ("test_X.bin", None, "No such file or directory"),
    ],
)
def test_damaged_stl10_is_named(tmp_path, name, content, reason):
    path = make_stl10(tmp_path) / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        stl10.load(tmp_path, False)
    remedy = "remove its folder and fetch it again"
    assert str(caught.value) == f"{path} is not a sound STL-10 file ({reason}); {remedy}"


@pytest.mark.parametrize("kind", ["X", "y"])
def test_an_stl10_file_that_is_larger_than_any_is_not_read(tmp_path, kind, monkeypatch):
    path = make_stl10(tmp_path) / f"train_{kind}.bin"
    monkeypatch.setitem(stl10.LARGEST, kind, path.stat().st_size)
    stl10.load(tmp_path, False)
    os.truncate(path, stl10.LARGEST[kind] + 1)
    with pytest.raises(
        DataError, match=rf"{path.name} is not .* \(it has more than {stl10.LARGEST[kind]:,} bytes\)"
    ):
        stl10.load(tmp_path, False)


# MVTec AD


@pytest.mark.parametrize("place", ["", "mvtec", "MVTecAD"])
def test_mvtec_is_found(tmp_path, place):
    make_mvtec(tmp_path / place, ["screw", "bottle"])
    dataset = mvtec.load(tmp_path, False)
    assert dataset.categories == ("bottle", "screw")
    assert dataset.note == "2 categories; the official set has 15"
    samples = dataset.samples("screw")
    assert counts(samples) == {
        ("test", "dent"): 2,
        ("test", "good"): 3,
        ("test", "scratch"): 2,
        ("train", "good"): 6,
    }
    assert samples.ids[0] == "screw/train/good/000.png"
    assert samples.ids[-1] == "screw/test/scratch/001.png"


def test_mvtec_of_one_category(tmp_path, monkeypatch):
    make_mvtec(tmp_path, ["screw"])
    assert mvtec.load(tmp_path / "screw", False).categories == ("screw",)
    monkeypatch.chdir(tmp_path / "screw")
    dataset = mvtec.load(Path("."), False)
    assert dataset.categories == ("screw",)
    assert dataset.samples("screw").ids[0] == "screw/train/good/000.png"
    assert dataset.samples("screw").read(0).shape == (3, 16, 16)


def test_mvtec_masks(tmp_path):
    samples = mvtec.load(make_mvtec(tmp_path), False).samples("screw")
    assert samples.read_mask is not None
    index = list(samples.ids).index("screw/test/dent/001.png")
    expected = np.zeros((16, 16), np.uint8)
    assert (samples.read_mask(0) == expected).all()  # a good image has an empty one
    expected[:4, :4] = 1
    assert (samples.read_mask(index) == expected).all()
    assert (samples.read(index)[:, :4, :4] == 255).all()


def test_a_missing_mask_is_named_when_it_is_read(tmp_path):
    make_mvtec(tmp_path, ["screw", "bottle"])
    path = tmp_path / "screw/ground_truth/dent/001_mask.png"
    path.unlink()
    dataset = mvtec.load(tmp_path, False)
    samples = dataset.samples("screw")
    index = list(samples.ids).index("screw/test/dent/001.png")
    assert samples.read(index).shape == (3, 16, 16)
    with pytest.raises(DataError) as caught:
        samples.masks(samples.where("test"))
    image = tmp_path / "screw/test/dent/001.png"
    remedy = "add it or remove the image; without masks remove ground_truth/ and use --data folder"
    assert str(caught.value) == f"{path} (or 001.png), the mask of {image}, is missing; {remedy}"
    other = dataset.samples("bottle")
    assert other.masks(other.where("test")).shape == (7, 16, 16)


@pytest.mark.parametrize("load", [mvtec.load, folder.load])
def test_two_images_never_share_a_mask(tmp_path, load):
    root = make_mvtec(tmp_path)
    save(root / "screw/test/good/000.bmp", picture(0))  # needs none
    assert len(load(root, False).samples("screw")) == 14
    save(root / "screw/test/dent/000.bmp", picture(0))
    with pytest.raises(DataError) as caught:
        load(root, False).samples("screw")
    path = root / "screw/test/dent/000.png"
    assert str(caught.value) == f"{path} and 000.bmp would share one mask; rename one of them"
    shutil.rmtree(root / "screw/ground_truth")
    assert len(folder.load(root, False).samples("screw")) == 15


@pytest.mark.parametrize("load", [mvtec.load, folder.load])
def test_a_mask_may_have_the_name_of_its_image_alone(tmp_path, load):
    """As in VisA, in the arrangement of its authors' script, and in BTAD."""
    with_suffix = load(make_mvtec(tmp_path / "suffix"), False).samples("screw")
    root = make_mvtec(tmp_path / "plain")
    for path in (root / "screw/ground_truth").glob("*/*_mask.png"):
        path.rename(path.with_name(path.name.replace("_mask", "")))
    samples = load(root, False).samples("screw")
    where = samples.where("test")
    assert (samples.masks(where) == with_suffix.masks(where)).all()
    assert samples.masks(where).any()


def test_the_masks_of_mvtec_loco_are_merged_as_printed(tmp_path, monkeypatch):
    root = make_mvtec(tmp_path / "mvtec_loco", ["bag"], defects={"logical": 1}, masks=False)
    for number in range(2):  # where two overlap, and of a value of its own each
        mask = np.zeros((16, 16), np.uint8)
        mask[number : number + 2] = 255 - number
        save(root / f"bag/ground_truth/logical/000/{number:03}.png", mask)
    page = (Path(__file__).parents[1] / "docs/data.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], {})
    samples = folder.load(root, False).samples("bag")
    mask = samples.read_mask(list(samples.ids).index("bag/test/logical/000.png"))
    assert mask.sum(1).tolist() == [16] * 3 + [0] * 13


def test_masks_among_the_images_are_refused(tmp_path):
    """Such a mask would count as a defect, and have the mask that is called as it is."""
    root = make_mvtec(tmp_path)
    save(root / "screw/test/dent/000_mask.png", picture(0))
    with pytest.raises(
        DataError, match=r"000_mask\.png and 000\.png would share one mask; rename one of them"
    ):
        mvtec.load(root, False).samples("screw")


def test_a_folder_of_class_folders_is_told_of_imagefolder(tmp_path):
    with pytest.raises(DataError, match=r"folders that are classes, .+ with --data imagefolder$"):
        folder.load(make_imagefolder(tmp_path), False)


@pytest.mark.parametrize("load", [mvtec.load, folder.load])
def test_a_mask_that_marks_nothing_is_refused(tmp_path, load):
    path = save(make_mvtec(tmp_path) / "screw/ground_truth/dent/001_mask.png", np.zeros((16, 16), np.uint8))
    samples = load(tmp_path, False).samples("screw")
    with pytest.raises(DataError) as caught:
        samples.masks(samples.where("test"))
    image = tmp_path / "screw/test/dent/001.png"
    remedy = "mark it or move the image to test/good"
    assert str(caught.value) == f"{path}, the mask of {image}, marks no defect; {remedy}"


def test_a_bad_image_is_named_when_it_is_read(tmp_path):
    make_mvtec(tmp_path)
    (tmp_path / "screw/train/good/003.png").write_bytes(b"")
    samples = mvtec.load(tmp_path, False).samples("screw")
    assert samples.read(2).shape == (3, 16, 16)
    with pytest.raises(DataError, match=r"train/good/003\.png cannot be read as an image \(empty file\)"):
        samples.read(3)


def test_a_bad_folder_spoils_only_its_category(tmp_path):
    make_mvtec(tmp_path, ["screw", "bottle"])
    for path in (tmp_path / "screw/test/dent").iterdir():
        path.unlink()
    dataset = mvtec.load(tmp_path, False)
    assert len(dataset.samples("bottle")) == 13
    with pytest.raises(DataError, match=r"screw/test/dent holds no PNG, JPEG, BMP or TIFF image; add images"):
        dataset.samples("screw")


def test_a_category_without_test_is_reported(tmp_path):
    make_mvtec(tmp_path, ["screw"])
    save(tmp_path / "zipper/train/good/000.png", picture(0))
    (tmp_path / "grid/test").mkdir(parents=True)
    (tmp_path / "wood/ground_truth").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    dataset = mvtec.load(tmp_path, False)
    assert dataset.categories == ("screw",)
    assert dataset.note.endswith("; left out for lack of train/good or test: grid, wood, zipper")


def close(monkeypatch, folder: Path, *, listed: bool = False) -> None:
    """Let a folder be as another user's: what is in it cannot be looked up, nor `listed`. Of root's too."""

    def forbidding(question, asked_of):
        def ask(path, *args, **kwargs):
            if asked_of(path) is not None:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return question(path, *args, **kwargs)

        return ask

    def inside(path):
        return folder if folder in path.parents else None

    for name in ("stat", "is_dir", "is_file", "exists"):
        monkeypatch.setattr(Path, name, forbidding(getattr(Path, name), inside))
    if not listed:
        shut = forbidding(Path.iterdir, lambda path: folder if path == folder else inside(path))
        monkeypatch.setattr(Path, "iterdir", shut)


@pytest.mark.parametrize("load", [mvtec.load, folder.load])
def test_a_folder_of_another_user_beside_the_categories_is_left_out(tmp_path, monkeypatch, load):
    make_mvtec(tmp_path)
    (tmp_path / "lost+found").mkdir()
    close(monkeypatch, tmp_path / "lost+found")
    dataset = load(tmp_path, False)
    assert dataset.categories == ("screw",)
    said = "left out because they cannot be looked into: lost+found"
    assert dataset.note.endswith(f"; {said}")
    (tmp_path / "screw/train/good").rename(tmp_path / "screw/train/fine")
    with pytest.raises(DataError, match=re.escape(f"; {said}; ")):
        load(tmp_path, False)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    "place", [".", "screw", "train", "train/good", "test", "test/dent", "ground_truth/dent"]
)
@pytest.mark.parametrize("load", [mvtec.load, folder.load])
def test_a_closed_folder_that_is_needed_is_named(tmp_path, monkeypatch, load, place, listed):
    root = make_mvtec(tmp_path) / "screw"
    closed = tmp_path if place == "." else root if place == "screw" else root / place
    close(monkeypatch, closed, listed=listed)

    def read():
        samples = load(tmp_path if place == "." else root, False).samples("screw")
        samples.masks(samples.where("test"))

    with pytest.raises(DataError) as caught:
        read()
    assert re.fullmatch(
        rf"{re.escape(str(closed))} cannot be (looked into|listed) \(Permission denied\); "
        "let this user read it, or name another folder with --data-root",
        str(caught.value),
    )


def test_odd_names_are_just_text(tmp_path):
    name = 'it\'s "ü" 100% [a]'
    make_mvtec(tmp_path / "real", [name], defects={"a, b": 1})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save(tmp_path / f"real/{name}/train/good/.hidden.png", picture(0))
    dataset = mvtec.load(tmp_path / "link", False)
    assert dataset.categories == (name,)
    samples = dataset.samples(name)
    assert f"{name}/test/a, b/000.png" in samples.ids
    assert samples.masks(samples.where("test")).sum() == 16
    assert not any("hidden" in i for i in samples.ids)


def test_images_are_decoded_once(tmp_path, monkeypatch):
    samples = mvtec.load(make_mvtec(tmp_path), False).samples("screw")
    opened = []
    monkeypatch.setattr(
        Image, "open", lambda path, _open=Image.open, **kw: opened.append(path) or _open(path, **kw)
    )
    for _ in range(3):
        samples.images(samples.where("test"), 8)
        samples.masks(samples.where("test"))
    assert len(opened) == len(set(opened)) == 7 + 4


@pytest.mark.parametrize("right", [True, False])
def test_mvtec_is_fetched_and_its_hash_checked(tmp_path, monkeypatch, right):
    mvtecad = pytest.importorskip("anomalib.data.datamodules.image.mvtecad")
    make_mvtec(tmp_path / "source", ["screw"])
    archive(tmp_path / "source/screw", tmp_path / "packed")
    digest = hashlib.sha256((tmp_path / "packed").read_bytes()).hexdigest() if right else "0" * 64
    info = dataclasses.replace(mvtecad.DOWNLOAD_INFO, hashsum=digest)
    monkeypatch.setattr(mvtecad, "DOWNLOAD_INFO", info)

    def download_url(url, root, filename, md5):
        assert url == info.url
        Path(root).mkdir()
        shutil.copy(tmp_path / "packed", Path(root, filename))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    if not right:
        with pytest.raises(DataError, match=f"its SHA-256 is .*, not {digest}"):
            mvtec.load(tmp_path / "root", True)
        assert not (tmp_path / "root").exists()
        return
    assert mvtec.load(tmp_path / "root", True).categories == ("screw",)
    assert [path.name for path in (tmp_path / "root/mvtec").iterdir()] == ["screw"]
    assert mvtec.load(tmp_path / "root", False).categories == ("screw",)


def test_real_screws():
    dataset = mvtec.load(shared("mvtec_256"), False)
    assert dataset.categories == ("screw",)
    samples = dataset.samples("screw")
    assert counts(samples) == {
        ("test", "good"): 41,
        ("test", "manipulated_front"): 24,
        ("test", "scratch_head"): 24,
        ("test", "scratch_neck"): 25,
        ("test", "thread_side"): 23,
        ("test", "thread_top"): 23,
        ("train", "good"): 320,
    }
    index = list(samples.ids).index("screw/test/scratch_head/000.png")
    assert samples.read(index).shape == (3, 256, 256)
    assert 0 < samples.read_mask(index).sum() < 5000


# folder


def test_ganomaly_layout_of_one_category(tmp_path):
    dataset = folder.load(make_ganomaly(tmp_path / "bags"), False)
    assert dataset.categories == ("bags",)
    assert dataset.note == "1 category, 0 with masks"
    samples = dataset.samples("bags")
    assert counts(samples) == {("test", "1.abnormal"): 3, ("test", "good"): 3, ("train", "good"): 6}
    assert samples.ids[0] == "bags/train/0.normal/000.png"
    assert samples.read_mask is None
    assert samples.masks(samples.where("test")) is None


def test_files_that_are_no_images_are_counted(tmp_path):
    root = make_ganomaly(tmp_path / "bags")
    for name in ("train/0.normal/a.webp", "test/1.abnormal/b.webp", "test/0.normal/notes"):
        (root / name).write_bytes(b"")
    others = "3 files are no PNG, JPEG, BMP or TIFF images and are left out (.webp, no suffix)"
    assert folder.load(root, False).note == f"1 category, 0 with masks; {others}"
    (root / "train/0.normal/a.webp").unlink()
    (root / "test/0.normal/notes").unlink()
    other = "1 file is no PNG, JPEG, BMP or TIFF image and is left out (.webp)"
    assert folder.load(root, False).note == f"1 category, 0 with masks; {other}"


def test_folders_among_the_images_are_counted(tmp_path):
    root = make_mvtec(tmp_path, ["screw"]) / "screw"
    for name in ("train/good/more", "test/dent/more"):
        save(root / name / "000.png", picture(0))
    others = "2 folders among the images are left out, the first good/more"
    assert folder.load(root, False).note == f"1 category, 1 with masks; {others}"


def test_a_folder_that_lacks_a_part_is_reported(tmp_path):
    make_mvtec(tmp_path, ["screw"])
    save(tmp_path / "zipper/train/good/000.png", picture(0))
    save(tmp_path / "bags/train/normal/000.png", picture(0))
    lacking = "left out for lack of train/good, train/0.normal or test: bags, zipper"
    assert folder.load(tmp_path, False).note == f"1 category, 1 with masks; {lacking}"


def test_folders_of_both_layouts(tmp_path):
    make_ganomaly(tmp_path / "bags")
    make_mvtec(tmp_path, ["screw"])
    make_mvtec(tmp_path, ["nut"], masks=False)
    (tmp_path / "notes").mkdir()
    dataset = folder.load(tmp_path, False)
    assert dataset.categories == ("bags", "nut", "screw")
    assert dataset.note == "3 categories, 1 with masks"
    assert dataset.samples("nut").read_mask is None
    assert dataset.samples("screw").masks(np.array([12])).sum() == 16
    assert counts(dataset.samples("nut"))["test", "scratch"] == 2


def test_folder_is_one_mvtec_category(tmp_path):
    dataset = folder.load(make_mvtec(tmp_path, ["screw"]) / "screw", False)
    assert dataset.categories == ("screw",)
    with pytest.raises(AdbenchError, match="unknown category 'crew'; did you mean screw"):
        dataset.samples("crew")


def test_folder_of_another_layout_is_refused(tmp_path):
    make_imagefolder(tmp_path)
    with pytest.raises(
        DataError, match=r"holds train/0\.normal and test, or train/good and test; arrange the images"
    ):
        folder.load(tmp_path, False)


# imagefolder


def test_class_folders_are_split_by_name(tmp_path):
    make_imagefolder(tmp_path, ["cat", "dog"], count=11)
    dataset = imagefolder.load(tmp_path, False)
    samples = dataset.samples("cat")
    assert dataset.categories == ("cat", "dog")
    assert dataset.note == "22 images, 2 classes, 4 : 1 split"
    tests = [samples.ids[i] for i in samples.where("test")]
    assert tests == ["cat/004.png", "cat/009.png", "dog/004.png", "dog/009.png"]
    assert len(samples.where("train")) == 18


def test_class_folders_with_parts(tmp_path):
    make_imagefolder(tmp_path, ["cat", "dog"], count=6, parts=True)
    save(tmp_path / "test/owl/000.png", picture(0))  # an anomaly only: nothing to train on
    dataset = imagefolder.load(tmp_path, False)
    samples = dataset.samples("dog")
    assert dataset.categories == ("cat", "dog")
    assert dataset.note == "19 images, 3 classes, own split"
    assert counts(samples) == {
        ("test", "cat"): 3,
        ("test", "dog"): 3,
        ("test", "owl"): 1,
        ("train", "cat"): 6,
        ("train", "dog"): 6,
    }
    assert samples.ids[0] == "train/cat/000.png"


def test_class_folders_of_several_sizes_and_kinds(tmp_path):
    make_imagefolder(tmp_path, ["cat", "dog"], count=5)
    save(tmp_path / "cat/grey.png", picture(0, height=9, width=33, channels=1)[..., 0])
    samples = imagefolder.load(tmp_path, False).samples("cat")
    index = list(samples.ids).index("cat/grey.png")
    assert samples.read(index).shape == (3, 9, 33)
    assert samples.images(np.array([0, index]), 12).shape == (2, 3, 12, 12)


@pytest.mark.parametrize("parts", [False, True])
def test_what_class_folders_hold_besides_images_is_counted(tmp_path, parts):
    make_imagefolder(tmp_path, ["cat", "dog"], parts=parts)
    folder_of_dogs = tmp_path / ("test/dog" if parts else "dog")
    (folder_of_dogs / "a.webp").write_bytes(b"")
    (folder_of_dogs / "b.gif").write_bytes(b"")
    save(folder_of_dogs / "more/000.png", picture(0))
    files = "2 files are no PNG, JPEG, BMP or TIFF images and are left out (.gif, .webp)"
    folders = "1 folder among the images is left out, the first dog/more"
    assert imagefolder.load(tmp_path, False).note.endswith(f" split; {files}; {folders}")


@pytest.mark.parametrize("parts", [False, True])
def test_images_beside_the_class_folders_are_said(tmp_path, parts):
    make_imagefolder(tmp_path, ["cat", "dog"], parts=parts)
    (tmp_path / "notes.txt").write_text("")
    assert imagefolder.load(tmp_path, False).note.endswith(" split")
    places = [".", "train", "test"] if parts else ["."]
    for number, place in enumerate(places):
        save(tmp_path / place / f"{number}.png", picture(0))
    beside = "images beside the folders of images are" if parts else "image beside the folders of images is"
    said = f"; {len(places)} {beside} left out, the first {tmp_path.name}/0.png"
    assert imagefolder.load(tmp_path, False).note.endswith(f" split{said}")


@pytest.mark.parametrize("load", [mvtec.load, folder.load])
def test_what_a_category_holds_besides_its_images_is_said(tmp_path, load):
    make_mvtec(tmp_path, ["nut", "screw"])
    plain = load(tmp_path, False).note
    (tmp_path / "screw/test/dent/a.webp").write_bytes(b"")
    save(tmp_path / "screw/test/good/more/0.png", picture(0))
    save(tmp_path / "screw/train/bad/0.png", picture(0))
    for place in ("nut/test/1.png", "screw/train/2.png", "screw/train/3.png"):
        save(tmp_path / place, picture(0))
    others = (
        "; 1 file is no PNG, JPEG, BMP or TIFF image and is left out (.webp)"
        "; 1 folder among the images is left out, the first good/more"
        "; 1 folder beside the normal images of train is left out, the first train/bad"
        "; 3 images beside the folders of images are left out, the first test/1.png"
    )
    assert load(tmp_path, False).note == plain + others
    assert load(tmp_path / "screw", False).note.endswith(" left out, the first train/2.png")


NAMES = ("zebra", "école", "facade", "ärger", "eel", "übel", "ulm", "çelik", "casa", "nacht")


def renamed(form: str, *folders: Path) -> None:
    """Give every file in the folders one of `NAMES` in a Unicode form, what follows `000` to `009` kept."""
    for path in [path for each in folders for path in each.iterdir()]:
        name = NAMES[int(path.name[:3])] + path.name[3:]
        path.rename(path.with_name(unicodedata.normalize(form, name)))


def test_names_in_either_unicode_form_are_the_same_class_folders(tmp_path):
    found = []
    for form in ("NFC", "NFD"):
        root = make_imagefolder(tmp_path / form, ["cat", unicodedata.normalize(form, "école")])
        renamed(form, *root.iterdir())
        tasks = tasks_of(Registry.discover(), "imagefolder", root, None, fetch=False)
        samples, cut = tasks.cut("école")
        found.append((tasks.categories, samples.ids, tasks.fingerprint("école"), cut.test.tolist()))
        assert {tasks.named(unicodedata.normalize(asked, "école")) for asked in ("NFC", "NFD")} == {"école"}
    assert found[0] == found[1]
    train = [name for number, name in enumerate(sorted(NAMES), start=1) if number % 5]
    assert [name[4:-4] for name in found[0][1][:8]] == train


def test_names_in_either_unicode_form_are_the_same_category_with_masks(tmp_path):
    found = []
    forms = [("NFC", "NFC", "NFC"), ("NFD", "NFC", "NFD"), ("NFC", "NFD", "NFC"), ("NFD", "NFD", "NFC")]
    for number, (images, masks, defect) in enumerate(forms):
        name, dent = unicodedata.normalize(images, "Bär"), unicodedata.normalize(defect, "Übel")
        home = make_mvtec(tmp_path / str(number), [name], defects={dent: 10}) / name
        renamed(images, home / "test" / dent, home / "test/good", home / "train/good")
        renamed(masks, home / "ground_truth" / dent)
        (home / "ground_truth" / dent).rename(home / "ground_truth" / unicodedata.normalize(masks, "Übel"))
        for dataset in ("mvtec", "folder"):
            tasks = tasks_of(Registry.discover(), dataset, tmp_path / str(number), None, fetch=False)
            samples, _ = tasks.cut("Bär")
            found.append((tasks.categories, samples.ids, samples.classes, tasks.fingerprint("Bär")))
    assert all(each == found[0] for each in found)


def test_a_class_has_one_name_in_train_and_test(tmp_path):
    root = make_imagefolder(tmp_path, ["école", "dog"], parts=True)
    (root / "test/école").rename(root / "test" / unicodedata.normalize("NFD", "école"))
    dataset = imagefolder.load(root, False)
    assert dataset.categories == ("dog", "école")
    assert set(dataset.samples("école").classes) == {"dog", "école"}


def test_one_name_in_both_unicode_forms_is_refused(tmp_path):
    twins = [unicodedata.normalize(form, "école") for form in ("NFD", "NFC")]
    make_imagefolder(tmp_path, [*twins, "dog"])
    with pytest.raises(DataError) as caught:
        imagefolder.load(tmp_path, False)
    remedy = "its name in two Unicode forms; rename or remove one"
    assert str(caught.value) == f"{tmp_path / twins[0]} is there twice, {remedy}"


def test_an_empty_class_folder_is_named(tmp_path):
    make_imagefolder(tmp_path, ["cat", "dog"])
    (tmp_path / "owl").mkdir()
    with pytest.raises(
        DataError, match=r"/owl holds no PNG, JPEG, BMP or TIFF image; add images or remove the folder"
    ):
        imagefolder.load(tmp_path, False)


def test_one_class_is_not_enough(tmp_path):
    make_imagefolder(tmp_path, ["cat"])
    with pytest.raises(
        DataError, match=r"holds 1 class folders, and two are needed; add one, or name another"
    ):
        imagefolder.load(tmp_path, False)


def test_too_few_images_to_split_are_refused(tmp_path):
    make_imagefolder(tmp_path, ["cat", "dog"], count=4)
    with pytest.raises(
        DataError, match=r"/cat holds 4 images, fewer than 5; add some, or make folders train/ and"
    ):
        imagefolder.load(tmp_path, False)


def test_one_bad_image_does_not_stop_the_loading(tmp_path):
    make_imagefolder(tmp_path)
    (tmp_path / "cat/000.png").write_bytes(b"junk")
    samples = imagefolder.load(tmp_path, False).samples("dog")
    with pytest.raises(DataError, match=r"cat/000\.png cannot be read as an image"):
        samples.read(0)
    assert samples.read(1).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("parts", "dataset", "out", "home"),
    [
        (False, "imagefolder", "runs", "."),
        (False, "imagefolder", "runs/first", "."),
        (False, "imagefolder", "cat", "."),
        (False, "imagefolder", ".", "."),
        (False, "imagefolder", ".runs", None),  # hidden folders are no classes
        (False, "imagefolder", ".runs/first", None),
        (False, "imagefolder", "runs/.first", "."),
        (False, "imagefolder", "../runs", None),
        (False, "folder", "runs", None),
        (True, "imagefolder", "test/runs", "test"),
        (True, "imagefolder", "runs", None),
        (None, "imagefolder", "runs", "."),  # a class that is called train
        ("good", "mvtec", "test/runs", "test"),
        ("good", "mvtec", "test", "test"),
        ("good", "mvtec", "test/.runs", None),
        ("good", "folder", "train/good/runs", "train"),
        ("good", "folder", "ground_truth/runs/first", "ground_truth"),
        ("good", "folder", "runs", None),
        ("good", "folder", "runs/test", None),
        ("0.normal", "folder", "test/runs", "test"),
        ("good", "cifar10", "test/runs", None),
    ],
)
def test_results_are_kept_out_of_the_class_folders(tmp_path, monkeypatch, parts, dataset, out, home):
    root = tmp_path / "data"
    kinds = {True: ("train/cat", "test/cat"), False: ("cat", "dog"), None: ("train", "dog")}
    for name in kinds.get(parts, (f"train/{parts}", "test")):
        (root / name).mkdir(parents=True)
    monkeypatch.chdir(root)
    for given in (Path(), root):
        if home is None:
            ensure_apart(Path(out), dataset, given)
            continue
        with pytest.raises(AdbenchError) as caught:
            ensure_apart(Path(out), dataset, given)
        assert str(caught.value) == (
            f"--out {Path(out)} is in {root / home}, where every folder is taken for images; "
            "give --out a folder outside the data"
        )


@pytest.mark.parametrize(
    "begin",
    [
        lambda request, registry, out: benchmark(request, Settings(), registry, Silent(), out),
        lambda request, registry, out: run_audits(request, Settings(), registry, Silent(), out, SHIPPED),
        lambda request, registry, out: run_bench(request, None, "cpu", registry, Silent(), out),
    ],
    ids=["run", "audit", "bench"],
)
def test_no_command_makes_a_folder_for_results_among_the_class_folders(tmp_path, begin):
    make_imagefolder(tmp_path)
    request = Request(detectors=["mean_image"], dataset="imagefolder", data_root=tmp_path)
    with pytest.raises(AdbenchError, match="where every folder is taken for images"):
        begin(request, Registry.discover(), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("make", "mixed"), [(make_mvtec, "screw/test/0.normal"), (make_ganomaly, "test/good")]
)
def test_two_layouts_in_one_folder_are_refused(tmp_path, make, mixed):
    make(tmp_path)
    save(tmp_path / mixed / "000.png", picture(1))
    with pytest.raises(DataError) as caught:
        folder.load(tmp_path, False)
    own = {"0.normal": "good", "good": "0.normal"}[(tmp_path / mixed).name]
    told = f"is of another layout than train/{own}; move its images to {(tmp_path / mixed).parent / own}, or remove it"
    assert str(caught.value) == f"{tmp_path / mixed} {told}"


@pytest.mark.parametrize("name", ["a,b", " a"])
@pytest.mark.parametrize(
    ("make", "dataset"), [(make_mvtec, mvtec), (make_mvtec, folder), (make_imagefolder, imagefolder)]
)
def test_a_category_that_no_option_can_give_is_refused(tmp_path, make, dataset, name):
    make(tmp_path, ["gan", name])
    with pytest.raises(
        DataError, match=f"{name} has a comma .* so that --categories cannot name it; rename it"
    ):
        dataset.load(tmp_path, False)


def test_the_classes_of_fashion_mnist_have_the_order_of_its_labels():
    from torchvision.datasets import FashionMNIST

    names = [name.lower().removesuffix("/top").replace(" ", "-") for name in FashionMNIST.classes]
    assert list(mnist.CLOTHES) == names


@pytest.mark.parametrize(("name", "torchvision_name", "fourth"), MNISTS)
def test_all_four_files_of_mnist_have_an_official_hash(name, torchvision_name, fourth):
    from torchvision import datasets

    files = [file.removesuffix(".gz") for file, _ in getattr(datasets, torchvision_name).resources]
    assert sorted(mnist.OFFICIAL[torchvision_name]) == sorted(files)


def test_normal_images_of_the_other_layout_are_refused_in_train_too(tmp_path):
    mixed = make_ganomaly(tmp_path) / "train/good"
    save(mixed / "000.png", picture(1))
    with pytest.raises(DataError, match=r"train/good is of another layout than train/0\.normal; move"):
        folder.load(tmp_path, False)


def test_ganomalys_layout_may_have_masks(tmp_path):
    make_ganomaly(tmp_path, abnormal=3)
    for i in range(3):
        mask = np.zeros((16, 16), np.uint8)
        mask[i, 0] = 255  # each its own
        save(tmp_path / f"ground_truth/1.abnormal/{i:03}_mask.png", mask)
    dataset = folder.load(tmp_path, False)
    samples = dataset.samples(tmp_path.name)
    assert "1 category, 1 with masks" in dataset.note
    masks = {name.rpartition("/test/")[2]: samples.read_mask(i) for i, name in enumerate(samples.ids)}
    for i in range(3):
        assert np.argwhere(masks[f"1.abnormal/{i:03}.png"]).tolist() == [[i, 0]]
    assert not masks["0.normal/000.png"].any()

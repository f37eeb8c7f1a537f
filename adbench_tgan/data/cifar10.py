"""CIFAR-10 in its official layout `cifar-10-batches-py`, read without running what a pickle may hold.

Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from adbench_tgan.data.archives import fetch_archive
from adbench_tgan.data.files import located, only_regular, reason_of
from adbench_tgan.data.plain_pickle import PlainArray, plain_pickle
from adbench_tgan.data.samples import ClassDataset, Labelled, class_dataset
from adbench_tgan.errors import DataError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = ("test_batch",)
LARGEST = 2**29  # bytes of a batch; an official one has 31 MB
# SHA-256 of the official images as uint8 (N, 3, 32, 32), as the files have them, and of their labels as uint8 (N,).
OFFICIAL = {
    "train": (
        "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    ),
    "test": (
        "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    ),
}


def load(root: Path, fetch: bool) -> ClassDataset:
    """CIFAR-10 from `root`, from `root/cifar10`, or from `root` being the folder of the batches itself.

    Raises:
        DataError: it is not there and cannot be downloaded, or a batch is damaged or not what it should be.
    """
    folder = located("cifar10", root, FOLDER, TEST[0], fetch=fetch, download=_download)
    return made_of(_read(folder, TRAIN), _read(folder, TEST))


def made_of(train: Labelled, test: Labelled) -> ClassDataset:
    """The dataset of these pixels and labels; whether they are the official ones they tell themselves, not their files."""
    same = hashes(train) == OFFICIAL["train"] and hashes(test) == OFFICIAL["test"]
    return class_dataset(NAMES, train, test, "50,000 + 10,000", "official pixels", official=same)


def hashes(part: Labelled) -> tuple[str, str]:
    """SHA-256 of the images as uint8 (N, 3, 32, 32) and of the labels as uint8 (N,)."""
    images, labels = np.ascontiguousarray(part[0]), part[1].astype(np.uint8)
    return hashlib.sha256(images.data).hexdigest(), hashlib.sha256(labels.data).hexdigest()


def _download(place: Path) -> None:
    from torchvision.datasets import CIFAR10

    fetch_archive(place, CIFAR10.url, md5=CIFAR10.tgz_md5)


def _read(folder: Path, names: tuple[str, ...]) -> Labelled:
    batches = [read_batch(folder / name) for name in names]
    pixels, labels = zip(*batches, strict=True)
    return np.concatenate(pixels), np.concatenate(labels)


def read_batch(path: Path) -> Labelled:
    """One batch file: uint8 (N, 3, 32, 32) and labels 0..9.

    Raises:
        DataError: the file is missing, damaged, asks for anything but plain arrays, or holds other data.
    """
    try:
        only_regular(path, LARGEST)
        return _checked(plain_pickle(path.read_bytes()))
    except Exception as error:  # a damaged pickle raises nearly every kind of error
        remedy = "remove its folder and run 'adbench data fetch cifar10'"
        raise DataError(f"{path} is not a CIFAR-10 batch ({reason_of(error)}); {remedy}") from None


def _checked(entry: Any) -> Labelled:
    if not isinstance(entry, dict):
        raise ValueError(f"it holds a {type(entry).__name__}, not a dict")
    missing = [key for key in ("data", "labels") if key not in entry and key.encode() not in entry]
    if missing:
        raise ValueError(f"no {missing[0]!r} in it")
    pixels = _array(entry.get("data", entry.get(b"data")))
    labels = _array(entry.get("labels", entry.get(b"labels")))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        raise ValueError(f"data is {_kind(pixels)}, not uint8 (N, 3072)")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.shape != (len(pixels),):
        raise ValueError(f"labels are {_kind(labels)}, not {len(pixels)} whole numbers")
    if len(labels) == 0:
        raise ValueError("no image in it")
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"labels {labels.min()} to {labels.max()} are not within 0 to 9")
    return pixels.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def _array(value: Any) -> Any:
    """The array that a stand-in or a list of whole numbers stands for; anything else as it is."""
    if isinstance(value, PlainArray):
        return value.array()
    if isinstance(value, list) and all(type(number) is int for number in value):
        return np.array(value, np.int64)
    return value


def _kind(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__

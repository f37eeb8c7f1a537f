"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 pixels, in torchvision's layout or as raw idx files.

LeCun, Cortes, Burges, "The MNIST database of handwritten digits"; Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from adbench_tgan.data.archives import are_official, fetch_gzip
from adbench_tgan.data.files import fetch_folder, not_found, only_regular, reason_of
from adbench_tgan.data.samples import ClassDataset, Labelled, class_dataset
from adbench_tgan.errors import DataError

DIGITS = tuple("0123456789")
CLOTHES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle-boot"),
)
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
LARGEST = {IMAGES: 2**29, LABELS: 2**20}  # bytes of a file; the official ones have 47 million and 60,008
OFFICIAL = {  # MD5s of the unpacked files, by torchvision's name of the dataset
    "MNIST": {
        f"train-{IMAGES}": "6bbc9ace898e44ae57da46a324031adb",
        f"train-{LABELS}": "a25bea736e30d166cdddb491f175f624",
        f"t10k-{IMAGES}": "2646ac647ad5339dbf082846283269ea",
        f"t10k-{LABELS}": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        f"train-{IMAGES}": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        f"train-{LABELS}": "9018921c3c673c538a1fc5bad174d6f9",
        f"t10k-{IMAGES}": "8181f5470baa50b63fa0f6fddb340f0a",
        f"t10k-{LABELS}": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}


def load_mnist(root: Path, fetch: bool) -> ClassDataset:
    """MNIST from `root/MNIST/raw`, or from `root` or `root/mnist` holding the four unpacked idx files.

    Raises:
        DataError: it is not there and cannot be downloaded, or a file is damaged.
    """
    return _load("mnist", "MNIST", DIGITS, root, fetch)


def load_fashion_mnist(root: Path, fetch: bool) -> ClassDataset:
    """Fashion-MNIST from `root/FashionMNIST/raw`, or from `root` or `root/fashion_mnist` holding the idx files.

    Raises:
        DataError: it is not there and cannot be downloaded, or a file is damaged.
    """
    return _load("fashion_mnist", "FashionMNIST", CLOTHES, root, fetch)


def _load(
    dataset: str, name: Literal["MNIST", "FashionMNIST"], classes: tuple[str, ...], root: Path, fetch: bool
) -> ClassDataset:
    places = (root / name / "raw", root / dataset, root)
    folder = next((place for place in places if (place / f"train-{IMAGES}").is_file()), None)
    if folder is None:
        packed = next((place for place in places if (place / f"train-{IMAGES}.gz").is_file()), None)
        if packed:
            raise DataError(
                f"{packed} holds the files of {name} still compressed; unpack them there with gunzip *.gz"
            )
        if not fetch:
            file = f"train-{IMAGES}"
            raise not_found(dataset, root, f"{name}/raw/{file}, {dataset}/{file} or {file}")
        folder = fetch_folder(root, name, lambda place: _download(name, place)) / "raw"
    train, test = _part(folder, "train"), _part(folder, "t10k")
    same = are_official(folder, OFFICIAL[name])
    return class_dataset(classes, train, test, "60,000 + 10,000", "official files", official=same)


def _download(name: Literal["MNIST", "FashionMNIST"], place: Path) -> None:
    from torchvision import datasets

    known = getattr(datasets, name)
    for file, md5 in known.resources:
        fetch_gzip(place / name / "raw", [f"{mirror}{file}" for mirror in known.mirrors], md5=md5)


def _part(folder: Path, part: str) -> Labelled:
    pixels = _read(folder / f"{part}-{IMAGES}")
    path = folder / f"{part}-{LABELS}"
    labels = _read(path).astype(np.int64)
    if len(labels) != len(pixels):
        raise _damaged(path, f"{len(labels):,} labels for {len(pixels):,} images")
    if labels.max() > 9:
        raise _damaged(path, f"label {labels.max()} is not within 0 to 9")
    return pixels[:, None], labels


def _read(path: Path) -> np.ndarray:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    kind, read = (IMAGES, read_image_file) if path.name.endswith(IMAGES) else (LABELS, read_label_file)
    try:
        only_regular(path, LARGEST[kind])
        array = np.asarray(read(str(path)))
    except Exception as error:  # torchvision raises nearly every kind of error on a damaged file
        raise _damaged(path, reason_of(error)) from None
    if array.size == 0:
        raise _damaged(path, "it is empty")
    return array


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is not a sound idx file ({reason}); remove its folder and fetch the data again")

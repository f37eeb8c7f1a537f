"""STL-10: the labelled 5,000 + 8,000 colour images of 96x96 pixels, from the official binary files.

Coates, Lee, Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adbench_tgan.data.archives import are_official, fetch_archive
from adbench_tgan.data.files import located, only_regular, reason_of
from adbench_tgan.data.samples import ClassDataset, Labelled, Pixels, class_dataset
from adbench_tgan.errors import DataError

NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
FOLDER = "stl10_binary"
LARGEST = {"X": 2**30, "y": 2**20}  # bytes of a file; the official ones have at most 221 million and 8,000


def load(root: Path, fetch: bool) -> ClassDataset:
    """STL-10 from `root/stl10_binary`, `root/stl10/stl10_binary`, or `root` being that folder itself.

    The unlabelled images are not read and need not be there.

    Raises:
        DataError: it is not there and cannot be downloaded, or a file is damaged.
    """
    folder = located("stl10", root, FOLDER, "train_X.bin", fetch=fetch, download=_download)
    train, test = _part(folder, "train"), _part(folder, "test")
    same = are_official(folder, _official_files())
    return class_dataset(NAMES, train, test, "5,000 + 8,000", "official files", official=same)


def _official_files() -> dict[str, str]:
    """Their MD5s, but for that of the unlabelled images."""
    from torchvision.datasets import STL10

    return {name: md5 for name, md5 in STL10.train_list + STL10.test_list if "unlabeled" not in name}


def _download(place: Path) -> None:
    from torchvision.datasets import STL10

    fetch_archive(place, STL10.url, md5=STL10.tgz_md5)


def _part(folder: Path, part: str) -> Labelled:
    pixels = _bytes(folder / f"{part}_X.bin")
    if len(pixels) % (3 * 96 * 96):
        raise _damaged(folder / f"{part}_X.bin", f"{len(pixels):,} bytes are not whole images of 3x96x96")
    images = pixels.reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2)  # stored column by column
    path = folder / f"{part}_y.bin"
    labels = _bytes(path).astype(np.int64) - 1  # stored as 1..10
    if len(labels) != len(images):
        raise _damaged(path, f"{len(labels):,} labels for {len(images):,} images")
    if labels.min() < 0 or labels.max() > 9:
        raise _damaged(path, f"labels {labels.min() + 1} to {labels.max() + 1} are not within 1 to 10")
    return images, labels


def _bytes(path: Path) -> Pixels:
    try:
        only_regular(path, LARGEST[path.stem[-1]])
        values = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise _damaged(path, reason_of(error)) from None
    if len(values) == 0:
        raise _damaged(path, "it is empty")
    return values


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is not a sound STL-10 file ({reason}); remove its folder and fetch it again")

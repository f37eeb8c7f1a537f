"""Tiny datasets written to disk, for tests: the same bytes at every call."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, *, height: int = 16, width: int = 16, channels: int = 3) -> np.ndarray:
    """A smooth ramp with a little noise: uint8 (H, W, C)."""
    noise = np.random.default_rng(seed).integers(0, 30, (height, width, channels))
    ramp = np.linspace(60, 160, width)[None, :, None]
    return (ramp + noise).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write uint8 (H, W) or (H, W, C) as an image file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def make_mvtec(
    root: Path,
    categories: Sequence[str] = ("screw",),
    *,
    train: int = 6,
    good: int = 3,
    defects: Mapping[str, int] | None = None,
    size: int = 16,
    masks: bool = True,
) -> Path:
    """The MVTec layout. A defect is a white square of a quarter of the side at the image's top left."""
    for number, category in enumerate(categories):
        folder, seed = root / category, 1000 * number
        for i in range(train):
            save(folder / f"train/good/{i:03}.png", picture(seed + i, height=size, width=size))
        for i in range(good):
            save(folder / f"test/good/{i:03}.png", picture(seed + 200 + i, height=size, width=size))
        for kind, count in (defects or {"dent": 2, "scratch": 2}).items():
            for i in range(count):
                image, mask = defect(seed + 400 + i, size)
                save(folder / f"test/{kind}/{i:03}.png", image)
                if masks:
                    save(folder / f"ground_truth/{kind}/{i:03}_mask.png", mask)
    return root


def defect(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a white square, and its mask with 255 there."""
    image, mask = picture(seed, height=size, width=size), np.zeros((size, size), np.uint8)
    image[: size // 4, : size // 4] = 255
    mask[: size // 4, : size // 4] = 255
    return image, mask


def make_ganomaly(root: Path, *, train: int = 6, normal: int = 3, abnormal: int = 3, size: int = 16) -> Path:
    """GANomaly's layout: train/0.normal, test/0.normal, test/1.abnormal."""
    for i in range(train):
        save(root / f"train/0.normal/{i:03}.png", picture(i, height=size, width=size))
    for i in range(normal):
        save(root / f"test/0.normal/{i:03}.png", picture(200 + i, height=size, width=size))
    for i in range(abnormal):
        save(root / f"test/1.abnormal/{i:03}.png", defect(400 + i, size)[0])
    return root


def make_imagefolder(
    root: Path,
    classes: Sequence[str] = ("cat", "dog", "owl"),
    *,
    count: int = 10,
    parts: bool = False,
    size: int = 16,
) -> Path:
    """Class folders with `count` images each; with `parts` below train/ and, half as many, below test/."""
    counts = {"train": count, "test": count // 2} if parts else {"": count}
    for part, images in counts.items():
        for number, name in enumerate(classes):
            for i in range(images):
                pixels = picture(100 * number + i + 5000 * (part == "test"), height=size, width=size)
                pixels[..., number % 3] = 250  # each class has its own hue
                save(root / part / name / f"{i:03}.png", pixels)
    return root


class Python2(pickle._Pickler):
    """Writes bytes as the official files of CIFAR-10 have them: as the text of Python 2."""

    def save_bytes(self, data: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)

    dispatch = pickle._Pickler.dispatch | {bytes: save_bytes}


def make_cifar10(root: Path, *, batch: int = 20, test: int = 20) -> Path:
    """`root/cifar-10-batches-py` with five training batches and a test batch; label of image i: i % 10."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(names):
        count = test if name == "test_batch" else batch
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
        entry = {b"data": pixels, b"labels": [i % 10 for i in range(count)]}
        with (folder / name).open("wb") as file:
            Python2(file, protocol=2).dump(entry)
    return folder


def make_mnist(root: Path, *, train: int = 30, test: int = 20) -> Path:
    """The four raw idx files directly in `root`; label of image i: i % 10."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, (part, count) in enumerate({"train": train, "t10k": test}.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(root / f"{part}-images-idx3-ubyte", pixels)
        write_idx(root / f"{part}-labels-idx1-ubyte", labels)
    return root


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write a uint8 array in the idx format of MNIST."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())


def make_stl10(root: Path, *, train: int = 20, test: int = 10) -> Path:
    """`root/stl10_binary` with the labelled files; label of image i: i % 10 (in the file plus one)."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate({"train": train, "test": test}.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        (folder / f"{part}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())  # columns first
        (folder / f"{part}_y.bin").write_bytes((np.arange(count) % 10 + 1).astype(np.uint8).tobytes())
    return folder

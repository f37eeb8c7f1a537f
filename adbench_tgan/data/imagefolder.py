"""A user's own images in class folders, any class as the normal one or as the anomaly.

train/<class>/* and test/<class>/*           or           <class>/*
"""

from __future__ import annotations

from pathlib import Path

from adbench_tgan.data.classfolders import PARTS, homes
from adbench_tgan.data.contents import ensure_choosable, existing, left_out, list_folders, list_images, loose
from adbench_tgan.data.files import Cache
from adbench_tgan.data.mvtec import Item
from adbench_tgan.data.samples import ClassDataset, Samples
from adbench_tgan.errors import DataError
from adbench_tgan.text import composed, unbroken

EVERY = 5  # of a class without a test folder, the 5th, 10th, ... image by name is a test image


def load(root: Path, fetch: bool) -> ClassDataset:
    """The classes below `root/train` and `root/test`, else those in `root`, then split by a fixed rule.

    A class with test images only is no category, only an anomaly of the others.

    Raises:
        DataError: `root` is no folder, has fewer than two classes, or a class has no (or too few) images.
    """
    places = homes(existing(root))
    divided = places != (root,)
    items = _divided(root) if divided else _undivided(root)
    classes = sorted({item.kind for item in items})
    if len(classes) < 2:
        remedy = "add one, or name another folder with --data-root"
        raise DataError(f"{root} holds {len(classes)} class folders, and two are needed; {remedy}")
    ensure_choosable(dict.fromkeys(item.path.parent for item in items if item.part == "train"))
    cache, paths = Cache(), [item.path for item in items]
    split = "own" if divided else "4 : 1"
    folders = dict.fromkeys(item.path.parent for item in items)
    aside = loose(dict.fromkeys([root, *places]))
    samples = Samples(
        read=lambda index: cache.one_of(paths, index),
        release=cache.clear,
        ids=[composed(item.path.relative_to(root).as_posix()) for item in items],
        classes=[item.kind for item in items],
        parts=[item.part for item in items],
    )
    return ClassDataset(
        categories=tuple(sorted({item.kind for item in items if item.part == "train"})),
        images=samples,
        note=unbroken(
            f"{len(items):,} images, {len(classes)} classes, {split} split{left_out(folders)}{aside}"
        ),
    )


def _divided(root: Path) -> list[Item]:
    return [
        Item(path, composed(folder.name), part)
        for part in PARTS
        for folder in list_folders(root / part)
        for path in list_images(folder)
    ]


def _undivided(root: Path) -> list[Item]:
    items = []
    for folder in list_folders(root):
        paths = list_images(folder)
        if len(paths) < EVERY:
            remedy = "add some, or make folders train/ and test/"
            raise DataError(f"{folder} holds {len(paths)} images, fewer than {EVERY}; {remedy}")
        items += [
            Item(path, composed(folder.name), "train" if number % EVERY else "test")
            for number, path in enumerate(paths, start=1)
        ]
    return sorted(items, key=lambda item: item.part == "test")  # in this order they are asked for

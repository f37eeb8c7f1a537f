"""MVTec AD, and whatever has its layout: per category good training images, and test images with masks of defects.

    ROOT/<category>/{train/good, test/<good or defect>, ground_truth/<defect>/<name>_mask.png}

A mask may also be called <name>.png, as those of VisA and BTAD are.

Bergmann, Fauser, Sattlegger, Steger, "MVTec AD", CVPR 2019.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adbench_tgan.data.archives import fetch_archive
from adbench_tgan.data.contents import (
    aside,
    ensure_choosable,
    found_as,
    is_folder,
    left_out,
    list_folders,
    list_images,
    loose,
    open_folders,
)
from adbench_tgan.data.files import Cache, decode_mask, fetch_folder, not_found
from adbench_tgan.data.samples import Pixels, Samples
from adbench_tgan.errors import DataError, unknown
from adbench_tgan.text import composed, counted, unbroken

PLACES = ("", "mvtec", "MVTecAD")  # below root
OFFICIAL = 15  # categories


@dataclass(frozen=True, kw_only=True)
class Category:
    """A folder with train/<good> and test/<good or defect>, and masks in ground_truth/<defect>."""

    name: str
    folder: Path
    good: str = "good"  # name of the folders of normal images
    masked: bool = True


class Item(NamedTuple):
    """One image."""

    path: Path
    kind: str  # "good", or the defect's folder; in class folders its class
    part: str


@dataclass(frozen=True, kw_only=True)
class DefectDataset:
    """Categories with defects; images are decoded when they are read."""

    found: tuple[Category, ...]
    note: str = ""  # what was found
    _cache: Cache = field(default_factory=Cache, init=False, repr=False, compare=False)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the categories."""
        return tuple(category.name for category in self.found)

    def samples(self, category: str) -> Samples:
        """The images of one category.

        Raises:
            DataError: a folder of it is missing or empty.
        """
        for known in self.found:
            if known.name == category:
                return _samples(known, self._cache)
        raise unknown("category", category, self.categories)


def load(root: Path, fetch: bool) -> DefectDataset:
    """The categories in `root`, `root/mvtec` or `root/MVTecAD`, or `root` being one category itself.

    Raises:
        DataError: there is none and the set cannot be downloaded.
    """
    if is_category(root):
        only = (Category(name=name_of(root), folder=root),)
        return DefectDataset(found=only, note=_note(only))
    noted = ""
    for place in PLACES:
        found, others = _categories(root / place)
        if found:
            return DefectDataset(found=found, note=_note(found, others))
        noted += others
    if not fetch:
        layout = "folder with train/good and test, nor does a folder mvtec or MVTecAD in it"
        raise not_found("mvtec", root, layout + noted)
    found, others = _categories(fetch_folder(root, "mvtec", _download))
    return DefectDataset(found=found, note=_note(found, others))


def is_category(folder: Path, good: str = "good") -> bool:
    """Whether `folder` holds train/<good> and test."""
    parts = ("train", f"train/{good}", "test")  # the first tells whether `folder` itself can be looked into
    return all(is_folder(folder / part) for part in parts)


def name_of(folder: Path) -> str:
    """A folder's own name in one Unicode form, also when it is given as "." or ".."."""
    return composed(Path(os.path.abspath(folder)).name)


def _categories(root: Path) -> tuple[tuple[Category, ...], str]:
    """The categories in `root`, and what a note says of folders that are left out."""
    folders, closed = open_folders(root) if is_folder(root) else ([], "")
    found = tuple(Category(name=name_of(folder), folder=folder) for folder in folders if is_category(folder))
    ensure_choosable(category.folder for category in found)
    return found, incomplete(folders, found, "train/good or test") + closed


def incomplete(folders: Sequence[Path], found: Sequence[Category], parts: str) -> str:
    """What a note says of folders that look like a category and lack one of its `parts`; empty when none do."""
    whole = {category.folder for category in found}
    names = [folder.name for folder in folders if folder not in whole and _is_begun(folder)]
    return f"; left out for lack of {parts}: {', '.join(names)}" if names else ""


def _is_begun(folder: Path) -> bool:
    """Whether it has a part of a category, as one that is half unpacked has."""
    return any(is_folder(folder / part) for part in ("train", "test", "ground_truth"))


def passed_over(categories: Sequence[Category]) -> str:
    """What a note says of all in the categories' folders that is left out; empty when nothing is."""
    homes = [category.folder / part for category in categories for part in ("train", "test")]
    folders, unused = [], []
    for category in categories:
        good = category.folder / "train" / category.good
        folders.append(good)
        with suppress(DataError):  # which says so when the category's images are listed
            folders += list_folders(category.folder / "test")
            unused += [path for path in list_folders(good.parent) if path != good]
    one, many = "folder beside the normal images of train is", "folders beside the normal images of train are"
    return left_out(folders) + aside(unused, one, many) + loose(homes)


def _note(found: Sequence[Category], others: str = "") -> str:
    note = counted(len(found), "category", "categories")
    if len(found) != OFFICIAL:
        note += f"; the official set has {OFFICIAL}"
    return unbroken(note + others + passed_over(found))


def _download(place: Path) -> None:
    from anomalib.data.datamodules.image.mvtecad import DOWNLOAD_INFO

    fetch_archive(place / "mvtec", DOWNLOAD_INFO.url, sha256=DOWNLOAD_INFO.hashsum)


def _samples(category: Category, cache: Cache) -> Samples:
    items = _items(category)
    if category.masked:
        _check_names(items)

    paths = [item.path for item in items]
    # Of images that were read: the mask of one without a defect is as large.
    sides: dict[int, tuple[int, ...]] = {}

    def read(index: int) -> Pixels:
        image = cache.one_of(paths, index, category.name)
        sides[index] = image.shape[1:]
        return image

    def read_mask(index: int) -> Pixels:
        item = items[index]
        if item.kind == "good":
            return np.zeros(sides.get(index) or read(index).shape[1:], np.uint8)
        path = _mask_of(item, category)
        mask = cache.read(path, category.name, decoder=decode_mask)
        if not mask.any():
            remedy = f"mark it or move the image to test/{category.good}"
            raise DataError(f"{path}, the mask of {item.path}, marks no defect; {remedy}")
        return mask

    return Samples(
        read=read,
        release=cache.clear,
        read_mask=read_mask if category.masked else None,
        ids=[
            composed(f"{category.name}/{item.path.relative_to(category.folder).as_posix()}") for item in items
        ],
        classes=[item.kind for item in items],
        parts=[item.part for item in items],
    )


def _items(category: Category) -> list[Item]:
    items = [Item(path, "good", "train") for path in list_images(category.folder / "train" / category.good)]
    for folder in list_folders(category.folder / "test"):
        kind = "good" if folder.name == category.good else composed(folder.name)
        items += [Item(path, kind, "test") for path in list_images(folder)]
    return items


def _check_names(items: Sequence[Item]) -> None:
    """Raise `DataError` when two images of defects would have one mask."""
    seen: dict[tuple[str, str], Path] = {}
    for item in items:
        other = seen.setdefault((item.kind, composed(item.path.stem).removesuffix("_mask")), item.path)
        if item.kind != "good" and other != item.path:
            raise DataError(f"{item.path} and {other.name} would share one mask; rename one of them")


def _mask_of(item: Item, category: Category) -> Path:
    asked = category.folder / "ground_truth" / item.path.parent.name
    folder, plain = found_as(asked) or asked, f"{item.path.stem}.png"
    path = folder / f"{item.path.stem}_mask.png"
    if (found := found_as(path) or found_as(folder / plain)) is None:
        remedy = "add it or remove the image; without masks remove ground_truth/ and use --data folder"
        raise DataError(f"{path} (or {plain}), the mask of {item.path}, is missing; {remedy}")
    return found

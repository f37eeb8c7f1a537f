"""A user's own images: GANomaly's layout, or that of MVTec AD with or without masks; one category or several.

train/0.normal, test/0.normal, test/1.abnormal           or
train/good, test/good, test/<defect>, ground_truth/<defect>/<name>_mask.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adbench_tgan.data.contents import ensure_choosable, existing, is_folder, open_folders
from adbench_tgan.data.mvtec import Category, DefectDataset, incomplete, is_category, name_of, passed_over
from adbench_tgan.errors import DataError
from adbench_tgan.text import counted, unbroken

GOOD = ("0.normal", "good")  # names of the folders of normal images in the two layouts


def load(root: Path, fetch: bool) -> DefectDataset:
    """The one category that `root` is, or those that its folders are. Masks are read where ground_truth exists.

    Raises:
        DataError: neither `root` nor a folder in it has one of the two layouts, one has both, or its name no
            option can give.
    """
    if (only := _category(existing(root))) is not None:
        return _dataset([only])
    folders, closed = open_folders(root)
    categories = [category for category in map(_category, folders) if category is not None]
    if not categories:
        layouts = "train/0.normal and test, or train/good and test"
        remedy = "arrange the images so, or read folders that are classes, one of them normal, with --data imagefolder"
        raise DataError(f"neither {root} nor a folder in it holds {layouts}{closed}; {remedy}")
    ensure_choosable(category.folder for category in categories)
    lacking = incomplete(folders, categories, "train/good, train/0.normal or test")
    return _dataset(categories, lacking + closed)


def _category(folder: Path) -> Category | None:
    for good, other in (GOOD, GOOD[::-1]):
        if is_category(folder, good):
            _check_layout(folder, good, other)
            masked = is_folder(folder / "ground_truth")
            return Category(name=name_of(folder), folder=folder, good=good, masked=masked)
    return None


def _check_layout(folder: Path, good: str, other: str) -> None:
    """Raise `DataError` when normal images lie where the other layout has them: they would count as defects."""
    for mixed in (folder / part / other for part in ("train", "test")):
        if is_folder(mixed):
            text = f"{mixed} is of another layout than train/{good}"
            raise DataError(f"{text}; move its images to {mixed.parent / good}, or remove it")


def _dataset(categories: Sequence[Category], others: str = "") -> DefectDataset:
    masked = sum(category.masked for category in categories)
    count = counted(len(categories), "category", "categories")
    note = f"{count}, {masked} with masks{others}{passed_over(categories)}"
    return DefectDataset(found=tuple(categories), note=unbroken(note))

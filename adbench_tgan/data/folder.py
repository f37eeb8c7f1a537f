"""A user's own images: GANomaly's layout, or that of MVTec AD with or without masks; one category or several.

train/0.normal, test/0.normal, test/1.abnormal           or
train/good, test/good, test/<defect>, ground_truth/<defect>/<name>_mask.png
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from adbench_tgan.data.files import existing, list_folders, one_line, other_files
from adbench_tgan.data.mvtec import Category, DefectDataset, is_category, name_of
from adbench_tgan.errors import DataError


def load(root: Path, fetch: bool) -> DefectDataset:
    """The one category that `root` is, or those that its folders are. Masks are read where ground_truth exists.

    Raises:
        DataError: neither `root` nor a folder in it has one of the two layouts.
    """
    found = [_category(folder) for folder in (existing(root), *list_folders(root))]
    if found[0] is not None:
        return _dataset([found[0]])
    categories = [category for category in found if category is not None]
    if not categories:
        layouts = "train/0.normal and test, or train/good and test"
        remedy = "arrange the images so, or name another folder with --data-root"
        raise DataError(one_line(f"neither {root} nor a folder in it holds {layouts}; {remedy}"))
    return _dataset(categories)


def _category(folder: Path) -> Category | None:
    for good in ("0.normal", "good"):
        if is_category(folder, good):
            masked = (folder / "ground_truth").is_dir()
            return Category(name=name_of(folder), folder=folder, good=good, masked=masked)
    return None


def _dataset(categories: list[Category]) -> DefectDataset:
    masked = sum(category.masked for category in categories)
    plural = "category" if len(categories) == 1 else "categories"
    note = f"{len(categories)} {plural}, {masked} with masks"
    if others := sum((_others(category) for category in categories), Counter()):
        kinds = ", ".join(sorted(others))
        note += f"; {others.total()} files are no PNG, JPEG, BMP or TIFF images and are left out ({kinds})"
    return DefectDataset(found=tuple(categories), note=one_line(note))


def _others(category: Category) -> Counter[str]:
    """Files that lie among the images and are none, by suffix."""
    folders = [category.folder / "train" / category.good]
    folders += list_folders(category.folder / "test") if (category.folder / "test").is_dir() else []
    return sum((other_files(folder) for folder in folders), Counter())

"""Where the folders of a user's own images are, and that results stay out of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adbench_tgan.data.contents import is_folder
from adbench_tgan.data.folder import GOOD
from adbench_tgan.data.mvtec import is_category
from adbench_tgan.errors import AdbenchError
from adbench_tgan.store.places import is_remote

PARTS = ("train", "test")


def homes(root: Path) -> tuple[Path, ...]:
    """The folders whose every folder is a class: ``train`` and ``test`` in `root` where both are there, else `root`."""
    parts = tuple(root / part for part in PARTS)
    return parts if all(is_folder(part) for part in parts) else (root,)


def ensure_apart(out: Path, dataset: str, root: Path) -> None:
    """Refuse a folder for results that would be taken for images of the dataset in `root`, before it is made.

    Raises:
        AdbenchError: it would.
    """
    if dataset not in ("imagefolder", "folder", "mvtec") or is_remote(out):
        return
    place = out.resolve()
    for home in homes(root.resolve()) if dataset == "imagefolder" else _parts_around(place):
        if place == home or (place.is_relative_to(home) and not _is_hidden(place.relative_to(home))):
            raise AdbenchError(
                f"--out {out} is in {home}, where every folder is taken for images; "
                "give --out a folder outside the data"
            )


def _parts_around(place: Path) -> Iterator[Path]:
    """The folders, of those that hold `place`, in which a category with defects has its folders of images."""
    for home in (place, *place.parents):
        if home.name in (*PARTS, "ground_truth") and any(is_category(home.parent, good) for good in GOOD):
            yield home


def _is_hidden(path: Path) -> bool:
    """Whether its first folder is one that is left out of the classes."""
    return path.parts[0].startswith(".")

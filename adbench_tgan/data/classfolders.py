"""Where the class folders of a user's own images are, and that results stay out of them."""

from __future__ import annotations

from pathlib import Path

from adbench_tgan.data.contents import is_folder
from adbench_tgan.errors import AdbenchError
from adbench_tgan.places import is_remote

PARTS = ("train", "test")


def homes(root: Path) -> tuple[Path, ...]:
    """The folders whose every folder is a class: ``train`` and ``test`` in `root` where both are there, else `root`."""
    parts = tuple(root / part for part in PARTS)
    return parts if all(is_folder(part) for part in parts) else (root,)


def ensure_apart(out: Path, dataset: str, root: Path) -> None:
    """Refuse a folder for results that would be taken for a class of the dataset in `root`, before it is made.

    Raises:
        AdbenchError: it would.
    """
    if dataset != "imagefolder" or is_remote(out):
        return
    place = out.resolve()
    for home in homes(root.resolve()):
        if place == home or (place.is_relative_to(home) and not _is_hidden(place.relative_to(home))):
            raise AdbenchError(
                f"--out {out} is in {home}, where every folder is a class of images; "
                "give --out a folder outside the data"
            )


def _is_hidden(path: Path) -> bool:
    """Whether its first folder is one that is left out of the classes."""
    return path.parts[0].startswith(".")

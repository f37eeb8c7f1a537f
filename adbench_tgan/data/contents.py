"""What a folder of images holds: its images, its folders, and what is passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from adbench_tgan.errors import DataError
from adbench_tgan.text import composed, counted

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, by suffix, sorted by name; hidden files are left out.

    Raises:
        DataError: there is no such folder, it holds no image, or a name is not valid Unicode.
    """
    images = _images(folder)
    if not images:
        remedy = "add images or remove the folder, or name another folder with --data-root"
        raise DataError(f"{folder} holds no PNG, JPEG, BMP or TIFF image; {remedy}")
    return images


def left_out(folders: Iterable[Path]) -> str:
    """What a note says of all in these folders of images that is passed over; empty when nothing is.

    Of a folder that cannot be read the error says so when its images are listed.
    """
    others: Counter[str] = Counter()
    inner: list[Path] = []
    for folder in folders:
        with suppress(DataError):
            rest = [path for path in _entries(folder) if path.suffix.lower() not in SUFFIXES]
            files = [path for path in rest if _asked(path, Path.is_file)]
            others.update(path.suffix.lower() or "no suffix" for path in files)
            inner += list_folders(folder)
    note = ""
    if others:
        one = "file is no PNG, JPEG, BMP or TIFF image and is left out"
        many = "files are no PNG, JPEG, BMP or TIFF images and are left out"
        note = f"; {counted(others.total(), one, many)} ({', '.join(sorted(others))})"
    return note + aside(inner, "folder among the images is", "folders among the images are")


def loose(folders: Iterable[Path]) -> str:
    """What a note says of images that lie beside the folders of images, not in them; empty when none do."""
    found: list[Path] = []
    for folder in folders:
        with suppress(DataError):  # one that can be looked into, but not listed
            found += _images(folder)
    return aside(found, "image beside the folders of images is", "images beside the folders of images are")


def aside(paths: Sequence[Path], one: str, many: str) -> str:
    """What a note says of files or folders that are passed over, called `one` or `many`; empty when there are none."""
    first = "/".join(paths[0].absolute().parts[-2:]) if paths else ""
    return f"; {counted(len(paths), one, many)} left out, the first {first}" if paths else ""


def _images(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix.lower() in SUFFIXES and not is_folder(path)]


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, sorted by name; hidden ones are left out.

    Raises:
        DataError: there is no such folder, or a name is not valid Unicode.
    """
    return [path for path in _entries(folder) if is_folder(path)]


def open_folders(folder: Path) -> tuple[list[Path], str]:
    """The folders directly in `folder` that can be looked into, and what a note says of others.

    Such as ``lost+found``, which a disk has at its root.

    Raises:
        DataError: as `list_folders`.
    """
    folders = list_folders(folder)
    closed = [path for path in folders if _is_closed(path)]
    names = ", ".join(path.name for path in closed)
    note = f"; left out because they cannot be looked into: {names}" if closed else ""
    return [path for path in folders if path not in closed], note


def _is_closed(folder: Path) -> bool:
    try:
        is_folder(folder / "train")
    except DataError:
        return True
    return False


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder, or a link to one.

    Raises:
        DataError: that cannot be told, as where the folder it is in cannot be looked into.
    """
    return _asked(path, Path.is_dir)


def found_as(path: Path) -> Path | None:
    """`path`, or what is beside it by the same name in another Unicode form; None when neither is there.

    Raises:
        DataError: as `list_folders` and `is_folder`.
    """
    if _asked(path, Path.exists):
        return path
    if path.name.isascii() or not is_folder(path.parent):
        return None
    beside = (other for other in _entries(path.parent) if composed(other.name) == composed(path.name))
    return next(beside, None)


def _asked(path: Path, question: Callable[[Path], bool]) -> bool:
    try:
        return question(path)
    except PermissionError as error:
        raise _unreadable(path.parent, "looked into", error) from None
    except OSError as error:
        raise _unreadable(path, "looked up", error) from None


def _unreadable(path: Path, what: str, error: OSError) -> DataError:
    remedy = "restore the folder"
    if isinstance(error, PermissionError):
        remedy = "let this user read it, or name another folder with --data-root"
    return DataError(f"{path} cannot be {what} ({error.strerror}); {remedy}")


def _entries(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise _unreadable(folder, "listed", error) from None
    paths = sorted(found, key=lambda path: (composed(path.name), path.name))
    for path in paths:
        if any("\ud800" <= letter <= "\udfff" for letter in path.name):  # bytes that are not UTF-8
            raise DataError(f"{path} has a name that is not valid Unicode; rename it")
    for path, after in pairwise(paths):
        if composed(path.name) == composed(after.name):
            raise DataError(f"{path} is there twice, its name in two Unicode forms; rename or remove one")
    return paths


def ensure_choosable(categories: Iterable[Path]) -> None:
    """Raise `DataError` when a category's folder has a name that a list of names with commas cannot hold."""
    for folder in categories:
        if "," in folder.name or folder.name != folder.name.strip():
            unfit = "has a comma in its name, or a space at its start or end"
            raise DataError(f"{folder} {unfit}, so that --categories cannot name it; rename it")


def existing(root: Path) -> Path:
    """`root`, when it is a folder.

    Raises:
        DataError: it is not.
    """
    if not is_folder(root):
        raise DataError(f"{root} is not a folder; give the data's folder with --data-root or $ADBENCH_DATA")
    return root

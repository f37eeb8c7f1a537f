"""Where results are kept: a folder, or a prefix of an object store, by its fsspec URL.

An object store has no rename and no folders, but a file there appears whole or not at all.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from adbench_tgan.errors import AdbenchError, StoreAway, StoreError, unwritable
from adbench_tgan.hooks import one_line
from adbench_tgan.store.drafts import draft_name

ABSENT = (FileNotFoundError, NotADirectoryError)  # all other errors of reading leave open what is there
UNKNOWN_USER = re.compile("Credential|Profile|Token|Auth|Refresh")  # in the names of libraries' errors
EXPIRED = "renew its credentials, or let them list, read and write there, then "


def place_of(text: str) -> Path:
    """A folder, or what behaves like one: ``s3://bucket/prefix``, ``gs://...``, ``memory://...``.

    Raises:
        AdbenchError: what reaches it is not installed, or it is half a URL.
    """
    if not text.strip():
        raise AdbenchError("--out is empty; name a folder, or an fsspec URL")
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return folder_of(text)
    if scheme in ("file", "local"):
        if not rest.startswith("/"):
            raise AdbenchError(
                f"--out {text}: a folder's URL has three slashes; write {scheme}:///PATH, or the folder"
            )
        return Path(rest)
    try:
        from upath import UPath

        place = UPath(text, use_listings_cache=False, **_options(scheme))  # other runs write there too
        _ = place.fs
    except ImportError:
        raise AdbenchError(
            f"--out {text}: pip install 'adbench-tgan[objects]', and fsspec's package for {scheme}"
        ) from None
    except Exception as error:
        raise AdbenchError(f"--out {text}: {one_line(error)}; give a folder or an fsspec URL") from None
    return cast(Path, place)


def _options(scheme: str) -> dict[str, Any]:
    """What a file system is made with, besides what the user has set for it.

    s3fs asks five times, and each time the library below it five times more: a store that hangs cost minutes a call.
    """
    if scheme not in ("s3", "s3a") or "AWS_MAX_ATTEMPTS" in os.environ:
        return {}
    from fsspec.config import conf

    set_by_user = (conf.get("s3", {}) | conf.get(scheme, {})).get("config_kwargs", {})
    return {"config_kwargs": {"retries": {"max_attempts": 1}} | set_by_user}


def folder_of(text: str) -> Path:
    """A folder, which may be written with ``~``: the shell leaves that of ``--out=~/runs`` to us.

    Raises:
        AdbenchError: it is a URL that lacks a slash.
    """
    if half := re.fullmatch(r"([A-Za-z][\w+.-]+):/(.*)", text):
        scheme, rest = half.groups()
        slashes = ":///" if scheme in ("file", "local") else "://"
        raise AdbenchError(
            f"--out {text}: a URL has two slashes; write {scheme}{slashes}{rest}, or ./{text} for a folder"
        )
    return Path(os.path.expanduser(text))


def is_remote(path: Path) -> bool:
    """Whether a path is an object's rather than a file's."""
    return not isinstance(path, Path)


def system_of(path: Path) -> Any:
    """The fsspec file system of an object."""
    return cast(Any, path).fs


def name_of(path: Path) -> str:
    """What an object's file system calls it."""
    return str(cast(Any, path).path)


@contextmanager
def answering() -> Iterator[None]:
    """Make an OSError of every error of an object store: each kind has its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, one_line(error)[:300]) from None


def unreadable(path: Path, error: OSError) -> StoreError:
    """The error for what may well be there, and cannot be read: it is not to be taken for absent."""
    return _unanswered("read", path, error, "make it readable, then ")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make the error `unreadable` of every OSError but those that say that nothing is there, `ABSENT`."""
    try:
        yield
    except ABSENT:
        raise
    except OSError as error:
        raise unreadable(path, error) from None


def unwritten(path: Path, error: OSError) -> StoreError:
    """The error for what cannot be written."""
    return _unanswered("write", path, error, "") if is_remote(path) else unwritable(path, error)


def _unanswered(what: str, path: Path, error: OSError, remedy: str) -> StoreError:
    refused = isinstance(error, PermissionError)
    away = is_remote(path) and not refused
    if is_remote(path) and (refused or error.errno == errno.EINVAL):  # S3's answer to an expired token
        remedy = EXPIRED
    elif away:
        remedy = ""
    reason = f"cannot {what} {path}: {error.strerror or one_line(error)}"[:600]
    return (StoreAway if away else StoreError)(f"{reason}; {remedy}run the same command again")


def is_there(path: Path) -> bool:
    """Whether there is a file or an object.

    Raises:
        StoreError: that cannot be found out.
    """
    with reading(path), answering():
        return path.exists()


def ensure_writable(root: Path, option: str = "--out", *, make: bool = False) -> None:
    """Find out, before the work, whether a folder can be written. Only `make` makes it: what is refused leaves nothing.

    Raises:
        AdbenchError: it cannot; `option` is the one that named it.
    """
    try:
        if make and not is_remote(root):
            root.mkdir(parents=True, exist_ok=True)
        path = (root if is_remote(root) else _nearest(root)) / f"probe-{uuid.uuid4().hex}"
        path.write_bytes(b"")
        path.unlink()
    except Exception as error:  # each kind of object store has its own
        reason = getattr(error, "strerror", None) or one_line(error)[:300]
        remedy = (
            f"{_first_remedy(root, error)}give {option} another {'place' if is_remote(root) else 'folder'}"
        )
        raise AdbenchError(f"cannot write to {root}: {reason}; {remedy}") from None


def _first_remedy(root: Path, error: Exception) -> str:
    """What may help where an object store could not be written."""
    if not is_remote(root):
        return ""
    if isinstance(error, PermissionError) or UNKNOWN_USER.search(type(error).__name__):
        return "set its credentials, or "
    if isinstance(error, FileNotFoundError):
        return "make its bucket, or "
    variable = " ($AWS_ENDPOINT_URL)" if "s3" in system_of(root).protocol else ""
    return f"see that its endpoint can be reached{variable}, or "


def _nearest(folder: Path) -> Path:
    """A folder, or the lowest one above it that is there."""
    return next(each for each in (folder, *folder.parents) if os.path.lexists(each))


def ensure_ours(out: Path, first: Mapping[str, str]) -> None:
    """Refuse a folder with a file that would be written over and does not begin as ours does; `first` has how, by name.

    Raises:
        AdbenchError: it has one, or is a published board.
        StoreError: that cannot be found out.
    """
    if is_there(out / "board.json"):
        raise AdbenchError(f"{out} is a published board; give --out another folder")
    for name, begins in first.items():
        try:
            with open_regular(out / name) as file, answering():
                there = file.read(len(begins.encode()))
        except (*ABSENT, IsADirectoryError):
            continue
        except ValueError:
            there = None
        except OSError as error:
            raise unreadable(out / name, error) from None
        if there not in (b"", begins.encode()):
            raise AdbenchError(
                f"{out / name} was not written by adbench, and would be overwritten; give --out another folder"
            )


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, or of an object, that has no more than `limit` of them.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is larger, or a pipe or a device, which might never end.
    """
    data = None
    if is_remote(path):
        with answering():
            if path.stat().st_size <= limit:
                data = path.read_bytes()
    else:
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) <= limit:
                data = file.read(size)
    if data is None:
        raise ValueError(f"{path} has more than {limit:,} bytes")
    return data


def open_regular(path: Path) -> BufferedReader:
    """A regular file, or an object, open for reading.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is a pipe or a device, which might never end.
    """
    if is_remote(path):
        with answering():
            return path.open("rb")
    # To open a pipe would wait for a writer.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        file = os.fdopen(number, "rb")
    except OSError:  # a folder, which stays open
        os.close(number)
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"{path} is not a regular file")
    return file


def contents(path: Path, limit: int) -> bytes | None:
    """As `read_bounded`; None if nothing is there.

    Raises:
        StoreError: it cannot be read.
        ValueError: it is larger, or a pipe or a device.
    """
    try:
        with reading(path):
            return read_bounded(path, limit)
    except ABSENT:
        return None


def replace(path: Path, data: bytes) -> None:
    """Write a file all at once, and make its folder: until it is whole on the disk, what stood there stands there still.

    Raises:
        OSError: it cannot be written.
    """
    if is_remote(path):
        with answering():
            path.write_bytes(data)
        return
    draft = path.with_name(f".{draft_name()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def stamp(path: Path) -> str:
    """What changes whenever a file is written.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    if not is_remote(path):
        return str(path.stat().st_mtime_ns)
    with answering():
        return str(system_of(path).ukey(name_of(path)))


def create(path: Path, text: str) -> None:
    """Write a file that nobody has written before.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written.
    """
    if not is_remote(path):
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        return
    with answering():
        system_of(path).pipe_file(name_of(path), text.encode(), mode="create")


def touch(path: Path, text: str) -> None:
    """Change a file of ours, so that others see that we live; an object gets the new `text`."""
    path.write_text(text) if is_remote(path) else os.utime(path)

"""Archives of datasets: downloaded, verified, and unpacked without trusting what is in them.

Only regular files and folders come out, only below the place they are unpacked in, and only so many bytes.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

LIMIT = 16 * 2**30  # bytes that an archive may unpack to; MVTec AD, the largest, has 5 GB
FILES = 200_000  # members that it may have
PIECE = 2**20  # bytes read at a time; also the most that one header of a tar file may claim
OPENERS: dict[bytes, Callable[..., Any]] = {  # by how the file begins
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}


class ArchiveError(Exception):
    """The archive holds what no dataset needs, or more than any does."""


def fetch_archive(place: Path, url: str, *, md5: str | None = None, sha256: str | None = None) -> None:
    """Download a tar archive, verify it and unpack it in `place`.

    Raises:
        ArchiveError: it is another one, or holds links, devices, outside paths or more than `LIMIT` bytes.
    """
    from torchvision.datasets.utils import download_url

    download_url(url, str(place), filename="archive", md5=md5)
    archive = place / "archive"
    if sha256 is not None:
        verify(archive, sha256)
    unpack(archive, place)
    archive.unlink()


def fetch_gzip(place: Path, urls: Sequence[str], *, md5: str) -> None:
    """Download one compressed file from the first mirror that has it, verify and unpack it in `place`.

    Raises:
        OSError, RuntimeError: no mirror gives the right file.
        ArchiveError: it unpacks to more than `LIMIT` bytes.
    """
    from torchvision.datasets.utils import download_url

    name = urls[0].rpartition("/")[2]
    for number, url in enumerate(urls, start=1):
        try:
            download_url(url, str(place), filename=name, md5=md5)
            break
        except (OSError, RuntimeError):
            if number == len(urls):  # the last one's error counts
                raise
    with gzip.open(place / name) as packed, (place / name.removesuffix(".gz")).open("wb") as out:
        for piece in pieces(cast("IO[bytes]", packed), LIMIT):
            out.write(piece)
    (place / name).unlink()


def verify(archive: Path, sha256: str) -> None:
    """Raise `ArchiveError` unless the file has that hash."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ArchiveError(f"its SHA-256 is {found}, not {sha256}")


def unpack(archive: Path, place: Path, limit: int = LIMIT) -> None:
    """Unpack a tar file, compressed or not, in `place`.

    Raises:
        ArchiveError: a member is neither file nor folder or lies outside, or they are too many or too large.
        tarfile.TarError: it is damaged.
    """
    with archive.open("rb") as file:
        opener = OPENERS.get(file.read(2), open)
    with cast("IO[bytes]", opener(archive, "rb")) as plain:
        counted = cast("IO[bytes]", Counted(plain, limit))
        with tarfile.open(fileobj=counted, mode="r:") as tar:
            members = list(admitted(tar, limit))  # all are looked at before the first is written
            tar.extractall(place, members=members, filter="data")


def admitted(tar: tarfile.TarFile, limit: int) -> Iterator[tarfile.TarInfo]:
    """The members of an archive that holds files and folders only, and not too many."""
    total = 0
    for number, member in enumerate(tar, start=1):
        total += member.size
        if not (member.isfile() or member.isdir()):
            raise ArchiveError(f"{member.name!r} is a link or a device, which no dataset needs")
        if member.issparse():
            raise ArchiveError(f"{member.name!r} is a sparse file, which no dataset needs")
        if total > limit or number > FILES:
            raise ArchiveError(f"it unpacks to more than {limit:,} bytes or {FILES:,} files")
        yield member


class Counted:
    """A file of which no more than `limit` bytes are read, however much it unpacks to."""

    def __init__(self, file: IO[bytes], limit: int):
        self.file, self.limit = file, limit

    def read(self, size: int = -1) -> bytes:
        """At most `PIECE` bytes."""
        if size < 0 or size > PIECE:  # only the headers of a hostile archive are as large
            raise ArchiveError("it has an oversized header")
        if self.file.tell() > self.limit:
            raise ArchiveError(f"it unpacks to more than {self.limit:,} bytes")
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def pieces(file: IO[bytes], limit: int) -> Iterator[bytes]:
    """What a file holds, piece by piece; an `ArchiveError` when that is more than `limit` bytes."""
    total = 0
    while piece := file.read(PIECE):
        total += len(piece)
        if total > limit:
            raise ArchiveError(f"it unpacks to more than {limit:,} bytes")
        yield piece


def are_official(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether the files in a folder have these MD5s."""
    from torchvision.datasets.utils import check_md5

    return all(check_md5(folder / name, md5) for name, md5 in files.items())

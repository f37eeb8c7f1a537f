"""Archives that would write elsewhere, or more than any dataset has, are refused before anything is written."""

import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest

from adbench_tgan.data import archives, cifar10
from adbench_tgan.data.archives import ArchiveError, fetch_gzip, unpack
from adbench_tgan.errors import DataError


def member(name, kind=tarfile.REGTYPE, size=0, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def packed(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_files_and_folders_come_out(tmp_path, mode):
    names = ("set", "set/a", "set/deep/b", "set/" + "long" * 60)
    members = [
        member(names[0], tarfile.DIRTYPE),
        *(member(name, size=512 * i) for i, name in enumerate(names[1:])),
    ]
    place = tmp_path / "place"
    place.mkdir()
    unpack(packed(tmp_path / "archive", *members, mode=mode), place)
    sizes = {str(p.relative_to(place)): p.stat().st_size for p in place.rglob("*") if p.is_file()}
    assert sizes == {name: 512 * i for i, name in enumerate(names[1:])}


HOSTILE = {
    "above": (member("../escaped", size=1), "would be extracted to"),
    "above inside": (member("set/../../escaped", size=1), "would be extracted to"),
    "symbolic link": (
        member("set/a", tarfile.SYMTYPE, link="../../escaped"),
        "'set/a' is a link or a device",
    ),
    "link inside": (member("set/a", tarfile.SYMTYPE, link="b"), "'set/a' is a link or a device"),
    "hard link": (member("set/a", tarfile.LNKTYPE, link="/etc/passwd"), "'set/a' is a link or a device"),
    "device": (member("set/a", tarfile.CHRTYPE), "'set/a' is a link or a device"),
    "pipe": (member("set/a", tarfile.FIFOTYPE), "'set/a' is a link or a device"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_no_dataset_needs_is_refused(tmp_path, kind):
    info, reason = HOSTILE[kind]
    place = tmp_path / "deep/place"
    place.mkdir(parents=True)
    archive = packed(tmp_path / "archive", info)
    with pytest.raises((ArchiveError, tarfile.FilterError), match=reason):
        unpack(archive, place)
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == [archive]


def test_a_sparse_file_is_refused(tmp_path):
    header = bytearray(member("holes", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"00001000000\0"  # the size that it would have: without the holes it has none
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "archive").write_bytes(header + bytes(10_240 - len(header)))
    with pytest.raises(ArchiveError, match=r"'holes' is a sparse file, which no dataset needs"):
        unpack(tmp_path / "archive", tmp_path)


def test_an_absolute_path_stays_inside(tmp_path):
    (tmp_path / "place").mkdir()
    unpack(packed(tmp_path / "archive", member("/etc/adbench-escaped", size=1)), tmp_path / "place")
    assert not Path("/etc/adbench-escaped").exists()
    assert (tmp_path / "place/etc/adbench-escaped").exists()


def test_a_bad_member_behind_good_ones_keeps_all_from_being_written(tmp_path):
    (tmp_path / "place").mkdir()
    archive = packed(
        tmp_path / "archive", member("good", size=9), member("bad", tarfile.SYMTYPE, link="good")
    )
    with pytest.raises(ArchiveError):
        unpack(archive, tmp_path / "place")
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.parametrize("sizes", [[3_000_000], [900_000] * 3])
def test_a_bomb_of_files_is_refused(tmp_path, sizes):
    members = [member(f"zeros-{i}", size=size) for i, size in enumerate(sizes)]
    archive = packed(tmp_path / "archive", *members)
    assert archive.stat().st_size < 20_000
    with pytest.raises(ArchiveError, match=r"unpacks to more than 2,000,000 bytes"):
        unpack(archive, tmp_path, limit=2_000_000)


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FILES", 10)
    archive = packed(tmp_path / "archive", *(member(str(i)) for i in range(11)))
    with pytest.raises(ArchiveError, match="or 10 files"):
        unpack(archive, tmp_path)


def test_a_claimed_size_is_not_believed(tmp_path):
    info = member("huge", size=2**40)
    with gzip.open(tmp_path / "archive", "wb") as file:
        file.write(info.tobuf() + bytes(10_000))
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        unpack(tmp_path / "archive", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_gigabytes_is_not_read(tmp_path, kind):
    header = member("x", kind, size=2**33 - 1024).tobuf(tarfile.GNU_FORMAT)
    with lzma.open(tmp_path / "archive", "wb", preset=0) as file:
        file.write(header + bytes(4_000_000))
    with pytest.raises(ArchiveError, match="an oversized header"):
        unpack(tmp_path / "archive", tmp_path)


@pytest.mark.parametrize("damage", [b"", b"noise" * 300, b"\x1f\x8bnoise", b"\xfd7noise"])
def test_a_damaged_archive_is_one_line(tmp_path, monkeypatch, damage):
    def download_url(url, root, filename, md5):
        Path(root, filename).write_bytes(damage)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        cifar10.load(tmp_path, True)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_compressed_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    def download_url(url, root, filename, md5):
        Path(root, filename).write_bytes(gzip.compress(bytes(3_000_000)))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    monkeypatch.setattr(archives, "LIMIT", 2_000_000)
    with pytest.raises(ArchiveError, match="unpacks to more than 2,000,000 bytes"):
        fetch_gzip(tmp_path, ["http://example.org/x.gz"], md5="")

"""A job's files in an object store, which has no rename to make them appear all at once."""

from __future__ import annotations

import errno
from pathlib import Path

from adbench_tgan.store.places import answering, create, unwritten

MEANWHILE = "another run has stored it meanwhile"


def upload(folder: Path, target: Path) -> None:
    """Write a job's files as objects, ``result.json`` last; an earlier one stays as long as what it vouches for.

    Raises:
        StoreError: they cannot be written, or another run has stored the job meanwhile: then all of it is to be done
            once more, since of each file the later one is there.
    """
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    last, marker = files.pop("result.json"), target / "result.json"
    try:
        with answering():
            if stays := marker.exists():
                stood = marker.read_bytes()
                there = {name: (target / name).read_bytes() for name in files if (target / name).exists()}
                # Beside a failure there are no scores yet: another run may put its own there meanwhile.
                if "scores.parquet" not in there or any(files[name] != data for name, data in there.items()):
                    if marker.read_bytes() != stood:
                        raise FileExistsError(errno.EEXIST, MEANWHILE)
                    marker.unlink()
                    stays = False
                files = {name: data for name, data in files.items() if there.get(name) != data}
            for name, data in sorted(files.items()):
                (target / name).write_bytes(data)
            if stays:
                marker.write_bytes(last)
            else:
                _write_first(marker, last)
    except OSError as error:
        raise unwritten(target, error) from None


def _write_first(marker: Path, data: bytes) -> None:
    """Write a ``result.json`` where none is: a run that was stopped before it must not vouch for another's files.

    Raises:
        OSError: one is there, or it cannot be written.
    """
    try:
        create(marker, data.decode())
    except FileExistsError:
        if marker.read_bytes() != data:  # else it is ours, whose reply was lost
            raise FileExistsError(errno.EEXIST, MEANWHILE) from None

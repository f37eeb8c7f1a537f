"""The errors a user can mend. Their text is one line: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

from adbench_tgan.text import unbroken

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


class AdbenchError(Exception):
    """Something the user can mend; shown without a traceback, in one printable line whatever a stranger's file says."""

    status = 2  # of the command that it ends: the command itself is wrong

    def __init__(self, message: object = ""):
        super().__init__(unbroken(str(message)))


class NotHere(AdbenchError):
    """Something that this machine lacks, such as pretrained weights: it costs the rows that need it, and no others."""


class DataError(AdbenchError):
    """A dataset, an image or a mask that cannot be used."""


class StoreError(AdbenchError):
    """A result that cannot be written, such as on a full disk, or that is there and cannot be read."""

    status = 1


class StoreAway(StoreError):
    """A result in an object store that does not answer; it may do so again."""


class TrainingDiverged(AdbenchError):
    """A loss became NaN or infinite."""


def unknown(kind: str, name: str, known: Iterable[str]) -> AdbenchError:
    """The error for a name that is not registered, with the nearest known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    return AdbenchError(f"unknown {kind} {name!r}; {hint}")


def unwritable(what: object, error: OSError, elsewhere: str = "give --out another folder") -> StoreError:
    """The error for a file or folder that cannot be written, with the remedy that fits the reason."""
    space = "free some space"
    remedy = f"{space} or {elsewhere}"
    if error.errno in FULL:
        remedy = space
    elif error.errno in FORBIDDEN:
        remedy = elsewhere
    return StoreError(
        f"cannot write {what}: {error.strerror or error}; {remedy}, then run the same command again"
    )

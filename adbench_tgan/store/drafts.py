"""What is not finished yet: under names that tell whose it was, so that others clear it away once he is gone."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from adbench_tgan.discovery.sources import digest
from adbench_tgan.errors import AdbenchError

BOOT = Path("/proc/sys/kernel/random/boot_id")
MACHINE = Path("/etc/machine-id")
CARDS = Path("/sys/class/net")
NAMESPACE = Path("/proc/self/ns/pid")
LONGEST = 100  # characters of a host's name
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)  # how a rename fails where a folder has just appeared
OLD = "+old"  # ends the name of a folder that was moved aside for a new one


def replace_folder(target: Path, draft: Path) -> None:
    """Rename a draft into place; what stood there comes back if that fails, and goes if it does not.

    What is a part of a container's image cannot be renamed (it is of a lower layer of an overlay): it goes first.

    Where another process does the same at this moment, the later one stands.

    Raises:
        OSError: it cannot be renamed.
    """
    old = draft.with_name(draft.name + OLD)
    while True:
        try:
            os.rename(target, old)
        except FileNotFoundError:  # nothing stands there yet
            pass
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.rmtree(target)
        try:
            os.rename(draft, target)
        except OSError as error:
            if error.errno in TAKEN:
                shutil.rmtree(old, ignore_errors=True)
                continue
            if old.exists():
                os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
        return


def clear(folder: Path, home: Callable[[Path], Path | None]) -> None:
    """Remove what processes of this machine that have ended left unfinished in a folder, by names of `draft_name`.

    What one of them had moved aside, to put a new one there, goes back to where `home` says, if nothing is there now.

    Raises:
        OSError: the folder cannot be listed, or a file in it not removed.
    """
    for left in folder.iterdir():
        if not owner_is_gone(left.name):
            continue
        if left.name.endswith(OLD) and (target := home(left)) is not None:
            with suppress(OSError):  # something stands there, or another process was faster
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(left, target)
        left.unlink(missing_ok=True) if left.is_file() else shutil.rmtree(left, ignore_errors=True)


def clear_temporary() -> None:
    """Do so in the system's temporary folder, where anybody's files are, as far as it can be done."""
    with suppress(OSError):
        clear(Path(tempfile.gettempdir()), lambda _: None)


def ensure_temporary() -> None:
    """Find out, before the work, whether there is a folder for temporary files, which torch needs too.

    Raises:
        AdbenchError: there is none.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise AdbenchError(
            "no folder for temporary files can be written; set TMPDIR to one that can, and has space"
        ) from None


def draft_name() -> str:
    """A new name for what is not finished, by which `owner_is_gone` knows whose it was."""
    return f"{_host()}+{os.getpid()}+{uuid.uuid4().hex}"


def owner_is_gone(draft: str) -> bool:
    """Whether the process that a draft's name, ``host+pid+random``, speaks of is known to have ended.

    One is whose machine was started again since. Of this boot only a process that could be seen from here is: of this
    container.
    """
    host, _, rest = draft.removeprefix(".").partition("+")
    if host != _host():
        return _was_restarted(host)
    number = rest.partition("+")[0]
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, OSError):
        return False
    return _has_ended(number)


def _has_ended(number: str) -> bool:
    """Whether a process is one no more, but for its number: until its parent, or the first process, asks how it ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (OSError, IndexError):
        return False


def _host() -> str:
    """What a process's number is a number of: ``name~machine~boot~namespace``; the name alone without Linux to ask.

    Containers can have one name, and so can machines: these are hashes of what tells machines apart (empty if nothing
    does), of the boot, and of the processes' namespace.
    """
    name = socket.gethostname()[:LONGEST]
    try:
        boot, space = BOOT.read_text(), str(NAMESPACE.stat().st_ino)
    except OSError:
        return name
    return "~".join([name, *(text and digest(text.encode()) for text in (_machine(), boot, space))])


def _was_restarted(host: str) -> bool:
    """Whether a host is this machine before its last start."""
    theirs, ours = host.split("~"), _host().split("~")
    if len(theirs) != 4 or len(ours) != 4 or not ours[1]:
        return False
    return theirs[:2] == ours[:2] and theirs[2] != ours[2]


def _machine() -> str:
    """The system's id and its network cards' makers' addresses, since copies have one id; empty without either.

    A container has no cards of its own, only links to its host's, and virtual machines have addresses that somebody
    chose, which their copies may have too.
    """
    try:
        own = [path for path in sorted(CARDS.glob("*/address")) if (path.parent / "device").exists()]
        cards = [address for address in (path.read_text() for path in own) if _is_makers(address)]
        found = MACHINE.read_text().strip()
        return f"{found}{cards}" if found and cards else ""
    except (OSError, ValueError):
        return ""


def _is_makers(address: str) -> bool:
    """Whether a network card's address is its maker's: the second bit of an address that was chosen is set."""
    return not int(address[:2], 16) & 2

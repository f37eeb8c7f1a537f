"""Which code made a number: the commit of the checkout that it is imported from, and hashes of its source files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

FRAMEWORK = "adbench_tgan"
UNKNOWN = "unknown"  # commit of a checkout of which git tells nothing
PATIENCE = 2.0  # seconds that git may take
SILENT = 127  # exit status of a git that says nothing, as a shell has it for a command that is not there
SHOWN = 12  # digits of a hash


def code_behind(detector: type, installed_with: str) -> dict[str, object]:
    """The code that runs a detector now: of four parts none names a file, a folder or a person.

    `commit` of the framework: empty if it is in no checkout, "unknown" where git does not tell. `changed`: whether the
    checkout's own files differ from it; None if unknown. `framework` and `detector`: SHA-256 over the ``*.py`` of the
    one, and of all packages of the distribution that the other is `installed_with`; None if they cannot be read.
    """
    commit, changed = commit_of(Path(__file__).parent)
    packages = tuple(sorted(packages_of(detector, installed_with)))
    return {
        "commit": commit,
        "changed": changed,
        "framework": sources_hash((FRAMEWORK,)),
        "detector": sources_hash(packages, sys.modules.get(detector.__module__)),
    }


def packages_of(detector: type, installed_with: str) -> set[str]:
    """The outermost packages that a detector's code is in, as far as its distribution names them; without our own."""
    parts = detector.__module__.split(".")
    inward = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    found = {next((name for name in inward if _spec_file(name)), "")}  # what has no file is shared by many
    with suppress(PackageNotFoundError, ValueError):
        found.update((distribution(installed_with).read_text("top_level.txt") or "").split())
    return found - {FRAMEWORK, ""}


@cache
def sources_hash(packages: tuple[str, ...], imported: ModuleType | None = None) -> str | None:
    """SHA-256 over the names and bytes of all source files, in order; None without any.

    Kept from the first call on: a file that is edited later is not what this process has imported, unless what it had
    `imported` is another module now.
    """
    found = hashlib.sha256()
    count = 0
    try:
        for name, path in (each for package in packages for each in _files(package)):
            data = path.read_bytes()
            found.update(f"{name} {len(data)}\n".encode(errors="surrogateescape") + data)
            count += 1
    except OSError:
        return None
    return found.hexdigest() if count else None


def _files(package: str) -> Iterator[tuple[str, Path]]:
    """The source files of a package, or of a module that is a single file, by their names from there."""
    file = _spec_file(package)
    if file is not None and file.name == "__init__.py":
        root = file.parent
        own = (path for path in root.rglob("*.py") if path.is_file() and not path.name.startswith("."))
        yield from sorted((path.relative_to(root.parent).as_posix(), path) for path in own)
    elif file is not None and file.suffix == ".py":
        yield file.name, file


def _spec_file(name: str) -> Path | None:
    """The file of an outermost package or of a module that is imported."""
    try:
        spec = sys.modules[name].__spec__ if name in sys.modules else find_spec(name)
        return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None
    except (ImportError, ValueError, TypeError, AttributeError):
        return None


@cache
def commit_of(folder: Path) -> tuple[str, bool | None]:
    """The commit of the checkout that a package's folder belongs to, and whether files that it tracks were changed."""
    if not any((each / ".git").exists() for each in (folder, *folder.parents)):
        return "", None
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py").returncode
    if tracked == 1:  # an environment inside somebody else's checkout
        return "", None
    filters = _git(folder, "config", "--local", "--includes", "--get-regexp", r"^filter\.")
    if filters.returncode == 0:  # programs that comparing files would start
        head = _git(folder, "rev-parse", "HEAD")
        return UNKNOWN if head.returncode else head.stdout.strip(), None
    status = _git(
        folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=all"
    )
    if tracked or status.returncode:
        return UNKNOWN, None
    return _said_by(status.stdout.splitlines())


def _said_by(status: Sequence[str]) -> tuple[str, bool]:
    """The commit that the lines of ``git status`` name, and whether they name a changed file."""
    heads = [line.split()[-1] for line in status if line.startswith("# branch.oid ")]
    return heads[0] if heads else UNKNOWN, any(not line.startswith("#") for line in status)


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What git says in a folder, which it leaves as it is; it ends with `SILENT` if it is not installed, or too slow."""
    here = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook's own
    try:
        return subprocess.run(
            ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words],
            cwd=folder,
            env=here,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return subprocess.CompletedProcess(words, SILENT, "", "")


def state_of(machine: Mapping[str, Any]) -> tuple[str, str]:
    """Hashes of the framework and of the detector's packages, as a result states them; empty where it does not."""
    code = machine.get("code")
    told = code if isinstance(code, Mapping) else {}
    return str(told.get("framework") or ""), str(told.get("detector") or "")


def shown_cpu(machine: Mapping[str, Any]) -> str:
    """The processor and, where a result says so, the vector instructions that torch used: ``AMD EPYC with AVX2``."""
    named, capability = machine.get("cpu") or "unknown machine", machine.get("cpu_capability")
    return f"{named} with {capability}" if capability else str(named)


def shown_code(machine: Mapping[str, Any]) -> str:
    """The code in a few words: ``commit 0123456789ab with changes, sources 0123456789ab``; empty if unknown."""
    code = machine.get("code")
    if not isinstance(code, Mapping):
        return ""
    commit, sources = str(code.get("commit") or ""), state_of(machine)[0]
    changed = " with changes" if code.get("changed") else ""
    parts = [f"commit {commit[:SHOWN]}{changed}" if commit else "", sources and f"sources {sources[:SHOWN]}"]
    return ", ".join(part for part in parts if part)

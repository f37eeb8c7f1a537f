"""Results on disk: a folder a job, which appears by one atomic rename or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from adbench_tgan.errors import AdbenchError, StoreError
from adbench_tgan.jobs import Job

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

SCHEMA = 2  # of result.json
PARTIAL = ".partial"  # where folders are written before they are renamed into place


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job. A failed one has an `error` and nothing else to show."""

    job: Job
    status: Literal["ok", "failed"]
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)  # of each network
    threshold: float | None = None  # a quantile of training scores
    purity_delta: float | None = (
        None  # largest relative change of a score with its batch; see `runner.purity`
    )
    anomalies_fingerprint: str = ""  # of the labelled anomalies trained on
    shape: tuple[int, int, int] | None = None  # of the images that the detector saw
    device: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # fallbacks and whatever else a reader must know
    declared: Mapping[str, str] = field(
        default_factory=dict
    )  # conformance checks it is known to fail, and why
    suite: str = ""  # version of the checks that `declared` names
    version: str = ""  # of adbench-tgan
    scores: pd.DataFrame | None = field(default=None, repr=False)  # sample_id, label, score
    losses: tuple[Mapping[str, float], ...] = field(default=(), repr=False)  # one an epoch
    state: Mapping[str, Tensor] | None = field(default=None, repr=False)  # with --save-models


class ResultStore:
    """The folder of a benchmark's results."""

    def __init__(self, root: Path):
        self.root = root

    def open(self) -> None:
        """Make the folder and clear away what killed processes of this machine left behind.

        Raises:
            AdbenchError: the folder cannot be written.
        """
        try:
            (self.root / PARTIAL).mkdir(parents=True, exist_ok=True)
            probe = self.root / PARTIAL / f"probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise AdbenchError(
                f"cannot write results to {self.root}: {error.strerror}; give --out another folder"
            ) from None
        for left in (self.root / PARTIAL).iterdir():
            if _owner_is_gone(left.name):
                shutil.rmtree(left, ignore_errors=True)

    def folder(self, job: Job) -> Path:
        """Where a job's files are, or will be."""
        names = (job.dataset, job.protocol, job.detector, f"{job.category}-seed{job.seed}-{job.key[:8]}")
        return self.root.joinpath(*map(safe_name, names))

    def get(self, job: Job, *, with_model: bool = False) -> Result | None:
        """The stored result of a job that ended well; None if there is none, or it is damaged.

        `with_model` asks for one whose model was saved too.
        """
        folder = self.folder(job)
        result = read_result(folder)
        if result is None or result.status != "ok" or result.job.key != job.key:
            return None
        if with_model and not (folder / "model.safetensors").exists():
            return None
        return result if is_whole(folder) else None

    def put(self, result: Result) -> None:
        """Write a result's folder, all at once. A failed result never replaces a good one.

        Raises:
            StoreError: the disk is full or cannot be written; nothing is left half-written.
        """
        target = self.folder(result.job)
        if result.status == "failed" and self.get(result.job) is not None:
            return
        draft = self.root / PARTIAL / f"{socket.gethostname()}+{os.getpid()}+{uuid.uuid4().hex}"
        try:
            draft.mkdir(parents=True)
            write_files(result, draft)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # an earlier failure, or a damaged result
                os.rename(target, draft.with_name(draft.name + "+old"))
            os.rename(draft, target)
        except OSError as error:
            raise StoreError(
                f"cannot write {target}: {error.strerror}; free some space or give --out another folder, then "
                "run the same command again"
            ) from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(draft.with_name(draft.name + "+old"), ignore_errors=True)

    def results(self) -> Iterator[Result]:
        """Every readable result, in the order of their folders' names."""
        for path in sorted(self.root.glob("*/*/*/*/result.json")):
            result = read_result(path.parent)
            if result is not None and path.parent == self.folder(result.job):
                yield result

    def scores(self, job: Job) -> pd.DataFrame:
        """The per-image scores of a finished job: sample_id, label, score."""
        return read_scores(self.folder(job))


def write_files(result: Result, folder: Path) -> None:
    """Write a result's files into `folder`, `result.json` last, each flushed to the disk."""
    written = {}
    if result.scores is not None:
        frame = result.scores
        written["scores.parquet"] = _write(
            folder / "scores.parquet", lambda p: frame.to_parquet(p, index=False)
        )
    if result.losses:
        import pandas as pd

        losses = pd.DataFrame(list(result.losses))
        losses.insert(0, "epoch", range(1, len(losses) + 1))
        written["losses.csv"] = _write(folder / "losses.csv", lambda p: losses.to_csv(p, index=False))
    if result.state is not None:
        from safetensors.torch import save_file

        state = dict(result.state)
        written["model.safetensors"] = _write(folder / "model.safetensors", lambda p: save_file(state, p))
    text = json.dumps(as_json(result) | {"files": written}, indent=1, sort_keys=True)
    _write(folder / "result.json", lambda p: p.write_text(text + "\n"))


def _write(path: Path, write: Callable[[Path], object]) -> dict[str, Any]:
    """Write one file, flush it to the disk, and return its size and hash."""
    write(path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def as_json(result: Result) -> dict[str, Any]:
    """All of a result that goes into ``result.json``; scores, losses and weights have files of their own."""
    plain = {
        name: getattr(result, name)
        for name in ("status", "error", "metrics", "timing", "parameters", "threshold", "shape", "device")
    }
    names = ("anomalies_fingerprint", "purity_delta", "machine", "notes", "declared", "suite", "version")
    rest = {name: getattr(result, name) for name in names}
    return {"schema": SCHEMA, "key": result.job.key, "job": asdict(result.job)} | plain | rest


def read_result(folder: Path) -> Result | None:
    """What ``result.json`` says; None when it is missing, damaged or of another schema."""
    try:
        data = json.loads((folder / "result.json").read_text())
        if data["schema"] != SCHEMA:
            return None
        job = Job(**data["job"])
        fields = {
            name: data[name] for name in ("status", "error", "metrics", "timing", "parameters", "device")
        }
        shape = tuple(data["shape"]) if data["shape"] else None
        return Result(
            job=job,
            threshold=data["threshold"],
            purity_delta=data["purity_delta"],
            anomalies_fingerprint=data["anomalies_fingerprint"],
            shape=shape,
            machine=data["machine"],
            notes=tuple(data["notes"]),
            declared=data.get("declared", {}),  # absent from results older than the declarations
            suite=data.get("suite", ""),
            version=data["version"],
            **fields,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_whole(folder: Path) -> bool:
    """Whether every file that ``result.json`` names is there at its full size."""
    try:
        files = json.loads((folder / "result.json").read_text())["files"]
        return all((folder / name).stat().st_size == facts["bytes"] for name, facts in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read_scores(folder: Path) -> pd.DataFrame:
    """The per-image scores of a job's folder.

    Raises:
        AdbenchError: the file is missing, or is not the one that ``result.json`` vouches for.
    """
    import pandas as pd

    path = folder / "scores.parquet"
    try:
        expected = json.loads((folder / "result.json").read_text())["files"]["scores.parquet"]["sha256"]
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdbenchError(
            f"{path} cannot be read ({type(error).__name__}); delete {folder} and run again"
        ) from None
    if found != expected:
        raise AdbenchError(f"{path} was changed after it was written; delete {folder} and run again")
    return pd.read_parquet(path)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by `text`, all at once.

    Raises:
        StoreError: the disk is full or cannot be written; the old file stays as it was.
    """
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise AdbenchError(
            f"cannot write {path}: {error.strerror}; free some space, then run again"
        ) from None
    finally:
        draft.unlink(missing_ok=True)


def safe_name(name: str) -> str:
    """A file name for any text: letters, digits, `._-` and spaces stay, the rest is percent-encoded."""
    encoded = quote(name, safe=" ")
    return encoded.replace(".", "%2E") if set(encoded) <= {"."} else encoded


def _owner_is_gone(draft: str) -> bool:
    """Whether the process that was writing a draft, named ``host+pid+random``, has ended on this machine."""
    host, _, rest = draft.partition("+")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(rest.partition("+")[0]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OSError):
        return False
    return False

"""Results on disk: a folder a job, which appears by one atomic rename or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import ValidationError

from adbench_tgan.errors import AdbenchError, StoreError, unwritable
from adbench_tgan.hooks import one_line
from adbench_tgan.jobs import Job
from adbench_tgan.store import listing, places, stored
from adbench_tgan.store.asking import answers
from adbench_tgan.store.drafts import clear, clear_temporary, draft_name, replace_folder
from adbench_tgan.store.places import is_remote
from adbench_tgan.store.stored import SCHEMA, SCORES
from adbench_tgan.store.uploads import upload
from adbench_tgan.text import cell

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

LONGEST = 150  # characters of a folder's name
PLAIN = re.compile(r"[\w.~ -]*", re.ASCII)  # what `quote` leaves as it is
TRACE = "traceback.txt"  # of a failed job
PARTIAL = ".partial"  # where folders are written before they are renamed into place
CLAIMS = "claims"  # folder of what runs are running now
# Entries of a store that hold no results, and that others may have closed, such as those of a disk's first folder.
NO_DATASETS = re.compile(rf"{re.escape(PARTIAL)}|{CLAIMS}|lost\+found|\.Trash.*")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job. A failed one has an `error` and nothing else to show."""

    job: Job
    status: Literal["ok", "failed"]
    error: str = ""
    trace: str = field(default="", repr=False)  # where a failure came from that the user cannot mend
    metrics: Mapping[str, float] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)  # of each network
    threshold: float | None = None  # a quantile of training scores
    purity_delta: float | None = None  # largest relative change of a score with its batch; `scoring.purity`
    reconstruction_error: float | None = None  # of training images, beside that of one flat colour; `scoring`
    anomalies_fingerprint: str = ""  # of the labelled anomalies trained on
    shape: tuple[int, int, int] | None = None  # of the images that the detector saw
    device: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # fallbacks and whatever else a reader must know
    # Conformance checks that its detector is known to fail, and why.
    declared: Mapping[str, str] = field(default_factory=dict)
    suite: str = ""  # version of the checks that `declared` names
    code: str = ""  # whose detector it was, see `Registry.code`
    metrics_code: Mapping[str, str] = field(default_factory=dict)  # whose the plugins' metrics were, likewise
    of_categories: int | None = None  # categories that the dataset has
    unofficial: str = ""  # how its images differ from the dataset's own, where that is known
    version: str = ""  # of adbench-tgan
    scores: pd.DataFrame | None = field(default=None, repr=False)  # sample_id, label, score
    losses: tuple[Mapping[str, float], ...] = field(default=(), repr=False)  # one an epoch
    state: Mapping[str, Tensor] | None = field(default=None, repr=False)  # with --save-models
    pictures: Mapping[str, Tensor] = field(default_factory=dict, repr=False)  # for a reporter; never stored


# What ``result.json`` holds of a result.
DESCRIBED = tuple(set(stored.Stored.model_fields) & set(Result.__dataclass_fields__))


class ResultStore:
    """The folder of a benchmark's results."""

    def __init__(self, root: Path):
        self.root = root

    def open(self) -> None:
        """Make the folder and clear away what killed processes of this machine left behind.

        A result that one of them had moved aside, to store a new one, goes back where none is now.

        Raises:
            AdbenchError: the folder cannot be written.
        """
        places.ensure_writable(self.root, make=True)
        if is_remote(self.root):
            clear_temporary()  # `scratch` is there
            return
        places.ensure_writable(self.root / PARTIAL, make=True)
        clear(self.root / PARTIAL, self._home)

    def _home(self, left: Path) -> Path | None:
        """Where the result in a folder belongs; None if it cannot be read."""
        found = stored.read(left)
        return None if found is None else self.folder(found.job)

    @property
    def scratch(self) -> Path:
        """Where what is not finished is written; for an object store that is on this machine."""
        return Path(tempfile.gettempdir()) if is_remote(self.root) else self.root / PARTIAL

    def folder(self, job: Job) -> Path:
        """Where a job's files are, or will be."""
        last = f"{safe_name(job.category)}-seed{job.seed}-{job.key[:8]}"
        names = dataset_folder(job.dataset), safe_name(job.protocol), safe_name(job.detector)
        return self.root.joinpath(*names, last)

    @property
    def checkpoints(self) -> Path:
        """Where trainings are kept while they last."""
        return self.root / PARTIAL

    def get(self, job: Job, *, with_model: bool = False) -> Result | None:
        """The stored result of a job that ended well; None if there is none, or it is damaged.

        `with_model` asks for one whose model was saved too.
        """
        folder = self.folder(job)
        found = stored.read(folder)
        if found is None or found.status != "ok" or not same(found.job, job):
            return None
        if with_model and "model.safetensors" not in found.files:
            return None
        return result_of(found) if stored.is_whole(found, folder) else None

    def has(self, job: Job, *, with_model: bool = False) -> bool:
        """Whether `get` would find a result."""
        return self.get(job, with_model=with_model) is not None

    def outcome(self, job: Job) -> Result | None:
        """What is stored of a job, also when it failed."""
        found = read_result(self.folder(job))
        return found if found is not None and same(found.job, job) else None

    def stamp(self, job: Job) -> str:
        """What changes when the job's result is written again; empty if there is none.

        Raises:
            StoreError: that cannot be found out.
        """
        path = self.folder(job) / "result.json"
        try:
            with places.reading(path):
                return places.stamp(path)
        except places.ABSENT:
            return ""

    def put(self, result: Result) -> None:
        """Write a result's folder, all at once. A failed result never replaces a good one.

        Raises:
            StoreError: the disk is full or cannot be written, or a later version's result stands there; nothing is
                left half-written, and what stood there before stands there still.
            StoreAway: an object store does not answer, or another run has stored the job meanwhile.
        """
        target = self.folder(result.job)
        if result.status == "failed" and self.get(result.job) is not None:
            return
        if stored.newer(target / "result.json"):
            raise StoreError(
                f"{target} was written by a newer adbench-tgan; upgrade, or give --out another folder"
            )
        draft = self.scratch.absolute() / draft_name()  # see `stored.vouched`
        try:
            draft.mkdir(parents=True)
            write_files(result, draft)
            if is_remote(target):
                upload(draft, target)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                replace_folder(target, draft)
        except OSError as error:
            raise unwritable(target, error) from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        if result.status == "ok":
            with suppress(Exception):  # it costs space, no more
                (self.checkpoints / checkpoint_name(result.job)).unlink(missing_ok=True)

    def results(
        self, passed_over: Callable[[Path, str], None] = lambda *_: None, there: Iterable[Path] | None = None
    ) -> Iterator[Result]:
        """Every sound result, in the order of their folders' names; `passed_over` is told of each other, and why.

        `there` is what `listed` gave, if it was asked before.

        Raises:
            StoreError: one is there and cannot be read, or a folder not be listed.
        """
        paths = sorted(self.listed() if there is None else there)
        each = answers(lambda path: stored.read(path.parent), paths, self.root)
        for path, found in zip(paths, each, strict=True):
            if found is not None and path.parent == self.folder(found.job):
                yield result_of(found)
            else:
                passed_over(path, _why(found, path.parent))

    def listed(self) -> dict[Path, str]:
        """The ``result.json`` of every job, with what changes whenever it is written.

        Raises:
            StoreError: a folder cannot be listed.
        """
        return listing.listed(self.root, "*/*/*/*/result.json", besides=NO_DATASETS)

    def is_newer(self, job: Job) -> bool:
        """Whether a later version of adbench-tgan has stored this job, so that this one can neither read nor run it."""
        return bool(stored.newer(self.folder(job) / "result.json"))

    def scores(self, job: Job) -> pd.DataFrame:
        """The per-image scores of a finished job: sample_id, label, score."""
        return stored.read_scores(self.folder(job))

    def trace(self, job: Job) -> Path | None:
        """The file with a failed job's traceback; None if it has none."""
        folder = self.folder(job)
        found = stored.read(folder)  # in an object store a file of an earlier failure may lie beside it
        return folder / TRACE if found and TRACE in found.files else None

    def losses(self, job: Job) -> pd.DataFrame:
        """The losses of a finished job: epoch, and the mean of each loss."""
        return stored.read_losses(self.folder(job))


def checkpoint_name(job: Job) -> str:
    """The file, in `ResultStore.checkpoints`, where a job's training is kept while it lasts."""
    return f"{job.key}.checkpoint"


def write_files(result: Result, folder: Path) -> None:
    """Write a result's files into `folder`, `result.json` last, each flushed to the disk."""
    written = {}
    if result.scores is not None:
        frame = result.scores
        written[SCORES] = _write(folder / SCORES, lambda p: frame.to_parquet(p, index=False))
    if result.losses:
        import pandas as pd

        losses = pd.DataFrame(list(result.losses))
        losses.insert(0, "epoch", range(1, len(losses) + 1))
        losses = losses.rename(columns=cell)
        written["losses.csv"] = _write(folder / "losses.csv", lambda p: losses.to_csv(p, index=False))
    if result.trace:
        written[TRACE] = _write(
            folder / TRACE, lambda p: p.write_text(result.trace, errors="backslashreplace")
        )
    if result.state is not None:
        from safetensors.torch import save

        model = save(dict(result.state))  # `save_file` lets nobody but its owner read it
        written["model.safetensors"] = _write(folder / "model.safetensors", lambda p: p.write_bytes(model))
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
    described = {name: getattr(result, name) for name in DESCRIBED}
    return described | {"schema": SCHEMA, "key": result.job.key, "job": asdict(result.job)}


def check_readable(result: Result) -> None:
    """Refuse a result that could not be read back: it would count as absent, and be run again and again.

    Raises:
        AdbenchError: naming what is wrong.
    """
    try:
        stored.Stored.model_validate_json(json.dumps(as_json(result) | {"files": {}}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
    except (ValueError, TypeError, RecursionError) as error:
        reason = one_line(error)
    else:
        return
    raise AdbenchError(f"its result could not be read back ({reason}); correct what the detector reports")


def read_result(folder: Path) -> Result | None:
    """What ``result.json`` says; None when it is missing, damaged or of another schema."""
    found = stored.read(folder)
    return None if found is None else result_of(found)


def result_of(found: stored.Stored | Result) -> Result:
    """The result as its ``result.json`` describes it: without scores, losses, weights, pictures and a traceback."""
    return Result(**{name: getattr(found, name) for name in DESCRIBED})


def removal(job: Job) -> str:
    """The remedy where a stored result is not as it was written: a run alone would take it for finished."""
    return f"remove its folder ({ResultStore(Path()).folder(job)}) and run again"


def same(one: Job, other: Job) -> bool:
    """Whether two jobs have one key. Equal jobs have; hashes of thousands take their time."""
    return one == other or one.key == other.key


def _why(found: stored.Stored | None, folder: Path) -> str:
    """Why a result in the store is not read."""
    if found is not None:
        return "moved or edited; run its job again"
    return stored.newer(folder / "result.json") or "damaged; run its job again"


def left_alone(path: Path, why: str) -> str:
    """What a note says of a result that is passed over, see `ResultStore.results`."""
    return f"{path} is left alone and not in the tables: {why}"


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by `text`, all at once.

    Raises:
        StoreError: the disk is full or cannot be written; the old file stays as it was.
    """
    try:
        places.replace(path, text.encode())
    except OSError as error:
        raise places.unwritten(path, error) from None


def dataset_folder(name: str) -> str:
    """The folder of a dataset's results in a store, which is none of those that hold no results."""
    safe = safe_name(name)
    return f"%{ord(safe[0]):02X}{safe[1:]}" if NO_DATASETS.fullmatch(safe) else safe


def safe_name(name: str) -> str:
    """A file name for any text: letters, digits, `._-` and spaces stay, the rest is percent-encoded.

    A long one keeps its beginning, and ends in a hash of the whole: no file system takes more than 255 bytes.
    """
    encoded = name if PLAIN.fullmatch(name) else quote(name, safe=" ")
    if len(encoded) > LONGEST:
        return f"{encoded[: LONGEST - 17]}~{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"
    return encoded.replace(".", "%2E") if set(encoded) <= {"."} else encoded

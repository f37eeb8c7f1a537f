"""What a job's folder holds, read as a stranger's: checked against its schema, bounded, never believed."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, field_validator

from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.store.places import (
    ABSENT,
    answering,
    contents,
    is_remote,
    open_regular,
    read_bounded,
    reading,
)
from adbench_tgan.text import unmarked

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SCHEMA = 2  # of result.json; 1 had no purity_delta
STAMP = "Description"  # a PNG text: the SHA-256 of the file that the picture shows
SCORES = "scores.parquet"
LARGEST = 2**26  # bytes of a result.json; one has a few thousand
LOSSES = 2**24  # bytes of a losses.csv; one of 100,000 epochs and four losses has 8 million
ROWS = 5_000_000  # of scores.parquet, and of a board's file of scores; our largest has 450,000
TEXT_BYTES = 2**28  # of all texts in it together, written out as UTF-8; our largest has 14 MB

SHARES = set("auroc average_precision f1_max fpr95 balanced_accuracy pixel_auroc aupro".split())  # of 0 to 1
ROUNDING = 1e-9  # by which a metric of images may be off
BEYOND = 1e-3  # how far over 1 a metric of pixels may come by rounding: some sum up single precision
LARGEST_COUNT = 2**53  # what every program takes for a whole number

Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]


class FileFacts(BaseModel):
    """What ``result.json`` vouches for of another file."""

    model_config = ConfigDict(strict=True, frozen=True)

    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Stored(BaseModel):
    """All that ``result.json`` says; fields that a later version added are passed over."""

    model_config = ConfigDict(strict=True, frozen=True)

    schema_number: Annotated[int, Field(alias="schema", ge=1, le=SCHEMA)]
    key: str = ""
    job: Job
    status: Literal["ok", "failed"]
    error: str
    metrics: Mapping[str, float]
    timing: Mapping[str, Any]  # mostly numbers; `leaderboard.row` takes nothing else
    parameters: Mapping[str, Count]
    threshold: FiniteFloat | None
    purity_delta: float | None = None
    reconstruction_error: float | None = None
    anomalies_fingerprint: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None
    device: str
    machine: Mapping[str, Any]
    notes: tuple[str, ...]
    declared: Mapping[str, str] = {}  # absent from results older than the declarations
    suite: str = ""
    code: str = ""
    metrics_code: Mapping[str, str] = {}
    of_categories: Count | None = None
    unofficial: str = ""
    version: str
    files: Mapping[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], FileFacts]

    @field_validator("metrics")
    @classmethod
    def within_range(cls, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Refuse what no metric of ours can be; plugins' may be anything."""
        for name in SHARES & metrics.keys():
            if not -BEYOND <= metrics[name] <= 1 + BEYOND:
                raise ValueError(f"{name} is {metrics[name]}, which is not within 0 to 1")
        return metrics

    @field_validator("machine")
    @classmethod
    def versions_by_name(cls, machine: Mapping[str, Any]) -> Mapping[str, Any]:
        """Refuse versions that are not those of packages."""
        if not isinstance(machine.get("versions") or {}, Mapping):
            raise ValueError("versions of a machine must be named")
        return machine


def read(folder: Path) -> Stored | None:
    """What ``result.json`` says; None when it is missing, damaged or of another schema.

    Raises:
        StoreError: it cannot be read, which leaves open what is there.
    """
    try:
        data = contents(folder / "result.json", LARGEST)
        return None if data is None else Stored.model_validate_json(data)
    except ValueError:
        return None


def is_whole(stored: Stored, folder: Path) -> bool:
    """Whether every file that ``result.json`` names is there at its full size.

    Raises:
        StoreError: that cannot be found out.
    """
    return all(_size(folder / name) == facts.bytes for name, facts in stored.files.items())


def _size(path: Path) -> int | None:
    try:
        with reading(path), answering():
            return path.stat().st_size
    except ABSENT:
        return None


def newer(path: Path, known: int = SCHEMA) -> str:
    """How a JSON file tells that a later version of adbench-tgan wrote it, by a schema above `known`; empty if it does not.

    Raises:
        StoreError: as for `read`.
    """
    try:
        schema = json.loads(contents(path, LARGEST) or b"")["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    is_later = type(schema) is int and schema > known
    return f"of a newer adbench-tgan (schema {schema}); upgrade to read it" if is_later else ""


def read_scores(folder: Path) -> pd.DataFrame:
    """The per-image scores of a job's folder: sample_id, label, score.

    Raises:
        AdbenchError: the file is missing, is not the one that ``result.json`` vouches for, or holds something else.
        StoreError: it cannot be read.
    """
    return parsed_scores(folder, vouched(folder, SCORES))


def parsed_scores(folder: Path, source: Path | BytesIO) -> pd.DataFrame:
    """The per-image scores in `source`, which `vouched` gave for that folder.

    Raises:
        AdbenchError: as for `read_scores`.
    """
    try:
        return scores_table(source)
    except Exception as error:  # a damaged file raises nearly every kind of error
        raise _damaged(folder / SCORES, str(error) or type(error).__name__) from None


def read_losses(folder: Path) -> pd.DataFrame:
    """The losses of a job's folder: epoch, and the mean of each loss; empty if its detector reports none.

    Raises:
        AdbenchError: as for `read_scores`.
        StoreError: it cannot be read.
    """
    import pandas as pd

    facts = read(folder)
    if facts is not None and "losses.csv" not in facts.files:
        return pd.DataFrame({"epoch": []})
    path = folder / "losses.csv"
    if (_size(path) or 0) > LOSSES:  # before all of it is hashed
        raise _damaged(path, f"it has more than {LOSSES:,} bytes")
    vouched(folder, path.name)
    try:
        with reading(path):
            data = BytesIO(read_bounded(path, LOSSES))
        table = pd.read_csv(data, engine="python", dtype=str).rename(columns=unmarked)
        # As text first: what pandas before 3.1 makes of a number is often not the one that was written.
        return table.astype({name: "int64" if name == "epoch" else "float64" for name in table.columns})
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def vouched(folder: Path, name: str) -> Path | BytesIO:
    """The file of that name in a job's folder, once it is known to be the one that was written there.

    Of an object its bytes, which are then the ones that were hashed, and not asked for twice. A file's path is whole:
    pandas and pyarrow would take ``file:/x`` for a URL, and ``~`` for the home folder, at the beginning of a name.

    Raises:
        AdbenchError: it is missing, or is not the one that ``result.json`` vouches for.
        StoreError: it cannot be read.
    """
    path = folder / name
    stored = read(folder)
    facts = None if stored is None else stored.files.get(name)
    if facts is None:
        raise _damaged(path, "result.json does not list it")
    source: Path | BytesIO
    try:
        with reading(path), open_regular(path) as file, answering():
            if is_remote(path):
                source = BytesIO(file.read(facts.bytes + 1))
                found = hashlib.sha256(source.getbuffer()).hexdigest()
            else:
                source = path.absolute()
                found = hashlib.file_digest(file, "sha256").hexdigest()
    except (*ABSENT, ValueError):
        raise _damaged(path, "it is missing, or not a regular file") from None
    if found != facts.sha256:
        raise AdbenchError(f"{path} was changed after it was written; delete {folder} and run again")
    return source


def scores_table(source: Path | BytesIO) -> pd.DataFrame:
    """The scores in a parquet file, or its bytes, whatever else it says of itself.

    Raises:
        ValueError: a column is missing, of another type, out of range, or larger than any test set.
        Exception: it is damaged, which shows in nearly every kind of error.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = ["sample_id", "label", "score"]
    table = parquet_table(source, names, ["sample_id"])
    ids, labels, scores = (table[name] for name in names)
    if any(column.null_count for column in (ids, labels, scores)):
        raise ValueError("empty cells")
    if not (pa.types.is_integer(labels.type) and set(pc.unique(labels).to_pylist()) <= {0, 1}):
        raise ValueError("labels other than 0 and 1")
    if not (pa.types.is_floating(scores.type) and pc.all(pc.is_finite(scores)).as_py()):
        raise ValueError("scores that are not finite numbers, or none")
    checked: pd.DataFrame = pa.table([ids, labels, scores], names=names).to_pandas(ignore_metadata=True)
    return checked


def parquet_table(source: Path | BytesIO, names: Sequence[str], texts: Sequence[str]) -> pa.Table:
    """A parquet file of the columns `names`: numbers, and of `texts` also texts. A small file makes no huge table.

    Raises:
        ValueError: it has other columns, or is larger than any test set.
        Exception: it is damaged, which shows in nearly every kind of error.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(source, read_dictionary=list(texts)) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        if rows > ROWS or schema.names != list(names):
            raise ValueError(f"it has {rows:,} rows and the columns {', '.join(schema.names)[:200]}")
        written = {name for name in texts if pa.types.is_dictionary(schema.field(name).type)}
        for name, kind in zip(schema.names, schema.types, strict=True):
            if not (name in written or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise ValueError(f"{name} of type {kind}")
        columns, room = {}, TEXT_BYTES
        for name in names:  # one by one: before they are cast, texts take several times their size
            column = file.read([name], use_threads=False)[name]
            if name in written:
                room -= _written_out(column)
                if room < 0:
                    raise ValueError("texts that are too large")
                column = column.cast(pa.string())
            columns[name] = column
    return pa.table(columns)


def _written_out(column: Any) -> int:
    """The bytes that a column of texts has which was read as numbers into lists of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        kind = chunk.dictionary.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or chunk.dictionary.null_count:
            raise ValueError("cells that are not texts")
        # Of 32 bits their sum would wrap around.
        lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
        total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return total


def _damaged(path: Path, reason: str) -> AdbenchError:
    return AdbenchError(f"{path} cannot be read ({reason}); delete {path.parent} and run again")


def stamp(path: Path) -> str:
    """The hash of the file that a picture was drawn from; empty if it is no such picture."""
    from PIL import Image

    try:
        data = BytesIO(read_bounded(path, LARGEST))
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(data, formats=["PNG"]) as image:
                image.load()
                return str(image.info.get(STAMP, ""))
    except Exception:  # a damaged file raises nearly every kind of error in Pillow
        return ""

"""What a board's tables must look like, checked when they are written and when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adbench_tgan.errors import AdbenchError
from adbench_tgan.leaderboard import LEADERBOARD_COLUMNS, METRICS, RESULT_COLUMNS, TIMINGS
from adbench_tgan.ranking.comparison import PAIR_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1  # of board.json and of the tables beside it

# From 0 to 1.
SHARES = (
    *METRICS,
    *(f"{name}_mean" for name in ("auroc", "average_precision", "pixel_auroc", "aupro")),
    *("auroc_ci_low", "auroc_ci_high", "published_auroc", "as_published_auroc"),
    *("wilcoxon_p", "holm_p", "p_floor", "holm_floor"),
)
PATTERNS = {
    "status": r"ok|failed",
    "supervision": r"one-class|labelled",
    "precision": r"fp32|tf32|bf16",
    "key": r"[0-9a-f]{16}",
    "split_fingerprint": r"([0-9a-f]{64})?",  # empty if the images could not be read
}


@dataclass(frozen=True)
class Table:
    """One kind of table: its columns in order, those of text, and those of whole numbers."""

    file: str
    columns: tuple[str, ...]
    words: tuple[str, ...]
    whole: tuple[str, ...]
    identity: tuple[str, ...]  # the columns that tell its rows apart


RESULTS = Table(
    file="results.csv",
    columns=tuple(RESULT_COLUMNS),
    words=tuple(
        name
        for name in RESULT_COLUMNS
        if name not in (*METRICS, *TIMINGS, "seed", "parameters", "purity_delta")
    ),
    whole=("seed", "flops_per_image", "parameters"),
    identity=("key",),
)
LEADERBOARD = Table(
    file="leaderboard.csv",
    columns=tuple(LEADERBOARD_COLUMNS),
    words=("detector", "supervision", "pretrained", "preset", "published_source", "remark"),
    whole=("rank", "tie_group", "n_categories", "n_seeds", "n_failed", "parameters"),
    identity=("detector", "preset", "pretrained", "supervision"),
)
PAIRS = Table(
    file="pairs.csv",
    columns=tuple(PAIR_COLUMNS),
    words=tuple(PAIR_COLUMNS[:5]),
    whole=("n_categories",),
    identity=tuple(PAIR_COLUMNS[:5]),
)
TABLES = (RESULTS, LEADERBOARD, PAIRS)
SCORE_COLUMNS = ("category", "seed", "key", "sample_id", "label", "score")


def check(frame: pd.DataFrame, table: Table) -> None:
    """Raise unless `frame` is a table of that kind.

    Raises:
        AdbenchError: naming the file, the column and the first cell that does not fit.
    """
    import pandera.pandas as pa

    columns = {name: _column(pa, name, name in table.words) for name in table.columns}
    keys = list(table.identity) if table is RESULTS else None
    _validate(pa.DataFrameSchema(columns, strict=True, ordered=True, unique=keys), frame, table.file)


def check_scores(frame: pd.DataFrame, file: str) -> None:
    """Raise unless `frame` holds per-image scores, each image once a job.

    Raises:
        AdbenchError: naming the file and what does not fit.
    """
    import pandera.pandas as pa

    columns = {name: _column(pa, name, True) for name in ("category", "key", "sample_id")}
    columns |= {
        "seed": pa.Column("int64", pa.Check.ge(0)),
        "label": pa.Column("uint8", pa.Check.isin([0, 1])),
        "score": pa.Column("float32", pa.Check(lambda s: s.abs() < float("inf"), error="is finite")),
    }
    schema = pa.DataFrameSchema({name: columns[name] for name in SCORE_COLUMNS}, strict=True, ordered=True)
    _validate(schema, frame, file)
    if frame.duplicated(["key", "sample_id"]).any():  # pandera would list them all
        raise AdbenchError(
            f"{file} is not as its schema {SCHEMA} says: an image (sample_id) twice in a job (key)"
        )


def _column(pa: Any, name: str, words: bool) -> Any:
    from pandas.api.types import is_string_dtype

    # Not pandera's `str`, which looks at each cell once more where the dtype tells already.
    checks = [pa.Check(is_string_dtype, error="is text")] if words else []
    if name in PATTERNS:
        checks.append(pa.Check.str_matches(f"^({PATTERNS[name]})$"))
    if name in SHARES:
        checks.append(pa.Check.in_range(0, 1))
    return pa.Column(None, checks, nullable=not words)


def _validate(schema: Any, frame: pd.DataFrame, file: str) -> None:
    from pandera.errors import SchemaError

    names = list(schema.columns)
    try:
        if list(frame.columns) == names:
            schema.validate(frame)
            return
        reason = f"its columns should be {', '.join(names)}"
    except SchemaError as error:
        reason = " ".join(str(error).split())[:300]
    raise AdbenchError(f"{file} is not as its schema {SCHEMA} says: {reason}")

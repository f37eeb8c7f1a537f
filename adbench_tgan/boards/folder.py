"""A board as a folder of files: rendered, read, and written all at once."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from adbench_tgan.boards.board import Basis, Board, judge_all
from adbench_tgan.boards.cells import from_csv, to_csv
from adbench_tgan.boards.document import document, facts_of, results_of, text_of
from adbench_tgan.boards.picture import PICTURES, draw
from adbench_tgan.boards.readme import readme
from adbench_tgan.boards.schemas import (
    LEADERBOARD,
    PAIRS,
    RESULTS,
    SCHEMA,
    SCORE_COLUMNS,
    Table,
    check,
    check_scores,
)
from adbench_tgan.errors import AdbenchError, unwritable
from adbench_tgan.hooks import one_line
from adbench_tgan.jobs import Job
from adbench_tgan.results import safe_name
from adbench_tgan.store import places
from adbench_tgan.store.drafts import OLD, clear, draft_name, replace_folder
from adbench_tgan.store.places import read_bounded
from adbench_tgan.store.stored import LARGEST, parquet_table
from adbench_tgan.terminal.pace import silent

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
# A file of a board, its name of what `safe_name` leaves.
FILE = re.compile(
    r"(results|leaderboard|pairs)\.csv|README\.md|(scores/[\w.~% -]{1,240}\.parquet|losses/[\w.~% -]{1,240}\.csv)",
    re.ASCII,
)
TEXTS = ("category", "key", "sample_id")  # columns of a file of scores
LARGEST_SCORES = 2**30  # bytes of one; of all else `LARGEST`


def render(
    board: Board, encoded: Mapping[str, bytes] | None = None
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Every file of a board but its pictures, by its path in the folder; and the content of ``board.json``.

    `encoded` are files of scores as they are already: another version of Parquet's library would write other bytes.

    Raises:
        AdbenchError: a table does not keep its schema.
    """
    files: dict[str, bytes] = {}
    tables = []
    for table, frame in ((RESULTS, board.results), (LEADERBOARD, board.leaderboard), (PAIRS, board.pairs)):
        files[table.file] = to_csv(frame, table.words).encode()
        tables.append(parse(files[table.file], table))
        check(tables[-1], table)
    for detector, jobs in by_detector(board, board.scores).items():
        name = scores_file(detector)
        if encoded and name in encoded:
            files[name] = encoded[name]
        else:
            frame = stacked(jobs, board.scores)
            check_scores(frame, name)
            files[name] = parquet(frame)
            _check_size(files[name], name)
    for detector, jobs in by_detector(board, board.losses).items():
        text = to_csv(stacked(jobs, board.losses), ("category", "key"))
        files[f"losses/{safe_name(detector)}.csv"] = text.encode()
    content = document(board, {})
    told = replace(board, results=tables[0], leaderboard=tables[1], pairs=tables[2])  # as anyone reads them
    files["README.md"] = readme(told, content).encode()
    content = document(board, {name: facts_of_file(data) for name, data in files.items()})
    return files | {"board.json": text_of(content).encode()}, content


def facts_of_file(data: bytes) -> dict[str, Any]:
    """Size and hash."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def by_detector(board: Board, tables: Mapping[str, pd.DataFrame]) -> dict[str, list[Job]]:
    """The jobs that have a table, a detector a file."""
    found: dict[str, list[Job]] = {}
    for result in board.measured:
        if len(tables.get(result.job.key, ())):
            found.setdefault(result.job.detector, []).append(result.job)
    return dict(sorted(found.items()))


def stacked(jobs: Iterable[Job], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Their tables, one under another: category, seed and key before each line."""
    found = {(job.category, job.seed, job.key): tables[job.key] for job in jobs}
    return pd.concat(found, names=["category", "seed", "key"]).droplevel(-1).reset_index()


def scores_file(detector: str) -> str:
    """Where a board has its scores."""
    return f"scores/{safe_name(detector)}.parquet"


def parquet(frame: pd.DataFrame) -> bytes:
    """Scores as Parquet, without anything that changes from day to day."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = (pa.string(), pa.int64(), pa.string(), pa.string(), pa.uint8(), pa.float32())
    schema = pa.schema(list(zip(SCORE_COLUMNS, types, strict=True)))
    table = pa.Table.from_pandas(frame, schema, preserve_index=False).replace_schema_metadata(None)
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        compression="zstd",
        compression_level=19,
        use_dictionary=[name for name in SCORE_COLUMNS if name != "score"],
        use_byte_stream_split=["score"],
        store_schema=False,
    )
    return out.getvalue()


def _check_size(data: bytes, name: str) -> None:
    """Refuse a file of scores that is larger than any that is read.

    Raises:
        AdbenchError: it is.
    """
    try:
        parquet_table(io.BytesIO(data), SCORE_COLUMNS, TEXTS)
    except ValueError as error:
        remedy = "publish fewer of its presets, with --preset, or --runs with fewer seeds"
        raise AdbenchError(f"{name} would be too large to be read again ({error}); {remedy}") from None


def parse(data: bytes, table: Table) -> pd.DataFrame:
    """A board's CSV as a table.

    Raises:
        AdbenchError: a number in it cannot be read.
    """
    try:
        return from_csv(data.decode(), table.words, table.whole)
    except (ValueError, TypeError) as error:
        raise unreadable(table.file, error) from None


def read(path: Path) -> Board:
    """A published board as its files say; `verify` says whether they are right.

    Raises:
        AdbenchError: a file is missing or damaged.
    """
    content = read_content(path)
    tables = [parse(bytes_of(path / table.file), table) for table in (RESULTS, LEADERBOARD, PAIRS)]
    return Board(
        facts=facts_of(content),
        measured=results_of(content),
        scores=read_scores(path, content),
        losses=read_losses(path, content),
        results=tables[0],
        leaderboard=tables[1],
        pairs=tables[2],
    )


def basis(path: Path, say: Callable[[str], None] = silent) -> Basis:
    """What a published board rests on, from its ``board.json``, its scores and its losses.

    `say` is told now and then how far that is.

    Raises:
        AdbenchError: one of these is missing or damaged.
    """
    content = read_content(path)
    scores = read_scores(path, content)
    return Basis(
        facts=facts_of(content),
        measured=judge_all(results_of(content), scores, say),
        scores=scores,
        losses=read_losses(path, content),
    )


def read_content(path: Path) -> dict[str, Any]:
    """A board's ``board.json``.

    Raises:
        AdbenchError: it is missing, damaged, or of another schema.
    """
    file = path / "board.json"
    if file.is_symlink():
        raise AdbenchError(f"{file} is a link; a board has plain files only")
    try:
        content: dict[str, Any] = json.loads(read_bounded(file, LARGEST).decode())
        schema = content["schema"]
    except FileNotFoundError:
        raise AdbenchError(
            f"{path} is no board: it has no board.json; name a folder that adbench publish wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise AdbenchError(f"{file} cannot be read ({reason}); publish again") from None
    if schema != SCHEMA:
        raise AdbenchError(
            f"{file} has schema {schema!r:.100}, and this adbench-tgan reads {SCHEMA}; use the version that wrote it, or publish again"
        )
    try:
        facts_of(content), results_of(content)
        strangers = [name for name in content["files"] if not FILE.fullmatch(name)]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise AdbenchError(f"{file} is incomplete or damaged ({one_line(error)}); publish again") from None
    if strangers:
        raise AdbenchError(f"{file} lists {strangers[0]!r:.200}, which is no file of a board; publish again")
    return content


def read_scores(path: Path, content: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """The scores of all jobs by key, out of ``scores/``."""
    found: dict[str, pd.DataFrame] = {}
    for name in sorted(content["files"]):
        if name.startswith("scores/"):
            frame = read_score_file(path / name)
            for key, table in frame.groupby("key", sort=False):
                found[str(key)] = table[["sample_id", "label", "score"]].reset_index(drop=True)
    return found


def read_score_file(path: Path) -> pd.DataFrame:
    """One file of ``scores/``.

    Raises:
        AdbenchError: it is missing, damaged, or not as its schema says.
    """
    data = io.BytesIO(bytes_of(path))
    try:
        frame: pd.DataFrame = parquet_table(data, SCORE_COLUMNS, TEXTS).to_pandas(ignore_metadata=True)
    except Exception as error:  # a damaged file raises nearly every kind of error
        raise unreadable(path, error) from None
    check_scores(frame, f"scores/{path.name}")
    return frame


def read_losses(path: Path, content: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """The losses of all jobs by key, out of ``losses/``."""
    found: dict[str, pd.DataFrame] = {}
    for name in sorted(content["files"]):
        if name.startswith("losses/"):
            try:
                frame = from_csv(bytes_of(path / name).decode(), ("category", "key"), ("seed", "epoch"))
                for key, table in frame.groupby("key", sort=False):
                    kept = table.drop(columns=["category", "seed", "key"]).dropna(axis=1, how="all")
                    found[str(key)] = kept.reset_index(drop=True)
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise unreadable(path / name, error) from None
    return found


def bytes_of(path: Path) -> bytes:
    """A file of a board.

    Raises:
        AdbenchError: it is missing, or a pipe or a device, or larger than any.
    """
    try:
        return read_bounded(path, LARGEST_SCORES if path.suffix == ".parquet" else LARGEST)
    except (OSError, ValueError) as error:
        raise unreadable(path, getattr(error, "strerror", None) or error) from None


def unreadable(path: Path | str, reason: object) -> AdbenchError:
    """The error for a file that cannot be read, in one line whatever the file says."""
    return AdbenchError(f"{path} cannot be read: {' '.join(str(reason).split())}; publish the board again")


def check_name(name: str) -> None:
    """Raise unless a board may be called so.

    Raises:
        AdbenchError: the name is no folder name.
    """
    if not NAME.fullmatch(name):
        raise AdbenchError(f"--board {name!r}: use small letters, digits, dots and dashes")


def publish(
    board: Board, out: Path, say: Callable[[str], None] = silent, allow: Callable[[], None] = lambda: None
) -> bool:
    """Write a board's folder under `out`, whole or not at all; whether anything changed.

    `say` is told when its files are begun. Those of millions of scores take a while: before and after, `allow` raises
    if what stands there by then may not be replaced.

    Raises:
        AdbenchError: the board's name is no folder name, or a folder of that name holds something else.
        StoreError: it cannot be written.
    """
    check_name(board.facts.name)
    target = out / board.facts.name
    if target.exists() and not (target / "board.json").exists():
        raise AdbenchError(f"{target} is there and is no board; choose another --board or --out")
    allow()
    say(f"{target}: making its files")
    files, _ = render(board, _encoded(board, target))
    files |= {each.file: draw(each, board, files) for each in PICTURES if each.is_drawn(board)}
    if _holds(target, files):
        return False
    allow()
    _replace(target, files)
    return True


def _encoded(board: Board, target: Path) -> dict[str, bytes]:
    """The files of scores in a folder that say what the board does."""
    found = {}
    for detector, jobs in by_detector(board, board.scores).items():
        name = scores_file(detector)
        try:
            if read_score_file(target / name).equals(stacked(jobs, board.scores)):
                found[name] = (target / name).read_bytes()
        except (AdbenchError, OSError):  # it is missing or damaged
            continue
    return found


def _holds(target: Path, files: Mapping[str, bytes]) -> bool:
    """Whether a folder holds exactly these files."""
    if {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()} != set(files):
        return False
    return all((target / name).read_bytes() == data for name, data in files.items())


def _replace(target: Path, files: Mapping[str, bytes]) -> None:
    draft = target.with_name(f".{draft_name()}+{target.name}")
    try:
        for name, data in files.items():
            places.replace(draft / name, data)
        replace_folder(target, draft)
    except OSError as error:
        raise unwritable(target, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def put_back(out: Path) -> None:
    """Bring back each board under `out` that a killed publication had moved aside, and not yet replaced."""
    with suppress(OSError):  # there is no such folder, or it cannot be written
        clear(out, lambda left: out / left.name.removesuffix(OLD).rpartition("+")[2])

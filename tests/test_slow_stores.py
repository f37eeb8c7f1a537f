"""Object stores that take seconds over a request: they are asked seldom, and several things at a time."""

from __future__ import annotations

import errno
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from make_board import NOTHING
from test_hostile import in_time
from test_leaderboard import result
from test_places import refuse

from adbench_tgan import tables
from adbench_tgan.benchmark import outcomes, unfinished
from adbench_tgan.errors import AdbenchError, StoreAway, StoreError
from adbench_tgan.registry import Registry
from adbench_tgan.results import ResultStore
from adbench_tgan.runner import Settings
from adbench_tgan.store import claims, keeping, places, stored
from adbench_tgan.store.asking import AT_ONCE, answers
from adbench_tgan.store.claims import Claims

RESULTS = [result("d", seed=seed) for seed in (0, 1)]
JOBS = [each.job for each in RESULTS]


def test_an_object_store_is_asked_several_things_at_a_time_and_a_folder_one(
    memory: Path, tmp_path: Path
) -> None:
    together = threading.Barrier(AT_ONCE, timeout=60)
    assert list(answers(lambda one: (together.wait(), one)[1], range(AT_ONCE), memory)) == list(
        range(AT_ONCE)
    )
    threads = set(answers(lambda _: threading.current_thread(), range(9), tmp_path))
    assert threads == {threading.current_thread()}


def test_what_fails_first_is_raised_and_others_that_hang_are_not_waited_for(memory: Path) -> None:
    back = threading.Event()

    def ask(number: int) -> None:
        if number == 0:
            raise OSError("no route")
        back.wait(60)

    with in_time(30), pytest.raises(OSError, match="no route"):
        list(answers(ask, range(20), memory))
    back.set()


def test_of_jobs_that_are_not_there_an_object_store_is_asked_by_one_listing(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(memory)
    store.put(RESULTS[0])
    for owner, call in ((type(memory), "stat"), (type(places.system_of(memory)), "ukey")):
        real = getattr(owner, call)
        asked = lambda self, path=None, real=real, **named: (  # noqa: E731
            refuse() if "seed1" in str(path or self) else real(self, *([path] if path else []), **named)
        )
        monkeypatch.setattr(owner, call, asked)
    missing, before, kept = unfinished(JOBS, store, with_model=False)
    assert missing == JOBS[1:]
    assert before == {JOBS[1].key: ""}
    assert [each.job for each in kept.values()] == JOBS[:1]


def scores_at_once(store: ResultStore) -> list[pd.DataFrame]:
    return list(map(tables.scores_of(store, JOBS), JOBS))


MANY: dict[str, Callable[[ResultStore], Any]] = {
    "results": lambda store: list(store.results()),
    "plan": partial(unfinished, JOBS, with_model=False),
    "outcomes": partial(outcomes, JOBS, {}),
    "scores": scores_at_once,
}


@pytest.mark.parametrize("what", MANY)
def test_many_results_are_read_at_the_same_time(
    what: str, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(memory)
    for each in RESULTS:
        store.put(each)
    real, together = stored.read, threading.Barrier(2, timeout=60)
    monkeypatch.setattr(stored, "read", lambda folder: (together.wait(), real(folder))[1])
    found = MANY[what](store)
    if what == "scores":
        for table, each in zip(found, RESULTS, strict=True):
            pd.testing.assert_frame_equal(table, each.scores)
    elif what == "plan":
        assert (found[:2], list(found[2])) == (([], {}), [job.key for job in JOBS])
    else:
        assert [each.job for each in found] == JOBS


def test_no_more_scores_of_an_object_store_are_held_than_are_read_soon(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked, real = ResultStore(memory), list[Path](), tables.vouched
    results = {name: [result("d", name, seed=seed) for seed in range(5)] for name in "ab"}
    for each in chain(*results.values()):
        store.put(each)
    monkeypatch.setattr(tables, "AHEAD", 2)
    sources = list[weakref.ref[Any]]()

    def ask(folder: Path, name: str) -> Any:
        asked.append(folder)
        sources.append(weakref.ref(source := real(folder, name)))
        return source

    monkeypatch.setattr(tables, "vouched", ask)
    read = tables.scores_of(store, [each.job for each in chain(*results.values())][::-1])
    first, rest = [own[0] for own in results.values()], [own[1:] for own in results.values()]
    for number, each in enumerate([*first, *chain(*rest)]):  # as `spreads.bootstrap` reads them
        assert len(asked) <= number + 2 * len(results)
        assert sum(source() is not None for source in sources) <= 2 * len(results)
        pd.testing.assert_frame_equal(read(each.job), each.scores)
    assert len(asked) == len({*asked}) == 10


def test_tables_ask_an_object_store_once_for_the_scores_of_each_job_that_ended_well(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked, real = ResultStore(memory), list[Path](), tables.vouched
    good = [result(name, category, seed) for name in "cde" for category in "ab" for seed in (0, 1)]
    for each in (*good, result("f", "a", 0, status="failed")):
        store.put(each)
    monkeypatch.setattr(tables, "AHEAD", 3)
    monkeypatch.setattr(tables, "vouched", lambda folder, name: (asked.append(folder), real(folder, name))[1])
    tables.write_tables(store, tuple(each.job for each in good), Registry(_offers=NOTHING))
    assert sorted(asked) == sorted(store.folder(each.job) for each in good)


def test_an_object_is_read_once_for_its_scores(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, opened = ResultStore(memory), list[str]()
    store.put(RESULTS[0])
    real = type(places.system_of(memory)).open

    def opening(self: Any, path: str, *words: Any, **named: Any) -> Any:
        opened.append(path.rpartition("/")[2])
        return real(self, path, *words, **named)

    monkeypatch.setattr(type(places.system_of(memory)), "open", opening)
    pd.testing.assert_frame_equal(store.scores(JOBS[0]), RESULTS[0].scores)
    assert opened.count("scores.parquet") == 1


def test_an_object_that_has_grown_is_refused_without_being_read_to_its_end(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, lengths = ResultStore(memory), list[int]()
    store.put(RESULTS[0])
    path, real = store.folder(JOBS[0]) / "scores.parquet", stored.BytesIO
    size = len(path.read_bytes())
    path.write_bytes(path.read_bytes() + b"more")
    monkeypatch.setattr(stored, "BytesIO", lambda data: (lengths.append(len(data)), real(data))[1])
    with pytest.raises(AdbenchError, match=r"scores.parquet was changed after it was written"):
        store.scores(JOBS[0])
    assert lengths == [size + 1]


def test_an_object_store_whose_bucket_is_absent_holds_nothing(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **named: object) -> None:  # as S3 says it; memory has no buckets
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(type(places.system_of(memory)), "find", absent)
    assert ResultStore(memory).listed() == {}


def test_claims_of_other_jobs_in_an_object_store_do_not_count(memory: Path) -> None:
    with Claims(memory) as one, Claims(memory) as other:
        assert one.take(JOBS[0])
        assert not other.take(JOBS[0])
        assert other.take(JOBS[1])


def test_many_claims_in_an_object_store_are_touched_at_the_same_time(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those of a run with many jobs at a time die while it lives."""
    together, touched = threading.Barrier(2, timeout=60), threading.Event()

    def touch(path: Path, text: str) -> None:
        together.wait()
        touched.set()

    monkeypatch.setattr(claims, "touch", touch)
    with Claims(memory, beat=0.01) as run:
        assert all(map(run.take, JOBS))
        assert touched.wait(60)
        together.abort()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError("The provided token has expired."), StoreError),
        (OSError(errno.EINVAL, "Bad Request"), StoreAway),
    ],
)
def test_a_result_that_credentials_no_longer_store_is_kept_and_the_remedy_named(
    error: OSError, kind: type[StoreError], memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise error

    store = ResultStore(memory)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(keeping, "PAUSES", (0,))
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "write_bytes", refused)
        with pytest.raises(kind) as raised:
            keeping.stored(RESULTS[0], store, Settings(), [].append)
    assert type(raised.value) is kind
    target = store.folder(JOBS[0])
    (folder,) = tmp_path.glob(f"*/{target.name}")
    assert str(raised.value).endswith(
        "; renew its credentials, or let them list, read and write there, then run the same command again; "
        f"its files are kept in {folder}: copied to {target}, they count as stored"
    )
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    assert store.get(JOBS[0]) is not None


def test_what_is_kept_of_a_store_is_a_result_and_no_failure(memory: Path, tmp_path: Path) -> None:
    error = StoreAway("cannot write it; run the same command again")
    failed = replace(RESULTS[0], status="failed", scores=None)
    assert keeping.kept_here(failed, ResultStore(memory), error) is error
    assert keeping.kept_here(RESULTS[0], ResultStore(tmp_path), error) is error


def test_what_a_full_disk_does_not_keep_is_not_said_to_be_kept(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(keeping, "write_files", full)
    error = StoreAway("cannot write it; run the same command again")
    assert keeping.kept_here(RESULTS[0], ResultStore(memory), error) is error

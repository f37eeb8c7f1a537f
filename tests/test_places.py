"""Results in object storage: the same as on a disk, whole or not there, and each job once."""

from __future__ import annotations

import errno
import os
import re
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import Ended
from make_process import Forked
from test_claims import taken_at_once
from test_hostile import in_time
from test_leaderboard import result
from test_runner import Silent

from adbench_tgan import tables
from adbench_tgan.benchmark import benchmark
from adbench_tgan.errors import AdbenchError, StoreAway, StoreError
from adbench_tgan.jobs import Job, Request
from adbench_tgan.registry import Registry
from adbench_tgan.results import CLAIMS, ResultStore
from adbench_tgan.runner import Settings
from adbench_tgan.store import claims, keeping, places, uploads
from adbench_tgan.store.claims import Claims
from adbench_tgan.store.places import place_of
from adbench_tgan.store.sharing import Sharing

Call = Callable[..., Ended]
RUN = ("run", "--detectors", "mean_image,random", "--categories", "0,1", "--device", "cpu", "--no-timing")
S3 = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket of a real S3 server on this machine."""
    pytest.importorskip("s3fs")
    answers = pytest.importorskip("moto.s3.responses").S3Response
    put, one = answers.put_object, threading.Lock()

    def put_at_once(answer: Any) -> Any:
        with one:
            return put(answer)

    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "put_object", put_at_once)  # S3 looks and writes in one; moto in two steps
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name, value in S3.items():
            patch.setenv(name, value)
        import s3fs

        patch.setattr(s3fs.S3FileSystem, "_cache", {})  # of an earlier server
        s3fs.S3FileSystem().mkdir("bench")
        yield "s3://bench"
    server.stop()


def test_a_run_into_s3_is_that_into_a_folder_and_goes_on(bucket: str, adbench: Call) -> None:
    out = f"{bucket}/some/runs"
    assert adbench(*RUN, "--out", "runs").status == 0
    ended = adbench(*RUN, "--out", out)
    assert ended.status == 0, ended.err
    assert f"{out}/results.csv" in ended.out + ended.err
    here, there = Path("runs"), place_of(out)
    names = sorted(str(path.relative_to(here)) for path in here.glob("*/*/*/*/*"))
    assert len(names) == 8
    for name in [*names, "results.csv", "leaderboard.csv"]:
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
    again = adbench(*RUN, "--seeds", "0,1", "--out", out)
    assert "4 of 8 jobs are finished already; 4 to run" in again.err
    assert len(pd.read_csv(there.joinpath("results.csv").open())) == 8
    assert "nothing was run" in (again := adbench(*RUN, "--seeds", "0,1", "--out", out)).out + again.err
    assert sorted(path.name for path in there.iterdir()) == ["digits", "leaderboard.csv", "results.csv"]


def test_claims_in_s3_are_one_runs(bucket: str) -> None:
    job, store = result("d").job, place_of(f"{bucket}/claims")
    runs = [Claims(place_of(f"{bucket}/claims"), beat=1000) for _ in range(6)]
    assert taken_at_once(runs, job).count(True) == 1
    (path,) = (store / CLAIMS).iterdir()
    before = path.read_text()
    places.touch(path, "touched")
    assert path.read_text() != before
    for run in runs:
        run.release(job)
    assert runs[0].take(job)


@pytest.mark.parametrize("error", [FileExistsError, ConnectionError])
def test_a_claim_whose_making_was_not_answered_is_ours(
    error: type[OSError], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has made it, its reply was lost, and the library has asked again or given up."""

    def unheard(path: Path, text: str) -> None:
        real(path, text)
        raise error

    job, run, other = result("d").job, Claims(memory), Claims(memory)
    real = places.create
    monkeypatch.setattr(claims, "create", unheard)
    assert run.take(job)
    assert not other.take(job)
    monkeypatch.setattr(other, "_numbers", lambda job: [])  # it looked a moment earlier
    assert not other.take(job)
    run.release(job)
    assert not (memory / CLAIMS).exists()


def test_two_runs_into_one_bucket_do_each_job_once(bucket: str) -> None:
    runs = [Forked(*RUN, "--seeds", "0,1,2", "--out", f"{bucket}/two") for _ in range(2)]
    told = [run.finish() for run in runs]
    done = Counter(re.findall(r"(?m)^\[\d+/\d+\] (.*?): AUROC", "".join(told)))
    assert len(done) == 12
    assert set(done.values()) == {1}
    assert len(pd.read_csv(place_of(f"{bucket}/two/results.csv").open())) == 12


@pytest.mark.parametrize("fails", [1, 2])
def test_what_was_cut_short_is_not_there(fails: int, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, put = ResultStore(memory), result("d")
    store.open()
    real, calls = type(memory).write_bytes, 0

    def cut(path: Path, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == fails:
            raise ConnectionError("reset by peer")
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "write_bytes", cut)
        patch.setattr(uploads, "create", lambda path, text: cut(path, text.encode()))
        with pytest.raises(
            StoreError, match=r"^cannot write memory://.*: ConnectionError: reset by peer; run the same"
        ):
            store.put(put)
    assert store.get(put.job) is None
    assert list(store.results()) == []
    store.put(put)
    found = store.get(put.job)
    assert found is not None
    assert found.metrics == put.metrics
    pd.testing.assert_frame_equal(store.scores(put.job), put.scores)
    (store.folder(put.job) / "scores.parquet").write_bytes(b"another run's")
    assert store.get(put.job) is None  # not what the marker vouches for


@pytest.mark.parametrize("fails", [1, 2])
@pytest.mark.parametrize("same", [True, False])
def test_a_job_run_again_for_its_model_is_not_lost_when_that_is_cut_short(
    fails: int, same: bool, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, put = ResultStore(memory), result("d")
    store.open()
    store.put(put)
    assert put.scores is not None
    other = put.scores if same else put.scores.assign(score=put.scores["score"] + 1)
    again = replace(put, scores=other, state={"mean": torch.zeros(3)})
    real, written = type(memory).write_bytes, list[str]()

    def cut(path: Path, data: bytes) -> int:
        if len(written) + 1 == fails:
            raise KeyboardInterrupt
        written.append(path.name)
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "write_bytes", cut)
        with pytest.raises(KeyboardInterrupt):
            store.put(again)
    assert (store.get(put.job) is not None) == same  # never another's scores for its own
    store.put(again)
    assert store.get(put.job) is not None
    assert (store.folder(put.job) / "model.safetensors").exists()
    pd.testing.assert_frame_equal(store.scores(put.job), other)


@pytest.mark.parametrize("theirs", ["ok", "failed"])
@pytest.mark.parametrize("ours", ["ok", "failed"])
@pytest.mark.parametrize("moment", [("scores.parquet", "traceback.txt"), "result.json"])
@pytest.mark.parametrize("before", ["nothing", "a failure"])
def test_two_runs_that_store_one_job_leave_a_whole_result_of_one(
    before: str,
    moment: str | tuple[str, ...],
    ours: str,
    theirs: str,
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One run is stopped while it writes a file; another takes the job over and stores it; the first wakes up."""
    store, said, stopped = ResultStore(memory), list[str](), [True]
    whole, failure = result("d"), replace(result("d", status="failed"), scores=None, trace="its traceback")
    assert whole.scores is not None
    put = whole if ours == "ok" else failure
    differs = replace(whole, scores=whole.scores.assign(score=whole.scores["score"] + 1))
    other = differs if theirs == "ok" else failure
    if before == "a failure":
        store.put(replace(failure, trace="an earlier one"))

    def stopping(owner: Any, call: str) -> None:
        real = getattr(owner, call)

        def act(self: Any, path: Any, *words: Any, **named: Any) -> Any:
            if stopped and str(path).endswith(moment):
                stopped.clear()
                store.put(other)
            return real(self, path, *words, **named)

        monkeypatch.setattr(owner, call, act)

    stopping(type(places.system_of(memory)), "pipe_file")
    stopping(type(places.system_of(memory)), "open")
    monkeypatch.setattr(keeping, "PAUSES", (0, 0))
    keeping.stored(put, store, Settings(), said.append)
    (found,) = store.results()
    assert found.status == ("ok" if "ok" in (ours, theirs) else "failed")
    if found.status == "ok":
        assert store.get(put.job) is not None
        wanted = whole if ours == "ok" else differs
        pd.testing.assert_frame_equal(store.scores(put.job), wanted.scores)
    assert not stopped
    if ours == theirs == "ok" and before == "nothing":
        assert re.fullmatch(
            r"cannot write memory://.*: another run has stored it meanwhile; trying again for 0 minutes",
            said[0],
        )


def test_a_marker_whose_writing_was_not_answered_is_ours(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unheard(path: Path, text: str) -> None:
        real(path, text)
        raise FileExistsError

    real, store = places.create, ResultStore(memory)
    monkeypatch.setattr(uploads, "create", unheard)
    store.put(result("d"))
    assert store.get(result("d").job) is not None


def test_a_file_that_is_larger_than_any_is_not_read(memory: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "x", memory / "x"):
        path.write_bytes(b"1234")
        assert places.read_bounded(path, 4) == b"1234"
        with pytest.raises(ValueError, match="x has more than 3 bytes"):
            places.read_bounded(path, 3)


def test_only_a_file_that_is_empty_or_ours_is_written_over(tmp_path: Path) -> None:
    for text in ("", "detector,dataset\n"):
        (tmp_path / "results.csv").write_text(text)
        places.ensure_ours(tmp_path, {"results.csv": "detector,"})
    (tmp_path / "results.csv").write_text("detectors of smoke\n")
    with pytest.raises(
        AdbenchError, match=r"results\.csv was not written by adbench, and would be overwritten"
    ):
        places.ensure_ours(tmp_path, {"results.csv": "detector,"})
    (tmp_path / "results.csv").unlink()
    os.mkfifo(tmp_path / "results.csv")
    with in_time(5), pytest.raises(AdbenchError, match=r"results\.csv was not written by adbench"):
        places.ensure_ours(tmp_path, {"results.csv": "detector,"})


def test_a_store_that_refuses_its_user_is_not_waited_for(memory: Path) -> None:
    assert type(places.unwritten(memory, PermissionError("forbidden"))) is StoreError
    assert len(str(places.unwritten(memory, OSError(errno.EIO, "at length" * 999)))) < 700
    assert type(places.unwritten(memory, OSError("no route"))) is StoreAway


class Refused(Exception):
    """What the libraries of object stores raise is no OSError."""


def refuse(*_: Any, **__: Any) -> Any:
    raise Refused("Could not connect")


READ = {
    "stat": lambda store, job: store.get(job),
    "read_bytes": lambda store, job: store.has(job),
    "find": lambda store, job: list(store.results()),
    "ukey": lambda store, job: store.stamp(job),
    "open": lambda store, job: store.scores(job),
}


@pytest.mark.parametrize("call", READ)
def test_a_store_that_does_not_answer_is_not_empty(
    call: str, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, put = ResultStore(memory), result("d")
    store.put(put)
    assert [each.job for each in store.results()] == [put.job]
    owner = type(memory) if hasattr(memory, call) else type(places.system_of(memory))
    monkeypatch.setattr(owner, call, refuse)
    with pytest.raises(
        StoreAway, match=r"^cannot read memory://.*: Refused: Could not connect; run the same command again$"
    ):
        READ[call](store, put.job)


def test_of_objects_results_are_listed_with_what_changes_when_they_are_written(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(memory)
    store.put(replace(result("d", status="failed"), scores=None))
    (memory / "results.csv").write_bytes(b"a table")
    failed = store.listed()
    store.put(result("d"))
    ended = store.listed()
    assert list(failed) == list(ended) == [store.folder(result("d").job) / "result.json"]
    assert failed != ended

    def find(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("no such prefix")

    monkeypatch.setattr(type(places.system_of(memory)), "find", find)
    assert store.listed() == {}


def away(owner: Any, call: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make so many calls fail; those that come later do not."""
    real, refusals = getattr(owner, call), [refuse] * times
    monkeypatch.setattr(
        owner, call, lambda *words, **named: (refusals.pop() if refusals else real)(*words, **named)
    )
    monkeypatch.setattr(keeping, "PAUSES", (0, 0))


@pytest.mark.parametrize("call", ["stat", "write_bytes"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_result_waits_for_a_store_that_is_away_and_is_never_stored_as_a_failure(
    call: str, times: int, memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store, put, said = ResultStore(memory), result("d"), list[str]()
    store.put(put)  # a result that is stored again, such as with its model
    away(type(memory), call, times, monkeypatch)
    if times <= 2:
        assert keeping.stored(put, store, Settings(), said.append) is put
    else:
        with pytest.raises(
            StoreAway,
            match=r"Refused: Could not connect; run the same command again; its files are kept in /.*: copied to memory://.*, they count as stored$",
        ):
            keeping.stored(put, store, Settings(), said.append)
    assert len(said) == 1
    assert re.fullmatch(
        r"cannot .* memory://.*: Refused: Could not connect; trying again for 0 minutes", said[0]
    )
    assert [each.status for each in store.results()] == ["ok"]


def test_jobs_are_shared_out_by_a_store_that_is_back(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, run = result("d").job, Claims(memory)
    sharing = Sharing([job], {job.key: ""}, ResultStore(memory), run, Silent())
    away(type(places.system_of(memory)), "find", 2, monkeypatch)
    assert [list(jobs) for jobs in sharing.rounds()] == [[job]]


@pytest.mark.parametrize("call", ["stat", "find", "write_bytes"])
def test_a_plan_and_tables_wait_for_a_store_that_is_away(
    call: str, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter, registry = Silent(), Registry.discover()
    request = Request(detectors=["mean_image"], categories=["0"], seeds=[0])
    benchmark(request, Settings(timing=False), registry, reporter, memory)
    real = ResultStore.open

    def opened(store: ResultStore) -> None:  # from here on it is planned
        real(store)
        away(type(memory) if hasattr(memory, call) else type(places.system_of(memory)), call, 2, monkeypatch)

    monkeypatch.setattr(ResultStore, "open", opened)
    outcome = benchmark(request, Settings(timing=False), registry, reporter, memory)
    assert outcome.ran == 0
    assert [each.status for each in outcome.results] == ["ok"]
    notes = [words[0] for what, *words in reporter.heard if what == "warn" and "trying again" in words[0]]
    assert len(notes) == 1


@pytest.mark.parametrize("how", ["hangs", "fails", "answers"])
def test_a_store_that_does_not_answer_keeps_no_interrupted_run_from_its_end(
    how: str, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, real = threading.Event(), ResultStore.listed
    looks = list[str]()

    class Interrupting(Silent):
        def job_started(self, job: Job) -> None:
            looks.append("none before")
            raise KeyboardInterrupt

    def listed(store: ResultStore) -> dict[Path, str]:
        if looks and how == "hangs":
            back.wait(60)
        if looks and how == "fails":
            raise StoreAway(f"cannot read {memory}: no route; run the same command again")
        return real(store)

    monkeypatch.setattr(ResultStore, "listed", listed)
    monkeypatch.setattr(tables, "GRACE", 0.2 if how == "hangs" else 60)
    reporter, request = Interrupting(), Request(detectors=["mean_image"], categories=["0"], seeds=[0])
    with in_time(60), pytest.raises(KeyboardInterrupt):
        benchmark(request, Settings(timing=False), Registry.discover(), reporter, memory)
    back.set()
    said = [words[0] for what, *words in reporter.heard if what == "warn"]
    left_out = "the tables are left out, and the next run writes them"
    after = {"hangs": [f"{memory} does not answer; {left_out}"], "answers": []}
    wanted = after.get(how, [f"cannot read {memory}: no route; {left_out}"])
    assert said[-1 - len(wanted) :] == [
        "interrupted; giving up what is not finished, and writing the tables",
        *wanted,
    ]
    assert (memory / "results.csv").exists() == (how == "answers")


def test_whether_a_place_is_ours_is_an_error_of_one_line_where_it_does_not_answer(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(memory), "exists", refuse)
    with pytest.raises(StoreAway, match=r"^cannot read memory://.*/board.json: Refused: Could not connect"):
        places.ensure_ours(memory, {})
    monkeypatch.undo()
    (memory / "results.csv").write_text("detector")
    monkeypatch.setattr(type(memory), "open", refuse)
    with pytest.raises(StoreAway, match=r"^cannot read memory://.*/results.csv: Refused"):
        places.ensure_ours(memory, {"results.csv": "detector"})


def test_a_folder_is_found_from_home_and_half_a_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/nobody")
    assert place_of("~/runs") == Path("/home/of/nobody/runs")
    assert place_of("./file:/x") == Path("file:/x")
    assert place_of("C:/x") == Path("C:/x")
    with pytest.raises(AdbenchError, match=r"^--out is empty; name a folder, or an fsspec URL$"):
        place_of("")  # as of a shell's variable that is not set


@pytest.mark.parametrize("place", ["./file:/x", "./~"])
def test_a_folder_with_the_name_of_another_place_is_itself(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, put = ResultStore(place_of(place)), result("d")
    store.open()
    store.put(put)
    pd.testing.assert_frame_equal(store.scores(put.job), put.scores)
    assert len(list(tmp_path.rglob("scores.parquet"))) == 1


HALF = {
    "file:/tmp/x": "a URL has two slashes; write file:///tmp/x, or ./file:/tmp/x for a folder",
    "s3:/bucket/x": "a URL has two slashes; write s3://bucket/x, or ./s3:/bucket/x for a folder",
    "file://localhost/tmp/x": "a folder's URL has three slashes; write file:///PATH, or the folder",
}


@pytest.mark.parametrize("place", HALF)
def test_half_a_url_is_refused_before_any_job(place: str, adbench: Call) -> None:
    ended = adbench(*RUN, "--out", place)
    assert ended.error == f"--out {place}: {HALF[place]}"
    assert ended.status == 2
    assert list(Path().iterdir()) == []


def test_a_place_that_is_not_to_be_had_is_one_line(bucket: str, adbench: Call) -> None:
    assert place_of("file:///tmp/x") == Path("/tmp/x")
    with pytest.raises(AdbenchError, match=r"^--out nowhere://x: .*; give a folder or an fsspec URL$"):
        place_of("nowhere://x")
    ended = adbench(*RUN, "--out", "s3://no-such-bucket/runs")
    assert ended.error.startswith("cannot write to s3://no-such-bucket/runs: ")
    assert ended.error.endswith("; make its bucket, or give --out another place")


class NoCredentialsError(Exception):
    """As the library of S3 calls it."""


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), NoCredentialsError("Unable to locate")])
def test_a_store_that_does_not_know_its_user_is_one_line(
    error: Exception, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(memory), "write_bytes", refused)
    with pytest.raises(AdbenchError, match=r"; set its credentials, or give --out another place$"):
        places.ensure_writable(memory)


def test_a_store_that_cannot_be_reached_is_one_line(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(memory), "write_bytes", refuse)
    reached = "see that its endpoint can be reached"
    with pytest.raises(AdbenchError, match=rf"Could not connect; {reached}, or give --out another place$"):
        places.ensure_writable(memory)


def test_a_bucket_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch, adbench: Call) -> None:
    systems = pytest.importorskip("s3fs").S3FileSystem
    monkeypatch.setattr(systems, "_cache", {})  # of other endpoints
    for name, value in S3.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        ended = adbench(*RUN, "--out", "s3://bench/runs")
    reached = "see that its endpoint can be reached ($AWS_ENDPOINT_URL)"
    assert ended.error.endswith(f"; {reached}, or give --out another place")


def test_only_s3_is_asked_less_often_and_what_the_user_set_for_it_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("s3fs")
    conf = pytest.importorskip("fsspec.config").conf
    assert "config_kwargs" not in places.system_of(place_of("memory://x")).storage_options
    s3 = place_of("s3://bench/x")
    retries = places.system_of(s3).config_kwargs["retries"]  # its library writes into them
    assert retries.get("total_max_attempts", retries.get("max_attempts", 9) + 1) == 2
    assert places.system_of(s3 / "y") is places.system_of(s3)
    monkeypatch.setitem(conf, "s3", {"config_kwargs": {"s3": {"addressing_style": "path"}}})
    mine = places.system_of(place_of("s3://bench/x")).config_kwargs
    assert mine == {"retries": {"max_attempts": 1}, "s3": {"addressing_style": "path"}}


@pytest.mark.parametrize("status", [500, 503])
def test_s3_that_is_busy_for_a_moment_is_asked_again(
    status: int, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    responses = pytest.importorskip("moto.s3.responses")
    real, busy = responses.S3Response.put_object, [status]

    def put(answer: Any) -> Any:
        return (busy.pop(), {}, "") if busy else real(answer)

    monkeypatch.setattr(responses.S3Response, "put_object", put)
    places.ensure_writable(place_of(f"{bucket}/busy"))
    assert not busy


def test_a_store_that_is_away_is_waited_for_some_minutes_and_a_full_disk_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error, waited in ((StoreAway, 235), (StoreError, 0)):
        slept, said = list[float](), list[str]()
        monkeypatch.setattr(keeping, "sleep", slept.append)

        def act(error: type[StoreError] = error) -> None:
            raise error("cannot write it; run the same command again")

        with pytest.raises(error):
            keeping.patiently(act, said.append)
        assert sum(slept) == waited
        assert len(said) == bool(waited)


def test_tries_that_take_minutes_themselves_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(keeping, "monotonic", lambda: now[0])
    monkeypatch.setattr(keeping, "sleep", lambda seconds: now.append(now.pop() + seconds))

    def hang() -> None:
        now[0] += 75
        raise StoreAway("cannot write it; run the same command again")

    with pytest.raises(StoreAway):
        keeping.patiently(hang, [].append)
    assert 1000 + 75 + 235 <= now[0] <= 1000 + 75 + 240 + 75


def test_a_run_that_leaves_an_object_store_leaves_there_what_others_claim(memory: Path) -> None:
    job = result("d").job
    with Claims(memory) as one:
        assert one.take(job)
        with Claims(memory) as other:
            assert other.take(result("another").job)
        assert [path.name for path in (memory / CLAIMS).iterdir()] == [f"{job.key}-0"]


def test_a_failure_waits_for_a_store_that_is_away_as_a_result_does(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception | None] = [
        TypeError("no tensor"),
        StoreAway("cannot write it: 503; slow down; run again"),
        None,
    ]
    asked, said, slept = list[str](), list[str](), list[float]()

    def put(result: Any) -> None:
        asked.append(result.status)
        if (error := errors.pop(0)) is not None:
            raise error

    monkeypatch.setattr(keeping, "sleep", slept.append)
    stored = keeping.stored(result("d"), SimpleNamespace(put=put), Settings(), said.append)
    assert (stored.status, stored.error) == ("failed", "TypeError: no tensor")
    assert asked == ["ok", "failed", "failed"]
    assert slept == [keeping.PAUSES[0]]
    assert said == ["cannot write it: 503; slow down; trying again for 3 minutes"]

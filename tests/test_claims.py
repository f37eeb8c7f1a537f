"""Several runs in one store: no job is lost, none is run twice, and no clock is trusted."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from make_board import NOTHING
from make_process import Forked
from test_hostile import in_time
from test_leaderboard import result
from test_runner import Silent

from adbench_tgan import tables
from adbench_tgan.benchmark import benchmark, unfinished
from adbench_tgan.errors import StoreError
from adbench_tgan.jobs import Job, Request
from adbench_tgan.registry import Registry
from adbench_tgan.results import CLAIMS, Result, ResultStore
from adbench_tgan.runner import Settings
from adbench_tgan.store import claims, drafts, sharing
from adbench_tgan.store.claims import Claims
from adbench_tgan.store.drafts import draft_name, owner_is_gone
from adbench_tgan.store.sharing import Sharing

JOB = result("d").job
SLOW = {"beat": 1000.0, "expiry": 1000.0}


def elsewhere(store: Path, age: float = 0) -> Path:
    """A claim of a run on another machine, whose clock may be wrong by `age` seconds."""
    path = store / CLAIMS / f"{JOB.key}-0"
    path.parent.mkdir(parents=True)
    path.write_text(draft_name().replace(socket.gethostname(), "another-machine", 1))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_job_is_one_runs_until_it_gives_it_up(tmp_path: Path) -> None:
    with Claims(tmp_path, **SLOW) as one, Claims(tmp_path, **SLOW) as other:
        assert one.take(JOB)
        assert one.take(JOB)
        assert not other.take(JOB)
        one.release(JOB)
        assert other.take(JOB)
        assert not one.take(JOB)
    assert not (tmp_path / CLAIMS).exists()


def test_a_claim_is_dead_when_its_process_is_gone(tmp_path: Path) -> None:
    code = "import os, sys; from adbench_tgan.store.drafts import draft_name; print(draft_name())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    elsewhere(tmp_path).write_text(ended.stdout.strip())
    with Claims(tmp_path, **SLOW) as run:
        assert run.take(JOB)
        assert [path.name for path in (tmp_path / CLAIMS).iterdir()] == [f"{JOB.key}-1"]


@pytest.mark.parametrize("what", ["BOOT", "NAMESPACE"])
def test_a_container_of_the_same_name_is_another_machine(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(drafts, "CARDS", tmp_path)  # a container has none of its own
    (tmp_path / "other").write_text("another boot")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        here = draft_name()
        patch.setattr(drafts, what, tmp_path / "other")
        there = draft_name()
    assert owner_is_gone(here)
    assert not owner_is_gone(there)
    assert {name.partition("~")[0] for name in (here, there)} == {socket.gethostname()}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that has ended by its number")
def test_a_process_that_has_ended_and_is_not_yet_cleared_away_is_gone():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and keeps its number
    name = draft_name().replace(f"+{os.getpid()}+", f"+{child}+")
    assert owner_is_gone(name)
    assert not owner_is_gone(draft_name())
    os.waitpid(child, 0)


def test_a_draft_has_a_name_that_every_file_system_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 255)
    assert len(draft_name()) < 200
    monkeypatch.setattr(drafts, "BOOT", Path("/nowhere"))
    assert draft_name().startswith("h" * 100 + "+")


@pytest.mark.parametrize("age", [-1e6, 0, 1e6])
def test_a_claim_of_another_machine_is_dead_when_it_is_not_touched_whatever_its_clock(
    age: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = elsewhere(tmp_path, age)
    taken = []
    with Claims(tmp_path, beat=1000, expiry=90) as run:
        for now, touched in ((0, False), (80, False), (85, True), (165, False), (180, False)):
            monkeypatch.setattr(claims, "monotonic", lambda now=now: 5000.0 + now)
            if touched:
                os.utime(path, (time.time() - age + 1,) * 2)
            taken.append(run.take(JOB))
    assert taken == [False, False, False, False, True]  # 95 seconds after it was last seen to live


@pytest.mark.parametrize("dead", [9, 10])
def test_of_several_claims_that_of_the_highest_number_counts(
    dead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CLAIMS).mkdir()
    for number in (9, 10):
        (tmp_path / CLAIMS / f"{JOB.key}-{number}").write_text("dead" if number == dead else "alive")
    monkeypatch.setattr(claims, "owner_is_gone", lambda owner: owner == "dead")
    names = [f"{JOB.key}-10", f"{JOB.key}-9"]  # a folder lists them in any order, and by name in this one
    monkeypatch.setattr(claims, "found", lambda folder, pattern: names)
    assert Claims(tmp_path).take(JOB) == (dead == 10)
    numbers = {path.name.rpartition("-")[2] for path in (tmp_path / CLAIMS).iterdir()}
    assert numbers == ({"11"} if dead == 10 else {"9", "10"})


def test_a_claim_that_was_removed_just_now_is_not_dead(tmp_path: Path) -> None:
    """Else its next number would be ours while another run may create the first one anew."""
    assert not Claims(tmp_path)._is_dead(tmp_path / "gone")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "too large"])
def test_a_claim_that_no_run_wrote_is_not_believed_and_is_dead_when_it_stays_as_it_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = elsewhere(tmp_path)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("x" * (claims.LARGEST + 1))
    heard: list[str] = []
    monkeypatch.setattr(claims, "owner_is_gone", lambda owner: bool(heard.append(owner)))
    taken = []
    before = len(os.listdir("/dev/fd"))
    run = Claims(tmp_path, expiry=90)
    for now in (0, 80, 95):
        monkeypatch.setattr(claims, "monotonic", lambda now=now: 5000.0 + now)
        with in_time(5):
            taken.append(run.take(JOB))
    assert taken == [False, False, True]
    assert heard == [""] * 3
    assert len(os.listdir("/dev/fd")) == before


def test_a_claim_whose_number_does_not_give_its_name_back_is_none(tmp_path: Path) -> None:
    path = elsewhere(tmp_path)
    path.rename(path.with_name(f"{JOB.key}-007"))
    assert Claims(tmp_path).take(JOB)


def test_a_claim_of_a_process_that_no_machine_has_is_not_dead() -> None:
    assert not owner_is_gone(draft_name().replace(f"+{os.getpid()}+", f"+{10**30}+"))


def test_a_claim_outlives_several_touches_that_failed() -> None:
    assert claims.EXPIRY >= 5 * claims.BEAT


def test_a_claim_is_tried_again_where_its_folder_went_and_a_full_disk_is_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, errors = claims.create, [errno.ENOSPC, errno.ENOENT]

    def create(path: Path, text: str) -> None:
        if errors:
            raise OSError(number := errors.pop(), os.strerror(number))
        real(path, text)

    monkeypatch.setattr(claims, "create", create)
    with pytest.raises(StoreError, match="No space left on device"):
        Claims(tmp_path).take(JOB)
    errors.append(errno.ENOENT)
    assert Claims(tmp_path).take(JOB)


def test_a_run_touches_what_it_holds(tmp_path: Path) -> None:
    with Claims(tmp_path, beat=0.02) as run:
        assert run.take(JOB)
        (path,) = (tmp_path / CLAIMS).iterdir()
        times: set[int] = set()
        until = time.monotonic() + 60
        while len(times) < 4 and time.monotonic() < until:
            times.add(path.stat().st_mtime_ns)
            time.sleep(0.01)
    assert len(times) == 4


def taken_at_once(runs: list[Claims], job: Job) -> list[bool]:
    """What each of the runs hears when all of them claim one job at the same moment."""
    start, took = threading.Barrier(len(runs)), []

    def take(run: Claims) -> None:
        start.wait()
        took.append(run.take(job))

    threads = [threading.Thread(target=take, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def test_one_of_many_takes_a_dead_claim_over(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    runs = [Claims(tmp_path, expiry=0) for _ in range(16)]
    for run in runs:
        assert not run.take(JOB)  # seen for the first time
    time.sleep(0.01)
    # With no time to live at all, a claim is dead once it was seen twice; nobody sees a new one twice here.
    assert taken_at_once(runs, JOB).count(True) == 1


def test_what_another_run_finishes_is_not_run_also_when_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [result(name).job for name in ("mine", "good", "bad", "given_up")]
    store, reporter = ResultStore(tmp_path), Silent()
    store.open()
    store.put(result("bad", status="failed"))  # of an earlier day
    with Claims(tmp_path) as ours, Claims(tmp_path) as theirs:
        before = {job.key: store.stamp(job) for job in jobs}
        shared = Sharing(jobs, before, store, ours, reporter)
        assert all(theirs.take(job) for job in jobs[1:])
        steps = iter(
            [
                lambda: (store.put(result("good")), theirs.release(jobs[1])),
                lambda: (store.put(result("bad", status="failed")), theirs.release(jobs[2])),
                lambda: theirs.release(jobs[3]),
            ]
        )
        monkeypatch.setattr(sharing, "sleep", lambda seconds: next(steps)())
        rounds = [[job.detector for job in jobs] for jobs in shared.rounds()]
    assert rounds == [["mine"], ["given_up"]]
    said = [words[0] for what, *words in reporter.heard if what == "warn"]
    assert len(said) == 2
    assert said[0].startswith(
        "another run in the same folder has claimed 3 of these jobs, the first good on "
    )
    assert said[1] == "2 of these jobs were run by another run in the same folder"


def test_whom_a_run_waits_for_is_said_again_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, clock = [result(name).job for name in "abc"], [0.0]
    store, reporter = ResultStore(tmp_path), Silent()
    store.open()
    with Claims(tmp_path) as ours, Claims(tmp_path) as theirs:
        shared = Sharing(jobs, {job.key: store.stamp(job) for job in jobs}, store, ours, reporter)
        assert all(theirs.take(job) for job in jobs)
        left = iter(jobs)

        def sleep(seconds: float) -> None:
            clock[0] += 400.0
            job = next(left)
            store.put(result(job.detector))
            theirs.release(job)

        monkeypatch.setattr(sharing, "sleep", sleep)
        monkeypatch.setattr(sharing, "monotonic", lambda: clock[0])
        assert list(shared.rounds()) == []
    said = [words[0] for what, *words in reporter.heard if what == "warn"]
    assert [text.partition(" of these jobs")[0].rpartition(" ")[2] for text in said] == ["3", "1", "3"]


def test_what_another_run_finishes_while_it_is_claimed_is_not_run_again(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.open()

    class Late(Claims):
        def take(self, job: Job) -> bool:
            store.put(result("d"))
            return super().take(job)

    shared = Sharing([JOB], {JOB.key: ""}, store, Late(tmp_path), Silent())
    assert list(shared.rounds()) == []
    assert shared.elsewhere == 1
    assert list((tmp_path / CLAIMS).iterdir()) == []


def test_what_another_run_finishes_right_after_the_plan_is_not_run_again(tmp_path: Path) -> None:
    request = Request(detectors=["mean_image"], categories=["0", "1"], seeds=[0])
    settings, registry = Settings(timing=False), Registry.discover()
    benchmark(request, settings, registry, Silent(), tmp_path / "theirs")

    class Late(Silent):
        def planned(self, missing: Sequence[Job], kept: int) -> None:
            assert (len(missing), kept) == (2, 0)
            name = "digits/one-vs-rest/mean_image"
            (found,) = (tmp_path / "theirs" / name).glob("1-*")
            shutil.copytree(found, tmp_path / "ours" / name / found.name)

    outcome = benchmark(request, settings, registry, Late(), tmp_path / "ours")
    assert outcome.ran == 1
    assert [result.status for result in outcome.results] == ["ok", "ok"]


def test_a_job_that_another_run_finishes_between_a_look_and_its_stamp_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, late = ResultStore(tmp_path), result("d")
    store.open()
    real = ResultStore.stamp
    monkeypatch.setattr(ResultStore, "stamp", lambda self, job: (self.put(late), real(self, job))[1])
    missing, _, kept = unfinished([late.job], store, with_model=False)
    assert (missing, list(kept)) == ([], [late.job.key])


def test_a_job_that_another_run_finishes_without_its_model_is_run_for_it(tmp_path: Path) -> None:
    request = Request(detectors=["mean_image"], categories=["0"], seeds=[0])
    registry, store = Registry.discover(), ResultStore(tmp_path)

    class Late(Silent):
        def planned(self, missing: Sequence[Job], kept: int) -> None:
            benchmark(request, Settings(timing=False), registry, Silent(), tmp_path)

    settings = Settings(timing=False, save_models=True)
    outcome = benchmark(request, settings, registry, Late(), tmp_path)
    assert outcome.ran == 1
    assert store.has(outcome.results[0].job, with_model=True)


def test_tables_hold_what_another_run_stored_while_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, late = ResultStore(tmp_path), [result("d", seed=2), result("d", seed=1)]
    first = result("d")
    store.open()
    for each in (first, result("d", seed=1, status="failed")):
        store.put(each)
    real = tables.results_table

    def meanwhile(results: list[Result]) -> pd.DataFrame:
        if late:
            store.put(late.pop())
        return real(results)

    monkeypatch.setattr(tables, "results_table", meanwhile)
    tables.write_tables(store, (first.job,), Registry(_offers=NOTHING))
    written = pd.read_csv(tmp_path / "results.csv")
    assert written["seed"].tolist() == [0, 1, 2]
    assert set(written["status"]) == {"ok"}


def test_two_runs_in_one_folder_do_each_job_once(tmp_path: Path) -> None:
    words = ["run", "--detectors", "mean_image,pca,random", "--device", "cpu", "--no-timing", "--out", "runs"]
    runs = [Forked(*words, cwd=tmp_path) for _ in range(2)]
    told = [run.finish() for run in runs]
    done = Counter(re.findall(r"(?m)^\[\d+/\d+\] (.*?): AUROC", "".join(told)))
    assert len(done) == 30
    assert set(done.values()) == {1}
    table = pd.read_csv(tmp_path / "runs/results.csv")
    assert len(table) == 30
    assert (table["status"] == "ok").all()
    assert not (tmp_path / "runs" / CLAIMS).exists()


def test_a_claim_that_another_run_made_since_it_was_looked_for_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Claims(tmp_path, **SLOW) as one, Claims(tmp_path, **SLOW) as other:
        assert one.take(JOB)
        monkeypatch.setattr(other, "_numbers", lambda job: [])  # it looked a moment earlier
        assert not other.take(JOB)
        assert other.held == {}
    assert not (tmp_path / CLAIMS).exists()


def test_a_touch_that_failed_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, touched = claims.touch, list[Path]()

    def fails_at_first(path: Path, text: str) -> None:
        touched.append(path)
        if len(touched) == 1:
            raise OSError(errno.EIO, "the file server is away")
        real(path, text)

    monkeypatch.setattr(claims, "touch", fails_at_first)
    with Claims(tmp_path, beat=0.02) as run:
        assert run.take(JOB)
        while len(touched) < 3 and run.heart.is_alive():
            time.sleep(0.01)
    assert len(touched) >= 3


@pytest.mark.parametrize("hangs", ["touch", "removal"])
def test_a_store_that_hangs_keeps_no_run_from_its_end(
    hangs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, back = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        hanging.set()
        back.wait(60)

    monkeypatch.setattr(claims, "GRACE", 0.1)
    if hangs == "touch":
        monkeypatch.setattr(claims, "touch", hang)
    else:
        monkeypatch.setattr(Claims, "_remove", hang)
    with in_time(30), Claims(tmp_path, beat=0.01) as run:
        assert run.take(JOB)
        if hangs == "touch":
            assert hanging.wait(20)
    assert hanging.is_set()
    back.set()


def test_a_touch_does_not_bring_back_what_is_given_up_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touching = threading.Event()

    def writes_slowly(path: Path, text: str) -> None:  # as an object is touched
        touching.set()
        time.sleep(0.2)
        path.write_text(text)

    monkeypatch.setattr(claims, "touch", writes_slowly)
    with Claims(tmp_path, beat=0.01) as run:
        assert run.take(JOB)
        assert touching.wait(60)
        run.release(JOB)
        run.over.set()
        run.heart.join()
        assert list((tmp_path / CLAIMS).iterdir()) == []


def test_a_job_that_is_taken_while_others_are_touched_stops_no_heart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = list[Path]()

    def touch(path: Path, text: str) -> None:
        if not touched:
            assert run.take(result("another").job)
        touched.append(path)

    monkeypatch.setattr(claims, "touch", touch)
    with Claims(tmp_path, beat=0.01) as run:
        assert run.take(JOB)
        while len(set(touched)) < 2 and run.heart.is_alive():
            time.sleep(0.01)
        assert run.heart.is_alive()


def test_a_claim_that_cannot_be_looked_at_or_made_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: Path, text: str) -> None:
        raise FileNotFoundError

    def there(path: Path, text: str) -> None:  # and given up before it is read
        raise FileExistsError

    def refuse(path: Path) -> str:
        raise RuntimeError("no answer")  # each kind of object store has its own

    for create in (gone, there):
        with monkeypatch.context() as patch:
            patch.setattr(claims, "create", create)
            run = Claims(tmp_path)
            assert not run.take(JOB)
            assert run.held == {}
    elsewhere(tmp_path / "theirs")
    monkeypatch.setattr(claims, "stamp", refuse)
    assert not Claims(tmp_path / "theirs").take(JOB)


def test_all_jobs_that_are_free_are_one_round_and_its_executor_asks_for_each(tmp_path: Path) -> None:
    jobs = [result(name).job for name in ("one", "two", "three")]
    store = ResultStore(tmp_path)
    store.open()
    with Claims(tmp_path, **SLOW) as run:
        shared = Sharing(jobs, {job.key: "" for job in jobs}, store, run, Silent())
        rounds = shared.rounds()
        asked = iter(next(rounds))
        assert next(asked) == jobs[0]
        assert list(run.held) == [jobs[0].key]  # the others are still anybody's
        assert list(asked) == jobs[1:]
        assert list(rounds) == []


def test_a_leaderboard_is_of_its_own_protocol_and_names_the_categories_that_it_leaves_out(
    tmp_path: Path,
) -> None:
    store, mine = ResultStore(tmp_path), result("d")
    store.open()
    for each in (mine, result("d", "b"), result("d", "c", protocol="another")):
        store.put(each)
    board, left_out = tables.write_tables(store, (mine.job,), Registry(_offers=NOTHING))
    assert left_out == ("b",)
    assert board["detector"].tolist() == ["d"]
    assert len(pd.read_csv(tmp_path / "results.csv")) == 3
    assert board["auroc_mean"].tolist() == [pytest.approx(mine.metrics["auroc"])]

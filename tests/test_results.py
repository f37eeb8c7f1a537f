"""The store: whole folders or none, damage is absence, strange names stay text."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from test_leaderboard import result

from adbench_tgan import results as results_module
from adbench_tgan.errors import AdbenchError, StoreError
from adbench_tgan.results import (
    PARTIAL,
    Result,
    ResultStore,
    as_json,
    checkpoint_name,
    safe_name,
    write_atomically,
)
from adbench_tgan.store import drafts, stored
from adbench_tgan.store.drafts import draft_name
from adbench_tgan.store.places import place_of
from adbench_tgan.store.stored import read_scores


@pytest.fixture
def store(tmp_path):
    store = ResultStore(tmp_path / "out")
    store.open()
    return store


def files_in(store):
    return sorted(str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file())


def test_what_goes_in_comes_out(store):
    put = replace(
        result("d"),
        losses=({"g": 1.5}, {"g": 0.5}),
        state={"w": torch.ones(2)},
        threshold=0.25,
        shape=(3, 32, 32),
    )
    store.put(put)
    got = store.get(put.job)
    assert store.has(put.job, with_model=True)
    assert got.job == put.job
    assert got.metrics == put.metrics
    assert got.timing == put.timing
    assert (got.threshold, got.shape) == (0.25, (3, 32, 32))
    pd.testing.assert_frame_equal(store.scores(put.job), put.scores)
    assert store.scores(put.job)["score"].dtype == np.float32
    folder = store.folder(put.job)
    assert folder.relative_to(store.root).parts[:3] == ("toy", "one-vs-rest", "d")
    assert folder.name == f"a-seed0-{put.job.key[:8]}"
    assert pd.read_csv(folder / "losses.csv").to_dict("list") == {"epoch": [1, 2], "g": [1.5, 0.5]}


def test_losses_are_read_to_the_last_bit(store):
    values = [0.000651592972722763, 4.3276706790505336e-07, 0.006958328667684435]  # which pandas 2 misreads
    put = replace(result("d"), losses=tuple({"g": value} for value in values))
    store.put(put)
    got = store.losses(put.job)
    assert got.to_dict("list") == {"epoch": [1, 2, 3], "g": values}
    assert got["epoch"].dtype == np.int64


def test_what_has_no_file_of_its_own_is_in_the_json():
    elsewhere = {"scores", "losses", "state", "trace", "pictures"}
    told = as_json(result("d"))
    assert [name for name in Result.__dataclass_fields__ if name not in {*told, *elsewhere}] == []


def test_a_model_asked_for_but_not_saved_counts_as_absent(store):
    store.put(result("d"))
    assert store.get(result("d").job) is not None
    assert not store.has(result("d").job, with_model=True)


def test_another_version_or_setting_counts_as_absent(store):
    store.put(result("d"))
    assert store.get(result("d", detector_version="2").job) is None
    assert store.get(result("d", config={"epochs": 2}).job) is None


def test_failures_are_kept_but_never_found_and_never_replace_a_good_result(store):
    bad, good = result("d", status="failed"), result("d")
    store.put(bad)
    assert store.get(bad.job) is None
    assert [r.status for r in store.results()] == ["failed"]
    store.put(good)
    assert [r.status for r in store.results()] == ["ok"]
    store.put(bad)
    assert [r.status for r in store.results()] == ["ok"]
    assert not any((store.root / PARTIAL).iterdir())


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"schema": 0}', b"null"])
def test_a_damaged_result_counts_as_absent_and_is_replaced(store, damage):
    put = result("d")
    store.put(put)
    (store.folder(put.job) / "result.json").write_bytes(damage)
    assert store.get(put.job) is None
    assert list(store.results()) == []
    store.put(put)
    assert store.get(put.job) is not None


@pytest.mark.parametrize(
    "absurd",
    [
        {"parameters": {"g": 10**30}},
        {"metrics": {"auroc": 1.5}},
        {"metrics": {"aupro": 1.002}},
        {"metrics": {"average_precision": -7.0}},
        {"metrics": {"fpr95": 1e308}},
        {"metrics": {"aupro": float("nan")}},
        {"threshold": float("nan")},
        {"machine": {"versions": 5}},
    ],
    ids=str,
)
def test_a_number_that_nothing_can_be_is_damage(store, absurd):
    put = result("d")
    store.put(put)
    path = store.folder(put.job) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | absurd))
    assert store.get(put.job) is None
    told = []
    assert list(store.results(lambda path, why: told.append(why))) == []
    assert told == ["damaged; run its job again"]


def test_rounding_is_no_damage_and_a_plugins_own_metric_may_be_anything(store):
    put = replace(result("d"), metrics={"aupro": 1.0000001192092896, "bits": -7.5})
    store.put(put)
    assert store.get(put.job).metrics == put.metrics


def test_truncated_scores_count_as_absent_and_changed_ones_are_refused(store):
    put = result("d")
    store.put(put)
    path = store.folder(put.job) / "scores.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert store.get(put.job) is None
    path.write_bytes(whole[:-9] + b"x" + whole[-8:])
    assert store.get(put.job) is not None  # of the right size: the hash is checked when it is read
    with pytest.raises(AdbenchError, match="was changed after it was written"):
        read_scores(store.folder(put.job))


@pytest.mark.parametrize("name", ["scores.parquet", "losses.csv"])
def test_a_result_of_which_one_file_is_cut_short_or_lost_counts_as_absent(store, name):
    put = replace(result("d"), losses=({"g": 1.5},))
    store.put(put)
    path = store.folder(put.job) / name
    path.write_bytes(path.read_bytes()[:-1])
    assert store.get(put.job) is None
    path.unlink()
    assert store.get(put.job) is None


def test_losses_that_were_changed_or_that_nothing_vouches_for_are_refused(store):
    put = replace(result("d"), losses=({"g": 1.5},))
    store.put(put)
    folder = store.folder(put.job)
    (folder / "losses.csv").write_text("epoch,g\n1,2.5\n")
    with pytest.raises(AdbenchError, match=r"losses\.csv was changed after it was written"):
        store.losses(put.job)
    (folder / "result.json").unlink()
    with pytest.raises(AdbenchError, match=r"losses\.csv cannot be read \(result\.json does not list it\)"):
        store.losses(put.job)


def test_losses_that_are_larger_than_any_are_not_read(store, monkeypatch):
    put = replace(result("d"), losses=({"g": 1.5},))
    store.put(put)
    path = store.folder(put.job) / "losses.csv"
    monkeypatch.setattr(stored, "LOSSES", path.stat().st_size)
    assert store.losses(put.job)["g"].tolist() == [1.5]
    monkeypatch.setattr(stored, "LOSSES", path.stat().st_size - 1)
    with pytest.raises(AdbenchError, match=r"losses\.csv cannot be read \(it has more than \d+ bytes\)"):
        store.losses(put.job)


def test_more_scores_than_any_test_set_has_are_not_read(store, monkeypatch):
    store.put(result("d"))
    monkeypatch.setattr(stored, "ROWS", 99)
    with pytest.raises(
        AdbenchError,
        match=r"scores\.parquet cannot be read \(it has 100 rows and the columns sample_id, label, score\)",
    ):
        store.scores(result("d").job)


ASKED = {
    "get": lambda store: store.get(result("d").job),
    "has": lambda store: store.has(result("d").job),
    "outcome": lambda store: store.outcome(result("d").job),
    "results": lambda store: list(store.results()),
    "is_newer": lambda store: store.is_newer(result("d").job),
    "put": lambda store: store.put(result("d", status="failed")),
    "scores": lambda store: store.scores(result("d").job),
}


def closed(monkeypatch, call, name):
    """Make a call of `os` on what has that name fail, as on another user's."""
    real = getattr(os, call)

    def forbidden(path, *words, **named):
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *words, **named)

    monkeypatch.setattr(os, call, forbidden)


@pytest.mark.parametrize("asked", ASKED)
def test_a_result_that_cannot_be_read_does_not_count_as_absent(store, asked, monkeypatch):
    store.put(result("d"))
    path = store.folder(result("d").job) / "result.json"
    closed(monkeypatch, "open", "result.json")
    remedy = "make it readable, then run the same command again"
    with pytest.raises(StoreError, match=f"^cannot read {path}: Permission denied; {remedy}$"):
        ASKED[asked](store)


@pytest.mark.parametrize(("call", "asked"), [("stat", "has"), ("open", "scores")])
def test_scores_that_cannot_be_read_are_not_to_be_deleted(store, call, asked, monkeypatch):
    store.put(result("d"))
    closed(monkeypatch, call, "scores.parquet")
    with pytest.raises(
        StoreError, match=r"^cannot read .*scores.parquet: Permission denied; make it readable"
    ):
        ASKED[asked](store)


@pytest.mark.parametrize("depth", range(4))
def test_a_folder_that_cannot_be_listed_is_not_left_out(store, depth, monkeypatch):
    store.put(result("d"))
    folder = [store.root, *reversed(store.folder(result("d").job).relative_to(store.root).parents)][
        depth and depth + 1
    ]
    closed(monkeypatch, "scandir", folder.name)
    with pytest.raises(
        StoreError, match=f"^cannot read .*{folder.name}: Permission denied; make it readable"
    ):
        list(store.results())


def test_a_result_that_cannot_be_looked_up_is_not_left_out(store, monkeypatch):
    store.put(result("d"))
    closed(monkeypatch, "lstat", "result.json")
    with pytest.raises(StoreError, match=r"^cannot read .*result\.json: Permission denied; make it readable"):
        list(store.results())


@pytest.mark.parametrize("name", [PARTIAL, "claims", "lost+found", ".Trash-1000"])
def test_a_closed_folder_that_holds_no_results_is_passed_by(store, name, monkeypatch):
    store.put(result("d"))
    (store.root / name).mkdir(exist_ok=True)
    closed(monkeypatch, "scandir", name)
    assert len(list(store.results())) == 1


@pytest.mark.parametrize("name", [PARTIAL, "claims", "lost+found", ".Trash-1000", "claims2"])
def test_a_dataset_may_have_the_name_of_a_folder_that_holds_no_results(store, name):
    named = result("d")
    named = replace(named, job=replace(named.job, dataset=name))
    store.put(named)
    assert [each.job.dataset for each in store.results()] == [name]
    assert store.get(named.job) is not None


def test_a_folder_moved_to_another_name_is_not_read(store):
    put = result("d")
    store.put(put)
    folder = store.folder(put.job)
    folder.rename(folder.with_name("b-seed0-00000000"))
    assert list(store.results()) == []
    other = result("d", seed=1).job
    folder.with_name("b-seed0-00000000").rename(store.folder(other))
    assert (store.get(other), store.outcome(other), store.has(other)) == (None, None, False)


@pytest.mark.parametrize("at", ["to_parquet", "fsync", "rename"])
def test_a_full_disk_is_one_line_and_leaves_nothing(store, monkeypatch, at):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    where = {"to_parquet": (pd.DataFrame, at), "fsync": (os, at), "rename": (os, at)}[at]
    monkeypatch.setattr(*where, full)
    with pytest.raises(AdbenchError) as caught:
        store.put(result("d"))
    assert "No space left on device; free some space" in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert files_in(store) == []
    assert store.get(result("d").job) is None


def test_two_runs_that_store_a_job_at_one_moment_both_end_and_the_later_result_stands(store, monkeypatch):
    store.put(result("d"))
    rename, others = os.rename, ["2", "3"]

    def rival(source, target):
        """Another run stores the job between the two renames, and then again."""
        if others and target == store.folder(result("d").job):
            store.put(replace(result("d"), version=others.pop()))
        return rename(source, target)

    monkeypatch.setattr(results_module.os, "rename", rival)
    store.put(replace(result("d"), version="ours"))
    assert others == []
    assert store.get(result("d").job).version == "ours"
    assert not any((store.root / PARTIAL).iterdir())


def test_a_failure_that_came_with_a_containers_image_is_replaced(store, monkeypatch):
    store.put(result("d", status="failed"))
    rename = os.rename

    def of_an_overlay(source, target):
        if source == store.folder(result("d").job):  # a folder of a lower layer
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", of_an_overlay)
    store.put(result("d"))
    assert store.get(result("d").job).status == "ok"
    assert not any((store.root / PARTIAL).iterdir())


@pytest.mark.parametrize("stored_since", [False, True])
def test_a_result_that_a_killed_process_had_moved_aside_comes_back_where_none_is(store, stored_since):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    put = result("d")
    store.put(replace(put, version="old"))
    aside = store.root / PARTIAL / f"{draft_name().partition('+')[0]}+{dead.pid}+abc+old"
    store.folder(put.job).rename(aside)
    if stored_since:
        store.put(replace(put, version="new"))
    store.open()
    assert store.get(put.job).version == ("new" if stored_since else "old")
    assert not any((store.root / PARTIAL).iterdir())


def test_an_atomic_write_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results_module.os, "replace", full)
    with pytest.raises(AdbenchError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]


def test_a_file_is_whole_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done = []

    def told(name, real):
        monkeypatch.setattr(os, name, lambda *words: done.append(name) or real(*words))

    told("fsync", os.fsync)
    told("replace", os.replace)
    write_atomically(tmp_path / "results.csv", "new")
    assert done == ["fsync", "replace"]


def test_drafts_of_dead_processes_are_cleared_and_those_of_living_ones_kept(store):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = draft_name().partition("+")[0]
    gone = store.root / PARTIAL / f"{host}+{dead.pid}+abc"
    alive = store.root / PARTIAL / f"{host}+{os.getpid()}+abc"
    elsewhere = store.root / PARTIAL / f"another-host+{dead.pid}+abc"
    of_old = store.root / PARTIAL / f"{socket.gethostname()}+{dead.pid}+abc"  # by an older version
    for folder in (gone, alive, elsewhere, of_old):
        folder.mkdir()
        (folder / "result.json").write_text("{}")
    cut_short = store.root / PARTIAL / f".{host}+{dead.pid}+def"  # a file that was being written
    cut_short.write_bytes(b"half")
    store.open()
    assert not cut_short.exists()
    assert not gone.exists()
    assert alive.exists()
    assert elsewhere.exists()
    assert of_old.exists()
    assert list(store.results()) == []


def test_what_killed_runs_into_object_stores_left_on_this_machine_is_cleared(tmp_path, monkeypatch):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    own, place = draft_name(), tmp_path / "temporary"
    gone = own.replace(f"+{os.getpid()}+", f"+{dead.pid}+")
    for name in (own, gone, f"{gone}-of-ray", "another's"):
        (place / name).mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (place / f"{gone}-link").symlink_to(tmp_path / "kept")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    ResultStore(place_of("memory://cleared/runs")).open()
    assert {path.name for path in place.iterdir()} == {own, "another's", f"{gone}-link"}
    assert (tmp_path / "kept").exists()


@pytest.mark.skipif(not drafts.CARDS.exists(), reason="only Linux tells its boots apart")
def test_drafts_of_before_a_machines_last_start_are_cleared_and_those_of_its_copies_kept(
    store, tmp_path, monkeypatch
):
    def draft(tag, **changed):
        with monkeypatch.context() as patch:
            for name, value in changed.items():
                patch.setattr(drafts, name, value)
            path = store.root / PARTIAL / draft_name()
        path.mkdir()
        return tag, path

    def written(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    def cards(*addresses):
        root = tmp_path / "-".join(("cards", *addresses))
        for address in addresses:
            (root / address / "device").mkdir(parents=True)
            (root / address / "address").write_text(address)
        return root

    monkeypatch.setattr(drafts, "MACHINE", written("machine", "an id"))
    monkeypatch.setattr(drafts, "CARDS", cards("00:01:02:03:04:05"))
    boot = written("boot", "yesterday's")
    made = dict(
        [
            draft("before", BOOT=boot),
            draft("now"),
            draft("a copy", BOOT=boot, CARDS=cards("00:01:02:03:04:06")),
            draft("another machine", BOOT=boot, MACHINE=written("other", "another id")),
            draft("of another name", BOOT=boot, socket=SimpleNamespace(gethostname=lambda: "other")),
            draft("a container", BOOT=boot, CARDS=tmp_path),
            draft("without an id", BOOT=boot, MACHINE=tmp_path / "none"),
            draft("an image's empty id", BOOT=boot, MACHINE=written("empty", "")),
        ]
    )
    store.open()
    assert [tag for tag, path in made.items() if not path.exists()] == ["before"]
    # Copies of a virtual machine may share an address that was given locally.
    for nothing_told in (tmp_path, cards("02:fc:00:00:00:01")):
        monkeypatch.setattr(drafts, "CARDS", nothing_told)
        _, path = draft("of another boot", BOOT=boot)
        store.open()
        assert path.exists()
        path.rmdir()


def test_files_beside_results_and_folders_without_one_are_passed_by(store):
    store.put(result("d"))
    (store.root / "results.csv").touch()
    (store.root / "toy/one-vs-rest/d/b-seed0-00000000").mkdir()
    assert [each.job for each in store.results()] == [result("d").job]


def test_results_are_found_while_other_runs_make_and_remove_their_folders(store):
    store.put(result("d"))
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            (store.root / "toy/deep/inside/it").mkdir(parents=True, exist_ok=True)
            shutil.rmtree(store.root / "toy/deep", ignore_errors=True)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        counts = {len(list(store.results())) for _ in range(1000)}
    finally:
        over.set()
        other.join()
    assert counts == {1}


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AdbenchError, match=r"cannot write to .*file.*; give --out another folder"):
        ResultStore(tmp_path / "file" / "out").open()


@pytest.mark.parametrize(
    "name", ["..", ".", "a/b", "../../etc", "a\\b", "x\ny", "naïve", "<b>", "a'\"b", "=1+1"]
)
def test_strange_category_names_stay_inside_the_store(store, name):
    put = result("d", name)
    store.put(put)
    folder = store.folder(put.job)
    assert folder.resolve().is_relative_to(store.root.resolve())
    assert len(folder.relative_to(store.root).parts) == 4
    assert store.get(put.job).job.category == name
    assert [r.job.category for r in store.results()] == [name]


def test_safe_names_are_distinct():
    names = [".", "..", "%2E", "a", "a b", "a/b", "a%2Fb"]
    assert len({safe_name(name) for name in names}) == len(names)
    assert safe_name("metal_nut") == "metal_nut"
    assert [safe_name(name) for name in (".", "..", "a..")] == ["%2E", "%2E%2E", "a.."]  # no folder above


def test_the_result_file_names_all_that_made_the_score(store):
    store.put(result("d"))
    data = json.loads((store.folder(result("d").job) / "result.json").read_text())
    assert data["schema"] == 2
    assert data["key"] == result("d").job.key
    assert set(data["files"]) == {"scores.parquet"}


KEY_PARTS = {
    "detector": "e",
    "detector_version": "2",
    "config": {"epochs": 2},
    "dataset": "other",
    "protocol": "other",
    "protocol_version": "2",
    "category": "b",
    "seed": 1,
    "precision": "bf16",
    "supervision": "labelled",
    "split_fingerprint": "b" * 64,
    "offer_fingerprint": "c" * 64,
}


@pytest.mark.parametrize("part", KEY_PARTS)
def test_the_key_changes_with_all_that_can_change_a_score(part):
    plain = {"detector": "d", "category": "a", "seed": 0}
    assert result(**(plain | {part: KEY_PARTS[part]})).job.key != result("d").job.key


def test_the_key_does_not_change_with_names_alone():
    assert result("d", preset="x", pretrained="y", problem="z").job.key == result("d").job.key
    assert result("d", config={"a": 1, "b": 2}).job.key == result("d", config={"b": 2, "a": 1}).job.key


def test_what_was_kept_of_a_training_goes_when_its_job_is_finished_and_stays_when_it_failed(store):
    kept = store.checkpoints / checkpoint_name(result("d").job)
    kept.write_bytes(b"hours of work")
    store.put(result("d", status="failed"))
    assert kept.exists()
    store.put(result("d"))
    assert not kept.exists()


@pytest.mark.parametrize("objects", [False, True])
def test_a_traceback_is_that_of_the_last_failure(tmp_path, objects):
    store = ResultStore(place_of("memory://traces/runs") if objects else tmp_path)
    store.open()
    job = result("d").job
    store.put(replace(result("d", status="failed"), trace="Traceback of the first"))
    assert store.trace(job).read_text() == "Traceback of the first"
    store.put(result("d", status="failed"))
    assert store.trace(job) is None
    store.put(result("d"))
    assert store.trace(job) is None

"""A run that is killed, interrupted or repeated: nothing half-written is read, and the next run goes on."""

import os
import re
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_data import make_mvtec, picture, save
from make_process import Forked
from test_leaderboard import result

from adbench_tgan.results import PARTIAL, ResultStore

RUN = ["run", "--detectors", "mean_image,ganomaly", "--categories", "0,1", "--set", "ganomaly.width=8"]
RUN += ["--set", "ganomaly.epochs=2", "--device", "cpu", "--no-timing", "--out"]
COMPUTED = "detector category seed status key split_fingerprint auroc average_precision".split()


def scores(out):
    """Bytes of every job's scores, by folder."""
    return {p.parent.name: p.read_bytes() for p in sorted(Path(out).glob("*/*/*/*/scores.parquet"))}


def assert_same(out, whole):
    mine, theirs = (pd.read_csv(folder / "results.csv")[COMPUTED] for folder in (out, whole))
    pd.testing.assert_frame_equal(mine, theirs)
    assert scores(out) == scores(whole)
    assert not any((out / PARTIAL).iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    Forked(*RUN, out).finish()
    assert len(scores(out)) == 4
    return out


def test_a_process_that_inherits_nothing_gives_the_same_bytes(whole, tmp_path):
    words = [sys.executable, "-m", "adbench_tgan", *RUN, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("moment", ["note: digits", r"\[1/4\]", r"\[3/4\]"])
def test_killed_and_restarted_it_ends_as_if_nothing_had_happened(moment, whole, tmp_path):
    process = Forked(*RUN, tmp_path)
    for line in process.stderr:
        if re.match(moment, line):
            process.send(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "results.csv").exists()
    kept = len(scores(tmp_path))
    again = Forked(*RUN, tmp_path).finish()
    assert (f"{kept} of 4 jobs are finished already" in again) == (kept > 0)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_interrupted_it_keeps_what_is_done_and_says_so(kind, whole, tmp_path):
    process = Forked(*RUN, tmp_path)
    rest = ""
    for line in process.stderr:
        if line.startswith("[1/4]"):
            process.send(kind)
            rest = process.stderr.read()
            break
    assert process.wait() == 130
    at_once = "interrupted; giving up what is not finished, and writing the tables"
    at_last = f"interrupted; finished jobs are kept in {tmp_path}, the same command goes on from there"
    assert -1 < rest.find(at_once) < rest.find(at_last)
    assert "Traceback" not in rest
    kept = pd.read_csv(tmp_path / "results.csv")
    assert 1 <= len(kept) < 4
    assert (kept["status"] == "ok").all()
    again = Forked(*RUN, tmp_path).finish()
    assert f"{len(kept)} of 4 jobs are finished already" in again
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("fatal", range(1, 6))
def test_killed_inside_any_step_of_storing_nothing_half_written_is_read(fatal, tmp_path):
    """A child process dies at its `fatal`-th flush or rename; the last of five is after the rename."""
    store = ResultStore(tmp_path)
    store.open()
    put = result("d")
    child = os.fork()
    if child == 0:
        die_at(fatal)
        store.put(put)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    died = os.waitstatus_to_exitcode(status) == 9
    assert died == (
        fatal <= 4
    )  # two files are flushed, what stood there is moved aside, the folder is renamed
    found = store.get(put.job)
    assert (found is None) == died
    assert len(list(store.results())) == (0 if died else 1)
    store.open()  # the next run clears the draft
    assert not any((tmp_path / PARTIAL).iterdir())
    store.put(put)
    pd.testing.assert_frame_equal(store.scores(put.job), put.scores)


def die_at(number):
    calls = 0

    def counted(real):
        def call(*args):
            nonlocal calls
            calls += 1
            if calls == number:
                os._exit(9)
            return real(*args)

        return call

    os.fsync, os.rename = counted(os.fsync), counted(os.rename)


def test_a_disk_that_fills_up_ends_the_run_with_one_line_and_the_next_goes_on(whole, tmp_path):
    """A limit on the size of files stands for a full disk: writing past it fails in the same place."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (2000, 2000))
    process = Forked(*RUN, tmp_path, first=limit)
    said = process.stderr.read()
    assert process.wait() == 1, said
    last = said.strip().splitlines()[-1]
    assert re.match(r"adbench: cannot write .*: .*; free some space", last), said
    assert "Traceback" not in said
    assert scores(tmp_path) == {}
    Forked(*RUN, tmp_path).finish()
    assert_same(tmp_path, whole)


def test_bad_images_cost_their_category_only(tmp_path, adbench):
    root = make_mvtec(tmp_path / "mvtec", categories=("broken", "empty", "fine", "masks"))
    (root / "broken/train/good/000.png").write_bytes(b"not an image")
    for path in (root / "empty/train/good").iterdir():
        path.unlink()
    mask = next((root / "masks/ground_truth").rglob("*.png"))
    shrink(mask)
    command = ["run", "--detectors", "mean_image,random", "--data", "mvtec", "--data-root", root]
    command += ["--out", tmp_path / "out"]
    done = adbench(*command)
    assert done.status == 1, done.err
    table = pd.read_csv(tmp_path / "out/results.csv").set_index(["category", "detector"])
    assert len(table) == 8
    assert (table.loc["fine", "status"] == "ok").all()
    assert np.isfinite(table.loc[("fine", "mean_image"), ["pixel_auroc", "aupro"]].astype(float)).all()
    assert table.loc[("fine", "random"), ["pixel_auroc", "aupro"]].isna().all()
    for category, words in {
        "broken": "broken/train/good/000.png",
        "empty": "empty",
        "masks": "replace the mask",
    }.items():
        assert (table.loc[category, "status"] == "failed").all()
        assert table.loc[category, "error"].str.contains(words).all(), table.loc[category, "error"].tolist()

    save(root / "broken/train/good/000.png", picture(0))  # mended: its failures are history
    again = adbench(*command)
    assert again.status == 1, again.err
    table = pd.read_csv(tmp_path / "out/results.csv").set_index(["category", "detector"])
    assert len(table) == 8
    assert (table.loc["broken", "status"] == "ok").all()


def shrink(path):
    from PIL import Image

    with Image.open(path) as image:
        small = image.resize((image.width // 2, image.height // 2))
    small.save(path)

"""Full and read-only disks, clocks that jump, and two versions of adbench-tgan on one store: nothing is lost."""

import ast
import errno
import itertools
import json
import os
import resource
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from make_data import make_mvtec, picture
from PIL import Image
from test_leaderboard import result

import adbench_tgan
from adbench_tgan import results as results_module
from adbench_tgan.errors import AdbenchError, StoreError
from adbench_tgan.jobs import Job
from adbench_tgan.results import PARTIAL, Result, ResultStore, write_atomically

FIRST = result("first")
SECOND = replace(result("second"), losses=({"g": 1.5},), state={"w": torch.ones(500)})


def child(root, fault):
    """Store a result and a table in a child process after `fault` is set up; what it said, or "" if all went well."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        said = ""
        try:
            fault(root)
            store = ResultStore(root)
            store.open()
            store.put(SECOND)
            write_atomically(root / "results.csv", "new" * 2000)
        except AdbenchError as error:
            said = str(error)
        except BaseException as error:
            said = f"CRASH {error!r}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        said = file.read()
    os.waitpid(process, 0)
    return said


def full_at(number):
    """Let the `number`-th file or folder that is made, renamed or replaced below the store meet a full disk."""

    def fault(root):
        calls = itertools.count(1)

        def watch(event, words):
            writes = event in ("os.mkdir", "os.rename") or (
                event == "open" and words[2] & (os.O_WRONLY | os.O_RDWR)
            )
            if writes and str(words[0]).startswith(str(root)) and next(calls) == number:
                raise OSError(errno.ENOSPC, "No space left on device")

        sys.addaudithook(watch)

    return fault


def small(size):
    """No file may be larger than `size` bytes, as on a disk that has so many left."""
    return lambda root: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def intact(root, said):
    """One line said; the first result and the old table are there, and the second whole or not at all."""
    store = ResultStore(root)
    assert said == "" or (said.startswith("cannot write ") and said.isprintable()), said
    assert store.get(FIRST.job) is not None
    pd.testing.assert_frame_equal(store.scores(FIRST.job), FIRST.scores)
    found = store.get(SECOND.job)
    names = [r.job.detector for r in store.results(lambda *told: pytest.fail(f"half written: {told}"))]
    assert names == (["first"] if found is None else ["first", "second"])
    assert (root / "results.csv").read_text() == ("old" if said else "new" * 2000)
    assert [p.name for p in root.iterdir() if p.name.startswith(".")] == [PARTIAL]
    store.open()
    assert list((root / PARTIAL).iterdir()) == []


@pytest.fixture
def begun(tmp_path):
    store = ResultStore(tmp_path)
    store.open()
    store.put(FIRST)
    write_atomically(tmp_path / "results.csv", "old")
    return tmp_path


def test_a_disk_full_at_each_write_in_turn_loses_nothing(begun):
    ends = []
    for number in range(1, 23):
        said = child(begun, full_at(number))
        intact(begun, said)
        assert said == "" or "No space left on device" in said
        ends.append(said != "")
        shutil.rmtree(ResultStore(begun).folder(SECOND.job), ignore_errors=True)
        write_atomically(begun / "results.csv", "old")
    assert sum(ends) >= 8  # folders, files opened to be written and to be flushed, the rename, the table
    assert not any(ends[19:])  # there are no more writes than that, with older libraries either


@pytest.mark.parametrize("size", [0, 20, 500, 1500, 2500, 5000, 7000])
def test_a_disk_with_so_many_bytes_left_loses_nothing(begun, size):
    said = child(begun, small(size))
    intact(begun, said)
    assert (said == "") == (size == 7000)


def test_a_failure_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    store = ResultStore(tmp_path)
    store.open()
    store.put(result("d", status="failed"))
    real, calls = os.rename, itertools.count(1)

    def rename(source, target):
        if next(calls) == 2:  # the first one puts the failure aside
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(results_module.os, "rename", rename)
    with pytest.raises(StoreError, match="Input/output error"):
        store.put(result("d"))
    assert [r.error for r in store.results()] == ["RuntimeError: boom"]
    store.put(result("d"))
    assert [r.status for r in store.results()] == ["ok"]
    assert list((tmp_path / PARTIAL).iterdir()) == []


def test_a_read_only_store_is_one_line_before_anything_is_trained(adbench, tmp_path, monkeypatch):
    def mkdir(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", mkdir)
    ended = adbench("run", "--detectors", "mean_image", "--out", "store")
    assert ended.status == 2
    assert ended.error == "cannot write to store: Read-only file system; give --out another folder"
    assert "[1/" not in ended.err


def test_without_a_folder_for_temporary_files_nothing_is_trained(adbench, monkeypatch):
    def none():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    ended = adbench("run", "--detectors", "pca", "--categories", "0")
    assert ended.status == 2
    assert ended.error.startswith("no folder for temporary files can be written; set TMPDIR to one")
    assert not Path("runs").exists()


def test_a_clock_that_jumps_changes_nothing(adbench, tmp_path, monkeypatch):
    words = ("run", "--detectors", "mean_image,pca", "--categories", "0", "--out")
    assert adbench(*words, "steady").status == 0
    jumps, real = itertools.count(), time.time()
    monkeypatch.setattr(time, "time", lambda: real + (-1) ** next(jumps) * 1e8)
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    assert adbench(*words, "jumping").status == 0
    steady, jumping = (pd.read_csv(f"{name}/results.csv") for name in ("steady", "jumping"))
    assert (jumping[["key", "auroc", "status"]] == steady[["key", "auroc", "status"]]).all(axis=None)
    times = jumping[["fit_seconds", "score_seconds", "latency_ms_p50", "latency_ms_p99"]]
    assert times.stack().between(0, 1e5).all()
    assert "2 of 2 jobs are finished already" in adbench(*words, "steady").err


def test_the_wall_clock_is_never_asked():
    asked = [
        (path.name, ast.unparse(node))
        for path in Path(adbench_tgan.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("time.time", "time.time_ns", "datetime.now")
    ]
    assert asked == []


# two versions


def as_schema(store, put, number):
    path = store.folder(put.job) / "result.json"
    data = json.loads(path.read_text())
    data["schema"] = number
    if number == 1:
        del data["purity_delta"]
    else:
        data["new"] = "unheard of"
    path.write_text(json.dumps(data))
    return path


def test_results_of_the_first_schema_are_read(begun):
    store = ResultStore(begun)
    as_schema(store, FIRST, 1)
    assert store.get(FIRST.job).metrics == FIRST.metrics
    assert [r.purity_delta for r in store.results()] == [None]


def test_results_of_a_newer_schema_are_left_alone_and_said(adbench, tmp_path):
    run = ("run", "--detectors", "mean_image,random", "--no-timing", "--out", "out", "--categories")
    assert adbench(*run, "0,1").status == 0
    folders = sorted(Path("out").glob("digits/*/mean_image/*"))
    for folder in folders[:1]:
        path = folder / "result.json"
        path.write_text(path.read_text().replace('"schema": 2', '"schema": 3'))
    whole = path.read_bytes()

    ended = adbench(*run, "0,1")
    assert ended.status == 2
    assert ended.error == (
        "1 of these jobs, the first mean_image on digits/0 seed 0, are stored in out by a newer adbench-tgan; "
        "upgrade, or give --out another folder"
    )
    ended = adbench(*run, "1,2")  # others go on beside it
    assert ended.status == 0, ended.err
    assert (
        f"note: {path} is left alone and not in the tables: of a newer adbench-tgan (schema 3)" in ended.err
    )
    assert path.read_bytes() == whole
    with pytest.raises(StoreError, match="was written by a newer adbench-tgan; upgrade"):
        ResultStore(Path("out")).put(as_failed(path))
    assert path.read_bytes() == whole


def as_failed(path):
    """A failure of the job that a newer version has stored."""
    return Result(job=Job(**json.loads(path.read_text())["job"]), status="failed", error="x")


def test_a_resume_reads_each_result_once(begun, monkeypatch):
    opened = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *words: (opened.append(Path(path).name), real(path, *words))[1]
    )
    assert ResultStore(begun).get(FIRST.job) is not None
    assert opened == ["result.json"]


# images


def of(kind, root):
    """Make one training image of a sound dataset bad."""
    path = root / "bad/train/good/000.png"
    grey = Image.fromarray(picture(0)[..., 0])
    if kind == "bomb":
        Image.new("1", (20_000, 20_000)).save(path)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "renamed":
        grey.save(path, "GIF")
    elif kind == "mode":
        path.unlink()
        Image.new("LAB", (16, 16)).save(path.with_suffix(".tiff"))
    elif kind in ("nan", "inf"):
        path.unlink()
        pixels = torch.full((16, 16), 0.5)
        pixels[3, 3] = float(kind)
        Image.fromarray(pixels.numpy()).save(path.with_suffix(".tif"))
    elif kind == "sixteen":
        path.unlink()
        Image.fromarray(torch.full((16, 16), 70_000, dtype=torch.int32).numpy()).save(
            path.with_suffix(".tif")
        )
    elif kind == "pipe":
        path.unlink()
        os.mkfifo(path)


REASONS = {
    "bomb": "more than 89,478,485 pixels",
    "truncated": "truncated file",
    "empty": "empty file",
    "renamed": "not a PNG, JPEG, BMP or TIFF image",
    "mode": "pixels of Pillow's mode LAB are not supported",
    "nan": "values nan to nan are not finite and within 0 to 1",
    "inf": "values 0.5 to inf are not finite and within 0 to 1",
    "sixteen": "values 70000 to 70000 are not within 0 to 65535",
    "pipe": "not a regular file",
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_bad_image_is_one_failed_row_that_names_it(adbench, tmp_path, kind):
    root = make_mvtec(tmp_path / "data", ["bad", "sound"], train=3, good=1, defects={"dent": 1})
    of(kind, root)
    words = ("--detectors", "random", "--data", "mvtec", "--data-root", root, "--no-timing")
    ended = adbench("run", *words)
    assert ended.status == 1
    table = pd.read_csv("runs/results.csv").set_index("category")
    assert table["status"].to_dict() == {"bad": "failed", "sound": "ok"}
    row = table.loc["bad", "error"]
    assert "bad/train/good/000." in row
    assert row.endswith(f"({REASONS[kind]}); replace or remove it")
    assert f"failed: random on mvtec/bad seed 0: {row}" in ended.err


def test_images_of_other_sizes_and_modes_are_brought_to_one(adbench, tmp_path):
    root = make_mvtec(tmp_path / "data", ["mixed"], train=4, good=2, defects={"dent": 1})
    folder = root / "mixed/train/good"
    Image.fromarray(picture(1, height=40, width=9)).save(folder / "000.png")
    Image.fromarray(picture(1)[..., 0]).save(folder / "001.png")
    Image.fromarray(picture(1)).convert("RGBA").save(folder / "002.png")
    ended = adbench("run", "--detectors", "mean_image", "--data", "mvtec", "--data-root", root, "--no-timing")
    assert ended.status == 0, ended.err

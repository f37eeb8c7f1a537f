"""Names, models, results and files made to do harm: they stay text, stay out, or are refused in one line."""

import ast
import hashlib
import json
import os
import pickle
import signal
import struct
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from make_data import make_cifar10, make_imagefolder, make_mvtec, picture, save
from rich.console import Console
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from test_leaderboard import result

import adbench_tgan
from adbench_tgan import Detector
from adbench_tgan.checkpoints import Checkpoint
from adbench_tgan.data import cifar10
from adbench_tgan.data.files import decode, decode_mask
from adbench_tgan.data.plain_pickle import PlainArray, PlainDtype, plain_pickle
from adbench_tgan.errors import AdbenchError, DataError, StoreError
from adbench_tgan.jobs import Job
from adbench_tgan.leaderboard import results_table
from adbench_tgan.predict import memory_limited
from adbench_tgan.results import ResultStore, safe_name
from adbench_tgan.store import stored
from adbench_tgan.store.stored import parquet_table, read, read_scores
from adbench_tgan.terminal.progress import TerminalReporter
from adbench_tgan.text import cell, csv_of, plain

ROOT = Path(adbench_tgan.__file__).parents[1]
NAMES = [
    "../../up",
    "a\nb",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\u202etxt.exe",
    "<script>alert(1)</script>",
    "a'\"b",
    "=1+1",
    "@SUM(A1)",
    "+1",
    "-1",
    "[bold red]x[/]",
    "\tx",
    "$x$",
    "日本語" * 60,
]


# names


@pytest.mark.parametrize("name", NAMES)
def test_text_is_one_printable_line_and_nothing_is_lost(name):
    shown = plain(name)
    assert shown.isprintable()
    assert shown == name or "\\" in shown
    assert not str(cell(name)).startswith(("=", "+", "-", "@", "\t"))


def test_what_cannot_be_seen_is_shown():
    assert plain("good\u3164 \u115f\ufe0f\u2800\U000e0100") == "good\\u3164 \\u115f\\ufe0f\\u2800\\U000e0100"
    assert plain("\u1160\x07 é 日本") == "\\u1160\\x07 é 日本"


@pytest.mark.parametrize("kind", [AdbenchError, DataError, StoreError])
def test_an_error_is_one_printable_line_whoever_raises_it(kind):
    assert str(kind("no\r\nsuch\nfile \x1b[2J")) == "no such file \\x1b[2J"
    assert [str(pickle.loads(pickle.dumps(kind(name)))) for name in NAMES] == [
        str(kind(name)) for name in NAMES
    ]


def test_numbers_and_usual_names_are_left_as_they_are():
    table = pd.DataFrame({"name": ["metal_nut", None, "it's"], "delta": [-0.5, 1.0, None], "n": [-1, 2, 3]})
    assert csv_of(table) == table.to_csv(index=False)


def test_a_text_that_was_marked_can_be_told_from_one_that_was_not():
    assert cell("=1") == "'=1"
    assert cell("'=1") == "''=1"


@pytest.mark.parametrize("name", NAMES)
def test_a_category_stays_text_in_store_table_and_terminal(tmp_path, name):
    store = ResultStore(tmp_path / "out")
    store.open()
    put = result("d", name, split_fingerprint="a" * 64)
    store.put(put)
    assert store.folder(put.job).parent == tmp_path / "out/toy/one-vs-rest/d"
    assert store.get(put.job).job.category == name
    text = csv_of(results_table(store.results()))
    assert all(line.isprintable() for line in text.splitlines())
    assert len(text.splitlines()) == 2
    with (tmp_path / "terminal").open("w") as file:
        reporter = TerminalReporter(Console(file=file, width=400))
        reporter.job_started(put.job)
        reporter.job_finished(put)
    lines = (tmp_path / "terminal").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert plain(name) in lines[0]


def test_long_names_stay_distinct():
    long = ["日本語" * 60, "日本語" * 60 + "x", "日本語" * 61]
    assert len({safe_name(name) for name in long}) == 3
    assert all(len(safe_name(name)) <= 150 for name in long)


def test_hostile_folder_names_run_through_the_command(adbench, tmp_path):
    root = make_imagefolder(tmp_path / "data", ["=cmd|'x'!A1", "\x1b[31mred", "<b>bold"], size=8)
    ended = adbench(
        "run", "--detectors", "mean_image", "--data", "imagefolder", "--data-root", root, "--no-timing"
    )
    assert ended.status == 0, ended.err
    assert "\x1b" not in ended.out + ended.err
    assert r"\x1b[31mred" in ended.err
    table = pd.read_csv("runs/results.csv")
    assert sorted(table["category"]) == ["'=cmd|'x'!A1", "<b>bold", "\\x1b[31mred"]
    again = adbench(
        "run", "--detectors", "mean_image", "--data", "imagefolder", "--data-root", root, "--no-timing"
    )
    assert "3 of 3 jobs are finished already" in again.err
    wrong = adbench("run", "--data", "imagefolder", "--data-root", root, "--categories", "\x1b[31mrad")
    assert wrong.error.isprintable()


# pickle


def test_pickle_is_named_in_one_file_only():
    """And nothing that would unpickle behind our back is called."""
    words = set("pickle cPickle dill cloudpickle joblib shelve marshal read_pickle eval exec".split())
    found = set()
    rooms = (ROOT / "adbench_tgan", ROOT / "plugins/adbench_plugins", ROOT / "baselines/adbench_baselines")
    for path in (path for room in rooms for path in room.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {node.func.id}
            elif isinstance(node, ast.Attribute):
                names = {node.attr} - {"eval"}  # of a network
            else:
                continue
            found |= {(path.name, name) for name in names & words}
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "torch.load",
                "np.load",
                "numpy.load",
            ):
                options = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert options.get("weights_only") == "True" or options.get("allow_pickle") == "False", path
    assert found == {("plain_pickle.py", "pickle")}


@contextmanager
def no_unpickling():
    """Fail on any use of pickle's loaders, the C ones included."""

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("load", "loads", "_load", "_loads"):
            patch.setattr(pickle, name, refuse)
        for kind in (pickle.Unpickler, pickle._Unpickler):  # libraries derive classes of their own from them
            patch.setattr(pickle, kind.__name__, type(kind.__name__, (kind,), {"__init__": refuse}))
        patch.setattr("_pickle.loads", refuse)
        patch.setattr("_pickle.load", refuse)
        yield


def test_nothing_is_unpickled_on_the_way_from_images_to_predictions(adbench, tmp_path):
    root = make_mvtec(tmp_path / "data")
    with no_unpickling():
        with pytest.raises(AssertionError, match="unpickled"):
            pickle.loads(b"N.")  # the guard works
        words = ("--detectors", "pca,ganomaly", "--data", "mvtec", "--data-root", root, "--save-models")
        for _ in range(2):
            ended = adbench("run", *words, "--preset", "quick", "--no-timing")
            assert ended.status == 0, ended.err
        for folder in Path("runs").glob("mvtec/*/*/*"):
            assert adbench("predict", folder, root / "screw/test/good/000.png").status == 0


BOMBS = {
    "memories": b"\x80\x02N" + b"r" + struct.pack("<I", 2**31 - 1) + b".",
    "long number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "bytes": b"\x80\x05\x8e" + struct.pack("<Q", 2**62) + b".",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "shape": b"cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ftR.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Px\n.",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_pickle_takes_no_gigabytes(tmp_path, kind):
    (tmp_path / "x").write_bytes(BOMBS[kind])
    with memory_limited(2**29), pytest.raises(DataError, match="is not a CIFAR-10 batch") as caught:
        cifar10.read_batch(tmp_path / "x")
    assert "emory" not in str(caught.value).replace("memories", "")


@pytest.mark.parametrize(
    ("code", "name"), [(b"\x8a\x01\x05", "LONG1"), (b"(i__main__\nx\n", "INST"), (b"Np0\n", "PUT")]
)
def test_what_a_pickle_may_ask_for_is_a_short_list(tmp_path, code, name):
    (tmp_path / "x").write_bytes(b"\x80\x02" + code + b".")
    with pytest.raises(DataError, match=f"asks for {name}, which is refused"):
        cifar10.read_batch(tmp_path / "x")


def nested(levels):
    """Opcodes that put a tuple on the stack: of the tuple before, twice, and so forth."""
    pairs = b"".join(b"h%ch%c\x86\x940" % (level, level) for level in range(levels))
    return b"\x80\x04)\x940" + pairs + b"h%c" % levels


ARRAY, DTYPE, ENCODE = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n"
TEXT = b"X\x02\0\0\0ab"
DEEP = nested(20)
ENDLESS = {
    "key": (DEEP + b"r\xff\0\0\0}j\xff\0\0\0Ns.", "keys that are not strings"),
    "keys": (b"}(" + DEEP + b"Nu.", "keys that are not strings"),
    "dictionary": (b"(" + DEEP + b"Nd.", "keys that are not strings"),
    "codec": (ENCODE + TEXT + DEEP + b"\x86R.", "another codec than latin1"),
    "arguments": (DTYPE + b"(NNNNtR.", "more than 3 arguments"),
    "no tuple": (DTYPE + TEXT + b"R.", "more than 3 arguments"),
    "function": (ENCODE + b"N}\x8c\x0c__defaults__)s\x86b.", "to change something other than an array"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_small_pickle_takes_no_time(tmp_path, kind):
    """Tuples, each holding the one before twice, are neither hashed nor written down; sixty would take for ever."""
    code, told = ENDLESS[kind]
    (tmp_path / "x").write_bytes(code)
    with pytest.raises(DataError, match=told) as caught:
        cifar10.read_batch(tmp_path / "x")
    assert len(str(caught.value)) < len(str(tmp_path)) + 200


def test_an_array_is_of_a_plain_kind_and_of_few_dimensions():
    array = PlainArray()
    kind = PlainDtype("u1")
    array.__setstate__((1, (1,) * 9, kind, False, b"a"))
    with pytest.raises(ValueError, match="whose shape is no tuple"):
        array.array()
    array.__setstate__((1, (1,) * 8, kind, False, b"a"))
    assert array.array().tobytes() == b"a"
    kind.__setstate__((3, ()))
    with pytest.raises(ValueError, match="of an unknown byte order"):
        array.array()
    kind.code = ("u1",)
    with pytest.raises(ValueError, match="other things than plain numbers"):
        array.array()


def test_a_text_is_encoded_once():
    """Eight bytes name a text of any length, and would encode it again."""
    again = b"h\0h\1h\2\x86R"
    code = b"\x80\x04" + ENCODE + b"\x94" + TEXT + b"\x94" + b"\x8c\x06latin1\x94](" + again * 3 + b"e."
    one, *others = plain_pickle(code)
    assert one == b"ab"
    assert all(other is one for other in others)


def test_shared_lists_are_not_unfolded(tmp_path):
    """Forty lists, each holding the one before twice, are a million million numbers to numpy."""
    entry = [0, 0]
    for _ in range(40):
        entry = [entry, entry]
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": entry}
    (tmp_path / "x").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match="labels are list, not 2 whole numbers"):
        cifar10.read_batch(tmp_path / "x")


# files that are none


@contextmanager
def in_time(seconds=20):
    def late(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_pipes_and_devices_are_refused_without_waiting(tmp_path):
    batches = make_cifar10(tmp_path)
    (batches / "data_batch_1").unlink()
    store = ResultStore(tmp_path / "out")
    store.open()
    put = result("d")
    store.put(put)
    record = store.folder(put.job) / "result.json"
    record.unlink()
    kept = tmp_path / "k.checkpoint"
    for path in (tmp_path / "x.png", batches / "data_batch_1", record, kept):
        os.mkfifo(path)
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with in_time():
        for path in (tmp_path / "x.png", tmp_path / "zero.png"):
            with pytest.raises(DataError, match="not a regular file"):
                decode(path)
            with pytest.raises(DataError, match="not a regular file"):
                decode_mask(path)
        with pytest.raises(DataError, match=r"data_batch_1 .*not a regular file"):
            cifar10.read_batch(batches / "data_batch_1")
        toy = Toy()
        assert Checkpoint(kept, "key").take_up(toy, {}) == 0
        assert "k.checkpoint is not a regular file" in toy.notes[0]
        assert read(store.folder(put.job)) is None
        assert store.get(put.job) is None


# results


def edited(store, put, **changes):
    """Store a result, and change what its ``result.json`` says."""
    store.put(put)
    path = store.folder(put.job) / "result.json"
    data = json.loads(path.read_text())
    for name, value in changes.items():
        place = data["job"] if name in data["job"] else data
        place[name] = value
    path.write_text(json.dumps(data))
    return path


WRONG = [
    {"config": 5},
    {"seed": "0"},
    {"category": ["a"]},
    {"status": "fine"},
    {"metrics": {"auroc": "high"}},
    {"parameters": {"g": "7"}},
    {"parameters": {"g": -7}},
    {"shape": [3, 0, 0]},
    {"shape": [3, 32]},
    {"notes": "note"},
    {"threshold": "x"},
    {"files": {"../../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}},
    {"files": {"scores.parquet": {"bytes": "1", "sha256": "0" * 64}}},
    {"machine": 5},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_result_of_another_form_counts_as_absent_and_is_named(tmp_path, change):
    store = ResultStore(tmp_path)
    store.open()
    path = edited(store, result("d"), **change)
    assert store.get(result("d").job) is None
    told = []
    assert list(store.results(lambda where, why: told.append((where, why)))) == []
    assert told == [(path, "damaged; run its job again")]


def test_a_text_where_a_time_should_be_is_absent(tmp_path):
    store = ResultStore(tmp_path)
    store.open()
    edited(store, result("d"), timing={"fit_seconds": "=1+1", "latency_ms": [1, 2]})
    table = results_table(store.results())
    assert table["fit_seconds"].isna().all()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": ' + "9" * 5000 + "}", '{"a":' * 5000])
def test_a_deep_or_endless_result_is_damage(tmp_path, text):
    store = ResultStore(tmp_path)
    store.open()
    store.put(result("d"))
    (store.folder(result("d").job) / "result.json").write_text(text)
    assert store.get(result("d").job) is None
    store.put(result("d"))
    assert store.get(result("d").job) is not None


FRAMES = {
    "labels": pd.DataFrame({"sample_id": ["a"], "label": [2], "score": [0.5]}),
    "nan": pd.DataFrame({"sample_id": ["a"], "label": [1], "score": [np.nan]}),
    "no score": pd.DataFrame(
        {"sample_id": ["a", "b"], "label": [0, 1], "score": pd.array([0.5, None], "Float64")}
    ),
    "no id": pd.DataFrame({"sample_id": ["a", None], "label": [0, 1], "score": [0.5, 0.6]}),
    "no label": pd.DataFrame(
        {"sample_id": ["a", "b"], "label": pd.array([0, None], "Int64"), "score": [0.5, 0.6]}
    ),
    "infinite": pd.DataFrame({"sample_id": ["a"], "label": [1], "score": [np.inf]}),
    "texts": pd.DataFrame({"sample_id": ["a"], "label": [1], "score": ["high"]}),
    "columns": pd.DataFrame({"sample_id": ["a"], "score": [0.5]}),
    "empty": pd.DataFrame({"sample_id": ["a"][:0], "label": [1][:0], "score": [0.5][:0]}),
    "bomb": pd.DataFrame(
        {"sample_id": pd.Categorical.from_codes([0] * 1000, ["x" * 5_000_000]), "label": 1, "score": 0.5}
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_scores_of_another_form_are_refused(tmp_path, kind):
    store = ResultStore(tmp_path)
    store.open()
    put = replace(result("d"), scores=FRAMES[kind])
    store.put(put)
    with (
        memory_limited(2**31),
        pytest.raises(AdbenchError, match=r"scores\.parquet cannot be read .*run again"),
    ):
        read_scores(store.folder(put.job))


def test_the_texts_of_a_file_are_measured_together_and_as_they_are(tmp_path, monkeypatch):
    ids = ["x" * 500, *"a" * 999]
    frame = pd.DataFrame({"category": "c" * 100, "key": "k" * 100, "sample_id": ids, "score": 0.5})
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "x", store_schema=False)
    monkeypatch.setattr(stored, "TEXT_BYTES", 201_499)
    assert parquet_table(tmp_path / "x", list(frame), list(frame)[:3]).num_rows == 1000
    monkeypatch.setattr(stored, "TEXT_BYTES", 201_498)
    with pytest.raises(ValueError, match="texts that are too large"):
        parquet_table(tmp_path / "x", list(frame), list(frame)[:3])


# models


class Toy(Detector):
    def build(self, shape):
        self.net = torch.nn.Linear(3, 2)
        self.centre = torch.zeros(2)

    @property
    def networks(self):
        return {"net": self.net} if hasattr(self, "net") else {}

    def score(self, images):
        return images.float().mean((1, 2, 3))


SOUND = {
    "net.weight": torch.ones(2, 3),
    "net.bias": torch.ones(2),
    "centre": torch.ones(2),
    "learned": torch.ones(5),
}


def test_a_sound_state_is_loaded():
    toy = Toy().load_state(SOUND, (3, 4, 4))
    assert toy.state().keys() == SOUND.keys()
    assert toy.learned.tolist() == [1] * 5


@pytest.mark.parametrize(
    "name",
    [
        "score",
        "config",
        "seed",
        "device",
        "checkpoint",
        "networks",
        "Config",
        "__class__",
        "__dict__",
        "net",
        "a b",
        "",
        "if",
    ],
)
def test_a_tensor_takes_the_place_of_nothing_else(name):
    toy = Toy()
    with pytest.raises(AdbenchError, match=r"the saved model holds .*, which is no tensor of Toy"):
        toy.load_state(SOUND | {name: torch.ones(1)}, (3, 4, 4))
    assert callable(toy.score)


def test_a_saved_tensor_takes_the_place_of_a_none():
    class Waiting(Toy):
        basis = None

        def __init__(self):
            super().__init__()
            self.learned = None

    toy = Waiting().load_state(SOUND | {"basis": torch.ones(3)}, (3, 4, 4))
    assert (toy.learned.tolist(), toy.basis.tolist()) == ([1] * 5, [1] * 3)


@pytest.mark.parametrize("names", [("net.0", "net.1"), ("net.0", "net"), ("net", "net.10", "net.1")])
def test_names_of_networks_may_have_dots(names):
    class Several(Toy):
        def build(self, shape):
            self.nets = {name: torch.nn.Linear(3, 2) for name in names}
            self.centre = torch.zeros(2)

        @property
        def networks(self):
            return self.nets

    one = Several()
    one.build((3, 4, 4))
    state = one.state()
    again = Several().load_state(state, (3, 4, 4)).state()
    assert len(state) == 2 * len(names) + 1
    assert all(torch.equal(again.pop(name), tensor) for name, tensor in state.items())
    assert again == {}


def test_tensors_of_no_network_or_another_shape_are_refused():
    with pytest.raises(AdbenchError, match=r"holds 'other\.weight', which is no part of Toy"):
        Toy().load_state(SOUND | {"other.weight": torch.ones(1)}, (3, 4, 4))
    with pytest.raises(AdbenchError, match=r"'centre' is \(3,\), not \(2,\)"):
        Toy().load_state(SOUND | {"centre": torch.ones(3)}, (3, 4, 4))
    with pytest.raises(AdbenchError, match="does not fit network 'net'"):
        Toy().load_state(SOUND | {"net.weight": torch.ones(2, 4)}, (3, 4, 4))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_mvtec(tmp_path_factory.mktemp("data"))


@pytest.fixture
def saved(adbench, data, tmp_path):
    """A job's folder, its record, and an image."""
    words = ("--detectors", "ganomaly", "--preset", "quick", "--set", "ganomaly.epochs=1", "--no-timing")
    adbench("run", *words, "--data", "mvtec", "--data-root", data, "--save-models", "--out", tmp_path / "out")
    folder = next((tmp_path / "out").glob("mvtec/*/*/*"))
    return folder, json.loads((folder / "result.json").read_text()), data / "screw/test/good/000.png"


def test_a_hostile_job_folder_is_one_line_and_takes_no_gigabytes(adbench, saved):
    folder, record, image = saved
    assert adbench("predict", folder, image).status == 0

    def refused(**changes):
        """By someone who writes the key anew."""
        hostile = json.loads(json.dumps(record))
        for name, value in changes.items():
            (hostile if name in hostile else hostile["job"])[name] = value
        with suppress(TypeError):  # settings that are none have no key
            hostile["key"] = Job(**hostile["job"]).key
        (folder / "result.json").write_text(json.dumps(hostile))
        with in_time(60):
            error = adbench("predict", folder, image).error
        assert "mistake in adbench" not in error, error
        return error

    config = record["job"]["config"]
    size = config["image_size"]
    assert "is not that of image_size" in refused(shape=[3, 2**20, 2**20])
    assert "is not that of image_size" in refused(shape=[2**20, size, size])
    assert "out of memory" in refused(config=config | {"latent": 10**9})
    assert "cannot be built" in refused(config=config | {"latent": -1})
    assert "cannot be built" in refused(config=config | {"unheard": 1})
    assert "unknown detector" in refused(detector="../../x\x1b[2J")
    assert "holds no finished job" in refused(config=5)
    (folder / "result.json").write_text(json.dumps(record))
    path = folder / "model.safetensors"
    state = load_file(path)

    def refused_model(data):
        """By someone who writes the hash anew."""
        path.write_bytes(data)
        facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (folder / "result.json").write_text(
            json.dumps(record | {"files": record["files"] | {path.name: facts}})
        )
        return adbench("predict", folder, image).error

    assert "which is no tensor of GANomaly" in refused_model(serialized(state | {"score": torch.ones(1)}))
    nowhere = {
        name: tensor * torch.nan if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }
    assert "gives no scores" in refused_model(serialized(nowhere))
    assert "model.safetensors cannot be read" in refused_model(struct.pack("<Q", 2**40) + b"{}")
    path.unlink()
    os.mkfifo(path)
    with in_time(60):
        assert "not a regular file" in adbench("predict", folder, image).error


def test_a_limit_on_memory_is_lifted_again():
    with memory_limited(2**28), pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.empty(2**32)
    assert torch.empty(2**28, dtype=torch.uint8).numel() == 2**28


def test_a_sound_image_beside_hostile_ones_is_read(tmp_path):
    assert decode(save(tmp_path / "\x1b[2J.png", picture(0))).shape == (3, 16, 16)

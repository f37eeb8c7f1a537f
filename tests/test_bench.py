"""Measuring how fast detectors score, and the folder that keeps it."""

import csv
import json
import math
import os
import shutil
import signal
import sys
import weakref
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from make_runs import toy_job
from rich.console import Console
from test_hostile import in_time

from adbench_tgan import DetectorInfo, boards
from adbench_tgan import machine as machine_module
from adbench_tgan.boards.timings import _measured
from adbench_tgan.boards.verify import OTHER_BYTES
from adbench_tgan.cost import speed, speeds, timing_board
from adbench_tgan.cost.energy import meter_of
from adbench_tgan.data.images import ImageSet, TrainSet
from adbench_tgan.data.tasks import Tasks
from adbench_tgan.detector import Detector, DetectorConfig
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Request
from adbench_tgan.registry import Registry
from adbench_tgan.terminal.progress import TerminalReporter
from adbench_tgan.timing import Clock, PeakMemory, clocks, flops, latency, stopwatch

IMAGES = torch.arange(6 * 3 * 8 * 8).reshape(6, 3, 8, 8).to(torch.uint8)
EFFORT = ("--seconds", "0.05", "--max-batch", "4", "--device", "cpu")
FEW = ("--detectors", "pca,mean_image", *EFFORT)


class Net(Detector):
    """Scores with its network as built; notes what it is called with."""

    def __init__(self, *arguments, **words):
        super().__init__(*arguments, **words)
        self.sizes, self.fitted = [], 0

    def build(self, shape):
        self.net = torch.nn.Linear(math.prod(shape), 1)

    @property
    def networks(self):
        return {"net": self.net} if hasattr(self, "net") else {}

    def fit(self, train):
        self.build(train.shape)
        self.fitted = len(train.normal)
        return self

    def score(self, images):
        self.sizes.append(len(images))
        return self.net(images.flatten(1).float())[:, 0].detach()


class Keeper(Net):
    """Cannot score before it is fitted."""

    class Config(DetectorConfig):
        epochs: int = 9

    def score(self, images):
        if not self.fitted:
            raise AttributeError("bank")
        return super().score(images)


class Glutton(Net):
    """Runs out of memory at batch 4."""

    error = None

    def score(self, images):
        if len(images) >= 4:
            raise self.error
        return super().score(images)


class Tired(Net):
    """Scores nothing after its first images."""

    calls = 0

    def score(self, images):
        self.calls += 1
        return super().score(images) if self.calls < 3 else None


def prepared(detector, **effort):
    effort = speed.Effort(seconds=0.02, max_batch=8, **effort)
    return (*speed.prepare(detector, TrainSet(ImageSet(IMAGES)), IMAGES[:2], effort), effort)


def test_networks_are_measured_as_built_and_others_fitted():
    detector, weights, _ = prepared(Net())
    assert (weights, detector.fitted) == ("untrained", 0)
    assert not detector.net.training
    assert not detector.net.weight.requires_grad  # as after a fit: nothing is kept for its gradient
    keeper, weights, _ = prepared(Keeper(), fit_images=3)
    assert (weights, keeper.fitted) == ("fitted on 3 images", 3)
    assert keeper.config.epochs == 1
    assert prepared(Keeper())[1] == "fitted on 6 images"


def test_one_that_was_fitted_is_measured_alone(adbench, monkeypatch):
    prepare, measure = speeds.prepare, speeds.measure_speed
    built, beside = [], []

    def noting(detector, *others):
        built.append(weakref.ref(detector))
        return prepare(detector, *others)

    def counting(*arguments):
        beside.append(built[-1]())
        return measure(*arguments)

    monkeypatch.setattr(speeds, "prepare", noting)
    monkeypatch.setattr(speeds, "measure_speed", counting)
    assert adbench("bench", *FEW, "--json").status == 0
    assert beside == [None, None]


def test_one_detector_is_measured_in_full():
    detector, _, effort = prepared(Net())
    found = speed.measure_speed(detector, IMAGES, effort)
    assert found["samples"] >= 20
    assert 0 < found["latency_ms_p50"] <= found["latency_ms_p95"]
    assert found["parameters"] == 193
    assert found["flops_per_image"] == 2 * 192
    assert found["best_batch"] in (1, 2, 4, 8)
    assert [line["batch"] for line in found["batches"]] == [1, 2, 4, 8][: len(found["batches"])]
    assert found["images_per_second"] == max(line["images_per_second"] for line in found["batches"])
    assert found["joules_per_image"] is None  # the CPU has no meter


class Undefined(Net):
    """Has no finite score before it is fitted."""

    def score(self, images):
        return super().score(images) + (0 if self.fitted else torch.nan)


def test_one_whose_scores_are_no_numbers_as_built_is_fitted_on_evenly_spaced_images():
    assert prepared(Undefined(), fit_images=3)[1] == "fitted on 3 images"
    some = speed._some(ImageSet(IMAGES), 3).on("cpu")
    assert torch.equal(some, IMAGES[[0, 2, 5]])


def test_latency_is_the_devices_time_and_wall_the_wall_clocks(monkeypatch):
    monkeypatch.setattr(speed, "clocks", lambda *_: [Clock(0.5, gpu_seconds=0.25)] * 20)
    detector, _, effort = prepared(Net())
    found = speed.measure_speed(detector, IMAGES, effort)
    assert (found["latency_ms_p50"], found["wall_ms_p50"]) == (250.0, 500.0)
    assert found["batches"][0]["images_per_second"] == 4


def test_energy_is_of_images_that_were_not_scored_before(monkeypatch):
    monkeypatch.setattr(speed, "meter_of", lambda device: lambda: 1.0)
    seen = []
    detector = SimpleNamespace(device="cpu", score=lambda given: seen.append(given.numpy().tobytes()))
    monkeypatch.setattr(speed, "LEAST", 0)
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    speed.energy(detector, images, speed.Effort(seconds=0.02))
    assert len(set(seen)) == len(seen) > 1
    assert not images.any()


def test_energy_is_measured_at_the_best_batch(monkeypatch):
    asked = []
    monkeypatch.setattr(speed, "energy", lambda detector, images, effort: asked.append(len(images)) or {})
    lines = [{"batch": size, "images_per_second": rate} for size, rate in ((1, 5.0), (16, 9.0), (32, 8.0))]
    lines = [line | {"peak_memory_mb": 1.0} for line in lines]
    monkeypatch.setattr(speed, "throughput", lambda *_: lines)
    detector, _, effort = prepared(Net())
    assert speed.measure_speed(detector, IMAGES, effort)["best_batch"] == 16
    assert asked == [16]


def test_the_page_has_the_fastest_first_and_each_number_in_its_column():
    record = {"preset": "paper", "precision": "fp32", "error": "", "weights": "untrained", "max_batch": 8}
    record |= {"images_per_second": 1234.0, "best_batch": 4, "peak_memory_mb": 56.0, "joules_per_image": 0.5}
    record |= {"parameters": 7000, "flops_per_image": 2_500_000_000}
    times = {"slow": (30.0, 40.0, 50.0), "fast": (1.0, 2.0, None), "also": (10.0, 20.0, 25.0)}
    board = timing_board.Board(facts={"device": "cpu"}, machine="m")
    for name, given in times.items():
        own = dict(zip(("latency_ms_p50", "latency_ms_p95", "latency_ms_p99"), given, strict=True))
        board = timing_board.with_record(board, record | own | {"detector": name, "key": name})
    rows = [line for line in timing_board.readme(board).splitlines() if line.startswith("| `")]
    rest = "1,234 | 4 of 8 | 56 | 2.5 | 7,000 | 0.5 | untrained |"
    assert rows == [
        f"| `fast` | paper | 1.000 | 2.000 |  | {rest}",
        f"| `also` | paper | 10.000 | 20.000 | 25.000 | {rest}",
        f"| `slow` | paper | 30.000 | 40.000 | 50.000 | {rest}",
    ]


@pytest.mark.parametrize(("step", "remedy"), [(-1, "measure again"), (1, "upgrade to read it")])
def test_a_board_of_another_schema_is_not_read_as_one_of_this(step, remedy):
    schema = timing_board.SCHEMA + step
    content = {"schema": schema, "machine": "m", "facts": {}, "records": []}
    if step > 0:
        del content["records"]  # a newer one may be of any form
    with pytest.raises(ValueError, match=f"it has schema {schema}, .*: {remedy}"):
        timing_board.parse(json.dumps(content).encode())


def test_peak_memory_is_in_mebibytes(monkeypatch, tmp_path):
    status, clear = tmp_path / "status", tmp_path / "clear_refs"
    status.write_text("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n")
    monkeypatch.setattr("adbench_tgan.timing.STATUS", status)
    monkeypatch.setattr("adbench_tgan.timing.CLEAR", clear)
    assert (PeakMemory("cpu").megabytes(), clear.read_text()) == (2.0, "5")
    monkeypatch.setattr("adbench_tgan.timing.CLEAR", tmp_path / "no folder" / "clear_refs")
    assert PeakMemory("cpu").megabytes() is None  # it would be that of the process's whole life


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("too much"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_batch_that_does_not_fit_ends_the_search_only(error, monkeypatch):
    monkeypatch.setattr(Glutton, "error", error)
    detector, _, effort = prepared(Glutton())
    *good, last = speed.throughput(detector, IMAGES, effort)
    assert [line["batch"] for line in good] == [1, 2]
    assert (last["batch"], last["error"]) == (4, "out of memory")


def test_larger_batches_are_tried_until_two_in_a_row_gain_less_than_two_percent(monkeypatch):
    rates = {1: 100.0, 2: 101.9, 4: 200.0, 8: 203.9, 16: 203.9, 32: 1e9}

    def line(detector, images, effort):
        return {"batch": len(images), "images_per_second": rates[len(images)]}

    monkeypatch.setattr(speed, "one_batch", line)
    for most, tried in ((1024, [1, 2, 4, 8, 16]), (4, [1, 2, 4])):
        lines = speed.throughput(SimpleNamespace(device="cpu"), IMAGES, speed.Effort(max_batch=most))
        assert [each["batch"] for each in lines] == tried


def test_a_rate_is_that_of_the_median_call(monkeypatch):
    times = [Clock(seconds) for seconds in (0.5, 0.25, 8.0)]
    monkeypatch.setattr(speed, "clocks", lambda *_: times)
    detector = SimpleNamespace(device="cpu", score=None)
    assert speed.one_batch(detector, IMAGES, speed.Effort())["images_per_second"] == 6 / 0.5


def test_more_effort_is_another_measurement():
    keys = {speeds.key_of(toy_job("d"), effort) for effort in (speed.Effort(), speed.Effort(seconds=1.0))}
    assert len(keys) == 2


def test_a_machine_that_is_not_that_of_the_facts_is_named():
    facts = {"device": "an abacus"}
    for machine, told in ((timing_board.fingerprint(facts), []), ("0" * 16, ["machine"])):
        found = _measured(timing_board.Board(facts=facts, machine=machine))
        assert [where for _, where, _ in found] == told


@pytest.mark.parametrize(("budget", "warmup", "samples"), [(1e9, 5, 7), (0.0, 1, 3)])
def test_calls_are_timed_after_a_warm_up_and_as_many_as_fit_the_budget(budget, warmup, samples):
    calls = []
    found = clocks(calls.append, torch.zeros(1, 1, 4, 4), (3, 7), budget)
    assert (len(calls), len(found)) == (warmup + samples, samples)


def test_no_call_is_timed_on_images_of_an_earlier_one():
    seen, images = [], torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for _ in range(2):  # 300 calls: more than one byte tells apart
        clocks(lambda given: seen.append(given.numpy().tobytes()), images, (150, 150), 1e9)
    assert len(set(seen)) == len(seen) == 310
    assert not images.any()  # they are the caller's


def test_latencies_are_milliseconds_and_take_two_percent_of_the_job(monkeypatch):
    asked = []
    monkeypatch.setattr("adbench_tgan.timing.clocks", lambda *given: asked.append(given[2:]) or [Clock(0.25)])
    assert [latency(None, None, seconds) for seconds in (0.0, 10.0, 100.0)] == [[250.0]] * 3
    assert asked == [((5, 100), 0.05), ((5, 100), 0.2), ((5, 100), 1.0)]


def test_percentiles_need_their_samples():
    few = timing_board.percentiles("ms", [1.0] * 19)
    assert few == {"ms_p50": 1.0, "ms_p95": None, "ms_p99": None}
    assert timing_board.percentiles("ms", list(range(101)))["ms_p99"] == 99


def test_a_batch_larger_than_the_set_begins_it_again():
    assert speed.repeated(IMAGES, 8).shape[0] == 8
    assert torch.equal(speed.repeated(IMAGES, 8)[6], IMAGES[0])


def test_energy_is_what_the_counter_moves_by_while_images_are_scored(monkeypatch):
    detector, _, effort = prepared(Net())
    readings = iter([1000.0, 1030.0])
    monkeypatch.setattr(speed, "meter_of", lambda device: readings.__next__)
    assert speed.energy(detector, IMAGES, effort) == {"watts": None, "joules_per_image": None}  # too short
    monkeypatch.setattr(speed, "LEAST", effort.seconds)
    calls = []
    monkeypatch.setattr(detector, "score", calls.append)
    found = speed.energy(detector, IMAGES, effort)
    assert found["joules_per_image"] == 30 / (len(calls) * len(IMAGES))
    assert 0 < found["watts"] <= 30 / effort.seconds


def test_the_counter_is_nvmls_of_that_gpu_in_joules(monkeypatch):
    assert meter_of("cpu") is None
    asked = []
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid) or "handle",
        nvmlDeviceGetTotalEnergyConsumption={"handle": 2_500}.__getitem__,  # millijoules
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="ab-cd"))
    assert meter_of("cuda:1")() == 2.5
    assert asked == ["GPU-ab-cd"]
    del nvml.nvmlDeviceGetTotalEnergyConsumption
    assert meter_of("cuda:1") is None


def test_command_writes_a_board_and_resumes(adbench, tmp_path):
    first = adbench("bench", *FEW, "--out", "timing-cpu", "--json")
    assert first.status == 0
    data = json.loads(first.out)
    assert [record["detector"] for record in data["records"]] == ["mean_image", "pca"]
    assert data["facts"]["device"] == "cpu"
    with (tmp_path / "timing-cpu/timing.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == timing_board.COLUMNS
    assert {line["machine"] for line in lines} == {data["machine"]}
    assert float(lines[1]["latency_ms_p50"]) > 0
    assert lines[1]["watts"] == ""
    before = (tmp_path / "timing-cpu/timing.json").read_bytes()
    again = adbench("bench", *FEW, "--out", "timing-cpu")
    assert "2 of 2 jobs are finished already" in again.err
    assert (tmp_path / "timing-cpu/timing.json").read_bytes() == before
    assert "| `pca` | quick |" in (tmp_path / "timing-cpu/README.md").read_text()


def test_the_page_tells_precisions_and_efforts_apart(adbench, tmp_path):
    for words in ((), ("--precision", "bf16"), ("--max-batch", "1")):
        assert adbench("bench", *FEW, "--detectors", "mean_image", *words, "--out", "b").status == 0
    page = (tmp_path / "b/README.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `mean_image`")]
    assert sorted((row[1], row[6].partition(" of ")[2]) for row in rows) == [
        ("quick", "1"),
        ("quick", "4"),
        ("quick; precision=bf16", "4"),
    ]
    assert adbench("verify", "b").status == 0


def test_another_machines_times_are_refused(tmp_path):
    here = speeds.here("cpu")
    there = timing_board.Board(facts={**here.facts, "cpu": "another"}, machine="0123")
    timing_board.write_board(there, tmp_path)
    with pytest.raises(AdbenchError, match=r"another machine or other versions \(cpu\)"):
        speeds.read_board(tmp_path, here)
    named = json.dumps(
        {"schema": 2, "machine": here.machine, "facts": {}, "records": [{"key": [], "error": ""}]}
    )
    facts = '{"schema": 2, "machine": "x", "facts": [], "records": []}'
    for text in ("{", '{"a":' * 100_000, facts, named):
        (tmp_path / "timing.json").write_text(text)
        with pytest.raises(AdbenchError, match="cannot be read"):
            speeds.read_board(tmp_path, here)
    (tmp_path / "timing.json").unlink()
    os.mkfifo(tmp_path / "timing.json")
    with in_time(5), pytest.raises(AdbenchError, match="cannot be read"):
        speeds.read_board(tmp_path, here)


def test_failures_are_rows_and_tried_again(adbench, tmp_path, monkeypatch):
    words = (*FEW, "--set", "pca.image_size=4")  # of 16 values it keeps all
    ended = adbench("bench", *words, "--out", "board")
    assert ended.status == 1
    with (tmp_path / "board/timing.csv").open() as file:
        errors = {line["detector"]: line["error"] for line in csv.DictReader(file)}
    assert errors["mean_image"] == ""
    assert errors["pca"] != ""
    assert "`pca` failed" in (tmp_path / "board/README.md").read_text()
    attempt, tried = speeds.attempt, []
    monkeypatch.setattr(
        speeds, "attempt", lambda job, *rest: tried.append(job.detector) or attempt(job, *rest)
    )
    assert adbench("bench", *words, "--out", "board").status == 1
    assert tried == ["pca"]


class Scribbles(Keeper):
    def fit(self, train):
        train.normal.on("cpu").add_(1)
        super().fit(train)
        torch.set_default_dtype(torch.float64)
        return self


class GoesOnAfterCtrlC(Keeper):
    def fit(self, train):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return super().fit(train)


def benched(*detectors, **asked):
    """The records of a bench that takes no time."""
    registry = Registry.discover()
    for toy in (Scribbles, GoesOnAfterCtrlC):
        info = DetectorInfo(name=toy.__name__.lower(), target=f"{__name__}:{toy.__name__}")
        registry._offers["detector"].append((info, "tests"))
    request = Request(detectors=detectors, categories=["0"], **asked)
    effort = speed.Effort(seconds=0.02, max_batch=1)
    reporter = TerminalReporter(Console(stderr=True))
    return speeds.run_bench(request, effort, "cpu", registry, reporter, None)[1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_detector_is_measured_in_the_precision_asked_for(precision, monkeypatch):
    measure, rounded = speeds.measure_speed, []

    def noting(*arguments):
        rounded.append(torch.is_autocast_enabled("cpu"))
        return measure(*arguments)

    monkeypatch.setattr(speeds, "measure_speed", noting)
    (record,) = benched("pca", precision=precision)
    assert (record["precision"], rounded) == (precision, [precision == "bf16"])


def test_ctrl_c_leaves_no_row_of_the_fit_that_it_cut_short(ctrl_c):
    with pytest.raises(KeyboardInterrupt):
        benched("goesonafterctrlc")


def test_a_detector_that_writes_to_its_images_is_a_row_with_an_error_and_the_next_has_its_own():
    try:
        records = benched("scribbles", "pca")
        assert torch.get_default_dtype() == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    errors = {record["detector"]: record["error"] for record in records}
    message = "it wrote to its training images; let it work on a copy, images.on(device).clone()"
    assert errors == {"scribbles": message, "pca": ""}


def test_images_that_changed_since_they_were_planned_are_a_row_with_an_error(monkeypatch):
    split = Tasks.split
    monkeypatch.setattr(Tasks, "split", lambda *a, **words: replace(split(*a, **words), fingerprint="other"))
    (record,) = benched("pca")
    assert record["error"] == "the images of '0' changed since the job was planned; run again"
    assert record["code"]["framework"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of boards that holds a timing board with two rows and one that failed."""
    detector, weights, effort = prepared(Net())
    record = speed.measure_speed(detector, IMAGES, effort) | {
        "preset": "paper",
        "precision": "fp32",
        "detector_version": "1",
        "pretrained": "False",
        "image_size": 8,
        "channels": 3,
        "weights": weights,
        "device": "cpu",
        "adbench_version": "0",
        "error": "",
    }
    board = speeds.here("cpu")
    for number, name in enumerate(("net", "other", "lost")):
        facts = {"detector": name, "key": f"{number:016x}", "machine": board.machine}
        facts |= {"effort": asdict(effort), "max_batch": effort.max_batch}
        failed = {"preset": "paper", "precision": "fp32", "error": "no luck"}
        board = timing_board.with_record(board, (failed if name == "lost" else record) | facts)
    place = tmp_path_factory.mktemp("boards")
    (place / "timing-cpu").mkdir()
    timing_board.write_board(board, place / "timing-cpu")
    return place


@pytest.fixture
def timing(made, tmp_path):
    """A copy of the timing board to spoil."""
    return Path(shutil.copytree(made / "timing-cpu", tmp_path / "timing-cpu"))


def test_a_timing_board_is_verified_alone_and_among_others(made, adbench):
    for place in (made, made / "timing-cpu"):
        ended = adbench("verify", place)
        assert (ended.status, ended.out) == (0, f"{made / 'timing-cpu'}: every cell matches\n")


def digit(text):
    """The last digit another one."""
    return text[:-1] + str((int(text[-1]) + 1) % 10)


def test_a_digit_of_the_table_is_named(timing, adbench):
    lines = (timing / "timing.csv").read_text().splitlines(keepends=True)
    value = lines[2].split(",")[timing_board.COLUMNS.index("latency_ms_p50")]
    (timing / "timing.csv").write_text(
        "".join([*lines[:2], lines[2].replace(value, digit(value), 1), *lines[3:]])
    )
    ended = adbench("verify", timing.parent)
    assert ended.status == 1
    told = f"net paper fp32 {0:016x}, latency_ms_p50: is '{digit(value)}', recomputed '{value}'"
    assert ended.out.splitlines()[0] == f"timing-cpu/timing.csv: {told}"
    assert ended.out.splitlines()[1].endswith("1 finding")


def edit(timing, change):
    """Change ``timing.json`` as its author would, who has table and page follow."""
    board = timing_board.parse((timing / "timing.json").read_bytes())
    change(next(record for record in board.records if record["detector"] == "net"))
    timing_board.write_board(board, timing)


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("latency_ms_p50", lambda record: record.update(latency_ms_p50=record["latency_ms_p50"] / 2)),
        ("wall_ms_p95", lambda record: record.update(wall_ms_p95=None)),
        ("samples", lambda record: record["latency_samples_ms"].append(record["latency_ms_p50"])),
        ("images_per_second", lambda record: record.update(images_per_second=1e9)),
        ("machine", lambda record: record.update(machine="0" * 16)),
        ("max_batch", lambda record: record.update(max_batch=512)),
    ],
)
def test_a_number_that_does_not_follow_from_the_samples_is_named(column, change, timing):
    edit(timing, change)
    found = {(each.file, each.where.rpartition(" ")[2]) for each in boards.verify_timing(timing)}
    assert ("timing.json", column) in found
    assert {file for file, _ in found} == {"timing.json"}


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["latency_samples_ms"].append(record["latency_samples_ms"].pop() + 1e-9),
        lambda record: record["effort"].update(seconds=99),
        lambda record: record["batches"][0].update(peak_memory_mb=1.5),
        lambda record: record.update(code={"framework": "0" * 64}),
        lambda record: record.update(seal="0" * 16),
        lambda record: record.pop("seal"),
        lambda record: record.pop("latency_ms_p50"),
    ],
    ids=["sample", "effort", "batch", "code", "seal", "no seal", "no field"],
)
def test_whatever_was_changed_in_a_record_is_named_by_its_row(change, timing):
    content = json.loads((timing / "timing.json").read_text())
    record = next(each for each in content["records"] if each["detector"] == "net")
    change(record)
    (timing / "timing.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    first, *others = boards.verify_timing(timing)
    assert (first.file, first.where) == ("timing.json", f"net paper fp32 {0:016x}")
    assert first.problem == "was changed: its seal does not match"
    assert OTHER_BYTES not in [each.problem for each in others]


def test_times_that_were_edited_are_not_vouched_for_when_their_board_is_written_again(timing):
    content = json.loads((timing / "timing.json").read_text())
    content["records"][0]["effort"]["seconds"] = 99
    again = timing_board.files_of(timing_board.parse(json.dumps(content).encode()))
    (timing / "timing.json").write_text(again["timing.json"])
    assert [each.problem for each in boards.verify_timing(timing)] == ["was changed: its seal does not match"]


def test_numbers_follow_from_their_own_samples():
    fields = ("batch", "images_per_second", "peak_memory_mb")
    record = {
        "batches": [dict(zip(fields, line, strict=True)) for line in ((1, 5.0, 10.0), (8, 9.0, 80.0))],
        "latency_samples_ms": [1.0, 2.0, 4.0] * 40,
        "wall_samples_ms": [10.0, 20.0, 40.0] * 40,
    }
    found = timing_board.derived(record)
    assert (found["latency_ms_p50"], found["wall_ms_p50"], found["samples"]) == (2.0, 20.0, 120)
    assert (found["best_batch"], found["images_per_second"], found["peak_memory_mb"]) == (8, 9.0, 80.0)


def add_a_space(path):
    path.write_text(path.read_text() + " ")


def test_facts_of_another_machine_are_named(timing):
    board = timing_board.parse((timing / "timing.json").read_bytes())
    timing_board.write_board(replace(board, facts={**board.facts, "cpu": "a faster one"}), timing)
    (found,) = boards.verify_timing(timing)
    assert (found.file, found.where) == ("timing.json", "machine")


@pytest.mark.parametrize(
    ("harm", "file", "said"),
    [
        (lambda path: (path / "timing.csv").unlink(), "timing.csv", "is missing"),
        (lambda path: (path / "README.md").write_text("# Fast"), "README.md", "does not match the tables"),
        (lambda path: (path / "timing.json").unlink(), "timing.json", "cannot be read"),
        (lambda path: add_a_space(path / "timing.json"), "timing.json", "its bytes are not those that"),
        (lambda path: (path / "timing.json").write_text("{}"), "timing.json", "cannot be understood"),
        (lambda path: (path / "timing.json").write_text("[" * 9999), "timing.json", "cannot be understood"),
    ],
)
def test_a_file_that_was_changed_is_named(harm, file, said, timing, adbench):
    harm(timing)
    (found,) = boards.verify_timing(timing)
    assert (found.file, said in found.problem) == (file, True)
    assert adbench("verify", timing).status == 1


def test_what_another_command_measured_meanwhile_stays(adbench, monkeypatch, tmp_path):
    out, measured = tmp_path / "times", speeds.attempt

    def attempt(job, *others):
        if job.detector == "mean_image":
            assert adbench("bench", "--detectors", "random", *EFFORT, "--out", out).status == 0
        return measured(job, *others)

    monkeypatch.setattr(speeds, "attempt", attempt)
    assert adbench("bench", "--detectors", "mean_image", *EFFORT, "--out", out).status == 0
    rows = csv.DictReader((out / "timing.csv").open())
    assert sorted(row["detector"] for row in rows) == ["mean_image", "random"]


def test_what_scores_nothing_is_not_timed():
    detector, _, effort = prepared(Tired())
    with pytest.raises(AdbenchError, match="score returned NoneType"):
        speed.measure_speed(detector, IMAGES, effort)


@torch.no_grad()
def test_products_that_the_counter_of_torch_passes_over_are_counted():
    bank = torch.randn(50, 16)
    for mode in ("use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"):
        distances = lambda few, mode=mode: torch.cdist(few, bank, compute_mode=mode)  # noqa: E731
        assert flops(distances, torch.randn(3, 16)) == 2 * 3 * 50 * 16
    assert flops(lambda few: few @ bank[0], torch.randn(3, 16)) == 2 * 3 * 16
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    assert flops(layer, torch.randn(1, 5, 16)) == 2 * 5 * (4 * 16 * 16 + 2 * 5 * 16 + 2 * 16 * 32)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_gpu_is_waited_for_at_both_ends_and_its_milliseconds_are_seconds(monkeypatch):
    did = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            did.append("record")

        def elapsed_time(self, end):
            return 1500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: did.append("wait"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    with stopwatch("cuda") as clock:
        did.append("work")
    assert did == ["wait", "record", "work", "record", "wait"]
    assert clock.gpu_seconds == clock.device_seconds == 1.5
    assert clock.seconds < 1


def test_a_gpus_peak_is_counted_anew(monkeypatch):
    peaks = {"cuda:1": 900 * 2**20}
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.update({str(device): 0}))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[str(device)])
    memory = PeakMemory("cuda:1")
    assert memory.megabytes() == 0
    peaks["cuda:1"] = 3 * 2**20
    assert memory.megabytes() == 3


def test_a_jobs_latency_is_the_devices_time(monkeypatch):
    times = [Clock(seconds=9.0, gpu_seconds=0.25), Clock(seconds=0.5)]
    monkeypatch.setattr("adbench_tgan.timing.clocks", lambda *_: times)
    assert latency(None, None, 1.0) == [250.0, 500.0]


def test_memory_is_counted_just_while_the_same_batch_is_scored(monkeypatch):
    did = []

    class Counts:
        def __init__(self, device):
            did.append("begin")

        def megabytes(self):
            did.append("peak")
            return 1.0

    monkeypatch.setattr(speed, "PeakMemory", Counts)
    monkeypatch.setattr(
        speed, "clocks", lambda score, images, *_: did.append(len(images)) or [Clock(0.1)] * 5
    )
    speed.measure_speed(prepared(Net())[0], IMAGES, speed.Effort(seconds=0.02, max_batch=2))
    assert did == ["begin", 1, "peak", "begin", 1, "peak", "begin", 2, "peak"]


@pytest.mark.parametrize(("percentile", "needed"), [(50, 5), (95, 20), (99, 100)])
def test_a_percentile_needs_so_many_samples(percentile, needed):
    for count in (needed - 1, needed):
        found = timing_board.percentiles("ms", [1.0] * count)[f"ms_p{percentile}"]
        assert found == (1.0 if count == needed else None)


def test_memory_and_rate_are_those_of_the_best_batch():
    rates = {1: 5.0, 16: 9.0, 32: 8.0}
    lines = [{"batch": n, "images_per_second": rate, "peak_memory_mb": float(n)} for n, rate in rates.items()]
    found = timing_board.derived({"batches": lines, "latency_samples_ms": [1.0], "wall_samples_ms": [1.0]})
    assert (found["best_batch"], found["images_per_second"], found["peak_memory_mb"]) == (16, 9.0, 16.0)


@pytest.mark.parametrize(
    ("told", "quota", "cores"),
    [
        ({}, None, 8),
        ({"cpu.max": "150000 100000"}, 1.5, 2),
        ({"cpu.max": "max 100000"}, None, 8),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, 8),
        ({"cpu.max": "6400000 100000"}, 64, 8),
        ({"cpu.max": ""}, None, 8),
    ],
)
def test_a_container_s_limit_of_cpu_time_is_recorded_and_bounds_the_workers(
    told, quota, cores, tmp_path, monkeypatch
):
    (tmp_path / "cpu").mkdir()
    for name, text in told.items():
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(
        machine_module,
        "QUOTA",
        [tmp_path / path.relative_to(machine_module.CONTROL) for path in machine_module.QUOTA],
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine_module.machine("cpu").get("cpu_quota") == quota
    assert machine_module.cores() == cores

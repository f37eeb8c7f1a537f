"""Measuring how fast detectors score, and the folder that keeps it."""

import csv
import json
import math

import pytest
import torch

from adbench_tgan import speed, speeds, timing
from adbench_tgan.data.images import ImageSet, TrainSet
from adbench_tgan.detector import Detector, DetectorConfig
from adbench_tgan.energy import PowerMeter
from adbench_tgan.errors import AdbenchError

IMAGES = torch.arange(6 * 3 * 8 * 8).reshape(6, 3, 8, 8).to(torch.uint8)
FEW = ("--detectors", "pca,mean_image", "--seconds", "0.05", "--max-batch", "4", "--device", "cpu")


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

    def score(self, images):
        if len(images) >= 4:
            raise torch.OutOfMemoryError("too much")
        return super().score(images)


def prepared(detector, **effort):
    effort = speed.Effort(seconds=0.02, max_batch=8, **effort)
    return (*speed.prepare(detector, TrainSet(ImageSet(IMAGES)), IMAGES[:2], effort), effort)


def test_networks_are_measured_as_built_and_others_fitted():
    detector, weights, _ = prepared(Net())
    assert (weights, detector.fitted) == ("untrained", 0)
    assert not detector.net.training
    keeper, weights, _ = prepared(Keeper(), fit_images=3)
    assert (weights, keeper.fitted) == ("fitted on 3 images", 3)
    assert keeper.config.epochs == 1
    assert prepared(Keeper())[1] == "fitted on 6 images"


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


def test_a_batch_that_does_not_fit_ends_the_search_only():
    detector, _, effort = prepared(Glutton())
    *good, last = speed.throughput(detector, IMAGES, effort)
    assert [line["batch"] for line in good] == [1, 2]
    assert (last["batch"], last["error"]) == (4, "out of memory")


def test_percentiles_need_their_samples():
    few = timing.percentiles("ms", [1.0] * 19)
    assert few == {"ms_p50": 1.0, "ms_p95": None, "ms_p99": None}
    assert timing.percentiles("ms", list(range(101)))["ms_p99"] == 99


def test_a_batch_larger_than_the_set_begins_it_again():
    assert speed.repeated(IMAGES, 8).shape[0] == 8
    assert torch.equal(speed.repeated(IMAGES, 8)[6], IMAGES[0])


def test_power_needs_sixty_samples():
    meter = PowerMeter("cpu")
    assert not meter.works
    meter.watts = [100.0] * 59
    assert meter.mean() is None
    meter.watts.append(160.0)
    assert meter.mean() == 101


def test_command_writes_a_board_and_resumes(adbench, tmp_path):
    first = adbench("bench", *FEW, "--out", "timing-cpu", "--json")
    assert first.status == 0
    data = json.loads(first.out)
    assert [record["detector"] for record in data["records"]] == ["mean_image", "pca"]
    with (tmp_path / "timing-cpu/timing.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == speeds.COLUMNS
    assert {line["machine"] for line in lines} == {data["machine"]}
    assert float(lines[1]["latency_ms_p50"]) > 0
    assert lines[1]["watts"] == ""
    before = (tmp_path / "timing-cpu/timing.json").read_bytes()
    again = adbench("bench", *FEW, "--out", "timing-cpu")
    assert "2 of 2 jobs are finished already" in again.err
    assert (tmp_path / "timing-cpu/timing.json").read_bytes() == before
    assert "| `pca` | quick |" in (tmp_path / "timing-cpu/README.md").read_text()


def test_another_machines_times_are_refused(tmp_path):
    here = speeds.here("cpu")
    there = speeds.Board(facts={**here.facts, "cpu": "another"}, machine="0123")
    speeds.write_board(there, tmp_path)
    with pytest.raises(AdbenchError, match=r"another machine or other versions \(cpu\)"):
        speeds.read_board(tmp_path, here)
    (tmp_path / "timing.json").write_text("{")
    with pytest.raises(AdbenchError, match="cannot be read"):
        speeds.read_board(tmp_path, here)


def test_failures_are_rows(adbench, tmp_path):
    words = ("--detectors", "ganomaly,pca", "--set", "ganomaly.image_size=33", *FEW[2:])
    ended = adbench("bench", *words, "--out", "board")
    assert ended.status == 1
    with (tmp_path / "board/timing.csv").open() as file:
        errors = {line["detector"]: line["error"] for line in csv.DictReader(file)}
    assert errors["pca"] == ""
    assert errors["ganomaly"] != ""
    assert "`ganomaly` failed" in (tmp_path / "board/README.md").read_text()

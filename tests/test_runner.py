"""The runner: what detectors see, seeding, scoring, measuring, and every fault as one failed row."""

import asyncio
import csv
import faulthandler
import io
import json
import math
import os
import platform
import re
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from make_data import make_mvtec
from make_plugin import make_plugin
from make_runs import toy_job
from test_hostile import in_time

from adbench_tgan import (
    Detector,
    DetectorConfig,
    DetectorInfo,
    __version__,
    executors,
    interrupts,
    mean_losses,
    runner,
    scoring,
    timing,
)
from adbench_tgan.benchmark import benchmark, ensure_offered, usable
from adbench_tgan.codebase import code_behind
from adbench_tgan.data.images import ImageSet
from adbench_tgan.data.tasks import Tasks
from adbench_tgan.errors import AdbenchError, NotHere
from adbench_tgan.failures import failed
from adbench_tgan.interrupts import KINDS, as_ctrl_c, handlers_kept, not_swallowed
from adbench_tgan.jobs import Request
from adbench_tgan.machine import bf16_is_slow, machine
from adbench_tgan.registry import Registry
from adbench_tgan.results import PARTIAL, ResultStore
from adbench_tgan.runner import Settings
from adbench_tgan.store.stored import read_scores
from adbench_tgan.testing import SUITE
from adbench_tgan.timing import CLEAR, Clock
from adbench_tgan.torch_settings import (
    precision,
    process_to_itself,
    rounding_levels,
    settings_kept,
    settings_now,
)


class Silent:
    """A reporter that remembers what it was told."""

    def __init__(self):
        self.heard = []
        self.read = []

    def reading(self, category, number, count):
        self.read.append((category, number, count))

    def planned(self, missing, kept):
        self.heard.append(("planned", len(missing), kept))

    def job_started(self, job):
        self.heard.append(("started", str(job)))

    def phase(self, name, job):
        self.heard.append(("phase", name))

    def epoch(self, number, total, losses, job):
        self.heard.append(("epoch", number, total, dict(losses)))

    def images(self, done, total, job):
        self.heard.append(("images", done, total))

    def job_finished(self, result):
        self.heard.append(("finished", result.status))

    def warn(self, message):
        self.heard.append(("warn", message))


class Plain(Detector):
    """Distance to the mean training image."""

    def fit(self, train):
        self.mean = train.normal.on("cpu").float().mean(0)
        return self

    def score(self, images):
        return (images.float() - self.mean).square().mean((1, 2, 3))


class Curious(Plain):
    """Writes down what it was shown."""

    seen: list = []

    def __init__(self, config=None, *, device="cpu", seed=0):
        super().__init__(config, device=device, seed=seed)
        self.seen.append({"seed": seed, "drawn": torch.rand(1).item()})

    def fit(self, train):
        self.seen[-1] |= {"normal": len(train.normal), "anomalies": train.anomalies, "shape": train.shape}
        return super().fit(train)


class Taught(Curious):
    class Config(DetectorConfig):
        labels: bool = True

        @property
        def takes_anomalies(self):
            return self.labels


class InEpochs(Plain):
    class Config(DetectorConfig):
        epochs: int = 2

    def epochs(self, train):
        for number in range(self.config.epochs):
            super().fit(train)
            yield mean_losses([{"loss": torch.tensor(2.0 - number)}, {"loss": torch.tensor(0.0)}])

    fit = Detector.fit


class WithoutGraph(Plain):
    def fit(self, train):
        self.notes.append("no CUDA graph, steps run one kernel at a time: out of streams")
        return super().fit(train)

    def score(self, images):
        self.in_graphs.append(self.graphs)
        return super().score(images)

    in_graphs: list = []


class Drawing:
    networks = {"net": torch.nn.Identity()}


class DrawsItself(Drawing, Plain):
    def reconstruct(self, images):
        return images


class DrawsGrey(Drawing, Plain):
    def reconstruct(self, images):
        return images.fill_(128)  # theirs to write to


class DrawsNever(Drawing, Plain):
    def reconstruct(self, images):
        raise RuntimeError("out of ink")


class DrawsTooLittle(Drawing, Plain):
    def reconstruct(self, images):
        return images[:1]


class DrawsWithoutANetwork(Plain):
    reconstruct = DrawsGrey.reconstruct


class NaNLoss(InEpochs):
    def epochs(self, train):
        yield {"loss_g": 1.0}
        yield {"loss_g": math.nan}


class RaisesInFit(Plain):
    def fit(self, train):
        raise ValueError("two\nlines")


class RaisesInScore(Plain):
    def score(self, images):
        raise RuntimeError("no score")


class Exits(Plain):
    def fit(self, train):
        raise SystemExit(3)


class Cancelled(Plain):
    def fit(self, train):
        raise asyncio.CancelledError("a task of its own")


class Closes(Plain):
    def fit(self, train):
        raise GeneratorExit


class Speechless(Plain):
    def fit(self, train):
        class Unsaid(Exception):
            def __str__(self):
                raise RuntimeError

        raise Unsaid


class Textless(Plain):
    def fit(self, train):
        class Unsaid(Exception):
            def __str__(self):
                return None

        raise Unsaid


class CountsEpochs(InEpochs):
    def epochs(self, train):
        yield {"epoch": 1.0, "loss": 2.0}


class NotesPaths(Plain):
    def fit(self, train):
        self.notes.append(Path("weights"))
        return super().fit(train)


class NotesNumbers(Plain):
    def fit(self, train):
        self.notes.append(3)
        return super().fit(train)


class NotesText(Plain):
    def fit(self, train):
        self.notes = "abc"
        return super().fit(train)


class NotesHalfCharacters(Plain):
    def fit(self, train):
        self.notes.append("from bad \udcff name")
        return super().fit(train)


class CountsBelowZero(Plain):
    def parameter_counts(self):
        return {"net": -3}


class CountsHalves(Plain):
    def parameter_counts(self):
        return {"net": 1.5}


class CountsInNumPy(Plain):
    def parameter_counts(self):
        return {"net": np.int64(3)}


class StateOfAnything(Plain):
    def state(self):
        return {"mean": "about a half"}


class GoesOnAfterCtrlC(Plain):
    """As trainers do that call what they have finished."""

    def fit(self, train):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return super().fit(train)


class ReusesItsMemory(Plain):
    def fit(self, train):
        self.scores = torch.zeros(1000)
        return super().fit(train)

    def score(self, images):
        self.scores[: len(images)] = super().score(images)
        return self.scores[: len(images)]


class OutOfMemory(Plain):
    def fit(self, train):
        raise MemoryError


class OutOfGpuMemory(Plain):
    def fit(self, train):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class AllocatesTooMuch(Plain):
    def fit(self, train):
        torch.empty(2**50, dtype=torch.uint8)


class NaNScores(Plain):
    def score(self, images):
        return super().score(images) * math.nan


class WrongShape(Plain):
    def score(self, images):
        return super().score(images)[:, None]


class RelativeToBatch(Plain):
    def score(self, images):
        scores = super().score(images)
        return scores - scores.mean()


class BehindAConstant(RelativeToBatch):
    """Depends on its batch as much as its parent; the largest score does not tell."""

    def score(self, images):
        return super().score(images) + 1e6


class NaNAlone(Plain):
    def score(self, images):
        return super().score(images) / (len(images) > 1) - (math.nan if len(images) == 1 else 0)


class SilentOnTraining(Plain):
    """Minus infinity for images that it was trained on."""

    def fit(self, train):
        self.known = {image.numpy().tobytes() for image in train.normal.on("cpu")}
        return super().fit(train)

    def score(self, images):
        known = torch.tensor([image.numpy().tobytes() in self.known for image in images])
        return super().score(images).masked_fill(known, -math.inf)


class Scribbles(Plain):
    def fit(self, train):
        train.normal.on("cpu").add_(1)
        return super().fit(train)


class TurnsGradientsOff(Plain):
    def fit(self, train):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        return super().fit(train)


class TurnsTheDevice(Plain):
    def fit(self, train):
        super().fit(train)
        torch.set_default_device("meta")
        return self


class HooksEveryModule(Plain):
    def fit(self, train):
        torch.nn.modules.module.register_module_forward_hook(lambda module, taken, given: given * 0)
        return super().fit(train)


class WalksAway(Plain):
    def fit(self, train):
        elsewhere = Path("elsewhere")
        elsewhere.mkdir(exist_ok=True)
        os.chdir(elsewhere)
        return super().fit(train)


class AsNumPy(Plain):
    def score(self, images):
        return super().score(images).numpy()


class AnyConfig(Plain):
    class Config:
        pass


class Unweighted(Plain):
    @classmethod
    def plan(cls, config):
        raise NotHere("unweighted: no weights here; fetch them")


class NotADetector:
    pass


@pytest.fixture
def registry():
    registry = Registry.discover()
    more = (*Curious.__subclasses__(), *InEpochs.__subclasses__(), BehindAConstant, Plain, NotADetector)
    for toy in (*Plain.__subclasses__(), *more):
        info = DetectorInfo(
            name=toy.__name__.lower(),
            target=f"{__name__}:{toy.__name__}",
            supervision="labelled" if toy is Taught else "one-class",
        )
        registry._offers["detector"].append((info, "tests"))
    return registry


def run(registry, out, *detectors, reporter=None, settings=None, **request):
    request = {"categories": ["0"]} | request
    request = Request(detectors=detectors, **request)
    return benchmark(request, settings or Settings(), registry, reporter or Silent(), out)


def test_a_detector_sees_training_images_and_its_seed_only(registry, tmp_path):
    Curious.seen.clear()
    run(registry, tmp_path, "curious", seeds=[5])
    assert Curious.seen == [
        {"seed": 5, "drawn": torch.rand(1, generator=torch.Generator().manual_seed(5)).item()}
        | {"normal": 119, "anomalies": None, "shape": (1, 32, 32)}
    ]


def test_labelled_anomalies_reach_labelled_detectors_only_and_are_in_their_key(registry, tmp_path):
    Curious.seen.clear()
    outcome = run(registry, tmp_path, "taught", "curious")
    assert len(Curious.seen[0]["anomalies"]) == 9 * (119 // 9)
    assert Curious.seen[1]["anomalies"] is None
    taught, curious = (result.job for result in outcome.results)
    assert (taught.supervision, curious.supervision) == ("labelled", "one-class")
    assert taught.offer_fingerprint
    assert not curious.offer_fingerprint
    assert [len(result.anomalies_fingerprint) for result in outcome.results] == [64, 0]
    assert taught.split_fingerprint == curious.split_fingerprint


def test_a_labelled_detector_without_labels_on_offer_is_one_class_and_said_to_be(registry, tmp_path):
    reporter = Silent()
    outcome = run(registry, tmp_path, "taught", reporter=reporter, protocol="leave-one-out")
    assert outcome.results[0].job.supervision == "one-class"
    note = "taught: leave-one-out offers no labelled anomalies; it gets normal images only"
    assert ("warn", note) in reporter.heard


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        (["plain.image_size=16"], "plain at 16 x 16, curious at 32 x 32"),
        (["plain.image_size=48"], "curious at 32 x 32"),
        (["plain.image_size=48", "curious.image_size=64"], None),
    ],
)
def test_images_that_detectors_see_smaller_than_they_are_are_said_to_be(registry, tmp_path, settings, seen):
    root, reporter = make_mvtec(tmp_path / "data", ["bottle", "screw"], size=48), Silent()
    (root / "bottle/train/good/000.png").write_bytes(b"")  # the size is that of a category that can be read
    request = {"dataset": "mvtec", "data_root": root, "categories": [], "overrides": settings}
    run(registry, tmp_path / "runs", "plain", "curious", reporter=reporter, **request)
    notes = [heard[1] for heard in reporter.heard if heard[0] == "warn" and "image_size" in str(heard[1])]
    remedy = "--set DETECTOR.image_size=N changes that"
    assert notes == ([f"images of 48 x 48 pixels are seen by {seen}; {remedy}"] if seen else [])


def test_settings_that_leave_labelled_anomalies_out_make_a_one_class_row(registry, tmp_path):
    Curious.seen.clear()
    reporter = Silent()
    outcome = run(registry, tmp_path, "taught", reporter=reporter, overrides=["taught.labels=false"])
    job = outcome.results[0].job
    assert (job.supervision, job.offer_fingerprint) == ("one-class", "")
    assert Curious.seen[0]["anomalies"] is None
    assert not any("labelled" in str(heard[1]) for heard in reporter.heard)


def test_what_a_detector_lacks_here_costs_its_own_rows(registry, tmp_path):
    outcome = run(registry, tmp_path, "unweighted", "plain")
    assert [result.status for result in outcome.results] == ["failed", "ok"]
    assert outcome.failed[0].error == "unweighted: no weights here; fetch them"


def test_scores_labels_and_metrics_of_a_detector_that_can_be_worked_out(registry, tmp_path):
    from sklearn.datasets import load_digits
    from sklearn.metrics import roc_auc_score

    outcome = run(registry, tmp_path, "plain", overrides=["plain.image_size=8"])
    table = read_scores(ResultStore(tmp_path).folder(outcome.results[0].job))
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16)
    test = np.zeros(len(digits.target), dtype=bool)
    for digit in range(10):
        test[np.flatnonzero(digits.target == digit)[2::3]] = True
    mean = pixels[~test & (digits.target == 0)].mean(0)
    expected = ((pixels[test] - mean) ** 2).mean((1, 2))
    np.testing.assert_allclose(table["score"], expected, rtol=1e-5)
    assert list(table["label"]) == list((digits.target[test] != 0).astype(int))
    assert outcome.results[0].metrics["auroc"] == pytest.approx(
        roc_auc_score(digits.target[test] != 0, expected), abs=1e-9
    )
    threshold = np.quantile(((pixels[~test & (digits.target == 0)] - mean) ** 2).mean((1, 2)), 0.95)
    assert outcome.results[0].threshold == pytest.approx(threshold, rel=1e-5)


def test_scores_in_memory_that_is_used_again_are_those_of_their_images(registry, tmp_path):
    plain, reusing = run(registry, tmp_path, "plain", "reusesitsmemory").results
    store = ResultStore(tmp_path)
    pd.testing.assert_frame_equal(store.scores(plain.job), store.scores(reusing.job), check_exact=True)
    assert reusing.purity_delta < 1e-6


def test_purity_is_probed_in_an_order_that_is_never_the_test_set_s(monkeypatch):
    orders = []
    monkeypatch.setattr(
        scoring, "score_all", lambda detector, images, device: orders.append(images) or np.zeros(len(images))
    )
    sizes = range(2, 70)
    for size in sizes:
        images = ImageSet(torch.arange(size, dtype=torch.uint8)[:, None, None, None])
        scoring.purity(None, images, np.zeros(size), "cpu")
    together = [order.on("cpu").flatten().tolist() for order in orders if len(order) > 1]
    assert len(together) == len(sizes)
    assert [order for order in together if order == sorted(order)] == []


def test_purity_is_measured_stored_and_printed_in_the_row(registry, tmp_path):
    outcome = run(registry, tmp_path, "plain", "relativetobatch")
    pure, impure = outcome.results
    assert pure.purity_delta < 1e-6
    assert impure.purity_delta > 0.01
    stored = [ResultStore(tmp_path).get(result.job).purity_delta for result in outcome.results]
    assert stored == [pure.purity_delta, impure.purity_delta]
    remarks = outcome.leaderboard.set_index("detector")["remark"]
    assert remarks["plain"] == ""
    assert "impure" in remarks["relativetobatch"]


@pytest.mark.parametrize(
    ("extra", "pure"),
    [
        (lambda maps: 0, True),
        (lambda maps: 1000, True),
        (lambda maps: -maps.mean(0), False),
        (lambda maps: torch.arange(len(maps))[:, None, None], False),
        (lambda maps: (len(maps) == 1) * 0.1, False),
        (lambda maps: 1000 + (len(maps) == 1) * 0.05, False),
        (lambda maps: math.nan if len(maps) == 1 else 0, False),
        (lambda maps: math.nan if len(maps) == 4 else 0, False),
        (lambda maps: (len(maps) > 1) * math.nan, True),  # no metric takes them
    ],
)
def test_maps_of_a_few_images_are_drawn_again_alone_and_in_another_order(extra, pure):
    def drawn(images):
        maps = images.float().mean(1) / 255
        return maps + extra(maps)

    images = ImageSet(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), np.uint8)))
    detector = SimpleNamespace(anomaly_map=drawn)
    maps = scoring.map_all(detector, images, (16, 16), "cpu")
    assert (scoring.purity_of_maps(detector, images, maps, "cpu") < 1e-4) == pure


@pytest.mark.parametrize("learned", ["normal", "anomalies"])
def test_no_training_image_may_be_written_to(learned):
    black = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    split = SimpleNamespace(normal=ImageSet(black.clone()), anomalies=ImageSet(black.clone()))
    with pytest.raises(AdbenchError, match="it wrote to its training images"), runner.pixels_kept(split):
        getattr(split, learned).on("cpu").add_(1)


def test_notes_on_its_images_stand_in_the_row(registry, tmp_path, monkeypatch):
    cut = Tasks.split
    noted = {"notes": ("one mask is lost",)}
    monkeypatch.setattr(Tasks, "split", lambda *words, **more: replace(cut(*words, **more), **noted))
    outcome = run(registry, tmp_path, "plain")
    assert outcome.results[0].notes == ("one mask is lost",)
    assert list(pd.read_csv(tmp_path / "results.csv")["error"]) == ["note: one mask is lost"]


MAPPED = """
    from adbench_tgan import Detector

    class Mapped(Detector):
        def fit(self, train):
            return self

        def score(self, images):
            return images.float().mean((1, 2, 3))

        def anomaly_map(self, images):
            maps = images.float().mean(1)
            return maps - maps.mean(0)
"""


def test_maps_that_depend_on_their_batch_make_a_row_impure(adbench, tmp_path):
    make_mvtec(tmp_path / "data")
    (tmp_path / "mapped.py").write_text(dedent(MAPPED))
    data = ("--data", "mvtec", "--data-root", tmp_path / "data", "--set", "mapped.image_size=16")
    ended = adbench(
        "run", "--plugin", "mapped.py", "--detectors", "mapped", *data, "--no-timing", "--out", "runs"
    )
    assert ended.status == 0, ended.err
    assert pd.read_csv("runs/results.csv")["purity_delta"][0] > 0.1
    assert "impure" in " ".join(ended.out.split())


@pytest.mark.parametrize("wrong_in", [None, "alone", "together"])
def test_purity_looks_at_a_few_images_alone_and_together_in_another_order(wrong_in):
    seen = []

    class Seen(Plain):
        def score(self, images):
            seen.append(images[:, 0, 0, 0].tolist())
            place = torch.arange(len(images)) if len(images) > 1 else torch.ones(1)
            wrong = (wrong_in == "alone") == (len(images) == 1) and wrong_in is not None
            return images.float().mean((1, 2, 3)) + 0.5 * place * wrong

    images = ImageSet(torch.arange(119, dtype=torch.uint8)[:, None, None, None].expand(119, 1, 2, 2))
    delta = scoring.purity(Seen(), images, np.arange(119.0), "cpu")
    assert delta == {None: 0, "alone": 0.5 / 118, "together": 1.5 / 118}[wrong_in]
    *alone, together = seen
    assert alone == [[number] for number in together]
    assert len(set(together)) == scoring.PURITY_IMAGES == 4
    assert together != sorted(together)
    assert max(together) >= 4  # not the first ones, which are of one class where the set is sorted


def test_a_constant_in_all_scores_and_scores_that_are_no_numbers_alone_hide_nothing(registry, tmp_path):
    outcome = run(registry, tmp_path, "behindaconstant", "nanalone", "plain")
    found = {each.job.detector: each.purity_delta for each in outcome.results}
    assert found["behindaconstant"] > 1e-3
    assert found["nanalone"] == 1.0
    assert found["plain"] < 1e-6


def test_a_row_says_that_a_flat_colour_is_as_good_a_reconstruction(registry, tmp_path):
    outcome = run(registry, tmp_path, "drawsitself", "drawsgrey", "drawstoolittle", "drawswithoutanetwork")
    itself, grey, too_little, without = outcome.results
    assert [each.status for each in outcome.results] == ["ok"] * 4
    assert itself.reconstruction_error == 0
    assert 1 < grey.reconstruction_error < 2
    assert too_little.reconstruction_error is None
    assert too_little.notes == (
        "its reconstructions were not measured: reconstruct must return a tensor of the shape of its images, uint8",
    )
    assert (without.reconstruction_error, without.notes) == (None, ())
    assert ResultStore(tmp_path).get(grey.job).reconstruction_error == grey.reconstruction_error
    remarks = outcome.leaderboard.set_index("detector")["remark"]
    told = "in 1 of 1 jobs its networks reconstruct training images no better than one flat colour would"
    assert remarks.to_dict() == {"drawsgrey": told} | dict.fromkeys(
        ("drawsitself", "drawstoolittle", "drawswithoutanetwork"), ""
    )


def test_the_error_of_reconstructions_is_relative_to_that_of_the_mean_colour():
    class Draws(Drawing, Plain):
        reconstruct = staticmethod(lambda images: torch.tensor(values, dtype=torch.uint8).expand_as(images))

    few = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    few[1] = torch.tensor([10, 20, 0])[:, None, None]  # the mean colour is (5, 10, 0)
    errors = {}
    for colour in ((5, 10, 0), (0, 0, 0), (5, 10, 10)):
        values = [[[each]] for each in colour]
        errors[colour] = scoring.reconstruction_error(Draws(), ImageSet(few), "cpu")
    assert errors == {(5, 10, 0): 1.0, (0, 0, 0): 2.0, (5, 10, 10): pytest.approx(1 + 100 / 125)}
    assert scoring.reconstruction_error(Draws(), ImageSet(few[:1]), "cpu") is None  # flat and alike


def test_maps_are_judged_at_the_masks_size_between_their_own_pixels():
    class Maps(Plain):
        def anomaly_map(self, images):
            return torch.tensor([[0.0, 1.0], [2.0, 3.0]]).expand(len(images), -1, -1)

    images = ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    maps = scoring.map_all(Maps(), images, (4, 2), "cpu")
    assert maps.dtype == np.float32
    assert maps.tolist() == [[[0, 1], [0.5, 1.5], [1.5, 2.5], [2, 3]]] * 3


def test_without_finite_scores_of_training_images_there_is_no_threshold(registry, tmp_path):
    (result,) = run(registry, tmp_path, "silentontraining").results
    assert (result.status, result.threshold) == ("ok", None)
    assert "balanced_accuracy" not in result.metrics
    assert "which set the threshold, are not finite" in result.notes[0]


@pytest.mark.parametrize("before", ["scribbles", "turnsgradientsoff", "turnsthedevice", "hookseverymodule"])
def test_what_one_detector_does_is_not_the_next_ones_fault(registry, tmp_path, before):
    alone = run(registry, tmp_path / "a", "plain", "ganomaly", overrides=["ganomaly.epochs=1"]).results
    behind = run(
        registry, tmp_path / "b", before, "plain", "ganomaly", overrides=["ganomaly.epochs=1"]
    ).results
    assert behind[0].job.detector == before
    one, other = (ResultStore(tmp_path / name) for name in "ab")
    for job in (result.job for result in alone):
        pd.testing.assert_frame_equal(one.scores(job), other.scores(job), check_exact=True)


def test_a_detector_that_leaves_the_working_folder_takes_no_results_along(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run(registry, Path("runs"), "walksaway", "plain")
    assert [result.status for result in outcome.results] == ["ok", "ok"]
    assert len((tmp_path / "runs/results.csv").read_text().splitlines()) == 3
    assert Path.cwd() == tmp_path
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_config_of_another_kind_is_named(registry, tmp_path):
    with pytest.raises(AdbenchError, match="the Config of detector 'anyconfig' is not a subclass of"):
        run(registry, tmp_path, "anyconfig")


def test_declared_failures_are_stored_and_outlive_the_plugin(tmp_path):
    outcome = run(Registry.discover(), tmp_path, "random")
    stored = ResultStore(tmp_path).get(outcome.results[0].job)
    assert stored.declared == Registry.discover().find("detector", "random").expected_failures
    assert stored.suite == SUITE
    assert "an obvious defect scores higher (its scores are chance)" in outcome.leaderboard.iloc[0]["remark"]


def test_epochs_are_reported_and_their_losses_stored(registry, tmp_path):
    reporter = Silent()
    outcome = run(registry, tmp_path, "inepochs", reporter=reporter)
    assert [heard for heard in reporter.heard if heard[0] == "epoch"] == [
        ("epoch", 1, 2, {"loss": 1.0}),
        ("epoch", 2, 2, {"loss": 0.5}),
    ]
    losses = (ResultStore(tmp_path).folder(outcome.results[0].job) / "losses.csv").read_text()
    assert losses == "epoch,loss\n1,1.0\n2,0.5\n"
    phases = "data fit score threshold purity timing metrics".split()
    assert [heard[1] for heard in reporter.heard if heard[0] == "phase"] == phases


def test_images_that_are_scored_are_counted(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "PAUSE", -1.0)
    reporter = Silent()
    outcome = run(registry, tmp_path, "plain", reporter=reporter)
    total = len(ResultStore(tmp_path).scores(outcome.results[0].job))
    counts = [heard[1:] for heard in reporter.heard if heard[0] == "images" and heard[2] == total]
    assert counts == [
        (min(done, total), total) for done in range(scoring.BATCH, total + scoring.BATCH, scoring.BATCH)
    ]


NO_MEMORY = "out of memory on cpu; with --set, lower image_size or another size, such as batch_size or width"


@pytest.mark.parametrize(
    ("detector", "error"),
    [
        ("nanloss", "loss loss_g became nan in epoch 2; try a lower learning rate"),
        ("raisesinfit", "ValueError: two lines"),
        ("raisesinscore", "RuntimeError: no score"),
        ("exits", "SystemExit: 3"),
        ("cancelled", "CancelledError: a task of its own"),
        ("closes", "GeneratorExit"),
        ("speechless", "Unsaid"),
        ("textless", "Unsaid"),
        ("countsepochs", "a loss is named 'epoch', as the number of the epoch is; give it another name"),
        ("notespaths", f"notes holds something of type {type(Path()).__name__}; it must hold texts"),
        ("notesnumbers", "notes holds something of type int; it must hold texts"),
        ("notestext", "notes is of type str; it must be a list of texts"),
        ("countsbelowzero", "parameter_counts says -3 for 'net'; it must be a whole number from 0 on"),
        ("countshalves", "parameter_counts says 1.5 for 'net'; it must be a whole number from 0 on"),
        ("outofmemory", NO_MEMORY),
        ("outofgpumemory", NO_MEMORY),
        ("allocatestoomuch", NO_MEMORY),
        ("nanscores", "596 of 596 scores are NaN or infinite"),
        ("wrongshape", "score returned shape (100, 1) for 100 images; it must return one each"),
        ("asnumpy", "score returned ndarray; it must return a tensor of shape (B,)"),
        ("scribbles", "it wrote to its training images; let it work on a copy, images.on(device).clone()"),
    ],
)
def test_a_fault_is_a_failed_row_with_one_line_and_the_rest_goes_on(registry, tmp_path, detector, error):
    outcome = run(registry, tmp_path, detector, "plain")
    bad, good = outcome.results
    assert (bad.status, bad.error) == ("failed", error)
    assert good.status == "ok"
    rows = (tmp_path / "results.csv").read_text().splitlines()
    assert len(rows) == 3
    assert sum("failed" in line and error in line.replace('"', "") for line in rows) == 1
    assert [r.status for r in outcome.failed] == ["failed"]


def test_a_failure_names_its_device_also_where_that_is_not_there(monkeypatch):
    def none(_):
        raise RuntimeError("no driver")

    for name, told in ((lambda _: "NVIDIA X", "NVIDIA X"), (none, "cuda")):
        monkeypatch.setattr(torch.cuda, "get_device_name", name)
        assert failed(toy_job("d"), Settings(device="cuda"), ValueError("no")).device == told


def test_a_mistake_of_a_program_has_its_traceback_whoever_words_it_and_one_of_the_users_has_none():
    traces = []
    for cause in (None, ValueError("unheard of")):
        try:
            raise AdbenchError("it does not work; mend it") from cause
        except AdbenchError as error:
            lost = failed(toy_job("d"), Settings(), error)
        assert lost.error == "it does not work; mend it"
        traces.append(lost.trace)
    assert (traces[0], "ValueError: unheard of" in traces[1]) == ("", True)


def test_a_result_that_could_not_be_read_back_is_a_failed_one_and_the_rest_goes_on(
    registry, tmp_path, monkeypatch
):
    real = runner.machine
    machines = iter([{1: "half of \udcff a character"}, real("cpu")])
    monkeypatch.setattr(runner, "machine", lambda device: next(machines))
    outcome = run(registry, tmp_path, "plain", "withoutgraph")
    assert [result.status for result in outcome.results] == ["failed", "ok"]
    assert outcome.failed[0].error.startswith("its result could not be read back (Invalid JSON: lone ")
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3


def test_a_model_that_cannot_be_written_is_a_failed_row_and_the_rest_goes_on(registry, tmp_path):
    outcome = run(registry, tmp_path, "stateofanything", "plain", settings=Settings(save_models=True))
    bad, good = outcome.results
    assert (bad.status, good.status) == ("failed", "ok")
    assert "str" in ResultStore(tmp_path).outcome(bad.job).error
    assert not any((tmp_path / PARTIAL).iterdir())


def test_ctrl_c_leaves_no_result_of_the_training_that_it_cut_short(registry, tmp_path, ctrl_c):
    with pytest.raises(KeyboardInterrupt):
        run(registry, tmp_path, "plain", "goesonafterctrlc", "inepochs")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    rows = pd.read_csv(tmp_path / "results.csv")
    assert list(rows["detector"]) == ["plain"]


def test_jobs_run_in_any_thread_and_leave_ignored_signals_alone(registry, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, registry, tmp_path, "plain").result().ran == 1
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with as_ctrl_c(), not_swallowed():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_numbers_of_numpy_and_half_characters_are_stored_as_what_they_mean(registry, tmp_path):
    outcome = run(registry, tmp_path, "countsinnumpy", "noteshalfcharacters")
    counted, noted = (ResultStore(tmp_path).get(result.job) for result in outcome.results)
    assert dict(counted.parameters) == {"net": 3}
    assert noted.notes == (r"from bad \udcff name",)


def test_failed_jobs_are_tried_again_and_finished_ones_are_not(registry, tmp_path, monkeypatch):
    assert run(registry, tmp_path, "raisesinfit", "plain").ran == 2
    assert run(registry, tmp_path, "raisesinfit", "plain").ran == 1
    monkeypatch.setattr(RaisesInFit, "fit", Plain.fit)
    again = run(registry, tmp_path, "raisesinfit", "plain")
    assert again.ran == 1
    assert [r.status for r in again.results] == ["ok", "ok"]
    assert run(registry, tmp_path, "raisesinfit", "plain").ran == 0


def test_a_class_that_is_no_detector_is_refused_before_anything_runs(registry, tmp_path):
    with pytest.raises(AdbenchError, match=r"not a subclass of adbench_tgan\.Detector"):
        run(registry, tmp_path, "notadetector")


def test_timing_columns_are_filled_or_left_empty(registry, tmp_path):
    timed = run(registry, tmp_path / "a", "plain").results[0].timing
    names = "fit_seconds score_seconds images_per_second peak_memory_mb flops_per_image".split()
    assert set(timed) == {*names, "latency_ms", "latency_ms_p50", "latency_ms_p99"}
    assert len(timed["latency_ms"]) == 100
    assert np.percentile(timed["latency_ms"], 50) == timed["latency_ms_p50"] > 0
    assert np.percentile(timed["latency_ms"], 99) == timed["latency_ms_p99"]
    assert timed["images_per_second"] == pytest.approx(596 / timed["score_seconds"])
    assert run(registry, tmp_path / "b", "plain", settings=Settings(timing=False)).results[0].timing == {}


def test_a_result_says_which_code_ran_it(registry, tmp_path):
    code = run(registry, tmp_path, "plain").results[0].machine["code"]
    assert code == code_behind(Plain, "")
    assert len(code["framework"]) == len(code["detector"]) == 64


HOG = 300  # MiB


class TakesMuch(Plain):
    """In pieces that the C library keeps when they are freed."""

    def fit(self, train):
        self.much = [torch.ones(2**18) for _ in range(HOG)]
        return super().fit(train)


@pytest.mark.skipif(not CLEAR.exists(), reason="only Linux begins the count of memory anew")
def test_what_one_job_freed_does_not_show_in_the_next(registry, tmp_path):
    outcome = run(registry, tmp_path, "takesmuch", "plain", seeds=[0, 1])
    peaks = {}
    for result in outcome.results:
        peaks.setdefault(result.job.detector, []).append(result.timing["peak_memory_mb"])
    assert min(peaks["takesmuch"]) - max(peaks["plain"]) > 0.8 * HOG


def test_a_count_of_memory_that_cannot_begin_anew_is_left_empty(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "CLEAR", tmp_path / "refused" / "clear_refs")
    timed = run(registry, tmp_path, "plain").results[0].timing
    assert timed["peak_memory_mb"] is None
    assert timed["fit_seconds"] > 0
    assert list(pd.read_csv(tmp_path / "results.csv")["peak_memory_mb"].isna()) == [True]


class TakesCtrlC(Plain):
    """As libraries do that mean to end in their own way."""

    def fit(self, train):
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return super().fit(train)

    def score(self, images):
        Curious.seen.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)))
        signal.signal(signal.SIGTERM, lambda *_: None)
        return super().score(images)


def test_what_a_detector_lets_handle_ctrl_c_is_gone_after_its_fit_and_its_job(registry, tmp_path):
    Curious.seen.clear()
    own = {kind: lambda *_: None for kind in KINDS}
    before = {kind: signal.signal(kind, own[kind]) for kind in KINDS}
    try:
        run(registry, tmp_path, "takesctrlc", "plain")
        assert {kind: signal.getsignal(kind) for kind in KINDS} == own
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    with settings_kept():  # as audits and timings do
        before = signal.signal(signal.SIGINT, own[signal.SIGINT])
    assert signal.getsignal(signal.SIGINT) is before
    kept = {name for each in Curious.seen for name in (each[0].__qualname__, each[1].__qualname__)}
    assert kept == {"not_swallowed.<locals>.noting.<locals>.note"}  # as before the fit


class OwnBase(BaseException):
    """As a stranger's library may have one."""


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, GeneratorExit, OwnBase])
def test_a_metric_that_fails_costs_a_note_not_the_job(error, registry, tmp_path, monkeypatch):
    from adbench_tgan import metrics

    def broken(scores, labels, threshold):
        raise error("oops")

    monkeypatch.setattr(metrics, "f1_max", broken)
    result = run(registry, tmp_path, "plain").results[0]
    assert result.status == "ok"
    assert "f1_max" not in result.metrics
    assert result.notes == (f"f1_max not computed: {error.__name__}: oops",)


@pytest.mark.parametrize("value", ["0.5", b"0.5", True, np.bool_(True)])
def test_a_metric_that_gives_no_number_is_not_read_as_one(value, registry, tmp_path, monkeypatch):
    from adbench_tgan import metrics

    monkeypatch.setattr(metrics, "f1_max", lambda scores, labels, threshold: value)
    result = run(registry, tmp_path, "plain").results[0]
    assert "f1_max" not in result.metrics
    assert result.notes == (f"f1_max not computed: TypeError: it returned {value!r}, not a number",)


def test_a_plugins_metric_that_came_later_is_told_to_be_missing_and_on_a_board_to_be_unchecked(
    adbench, tmp_path
):
    late = tmp_path / "late.py"
    late.write_text(
        dedent(
            """
            from adbench_tgan import MetricSpec, hookimpl

            def smallest(scores, labels, threshold):
                return float(scores.min())

            @hookimpl
            def adbench_metrics():
                yield MetricSpec(name="smallest", target=f"{__name__}:smallest", level="image")
                yield MetricSpec(name="unasked", target="nowhere:unasked", level="pixel")
            """
        )
    )
    words = ("run", "--detectors", "mean_image", "--device", "cpu", "--no-timing", "--out", "runs")
    publish = ("publish", "--runs", "runs", "--board", "b", "--out")
    assert adbench(*words, "--categories", "0").status == 0
    assert adbench(*publish, "before").status == 0
    again = adbench(*words, "--categories", "0,1", "--plugin", "late.py")
    assert again.status == 0, again.err
    told = " ".join(again.err.split())
    assert "metric smallest: 1 finished jobs lack it, and are not run again for it" in told
    assert "unasked" not in told
    assert "without it" not in adbench(*words, "--categories", "1", "--plugin", "late.py").err
    assert adbench(*publish, "after").status == 0
    stated = [json.loads(Path(out, "b/board.json").read_text())["provenance"] for out in ("before", "after")]
    assert ["plugin_metrics" in each for each in stated] == [False, True]
    assert adbench("verify", "after").status == 0


MENDED = """
    from adbench_tgan import MetricSpec, hookimpl

    def moody(scores, labels, threshold):
        raise ValueError("oops")

    def boldest(maps, masks):
        return float(maps.max())

    @hookimpl
    def adbench_metrics():
        yield MetricSpec(name="moody", target=f"{__name__}:moody")
        yield MetricSpec(name="boldest", target=f"{__name__}:boldest", level="pixel")
"""


def test_a_metric_that_was_mended_and_a_later_one_of_pixels_are_told_to_be_missing(adbench, tmp_path):
    make_mvtec(tmp_path / "data")
    words = ("run", "--detectors", "pca", "--data", "mvtec", "--data-root", "data", "--device", "cpu")
    words += ("--no-timing", "--out", "runs", "--plugin")
    for name, said in (("early", ("moody",)), ("late", ("moody", "boldest"))):
        text = dedent(MENDED).replace('raise ValueError("oops")', "return 1.0")
        if name == "early":
            text = dedent(MENDED).partition('    yield MetricSpec(name="boldest')[0]
        Path(f"{name}.py").write_text(text)
        for _ in range(2):
            ended = adbench(*words, f"{name}.py")
            assert ended.status == 0, ended.err
        told = " ".join(ended.err.split())
        for metric in said:
            assert (
                f"metric {metric}: 1 finished jobs lack it, and are not run again for it; to have it, run them into"
                in told
            )


def test_a_metric_whose_code_has_changed_is_told_by_a_run_and_on_the_way_to_a_board(adbench, tmp_path, site):
    def wider(file: Path):
        file.write_text(file.read_text() + "\n# another line\n")

    offered = dedent(MENDED).partition('    yield MetricSpec(name="boldest')[0]
    offered = offered.replace('raise ValueError("oops")', "return 1.0")
    Path("own.py").write_text(offered)
    make_plugin(site, "kept", offered.replace("moody", "installed"))
    words = "run --categories 0 --device cpu --no-timing --plugin own.py --detectors".split()
    publish = ("publish", "--board", "b", "--out", "boards")
    for _ in range(2):
        ended = adbench(*words, "random")
        assert ended.status == 0, ended.err
        assert "code" not in ended.err
    assert "note: metric" not in adbench(*publish).err
    wider(Path("own.py"))
    wider(site / "kept.py")
    del sys.modules["kept"]  # which the next command's process would import
    told = " ".join(adbench(*words, "random,mean_image").err.split())
    hashes = (
        r"other code \({0}\) than there is now \({0}\); for comparable values, run them into another --out"
    )
    for name, code in (("moody", r"dev own.py \w{8}"), ("installed", r"kept-dist 1.0, kept.py \w{8}")):
        assert re.search(f"metric {name}: in 1 finished jobs it was computed by {hashes.format(code)}", told)
    for more in ((), ("--again", "boards/b", "--runs", "runs")):
        ended = adbench(*publish, *more)
        assert ended.status == 0, ended.err
        notes = [line for line in ended.err.splitlines() if line.startswith("note: metric")]
        assert len(notes) == 2
        assert re.search(r"metric moody: .* \(dev own.py \w{8}; dev own.py \w{8}\); for comparable", notes[1])
    assert adbench("verify", "boards").status == 0


def test_a_metric_that_writes_into_what_it_is_given_changes_nothing(registry, tmp_path, monkeypatch):
    from adbench_tgan import metrics

    def rescaled(scores, labels, threshold):
        scores.sort()
        labels[:] = 1 - labels
        return math.nan

    expected = run(registry, tmp_path / "plain", "plain").results[0]
    monkeypatch.setattr(metrics, "auroc", rescaled)  # the first by its name
    result = run(registry, tmp_path / "other", "plain").results[0]
    assert result.notes == ("auroc not computed: ValueError: it returned nan",)
    assert result.metrics == {k: v for k, v in expected.metrics.items() if k != "auroc"}
    stored = [ResultStore(tmp_path / name).scores(expected.job) for name in ("plain", "other")]
    pd.testing.assert_frame_equal(*stored)


def test_jobs_that_an_executor_leaves_out_are_told(registry, tmp_path, monkeypatch):
    from adbench_tgan import executors

    local = executors.local
    monkeypatch.setattr(executors, "local", lambda jobs, *others: local(list(jobs)[::2], *others))
    with pytest.raises(AdbenchError) as caught:
        run(registry, tmp_path, "plain", seeds=[0, 1, 2])
    assert str(caught.value).startswith(
        "executor 'local' gave no result for 1 of 3 jobs, the first plain on digits/0"
    )
    assert len(pd.read_csv(tmp_path / "results.csv")) == 2


def test_a_detectors_own_notes_stand_in_its_row_and_operations_are_counted_without_graphs(registry, tmp_path):
    WithoutGraph.in_graphs.clear()
    outcome = run(registry, tmp_path, "withoutgraph", "plain")
    note = "no CUDA graph, steps run one kernel at a time: out of streams"
    assert [result.notes for result in outcome.results] == [(note,), ()]
    with (tmp_path / "results.csv").open(newline="") as file:
        errors = {row["detector"]: row["error"] for row in csv.DictReader(file)}
    assert errors == {"withoutgraph": f"note: {note}", "plain": ""}
    assert WithoutGraph.in_graphs[-1] is False
    assert WithoutGraph.in_graphs.count(False) == 1


def test_images_that_change_between_planning_and_running_are_noticed(registry, tmp_path, monkeypatch):
    from adbench_tgan.data import tasks

    real = tasks.split

    def other_images(*arguments):
        return replace(real(*arguments), fingerprint="0" * 64)

    monkeypatch.setattr(tasks, "split", other_images)
    result = run(registry, tmp_path, "plain").results[0]
    assert result.error == "the images of '0' changed since the job was planned; run again"


def test_a_job_is_not_run_by_another_version_than_the_one_that_was_planned(registry, tmp_path, monkeypatch):
    """As where a machine of a cluster has another one installed, or a file was edited meanwhile."""
    real = executors.attempt

    def elsewhere(job, settings, tasks, registry, reporter):
        found = registry.find("detector", job.detector)
        monkeypatch.setattr(registry, "find", lambda kind, name: replace(found, version="9"))
        return real(job, settings, tasks, registry, reporter)

    monkeypatch.setattr(executors, "attempt", elsewhere)
    result = run(registry, tmp_path, "plain").results[0]
    planned = result.job.detector_version
    assert result.error == (
        f"the run was planned with version {planned} of plain, and version 9 is installed where it runs; "
        "install the same in both places, then run again"
    )


def test_unknown_devices_are_refused():
    assert usable("cpu") == "cpu"
    assert usable("auto") in ("cpu", "cuda")
    for name in ("warp", "mps"):  # Macs have the second
        refused = f"--device {name}: not supported; use auto, cpu, cuda or cuda:N"
        with pytest.raises(AdbenchError, match=refused):
            usable(name)


def test_bf16_is_slow_only_on_a_cpu_of_which_torch_knows_it(monkeypatch):
    monkeypatch.setattr("adbench_tgan.benchmark.bf16_is_slow", lambda: True)
    ensure_offered("bf16", "cuda", pytest.fail)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not bf16_is_slow()


@pytest.mark.skipif(
    platform.machine() != "x86_64" or "ONEDNN_MAX_CPU_ISA" in os.environ,
    reason="other processors have other instructions, and some of these may be forbidden",
)
def test_bf16_is_slow_where_a_processor_has_no_instructions_for_it():
    text = re.findall(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)[0]
    has = set(text.split())
    able = {"avx512vl", "avx512bw", "avx512dq"} <= has or "avx_ne_convert" in has
    assert bf16_is_slow() is not able


def test_the_result_file_tells_of_the_machine(registry, tmp_path):
    outcome = run(registry, tmp_path, "plain")
    data = json.loads((ResultStore(tmp_path).folder(outcome.results[0].job) / "result.json").read_text())
    assert data["machine"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"cpu", "cpu_count", "memory_gb", "python", "system", "torch_threads"} <= set(data["machine"])
    assert data["device"] == "cpu"


def test_the_machine_tells_by_which_instructions_it_computes(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    capability = torch.backends.cpu.get_cpu_capability()
    assert machine("cpu")["cpu_capability"] == capability
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert machine("cpu")["cpu_capability"] == f"{capability}, oneDNN AVX2"


def test_bf16_is_another_job_and_stays_close(registry, tmp_path):
    plain = run(registry, tmp_path, "plain").results[0]
    half = run(registry, tmp_path, "plain", precision="bf16").results[0]
    assert half.job.key != plain.job.key
    assert half.metrics["auroc"] == pytest.approx(plain.metrics["auroc"], abs=0.01)


def put(owner, name, value):
    if hasattr(owner, name):  # torch 2.6 to 2.8 know no `fp32_precision`
        setattr(owner, name, value)


@pytest.mark.parametrize(
    "leave",
    [
        lambda: put(torch.backends, "fp32_precision", "tf32"),
        lambda: put(torch.backends.cudnn, "fp32_precision", "tf32"),
        lambda: put(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        lambda: put(torch.backends.mkldnn, "fp32_precision", "bf16"),
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: put(torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32),
        lambda: torch.set_autocast_enabled("cuda", True),
        lambda: torch.backends.cuda.enable_flash_sdp(False),
        lambda: setattr(torch.backends.mkldnn, "enabled", False),
        lambda: np.seterr(all="raise"),
        lambda: torch.autograd.set_detect_anomaly(True),
        lambda: warnings.simplefilter("error"),
        lambda: setattr(sys, "stdout", None),
        lambda: setattr(sys, "stderr", io.StringIO()),
    ],
)
def test_what_a_detector_leaves_set_is_neither_in_the_next_job_nor_after_its_own(leave):
    with settings_kept() as before:
        leave()
        assert settings_now() != before or not hasattr(torch.backends, "fp32_precision")
        with precision("fp32", "cuda"):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.is_autocast_enabled("cuda")
            levels = rounding_levels().values()
            assert {level.fp32_precision for level in levels} <= {"none", "ieee"}
    assert settings_now() == before


def test_training_in_bf16_follows_the_weights_that_it_changes():
    """Autocast's cache would show the first weights to every step."""
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(8, 1), torch.randn(64, 8)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    losses = []
    with precision("bf16", "cpu"):
        for _ in range(50):
            out = layer(x)
            loss = (out.float()[:, 0] - x.sum(1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert out.dtype == torch.bfloat16
    assert losses[-1] < 0.05 * losses[0]


def test_trivial_anchors_are_beaten_where_they_should_be(registry, tmp_path):
    detectors = ("ganomaly", "transgan_dual", "pca", "mean_image", "random")
    outcome = run(registry, tmp_path, *detectors, settings=Settings(timing=False))
    auroc = {result.job.detector: result.metrics["auroc"] for result in outcome.results}
    assert 0.4 < auroc["random"] < 0.6
    for detector in ("ganomaly", "transgan_dual", "pca", "mean_image"):
        assert auroc[detector] > 0.9, detector


class SlowAtFirst(Plain):
    """As one that compiles at its first call."""

    def score(self, images):
        if not hasattr(self, "warm"):
            self.warm = True
            time.sleep(1)
        return super().score(images)


def test_the_time_of_scoring_is_without_the_first_call(registry, tmp_path):
    assert run(registry, tmp_path, "slowatfirst").results[0].timing["score_seconds"] < 1


class TakesMuchLater(Plain):
    """When an image is scored alone again: after the test set, to probe its purity."""

    alone = 0

    def score(self, images):
        self.alone += len(images) == 1
        if self.alone == 2:
            _ = [torch.ones(2**18) for _ in range(HOG)]
        return super().score(images)


@pytest.mark.skipif(not CLEAR.exists(), reason="only Linux begins the count of memory anew")
def test_memory_is_that_of_fit_and_score_and_not_of_what_the_runner_looks_at_later(registry, tmp_path):
    plain, later = run(registry, tmp_path, "plain", "takesmuchlater").results
    assert abs(later.timing["peak_memory_mb"] - plain.timing["peak_memory_mb"]) < 0.5 * HOG


def test_what_is_imported_before_a_training_is_no_second_of_an_interrupted_one(
    registry, tmp_path, monkeypatch
):
    began, real = [], runner.fit

    def fit(detector, images, on_epoch, kept):
        began.append(time.perf_counter() - kept.began)
        return real(detector, images, on_epoch, kept)

    monkeypatch.setattr(runner, "import_module", lambda name: time.sleep(1))
    monkeypatch.setattr(runner, "fit", fit)
    run(registry, tmp_path, "nanloss", settings=Settings(timing=False, checkpoint_every=1))
    assert began[0] < 1


def test_ctrl_c_ends_a_detector_at_once_and_also_where_it_makes_another_error_of_it(ctrl_c):
    went_on = []

    @not_swallowed()
    def train():
        signal.raise_signal(signal.SIGINT)
        went_on.append("for another day")

    @not_swallowed()
    def make_another_error_of_it():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("cancelled") from None

    for work in (train, make_another_error_of_it):
        with pytest.raises(KeyboardInterrupt):
            work()
    assert went_on == []


def test_a_polite_kill_is_as_ctrl_c_and_who_handles_ctrl_c_goes_on_to():
    came = []

    @as_ctrl_c()
    def work():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    own = {kind: lambda number, _: came.append(number) for kind in (signal.SIGINT, signal.SIGTERM)}
    before = {kind: signal.signal(kind, handler) for kind, handler in own.items()}
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert came == [signal.SIGINT]
        assert {kind: signal.getsignal(kind) for kind in own} == own
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@pytest.mark.parametrize(("seconds", "written"), [(2.0, ["the tables"]), (-1.0, [])])
def test_signals_that_come_together_are_one_and_a_later_one_counts(seconds, written, monkeypatch):
    monkeypatch.setattr(interrupts, "TOGETHER", seconds)
    done = []

    @as_ctrl_c()
    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGUSR1)
            done.append("the tables")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == written


def test_a_programs_own_use_of_a_batch_systems_signal_goes_on_and_ends_no_job(tmp_path):
    came = []

    @not_swallowed()
    def work():
        signal.raise_signal(signal.SIGUSR2)
        with (tmp_path / "where").open("w") as where:
            faulthandler.register(signal.SIGUSR1, where)  # past Python's own table of handlers
            with handlers_kept():
                pass
            signal.raise_signal(signal.SIGUSR1)
            faulthandler.unregister(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR2, lambda number, _: came.append(number))
    try:
        work()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert came == [signal.SIGUSR2]
    assert "in work" in (tmp_path / "where").read_text()


def test_another_thread_than_the_first_leaves_signals_alone():
    def work():
        with as_ctrl_c(), not_swallowed():
            return "done"

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == "done"


def test_a_job_finds_torch_as_in_a_new_process_and_its_caller_what_was_turned():
    with settings_kept():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        for turned in (torch.inference_mode(), torch.no_grad()):
            with turned:
                with process_to_itself():
                    assert not torch.is_inference_mode_enabled()
                    weight = torch.ones(1, requires_grad=True)
                    (2 * weight).sum().backward()
                    assert (weight.dtype, weight.device.type) == (torch.float32, "cpu")
                    assert weight.grad is not None
                    assert weight.grad.item() == 2
                assert not torch.is_grad_enabled()
            assert torch.get_default_dtype() is torch.float64
            assert torch.empty(0).device.type == "meta"
    with in_time(20), process_to_itself(), process_to_itself():  # a job within a job
        assert torch.is_grad_enabled()


def test_a_row_keeps_what_its_images_say_of_themselves(registry, tmp_path, monkeypatch):
    facts = {"of_categories": 7, "unofficial": "a few", "anomalies_fingerprint": "a" * 64, "notes": ("grey",)}
    real = Tasks.split
    monkeypatch.setattr(Tasks, "split", lambda *words, **named: replace(real(*words, **named), **facts))
    (made,) = run(registry, tmp_path, "plain").results
    stored = ResultStore(tmp_path).get(made.job)
    for result in (made, stored):
        assert {name: getattr(result, name) for name in facts} == facts
        assert (result.suite, result.version) == (SUITE, __version__)
        assert result.shape == (1, 32, 32)


def test_a_metric_of_pixels_that_writes_into_what_it_is_given_changes_nothing():
    def scribbles(maps, masks):
        found = maps.sum() + masks.sum()
        maps += 1
        masks += 1
        return float(found)

    specs = [SimpleNamespace(name=name, level="pixel") for name in ("first", "second")]
    metrics = SimpleNamespace(metrics=lambda: specs, load=lambda kind, name: scribbles)
    maps, masks, scores = np.zeros((2, 3, 3), np.float32), np.zeros((2, 3, 3), np.uint8), np.zeros(2)
    values, notes = runner.evaluate(maps, masks, scores, scores, 0.0, metrics, "cpu")
    assert (values, notes) == ({"first": 0.0, "second": 0.0}, [])
    assert not maps.any()
    assert not masks.any()
    metrics.load = lambda kind, name: lambda maps, masks: math.inf
    values, notes = runner.evaluate(maps, masks, scores, scores, 0.0, metrics, "cpu")
    assert values == {}
    assert notes == [f"{name} not computed: ValueError: it returned inf" for name in ("first", "second")]


def test_images_a_second_are_of_the_device_and_latency_is_given_its_share_of_the_whole_job(monkeypatch):
    given = []
    monkeypatch.setattr(runner, "latency", lambda score, image, seconds: given.append(seconds) or [1.0, 3.0])
    monkeypatch.setattr(runner, "operations", lambda detector, image: None)
    timing = runner.measure(Plain(), None, 100, 30.0, Clock(seconds=5.0, gpu_seconds=2.0))
    assert given == [35.0]
    assert timing["images_per_second"] == pytest.approx(50)
    assert (timing["fit_seconds"], timing["score_seconds"], timing["latency_ms_p50"]) == (30, 5, 2)


def test_the_time_of_a_training_is_that_of_all_its_parts_without_that_of_keeping_it(monkeypatch):
    begin = SimpleNamespace(split=SimpleNamespace(normal=None, anomalies=None))
    monkeypatch.setattr(runner, "TrainSet", lambda normal, anomalies: None)
    monkeypatch.setattr(runner, "fit", lambda *given: [])
    monkeypatch.setattr(runner, "stopwatch", lambda device: nullcontext(Clock(seconds=50.0)))
    for kept, seconds in ((None, 50), (SimpleNamespace(seconds=100.0, spent=20.0), 130)):
        monkeypatch.setattr(runner, "checkpoint", lambda *given, kept=kept: kept)
        assert runner.train(Plain(), None, begin, Settings(), Silent()) == ([], seconds)


def test_pictures_for_a_reporter_cost_a_job_nothing(registry, tmp_path):
    reporter, settings, finished = Silent(), Settings(timing=False, pictures=True), []
    reporter.job_finished = finished.append
    run(registry, tmp_path, "drawsgrey", "drawsnever", reporter=reporter, settings=settings)
    grey, never = finished
    assert (grey.error, never.error) == ("", "")
    assert "reconstructions" in grey.pictures
    assert never.pictures == {}
    assert ("warn", f"{never.job}: no pictures: RuntimeError: out of ink") in reporter.heard

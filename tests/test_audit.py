"""The audit: what train mode and class-pure batches do to scores, and that training is untouched by it."""

import json
import os
import random
import re
import shutil
import signal
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from make_data import make_cifar10, make_mnist
from make_runs import toy_job
from PIL import Image
from rich.console import Console
from test_hostile import in_time
from torch import nn

from adbench_baselines.egbad import EGBAD
from adbench_tgan import (
    AdbenchError,
    Detector,
    DetectorConfig,
    DetectorInfo,
    ImageSet,
    TrainSet,
    audits,
    to_unit,
)
from adbench_tgan.audit import Audit, audit, batches_of, networks_as, networks_kept, orders_of, score_as
from adbench_tgan.audit_table import (
    COLUMNS,
    CURVES,
    curves_in,
    differences,
    file_of,
    gather,
    read_curves,
    read_record,
    row,
    table_of,
)
from adbench_tgan.audits import as_its_authors, draw, run_audits
from adbench_tgan.boards import verify_audit
from adbench_tgan.boards.audited import read_audit
from adbench_tgan.commands.audit import SHOWN
from adbench_tgan.data.images import Split
from adbench_tgan.data.tasks import Tasks
from adbench_tgan.errors import StoreError, TrainingDiverged
from adbench_tgan.jobs import Job, Request
from adbench_tgan.metrics import auroc
from adbench_tgan.ranking.published import read_published
from adbench_tgan.registry import Registry
from adbench_tgan.runner import Settings
from adbench_tgan.terminal.progress import TerminalReporter
from adbench_tgan.testing import smooth_images
from adbench_tgan.text import csv_of
from adbench_tgan.training import seed_everything

LEADERBOARDS = Path(__file__).parent.parent / "leaderboards"
NUMBERS = LEADERBOARDS / "published_numbers.csv"
LABELS = np.array([0, 1] * 64, dtype=np.uint8)


class Normed(Detector):
    """A batch norm and a scale that grows by one each epoch: all that an audit can meet, worked out by hand."""

    class Config(DetectorConfig):
        epochs: int = 3

    def build(self, shape):
        self.norm = nn.BatchNorm2d(shape[0], affine=False)
        self.scale = nn.Parameter(torch.zeros(1))

    @property
    def networks(self):
        return {"norm": self.norm}

    def epochs(self, train):
        self.build(train.shape)
        for epoch in range(self.config.epochs):
            self.norm.train()
            assert all(module.training for module in self.norm.modules())
            for batch in train.normal.batches(16):
                self.norm(to_unit(batch))
            self.drawn = torch.rand(1)
            yield {"loss": float(epoch)}

    @torch.no_grad()
    def score(self, images):
        return self.norm(to_unit(images)).mean((1, 2, 3))


class Scribbles(Normed):
    def epochs(self, train):
        train.normal.on("cpu").add_(1)
        yield from super().epochs(train)


class TurnsSettings(Normed):
    def epochs(self, train):
        yield from super().epochs(train)
        torch.set_default_dtype(torch.float64)


class GoesOnAfterCtrlC(Normed):
    def epochs(self, train):
        try:
            for losses in super().epochs(train):
                yield losses
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            self.ended = True


class TurnsCtrlCIntoAnError(Normed):
    def epochs(self, train):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("stopped") from None
        yield from super().epochs(train)


class NotesAText(Normed):
    def epochs(self, train):
        yield from super().epochs(train)
        self.notes = "all well"


class Modal(Normed):
    """Turns its scores round where all of its networks train, and draws by chance."""

    @property
    def networks(self):
        return {"norm": self.norm, "other": self.other}

    def build(self, shape):
        super().build(shape)
        self.other = nn.Identity().eval()  # whatever the first one's mode is

    def score(self, images):
        both = self.norm.training and self.other.training
        return (-1 if both else 1) * images.float().mean((1, 2, 3)) + 1e-9 * torch.rand(1)


class Batched(Normed):
    def score(self, images):
        found = super().score(images)
        return found - found.mean()


class Infinite(Normed):
    def score(self, images):
        return super().score(images) * torch.inf


class Diverges(Normed):
    def epochs(self, train):
        for _ in super().epochs(train):
            yield {"loss": float("nan")}


class Leaves(Normed):
    def epochs(self, train):
        raise SystemExit(3)


class NeedsShortFloats(Normed):
    def epochs(self, train):
        assert torch.is_autocast_enabled("cpu")
        yield from super().epochs(train)

    def score(self, images):
        assert torch.is_autocast_enabled("cpu")
        return super().score(images)


class NeedsLabels(Normed):
    def epochs(self, train):
        self.notes.append(f"{len(train.anomalies) > 0}: there were anomalies")
        yield from super().epochs(train)


def split():
    """Anomalies are brighter by a constant: batch norm over class-pure batches takes just that away."""
    test = smooth_images(len(LABELS), (3, 16, 16), seed=1)
    test = (test.int() + 60 * torch.from_numpy(LABELS.astype(int))[:, None, None, None]).clamp(0, 255).byte()
    return Split(
        normal=ImageSet(smooth_images(32, (3, 16, 16), seed=0)),
        anomalies=None,
        test=ImageSet(test),
        test_ids=tuple(map(str, range(len(LABELS)))),
        labels=LABELS,
        masks=None,
        fingerprint="f" * 64,
    )


def test_batch_statistics_and_class_pure_batches_change_an_auroc_and_nothing_else():
    torch.manual_seed(0)
    found = audit(Normed(), split(), TrainSet(split().normal))
    assert len(found.clean) == len(found.batch_statistics) == len(found.class_sorted) == 3
    assert min(found.clean) > 0.95  # brighter is more anomalous, seen image by image
    assert found.batch_statistics[-1] > 0.95  # mixed batches keep the difference, pure ones take it away
    assert 0.3 < found.class_sorted[-1] < 0.7


def test_each_way_of_scoring_has_its_modes_in_every_network():
    torch.manual_seed(0)
    found = audit(Modal(), split(), TrainSet(split().normal))
    assert min(found.clean) > 0.95
    assert max(*found.batch_statistics, *found.class_sorted) < 0.05


@pytest.mark.parametrize(
    ("toy", "error", "told"),
    [
        (Infinite, AdbenchError, "^Infinite: scores are NaN or infinite$"),
        (Diverges, TrainingDiverged, "^loss loss became nan in epoch 1; "),
    ],
)
def test_an_audit_ends_at_the_first_number_that_is_none(toy, error, told):
    with pytest.raises(error, match=told):
        audit(toy(), split(), TrainSet(split().normal))


def test_the_last_point_is_of_the_weights_with_which_the_training_ends():
    detector = EGBAD.Config(**EGBAD.presets["quick"] | {"steps": 40})
    found = audit(EGBAD(detector), split(), TrainSet(split().normal))
    fitted = EGBAD(detector).fit(TrainSet(split().normal))
    scores = score_as(fitted, split().test, np.arange(len(LABELS)), training=False)
    assert len(found.clean) == 20
    assert found.clean[-1] == auroc(scores, LABELS, 0.0)


def test_a_score_under_batch_statistics_is_the_one_worked_out_by_hand():
    detector = Normed()
    for _ in detector.epochs(TrainSet(split().normal)):
        pass
    test, order = split().test, orders_of(LABELS)["class_sorted"]
    scores = score_as(detector, test, order, training=True)
    pixels = to_unit(test.on("cpu"))
    for batch in (order[:64], order[64:]):
        part = pixels[batch]
        mean = part.mean((0, 2, 3), keepdim=True)
        deviation = part.var((0, 2, 3), unbiased=False, keepdim=True).add(1e-5).sqrt()
        expected = ((part - mean) / deviation).mean((1, 2, 3))
        np.testing.assert_allclose(scores[batch], expected, atol=1e-4)


def test_batch_norm_alone_is_as_in_training():
    """Dropout would make a score a matter of chance."""
    network = nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5), nn.BatchNorm2d(3))
    modes = []

    def score(images):
        modes.append([module.training for module in network])
        return images.float().mean((1, 2, 3))

    detector = SimpleNamespace(networks={"net": network}, device="cpu", score=score)
    for training in (True, False):
        score_as(detector, split().test, np.arange(64), training=training)
    assert modes[0] == [False, False, True]
    assert modes[-1] == [False] * 3
    assert all(module.training for module in network)  # as before


def test_no_batch_of_many_has_one_image():
    counts = [
        [len(batch) for batch in batches_of(torch.arange(count))] for count in (1, 64, 65, 66, 129, 193)
    ]
    assert counts == [[1], [64], [65], [64, 2], [64, 65], [64, 64, 65]]
    assert torch.equal(torch.cat(batches_of(torch.arange(193))), torch.arange(193))


@pytest.mark.parametrize(
    ("detector", "dataset", "theirs"),
    [
        ("ganomaly", "cifar10", True),
        ("ganomaly", "mvtec", False),
        ("sagan", "mvtec", True),
        ("anotrans", "mnist", True),
        ("egbad", "cifar10", False),
    ],
)
def test_a_number_is_as_published_where_the_authors_scored_so(detector, dataset, theirs):
    info = Registry.discover().find("detector", detector)
    assert as_its_authors(info, dataset) == theirs
    job = toy_job(detector=detector, dataset=dataset)
    curves = {"clean": (0.5, 0.6), "batch_statistics": (0.5, 0.6), "class_sorted": (0.9, 0.8)}
    record = {"job": asdict(job), **curves, "authors": theirs, "unofficial": "", "device": "", "version": ""}
    line = row(record | {"sha256": ""}, {})
    assert line["as_published"] == (0.9 if theirs else None)
    assert (line["best_epoch"], line["optimism"]) == (1, pytest.approx(0.3))


def test_chance_that_scoring_draws_is_put_back():
    def score(images):
        return torch.full((len(images),), random.random() + np.random.rand()) + torch.rand(1)  # noqa: NPY002

    def draw():
        return random.random(), np.random.rand(), float(torch.rand(1))  # noqa: NPY002

    detector = SimpleNamespace(networks={}, device="cpu", score=score)
    drawn = []
    for scored in (False, True):
        seed_everything(3)
        if scored:
            score_as(detector, split().test, np.arange(len(LABELS)), training=True)
        drawn.append(draw())
    assert drawn[0] == drawn[1]


def test_orders_are_fixed_and_of_the_test_set():
    orders = orders_of(LABELS)
    assert list(orders) == ["clean", "batch_statistics", "class_sorted"]
    for order in orders.values():
        assert sorted(order) == list(range(128))
    assert list(LABELS[orders["class_sorted"]]) == [0] * 64 + [1] * 64
    assert 20 < LABELS[orders["batch_statistics"]][:64].sum() < 44
    assert np.array_equal(orders["batch_statistics"], orders_of(LABELS)["batch_statistics"])
    assert orders["batch_statistics"][:4].tolist() == [125, 53, 102, 34]  # published curves rest on it


@pytest.mark.parametrize("toy", [Normed, Modal])
def test_training_ends_the_same_with_and_without_an_audit(toy):
    ends = []
    for audited in (True, False):
        torch.manual_seed(0)
        detector = toy()
        if audited:
            audit(detector, split(), TrainSet(split().normal))
        else:
            for _ in detector.epochs(TrainSet(split().normal)):
                pass
        ends.append((detector.norm.running_mean.clone(), detector.drawn))
    assert torch.equal(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])


def test_modes_and_buffers_are_put_back_module_by_module():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(2)))
    network[1].eval()
    with networks_kept({"n": network}):
        network.train()
        network(torch.randn(8, 2) + 5)
    assert [module.training for module in network.modules()] == [True, True, False, False]
    assert not network[0].running_mean.any()
    assert network[0].num_batches_tracked == 0


class Codebook(nn.Module):
    """In train mode it moves to what it sees, by a new parameter and a new buffer."""

    def __init__(self):
        super().__init__()
        self.codes = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x):
        self.codes = nn.Parameter(self.codes + x.mean(0))
        self.seen = self.seen + 1
        self.codes.data.add_(1)


def test_tensors_that_a_network_replaces_are_put_back():
    network = Codebook()
    before = dict(network.named_parameters()) | dict(network.named_buffers())
    values = {name: tensor.detach().clone() for name, tensor in before.items()}
    with networks_kept({"n": network}):
        network(torch.ones(4, 2))
        before["codes"].data.add_(1)
        assert network.codes.sum() == 4
    after = dict(network.named_parameters()) | dict(network.named_buffers())
    assert all(after[name] is before[name] for name in before)
    assert all(torch.equal(after[name], values[name]) for name in before)


def test_curves_that_cannot_be_read_are_not_taken_for_absent(tmp_path):
    """Their audit would be run again, and be missing in the table."""
    job = Job(**json.loads(curves_in(LEADERBOARDS / "audit")[0].read_text())["job"])
    assert read_record(tmp_path, job) is None
    file_of(tmp_path, job).mkdir(parents=True)
    for read in (lambda: read_record(tmp_path, job), lambda: gather(tmp_path, [], ())):
        with pytest.raises(StoreError, match=r"cannot read .*: Is a directory; make it readable"):
            read()
    assert file_of(tmp_path, job).relative_to(tmp_path).as_posix() in [
        where for where, *_ in differences(tmp_path)
    ]


def test_an_audit_of_another_job_or_with_curves_of_two_lengths_counts_as_absent(tmp_path):
    content = json.loads(curves_in(LEADERBOARDS / "audit")[0].read_text())
    job = Job(**content["job"])
    other = replace(job, seed=job.seed + 1)
    for each in (job, other):
        file_of(tmp_path, each).parent.mkdir(parents=True, exist_ok=True)
        file_of(tmp_path, each).write_text(json.dumps(content))
    assert read_record(tmp_path, job) is not None
    assert read_record(tmp_path, other) is None
    for name in CURVES:
        file_of(tmp_path, job).write_text(json.dumps(content | {name: content[name][1:]}))
        assert read_record(tmp_path, job) is None


def test_a_detector_without_networks_is_refused():
    class Bare(Detector):
        def fit(self, train):
            return self

        def score(self, images):
            return images.float().mean((1, 2, 3))

    with pytest.raises(AdbenchError, match=r"Bare has no networks, .* modes; leave it out of --detectors"):
        audit(Bare(), split(), TrainSet(split().normal))


HEAD = "source,table,protocol,category,metric,value,our_detector,our_dataset,our_protocol"
COMMAND = ["--detectors", "ganomaly", "--categories", "0", "--preset", "quick"]
COMMAND += ["--set", "ganomaly.epochs=2", "--set", "ganomaly.width=8"]


def test_the_command_keeps_curves_writes_the_table_and_runs_nothing_twice(adbench, tmp_path):
    published = tmp_path / "published.csv"
    published.write_text(
        f"{HEAD}\nPaper,T1,words,0 (0),AUROC percent,75,ganomaly,digits,leave-one-out\n"
        "Paper,T1,words,0,AP,0.1,ganomaly,digits,leave-one-out\n"
    )
    words = [*COMMAND, "--protocol", "leave-one-out", "--out", tmp_path / "a", "--published", published]
    ended = adbench("audit", *words)
    assert ended.status == 0, ended.err
    table = pd.read_csv(tmp_path / "a/audit.csv")
    assert list(table.columns) == COLUMNS
    line = table.iloc[0]
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "a").rglob("*.json")]
    assert line["clean"] == pytest.approx(record["clean"][-1], rel=1e-14)  # pandas 2 reads it an ULP off
    assert line["best_epoch"] == 1 + np.argmax(record["class_sorted"])
    assert line["optimism"] == pytest.approx(max(record["class_sorted"]) - line["clean"])
    assert pd.isna(line["as_published"])  # only CIFAR-10 is scored so by its authors
    assert "best epoch, sorted by class 0." in ended.err
    assert pd.isna(line["published"])  # by other settings
    assert line["published_source"] == "0.750 published with the preset paper (Paper): not comparable"
    assert line["epochs"] == 2
    (picture,) = (tmp_path / "a").rglob("*.png")
    with Image.open(picture) as image:
        assert image.size == (770, 462)
    assert list(differences(tmp_path / "a")) == []  # there is no table beside the folder to compare with
    again = adbench("audit", *words)
    assert again.status == 0
    assert "1 of 1 jobs are finished already; nothing to run" in again.err
    assert pd.read_csv(tmp_path / "a/audit.csv").equals(table)


def test_the_clean_number_is_that_of_a_run(adbench, tmp_path):
    ended = adbench("audit", *COMMAND, "--out", tmp_path / "a")
    assert ended.status == 0
    assert ended.out.splitlines()[0].rstrip() == "AUROC, digits, one-vs-rest"  # the dataset's own protocol
    assert adbench("run", *COMMAND, "--out", tmp_path / "r", "--no-timing").status == 0
    clean = pd.read_csv(tmp_path / "a/audit.csv")["clean"][0]
    assert clean == pytest.approx(pd.read_csv(tmp_path / "r/results.csv")["auroc"][0], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "protocol"), [((), "one-vs-rest"), (("--protocol", "leave-one-out"), "leave-one-out")]
)
def test_the_table_of_audits_is_of_the_protocol_that_was_asked_for(words, protocol, adbench, monkeypatch):
    table = pd.DataFrame([dict.fromkeys(SHOWN, 0.5)])
    monkeypatch.setattr("adbench_tgan.audits.run_audits", lambda *given: (table, 0))
    assert adbench("audit", *words).out.splitlines()[0].strip() == f"AUROC, digits, {protocol}"


def test_an_audit_that_fails_is_said_and_the_others_go_on(adbench, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    words = ["--detectors", "pca,ganomaly", *COMMAND[2:], "--out", tmp_path / "a"]
    ended = adbench("audit", *words)
    assert ended.status == 1
    assert "PCA has no networks, and an audit compares their train and eval modes" in ended.err
    assert list(pd.read_csv(tmp_path / "a/audit.csv")["detector"]) == ["ganomaly"]
    assert "category" in ended.out  # there is room for it: reasons stand above
    assert "error" not in ended.out
    failed = pd.read_csv(tmp_path / "a/failed.csv")
    assert list(failed["detector"]) == ["pca"]
    assert failed["error"][0].startswith("PCA has no networks")
    assert "1 of these 2 audits failed; " in ended.err
    assert "a/failed.csv says which, and why" in ended.err
    assert adbench("audit", "--detectors", "ganomaly", *words[2:]).status == 0
    assert not (tmp_path / "a/failed.csv").exists()


TOYS = (Normed, Scribbles, TurnsSettings, GoesOnAfterCtrlC, TurnsCtrlCIntoAnError, NotesAText)
TOYS += (Batched, Leaves, NeedsShortFloats, NeedsLabels)


def audited(out, *detectors, **more):
    """The rows of an audit of toys and others, and how many failed."""
    registry = Registry.discover()
    for toy in TOYS:
        kind = "labelled" if toy is NeedsLabels else "one-class"
        info = DetectorInfo(name=toy.__name__.lower(), target=f"{__name__}:{toy.__name__}", supervision=kind)
        registry._offers["detector"].append((info, "tests"))
    request = Request(detectors=detectors, categories=["0"], overrides=[f"{detectors[-1]}.epochs=2"], **more)
    reporter = TerminalReporter(Console(stderr=True))
    return run_audits(request, Settings(), registry, reporter, out, NUMBERS)


@pytest.mark.parametrize("before", ["scribbles", "turnssettings"])
def test_what_one_detector_does_is_not_the_next_ones_fault(before, tmp_path):
    alone, _ = audited(tmp_path / "a", "normed")
    try:
        behind, failed = audited(tmp_path / "b", before, "normed")
        assert torch.get_default_dtype() == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert list(behind["detector"]) == [before, "normed"]
    assert behind[COLUMNS].iloc[1].equals(alone[COLUMNS].iloc[0])
    assert failed == (before == "scribbles")
    if failed:
        error = "it wrote to its training images; let it work on a copy, images.on(device).clone()"
        assert behind["error"][0] == error


def test_a_detector_that_leaves_the_program_is_a_row_with_an_error(tmp_path):
    table, failed = audited(tmp_path, "leaves", "normed")
    assert (list(table["detector"]), failed) == (["leaves", "normed"], 1)
    assert table["error"].notna().tolist() == [True, False]


def test_an_audit_is_in_the_precision_that_was_asked_for(tmp_path):
    table, failed = audited(tmp_path, "needsshortfloats", precision="bf16")
    assert (failed, list(table["precision"])) == (0, ["bf16"])


def test_an_audit_hands_labelled_anomalies_on_and_says_notes_and_code(tmp_path, capsys, monkeypatch):
    cut = Tasks.split
    noted = {"notes": ("one mask is lost",)}
    monkeypatch.setattr(Tasks, "split", lambda *words, **more: replace(cut(*words, **more), **noted))
    _, failed = audited(tmp_path, "needslabels")
    told = " ".join(capsys.readouterr().err.split())
    assert failed == 0, told
    assert "needslabels on digits/0 seed 0: one mask is lost" in told
    assert "needslabels on digits/0 seed 0: True: there were anomalies" in told
    (path,) = curves_in(tmp_path)
    record = json.loads(path.read_text())
    assert record["notes"] == ["one mask is lost", "True: there were anomalies"]
    assert record["machine"]["code"]["framework"]


def test_the_picture_of_an_audit_draws_its_curves(monkeypatch):
    drawn = {}

    def look(figure, *_, **__):
        for line in figure.axes[0].lines:
            drawn[line.get_label()] = (list(line.get_xdata()), list(line.get_ydata()))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", look)
    record = curves_of("sagan", "frog", "leave-one-out-6k")
    record |= {"clean": (0.1, 0.2, 0.3), "batch_statistics": (0.4, 0.5, 0.6), "class_sorted": (0.7, 0.9, 0.8)}
    draw(record, "")
    names = ("clean: eval mode", "+ batch statistics, shuffled", "+ sorted by class")
    expected = dict(zip(names, (record[name] for name in CURVES), strict=True))
    expected["+ best epoch so far"] = (0.7, 0.9, 0.9)
    assert {name: drawn[name] for name in expected} == {
        name: ([1, 2, 3], list(values)) for name, values in expected.items()
    }


@pytest.mark.parametrize("detector", ["goesonafterctrlc", "turnsctrlcintoanerror"])
def test_ctrl_c_leaves_no_curves_of_the_training_that_it_cut_short(detector, tmp_path, ctrl_c):
    with pytest.raises(KeyboardInterrupt):
        audited(tmp_path, detector, "normed")
    assert not list(tmp_path.rglob("*.json"))
    assert not (tmp_path / "failed.csv").exists()


def test_what_is_learned_after_the_last_epoch_is_in_the_last_point():
    class Centred(Normed):
        def epochs(self, train):
            self.sign = -1
            yield from super().epochs(train)
            self.sign = 1

        def score(self, images):
            return self.sign * super().score(images)

    plain, centred = (audit(toy(), split(), TrainSet(split().normal)).clean for toy in (Normed, Centred))
    assert centred == (*(1 - value for value in plain[:-1]), plain[-1])


def test_scores_that_a_run_refuses_are_refused():
    class Mean(Normed):
        def score(self, images):
            return super().score(images).mean()

    class Column(Normed):
        def score(self, images):
            return super().score(images)[:, None]

    for wrong in (Mean, Column):
        with pytest.raises(AdbenchError, match="it must return one each"):
            audit(wrong(), split(), TrainSet(split().normal))


def test_that_clean_scores_depend_on_their_batch_is_measured_kept_and_told(tmp_path, capsys):
    _, failed = audited(tmp_path, "normed", "batched")
    assert failed == 0
    told = {path.parent.name: json.loads(path.read_text()) for path in curves_in(tmp_path)}
    assert told["normed"]["purity_delta"] < 1e-4 < told["batched"]["purity_delta"]
    assert told["normed"]["notes"] == []
    (note,) = told["batched"]["notes"]
    assert note.startswith("the clean scores depend on their batch too: relative change up to 0.")
    assert note in " ".join(capsys.readouterr().err.split())


def test_networks_that_are_copies_are_refused():
    class Copies(Normed):
        @property
        def networks(self):
            return {"norm": deepcopy(self.norm)}

    with pytest.raises(AdbenchError, match="networks returns new modules at each call"):
        audit(Copies(), split(), TrainSet(split().normal))


def test_a_lost_picture_is_drawn_again_and_a_damaged_audit_is_said_to_have_no_row(tmp_path, capsys):
    audited(tmp_path, "normed")
    (picture,) = tmp_path.rglob("*.png")
    picture.unlink()
    (path,) = curves_in(tmp_path)
    damaged = {"cut.json": path.read_bytes()[:500], "deep.json": b"[" * 100_000}
    for name, data in damaged.items():
        (path.parent / name).write_bytes(data)
    audited(tmp_path, "normed")
    told = " ".join(capsys.readouterr().err.split())
    for name in damaged:
        assert f"{name} has no row: it is damaged" in told
        (path.parent / name).unlink()
    assert list(differences(tmp_path)) == []


def test_audits_of_a_later_version_are_not_replaced(tmp_path):
    audited(tmp_path, "normed")
    (path,) = curves_in(tmp_path)
    later = json.dumps(json.loads(path.read_text()) | {"schema": 2})
    path.write_text(later)
    with pytest.raises(
        AdbenchError, match=r"of a newer adbench-tgan \(schema 2\); upgrade to read it, or give --out"
    ):
        audited(tmp_path, "normed")
    assert path.read_text() == later


def test_a_file_where_curves_should_be_is_named_before_the_training(tmp_path):
    (tmp_path / "curves").write_text("")
    with pytest.raises(AdbenchError, match="curves is a file, and should be a folder"):
        audited(tmp_path, "normed")


def test_ctrl_c_leaves_a_table_of_what_was_audited_before(tmp_path, ctrl_c):
    with pytest.raises(KeyboardInterrupt):
        audited(tmp_path, "normed", "turnsctrlcintoanerror")
    assert list(pd.read_csv(tmp_path / "audit.csv")["detector"]) == ["normed"]
    assert list(differences(tmp_path)) == []


def test_where_a_killed_audit_has_no_table_the_remedy_is_to_go_on(adbench, tmp_path):
    (tmp_path / "a/curves").mkdir(parents=True)
    told = "a holds an unfinished audit, without audit.csv; run the same adbench audit again to finish it"
    assert told in adbench("verify", tmp_path / "a").error


def test_notes_that_are_no_list_of_texts_are_refused(tmp_path):
    table, failed = audited(tmp_path, "notesatext")
    assert failed == 1
    assert table["error"][0] == "notes is of type str; it must be a list of texts"


def test_an_audit_beside_others_leaves_their_rows_in_the_table(adbench, tmp_path):
    words = [*COMMAND[:2], *COMMAND[4:], "--out", tmp_path / "audit", "--categories"]
    for category in ("1", "0"):
        ended = adbench("audit", *words, category)
        assert ended.status == 0
    table = pd.read_csv(tmp_path / "audit/audit.csv")
    assert list(table["category"]) == [0, 1]
    assert list(differences(tmp_path / "audit")) == []
    assert ended.out.count("ganomaly") == 1  # what was asked for


def test_the_table_of_two_audits_that_end_together_misses_neither(tmp_path, monkeypatch):
    audited(tmp_path / "a", "batched")

    def slowly(out, *words):
        table = gather(out, *words)
        # Those of another one, too late for this table.
        shutil.copytree(tmp_path / "a/curves", out / "curves", dirs_exist_ok=True)
        return table

    monkeypatch.setattr("adbench_tgan.audits.gather", slowly)
    told, _ = audited(tmp_path / "b", "normed")
    assert list(told["detector"]) == ["normed"]
    assert sorted(pd.read_csv(tmp_path / "b/audit.csv")["detector"]) == ["batched", "normed"]


def test_the_published_table_is_made_anew_from_its_curves():
    text = (LEADERBOARDS / "audit/audit.csv").read_text()
    keys = list(pd.read_csv(LEADERBOARDS / "audit/audit.csv")["key"])
    paths = (LEADERBOARDS / "audit/curves").rglob("*.json")
    jobs = {job.key: job for job in (Job(**json.loads(path.read_text())["job"]) for path in paths)}
    printed = read_published(NUMBERS)
    assert csv_of(gather(LEADERBOARDS / "audit", [jobs[key] for key in keys], printed)) == text
    some = gather(LEADERBOARDS / "audit", [jobs[keys[4]]], printed)
    assert some["key"][0] == keys[4]
    assert sorted(some["key"]) == sorted(keys)


def test_a_wrong_table_of_published_numbers_is_refused_before_the_training(adbench, tmp_path):
    (tmp_path / "bad.csv").write_text("detector\npca\n")
    ended = adbench("audit", *COMMAND, "--out", tmp_path / "a", "--published", tmp_path / "bad.csv")
    assert "bad.csv is not a table of published numbers" in ended.error
    assert not (tmp_path / "a").exists()


def test_where_no_audit_comes_to_an_end_there_is_no_table(adbench, tmp_path):
    ended = adbench("audit", "--detectors", "pca", "--categories", "0", "--out", tmp_path / "new")
    assert (ended.status, ended.out) == (1, "")
    assert "PCA has no networks" in ended.err
    assert "cannot write" not in ended.err
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["failed.csv"]


def test_published_numbers_of_every_unit_are_found_by_our_names():
    records = [curves_of("sagan", "frog", "leave-one-out-6k"), curves_of("anogan", "ship", "one-vs-rest")]
    table = table_of(records, read_published(NUMBERS))
    assert list(table["published"]) == [0.996, pytest.approx(0.723)]  # the latter is printed in per cent
    assert table["published_source"][0] == "SAGAN paper (ICIP 2021)"
    nobody = table_of([curves_of("sagan", "frog", "leave-one-out")], read_published(NUMBERS))
    assert (nobody["published"][0], nobody["published_source"][0]) == (None, "")


def test_of_images_that_are_not_the_official_ones_no_published_number_is_shown(tmp_path):
    record = curves_of("sagan", "frog", "leave-one-out-6k", unofficial="a JPEG copy")
    table = table_of([record], read_published(NUMBERS))
    assert table["published"][0] is None
    told = "0.996 published on the official images (SAGAN paper (ICIP 2021)): not comparable"
    assert table["published_source"][0] == told


def test_an_audit_keeps_how_its_images_differ_from_the_official_ones(adbench, tmp_path):
    make_mnist(tmp_path / "data", train=300, test=100)
    words = ["--data", "mnist", "--data-root", tmp_path / "data", "--set", "ganomaly.image_size=32"]
    ended = adbench("audit", *COMMAND, *words, "--out", tmp_path / "a")
    assert ended.status == 0, ended.err
    (record,) = [read_curves(path) for path in (tmp_path / "a").rglob("*.json")]
    assert record["unofficial"] == "300 + 100 images; not the official 60,000 + 10,000"


def curves_of(detector, category, protocol, unofficial=""):
    """A stored audit of CIFAR-10."""
    job = Job(
        detector=detector,
        detector_version="1",
        config={},
        dataset="cifar10",
        protocol=protocol,
        protocol_version="1",
        category=category,
        seed=0,
        precision="fp32",
        supervision="one-class",
        split_fingerprint="f" * 64,
    )
    curves = dict.fromkeys(("clean", "batch_statistics", "class_sorted"), (0.5,))
    facts = {"device": "cpu", "version": "0", "sha256": "", "unofficial": unofficial, "authors": True}
    return {"job": asdict(job), **curves, **facts}


def test_a_cell_that_the_curves_do_not_say_is_named(adbench, tmp_path, monkeypatch):
    published = Path(__file__).parent.parent / "leaderboards"
    for name in ("audit", "mvtec-screw"):
        shutil.copytree(published / name, tmp_path / name)
    shutil.copy(published / "published_numbers.csv", tmp_path)
    assert list(differences(tmp_path / "audit")) == []
    path = tmp_path / "audit" / "audit.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]).replace("0.4599", "0.9999"))
    (_, where, problem), (name, gone, missing) = differences(tmp_path / "audit")
    assert where == "sagan, frog, seed 0, clean"
    assert problem.startswith("is '0.9999")
    assert (name, gone, missing) == ("audit.csv", "skip_ganomaly, ship, seed 0", "this row is missing")
    next((tmp_path / "audit").rglob("sagan/frog*.json")).unlink()
    ended = adbench("verify", tmp_path)
    assert ended.status == 1
    assert "audit/audit.csv: sagan, frog, seed 0: the folder curves has no file for this row" in ended.out
    alone = adbench("verify", tmp_path / "audit")  # as adbench audit wrote it, beside no board
    assert alone.out.splitlines()[0] in ended.out.splitlines()
    monkeypatch.chdir(tmp_path / "audit")
    assert {finding.board for finding in verify_audit(Path("."))} == {"audit"}


def test_a_published_number_in_an_audits_table_is_that_of_the_table_beside_it(tmp_path):
    shutil.copytree(LEADERBOARDS / "audit", tmp_path / "audit")
    text = NUMBERS.read_text()
    (tmp_path / "published_numbers.csv").write_text(text)
    assert list(differences(tmp_path / "audit")) == []
    (tmp_path / "published_numbers.csv").write_text(text.replace("SAGAN paper (ICIP 2021)", "another paper"))
    found = {where.rpartition(", ")[2] for _, where, _ in differences(tmp_path / "audit")}
    assert found == {"published_source"}
    (tmp_path / "published_numbers.csv").unlink()  # as in a folder of one's own
    assert list(differences(tmp_path / "audit")) == []


def test_among_boards_every_audit_is_checked_and_every_other_folder_is_named(adbench, tmp_path):
    for name in ("audit", "audit-2026"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "audit.csv").write_text("detector,key\nsagan,x\n")
    (tmp_path / "timing").mkdir()
    (tmp_path / "timing/timing.json").write_text("{}")
    (tmp_path / "timing/board.json").write_text("{}")
    (tmp_path / "one-vs-rest-2026").mkdir()
    (tmp_path / "one-vs-rest-2026/README.md").write_text("| rank | detector |\n| --- | --- |\n| 1 | mine |\n")
    (tmp_path / ".one-left-behind").mkdir()
    ended = adbench("verify", tmp_path)
    assert ended.status == 1
    assert "audit/audit.csv: sagan, None, seed None: the folder curves has no file for this row" in ended.out
    assert (
        "audit-2026/audit.csv: sagan, None, seed None: the folder curves has no file for this row"
        in ended.out
    )
    told = "one-vs-rest-2026/: should not be there: it is no board, no timing board and no audit"
    assert told in ended.out.splitlines()
    assert "timing/timing.json: cannot be understood" in ended.out  # both of the kinds that it says it is
    assert "timing/board.json: " in ended.out
    assert "left-behind" not in ended.out
    (tmp_path / "audit/curves").mkdir()
    assert "should not be there" not in adbench("verify", tmp_path / "audit").out


def test_what_macos_leaves_beside_the_curves_is_no_audit(tmp_path: Path) -> None:
    folder = tmp_path / "curves/digits"
    folder.mkdir(parents=True)
    for name in ("pca.json", "._pca.json", ".DS_Store"):
        (folder / name).write_text("")
    assert curves_in(tmp_path) == [folder / "pca.json"]


def other_epoch(path):
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"clean": [0.5, *record["clean"][1:]]}))


def no_auroc(path):
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"batch_statistics": [7.5, *record["batch_statistics"][1:]]}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (other_epoch, "curves_sha256: is "),
        (no_auroc, "is no audit: damaged or unreadable, or an AUROC is not within 0 to 1"),
        (lambda path: path.rename(path.with_name("other.json")), "its file name is not that of its job"),
        (
            lambda path: path.with_suffix(".png").write_bytes(b""),
            "its picture is missing, or is not drawn from these",
        ),
        (
            lambda path: (path.parents[4] / "audit.csv").write_text(
                (path.parents[4] / "audit.csv").read_text().replace("adbench_version,", "version,", 1)
            ),
            "its columns should be detector,dataset,",
        ),
    ],
)
def test_what_was_changed_in_an_audit_is_named_and_enters_no_board(harm, said, adbench, tmp_path):
    shutil.copytree(Path(__file__).parent.parent / "leaderboards/audit", tmp_path / "audit")
    harm(next((tmp_path / "audit").rglob("sagan/frog*.json")))
    assert said in " ".join(": ".join(each) for each in differences(tmp_path / "audit"))
    with pytest.raises(AdbenchError, match="do not match each other"):
        read_audit(tmp_path / "audit/audit.csv", ())


OTHER = ("", "holds the right cells, but other bytes than adbench audit writes; run it again")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: [line.replace("\n", "\r\n") for line in lines], [OTHER]),
        (lambda lines: [lines[0], lines[1].replace("\n", ",0.9\n"), *lines[2:]], [OTHER]),
        (lambda lines: [*lines, "\n"], [OTHER]),
        (lambda lines: ["\ufeff", *lines], [OTHER]),
        (lambda lines: [*lines, lines[1]], [("anotrans, frog, seed 0", "this row is there twice")]),
        (lambda lines: [lines[0], *lines[:0:-1]], []),
    ],
    ids=["line ends", "a cell more", "a blank line", "a byte order mark", "a row twice", "another order"],
)
def test_a_table_with_more_than_the_curves_say_is_named(change, told, tmp_path):
    shutil.copytree(LEADERBOARDS / "audit", tmp_path / "audit")
    shutil.copy(NUMBERS, tmp_path)
    path = tmp_path / "audit/audit.csv"
    path.write_bytes("".join(change(path.read_text().splitlines(keepends=True))).encode())
    assert [found[1:] for found in differences(tmp_path / "audit")] == told


def test_of_curves_that_cannot_be_read_the_row_is_not_said_to_lack_them(tmp_path):
    shutil.copytree(LEADERBOARDS / "audit", tmp_path / "audit")
    path = next((tmp_path / "audit").rglob("sagan/frog*.json"))
    no_auroc(path)
    assert [file for file, _, _ in differences(tmp_path / "audit")] == [
        path.relative_to(tmp_path / "audit").as_posix()
    ]


def test_an_audit_that_is_a_pipe_or_no_table_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "wide.csv").write_text("key,as_published\n" + "x" * 200_000)
    for name in ("pipe.csv", "wide.csv"):
        with (
            in_time(5),
            pytest.raises(AdbenchError, match=r"cannot be read as an audit\.csv: .*(regular|limit)"),
        ):
            read_audit(tmp_path / name, ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key,as_published\nk,nan\n", "column as_published: nan is not within 0 to 1; audit again"),
        ("key,as_published\nk,1.7\n", "column as_published: 1.7 is not within 0 to 1"),
        ("key,as_published\nk,0.5\nk,0.6\n", "key k is there twice"),
        ("as_published\n0.5\n", "it has no column key"),
        ("key;as_published\nk;0.5\n", "it has no column key"),
        ("", "it has no column key"),
    ],
)
def test_an_audit_that_would_give_a_wrong_number_is_refused(text, said, tmp_path):
    (tmp_path / "audit.csv").write_text(text)
    with pytest.raises(AdbenchError, match=r"audit\.csv cannot be read as an audit\.csv") as caught:
        read_audit(tmp_path / "audit.csv", ["k"])
    assert said in str(caught.value)
    with pytest.raises(AdbenchError, match=r"is a folder; name the audit\.csv in it"):
        read_audit(tmp_path, ["k"])


@pytest.mark.parametrize(("delta", "told"), [(5e-5, 0), (2e-4, 1)])
def test_clean_is_as_clean_as_a_run_asks_of_its_precision(delta, told, tmp_path, monkeypatch):
    curves = dict.fromkeys(CURVES, (0.5,))
    monkeypatch.setattr(audits, "audit", lambda *_: Audit(**curves, purity_delta=delta))
    assert audited(tmp_path, "normed")[1] == 0
    (path,) = curves_in(tmp_path)
    assert (
        len([note for note in json.loads(path.read_text())["notes"] if "the clean scores depend" in note])
        == told
    )


def test_the_documented_lines_score_in_batches_of_one_image(adbench, tmp_path, capsys):
    make_cifar10(tmp_path / "data", batch=40, test=40)
    data = "--data cifar10 --data-root data --protocol leave-one-out-6k --categories frog"
    words = f"run {data} --detectors ganomaly --preset quick --save-models"
    assert adbench(*words.split()).status == 0
    page = (Path(__file__).parents[1] / "docs/audit.md").read_text()
    lines = re.search(r"## Batches of one image.*?```python\n(.*?)```", page, re.S)[1]
    exec(lines, found := {})
    detector, split = found["detector"], found["split"]
    with networks_as(detector.networks, training=True):
        alone = np.concatenate([detector.score(image[None]).numpy() for image in split.test.on("cpu")])
    assert float(capsys.readouterr().out) == pytest.approx(auroc(alone, split.labels, 0.0))
    assert not np.allclose(alone, score_as(detector, split.test, np.arange(len(alone)), training=False))

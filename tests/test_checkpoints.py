"""A training that is cut short and taken up again ends like one that was not; what is kept can be nobody's trap."""

import errno
import json
import math
import os
import random
import re
import signal
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from make_process import Forked
from safetensors.torch import save
from test_conformance import TINY
from torch import nn

from adbench_tgan import Detector, Endless, ImageSet, TrainSet, checkpoints
from adbench_tgan.checkpoints import Checkpoint, packed, parts_of, put_back, sealed, state_of, unpacked
from adbench_tgan.errors import AdbenchError
from adbench_tgan.registry import Registry
from adbench_tgan.results import PARTIAL, ResultStore
from adbench_tgan.runner import seed_everything
from adbench_tgan.store import places
from adbench_tgan.testing import smooth_images
from adbench_tgan.testing.pictures import negative
from adbench_tgan.training import fit

REGISTRY = Registry.discover()
SHAPE = (3, 32, 32)
SETTINGS = TINY | {  # two epochs and more, in both stages where there are two
    "transgan_anogan": {"iterations": 15, "walk_steps": 3},
    "transgan_dual": {"warmup_epochs": 2, "epochs": 2},
}


class Cut(Exception):
    pass


def cut_after(epoch):
    def look(number, losses):
        if number == epoch:
            raise Cut

    return look


def trainset():
    return TrainSet(ImageSet(smooth_images(40, SHAPE, 0)), ImageSet(negative(smooth_images(24, SHAPE, 2))))


def built(name, **settings):
    """As the runner does it."""
    seed_everything(3)
    detector = REGISTRY.detector(name)
    words = {**detector.presets["quick"], **SETTINGS.get(name, {}), **settings}
    return detector(detector.plan(detector.Config.model_validate(words)), seed=3)


def trained(name, path=None, every=None, on_epoch=None, **settings):
    detector = built(name, **settings)
    kept = Checkpoint(path, "a key", every) if path else None
    return detector, fit(detector, trainset(), on_epoch, kept)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# A check of conformance cuts the training of every detector so; of the last two it sees fewer epochs and stages.
@pytest.mark.parametrize("name", ["ganomaly", "transgan_anogan", "transgan_dual"])
def test_a_training_cut_again_and_again_ends_like_a_whole_one(name, tmp_path):
    whole, losses = trained(name)
    assert len(losses) == whole.expected_epochs(trainset()) > 1
    path = tmp_path / "kept.checkpoint"
    for epoch in sorted({1, len(losses) // 2, len(losses) - 1, len(losses)}):
        with pytest.raises(Cut):
            trained(name, path, 1, cut_after(epoch))
        assert parts_of(path.read_bytes())[0].losses == losses[:epoch]
    again, losses_again = trained(name, path)
    assert losses_again == losses
    assert_equal(again.state(), whole.state())
    assert again.notes == [f"training was interrupted, and taken up again after epoch {len(losses)}"]
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_only_every_nth_epoch_is_kept(tmp_path):
    path, seen = tmp_path / "kept.checkpoint", []
    trained("ganomaly", path, 2, lambda number, _: seen.append(path.exists()), epochs=5)
    assert seen == [False, True, True, True, True]
    assert len(parts_of(path.read_bytes())[0].losses) == 4


def test_seconds_of_training_are_without_those_of_keeping_it(tmp_path, monkeypatch):
    path, clock, real = tmp_path / "kept.checkpoint", [0.0], places.replace

    def spend(seconds):
        clock[0] += seconds

    def slow(path, data):
        real(path, data)
        spend(100)

    monkeypatch.setattr(checkpoints, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(places, "replace", slow)
    for epochs, seconds in ((3, 2), (5, 3)):  # an epoch's own second comes after it is kept
        kept = Checkpoint(path, "a key", 1)
        fit(built("ganomaly", epochs=epochs), trainset(), lambda *_: spend(1), kept)
        assert parts_of(path.read_bytes())[0].seconds == seconds
    assert (kept.seconds, kept.spent) == (2, 200)  # before it went on, and on keeping two more epochs


def test_batches_without_end_go_on_in_the_middle_of_a_pass():
    def batches():
        return Endless(lambda order: iter(torch.randperm(5, generator=order).tolist()), seed=7)

    whole = batches()
    seen = [next(whole) for _ in range(23)]
    assert sorted(seen[:5]) == sorted(seen[5:10]) == [0, 1, 2, 3, 4]
    for taken in (0, 3, 5, 13):
        one, other = batches(), batches()
        assert [next(one) for _ in range(taken)] == seen[:taken]
        other.load_state_dict(one.state_dict())
        assert [next(other) for _ in range(23 - taken)] == seen[taken:]


def test_all_global_random_numbers_go_on():
    seed_everything(5)
    state = checkpoints.dice("cpu")

    def draw():
        numbers = np.random.rand(3).tolist()  # noqa: NPY002 (strangers may draw from it)
        return torch.rand(2).tolist(), numbers, random.gauss(0, 1), random.random()

    first = draw()
    tensors = {}
    plain = json.loads(json.dumps(packed(state, "dice", tensors)))
    checkpoints.set_dice(unpacked(plain, tensors), "cpu")
    assert draw() == first


def test_the_generator_of_a_gpu_is_kept_and_given_back(monkeypatch):
    states, given = {"cuda:1": torch.arange(3, dtype=torch.uint8)}, {}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[str(device)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: given.update({str(device): state}))
    state = checkpoints.dice("cuda:1")
    checkpoints.set_dice(state, "cpu")  # it may go on without one
    assert given == {}
    checkpoints.set_dice(state, "cuda:1")
    assert given == {"cuda:1": states["cuda:1"]}


def test_what_is_packed_comes_back_in_kind():
    tree = {
        "a": [1, 2.5, None, "x", True],
        3: (torch.arange(3), {"b": torch.zeros(2, 2)}),
        "empty": {},
        "count": Counter("aab"),
    }
    tensors = {}
    plain = json.loads(json.dumps(packed(tree, "tree", tensors)))
    again = unpacked(plain, tensors)
    assert repr(again) == repr(tree)
    assert len(tensors) == 2


def test_an_optimisers_tensors_are_laid_out_as_its_weights():
    def made():
        network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return network, torch.optim.Adam(network.parameters())

    network, optimizer = made()
    network(torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    tensors = {}
    state = unpacked(packed(state_of(optimizer), "part", tensors), tensors)
    twin, other = made()
    put_back(other, state)
    moment = other.state[twin.weight]["exp_avg"]
    assert moment.stride() == twin.weight.stride() != moment.contiguous().stride()
    assert torch.equal(moment, optimizer.state[network.weight]["exp_avg"])


def test_an_optimiser_keeps_the_kernels_of_its_own_device():
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    optimizer = torch.optim.Adam([weight], lr=0.5)
    optimizer.step()
    state = state_of(optimizer)
    state["param_groups"][0] |= {"fused": True, "capturable": True, "lr": 0.25}  # as kept on a GPU
    put_back(optimizer, state)
    group = optimizer.param_groups[0]
    assert (group["fused"], group["capturable"], group["lr"]) == (None, False, 0.25)
    optimizer.step()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda data: b"", "it is damaged"),
        (lambda data: data[: len(data) // 2], "it is damaged"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "it is damaged"),
        (lambda data: sealed(data[32:-1]), "SafetensorError"),
        (lambda data: sealed(data[32:].replace(b'"a key"', b'"b key"')), "it belongs to another job"),
        (lambda data: sealed(data[32:].replace(b'"schema":1', b'"schema":2')), "schema"),
        (lambda data: sealed(data[32:].replace(b'"losses":[{', b'"losses":"{')), "ValidationError"),
    ],
)
def test_what_is_damaged_is_not_used_and_the_row_says_so(harm, said, tmp_path):
    path = tmp_path / "kept.checkpoint"
    whole, _ = trained("ganomaly")
    with pytest.raises(Cut):
        trained("ganomaly", path, 1, cut_after(2))
    path.write_bytes(harm(path.read_bytes()))
    again, _ = trained("ganomaly", path)
    assert_equal(again.state(), whole.state())
    (note,) = again.notes
    assert note.startswith("training started from the beginning: kept.checkpoint cannot be used: ")
    assert said in note


def test_a_file_larger_than_any_checkpoint_is_neither_read_nor_written(tmp_path, monkeypatch):
    path = tmp_path / "kept.checkpoint"
    detector = built("ganomaly")
    detector.build(SHAPE)
    with path.open("wb") as file:
        file.truncate(checkpoints.largest(detector) + 1)  # takes no room on the disk
    monkeypatch.setattr(checkpoints, "parts_of", None)
    Checkpoint(path, "a key").take_up(detector, {})
    assert f"{path} has more than " in detector.notes.pop()
    path.unlink()
    monkeypatch.setattr(checkpoints, "TIMES", 0)
    monkeypatch.setattr(checkpoints, "ROOM", 100_000)
    kept = Checkpoint(path, "a key", 1)
    kept.take_up(detector, {})
    kept.losses.append({"loss": 1.0})
    kept.epoch_ended(detector)
    assert re.fullmatch(
        r"its checkpoint could not be saved: it has [\d,]+ bytes, more than the limit of 100,000",
        *detector.notes,
    )
    assert not path.exists()


def test_a_damaged_file_is_hashed_where_it_lies():
    data = bytes(2**24)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="it is damaged"):
            parts_of(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_what_is_no_tensor_is_short(monkeypatch):
    monkeypatch.setattr(checkpoints, "LARGEST_ABOUT", 100)
    data = sealed(save({checkpoints.ABOUT: torch.zeros(101, dtype=torch.uint8)}))
    with pytest.raises(ValueError, match="its description has more than 100 bytes"):
        parts_of(data)


def test_what_does_not_fit_the_detector_is_one_line(tmp_path):
    path = tmp_path / "kept.checkpoint"
    with pytest.raises(Cut):
        trained("ganomaly", path, 1, cut_after(1))
    with pytest.raises(
        AdbenchError, match=r"kept.checkpoint does not fit this detector: .*; delete it, then run"
    ):
        trained("ganomaly", path, width=4)


def test_a_full_disk_costs_the_checkpoint_alone(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    whole, _ = trained("ganomaly")
    monkeypatch.setattr("adbench_tgan.store.places.replace", full)
    again, _ = trained("ganomaly", tmp_path / "kept.checkpoint", 1)
    assert_equal(again.state(), whole.state())
    (note,) = again.notes
    assert note.startswith("its checkpoint could not be saved: No space left on device")


class Plain(Detector):
    """Knows nothing of interruptions."""

    def epochs(self, train):
        yield from ({"loss": 1.0}, {"loss": 0.5})

    def score(self, images):
        return images.float().mean((1, 2, 3))


def test_a_detector_that_does_not_resume_says_so(tmp_path):
    path = tmp_path / "kept.checkpoint"
    detector = Plain()
    fit(detector, trainset(), checkpoint=Checkpoint(path, "a key", 1))
    assert detector.notes == ["no checkpoint was saved: its epochs do not call resume"]
    assert not path.exists()
    assert detector.checkpoint is None


class Own(Plain):
    """Its own fit runs its epochs."""

    def fit(self, train):
        return super().fit(train)


def test_a_detector_with_a_fit_of_its_own_says_that_nothing_is_kept(tmp_path):
    path = tmp_path / "kept.checkpoint"
    for every, notes in (
        (1, ["no checkpoint was saved: it has a fit of its own, which does not call resume"]),
        (None, []),
    ):
        detector = Own()
        fit(detector, trainset(), checkpoint=Checkpoint(path, "a key", every))
        assert detector.notes == notes
    assert not path.exists()


class Twice(Plain):
    def epochs(self, train):
        self.resume()
        yield {"loss": 1.0}
        self.resume()


def test_what_a_training_kept_itself_is_not_taken_up_in_it(tmp_path):
    with pytest.raises(AdbenchError, match=r"^epochs call resume more than once; call it once, right before"):
        fit(Twice(), trainset(), checkpoint=Checkpoint(tmp_path / "kept.checkpoint", "a key", 1))


class Naming(Plain):
    """Names one part in resume."""

    def epochs(self, train):
        self.resume(part=self.part)
        yield {"loss": 1.0}


def behind():
    """An optimiser whose weights were replaced after a step."""
    weight = torch.zeros(1, requires_grad=True)
    weight.sum().backward()
    optimizer = torch.optim.Adam([weight])
    optimizer.step()
    optimizer.param_groups[0]["params"] = [torch.zeros(1, requires_grad=True)]
    return optimizer


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            np.random.default_rng(0),
            "part, given to resume, is a numpy.random._generator.Generator; give it tensors, torch.Generators, or objects "
            "with state_dict and load_state_dict",
        ),
        (
            SimpleNamespace(state_dict=dict),
            "part, given to resume, is a types.SimpleNamespace; give it tensors",
        ),
        (
            SimpleNamespace(state_dict=lambda: {1: object()}, load_state_dict=None),
            "PydanticSerializationError: ",
        ),
        (
            SimpleNamespace(state_dict=lambda: 1 / 0, load_state_dict=None),
            "ZeroDivisionError: division by zero",
        ),
        (
            behind(),
            "the optimiser part, given to resume, has state for weights that it no longer trains; change weights in place",
        ),
    ],
)
@pytest.mark.parametrize("every", [1, None])
def test_a_part_that_cannot_be_kept_costs_the_checkpoint_alone(part, said, every, tmp_path):
    path = tmp_path / "kept.checkpoint"
    detector = Naming()
    detector.part = part
    assert fit(detector, trainset(), checkpoint=Checkpoint(path, "a key", every)) == [{"loss": 1.0}]
    told = detector.notes.pop() if every else f"its checkpoint could not be saved: {said}"
    assert told.startswith(f"its checkpoint could not be saved: {said}")
    assert detector.notes == []
    assert not path.exists()


class Stopping(Plain):
    """Keeps the best loss so far, at first none, and a tensor by the name of what a checkpoint says of itself."""

    def epochs(self, train):
        self.stop, self.about = SimpleNamespace(best=math.inf, worst=-math.inf), torch.zeros(2)
        self.stop.state_dict = lambda: {name: getattr(self.stop, name) for name in ("best", "worst")}
        self.stop.load_state_dict = lambda found: vars(self.stop).update(found)
        done = self.resume(stop=self.stop, about=self.about)
        self.found = self.stop.best, self.stop.worst, self.about.tolist()
        for _ in range(done, 2):
            self.about += 1
            yield {"loss": 1.0}


def test_infinities_are_kept_and_any_name_is_free(tmp_path):
    path = tmp_path / "kept.checkpoint"
    with pytest.raises(Cut):
        fit(Stopping(), trainset(), cut_after(1), Checkpoint(path, "a key", 1))
    again = Stopping()
    fit(again, trainset(), checkpoint=Checkpoint(path, "a key", 1))
    assert again.found == (math.inf, -math.inf, [1, 1])
    assert again.about.tolist() == [2, 2]


RUN = ("run", "--detectors", "ganomaly", "--categories", "0", "--device", "cpu", "--no-timing")
LONG = ("--set", "ganomaly.width=8", "--set", "ganomaly.epochs=20", "--set", "ganomaly.batch_size=60")


def scores(out):
    (path,) = Path(out).glob("digits/*/*/*/scores.parquet")
    return path.read_bytes()


def test_a_killed_run_takes_its_training_up(adbench, tmp_path):
    assert adbench(*RUN, *LONG, "--out", "whole").status == 0
    words = [*RUN, *LONG, "--checkpoint-every", "1", "--out", "runs"]
    process = Forked(*words, "--executor", "processes", cwd=tmp_path)
    until = time.monotonic() + 120
    while not (kept := list((tmp_path / "runs" / PARTIAL).glob("*.checkpoint"))):
        assert process.process.is_alive()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send(signal.SIGKILL)
    process.wait()
    assert len(kept) == 1
    again = adbench(*words)
    assert again.status == 0, again.err
    assert "training was interrupted, and taken up again after epoch " in again.err
    assert scores("runs") == scores("whole")
    ResultStore(Path("runs")).open()  # clears what its worker, outliving it for a moment, was writing
    assert list((tmp_path / "runs" / PARTIAL).iterdir()) == []

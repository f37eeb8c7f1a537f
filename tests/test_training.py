"""What trained detectors share."""

import math
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_graphs import TRAINED
from torch.utils._pytree import tree_leaves

from adbench_tgan import AdbenchError, Detector, ImageSet, TrainSet, mean_losses, to_uint8
from adbench_tgan.errors import TrainingDiverged
from adbench_tgan.registry import Registry
from adbench_tgan.testing.checks_fitting import networks_are_in_eval_mode_after_fit
from adbench_tgan.training import check_finite, dice_kept, fit, seed_everything


@pytest.mark.parametrize(
    ("epochs", "told"),
    [
        ([0.5], "yields something of type float"),
        (None, "returns something of"),
        ({"loss": 0.5}, "returns something of type dict"),
    ],
)
def test_epochs_that_are_no_losses_by_name_are_a_mistake_in_words(epochs, told):
    class Careless(Detector):
        def epochs(self, train):
            return epochs

        def score(self, images):
            return images

    with pytest.raises(AdbenchError, match=f"epochs {told}.*; it must yield losses by name"):
        fit(Careless(), SimpleNamespace())


@pytest.mark.parametrize("networks", [[torch.nn.Identity()], {"net": None}, None])
def test_networks_that_are_no_modules_by_name_are_a_mistake_in_words(networks):
    class Listing(Detector):
        def fit(self, train):
            return self

        def score(self, images):
            return images

    Listing.networks = torch.nn.ModuleDict({"net": torch.nn.Identity()})
    fit(Listing(), SimpleNamespace())
    Listing.networks = networks
    with pytest.raises(
        AdbenchError, match=r"^Listing\.networks must be a dictionary of torch modules by name$"
    ):
        fit(Listing(), SimpleNamespace())
    with pytest.raises(AdbenchError, match=r"^Listing\.networks must be"):
        networks_are_in_eval_mode_after_fit(SimpleNamespace(detector=Listing()))
    with pytest.raises(AdbenchError, match=r"^Listing\.networks must be"):
        Listing().state()


def test_a_mean_of_many_short_floats_is_their_mean():
    steps = [{"loss": torch.tensor(1.0703125, dtype=torch.bfloat16)}] * 2000
    assert mean_losses(steps) == {"loss": pytest.approx(1.0703125)}


def test_a_loss_that_the_next_step_overwrites_counts_as_it_was():
    kept = torch.zeros(())

    def steps():
        for number in range(4):
            yield {"loss": kept.fill_(number)}

    assert mean_losses(steps()) == {"loss": 1.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_finite_number_ends_the_training(value):
    check_finite({"loss_g": 1.0, "loss_d": -2.5}, 3)
    with pytest.raises(TrainingDiverged, match=rf"^loss loss_d became {value} in epoch 3; try a lower learn"):
        check_finite({"loss_g": 1.0, "loss_d": value}, 3)


class Calibrated(Detector):
    """Trains in epochs, and goes on in a `fit` of its own."""

    def epochs(self, train):
        self.layer = torch.nn.Dropout()
        yield {"loss": 1.0}
        yield {"loss": self.last}

    def fit(self, train):
        super().fit(train)
        self.scale = 2.0
        return self

    def score(self, images):
        return images.float().mean((1, 2, 3)) * self.scale

    @property
    def networks(self):
        return {"layer": self.layer}


def test_a_fit_of_ones_own_may_call_the_one_that_runs_the_epochs():
    detector, train = Calibrated(), TrainSet(ImageSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8)))
    detector.last = 0.5
    assert fit(detector, train) == []
    assert detector.scale == 2
    assert not detector.layer.training
    detector.last = math.nan
    with pytest.raises(TrainingDiverged, match=r"^loss loss became nan in epoch 2"):
        detector.fit(train)


def test_every_global_generator_is_seeded():
    def drawn(seed):
        seed_everything(seed)
        return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002 (strangers' may draw from it)

    first, again, other = drawn(5), drawn(5), drawn(6)
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("used", [True, False])
def test_random_numbers_of_gpus_in_use_are_put_back_and_no_other_gpu_is_woken(used, monkeypatch):
    states = {0: "first", 1: "second"}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state", states.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, gpu: states.update({gpu: state}))
    with dice_kept():
        states.update({0: "drawn", 1: "drawn"})
    assert states == ({0: "first", 1: "second"} if used else {0: "drawn", 1: "drawn"})


def test_an_incomplete_last_batch_is_dropped_unless_it_is_the_only_one():
    images = ImageSet(torch.zeros(8, 1, 2, 2, dtype=torch.uint8))
    for size, dropped, kept in ((3, [3, 3], [3, 3, 2]), (8, [8], [8]), (9, [8], [8])):
        assert [len(batch) for batch in images.batches(size, drop_last=True)] == dropped
        assert [len(batch) for batch in images.batches(size)] == kept


REGISTRY = Registry.discover()
NARROW = {  # so that what counts here, the loops around the steps, is all that takes time
    "anogan": {"width": 2, "latent": 2, "iterations": None},
    "anotrans": {"patch": 2, "width": 4, "discriminator_width": 2, "latent": 2},
    "egbad": {"width": 2, "latent": 2, "steps": 6},
    "f_anogan": {"width": 2, "latent": 2, "n_critic": 3, "gan_steps": 2, "encoder_steps": 3},
    "transgan_anogan": {"latent": 2, "n_critic": 1, "iterations": 6},
    "transgan_dual": {
        "latent": 2,
        "warmup_epochs": 1,
        "epochs": 1,
        "mode": "unsupervised",
        "backbone": "none",
    },
}


def stepless(name, monkeypatch, seed=0, count=12, **settings):
    """The images that a training, in batches of four, hands to its steps, as numbers; and its optimisers."""
    batches, parts = [], {}

    def stepper(detector, step):
        return lambda *given: batches.extend(tree_leaves(given)) or {"loss": torch.zeros(())}

    cls = REGISTRY.detector(name)
    words = {**cls.presets["quick"], "epochs": 2, "batch_size": 4, **NARROW.get(name, {}), **settings}
    words = {key: value for key, value in words.items() if key in cls.Config.model_fields}
    detector = cls(cls.plan(cls.Config.model_validate(words)), seed=seed)
    monkeypatch.setattr(sys.modules[cls.__module__], "stepper", stepper)
    monkeypatch.setattr(cls, "resume", lambda self, **named: parts.update(named) or 0)
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 32, 32)
    list(detector.epochs(TrainSet(ImageSet(images))))
    numbers = [batch.flatten(1)[:, 0] for batch in batches if batch is not None and batch.ndim == 4]
    numbers = [each if each.dtype == torch.uint8 else ((each + 1) * 127.5).round() for each in numbers]
    optimizers = {key: part for key, part in parts.items() if isinstance(part, torch.optim.Optimizer)}
    return [[int(number) for number in each] for each in numbers], optimizers


@pytest.mark.parametrize("name", TRAINED)
def test_each_pass_takes_all_images_in_another_order_which_follows_the_seed(name, monkeypatch):
    first, other = (stepless(name, monkeypatch, seed=seed)[0] for seed in (0, 1))
    assert {len(batch) for batch in first} == {4}
    taken = [number for batch in first[:6] for number in batch]  # in two passes, or in batches a and b of one
    assert sorted(taken) == sorted([*range(12)] * 2)
    assert first[:3] != first[3:6]
    assert other[:6] != first[:6]
    assert stepless(name, monkeypatch)[0] == first


@pytest.mark.parametrize("name", TRAINED)
def test_each_pass_leaves_out_an_incomplete_last_batch(name, monkeypatch):
    batches = stepless(name, monkeypatch, count=14)[0]
    assert {len(batch) for batch in batches} == {4}
    assert len(batches) >= 6


@pytest.mark.parametrize("name", TRAINED)
def test_optimisers_have_the_rates_and_betas_of_the_settings(name, monkeypatch):
    fields = REGISTRY.detector(name).Config.model_fields
    asked = {"lr": 0.125, "encoder_lr": 0.25, "beta1": 0.375, "betas": (0.25, 0.75)}
    _, optimizers = stepless(name, monkeypatch, **{key: asked[key] for key in asked if key in fields})
    assert optimizers
    for key, optimizer in optimizers.items():
        (group,) = optimizer.param_groups
        if isinstance(optimizer, torch.optim.Adam):
            betas = asked["betas"] if "betas" in fields else (asked["beta1"], 0.999)
            assert (group["lr"], group["betas"], group["eps"]) == (0.125, betas, 1e-8), key
        elif isinstance(optimizer, torch.optim.RMSprop):  # TensorFlow's decay
            assert (group["lr"], group["alpha"]) == (0.25, 0.9), key
        else:
            assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.125, 0.9, 1e-4), key


def test_pixels_beyond_their_range_are_clipped():
    assert to_uint8(torch.tensor([-1.5, -1, 0, 1, 1.5])).tolist() == [0, 0, 128, 255, 255]

"""AnoGAN against the specification: sizes, losses by hand, averages, and its search against one of torch's own parts."""

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from make_networks import changed, idle

from adbench_baselines import anogan
from adbench_baselines.anogan import AnoGAN, Config, discriminator_loss
from adbench_tgan import ImageSet, TrainSet, to_uint8, to_unit
from adbench_tgan.audit import score_as
from adbench_tgan.jobs import entry
from adbench_tgan.registry import Registry
from adbench_tgan.scoring import operations
from adbench_tgan.testing import smooth_images

SMALL = Config(width=4, latent=8, epochs=1, iterations=None, batch_size=8, steps=6, search_lr_until=(2, 4))


def images(count=16, channels=1, seed=0):
    return smooth_images(count, (channels, 32, 32), seed)


def built(shape=(1, 32, 32), config=SMALL, **settings):
    torch.manual_seed(0)
    detector = AnoGAN(config.model_copy(update=settings))
    detector.build(shape)
    return detector


def fitted(**settings):
    torch.manual_seed(0)
    return AnoGAN(SMALL.model_copy(update=settings)).fit(TrainSet(ImageSet(images(24))))


@pytest.fixture(scope="module", name="trained")
def fixture_trained():
    return fitted(epochs=3, ema=0.5, lr=1e-3)


@pytest.mark.parametrize(("size", "features"), [(32, 256), (64, 512)])
def test_images_logits_and_features(size, features):
    detector = built((3, size, size), Config())
    z = torch.randn(2, 100)
    x_hat = detector.draw(z * 100)
    logit, f = detector.discriminator(x_hat)
    assert x_hat.shape == (2, 3, size, size)
    assert 0.5 < x_hat.abs().max() <= 1
    assert logit.shape == (2,)
    assert f.shape == (2, features, 4, 4)
    assert detector.generator[0].weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_defaults_are_those_of_the_specification():
    c = Config()
    assert (c.latent, c.lr, c.beta1, c.batch_size, c.epochs, c.ema) == (100, 2e-4, 0.5, 64, 25, 0.999)
    assert (c.lam, c.steps, c.restarts, c.patience) == (0.1, 500, 1, 0)


def test_discriminator_loss_by_hand():
    real, fake = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.0])
    s = torch.sigmoid
    expected = -(s(real).log().mean() + (1 - s(fake)).log().mean())
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    assert discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(2 * 0.693147, abs=1e-5)


def test_the_discriminator_moves_first_and_the_generator_meets_the_new_one():
    x = to_unit(images(8))
    losses = []
    for lr in (0.0, 0.02):
        detector = built()
        torch.manual_seed(1)
        optimizer_d = torch.optim.SGD(detector.discriminator.parameters(), lr=lr)
        losses.append(detector.step(x, idle(), optimizer_d))
    assert losses[0]["loss_d"] == losses[1]["loss_d"]
    assert losses[1]["loss_g"] > losses[0]["loss_g"]  # a better judge is harder to deceive


def test_losses_of_a_step_are_those_of_the_networks_outputs():
    detector = built()
    x = to_unit(images(8))
    torch.manual_seed(1)
    z_d, z_g = torch.randn(2, 8, 8, 1, 1).unbind()
    fake_d, fake_g = detector.generator(z_d).detach(), detector.generator(z_g).detach()
    judge = detector.discriminator
    on_real, on_fake = judge(x)[0].sigmoid(), judge(fake_d)[0].sigmoid()
    torch.manual_seed(1)
    losses = detector.step(x, idle(), idle())
    torch.testing.assert_close(losses["loss_d"], -(on_real.log().mean() + (1 - on_fake).log().mean()))
    torch.testing.assert_close(losses["loss_g"], -judge(fake_g)[0].sigmoid().log().mean())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_searches_are_averages_of_the_weights_with_the_last_statistics(ema, monkeypatch):
    seen = []
    step = AnoGAN.step

    def spy(self, *args):
        losses = step(self, *args)
        seen.append({name: network.state_dict() for name, network in self.networks.items()})
        seen[-1] = {name: {k: v.clone() for k, v in state.items()} for name, state in seen[-1].items()}
        return losses

    monkeypatch.setattr(AnoGAN, "step", spy)
    detector = fitted(epochs=2, ema=ema, lr=1e-2)
    assert len(seen) == 6
    for name, key in (("generator", "0.weight"), ("discriminator", "classifier.weight")):
        expected = seen[0][name][key]
        for state in seen[1:]:
            expected = ema * expected + (1 - ema) * state[name][key]
        torch.testing.assert_close(detector.networks[name].state_dict()[key], expected)
    statistics = "1.running_mean"
    assert torch.equal(detector.generator.state_dict()[statistics], seen[-1]["generator"][statistics])


def test_a_budget_in_iterations_or_in_passes(monkeypatch):
    calls = []
    monkeypatch.setattr(AnoGAN, "step", lambda *_: calls.append(1) or {"loss": torch.zeros(())})
    train = TrainSet(ImageSet(images(24)))
    assert len(list(AnoGAN(SMALL.model_copy(update={"epochs": 4})).epochs(train))) == 4
    assert len(calls) == 12
    calls.clear()
    assert len(list(AnoGAN(SMALL.model_copy(update={"iterations": 47})).epochs(train))) == 16
    assert len(calls) == 47


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [([], 10_000), (["epochs=4"], 4), (["epochs=4", "iterations=auto"], 10_000), (["iterations=7"], 7)],
)
def test_epochs_that_are_set_alone_count_on_few_images_too(overrides, steps):
    asked = entry(Registry.discover(), "anogan", "paper", [f"anogan.{each}" for each in overrides], print)
    assert sum(AnoGAN(asked.config).counts(TrainSet(ImageSet(images(24))))) == steps


def reference(detector, image, cross_entropy=False):
    """AnoGAN's search for one image, with torch's own Adam."""
    c = detector.config
    x = to_unit(image[None])
    z = anogan.starts(image[None], c.latent, detector.seed, prior="truncated")[0].requires_grad_()
    optimizer = torch.optim.Adam([z])

    def loss():
        x_hat = detector.generator(z[:, :, None, None])
        residual = (x - x_hat).abs().sum()
        logit, f = detector.discriminator(x_hat)
        judged = (f - detector.discriminator(x)[1]).abs().sum()
        if cross_entropy:
            judged = F.binary_cross_entropy_with_logits(logit, torch.ones(1))
        return 0.9 * residual + 0.1 * judged

    for rate in (0.01, 0.01, 0.001, 0.001, 0.0005, 0.0005):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    detector.discriminator.zero_grad()
    detector.generator.zero_grad()
    return z.detach(), loss().detach()


@pytest.mark.parametrize("feature", ["fm", "cross-e"])
def test_the_score_is_the_loss_at_the_end_of_each_images_own_search(trained, feature):
    probe = images(3, seed=5)
    detector = changed(trained, feature=feature)
    found = detector.find(probe)
    ends = [reference(detector, image, feature == "cross-e") for image in probe]
    torch.testing.assert_close(found.z, torch.cat([z for z, _ in ends]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(detector.score(probe), torch.stack([loss for _, loss in ends]))


def test_the_two_discriminator_losses_differ_and_lambda_weighs_them(trained):
    probe = images(4, seed=5)
    assert not torch.allclose(changed(trained, feature="cross-e").score(probe), trained.score(probe))
    residual = changed(trained, lam=0.0)
    sums = residual.anomaly_map(probe).sum((1, 2))
    torch.testing.assert_close(residual.score(probe), sums)


def test_learning_rates_of_the_search(trained, monkeypatch):
    rates = {}
    monkeypatch.setattr(anogan, "search", lambda *args, **_: rates.update(now=args[3]))
    changed(trained, **{name: getattr(Config(), name) for name in ("steps", "search_lr_until")}).walk(
        images(1)
    )
    assert rates["now"] == [0.01] * 200 + [0.001] * 100 + [0.0005] * 200


def test_searches_start_from_a_truncated_normal(trained, monkeypatch):
    asked = []
    monkeypatch.setattr(anogan, "starts", lambda *given, **named: asked.append((given[1:], named)))
    monkeypatch.setattr(anogan, "search", lambda *_, **__: None)
    trained.walk(images(1))
    assert asked == [((8, 0, 1), {"prior": "truncated"})]


def test_features_of_the_real_image_are_taken_once(trained):
    calls = []
    hook = trained.discriminator.register_forward_hook(lambda *_: calls.append(1))
    trained.score(images(2))
    hook.remove()
    assert len(calls) == 1 + trained.config.steps + 1  # the image, each step, and the end


def test_map_and_reconstruction_are_of_the_z_that_was_found(trained):
    probe = images(4, seed=3)
    x_hat = trained.draw(trained.find(probe).z).detach()
    torch.testing.assert_close(trained.anomaly_map(probe), (to_unit(probe) - x_hat).abs().sum(1))
    assert torch.equal(trained.reconstruct(probe), to_uint8(x_hat))


def test_maps_sum_over_channels():
    detector = built((3, 32, 32)).fit(TrainSet(ImageSet(images(8, 3))))
    probe = images(2, 3)
    x_hat = detector.draw(detector.find(probe).z).detach()
    torch.testing.assert_close(detector.anomaly_map(probe), (to_unit(probe) - x_hat).abs().sum(1))


def test_more_restarts_find_no_worse_and_another_seed_another_z(trained):
    probe = images(4, seed=3)
    once, thrice = trained.score(probe), changed(trained, restarts=3).score(probe)
    assert (thrice <= once).all()
    assert (thrice < once).any()
    other = changed(trained)
    other.seed = 1
    assert not torch.equal(other.score(probe), once)


def test_patience_ends_searches_early_near_the_same_loss(trained):
    probe = images(4, seed=3)
    long = changed(trained, steps=300, search_lr=(0.1, 0.1, 0.1))
    short = changed(long, patience=10, tolerance=0.02)
    calls = []
    hook = trained.discriminator.register_forward_hook(lambda *_: calls.append(1))
    scores = short.score(probe)
    hook.remove()
    assert len(calls) < 250
    assert (scores >= 0.98 * long.score(probe)).all()
    assert (scores < trained.score(probe)).all()


@pytest.mark.parametrize("together", [None, 4])
def test_scores_do_not_depend_on_the_batch(trained, together):
    probe = images(7, seed=3)
    detector = changed(trained, together=together, steps=20)
    whole = detector.score(probe)
    for size in (1, 3):
        parts = torch.cat([detector.score(part) for part in probe.split(size)])
        torch.testing.assert_close(parts, whole, rtol=1e-5 if together is None else 0, atol=0)


def test_noise_scores_above_normal_images(trained):
    detector = changed(trained, steps=40, search_lr=(0.1, 0.1, 0.1))
    noise = torch.randint(0, 256, (4, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    assert detector.score(noise.to(torch.uint8)).min() > detector.score(images(8, seed=9)).max()


def test_a_map_after_more_training_is_of_a_new_walk():
    probe = images(2, seed=4)
    detector = AnoGAN(Config(**AnoGAN.presets["quick"] | {"epochs": 2}))
    training = detector.epochs(TrainSet(ImageSet(images(32))))
    maps = []
    for _ in training:
        for network in detector.networks.values():
            network.eval()
        detector.score(probe)
        maps.append(detector.anomaly_map(probe))
    maps.append(detector.anomaly_map(probe))
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(maps, 2))


@pytest.mark.parametrize(
    ("count", "epochs", "steps"), [(60, 20, 10_000), (999, 20, 10_000), (5_000, 25, 1_950)]
)
def test_a_set_as_small_as_those_of_mvtec_is_trained_for_ten_thousand_steps(count, epochs, steps):
    train = TrainSet(ImageSet(torch.zeros(count, 1, 32, 32, dtype=torch.uint8)))
    detector = AnoGAN(Config())
    assert detector.expected_epochs(train) == epochs
    assert sum(detector.counts(train)) == steps


def test_an_audit_with_batch_statistics_counts_no_copies_of_an_image(trained, monkeypatch):
    detector = changed(trained, together=50, steps=1)
    walked = []
    monkeypatch.setattr(
        detector,
        "walk",
        lambda x: walked.append(len(x)) or anogan.Found(torch.zeros(len(x), 8), x[:, 0, 0, 0].float()),
    )
    few = ImageSet(images(5))
    for training in (False, True):
        score_as(detector, few, np.arange(5), training=training)
    assert walked == [50, 5]


def test_operations_are_those_of_one_image_however_many_walk_together():
    detector = fitted(together=5)
    counts = [operations(changed(detector, together=together), images(1)) for together in (5, None)]
    assert counts[0] == counts[1] > 0


def test_a_detector_that_is_let_go_takes_its_networks_with_it():
    detector = fitted()
    detector.score(images(1))
    network = weakref.ref(detector.generator)
    gc.disable()
    try:
        del detector
        assert network() is None
    finally:
        gc.enable()

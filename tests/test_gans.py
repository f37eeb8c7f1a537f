"""What the GANs have in common, each by the same test: sizes, steps, losses, maps and drawings, MNIST's scaling."""

import pytest
import torch
import torch.nn.functional as F
from make_networks import idle, images, same, weights
from pydantic import ValidationError

from adbench_baselines.layers import from_mnist_norm, to_mnist_norm
from adbench_tgan import AdbenchError, ImageSet, TrainSet, to_unit
from adbench_tgan.jobs import configure
from adbench_tgan.registry import Registry
from adbench_tgan.testing import smooth_images

REGISTRY = Registry.discover()
SMALL = {
    "anogan": {"width": 4, "epochs": 1, "iterations": None, "steps": 6, "search_lr_until": (2, 4)},
    "anotrans": {"patch": 4, "width": 8, "discriminator_width": 8, "latent": 10, "epochs": 1},
    "egbad": {"width": 4, "latent": 6, "steps": 4},
    "f_anogan": {"width": 4, "latent": 6, "n_critic": 3, "gan_steps": 4, "encoder_steps": 6},
    "ganomaly": {"width": 8, "latent": 10, "epochs": 1},
    "sagan": {"width": 8, "latent": 10, "epochs": 1},
    "skip_ganomaly": {"width": 8, "latent": 10, "epochs": 1},
}
DRAWN = {  # what a detector's networks make of its input
    "anotrans": lambda detector, x: detector.generator(x),
    "egbad": lambda detector, x: detector.generator(detector.encoder(x)),
    "f_anogan": lambda detector, x: detector.generator(detector.encoder(x)),
    "ganomaly": lambda detector, x: detector.generator(x)[0],
    "sagan": lambda detector, x: detector.generator(x),
    "skip_ganomaly": lambda detector, x: detector.generator(x),
}
RECONSTRUCTING = ("anotrans", "ganomaly", "sagan", "skip_ganomaly")  # one generator and one discriminator
WITH_CODES = {
    "anotrans": 50,
    "sagan": 40,
    "skip_ganomaly": 50,
}  # as their discriminators have; the weight of L1
WITH_MNIST = ("ganomaly", "skip_ganomaly")


def made(name, **settings):
    torch.manual_seed(0)
    detector = REGISTRY.detector(name)
    return detector(detector.Config(**{**SMALL[name], "batch_size": 8, **settings}))


def built(name, shape=(3, 32, 32), **settings):
    detector = made(name, **settings)
    detector.build(shape)
    return detector


def evaluated(name, shape=(3, 32, 32), **settings):
    """With larger weights, so that the networks visibly do something."""
    detector = built(name, shape, **settings)
    for network in detector.networks.values():
        network.eval()
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.orthogonal_(parameter, gain=1.5)
    return detector


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("anogan", (1, 32, 32), {"generator": 1_066_880, "discriminator": 661_248}),
        ("anogan", (3, 32, 32), {"generator": 1_068_928, "discriminator": 663_296}),
        ("anogan", (1, 64, 64), {"generator": 3_574_656, "discriminator": 2_763_520}),
        ("anogan", (3, 64, 64), {"generator": 3_576_704, "discriminator": 2_765_568}),
        ("f_anogan", (1, 32, 32), {"generator": 3_555_521, "critic": 2_506_881, "encoder": 3_547_392}),
        ("f_anogan", (3, 32, 32), {"generator": 3_556_675, "critic": 2_508_033, "encoder": 3_548_544}),
        ("f_anogan", (1, 64, 64), {"generator": 8_539_329, "critic": 7_490_689, "encoder": 8_531_200}),
        ("f_anogan", (3, 64, 64), {"generator": 8_540_483, "critic": 7_491_841, "encoder": 8_532_352}),
        ("ganomaly", (1, 32, 32), {"generator": 3_200_384, "discriminator": 661_248}),
        ("ganomaly", (3, 32, 32), {"generator": 3_206_528, "discriminator": 663_296}),
        ("ganomaly", (1, 64, 64), {"generator": 10_723_712, "discriminator": 2_763_520}),
        ("ganomaly", (3, 64, 64), {"generator": 10_729_856, "discriminator": 2_765_568}),
        ("sagan", (3, 32, 32), {"generator": 4_032_335, "discriminator": 1_069_700}),
        ("skip_ganomaly", (1, 32, 32), {"generator": 16_652_929, "discriminator": 1_067_652}),
        ("skip_ganomaly", (3, 32, 32), {"generator": 16_659_075, "discriminator": 1_069_700}),
        ("skip_ganomaly", (3, 64, 64), {"generator": 29_244_035, "discriminator": 3_577_476}),
        ("skip_ganomaly", (3, 128, 128), {"generator": 41_828_995, "discriminator": 12_787_332}),
    ],
)
def test_parameter_counts_of_the_specification(name, shape, counts):
    detector = REGISTRY.detector(name)
    with torch.device("meta"):
        detector = detector(detector.Config(image_size=shape[1]), device="meta")
        detector.build(shape)
    assert detector.parameter_counts() == counts


@pytest.mark.parametrize("size", [8, 24, 48])
@pytest.mark.parametrize("name", SMALL)
def test_a_side_that_cannot_be_halved_to_four_is_refused(name, size):
    with pytest.raises(ValueError, match="image_size must be a power of two, 16 or more"):
        built(name, (3, size, size))


@pytest.mark.parametrize("name", SMALL)
def test_such_a_side_is_refused_before_a_job(name):
    told = (
        "the settings of detector 'f_anogan' do not fit together"
        if name == "f_anogan"
        else f"--set {name}.image_size=48"
    )
    with pytest.raises(AdbenchError, match=f"^{told}: image_size must be a power of two"):
        configure(name, REGISTRY.detector(name), {"image_size": 48})


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_a_generator_without_a_loss_is_refused_before_a_job(name):
    weights = [key for key in REGISTRY.detector(name).Config.model_fields if key.startswith("w_")]
    told = f"^the settings of detector '{name}' do not fit together: {', '.join(weights)} are all 0, "
    with pytest.raises(AdbenchError, match=told):
        configure(name, REGISTRY.detector(name), dict.fromkeys(weights, 0))
    for one in weights:
        configure(name, REGISTRY.detector(name), dict.fromkeys(weights, 0) | {one: 1})


@pytest.mark.parametrize("name", [*SMALL, "anomalib_stfpm", "transgan_anogan", "transgan_dual"])
def test_a_rate_that_an_optimiser_cannot_hold_is_refused_before_a_job(name):
    cls = REGISTRY.detector(name)
    for key in ("lr", "encoder_lr", "walk_lr"):
        if key in cls.Config.model_fields:
            with pytest.raises(AdbenchError, match=rf"^--set {name}.{key}=1e\+300: .* equal to 1000000$"):
                configure(name, cls, {key: 1e300})


def test_fully_connected_networks_take_any_side():
    made("f_anogan", arch="mlp", image_size=28).build((1, 28, 28))


EVERY_OPTION = {"softpool": True, "attend_path": True, "out_act": "none"}


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in SMALL), ("sagan", EVERY_OPTION)])
def test_fewer_images_than_a_batch_still_train(name, settings):
    detector = made(name, batch_size=64, **settings).fit(TrainSet(ImageSet(images(5))))
    assert detector.score(images(3)).isfinite().all()


@pytest.mark.parametrize("name", [*RECONSTRUCTING, "anogan"])
def test_each_step_moves_its_own_network_alone(name):
    x = to_unit(images(8))
    for moving, resting in (("generator", "discriminator"), ("discriminator", "generator")):
        detector = built(name)
        networks = detector.networks
        before = {each: weights(network) for each, network in networks.items()}
        adams = [detector.adam(network) if each == moving else idle() for each, network in networks.items()]
        detector.step(x, *adams)
        assert all(same(before[resting], networks[resting]))
        stayed = same(before[moving], networks[moving])
        assert sum(stayed) <= len(stayed) * (name in ("anotrans", "sagan")) / 10
        assert all(parameter.requires_grad for parameter in networks["discriminator"].parameters())


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_the_discriminator_learns_from_reconstructions_made_before_the_generators_step(name):
    one, two = built(name), built(name)
    x = to_unit(images(8))
    with_g = one.step(x, one.adam(one.generator), one.adam(one.discriminator))
    without_g = two.step(x, idle(), two.adam(two.discriminator))
    assert with_g["loss_d"] == without_g["loss_d"]
    assert all(map(torch.equal, one.discriminator.parameters(), two.discriminator.parameters()))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("anogan", {"search_lr": (0.01, 0.0, 0.01)}),
        ("egbad", {"betas": (1.0, 0.9)}),
        ("f_anogan", {"betas": (0.0, 1.0)}),
        ("f_anogan", {"encoder_betas": (-0.1, 0.9)}),
        ("f_anogan", {"kappa": -1}),
        ("f_anogan", {"w_penalty": -1}),
        ("transgan_anogan", {"betas": (0.0, 1.0)}),
        ("transgan_anogan", {"w_penalty": -1}),
        ("transgan_anogan", {"w_drift": -1}),
        ("transgan_anogan", {"generator_depths": (-3, 0, 0)}),
        ("transgan_dual", {"betas": (1.0, 0.9)}),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_a_job(name, settings):
    (wrong,) = settings
    with pytest.raises(ValidationError, match=f"1 validation error for Config\n{wrong}"):
        REGISTRY.detector(name).Config(**settings)


@pytest.mark.parametrize(("name", "w_con"), WITH_CODES.items())
def test_a_step_reports_the_losses_of_its_two_passes(name, w_con):
    detector, twin = built(name, w_adv=0.7, w_lat=1.3), built(name)
    x = to_unit(images(8))
    losses = detector.step(x, idle(), idle())
    x_hat = twin.generator(x)
    (logit, f), (logit_hat, f_hat) = twin.discriminator(x), twin.discriminator(x_hat)
    latent = 1.3 * (f_hat - f).square().mean()
    assert set(losses) == {"loss_g", "loss_d"}
    in_image = w_con * (x_hat - x).abs().mean()
    torch.testing.assert_close(losses["loss_g"], 0.7 * F.softplus(-logit_hat).mean() + in_image + latent)
    judged = F.softplus(-logit).mean() + F.softplus(logit_hat).mean()
    torch.testing.assert_close(losses["loss_d"], judged + latent)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.9, 0.2, 0.0])
@pytest.mark.parametrize("name", WITH_CODES)
def test_score_weighs_images_and_codes(name, share):
    detector = evaluated(name, score_lambda=share)
    probe = images(4)
    x, x_hat = to_unit(probe), detector.generator(to_unit(probe))
    in_image = (x_hat - x).square().mean((1, 2, 3))
    in_code = (detector.discriminator(x_hat)[1] - detector.discriminator(x)[1]).square().mean(1)
    torch.testing.assert_close(detector.score(probe), share * in_image + (1 - share) * in_code)
    assert (in_image - in_code).abs().min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", DRAWN)
def test_map_and_reconstruction(name):
    detector = evaluated(name)
    probe = images(4, seed=3)
    x_hat = DRAWN[name](detector, to_unit(probe))
    torch.testing.assert_close(detector.anomaly_map(probe), (to_unit(probe) - x_hat).abs().mean(1))
    expected = ((x_hat + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(detector.reconstruct(probe), expected)
    assert expected.unique().numel() > 100


@pytest.mark.parametrize(
    ("name", "count", "least", "settings"),
    [
        ("ganomaly", 8, 0.8, {"width": 16, "latent": 20, "epochs": 20}),
        ("skip_ganomaly", 8, 0.5, {"width": 16, "latent": 20, "epochs": 40}),
        ("sagan", 8, 0.7, {"latent": 20, "epochs": 30, "lr": 2e-3}),
        (
            "anotrans",
            16,
            0.7,
            {**REGISTRY.detector("anotrans").presets["quick"], "epochs": 25, "batch_size": 8},
        ),
    ],
)
def test_training_lowers_the_reconstruction_error(name, count, least, settings):
    train = TrainSet(ImageSet(smooth_images(count, (3, 32, 32), seed=0)))
    history = [losses["loss_g"] for losses in made(name, **settings).epochs(train)]
    assert len(history) == settings["epochs"]
    assert history[-1] < least * history[0]


@pytest.mark.parametrize("name", ["sagan", "skip_ganomaly"])
def test_images_of_another_brightness_score_higher(name):
    normal = smooth_images(24, (3, 32, 32), seed=0)
    detector = made(name, latent=100, epochs=5).fit(TrainSet(ImageSet(normal)))
    brighter = (normal.int() + 80).clamp(0, 255).to(torch.uint8)
    assert detector.score(brighter).min() > detector.score(normal).mean()


# parity with the authors' code


@torch.no_grad()
@pytest.mark.parametrize("name", WITH_MNIST)
def test_legacy_scaling_is_that_of_mnist_and_back(name):
    detector = evaluated(name, (1, 32, 32), legacy_mnist_norm=True)
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 32, 32)
    low, high = detector.scaled(ends)
    assert low.unique().item() == pytest.approx(-0.1307 / 0.3081, rel=1e-5)
    assert high.unique().item() == pytest.approx((1 - 0.1307) / 0.3081, rel=1e-5)

    probe = images(4, channels=1)
    assert torch.equal(from_mnist_norm(to_mnist_norm(probe)), probe)
    x = (probe.float() / 255 - 0.1307) / 0.3081
    x_hat = DRAWN[name](detector, x)
    torch.testing.assert_close(detector.anomaly_map(probe), (x - x_hat).abs().mean(1))
    expected = (255 * (0.3081 * x_hat + 0.1307)).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(detector.reconstruct(probe), expected)
    scores = detector.score(probe)
    detector.scaled = lambda _: x
    torch.testing.assert_close(detector.score(probe), scores)


@pytest.mark.parametrize("name", WITH_MNIST)
def test_legacy_scaling_acts_in_training_too(name, monkeypatch):
    seen = []
    step = "train_batch" if name == "skip_ganomaly" else "step"
    cls = REGISTRY.detector(name)
    monkeypatch.setattr(cls, step, lambda _, x, *rest: seen.append(x) or {"loss": x.mean()})
    train = TrainSet(ImageSet(torch.full((8, 1, 32, 32), 255, dtype=torch.uint8)))
    for legacy, value in ((True, (1 - 0.1307) / 0.3081), (False, 1.0)):
        list(made(name, legacy_mnist_norm=legacy).epochs(train))
        assert seen[-1].unique().item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("name", WITH_MNIST)
def test_legacy_scaling_of_colour_is_refused(name):
    with pytest.raises(
        AdbenchError, match=rf"{name}.legacy_mnist_norm is for grey images.*3 channels; leave"
    ):
        built(name, legacy_mnist_norm=True)


TWO = [*RECONSTRUCTING, "anogan"]  # one generator, one discriminator


def watched(name, monkeypatch, count=20, seed=0, **settings):
    """What a training gives to each `step`."""
    seen = []

    def spy(self, x, *optimizers):
        seen.append((x, self, optimizers))
        return {"loss_d": x.mean() + 2}

    monkeypatch.setattr(REGISTRY.detector(name), "step", spy)
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 32, 32)
    detector = made(name, epochs=2, **settings)
    detector.seed = seed
    list(detector.epochs(TrainSet(ImageSet(pixels))))
    return seen


@pytest.mark.parametrize("name", TWO)
def test_passes_are_shuffled_by_the_seed_and_of_whole_batches(name, monkeypatch):
    orders = []
    for seed in (0, 0, 1):
        batches = [
            ((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
            for x, *_ in watched(name, monkeypatch, seed=seed)
        ]
        assert [len(batch) for batch in batches] == [8] * 4  # 4 of 20 images are dropped
        orders.append([batches[0] + batches[1], batches[2] + batches[3]])
    one_pass, next_pass = orders[0]
    assert len(set(one_pass)) == 16
    assert one_pass != sorted(one_pass)
    assert one_pass != next_pass
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("name", TWO)
def test_each_network_has_its_adam(name, monkeypatch):
    _, detector, adams = watched(name, monkeypatch, lr=3e-4, beta1=0.3)[0]
    for network, optimizer in zip((detector.generator, detector.discriminator), adams, strict=True):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"]) == (3e-4, (0.3, 0.999))
        if name != "anogan":  # whose networks are by now its averages
            assert all(a is b for a, b in zip(group["params"], network.parameters(), strict=True))


@pytest.mark.parametrize("name", TWO)
def test_a_step_forgets_the_gradients_of_the_one_before(name):
    detector, x = built(name), to_unit(images(8))
    networks = detector.generator, detector.discriminator
    still = [torch.optim.SGD(network.parameters(), lr=0.0) for network in networks]
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        detector.step(x, *still)
        found.append([p.grad.clone() for network in networks for p in network.parameters()])
    torch.testing.assert_close(*found)


def test_codes_of_ganomaly_are_brought_together_from_both_sides():
    detector, twin = (built("ganomaly", w_adv=0, w_con=0) for _ in "ab")
    x = to_unit(images(8))
    detector.step(x, *(torch.optim.SGD(n.parameters(), lr=0.0) for n in detector.networks.values()))
    _, z, z_hat = twin.generator(x)
    expected = torch.autograd.grad((z - z_hat).square().mean(), list(twin.generator.parameters()))
    torch.testing.assert_close([p.grad for p in detector.generator.parameters()], list(expected))


@pytest.mark.parametrize("name", ["anotrans", "sagan", "skip_ganomaly"])
def test_the_discriminator_brings_codes_together_from_both_sides(name):
    detector, twin = (built(name, w_lat=1e3) for _ in "ab")
    x = to_unit(images(8))
    detector.step(x, *(torch.optim.SGD(n.parameters(), lr=0.0) for n in detector.networks.values()))
    x_hat = twin.generator(x).detach()
    (logit, f), (logit_hat, f_hat) = twin.discriminator(x), twin.discriminator(x_hat)
    softplus = torch.nn.functional.softplus
    loss = softplus(-logit).mean() + softplus(logit_hat).mean() + 1e3 * (f - f_hat).square().mean()
    expected = torch.autograd.grad(loss, list(twin.discriminator.parameters()))
    torch.testing.assert_close(
        [p.grad for p in detector.discriminator.parameters()], list(expected), rtol=1e-2, atol=1e-3
    )


def test_noise_is_not_in_what_skip_ganomaly_compares():
    detector, twin = (built("skip_ganomaly", input_noise_std=0.5, w_adv=0, w_lat=0) for _ in "ab")
    x = to_unit(images(8))
    torch.manual_seed(1)
    losses = detector.step(x, *(torch.optim.SGD(n.parameters(), lr=0.0) for n in detector.networks.values()))
    torch.manual_seed(1)
    x_hat = twin.generator(x + 0.5 * torch.randn_like(x))
    torch.testing.assert_close(losses["loss_g"], 50 * (x - x_hat).abs().mean())

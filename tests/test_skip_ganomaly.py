"""Skip-GANomaly against the specification: sizes, wiring, losses by hand, update order, restarts, the score.

The discriminator's own tests are here too; Skip-Attention GAN and AnoTrans share it.
"""

import pytest
import torch
import torch.nn.functional as F

from adbench_baselines import skip_ganomaly
from adbench_baselines.skip_discriminator import Discriminator, adversarial_loss, restart_if_won
from adbench_baselines.skip_ganomaly import (
    Config,
    SkipGANomaly,
    anomaly_score,
    discriminator_loss,
    generator_loss,
)
from adbench_tgan import AdbenchError, ImageSet, TrainSet, to_unit
from adbench_tgan.testing import smooth_images

SMALL = Config(width=8, latent=10, epochs=1, batch_size=8)
LOG2 = 0.693147


def images(count=16, channels=3, size=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=draw)


def built(config=SMALL, shape=(3, 32, 32)):
    torch.manual_seed(0)
    detector = SkipGANomaly(config)
    detector.build(shape)
    return detector


def idle():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)


def copies(network):
    return [p.detach().clone() for p in network.parameters()]


def same(before, network):
    return [torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]


@pytest.mark.parametrize(
    ("shape", "generator", "discriminator"),
    [
        ((3, 32, 32), 16_659_075, 1_069_700),
        ((1, 32, 32), 16_652_929, 1_067_652),
        ((3, 64, 64), 29_244_035, 3_577_476),
    ],
)
def test_parameter_counts_of_the_specification(shape, generator, discriminator):
    counts = built(Config(image_size=shape[1]), shape).parameter_counts()
    assert counts == {"generator": generator, "discriminator": discriminator}


def test_initial_weights_follow_dcgan():
    detector = built(Config())
    for convolution in (
        detector.generator.downs[2][0],
        detector.generator.ups[1][1],
        detector.discriminator.encoder[1],
    ):
        assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.02)
    for norm in (detector.generator.downs[3][1], detector.discriminator.encoder[0][6]):
        assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
        assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert not norm.bias.any()
    assert not detector.generator.last[1].bias.any()


def nested(generator, level, x):
    """The U-Net as nested blocks, as the authors write it, on `generator`'s layers, its skips not activated."""
    depth = len(generator.downs)
    if level == 0:
        return generator.last(nested(generator, 1, generator.downs[0](x)))
    below = generator.downs[level](F.leaky_relu(x, 0.2))
    inner = below if level == depth - 1 else nested(generator, level + 1, below)
    return torch.cat([x, generator.ups[depth - 1 - level](inner)], dim=1)


@pytest.mark.parametrize("size", [32, 64])
def test_the_generator_is_the_nested_u_net(size):
    generator = built(shape=(3, size, size)).generator.eval()
    x = to_unit(images(2, size=size))
    torch.testing.assert_close(generator(x), nested(generator, 0, x))
    generator.ups[-1][1].weight.data.zero_()  # all that comes from below the first skip
    assert (generator(x) - generator(x).mean()).abs().max() > 1e-4


def test_only_the_inner_convolutions_down_are_normalised_and_the_output_is_bounded():
    generator = built().generator
    kinds = [[type(layer).__name__ for layer in down.modules()][1:] for down in generator.downs]
    assert kinds == [[], *[["Conv2d", "BatchNorm2d"]] * 3, ["Conv2d", "Identity"]]
    x_hat = generator(to_unit(images()) * 100)
    assert x_hat.shape == (16, 3, 32, 32)
    assert 0.01 < x_hat.abs().max() <= 1


def test_the_discriminator_gives_a_logit_and_a_linear_code_before_it():
    torch.manual_seed(0)
    discriminator = Discriminator(32, 3, width=8, latent=10).eval()
    x = to_unit(images(4))
    logit, f = discriminator(x)
    assert logit.shape == (4,)
    assert f.shape == (4, 10)
    assert (f < 0).any()
    taps = discriminator.classifier.weight[0, :, 1, 1]
    torch.testing.assert_close(logit, f @ taps)


def test_losses_by_hand():
    config = Config(w_adv=2, w_con=50, w_lat=3)
    x, x_hat = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.5)
    f, f_hat = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    zero = torch.zeros(2)
    # 2 log 2 + 50 * 0.5 + 3 * (4 + 0) / 2
    assert generator_loss(x, x_hat, f, f_hat, zero, config).item() == pytest.approx(2 * LOG2 + 25 + 6)
    assert discriminator_loss(zero, zero, f, f_hat, config).item() == pytest.approx(2 * LOG2 + 6)
    without = config.model_copy(update={"d_uses_lat": False})
    assert discriminator_loss(zero, zero, f, f_hat, without).item() == pytest.approx(2 * LOG2)


def test_the_adversarial_loss_knows_its_direction():
    sure = torch.tensor([20.0])
    assert adversarial_loss(sure, real=True).item() < 1e-8
    assert adversarial_loss(sure, real=False).item() == pytest.approx(20, abs=1e-6)
    config = Config(w_con=0, w_lat=0, d_uses_lat=False)
    nothing = torch.zeros(1, 1)
    assert generator_loss(nothing, nothing, nothing, nothing, sure, config) < 1e-8
    assert discriminator_loss(sure, -sure, nothing, nothing, config) < 1e-8


def test_each_step_changes_its_own_network_only():
    detector = built()
    x = to_unit(images(8))
    discriminator, generator = copies(detector.discriminator), copies(detector.generator)
    detector.step(x, detector.adam(detector.generator), idle())
    assert all(same(discriminator, detector.discriminator))
    assert not any(same(generator, detector.generator))

    detector = built()
    generator, discriminator = copies(detector.generator), copies(detector.discriminator)
    detector.step(x, idle(), detector.adam(detector.discriminator))
    assert all(same(generator, detector.generator))
    assert not any(same(discriminator, detector.discriminator))


def test_the_discriminator_learns_from_reconstructions_made_before_the_generators_step():
    one, two = built(), built()
    x = to_unit(images(8))
    with_g = one.step(x, one.adam(one.generator), one.adam(one.discriminator))
    without_g = two.step(x, idle(), two.adam(two.discriminator))
    assert with_g["loss_d"] == without_g["loss_d"]
    assert all(map(torch.equal, one.discriminator.parameters(), two.discriminator.parameters()))


def test_a_step_reports_the_losses_of_its_two_passes():
    config = SMALL.model_copy(update={"w_adv": 0.7, "w_lat": 1.3})
    detector, twin = built(config), built(config)
    x = to_unit(images(8))
    losses = detector.step(x, idle(), idle())
    x_hat = twin.generator(x)
    logit, f = twin.discriminator(x)
    logit_hat, f_hat = twin.discriminator(x_hat)
    expected = 0.7 * F.softplus(-logit_hat).mean() + 50 * (x_hat - x).abs().mean()
    torch.testing.assert_close(losses["loss_g"], expected + 1.3 * (f_hat - f).square().mean())
    expected = F.softplus(-logit).mean() + F.softplus(logit_hat).mean()
    torch.testing.assert_close(losses["loss_d"], expected + 1.3 * (f_hat - f).square().mean())


def test_the_latent_loss_moves_the_discriminators_code_only_if_it_is_used():
    """With a classifier of zeros nothing else reaches the layers before it."""
    for used in (True, False):
        detector = built(SMALL.model_copy(update={"d_uses_lat": used, "w_lat": 1e6}))
        x = to_unit(images(8))
        detector.discriminator.classifier.weight.data.zero_()
        detector.step(x, idle(), idle())
        gradient = detector.discriminator.encoder[1].weight.grad
        assert bool(gradient.any()) == used


def test_noise_is_added_to_the_generators_input_in_training_only():
    noisy = SMALL.model_copy(update={"input_noise_std": 0.5})
    seen = []
    detector = built(noisy)
    detector.generator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.zeros(8, 3, 32, 32)
    detector.step(x, idle(), idle())
    assert seen[0].std().item() == pytest.approx(0.5, rel=0.05)
    detector.score(images(2))
    assert torch.equal(seen[1], to_unit(images(2)))
    detector.config = SMALL
    detector.step(x, idle(), idle())
    assert not seen[2].any()


def test_a_discriminator_that_has_won_starts_anew_with_its_optimiser():
    detector = built()
    optimizer = detector.adam(detector.discriminator)
    losses = detector.train_batch(to_unit(images(8)), detector.adam(detector.generator), optimizer)
    assert losses["restarts"] == 0
    old = copies(detector.discriminator)
    moments = optimizer.state[detector.discriminator.classifier.weight]
    assert moments["exp_avg_sq"].any()
    assert restart_if_won(detector.discriminator, optimizer, torch.tensor(1.1e-5)) == 0
    assert all(same(old, detector.discriminator))
    assert restart_if_won(detector.discriminator, optimizer, torch.tensor(0.9e-5)) == 1
    assert not any(same(old, detector.discriminator)[i] for i, p in enumerate(old) if p.ndim == 4)
    assert detector.discriminator.encoder[1].weight.std().item() == pytest.approx(0.02, rel=0.1)
    norm = detector.discriminator.encoder[0][3]
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_var, torch.ones(16))
    assert not any(value.any() for value in moments.values())


def test_training_watches_the_discriminators_loss(monkeypatch):
    seen = []
    monkeypatch.setattr(skip_ganomaly, "restart_if_won", lambda *args: seen.append(args) or torch.tensor(1.0))
    detector = built()
    optimizer = detector.adam(detector.discriminator)
    losses = detector.train_batch(to_unit(images(8)), detector.adam(detector.generator), optimizer)
    assert seen == [(detector.discriminator, optimizer, losses["loss_d"])]
    assert losses["restarts"] == 1


def test_score_is_nine_parts_image_and_one_part_code():
    x, x_hat = torch.zeros(2, 1, 2, 2), torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    f, f_hat = torch.zeros(2, 2), torch.tensor([[0.0, 4.0], [2.0, 0.0]])
    expected = torch.tensor([0.9 * 1 + 0.1 * 8, 0.9 * 4 + 0.1 * 2])
    torch.testing.assert_close(anomaly_score(x, x_hat, f, f_hat, 0.9), expected)

    detector = built()
    for network in detector.networks.values():
        network.eval()
    probe = images(4)
    with torch.no_grad():
        x_hat = detector.generator(to_unit(probe))
        gap = detector.discriminator(x_hat)[1] - detector.discriminator(to_unit(probe))[1]
    in_image = (x_hat - to_unit(probe)).square().mean((1, 2, 3))
    torch.testing.assert_close(detector.score(probe), 0.9 * in_image + 0.1 * gap.square().mean(1))
    detector.config = SMALL.model_copy(update={"score_lambda": 0.0})
    torch.testing.assert_close(detector.score(probe), gap.square().mean(1))


def test_map_and_reconstruction():
    detector = built()
    detector.generator.eval()
    probe = images(4, seed=3)
    x_hat = detector.generator(to_unit(probe)).detach()
    torch.testing.assert_close(detector.anomaly_map(probe), (to_unit(probe) - x_hat).abs().mean(1))
    expected = ((x_hat + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(detector.reconstruct(probe), expected)


def test_training_lowers_the_reconstruction_error():
    train = ImageSet(smooth_images(8, (3, 32, 32), seed=0))
    torch.manual_seed(0)
    detector = SkipGANomaly(Config(width=16, latent=20, epochs=40, batch_size=8))
    history = [losses["loss_g"] for losses in detector.epochs(TrainSet(train))]
    assert len(history) == 40
    assert history[-1] < 0.5 * history[0]


def test_images_of_another_brightness_score_higher():
    normal = smooth_images(24, (3, 32, 32), seed=0)
    torch.manual_seed(0)
    detector = SkipGANomaly(Config(width=8, epochs=5, batch_size=8)).fit(TrainSet(ImageSet(normal)))
    brighter = (normal.int() + 80).clamp(0, 255).to(torch.uint8)
    assert detector.score(brighter).min() > detector.score(normal).mean()


@pytest.mark.parametrize("size", [8, 24, 48])
def test_a_side_that_cannot_be_halved_is_refused(size):
    with pytest.raises(AdbenchError, match=f"image_size={size}: it must be a power of two, 16 or more"):
        SkipGANomaly(Config(image_size=size)).build((3, size, size))


def test_fewer_images_than_a_batch_still_train():
    detector = SkipGANomaly(Config(width=8, epochs=1)).fit(TrainSet(ImageSet(images(5))))
    assert detector.score(images(3)).isfinite().all()


# parity with the authors' code


MNIST = SMALL.model_copy(update={"legacy_mnist_norm": True})


def test_legacy_scaling_is_that_of_mnist_and_back():
    detector = built(MNIST, (1, 32, 32))
    for network in detector.networks.values():
        network.eval()
    probe = images(4, channels=1)
    x = (probe.float() / 255 - 0.1307) / 0.3081
    with torch.no_grad():
        x_hat = detector.generator(x)
        gap = detector.discriminator(x_hat)[1] - detector.discriminator(x)[1]
    in_image = (x_hat - x).square().mean((1, 2, 3))
    torch.testing.assert_close(detector.score(probe), 0.9 * in_image + 0.1 * gap.square().mean(1))
    torch.testing.assert_close(detector.anomaly_map(probe), (x - x_hat).abs().mean(1))
    expected = (255 * (0.3081 * x_hat + 0.1307)).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(detector.reconstruct(probe), expected)
    detector.generator = lambda x: x
    assert torch.equal(detector.reconstruct(probe), probe)


def test_legacy_scaling_acts_in_training_too(monkeypatch):
    seen = []
    monkeypatch.setattr(SkipGANomaly, "train_batch", lambda _, x, *rest: seen.append(x) or {"loss": x.mean()})
    train = TrainSet(ImageSet(torch.full((8, 1, 32, 32), 255, dtype=torch.uint8)))
    for config, value in ((MNIST, (1 - 0.1307) / 0.3081), (SMALL, 1.0)):
        list(SkipGANomaly(config).epochs(train))
        assert seen[-1].unique().item() == pytest.approx(value, rel=1e-6)


def test_legacy_scaling_of_colour_is_refused():
    with pytest.raises(
        AdbenchError, match=r"skip_ganomaly.legacy_mnist_norm is for grey images.*3 channels; leave"
    ):
        built(MNIST)

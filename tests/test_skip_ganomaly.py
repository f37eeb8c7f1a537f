"""Skip-GANomaly against the specification: weights, wiring, losses by hand, noise, restarts.

The discriminator's own tests are here too; Skip-Attention GAN and AnoTrans share it.
"""

import pytest
import torch
import torch.nn.functional as F
from make_networks import idle, images, same, weights

from adbench_baselines import skip_ganomaly
from adbench_baselines.layers import restart_if_won
from adbench_baselines.skip_discriminator import Discriminator, adversarial_loss
from adbench_baselines.skip_ganomaly import Config, SkipGANomaly, discriminator_loss, generator_loss
from adbench_tgan import to_unit

SMALL = Config(width=8, latent=10, epochs=1, batch_size=8)
LOG2 = 0.693147


def built(config=SMALL, shape=(3, 32, 32)):
    torch.manual_seed(0)
    detector = SkipGANomaly(config)
    detector.build(shape)
    return detector


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
    old = weights(detector.discriminator)
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

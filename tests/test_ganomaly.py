"""GANomaly against the specification: weights, losses by hand, discriminator restarts, extra layers."""

import pytest
import torch
from make_networks import idle, images
from torch.nn import functional as F

from adbench_baselines import ganomaly
from adbench_baselines.ganomaly import Config, GANomaly, discriminator_loss, generator_loss
from adbench_tgan import to_unit

SMALL = Config(width=8, latent=10, epochs=1, batch_size=8)


def built(config=SMALL, shape=(3, 32, 32)):
    torch.manual_seed(0)
    detector = GANomaly(config)
    detector.build(shape)
    return detector


def test_encoders_do_not_share_weights_and_decoder_is_bounded():
    detector = built()
    encoder1, encoder2 = detector.generator.encoder1, detector.generator.encoder2
    assert encoder1[1].weight.data_ptr() != encoder2[1].weight.data_ptr()
    x_hat, z, z_hat = detector.generator(to_unit(images()) * 100)
    assert x_hat.abs().max() <= 1
    assert z.shape == z_hat.shape == (16, 10, 1, 1)


def test_initial_weights_follow_dcgan():
    torch.manual_seed(0)
    detector = GANomaly(Config())
    detector.build((3, 32, 32))
    convolution = detector.generator.encoder1[0][2].weight
    norm = detector.generator.encoder1[0][3]
    assert convolution.std().item() == pytest.approx(0.02, rel=0.02)
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not norm.bias.any()


def test_generator_loss_by_hand():
    config = Config(w_adv=2, w_con=50, w_enc=3)
    x, x_hat = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.5)
    z, z_hat = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]])
    f_real, f_fake = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 3.0]])
    # 2 * (1 + 9) / 2 + 50 * 0.5 + 3 * (4 + 0) / 2
    assert generator_loss(x, x_hat, z, z_hat, f_real, f_fake, config).item() == pytest.approx(10 + 25 + 6)


def test_a_step_reports_the_losses_of_its_two_passes():
    """At the start L_G = w_adv MSE of features + w_con L1 of images + w_enc MSE of codes, by the first discriminator."""
    config = SMALL.model_copy(update={"w_adv": 2, "w_con": 0.5, "w_enc": 2})
    detector, twin = built(config), built(config)
    x = to_unit(images(8))
    losses = detector.step(x, idle(), idle())
    x_hat, z, z_hat = twin.generator(x)
    (real, f), (fake, _) = twin.discriminator(x), twin.discriminator(x_hat)
    _, f_hat = twin.discriminator(x_hat)
    in_features = 2 * (f_hat - f).square().mean()
    in_image, in_code = 0.5 * (x_hat - x).abs().mean(), 2 * (z_hat - z).square().mean()
    torch.testing.assert_close(losses["loss_g"], in_features + in_image + in_code)
    assert min(in_features, in_image, in_code) > 0.01 * losses["loss_g"]
    judged = (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    torch.testing.assert_close(losses["loss_d"], judged)


def test_discriminator_loss_by_hand():
    real, fake = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0])
    assert discriminator_loss(real, fake).item() == pytest.approx(0.693147, abs=1e-6)
    sure = discriminator_loss(torch.tensor([20.0]), torch.tensor([-20.0]))
    wrong = discriminator_loss(torch.tensor([-20.0]), torch.tensor([20.0]))
    assert sure.item() < 1e-8
    assert wrong.item() == pytest.approx(20, abs=1e-6)


def test_a_discriminator_that_has_won_starts_anew_with_its_optimiser(monkeypatch):
    detector = built()
    optimizer = detector.adam(detector.discriminator)
    old = detector.discriminator.classifier.weight.clone()
    losses = detector.step(to_unit(images(8)), detector.adam(detector.generator), optimizer)
    assert losses["restarts"] == 0
    assert optimizer.state
    monkeypatch.setattr(
        ganomaly, "discriminator_loss", lambda real, fake: (real.mean() - fake.mean()) * 0 + 1e-6
    )
    losses = detector.step(to_unit(images(8)), detector.adam(detector.generator), optimizer)
    assert losses["restarts"] == 1
    assert not any(value.any() for state in optimizer.state.values() for value in state.values())
    new = detector.discriminator.classifier.weight
    assert (new - old).abs().mean() > 0.01
    assert new.std().item() == pytest.approx(0.02, rel=0.2)


def test_score_is_the_mean_square_or_absolute_difference_of_codes():
    detector = built()
    detector.generator.eval()
    probe = images(4)
    with torch.no_grad():
        _, z, z_hat = detector.generator(to_unit(probe))
    difference = (z - z_hat).flatten(1)
    torch.testing.assert_close(detector.score(probe), difference.square().mean(1))
    detector.config = SMALL.model_copy(update={"score_norm": "l1"})
    torch.testing.assert_close(detector.score(probe), difference.abs().mean(1))


# parity with the authors' code


def kinds(network):
    return [type(layer).__name__ for layer in network]


def test_extra_layers_stand_where_the_authors_have_them():
    plain, extra = (built(SMALL.model_copy(update={"extra_layers": count})) for count in (0, 2))
    added = 2 * (9 * 8 * 8 + 2 * 8)  # two convolutions of 3 x 3 with their batch norms, in each pyramid
    before, after = plain.parameter_counts(), extra.parameter_counts()
    assert after["generator"] - before["generator"] == 3 * added
    assert after["discriminator"] - before["discriminator"] == added
    block = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    for with_extra in (
        extra.generator.encoder1[0],
        extra.generator.encoder2[0],
        extra.discriminator.features,
    ):
        assert kinds(with_extra) == ["Conv2d", "LeakyReLU", *block * 2, *block * 2]
        assert [layer.kernel_size for layer in with_extra if isinstance(layer, torch.nn.Conv2d)] == [
            (4, 4),
            (3, 3),
            (3, 3),
            (4, 4),
            (4, 4),
        ]
    decoder = extra.generator.decoder
    assert kinds(decoder)[-8:] == [*["Conv2d", "BatchNorm2d", "ReLU"] * 2, "ConvTranspose2d", "Tanh"]
    assert kinds(decoder)[:-8] == kinds(plain.generator.decoder)[:-2]
    x_hat, z, _ = extra.generator(to_unit(images(2)))
    assert x_hat.shape == (2, 3, 32, 32)
    assert z.shape == (2, 10, 1, 1)


def test_without_extra_layers_the_networks_are_as_they_were():
    """Drawn by hand, one layer after the other, from the same seed."""
    torch.manual_seed(0)
    pyramid = [
        torch.nn.Conv2d(3, 8, 4, 2, 1, bias=False),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Conv2d(8, 16, 4, 2, 1, bias=False),
        torch.nn.BatchNorm2d(16),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Conv2d(16, 32, 4, 2, 1, bias=False),
        torch.nn.BatchNorm2d(32),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Conv2d(32, 10, 4, 1, 0, bias=False),
    ]
    decoder = [
        torch.nn.ConvTranspose2d(10, 32, 4, 1, 0, bias=False),
        torch.nn.BatchNorm2d(32),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False),
        torch.nn.Tanh(),
    ]
    torch.manual_seed(0)
    ours = ganomaly.Generator(32, 3, 8, 10)
    x = to_unit(images(2))
    z = torch.nn.Sequential(*pyramid)(x)
    assert torch.equal(ours.encoder1(x), z)
    assert torch.equal(ours.decoder(z), torch.nn.Sequential(*decoder)(z))

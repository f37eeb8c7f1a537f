"""f-AnoGAN against the specification: sizes, weights, losses by hand, what each step changes, the score."""

import math
from itertools import islice

import pytest
import torch
from make_networks import images
from torch import nn

from adbench_baselines.f_anogan import (
    Config,
    FAnoGAN,
    down,
    generator,
    layer_norm,
    mlp_generator,
    mlp_trunk,
    portions,
    trunk,
    up,
)
from adbench_baselines.layers import gradient_penalty
from adbench_tgan import AdbenchError, ImageSet, TrainSet, to_unit
from adbench_tgan.testing import smooth_images

SMALL = Config(width=4, latent=6, n_critic=3, gan_steps=4, encoder_steps=6, batch_size=8)


def built(shape=(3, 32, 32), device="cpu", **settings):
    torch.manual_seed(0)
    with torch.device(device):
        detector = FAnoGAN(SMALL.model_copy(update=settings), device=device)
        detector.build(shape)
    return detector


def evaluated(**settings):
    detector = built(**settings)
    for network in detector.networks.values():
        network.eval()
    return detector


def sgd(network, lr=0.1):
    return torch.optim.SGD(network.parameters(), lr=lr)


def changed(detector, act):
    """The networks in which `act` changes parameters, and those in which it changes buffers."""
    before = {
        name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in detector.networks.items()
    }
    act()
    learned, counted = set(), set()
    for name, net in detector.networks.items():
        parameters = dict(net.named_parameters())
        for key, value in net.state_dict().items():
            if not torch.equal(value, before[name][key]):
                (learned if key in parameters else counted).add(name)
    return learned, counted


def test_parameter_counts_of_the_fully_connected_networks():
    counts = built((1, 28, 28), "meta", arch="mlp", latent=100).parameter_counts()
    assert counts == {"generator": 1_510_032, "critic": 533_505, "encoder": 558_948}


@pytest.mark.parametrize("size", [32, 64])
def test_the_critics_features_are_8192_numbers(size):
    detector = built((1, size, size), "meta", width=64, latent=128)
    value, f = detector.critic(torch.empty(2, 1, size, size, device="meta"))
    assert value.shape == (2,)
    assert f.shape == (2, 8192)


def test_defaults_are_those_of_the_specification():
    c = Config()
    assert (c.latent, c.batch_size, c.n_critic, c.lr, c.betas, c.w_penalty) == (
        128,
        64,
        5,
        1e-4,
        (0, 0.9),
        10,
    )
    assert (c.encoder_optimizer, c.encoder_lr, c.kappa, c.encoder_tanh, c.bn_eps) == (
        "rmsprop",
        5e-5,
        1,
        False,
        1e-5,
    )
    assert (c.gan_steps, c.encoder_steps, c.arch) == (20_000, 50_000, "resnet")


def test_up_doubles_by_nearest_neighbours_and_down_halves_by_means():
    x = torch.randn(2, 4, 8, 8)
    block = up(4, 3).eval()
    wide = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert block(x).shape == (2, 3, 16, 16)
    torch.testing.assert_close(block.shortcut(x), block.shortcut[1](wide))

    block = down(4, 3, layer_norm)
    assert block(x).shape == (2, 3, 4, 4)
    pooled = block.shortcut[1](x).unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    torch.testing.assert_close(block.shortcut(x), pooled)  # a 1 x 1 convolution and a mean commute
    torch.testing.assert_close(block(x), block.body(x) + block.shortcut(x))


def test_weights_have_the_authors_variances():
    torch.manual_seed(0)
    network = trunk(32, 3, 64, nn.BatchNorm2d)
    block = network[1]
    drawing = generator(32, 3, 64, 128)
    above = drawing[2]
    cases = [
        (drawing[0], 2, 128 + 16 * 512),
        (above.body[3], 4, 9 * (512 + 256)),
        (above.body[6], 4, 9 * (256 + 256)),
        (above.shortcut[1], 2, 512 + 256),
        (drawing[-2], 4, 9 * (64 + 3)),
        (network[0], 2, 9 * (3 + 64)),
        (block.body[2], 4, 9 * (64 + 64)),
        (block.body[5], 4, 9 * (64 + 128)),
        (block.shortcut[1], 2, 64 + 128),
    ]
    for layer, gain, fans in cases:
        assert layer.weight.std().item() == pytest.approx(math.sqrt(gain / fans), rel=0.03)
        assert layer.bias is None or not layer.bias.any()
    assert block.body[2].bias is None
    assert block.body[2].weight.abs().max() <= math.sqrt(3 * 4 / (9 * 128))  # uniform


def test_slopes_of_the_fully_connected_generator_are_its_authors():
    slopes = [m.negative_slope for m in mlp_generator(28, 100, 0.8).modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.2] * 4


def test_one_image_is_too_few_for_batch_norm_of_vectors():
    one, two = (TrainSet(ImageSet(images(count, channels=1))) for count in (1, 2))
    mlp = SMALL.model_copy(update={"arch": "mlp"})
    for config, train in ((SMALL, one), (SMALL, two), (mlp, two)):
        FAnoGAN(config).fit(train)
    with pytest.raises(
        AdbenchError, match=r"^batch norm needs two images in a batch here; give more training images$"
    ):
        FAnoGAN(mlp).fit(one)


def test_the_critic_sees_each_image_alone_even_while_training_and_the_encoder_does_not():
    detector = built()
    x = to_unit(images(6))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in detector.critic.modules())
    torch.testing.assert_close(detector.critic(x)[0][:2], detector.critic(x[:2])[0])
    assert not torch.allclose(detector.encoder(x)[:2], detector.encoder(x[:2]), atol=1e-3)
    apart = x * 7 + torch.tensor([0.0, 20.0, 40.0]).reshape(3, 1, 1)
    norm = layer_norm(3)(apart)  # over the channels together, which keep their differences
    torch.testing.assert_close(norm.mean((1, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm.var((1, 2, 3), correction=0), torch.ones(6), atol=1e-4, rtol=0)
    assert (norm.mean((2, 3)).diff(dim=1) > 0.5).all()


def test_gradient_penalty_by_hand():
    real, fake = torch.rand(4, 1, 2, 2), torch.rand(4, 1, 2, 2)
    weight = torch.tensor([3.0, 0.0, 4.0, 0.0], requires_grad=True)  # the gradient's norm is 5 everywhere
    penalty = gradient_penalty(lambda x: x.flatten(1) @ weight, real, fake)
    assert penalty.item() == pytest.approx(16)
    penalty.backward()  # d (|w| - 1)^2 / dw = 2 (|w| - 1) w / |w|
    torch.testing.assert_close(weight.grad, torch.tensor([4.8, 0.0, 6.4, 0.0]))


def test_gradient_penalty_is_a_mean_over_images_at_one_random_mix_each():
    seen = []

    def critic(x):
        seen.append(x)
        return (torch.arange(1.0, 51.0)[:, None] * x.flatten(1)[:, :1]).sum(1)  # image i: gradient i

    penalty = gradient_penalty(critic, torch.ones(50, 1, 2, 2), torch.zeros(50, 1, 2, 2))
    assert penalty.item() == pytest.approx((torch.arange(0.0, 50.0) ** 2).mean().item())
    mix = seen[0].flatten(1)
    assert torch.equal(mix, mix[:, :1].expand(-1, 4))  # one weight per image
    assert mix[:, 0].unique().numel() == 50
    assert mix.min() >= 0
    assert mix.max() <= 1
    assert mix[:, 0].std().item() == pytest.approx(1 / math.sqrt(12), rel=0.25)


def test_the_critics_step_follows_the_gradient_of_its_loss():
    detector = built()
    x = to_unit(images(8))
    torch.manual_seed(3)
    fake = detector.generator(torch.randn(8, 6)).detach()
    penalty = gradient_penalty(lambda mix: detector.critic(mix)[0], x, fake)
    real_value, fake_value = detector.critic(x)[0].mean(), detector.critic(fake)[0].mean()
    loss = fake_value - real_value + 10 * penalty
    expected = torch.autograd.grad(loss, list(detector.critic.parameters()), allow_unused=True)

    torch.manual_seed(3)
    losses = detector.critic_step(x, sgd(detector.critic, lr=0.0))
    assert losses["wasserstein"].item() == pytest.approx((real_value - fake_value).item(), rel=1e-4)
    assert losses["penalty"].item() == pytest.approx(penalty.item(), rel=1e-4)
    for parameter, gradient in zip(detector.critic.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_the_generators_loss_is_minus_the_critics_mean():
    detector = built()
    torch.manual_seed(3)
    expected = -detector.critic(detector.generator(torch.randn(8, 6)))[0].mean()
    torch.manual_seed(3)
    losses = detector.generator_step(8, sgd(detector.generator))
    assert losses["loss_g"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_each_step_changes_one_network():
    detector = built()
    x = to_unit(images(8))
    learned, _ = changed(detector, lambda: detector.critic_step(x, sgd(detector.critic)))
    assert learned == {"critic"}
    learned, counted = changed(detector, lambda: detector.generator_step(8, sgd(detector.generator)))
    assert (learned, counted) == ({"generator"}, {"generator"})
    assert all(p.requires_grad for p in detector.critic.parameters())
    detector.freeze_gan()
    learned, counted = changed(detector, lambda: detector.encoder_step(x, sgd(detector.encoder)))
    assert (learned, counted) == ({"encoder"}, {"encoder"})
    assert detector.encoder.training


def test_five_critic_steps_then_one_of_the_generator_each_with_its_own_z():
    detector = built()
    drawn, order = [], []
    detector.generator.register_forward_pre_hook(lambda _, z: drawn.append(z[0]))

    class Recorder(torch.optim.SGD):
        def step(self):
            order.append(self.name)
            return super().step()

    optimizers = []
    for name in ("generator", "critic"):
        optimizer = Recorder(detector.networks[name].parameters(), lr=0.01)
        optimizer.name = name
        optimizers.append(optimizer)
    detector.gan_step([to_unit(images(8, seed=i)) for i in range(5)], *optimizers)
    assert order == ["critic"] * 5 + ["generator"]
    assert len(drawn) == 6
    assert torch.stack(drawn).unique(dim=0).shape == (6, 8, 6)


def test_a_fit_takes_the_steps_that_are_asked_for(monkeypatch):
    counts = {"critic_step": 0, "generator_step": 0, "encoder_step": 0}

    def counting(name):
        step = getattr(FAnoGAN, name)

        def counted(self, *args):
            counts[name] += 1
            return step(self, *args)

        monkeypatch.setattr(FAnoGAN, name, counted)

    for name in counts:
        counting(name)
    detector = FAnoGAN(SMALL)
    history = list(detector.epochs(TrainSet(ImageSet(images(20)))))
    assert counts == {"critic_step": 12, "generator_step": 4, "encoder_step": 6}
    assert [set(losses) for losses in history] == [{"wasserstein", "penalty", "loss_g"}] * 4 + [
        {"loss_e"}
    ] * 6


def test_the_encoder_learns_from_a_gan_that_rests(monkeypatch):
    seen = []

    def watch(self, x, optimizer):
        resting = [self.generator, self.critic]
        seen.append([m.training for net in resting for m in net.modules()])
        seen[-1] += [p.requires_grad for net in resting for p in net.parameters()]
        assert self.encoder.training
        return {"loss_e": x.mean()}

    monkeypatch.setattr(FAnoGAN, "encoder_step", watch)
    list(FAnoGAN(SMALL.model_copy(update={"gan_steps": 1})).epochs(TrainSet(ImageSet(images(8)))))
    assert len(seen) == 6
    assert not any(map(any, seen))


def test_budgets_are_reported_about_twenty_times():
    for steps in (1, 7, 20, 21, 39, 50_000):
        parts = portions(steps)
        assert sum(parts) == steps
        assert len(parts) <= 20
        assert min(parts) > 0
    assert portions(50_000) == [2500] * 20


def test_the_stream_is_endless_shuffled_and_passes_over_all_images():
    train = TrainSet(ImageSet(torch.arange(16, dtype=torch.uint8).reshape(16, 1, 1, 1).expand(16, 1, 32, 32)))
    detector = FAnoGAN(SMALL, seed=1)
    batches = list(islice(detector.stream(train), 6))
    ids = ((torch.stack(batches)[:, :, 0, 0, 0] + 1) * 127.5).round().int().reshape(3, 16)
    assert all(sorted(row.tolist()) == list(range(16)) for row in ids)
    assert not torch.equal(ids[0], ids[1])


def test_residual_and_score_by_hand():
    detector = evaluated(kappa=0.5)
    probe = images(4)
    x = to_unit(probe)
    with torch.no_grad():
        x_hat = detector.generator(detector.encoder(x))
        f, f_hat = detector.critic(x)[1], detector.critic(x_hat)[1]
        expected = [
            ((x[i] - x_hat[i]) ** 2).sum() / (3 * 32 * 32) + 0.5 * ((f[i] - f_hat[i]) ** 2).sum() / f.shape[1]
            for i in range(4)
        ]
    torch.testing.assert_close(detector.score(probe), torch.stack(expected))
    detector.config = detector.config.model_copy(update={"kappa": 0.0})
    torch.testing.assert_close(detector.score(probe), (x - x_hat).square().mean((1, 2, 3)))
    assert detector.encoder_step(x, sgd(detector.encoder, lr=0.0))["loss_e"].item() == pytest.approx(
        (x - x_hat).square().mean().item(), rel=1e-5
    )


def test_score_by_code():
    detector = evaluated(score_by="code")
    probe = images(4)
    with torch.no_grad():
        z = detector.encoder(to_unit(probe))
        z_hat = detector.encoder(detector.generator(z))
    torch.testing.assert_close(detector.score(probe), (z - z_hat).square().mean(1))


def test_the_tanh_of_the_encoder_is_an_option():
    x = to_unit(images(8)) * 100
    assert built(encoder_tanh=True).encoder(x).abs().max() <= 1
    assert built().encoder.eval()(x).abs().max() > 1


def test_encoder_optimizers():
    rmsprop = built().encoder_optimizer()
    assert type(rmsprop) is torch.optim.RMSprop
    assert rmsprop.defaults["lr"] == 5e-5
    adam = built(encoder_optimizer="adam", encoder_lr=1e-4, encoder_betas=(0.5, 0.999)).encoder_optimizer()
    assert type(adam) is torch.optim.Adam
    assert (adam.defaults["lr"], adam.defaults["betas"]) == (1e-4, (0.5, 0.999))


def test_hflip_mirrors_about_half_of_the_images():
    x = to_unit(images(200, channels=1, size=16))
    torch.manual_seed(0)
    seen = built(hflip=True).mirrored(x)
    kept = (seen == x).flatten(1).all(1)
    turned = (seen == x.flip(3)).flatten(1).all(1)
    assert bool((kept ^ turned).all())
    assert 70 < kept.sum() < 130
    pixels = images(8)
    for hflip in (False, True):
        detector = FAnoGAN(SMALL.model_copy(update={"hflip": hflip}))
        batch = next(detector.stream(TrainSet(ImageSet(pixels))))
        untouched = sum(any(torch.equal(x, to_unit(original)) for original in pixels) for x in batch)
        assert (untouched < 8) is hflip


def test_the_mlp_has_a_bn_eps_and_is_for_grey_images():
    detector = built((1, 28, 28), arch="mlp", bn_eps=0.8)
    assert [m.eps for m in detector.generator.modules() if isinstance(m, nn.BatchNorm1d)] == [0.8] * 3
    assert detector.generator(torch.randn(2, 6)).shape == (2, 1, 28, 28)
    with pytest.raises(AdbenchError, match="arch=mlp is for grey images, not 3 channels; use resnet"):
        built((3, 32, 32), arch="mlp")
    fitted = FAnoGAN(SMALL.model_copy(update={"arch": "mlp"})).fit(TrainSet(ImageSet(images(16, 1, 28))))
    assert fitted.score(images(3, 1, 28)).isfinite().all()


def test_training_lowers_the_encoders_loss_and_offset_images_score_higher():
    torch.manual_seed(0)
    normal = smooth_images(32, (1, 32, 32), seed=0)
    settings = {
        "width": 8,
        "gan_steps": 10,
        "n_critic": 2,
        "encoder_steps": 60,
        "encoder_lr": 1e-3,
        "lr": 5e-4,
    }
    detector = FAnoGAN(SMALL.model_copy(update=settings))
    history = list(detector.epochs(TrainSet(ImageSet(normal))))
    assert history[-1]["loss_e"] < 0.8 * history[10]["loss_e"]
    detector.encoder.eval()
    probe = smooth_images(8, (1, 32, 32), seed=1)
    offset = (probe.int() + 110).clamp(0, 255).to(torch.uint8)
    assert detector.score(offset).min() > detector.score(probe).max()


def test_blocks_enlarge_before_the_first_convolution_and_pool_after_the_second():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    body = up(4, 3).eval().body
    wide = body[1](body[0](x)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(body(x), body[6](body[5](body[4](body[3](wide)))))
    body = down(4, 3, layer_norm).body
    second = body[5](body[4](body[3](body[2](body[1](body[0](x))))))
    torch.testing.assert_close(body(x), second.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5)))


@pytest.mark.parametrize("settings", [{}, {"arch": "mlp", "shape": (1, 28, 28)}])
def test_drawings_are_bounded(settings):
    detector = built(**settings)
    x = detector.generator(1e4 * torch.randn(8, 6))
    assert 0.9 < x.abs().max() <= 1


def test_the_fully_connected_critic_ends_in_its_slope():
    slopes = [type(layer) for layer in mlp_trunk(28)]
    assert slopes == [nn.Flatten, nn.Linear, nn.LeakyReLU, nn.Linear, nn.LeakyReLU]


def test_steps_forget_the_gradients_of_those_before():
    detector, x = built(), to_unit(images(8))
    for name, act in {
        "critic": detector.critic_step,
        "generator": lambda x, still: detector.generator_step(len(x), still),
        "encoder": detector.encoder_step,
    }.items():
        network, found = detector.networks[name], []
        for _ in range(2):
            torch.manual_seed(1)
            act(x, sgd(network, lr=0.0))
            found.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_optimisers_have_the_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(
        FAnoGAN, "gan_step", lambda self, x, *adams: seen.append(adams) or {"loss": x[0].mean()}
    )
    settings = {"lr": 3e-4, "betas": (0.1, 0.8), "encoder_lr": 7e-5}
    detector = FAnoGAN(SMALL.model_copy(update=settings))
    list(detector.epochs(TrainSet(ImageSet(images(8)))))
    for network, optimizer in zip((detector.generator, detector.critic), seen[0], strict=True):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"]) == (3e-4, (0.1, 0.8))
        assert all(a is b for a, b in zip(group["params"], network.parameters(), strict=True))
    encoders = detector.encoder_optimizer().defaults
    assert (encoders["lr"], encoders["alpha"]) == (7e-5, 0.9)  # the latter TensorFlow's decay


def test_the_streams_order_is_of_the_seed_and_of_whole_batches():
    train = TrainSet(ImageSet(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 32, 32)))
    orders = []
    for seed in (0, 0, 1):
        stream = FAnoGAN(SMALL, seed=seed).stream(train)
        batches = [next(stream)[:, 0, 0, 0].tolist() for _ in range(4)]
        assert [len(batch) for batch in batches] == [8] * 4  # two passes; 4 of 20 images are left out of each
        orders.append(batches)
    assert orders[0] == orders[1] != orders[2]

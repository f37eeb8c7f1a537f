"""EGBAD against the specification: sizes, losses by hand, which step changes what, averaged weights, the score."""

import pytest
import torch
from make_networks import images
from torch import nn

from adbench_baselines.egbad import EGBAD, Config, Optimizers, bce
from adbench_tgan import AdbenchError, ImageSet, TrainSet, to_unit
from adbench_tgan.testing import smooth_images

SMALL = Config(width=4, latent=6, steps=4, batch_size=8)
ARTICLE = {"bn_first": True, "feature": "image", "dropout": 0.0}


def built(shape=(3, 32, 32), device="cpu", **settings):
    torch.manual_seed(0)
    with torch.device(device):
        detector = EGBAD(SMALL.model_copy(update=settings), device=device)
        detector.build(shape)
    return detector


def awake(**settings):
    """An evaluated detector with larger weights, whose networks visibly do something."""
    detector = built(**settings)
    for network in detector.networks.values():
        network.eval()
        for parameter in network.parameters():
            if parameter.ndim > 1:
                nn.init.orthogonal_(parameter)
    return detector


def sgd(detector, *learning):
    """Optimisers that move only the networks named."""
    return Optimizers(
        **{
            name: torch.optim.SGD(network.parameters(), lr=0.1 if name in learning else 0.0)
            for name, network in detector.networks.items()
        }
    )


def parameters(detector):
    return {name: [p.clone() for p in net.parameters()] for name, net in detector.networks.items()}


def moved(detector, act):
    """The networks in which `act` changes a parameter."""
    before = parameters(detector)
    act()
    after = parameters(detector)
    return {name for name in before if not all(map(torch.equal, before[name], after[name]))}


TABLE = [  # size, channels, latent: generator, encoder, discriminator
    (32, 1, 100, 1_067_329, 2_806_692, 2_809_153),
    (32, 3, 100, 1_069_379, 2_808_740, 2_811_201),
    (32, 3, 200, 1_478_979, 2_860_040, 2_862_401),
    (64, 1, 20, 2_920_257, 6_961_492, 6_964_033),
    (64, 3, 100, 3_577_667, 7_004_580, 7_007_041),
    (64, 3, 200, 4_396_867, 7_055_880, 7_058_241),
]


@pytest.mark.parametrize(("size", "channels", "latent", "generator", "encoder", "discriminator"), TABLE)
def test_parameter_counts_of_the_specification(size, channels, latent, generator, encoder, discriminator):
    shape = (channels, size, size)
    counts = built(shape, "meta", width=64, latent=latent, **ARTICLE).parameter_counts()
    assert counts == {"generator": generator, "encoder": encoder, "discriminator": discriminator}

    joint = 1024 * 1024 + 1024  # the official layer on top of the article's discriminator
    counts = built(shape, "meta", width=64, latent=latent, bn_first=True).parameter_counts()
    assert counts == {"generator": generator, "encoder": encoder, "discriminator": discriminator + joint}

    first = 2 * 64  # the batch norm that the first block does not have
    counts = built(shape, "meta", width=64, latent=latent).parameter_counts()
    assert counts == {
        "generator": generator,
        "encoder": encoder - first,
        "discriminator": discriminator + joint - first,
    }


def test_defaults_are_those_of_the_specification():
    c = Config()
    assert (c.latent, c.lr, c.betas, c.batch_size, c.ema_decay) == (100, 2e-4, (0.5, 0.999), 100, 0.999)
    assert (c.feature, c.bn_first, c.dropout, c.m, c.w) == ("joint", False, 0.5, "fm", 0.1)


def test_the_first_blocks_have_batch_norm_only_on_demand():
    for bn_first, kind in ((False, nn.LeakyReLU), (True, nn.BatchNorm2d)):
        detector = built(bn_first=bn_first)
        for trunk in (detector.encoder[0], detector.discriminator.x_branch):
            assert type(trunk[1]) is kind
    slopes = {
        m.negative_slope
        for net in detector.networks.values()
        for m in net.modules()
        if hasattr(m, "negative_slope")
    }
    assert slopes == {0.1}


def test_initial_weights_are_the_authors():
    torch.manual_seed(0)
    detector = EGBAD(Config(width=16))
    detector.build((3, 32, 32))
    for layer in (detector.generator[1], detector.encoder[0][3], detector.discriminator.joint[0]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert not layer.bias.any()
    norms = [m for net in detector.networks.values() for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((m.eps, m.momentum) == (1e-3, 0.01) and bool((m.weight == 1).all()) for m in norms)


def test_batch_norm_averages_as_the_setting_says():
    norms = [
        m
        for net in built(bn_momentum=0.25).networks.values()
        for m in net.modules()
        if hasattr(m, "momentum")
    ]
    assert {type(m) for m in norms} == {nn.BatchNorm1d, nn.BatchNorm2d}
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.25)}


def test_generator_is_bounded_and_the_code_is_not():
    detector = awake()
    x = detector.generator(torch.randn(5, 6) * 100)
    assert x.shape == (5, 3, 32, 32)
    assert x.abs().max() <= 1
    z = detector.encoder(to_unit(images(5)) * 100)
    assert z.shape == (5, 6)
    assert z.abs().max() > 1


@pytest.mark.parametrize(("feature", "length", "sees_z"), [("joint", 64, True), ("image", 32, False)])
def test_only_the_joint_feature_sees_z(feature, length, sees_z):
    detector = awake(feature=feature)
    x = to_unit(images(4))
    logit, f = detector.discriminator(x, torch.zeros(4, 6))
    logit2, f2 = detector.discriminator(x, torch.ones(4, 6))
    assert logit.shape == (4,)
    assert f.shape == (4, length)
    assert torch.equal(f, f2) is not sees_z
    assert not torch.equal(logit, logit2)


def test_the_joint_feature_is_the_layer_below_the_logit():
    detector = awake()
    logit, f = detector.discriminator(to_unit(images(4)), torch.ones(4, 6))
    torch.testing.assert_close(detector.discriminator.critic(f).flatten(), logit)


def test_dropout_is_in_the_discriminator_alone_and_only_while_training():
    detector = built()
    drops = [m.p for m in detector.discriminator.modules() if isinstance(m, nn.Dropout)]
    assert drops == [0.5] * 5  # three blocks, z and the joint layer
    assert not any(m.p for m in detector.encoder.modules() if isinstance(m, nn.Dropout))
    x, z = to_unit(images(4)), torch.ones(4, 6)
    network = detector.discriminator
    assert not torch.equal(network(x, z)[1], network(x, z)[1])
    network.eval()
    assert torch.equal(network(x, z)[1], network(x, z)[1])
    network = built(dropout=0.0).discriminator
    assert torch.equal(network(x, z)[1], network(x, z)[1])


def test_cross_entropy_by_hand():
    logits = torch.tensor([0.0, 2.0, -2.0])
    sure = 0.126928  # log(1 + exp(-2))
    torch.testing.assert_close(bce(logits, 1), torch.tensor([0.693147, sure, 2 + sure]), atol=1e-5, rtol=0)
    torch.testing.assert_close(bce(logits, 0), torch.tensor([0.693147, 2 + sure, sure]), atol=1e-5, rtol=0)


class Stub(nn.Module):
    """Judges the true pair (x, E(x)) 2 and the drawn one (G(z), z) -1."""

    def __init__(self, real):
        super().__init__()
        self.real = real
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, z):
        sign = 2.0 if torch.equal(x, self.real) else -1.0
        return sign + self.weight * x.mean() * z.mean() + torch.zeros(len(x)), x.flatten(1)


def test_losses_by_hand():
    detector = built()
    x = to_unit(images(8))
    detector.discriminator = Stub(x)
    at = {(s, t): bce(torch.tensor([s]), t).item() for s in (2.0, -1.0) for t in (0, 1)}
    losses = detector.step(x, x, sgd(detector))
    assert losses["loss_d"].item() == pytest.approx(at[2.0, 1] + at[-1.0, 0], rel=1e-5)
    assert losses["loss_g"].item() == pytest.approx(at[-1.0, 1], rel=1e-5)
    assert losses["loss_e"].item() == pytest.approx(at[2.0, 0], rel=1e-5)


def test_the_discriminator_learns_first_from_a_then_generator_and_encoder_from_b():
    a, b = to_unit(images(8, seed=1)), to_unit(images(8, seed=2))
    seen, order = [], []
    detector = built()
    detector.encoder.register_forward_pre_hook(lambda _, x: seen.append(x[0]))

    class Recorder(torch.optim.SGD):
        def step(self):
            order.append(self.name)
            return super().step()

    optimizers = {}
    for name, network in detector.networks.items():
        optimizers[name] = Recorder(network.parameters(), lr=0.1)
        optimizers[name].name = name
    learned = moved(detector, lambda: detector.step(a, b, Optimizers(**optimizers)))
    assert learned == {"generator", "encoder", "discriminator"}
    assert order == ["discriminator", "generator", "encoder"]
    assert len(seen) == 2
    assert torch.equal(seen[0], a)
    assert torch.equal(seen[1], b)


def test_each_half_of_a_step_changes_its_own_networks():
    detector = built()
    x = to_unit(images(8))
    everyone = sgd(detector, "generator", "encoder", "discriminator")
    assert moved(detector, lambda: detector.discriminator_step(x, everyone)) == {"discriminator"}
    assert moved(detector, lambda: detector.generator_encoder_step(x, everyone)) == {"generator", "encoder"}
    assert all(p.requires_grad for p in detector.discriminator.parameters())


def test_generator_and_encoder_learn_at_the_same_time_and_apart():
    x = to_unit(images(8))
    results = []
    for learning in (("generator", "encoder"), ("generator",), ("encoder",)):
        detector = built(dropout=0.0)
        torch.manual_seed(1)
        detector.generator_encoder_step(x, sgd(detector, *learning))
        results.append(parameters(detector))
    both, only_g, only_e = results
    assert all(map(torch.equal, both["generator"], only_g["generator"]))
    assert all(map(torch.equal, both["encoder"], only_e["encoder"]))


def test_batches_a_and_b_are_two_orders_of_the_same_images():
    numbers = torch.arange(16, dtype=torch.uint8).reshape(16, 1, 1, 1)
    pairs = EGBAD(SMALL, seed=1).pairs(TrainSet(ImageSet(numbers)))
    passes = []
    for _ in range(2):
        two = [next(pairs), next(pairs)]
        passes += [torch.cat([pair[side] for pair in two]).flatten() for side in (0, 1)]
    numbers = [((x + 1) * 127.5).round().int().tolist() for x in passes]
    assert all(sorted(row) == list(range(16)) for row in numbers)
    assert len({tuple(row) for row in numbers}) == 4


def test_one_image_is_too_few_for_batch_norm_of_codes():
    with pytest.raises(
        AdbenchError, match=r"^batch norm needs two images in a batch here; give more training images$"
    ):
        EGBAD(Config(width=4, latent=4, steps=2)).fit(TrainSet(ImageSet(images(1))))


def test_the_weights_that_score_are_averages_with_live_batch_norm_buffers():
    train = TrainSet(ImageSet(images(16)))
    torch.manual_seed(0)
    fitted = EGBAD(SMALL.model_copy(update={"ema_decay": 0.7, "lr": 1e-2})).fit(train)

    torch.manual_seed(0)
    twin = EGBAD(fitted.config)
    twin.build(train.shape)
    optimizers, pairs = twin.optimizers(), twin.pairs(train)
    averages = None
    for _ in range(4):
        twin.step(*next(pairs), optimizers)
        new = parameters(twin)
        averages = averages or new
        averages = {
            name: [0.7 * old + 0.3 * live for old, live in zip(averages[name], new[name], strict=True)]
            for name in new
        }
    for name, network in fitted.networks.items():
        for got, expected in zip(network.parameters(), averages[name], strict=True):
            torch.testing.assert_close(got, expected)
        for got, expected in zip(network.buffers(), twin.networks[name].buffers(), strict=True):
            assert torch.equal(got, expected)
        live = list(twin.networks[name].parameters())
        assert not all(map(torch.allclose, network.parameters(), live))


def test_score_by_hand():
    detector = awake(w=0.2)
    probe = images(4)
    x = to_unit(probe)
    with torch.no_grad():
        z = detector.encoder(x)
        x_hat = detector.generator(z)
        _, f = detector.discriminator(x, z)
        logit, f_hat = detector.discriminator(x_hat, z)
    for i in range(4):
        residual, feature = (x - x_hat)[i].abs().sum(), (f - f_hat)[i].abs().sum()
        assert feature > 0
        assert detector.score(probe)[i].item() == pytest.approx(
            (0.8 * residual + 0.2 * feature).item(), rel=1e-5
        )
    detector.config = detector.config.model_copy(update={"m": "cross-e", "w": 1.0})
    torch.testing.assert_close(detector.score(probe), torch.log1p(torch.exp(-logit)))


@pytest.mark.parametrize("settings", [ARTICLE, {"m": "cross-e"}, {"feature": "image"}, {"dropout": 0.0}])
def test_options_train_and_score(settings):
    fitted = EGBAD(SMALL.model_copy(update=settings)).fit(TrainSet(ImageSet(images(16))))
    assert fitted.score(images(3)).isfinite().all()


def test_steps_are_counted_and_reported(monkeypatch):
    counts = []
    step = EGBAD.step
    monkeypatch.setattr(EGBAD, "step", lambda self, *args: counts.append(1) or step(self, *args))
    history = list(EGBAD(SMALL.model_copy(update={"steps": 25})).epochs(TrainSet(ImageSet(images(16)))))
    assert len(counts) == 25
    assert len(history) == 13  # twos, and a one
    assert set(history[0]) == {"loss_d", "loss_g", "loss_e"}


def test_offset_images_score_higher_than_normal_ones():
    torch.manual_seed(0)
    normal = smooth_images(32, (1, 32, 32), seed=0)
    settings = {"width": 16, "steps": 60, "lr": 1e-3, "bn_momentum": 0.1, "ema_decay": 0.9}
    detector = EGBAD(SMALL.model_copy(update=settings)).fit(TrainSet(ImageSet(normal)))
    probe = smooth_images(8, (1, 32, 32), seed=1)
    offset = (probe.int() + 110).clamp(0, 255).to(torch.uint8)
    assert detector.score(offset).min() > detector.score(probe).max()


def test_pairs_are_of_the_seed_and_of_whole_batches():
    train = TrainSet(ImageSet(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)))
    orders = []
    for seed in (0, 0, 1):
        pairs = EGBAD(built().config, seed=seed).pairs(train)
        orders.append([part.flatten().tolist() for _ in range(4) for part in next(pairs)])
        assert [len(part) for part in orders[-1]] == [8] * 8
    assert orders[0] == orders[1] != orders[2]


def test_adams_have_the_settings():
    detector = built(lr=3e-4, betas=(0.3, 0.9))
    for name, network in detector.networks.items():
        (group,) = getattr(detector.optimizers(), name).param_groups
        assert (group["lr"], group["betas"]) == (3e-4, (0.3, 0.9))
        assert all(a is b for a, b in zip(group["params"], network.parameters(), strict=True))


def test_generator_has_plain_relus():
    kinds = {type(m) for m in built().generator.modules()} & {nn.ReLU, nn.LeakyReLU}
    assert kinds == {nn.ReLU}


def test_steps_forget_the_gradients_of_those_before():
    detector, x = built(dropout=0.0), to_unit(images(8))
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        detector.discriminator_step(x, sgd(detector))
        detector.generator_encoder_step(x, sgd(detector))
        found.append([p.grad.clone() for network in detector.networks.values() for p in network.parameters()])
    torch.testing.assert_close(*found)

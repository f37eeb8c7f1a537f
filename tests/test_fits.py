"""Whole trainings of four GANs, and the scores, maps and drawings that follow, written plainly here.

In double precision, as in test_steps.py, whose networks these are. A training takes its images from a shuffled pass and
drops what is less than a batch; each image is scored on its own.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from make_networks import images
from test_steps import REGISTRY, adam, descend, double  # noqa: F401 (a fixture for all)

from adbench_baselines import layers
from adbench_tgan import ImageSet, TrainSet
from adbench_tgan.training import fit

SEED = 3
COMMON = {"width": 4, "latent": 6, "lr": 0.02, "batch_size": 4}


def scaled(pixels, c):
    mnist = getattr(c, "legacy_mnist_norm", False)
    return (pixels.double() / 255 - 0.1307) / 0.3081 if mnist else pixels.double() / 127.5 - 1


def pixels_of(x, c):
    mnist = getattr(c, "legacy_mnist_norm", False)
    return (255 * (0.3081 * x + 0.1307) if mnist else 127.5 * (x + 1)).round().clamp(0, 255)


def one_pass(count, size, order):
    shuffled, size = torch.randperm(count, generator=order), min(size, count)
    return [shuffled[start : start + size] for start in range(0, count - size + 1, size)]


def averaging(networks, c):
    """The networks, whose batch norms keep averages for scoring as PyTorch does unless the detector has a setting."""
    for module in (module for network in networks.values() for module in network.modules()):
        if hasattr(module, "running_mean"):
            module.momentum = getattr(c, "bn_momentum", 0.1)
    return networks


def drawn_anew(discriminator):
    new = copy.deepcopy(discriminator)
    for key, value in new.state_dict().items():
        if key.endswith("weight"):
            value.normal_(float(value.ndim == 1), 0.02)
        else:
            value.fill_(key.endswith("var"))
    return new.state_dict()


def losses_of_ganomaly(c, g, d, x):
    x_hat, z, z_hat = g(x)
    (real, f), (drawn, _), (_, f_hat) = d(x), d(x_hat.detach()), d(x_hat)
    loss_g = c.w_adv * (f.detach() - f_hat).square().mean() + c.w_con * (x - x_hat).abs().mean()
    loss_d = (F.softplus(-real).mean() + F.softplus(drawn).mean()) / 2
    return loss_g + c.w_enc * (z - z_hat).square().mean(), loss_d


def losses_of_skip(c, g, d, x):
    noise = getattr(c, "input_noise_std", 0)
    x_hat = g(x + noise * torch.randn_like(x) if noise else x)
    (_, f), (drawn, f_hat) = d(x), d(x_hat)
    loss_g = c.w_adv * F.softplus(-drawn).mean() + c.w_con * (x - x_hat).abs().mean()
    loss_g = loss_g + c.w_lat * (f - f_hat).square().mean()
    (real, f), (drawn, f_hat) = d(x), d(x_hat.detach())
    loss_d = F.softplus(-real).mean() + F.softplus(drawn).mean()
    return loss_g, loss_d + c.d_uses_lat * c.w_lat * (f - f_hat).square().mean()


def train_two(losses, c, networks, x):
    g, d = networks.values()
    adam_g, adam_d = (adam(c.lr, (c.beta1, 0.999), network) for network in (g, d))
    order, history = torch.Generator().manual_seed(SEED), []
    for _ in range(c.epochs):
        rows = []
        for chosen in one_pass(len(x), c.batch_size, order):
            loss_g, loss_d = losses(c, g, d, x[chosen])
            descend(loss_g, adam_g)
            descend(loss_d, adam_d)
            new, won = drawn_anew(d), bool(loss_d < layers.WON)
            if won:
                d.load_state_dict(new)
                adam_d = adam(c.lr, (c.beta1, 0.999), d)
            rows.append({"loss_g": loss_g.item(), "loss_d": loss_d.item(), "restarts": float(won)})
        history.append({key: sum(row[key] for row in rows) / len(rows) for key in rows[0]})
    return history


def train_egbad(c, networks, x):
    """One step is one report here."""
    g, e, d = networks.values()
    adams = [adam(c.lr, c.betas, network) for network in (g, e, d)]
    order, history, left, averages = torch.Generator().manual_seed(SEED), [], [], None
    while len(history) < c.steps:
        if not left:
            left = list(zip(*(one_pass(len(x), c.batch_size, order) for _ in "ab"), strict=True))
        a, b = (x[chosen] for chosen in left.pop(0))
        z = torch.randn(len(a), c.latent)
        real, drawn = d(a, e(a).detach())[0], d(g(z).detach(), z)[0]
        loss_d = F.softplus(-real).mean() + F.softplus(drawn).mean()
        descend(loss_d, adams[2])
        z = torch.randn(len(b), c.latent)
        loss_g, loss_e = F.softplus(-d(g(z), z)[0]).mean(), F.softplus(d(b, e(b))[0]).mean()
        descend(loss_g, adams[0])
        descend(loss_e, adams[1])
        live = [p.detach().clone() for network in (g, e, d) for p in network.parameters()]
        averages = averages or live
        averages = [c.ema_decay * old + (1 - c.ema_decay) * p for old, p in zip(averages, live, strict=True)]
        history.append({"loss_d": loss_d.item(), "loss_g": loss_g.item(), "loss_e": loss_e.item()})
    for p in (p for network in (g, e, d) for p in network.parameters()):
        p.data = averages.pop(0)
    return history


def score_of_ganomaly(c, g, d, x):
    x_hat, z, z_hat = g(x)
    difference = (z - z_hat).flatten()
    power = 2 if c.score_norm == "square" else 1
    return x_hat, sum(abs(value) ** power for value in difference) / len(difference)


def score_of_skip(c, g, d, x):
    x_hat = g(x)
    in_code = (d(x)[1] - d(x_hat)[1]).square().sum() / c.latent
    return x_hat, c.score_lambda * (x - x_hat).square().sum() / x.numel() + (1 - c.score_lambda) * in_code


def score_of_egbad(c, g, e, d, x):
    z = e(x)
    x_hat = g(z)
    (_, f), (logit, f_hat) = d(x, z), d(x_hat, z)
    judged = (f - f_hat).abs().sum() if c.m == "fm" else -logit.sigmoid().log().squeeze()
    return x_hat, (1 - c.w) * (x - x_hat).abs().sum() + c.w * judged


def train_ganomaly(*args):
    return train_two(losses_of_ganomaly, *args)


def train_skip(*args):
    return train_two(losses_of_skip, *args)


PLAIN = {
    "ganomaly": (train_ganomaly, score_of_ganomaly),
    "skip_ganomaly": (train_skip, score_of_skip),
    "sagan": (train_skip, score_of_skip),
    "egbad": (train_egbad, score_of_egbad),
}
GREY, COLOUR = (1, 32, 32), (3, 32, 32)
MANY, FEW = 10, 3  # images: two batches and a half, less than a batch
CASES = [  # with the loss under which a discriminator has won: some steps' losses are, others' are not
    ("ganomaly", COLOUR, MANY, 0.67, {"w_adv": 30, "w_con": 2, "w_enc": 3, "beta1": 0.3}),
    ("ganomaly", GREY, FEW, 0, {"legacy_mnist_norm": True, "score_norm": "l1", "extra_layers": 1}),
    ("skip_ganomaly", COLOUR, MANY, 1.75, {"w_adv": 3, "w_con": 2, "w_lat": 4, "score_lambda": 0.3}),
    ("skip_ganomaly", GREY, FEW, 0, {"legacy_mnist_norm": True, "d_uses_lat": False, "input_noise_std": 0.5}),
    ("sagan", COLOUR, MANY, 1.65, {"depth_multiplier": 1, "w_lat": 4, "score_lambda": 0.2}),
    ("sagan", GREY, FEW, 0, {"softpool": True, "attend_path": True, "out_act": "none"}),
    ("egbad", COLOUR, MANY, 0, {"bn_first": True, "betas": (0.2, 0.9), "ema_decay": 0.5, "w": 0.99}),
    (
        "egbad",
        GREY,
        FEW,
        0,
        {"feature": "image", "m": "cross-e", "w": 0.6, "ema_decay": 0.7, "bn_momentum": 0.3},
    ),
]


@pytest.mark.parametrize(("name", "shape", "count", "won", "settings"), CASES, ids=str)
def test_a_training_and_its_scores(name, shape, count, won, settings, monkeypatch):
    monkeypatch.setattr(layers, "WON", won)
    cls, (train, score) = REGISTRY.detector(name), PLAIN[name]
    c = cls.Config(**COMMON, **({"steps": 5} if name == "egbad" else {"epochs": 2}), **settings)
    pixels = images(count, *shape[:2])
    torch.manual_seed(0)
    twin = cls(c)
    twin.build(shape)
    networks = averaging(twin.networks, c)
    history = train(c, networks, scaled(pixels, c))

    torch.manual_seed(0)
    detector = cls(c, seed=SEED)
    found = fit(detector, TrainSet(ImageSet(pixels)))
    for ours, plain in zip(found, history, strict=True):
        assert ours == pytest.approx(plain, rel=1e-5)
    if won:
        assert 0 < sum(losses["restarts"] for losses in history) < len(history)

    probe = images(3, *shape[:2], seed=1)
    for network in networks.values():
        network.eval()
    with torch.no_grad():
        pairs = [score(c, *networks.values(), scaled(one[None], c)) for one in probe]
    x_hat, scores = torch.cat([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])
    torch.testing.assert_close(detector.score(probe), scores, rtol=1e-5, atol=0)
    difference = (scaled(probe, c) - x_hat).abs()
    torch.testing.assert_close(detector.anomaly_map(probe), sum(difference.unbind(1)) / shape[0])
    assert torch.equal(detector.reconstruct(probe), pixels_of(x_hat, c))

"""Convolutional networks, and three training steps of each GAN that searches or is a transformer, written plainly here.

All outputs, and all parameters and buffers after the steps, are compared in double precision, where a difference is more
than rounding. The networks are moved away from their first weights, at which much is nearly 0.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from make_networks import images
from torch.nn.attention import SDPBackend, sdpa_kernel

from adbench_plugins.transgan.batches import Batch
from adbench_plugins.transgan.diffaugment import diffaugment
from adbench_plugins.transgan.losses import abc_loss, patch_loss
from adbench_tgan.registry import Registry

REGISTRY = Registry.discover()
TINY = {"latent": 6, "discriminator_width": 8, "generator_width": 64, "generator_depths": (1, 0, 0)}
SMALL = {
    "anogan": {"width": 4, "latent": 6},
    "f_anogan": {"width": 4, "latent": 6},
    "anotrans": {"patch": 4, "width": 8, "discriminator_width": 8, "latent": 6},
    "transgan_anogan": {**TINY, "image_size": 32, "discriminator_depth": 1, "generator_dropout": 0.25},
    "transgan_dual": {**TINY, "discriminator_depth": 1, "backbone": "none", "grad_clip": 0.5},
}


@pytest.fixture(autouse=True)
def double(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def twins(name, **settings):
    """A detector, and copies of its networks."""
    torch.manual_seed(0)
    cls = REGISTRY.detector(name)
    detector = cls(cls.Config(**{**SMALL[name], **settings}))
    detector.build((1, 32, 32))
    for network in detector.networks.values():
        for parameter in network.parameters():
            parameter.data += 0.5 * torch.randn_like(parameter)
    return detector, copy.deepcopy(detector.networks)


def batch(number):
    return images(4, channels=1, seed=number).double() / 127.5 - 1


def same_after(ours, plain, detector, copies, resting=()):
    """Take three steps of both, with the same random numbers, and compare the networks; all but those resting move."""
    before = copy.deepcopy(copies)
    for number in range(3):
        for step in (ours, plain):
            torch.manual_seed(number)
            step(number)
    for name, network in detector.networks.items():
        expected = copies[name].state_dict()
        torch.testing.assert_close(network.state_dict(), expected, rtol=1e-5, atol=1e-8)
        moved = [not torch.equal(tensor, expected[key]) for key, tensor in before[name].state_dict().items()]
        assert any(moved) == (name not in resting)


def descend(loss, optimizer, clip=None):
    parameters = optimizer.param_groups[0]["params"]
    gradients = torch.autograd.grad(loss, parameters)
    if clip is not None:
        norm = sum(gradient.square().sum() for gradient in gradients).sqrt()
        assert norm > clip
        gradients = [gradient * clip / (norm + 1e-6) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def adam(lr, betas, *networks):
    return torch.optim.Adam([p for network in networks for p in network.parameters()], lr, betas)


def penalty(judge, x, fake):
    weight = torch.rand(len(x), 1, 1, 1)
    mix = (weight * x + (1 - weight) * fake).requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # which alone has a second derivative
        (gradient,) = torch.autograd.grad(judge(mix).sum(), mix, create_graph=True)
    return ((gradient.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()


def batch_norm(x, scale, shift):
    return F.batch_norm(x, None, None, scale, shift, training=True)


def layer_norm(x, scale, shift):
    x = F.layer_norm(x, x.shape[1:])
    return x * scale[:, None, None] + shift[:, None, None]


def test_networks_of_anogan():
    g, d = twins("anogan")[1].values()
    x, p = torch.randn(4, 6, 1, 1), iter(g.parameters())
    drawn, stride, padding = g(x), 1, 0
    for _ in range(3):
        x = F.conv_transpose2d(x, next(p), None, stride, padding)
        x, stride, padding = batch_norm(x, next(p), next(p)).relu(), 2, 1
    x = F.conv_transpose2d(x, next(p), None, 2, 1).tanh()
    torch.testing.assert_close(drawn, x)

    (logit, f), p = d(x), iter(d.parameters())
    x = F.leaky_relu(F.conv2d(x, next(p), None, 2, 1), 0.2)
    for _ in range(2):
        x = F.leaky_relu(batch_norm(F.conv2d(x, next(p), None, 2, 1), next(p), next(p)), 0.2)
    torch.testing.assert_close((logit, f), (F.conv2d(x, next(p)).flatten(), x))


def residual_block(x, p, norm, before=lambda x: x, after=lambda x: x):
    """Enlarged by `before` the convolutions, or shrunk by `after`, which the shortcut's 1 x 1 convolution follows."""
    y = F.conv2d(before(norm(x, next(p), next(p)).relu()), next(p), None, padding=1)
    y = after(F.conv2d(norm(y, next(p), next(p)).relu(), next(p), next(p), padding=1))
    return y + F.conv2d(after(before(x)), next(p), next(p))


def double_side(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halve_side(x):
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))


def test_networks_of_f_anogan():
    g, d, e = twins("f_anogan")[1].values()
    x, p = torch.randn(4, 6), iter(g.parameters())
    drawn, x = g(x), F.linear(x, next(p), next(p)).view(4, -1, 4, 4)
    for _ in range(3):
        x = residual_block(x, p, batch_norm, before=double_side)
    x = batch_norm(x, next(p), next(p)).relu()
    torch.testing.assert_close(drawn, F.conv2d(x, next(p), next(p), padding=1).tanh())

    for network, norm in ((d, layer_norm), (e, batch_norm)):
        x, p = batch(0), iter(network.parameters())
        found, x = network(x), F.conv2d(x, next(p), next(p), padding=1)
        for _ in range(3):
            x = residual_block(x, p, norm, after=halve_side)
        f = x.flatten(1)
        end = F.linear(f, next(p), next(p))
        torch.testing.assert_close(found, end if network is e else (end.flatten(), f))


def test_anogan():
    detector, copies = twins("anogan")
    g, d = copies.values()
    adams = [detector.adam(network) for network in detector.networks.values()]
    adam_g, adam_d = adam(2e-4, (0.5, 0.999), g), adam(2e-4, (0.5, 0.999), d)

    def plain(number):
        fake = g(torch.randn(4, 6, 1, 1)).detach()
        loss = F.softplus(-d(batch(number))[0]).mean() + F.softplus(d(fake)[0]).mean()
        descend(loss, adam_d)
        descend(F.softplus(-d(g(torch.randn(4, 6, 1, 1)))[0]).mean(), adam_g)

    same_after(lambda number: detector.step(batch(number), *adams), plain, detector, copies)


def test_f_anogan():
    detector, copies = twins("f_anogan")
    g, d, e = copies.values()
    adam_g, adam_d = adam(1e-4, (0.0, 0.9), g), adam(1e-4, (0.0, 0.9), d)
    adams = [adam(1e-4, (0.0, 0.9), network) for network in (detector.generator, detector.critic)]
    rmsprop, square = detector.encoder_optimizer(), [torch.zeros_like(p) for p in e.parameters()]

    def ours(number):
        for network in (detector.generator, detector.critic):
            network.train().requires_grad_(True)
        detector.gan_step([batch(number), batch(number + 3)], *adams)
        detector.freeze_gan()
        detector.encoder_step(batch(number), rmsprop)

    def plain(number):
        g.train()
        for x in (batch(number), batch(number + 3)):
            fake = g(torch.randn(4, 6)).detach()
            loss = d(fake)[0].mean() - d(x)[0].mean()
            descend(loss + 10 * penalty(lambda mix: d(mix)[0], x, fake), adam_d)
        descend(-d(g(torch.randn(4, 6)))[0].mean(), adam_g)
        g.eval()
        x = batch(number)
        x_hat = g(e(x))
        loss = (x - x_hat).square().mean() + (d(x)[1] - d(x_hat)[1]).square().mean()
        gradients = torch.autograd.grad(loss, list(e.parameters()))
        for parameter, gradient, mean in zip(e.parameters(), gradients, square, strict=True):
            mean.mul_(0.9).add_(0.1 * gradient.square())
            parameter.data -= 5e-5 * gradient / (mean.sqrt() + 1e-8)

    same_after(ours, plain, detector, copies)


@pytest.mark.parametrize("settings", [{}, {"skip": "figure", "legacy_double_lat": True}])
def test_anotrans(settings):
    detector, copies = twins("anotrans", **settings)
    g, d = copies.values()
    adams = [detector.adam(network) for network in detector.networks.values()]
    adam_g, adam_d = adam(2e-4, (0.5, 0.999), g), adam(2e-4, (0.5, 0.999), d)
    w_lat = 2 if settings else 1

    def plain(number):
        x = batch(number)
        x_hat = g(x)
        (_, f), (logit_hat, f_hat) = d(x), d(x_hat)
        loss = F.softplus(-logit_hat).mean() + 50 * (x - x_hat).abs().mean()
        descend(loss + w_lat * (f - f_hat).square().mean(), adam_g)
        (logit, f), (logit_hat, f_hat) = d(x), d(x_hat.detach())
        loss = F.softplus(-logit).mean() + F.softplus(logit_hat).mean()
        descend(loss + (f - f_hat).square().mean(), adam_d)

    same_after(lambda number: detector.step(batch(number), *adams), plain, detector, copies)


@pytest.mark.parametrize("variant", ["mit", "asarigun"])
def test_transgan_anogan(variant):
    detector, copies = twins("transgan_anogan", diffaugment=variant)
    g, d = copies.values()
    adams = [detector.adam(network) for network in detector.networks.values()]
    adam_g, adam_d = adam(1e-4, (0.0, 0.99), g), adam(1e-4, (0.0, 0.99), d)

    def judge(x):
        return d(diffaugment(x, variant))

    def plain(number):
        for x in (batch(number), batch(number + 3)):
            fake = g(torch.randn(4, 6)).detach()
            real, judged = judge(x).mean(), judge(fake).mean()
            descend(judged - real + 10 * penalty(judge, x, fake) + 1e-3 * real**2, adam_d)
        descend(-judge(g(torch.randn(4, 6))).mean(), adam_g)

    def ours(number):
        detector.step([batch(number), batch(number + 3)], *adams)

    same_after(ours, plain, detector, copies)


@pytest.mark.parametrize("labelled", [True, False])
def test_transgan_dual(labelled):
    detector, copies = twins("transgan_dual")
    g, d_normal, d_anomalous, mapper, backbone = copies.values()
    optimise = detector._optimisers()
    drawing = adam(1e-4, (0.5, 0.999), g, mapper, backbone)
    judging = adam(1e-4, (0.5, 0.999), d_normal, *([d_anomalous] if labelled else []))

    def judged(d, x):
        return d(diffaugment(x, "mit"))

    def plain(number):
        x, other = batch(number), batch(number + 3)
        z = mapper(backbone(torch.cat([x, other]) if labelled else x))
        x_hat, other_hat = g(z)[:4], g(z)[4:]
        loss = (judged(d_normal, x) - 1).square().mean() + judged(d_normal, x_hat.detach()).square().mean()
        if labelled:
            loss = loss + (judged(d_anomalous, other) - 1).square().mean()
            loss = loss + judged(d_anomalous, other_hat.detach()).square().mean()
        descend(loss, judging)
        loss = 1.5 * (x - x_hat).abs().mean() + 1.5 * patch_loss(x, x_hat, 8, 3)
        loss = loss + 0.5 * (judged(d_normal, x_hat) - 1).square().mean()
        loss = loss + 0.5 * (z[:4] - mapper(backbone(x_hat))).abs().mean()
        if labelled:
            loss = loss + judged(d_anomalous, other_hat).square().mean() + 0.5 * abc_loss(other, other_hat)
        descend(loss, drawing, clip=0.5)

    def ours(number):
        other = Batch(batch(number + 3), None) if labelled else None
        detector._step(optimise, Batch(batch(number), None), other)

    same_after(ours, plain, detector, copies, resting=() if labelled else ["discriminator_anomalous"])

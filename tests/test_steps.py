"""Convolutional networks, and three training steps of each GAN, written plainly here.

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
CONVOLUTIONS = {"width": 4, "latent": 6}
SMALL = {
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


SHAPES = pytest.mark.parametrize("shape", [(1, 32, 32), (3, 64, 64)], ids=str)
WIDE = (3, 32, 32)  # of images for which the networks are as wide as the papers'
MORE_SHAPES = pytest.mark.parametrize(
    "shape", [(1, 32, 32), (3, 64, 64), (1, 16, 16), (1, 128, 128), WIDE], ids=str
)


def twins(name, shape=(1, 32, 32), **settings):
    """A detector, and copies of its networks."""
    torch.manual_seed(0)
    cls = REGISTRY.detector(name)
    small = CONVOLUTIONS | ({"width": 64} if shape == WIDE else {})
    detector = cls(cls.Config(**{**SMALL.get(name, small), **settings}))
    detector.build(shape)
    for network in detector.networks.values():
        for parameter in network.parameters():
            parameter.data += 0.5 * torch.randn_like(parameter)
    return detector, copy.deepcopy(detector.networks)


def batch(number, shape=(1, 32, 32)):
    return images(4, channels=shape[0], size=shape[1], seed=number).double() / 127.5 - 1


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


def leaky(x):
    return F.leaky_relu(x, 0.2)


def pyramid(x, p, extra=0):
    """Any side becomes 4 pixels."""
    x = leaky(F.conv2d(x, next(p), None, 2, 1))
    for _ in range(extra):
        x = leaky(batch_norm(F.conv2d(x, next(p), None, padding=1), next(p), next(p)))
    while x.shape[3] > 4:
        x = leaky(batch_norm(F.conv2d(x, next(p), None, 2, 1), next(p), next(p)))
    return x


def deconvolved(z, p, side=32, extra=0):
    """One pixel a side becomes `side`."""
    x, stride, padding = z, 1, 0
    while x.shape[3] < side / 2:
        x = F.conv_transpose2d(x, next(p), None, stride, padding)
        x, stride, padding = batch_norm(x, next(p), next(p)).relu(), 2, 1
    for _ in range(extra):
        x = batch_norm(F.conv2d(x, next(p), None, padding=1), next(p), next(p)).relu()
    return F.conv_transpose2d(x, next(p), None, 2, 1).tanh()


@SHAPES
def test_networks_of_anogan(shape):
    g, d = twins("anogan", shape)[1].values()
    z = torch.randn(4, 6, 1, 1)
    x = deconvolved(z, iter(g.parameters()), shape[2])
    torch.testing.assert_close(g(z), x)

    (logit, f), p = d(x), iter(d.parameters())
    x = pyramid(x, p)
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


@SHAPES
def test_networks_of_f_anogan(shape):
    g, d, e = twins("f_anogan", shape)[1].values()
    x, p = torch.randn(4, 6), iter(g.parameters())
    drawn, x = g(x), F.linear(x, next(p), next(p)).view(4, -1, 4, 4)
    while x.shape[3] < shape[2]:
        x = residual_block(x, p, batch_norm, before=double_side)
    x = batch_norm(x, next(p), next(p)).relu()
    torch.testing.assert_close(drawn, F.conv2d(x, next(p), next(p), padding=1).tanh())

    for network, norm in ((d, layer_norm), (e, batch_norm)):
        x, p = batch(0, shape), iter(network.parameters())
        found, x = network(x), F.conv2d(x, next(p), next(p), padding=1)
        while x.shape[3] > 4:
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


@MORE_SHAPES
@pytest.mark.parametrize("extra", [0, 2])
def test_networks_of_ganomaly(shape, extra):
    g, d = twins("ganomaly", shape, extra_layers=extra)[1].values()
    x, p = batch(0, shape), iter(g.parameters())
    drawn = g(x)
    z = F.conv2d(pyramid(x, p, extra), next(p))
    x_hat = deconvolved(z, p, shape[2], extra)
    z_hat = F.conv2d(pyramid(x_hat, p, extra), next(p))
    torch.testing.assert_close(drawn, (x_hat, z, z_hat))

    judged, p = d(x_hat), iter(d.parameters())
    f = pyramid(x_hat, p, extra)
    torch.testing.assert_close(judged, (F.conv2d(f, next(p)).flatten(), f))


@MORE_SHAPES
def test_networks_of_skip_ganomaly(shape):
    g, d = twins("skip_ganomaly", shape)[1].values()
    x, p = batch(0, shape), iter(g.parameters())
    drawn, down = g(x), [F.conv2d(x, next(p), None, 2, 1)]
    while down[-1].shape[3] > 2:
        down.append(batch_norm(F.conv2d(leaky(down[-1]), next(p), None, 2, 1), next(p), next(p)))
    x = F.conv2d(leaky(down[-1]), next(p), None, 2, 1)  # one pixel
    for beside in reversed(down):
        x = batch_norm(F.conv_transpose2d(x.relu(), next(p), None, 2, 1), next(p), next(p))
        x = torch.cat([leaky(beside), x], 1)
    x_hat = F.conv_transpose2d(x.relu(), next(p), next(p), 2, 1).tanh()
    torch.testing.assert_close(drawn, x_hat)

    judged, p = d(x_hat), iter(d.parameters())
    f = F.conv2d(pyramid(x_hat, p), next(p))
    torch.testing.assert_close(judged, (F.conv2d(f, next(p), padding=1).flatten(), f.flatten(1)))


def attended(x, p):
    """CBAM: what of it counts, channel by channel, then pixel by pixel."""
    w1, b1, w2, b2 = (next(p) for _ in range(4))
    pooled = (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
    x = x * sum(F.conv2d(F.conv2d(pool, w1, b1).relu(), w2, b2) for pool in pooled).sigmoid()
    both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * batch_norm(F.conv2d(both, next(p), padding=3), next(p), next(p)).sigmoid()


def double_block(x, p, *, separable):
    for _ in range(2):
        if separable:
            x = F.conv2d(x, next(p), next(p), padding=1, groups=x.shape[1])
        x = F.conv2d(x, next(p), next(p), padding=0 if separable else 1)
        x = batch_norm(x, next(p), next(p)).relu()
    return x


def softly_pooled(x):
    blocks = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return (blocks.exp() * blocks).sum((3, 5)) / blocks.exp().sum((3, 5))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attend_path": True},
        {"softpool": True, "out_act": "none"},
        {"depth_multiplier": 1},
        {"separable": False},
        {"separable": False, "attention": False},
        {"shape": (3, 64, 64)},
        {"shape": (1, 16, 16)},
        {"shape": (1, 128, 128)},
        {"shape": WIDE},
    ],
    ids=str,
)
def test_networks_of_sagan(settings):
    g, d = twins("sagan", **settings)[1].values()
    p, ups = (iter(part.parameters()) for part in (g.encoder, g.decoder))
    gates = iter(g.attention.parameters()) if settings.get("attention", True) else None
    separable = settings.get("separable", True)
    x, beside = batch(0, settings.get("shape", (1, 32, 32))), []
    drawn = g(x)
    for level in range(5):
        if level:
            x = softly_pooled(x) if "softpool" in settings else F.max_pool2d(x, 2)
        x = double_block(x, p, separable=separable)
        beside.append(attended(x, gates) if gates else x)
        if "attend_path" in settings:
            x = beside[-1]
    x = beside.pop()
    while beside:
        larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = double_block(torch.cat([beside.pop(), larger], 1), ups, separable=separable)
    x = F.conv2d(x, *g.last.parameters())
    torch.testing.assert_close(drawn, x if "out_act" in settings else x.tanh())
    judged, p = d(drawn), iter(d.parameters())
    f = F.conv2d(pyramid(drawn, p), next(p))
    torch.testing.assert_close(judged, (F.conv2d(f, next(p), padding=1).flatten(), f.flatten(1)))


def tensorflows_norm(x, scale, shift):
    return F.batch_norm(x, None, None, scale, shift, training=True, eps=1e-3)


def bigan_trunk(x, p, normed):
    """`normed`: whether the first block is normalised, as all others are."""
    while x.shape[3] > 4:
        x = F.conv2d(x, next(p), next(p), 2, 1)
        x = F.leaky_relu(tensorflows_norm(x, next(p), next(p)) if normed else x, 0.1)
        normed = True
    return F.conv2d(x, next(p), next(p)).flatten(1)


@MORE_SHAPES
@pytest.mark.parametrize(("feature", "bn_first"), [("joint", False), ("image", True)])
def test_networks_of_egbad(feature, bn_first, shape):
    g, e, d = twins("egbad", shape, dropout=0, feature=feature, bn_first=bn_first)[1].values()
    x, p = batch(0, shape), iter(e.parameters())
    z = F.linear(bigan_trunk(x, p, bn_first), next(p), next(p))
    torch.testing.assert_close(e(x), z)

    x, p, stride, padding = z[:, :, None, None], iter(g.parameters()), 1, 0
    while x.shape[3] < shape[2] / 2:
        x = F.conv_transpose2d(x, next(p), next(p), stride, padding)
        x, stride, padding = tensorflows_norm(x, next(p), next(p)).relu(), 2, 1
    x = F.conv_transpose2d(x, next(p), next(p), 2, 1).tanh()
    torch.testing.assert_close(g(z), x)

    judged, p = d(x, z), iter(d.parameters())
    f, code = bigan_trunk(x, p, bn_first), tensorflows_norm(F.linear(z, next(p), next(p)), next(p), next(p))
    both = torch.cat([f, F.leaky_relu(code, 0.1)], 1)
    if feature == "joint":
        f = both = F.leaky_relu(F.linear(both, next(p), next(p)), 0.1)
    torch.testing.assert_close(judged, (F.linear(both, next(p), next(p)).flatten(), f))


def test_ganomaly():
    detector, copies = twins("ganomaly")
    g, d = copies.values()
    adams = [detector.adam(network) for network in detector.networks.values()]
    adam_g, adam_d = adam(2e-4, (0.5, 0.999), g), adam(2e-4, (0.5, 0.999), d)

    def plain(number):
        x = batch(number)
        x_hat, z, z_hat = g(x)
        (logit, f), (logit_hat, _), (_, f_hat) = d(x), d(x_hat.detach()), d(x_hat)
        loss = (f.detach() - f_hat).square().mean() + 50 * (x - x_hat).abs().mean()
        descend(loss + (z - z_hat).square().mean(), adam_g)
        descend((F.softplus(-logit).mean() + F.softplus(logit_hat).mean()) / 2, adam_d)

    same_after(lambda number: detector.step(batch(number), *adams), plain, detector, copies)


@pytest.mark.parametrize(("name", "w_con"), [("skip_ganomaly", 50), ("sagan", 40)])
@pytest.mark.parametrize("d_uses_lat", [True, False])
def test_skip_ganomaly_and_sagan(name, w_con, d_uses_lat):
    detector, copies = twins(name, d_uses_lat=d_uses_lat)
    g, d = copies.values()
    adams = [detector.adam(network) for network in detector.networks.values()]
    adam_g, adam_d = adam(2e-4, (0.5, 0.999), g), adam(2e-4, (0.5, 0.999), d)

    def plain(number):
        x = batch(number)
        x_hat = g(x)
        (_, f), (logit_hat, f_hat) = d(x), d(x_hat)
        loss = F.softplus(-logit_hat).mean() + w_con * (x - x_hat).abs().mean()
        descend(loss + (f - f_hat).square().mean(), adam_g)
        (logit, f), (logit_hat, f_hat) = d(x), d(x_hat.detach())
        loss = F.softplus(-logit).mean() + F.softplus(logit_hat).mean()
        descend(loss + d_uses_lat * (f - f_hat).square().mean(), adam_d)

    same_after(lambda number: detector.step(batch(number), *adams), plain, detector, copies)


def test_egbad():
    detector, copies = twins("egbad")
    g, e, d = copies.values()
    optimizers = detector.optimizers()
    adams = [adam(2e-4, (0.5, 0.999), network) for network in (g, e, d)]

    def plain(number):
        x, z = batch(number), torch.randn(4, 6)
        (real, _), (drawn, _) = d(x, e(x).detach()), d(g(z).detach(), z)
        descend(F.softplus(-real).mean() + F.softplus(drawn).mean(), adams[2])
        x, z = batch(number + 3), torch.randn(4, 6)
        (drawn, _), (real, _) = d(g(z), z), d(x, e(x))
        loss_g, loss_e = F.softplus(-drawn).mean(), F.softplus(real).mean()
        descend(loss_g, adams[0])
        descend(loss_e, adams[1])

    def ours(number):
        detector.step(batch(number), batch(number + 3), optimizers)

    same_after(ours, plain, detector, copies)

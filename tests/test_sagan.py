"""Skip-Attention GAN against the specification: sizes, attention, pooling, options, losses by hand."""

import pytest
import torch
import torch.nn.functional as F
from make_networks import idle, images
from torch import nn

from adbench_baselines import layers
from adbench_baselines.sagan import SAGAN, Config, Depthwise, Generator, cbam, max_pool, softpool
from adbench_tgan import AdbenchError, ImageSet, TrainSet, to_unit
from adbench_tgan.registry import Registry

SMALL = Config(width=8, latent=10, epochs=1, batch_size=8)


def built(shape=(3, 32, 32), **settings):
    torch.manual_seed(0)
    detector = SAGAN(SMALL.model_copy(update=settings))
    detector.build(shape)
    return detector


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_filters_of_a_channel_are_those_of_one_convolution(k, bias):
    torch.manual_seed(0)
    depthwise = Depthwise(4, 4 * k, 3, padding=1, groups=4, bias=bias)
    x = torch.randn(5, 4, 6, 6, requires_grad=True)
    both = depthwise(x), nn.Conv2d.forward(depthwise, x)
    torch.testing.assert_close(*both)
    gradients = [torch.autograd.grad(y.square().sum(), [x, *depthwise.parameters()]) for y in both]
    torch.testing.assert_close(*gradients)


def test_both_names_lead_to_it():
    registry = Registry.discover()
    assert registry.detector("sagan") is registry.detector("skip_attention_gan") is SAGAN


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({}, 4_032_335),
        ({"depth_multiplier": 1}, 2_062_065),
        ({"separable": False}, 17_345_875),
        ({"separable": False, "attention": False}, 17_267_523),
    ],
)
def test_parameter_counts_of_the_generators_variants(settings, parameters):
    with torch.device("meta"):
        generator = Generator(3, Config(**settings))
    assert sum(p.numel() for p in generator.parameters()) == parameters


def test_the_papers_numbers_are_the_defaults():
    c = Config()
    assert (c.w_adv, c.w_con, c.w_lat, c.lr, c.beta1, c.epochs) == (1, 40, 1, 2e-4, 0.5, 25)
    assert (c.depth_multiplier, c.score_lambda, c.batch_size, c.out_act) == (2, 0.9, 32, "tanh")
    assert not c.softpool
    assert not c.attend_path


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 32), (3, 64), (1, 128)])
def test_levels_halve_the_side_and_the_output_has_the_images_shape(channels, size):
    generator = built((channels, size, size)).generator
    seen = []
    for block in generator.encoder:
        block.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[1:])))
    x = to_unit(images(2, channels, size))
    assert generator(x).shape == x.shape
    widths = [8, 16, 32, 64, 64]
    assert seen == [(w, size >> level, size >> level) for level, w in enumerate(widths)]


def test_initial_weights_follow_dcgan():
    torch.manual_seed(0)
    detector = SAGAN()
    detector.build((3, 32, 32))
    depthwise, pointwise, norm, *_ = detector.generator.encoder[4]
    assert depthwise.weight.shape == (1024, 1, 3, 3)
    assert depthwise.groups == 512
    for convolution in (depthwise, pointwise, detector.generator.attention[4].channel.fc1):
        assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not convolution.bias.any()
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_every_block_is_twice_a_convolution_norm_and_relu():
    generator = Generator(3, SMALL)
    for block in [*generator.encoder, *generator.decoder]:
        kinds = [type(layer) for layer in block]
        assert kinds == 2 * [Depthwise, nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    wide = [
        (block[0].in_channels, block[2].num_features, block[6].num_features) for block in generator.decoder
    ]
    assert wide == [(128, 64, 32), (64, 32, 16), (32, 16, 8), (16, 8, 8)]
    ordinary = Generator(3, SMALL.model_copy(update={"separable": False})).encoder[1]
    assert [type(layer) for layer in ordinary] == 2 * [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert ordinary[0].groups == 1


def test_attention_is_cbams():
    torch.manual_seed(0)
    attention = cbam(32).eval()
    x = torch.randn(2, 32, 5, 5)
    fc1, fc2 = attention.channel.fc1, attention.channel.fc2
    assert fc1.weight.shape == (2, 32, 1, 1)

    def perceptron(v):
        hidden = (v @ fc1.weight.flatten(1).T + fc1.bias).relu()
        return hidden @ fc2.weight.flatten(1).T + fc2.bias

    gate = (perceptron(x.mean((2, 3))) + perceptron(x.amax((2, 3)))).sigmoid()
    gated = x * gate[:, :, None, None]
    convolution = next(m for m in attention.spatial.modules() if isinstance(m, nn.Conv2d))
    norm = next(m for m in attention.spatial.modules() if isinstance(m, nn.BatchNorm2d))
    assert convolution.bias is None
    assert convolution.weight.shape == (1, 2, 7, 7)
    both = torch.stack([gated.mean(1), gated.amax(1)], dim=1)
    spatial = norm(F.conv2d(both, convolution.weight, padding=3)).sigmoid()
    torch.testing.assert_close(attention(x), gated * spatial)


def test_pools():
    x = torch.tensor([[0.0, 1.0, 5.0, 5.0], [2.0, 3.0, 5.0, 5.0]]).expand(2, 3, 2, 4) + torch.arange(
        3.0
    ).reshape(1, 3, 1, 1)
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0]).exp()
    value = float((weights * torch.arange(4.0)).sum() / weights.sum())
    expected = torch.tensor([value, 5.0]) + torch.arange(3.0)[:, None]
    torch.testing.assert_close(softpool(x)[1, :, 0], expected)
    assert torch.equal(max_pool(x)[1, :, 0], torch.tensor([3.0, 5.0]) + torch.arange(3.0)[:, None])
    assert softpool(x * 1e4).isfinite().all()


def test_the_pool_is_chosen_by_the_setting():
    x = to_unit(images(4))
    plain, soft = built().generator, built(softpool=True).generator
    assert plain.pool is max_pool
    assert soft.pool is softpool
    assert (plain(x) - soft(x)).abs().max() > 1e-3


@pytest.mark.parametrize("attend_path", [False, True])
def test_attended_maps_go_down_only_if_asked(attend_path):
    generator = built(attend_path=attend_path).generator
    seen = {}
    generator.attention[0].register_forward_hook(
        lambda _, given, made: seen.update(plain=given[0], attended=made)
    )
    generator.encoder[1].register_forward_pre_hook(lambda _, given: seen.update(down=given[0]))
    generator.decoder[-1].register_forward_pre_hook(lambda _, given: seen.update(up=given[0]))
    generator.decoder[0].register_forward_pre_hook(lambda _, given: seen.update(bottom=given[0]))
    generator.attention[4].register_forward_hook(lambda _, __, made: seen.update(bottleneck=made))
    generator(to_unit(images(4)))
    assert not torch.equal(seen["plain"], seen["attended"])
    assert torch.equal(seen["down"], max_pool(seen["attended" if attend_path else "plain"]))
    assert torch.equal(seen["up"][:, :8], seen["attended"])  # the skip comes first
    enlarged = F.interpolate(seen["bottleneck"], scale_factor=2, mode="bilinear", align_corners=True)
    assert torch.equal(seen["bottom"][:, 64:], enlarged)


def test_the_reconstruction_is_bounded_unless_asked_otherwise():
    x = to_unit(images(4))
    bounded, free = built().generator, built(out_act="none").generator
    for generator in (bounded, free):
        generator.last.bias.data.fill_(3.0)
    assert 0.9 < bounded(x).max() <= 1
    assert free(x).max() > 1.5
    torch.testing.assert_close(free(x).tanh(), bounded(x))


def test_every_parameter_of_the_generator_learns():
    detector = built()
    detector.step(to_unit(images(8)), idle(), idle())
    unused = [name for name, p in detector.generator.named_parameters() if p.grad is None]
    assert unused == []


def test_a_discriminator_that_has_won_is_drawn_anew(monkeypatch):
    detector = built()
    optimizer_g, optimizer_d = detector.adam(detector.generator), detector.adam(detector.discriminator)
    x = to_unit(images(8))
    assert detector.train_batch(x, optimizer_g, optimizer_d)["restarts"] == 0
    monkeypatch.setattr(layers, "WON", 1e3)
    old = detector.discriminator.classifier.weight.clone()
    assert detector.train_batch(x, optimizer_g, optimizer_d)["restarts"] == 1
    assert (detector.discriminator.classifier.weight - old).abs().mean() > 0.01
    assert not optimizer_d.state[detector.discriminator.classifier.weight]["exp_avg"].any()


def test_one_image_of_16_pixels_is_too_few_for_batch_norm():
    train = TrainSet(ImageSet(images(1, size=16)))
    with pytest.raises(
        AdbenchError, match=r"^batch norm needs two images in a batch here; give more training images$"
    ):
        SAGAN(SMALL).fit(train)
    SAGAN(SMALL).fit(TrainSet(ImageSet(images(2, size=16))))

"""TransGAN: its networks, its augmentation, and the detector with two discriminators."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from adbench_plugins.features import Backbone, SmallEncoder
from adbench_plugins.transgan import dual
from adbench_plugins.transgan.diffaugment import (
    brightness,
    contrast,
    cutout,
    diffaugment,
    saturation,
    translate,
)
from adbench_plugins.transgan.dual import TransGANDual
from adbench_plugins.transgan.losses import latent_loss, lsgan_discriminator_loss
from adbench_plugins.transgan.networks import Attention, Block, Discriminator, Generator, attend, upsample
from adbench_tgan import AdbenchError, ImageSet, TrainSet

QUICK = dict(TransGANDual.presets["quick"])


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def toy(count: int, channels: int = 1, seed: int = 0) -> Tensor:
    """Smooth uint8 images of 32 pixels."""
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(coarse, 32, mode="bilinear") * 255).to(torch.uint8)


def train_set(channels: int = 1, anomalies: bool = True) -> TrainSet:
    normal = ImageSet(toy(40, channels))
    return TrainSet(normal, ImageSet(255 - toy(37, channels, seed=1)) if anomalies else None)


def detector(**settings: object) -> TransGANDual:
    torch.manual_seed(0)
    config = TransGANDual.Config(**{**QUICK, "epochs": 1, "batch_size": 32, **settings})
    return TransGANDual(config, seed=0)


@pytest.fixture(scope="module")
def fitted() -> TransGANDual:
    return detector().fit(train_set())


# networks


@pytest.mark.parametrize(
    ("network", "settings", "expected"),
    [
        (Generator, {}, 34_591_275),
        (Generator, {"initial_size": 16, "depths": (4, 3, 1)}, 108_491_643),
        (Discriminator, {}, 12_458_497),
        (Discriminator, {"image_size": 64, "depth": 4}, 7_212_289),
        (Generator, {"channels": 1}, 34_591_275 - 2 * (24 + 1)),
        (Discriminator, {"channels": 1}, 12_458_497 - 2 * 4 * 4 * 384),
    ],
)
def test_parameter_counts_are_those_of_the_thesis(network, settings, expected):
    with torch.device("meta"):
        assert parameters(network(**settings)) == expected


@pytest.mark.parametrize(
    ("side", "generator", "judge"), [(32, 34_591_275, 12_458_497), (64, 108_491_643, 7_212_289)]
)
def test_default_settings_build_the_networks_of_the_thesis(side, generator, judge):
    config = TransGANDual.Config(image_size=side)
    with torch.device("meta"):
        assert parameters(dual.build_generator(config, 3, side)) == generator
        assert parameters(dual.build_discriminator(config, 3, side)) == judge
        assert parameters(dual.build_mapper(config, 2048)) == 2048 * 1024 + 1024 + 2 * 1024


def test_first_linear_layer_holds_most_of_the_generator():
    with torch.device("meta"):
        assert parameters(Generator().stem) == 25_190_400


@pytest.mark.parametrize("scale", ["head", "dim"])
def test_attention_is_softmax_attention_with_the_chosen_scale(scale):
    torch.manual_seed(0)
    attention = Attention(16, 4, 0.0, scale)
    tokens = torch.randn(2, 5, 16)
    parts = (part.view(2, 5, 4, 4).transpose(1, 2) for part in attention.qkv(tokens).chunk(3, dim=2))
    q, k, v = parts
    weights = (q @ k.mT * (4 if scale == "head" else 16) ** -0.5).softmax(-1)
    expected = attention.out((weights @ v).transpose(1, 2).reshape(2, 5, 16))
    torch.testing.assert_close(attention(tokens), expected)


@pytest.mark.parametrize("width", [384, 96, 24])
def test_head_scale_is_twice_the_thesis_scale(width):
    with torch.device("meta"):
        head, whole = Attention(width, 4, 0.0, "head"), Attention(width, 4, 0.0, "dim")
    assert head.scale == pytest.approx(2 * whole.scale)
    assert whole.scale == pytest.approx(width**-0.5)


def test_padding_heads_changes_nothing():
    q, k, v = torch.randn(3, 2, 4, 7, 6).unbind()
    torch.testing.assert_close(attend(q, k, v, 0.4, multiple=8), attend(q, k, v, 0.4))


def test_upsampling_shuffles_channels_into_the_tokens_neighbourhood():
    tokens = torch.arange(2 * 2 * 4.0).view(1, 4, 4)  # 4 channels of a 2 x 2 map
    shuffled = upsample(tokens).view(4, 4)
    assert shuffled[:2, :2].tolist() == [[0, 1], [2, 3]]  # the first token's channels
    assert shuffled[2:, 2:].tolist() == [[12, 13], [14, 15]]


def test_initialisation():
    torch.manual_seed(0)
    generator = Generator(latent=64, width=64, depths=(1, 1, 1))
    assert all(not position.any() for position in generator.positions)
    bound = math.sqrt(6 / (64 + 64 * 64))
    assert generator.stem.weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_the_discriminator_begins_with_random_tokens_and_reads_the_normalised_class_token():
    torch.manual_seed(0)
    network = Discriminator(channels=1, image_size=16, width=64, depth=1)
    for tokens in (network.cls, network.positions):
        assert tokens.std().item() == pytest.approx(0.2, rel=0.15)
    x = torch.rand(3, 1, 16, 16)
    patches = network.embed(x).flatten(2).mT
    tokens = network.blocks(torch.cat([network.cls.expand(3, -1, -1), patches], dim=1) + network.positions)
    expected = network.logit(nn.functional.layer_norm(tokens[:, 0], (64,)))[:, 0]
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_output_range(channels):
    torch.manual_seed(0)
    small = {"channels": channels, "latent": 8, "width": 64, "depths": (1, 1, 1)}
    z = 1e3 * torch.randn(2, 8)
    bounded, free = Generator(**small)(z), Generator(**small, out_act="none")(z)
    assert bounded.shape == free.shape == (2, channels, 32, 32)
    assert bounded.abs().max() <= 1 < free.abs().max()
    assert Discriminator(channels=channels, width=64, depth=1)(bounded).shape == (2,)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    generator = Generator(latent=8, width=64, depths=(1, 0, 0), dropout=0.5)
    z = torch.randn(2, 8)
    assert not torch.equal(generator(z), generator(z))
    generator.eval()
    assert torch.equal(generator(z), generator(z))


# augmentation


def test_translation_shifts_by_at_most_its_share_and_brings_in_zeros():
    torch.manual_seed(0)
    image = torch.ones(200, 1, 32, 32)
    image[:, :, 16, 16] = 5
    for ratio, most in ((0.125, 4), (0.2, 6)):
        moved = translate(image, ratio)
        spots = (moved == 5).nonzero()
        assert len(spots) == 200  # the spot is still there, once
        shifts = spots[:, 2:] - 16
        assert shifts.min() == -most
        assert shifts.max() == most
        expected = (32 - shifts[:, 0].abs()) * (32 - shifts[:, 1].abs())
        assert torch.equal((moved != 0).sum((1, 2, 3)), expected)


def test_cutout_removes_a_square_of_half_the_side():
    torch.manual_seed(0)
    holes = cutout(torch.ones(300, 2, 32, 32), 1.0)[:, 0] == 0
    heights, widths = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(holes.sum((1, 2)), heights * widths)
    for sides in (heights, widths):
        assert sides.max() == 16
        assert sides.min() == 8  # its centre is always inside


def test_all_images_or_none_are_cut_as_often_as_is_asked_for():
    torch.manual_seed(0)
    holes = [(cutout(torch.ones(4, 1, 16, 16), 0.3) == 0).flatten(1).any(1) for _ in range(300)]
    assert all(hole.all() or not hole.any() for hole in holes)
    assert 0.2 < sum(hole.all().item() for hole in holes) / 300 < 0.4


def test_colour_changes_have_their_magnitudes_and_spare_grey():
    torch.manual_seed(0)
    grey = torch.rand(500, 1, 8, 8)
    torch.testing.assert_close(saturation(grey), grey)
    added = (brightness(grey) - grey).mean((1, 2, 3))
    assert -0.5 <= added.min() < -0.45
    assert 0.45 < added.max() < 0.5
    factor = contrast(saturation(brightness(grey))).std((1, 2, 3)) / grey.std((1, 2, 3))
    assert 0.499 < factor.min() < 0.55
    assert 1.45 < factor.max() < 1.501


def test_colours_are_drawn_apart_from_their_own_grey_and_from_the_mean_of_the_image():
    torch.manual_seed(0)
    flat = torch.tensor([0.0, 0.25, 1.25]).view(1, 3, 1, 1).repeat(500, 1, 4, 4)  # grey and mean are .5
    for change, low, high in ((saturation, 0.0, 2.0), (contrast, 0.5, 1.5)):
        factor = (change(flat) - 0.5) / (flat - 0.5)
        torch.testing.assert_close(factor, factor[:, :1, :1, :1].expand_as(factor))
        assert low <= factor.min() < low + 0.05
        assert high - 0.05 < factor.max() <= high


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("variant", ["mit", "asarigun"])
def test_augmentation_is_random_for_each_image_and_differentiable(channels, variant):
    torch.manual_seed(0)
    images = torch.rand(1, channels, 16, 16).repeat(2, 1, 1, 1).requires_grad_()
    changed = diffaugment(images, variant)
    assert changed.shape == images.shape
    assert not torch.equal(changed[0], changed[1])
    changed.sum().backward()
    assert images.grad is not None
    assert images.grad.any()


@pytest.mark.parametrize(
    ("variant", "steps"),
    [
        ("mit", [("translate", 0.125), ("cutout", 1.0)]),
        ("asarigun", [("translate", 0.2), ("cutout", 0.3)]),
        ("none", []),
    ],
)
def test_each_variant_has_its_magnitudes(variant, steps, monkeypatch):
    seen = []
    for name in ("translate", "cutout"):
        monkeypatch.setattr(
            f"adbench_plugins.transgan.diffaugment.{name}",
            lambda x, how, name=name: seen.append((name, how)) or x,
        )
    images = torch.rand(2, 1, 4, 4)
    assert (diffaugment(images, variant) is images) == (not steps)
    assert seen == steps


# losses


def test_patch_loss_by_hand():
    x, x_hat = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    x_hat[0, 0, :2, :2] = 1.0  # patch errors 1, 0, 0, .25
    x_hat[0, 0, 3, 3] = -1.0
    x_hat[1] = 0.5  # all patches .5
    assert dual.patch_loss(x, x_hat, 2, 1).item() == pytest.approx((1 + 0.5) / 2)
    assert dual.patch_loss(x, x_hat, 2, 2).item() == pytest.approx((1.25 / 2 + 0.5) / 2)
    assert dual.patch_loss(x, x_hat, 2, 99).item() == pytest.approx(dual.l1_loss(x, x_hat).item())


def test_patch_loss_is_at_least_l1_and_equal_to_it_for_one_patch():
    torch.manual_seed(0)
    x, x_hat = torch.rand(2, 4, 3, 32, 32).unbind()
    l1 = dual.l1_loss(x, x_hat)
    assert dual.patch_loss(x, x_hat, 8, 3) > l1
    torch.testing.assert_close(dual.patch_loss(x, x_hat, 32, 3), l1)
    # the thesis's "patches" are the three channels, of which it takes the worst three: this is L1
    legacy = (x - x_hat).abs().flatten(2).mean(2).topk(3, dim=1).values.mean()
    torch.testing.assert_close(legacy, l1)


def test_abc_by_hand():
    x = torch.zeros(2, 1, 2, 2)
    x_hat = torch.stack([torch.full((1, 2, 2), 0.5), torch.full((1, 2, 2), -2.0)])
    expected = -(math.log(1 - math.exp(-0.5) + 1e-6) + math.log(1 - math.exp(-2.0) + 1e-6)) / 2
    assert dual.abc_loss(x, x_hat).item() == pytest.approx(expected, rel=1e-5)
    assert dual.abc_loss(x, x).item() == pytest.approx(-math.log(1e-6), rel=1e-5)


def test_lsgan_by_hand():
    real, fake = torch.tensor([0.0, 3.0]), torch.tensor([2.0, -1.0])
    assert dual.lsgan_discriminator_loss(real, fake).item() == pytest.approx((1 + 4) / 2 + (4 + 1) / 2)
    assert dual.lsgan_loss(fake, 1.0).item() == pytest.approx((1 + 4) / 2)


def test_latent_loss_is_zero_only_for_the_image_itself(fitted):
    x = dual.to_unit(toy(4))
    z = fitted.mapper(fitted.backbone(x))
    assert fitted.normal_losses(x, x, z)["latent"] == 0
    assert fitted.normal_losses(x, -x, z)["latent"] > 0.01


class Judge(nn.Module):
    """A discriminator whose logit is a multiple of the image's mean."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images.mean((1, 2, 3))


def test_each_of_the_six_terms_and_their_weights_by_hand():
    settings = {"patch_size": 8, "patch_top": 1, "diffaugment": "none"}
    dual_d = TransGANDual(TransGANDual.Config(**settings))
    dual_d.discriminator_normal, dual_d.discriminator_anomalous = Judge(2.0), Judge(-4.0)
    dual_d.backbone, dual_d.mapper = nn.Flatten(), nn.Identity()
    x = torch.zeros(1, 1, 16, 16)
    x_hat = torch.zeros(1, 1, 16, 16)
    x_hat[..., :8, :8] = 0.4  # L1 .1, worst patch .4, logits .2 and -.4
    terms = dual_d.normal_losses(x, x_hat, torch.full((1, 256), 0.3)) | dual_d.anomalous_losses(x, x_hat)
    abc = -math.log(1 - math.exp(-0.1) + 1e-6)
    expected = {
        "patch": (1.5, 0.4),
        "adv_normal": (0.5, (0.2 - 1) ** 2),
        "latent": (0.5, (64 * 0.1 + 192 * 0.3) / 256),
        "l1": (1.5, 0.1),
        "adv_anomalous": (1.0, 0.4**2),
        "abc": (0.5, abc),
    }
    assert terms.keys() == expected.keys()
    for name, (weight, value) in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5), name
        assert dual_d.weighted({name: terms[name]}).item() == pytest.approx(weight * value, rel=1e-5), name
    total = sum(weight * value for weight, value in expected.values())
    assert dual_d.weighted(terms).item() == pytest.approx(total, rel=1e-5)


def test_the_anomalous_target_can_be_turned_against_its_discriminator():
    dual_d = TransGANDual(TransGANDual.Config(anom_adv_target=1.0, diffaugment="none"))
    dual_d.discriminator_anomalous = Judge(1.0)
    images = torch.full((1, 1, 4, 4), 0.25)
    assert dual_d.anomalous_losses(images, images)["adv_anomalous"].item() == pytest.approx(0.75**2)


# training


def snapshot(networks: dict[str, nn.Module]) -> dict[str, list[Tensor]]:
    return {name: [t.clone() for t in network.state_dict().values()] for name, network in networks.items()}


def changed(networks: dict[str, nn.Module], before: dict[str, list[Tensor]]) -> set[str]:
    after = snapshot(networks)
    return {name for name in before if not all(map(torch.equal, before[name], after[name]))}


def step_inputs(model: TransGANDual) -> tuple[dual.Optimisers, list[dual.Batch]]:
    train = train_set()
    halves = [model._with_features(images.on("cpu")) for images in (train.normal, train.anomalies)]
    return model._optimisers(), [half.take(torch.arange(4), "cpu") for half in halves]


def test_a_discriminator_step_touches_the_discriminators_alone():
    model = detector()
    model.build((1, 32, 32))
    optimise, halves = step_inputs(model)
    before = snapshot(model.networks)
    x_hats = [model._draw(half.feats)[1].detach() for half in halves]
    model._discriminator_step(optimise, halves, x_hats)
    assert changed(model.networks, before) == {"discriminator_normal", "discriminator_anomalous"}
    assert all(p.grad is None for p in model.generator.parameters())


def test_a_generator_step_touches_generator_and_mapper_alone(monkeypatch):
    model = detector()
    model.build((1, 32, 32))
    optimise, halves = step_inputs(model)
    monkeypatch.setattr(model, "_discriminator_step", lambda *_: {})
    before = snapshot(model.networks)
    model._step(optimise, *halves)
    assert changed(model.networks, before) == {"generator", "mapper"}
    judges = [model.discriminator_normal, model.discriminator_anomalous]
    assert all(p.grad is None and p.requires_grad for judge in judges for p in judge.parameters())


def test_the_discriminators_learn_from_detached_images():
    model = detector()
    model.build((1, 32, 32))
    optimise, halves = step_inputs(model)
    seen = []
    original = model._discriminator_step
    model._discriminator_step = lambda o, h, x_hats: seen.extend(x_hats) or original(o, h, x_hats)
    model._step(optimise, *halves)
    assert len(seen) == 2
    assert not any(x_hat.requires_grad for x_hat in seen)


def test_each_half_of_a_step_meets_its_own_losses(monkeypatch):
    model = detector()
    model.build((1, 32, 32))
    optimise, (normal, anomalous) = step_inputs(model)
    z = {"normal": model.mapper(normal.feats), "anomalous": model.mapper(anomalous.feats)}
    drawn = {name: model.generator(vector) for name, vector in z.items()}
    seen = []
    for name in ("normal_losses", "anomalous_losses"):
        real = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *given, real=real: seen.append(given) or real(*given))
    model._step(optimise, normal, anomalous)
    expected = [(normal.x, drawn["normal"], z["normal"]), (anomalous.x, drawn["anomalous"])]
    torch.testing.assert_close(seen, expected)


def test_gradients_are_clipped():
    model = detector(grad_clip=0.125)
    model.build((1, 32, 32))
    optimise, halves = step_inputs(model)
    model._warmup_step(optimise, halves[0])
    grads = [
        p.grad for p in (*model.generator.parameters(), *model.mapper.parameters()) if p.grad is not None
    ]
    norm = torch.stack([grad.norm() for grad in grads]).norm().item()
    assert norm <= 0.125 * 1.001


def test_a_few_steps_of_the_quick_preset_lower_the_reconstruction_loss():
    losses = [loss["l1"] for loss in detector(warmup_epochs=6, epochs=0).epochs(train_set())]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]


def test_fit_trains_everything_but_the_backbone_and_ends_in_eval_mode():
    model = detector()
    model.build((1, 32, 32))
    before = snapshot({"backbone": model.backbone})
    history = list(model.epochs(train_set()))
    assert not changed({"backbone": model.backbone}, before)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not model.backbone.training
    assert set(history[0]) == {"l1"}
    assert set(history[1]) == {
        *("l1", "patch", "adv_normal", "latent", "adv_anomalous", "abc"),
        *("discriminator_normal", "discriminator_anomalous", "generator"),
    }
    model.fit(train_set())
    assert not any(module.training for network in model.networks.values() for module in network.modules())


def test_without_labelled_anomalies_only_the_normal_branch_trains():
    model = detector()
    built = model.build
    before = {}

    def build(shape):
        built(shape)
        before.update(snapshot(model.networks))

    model.build = build
    history = list(model.epochs(train_set(anomalies=False)))
    assert changed(model.networks, before) == {"generator", "mapper", "discriminator_normal"}
    assert set(history[-1]) == {"l1", "patch", "adv_normal", "latent", "discriminator_normal", "generator"}


@pytest.mark.parametrize("channels", [1, 3])
def test_without_pretrained_weights_the_encoder_is_trained(channels):
    model = detector(
        backbone="none", mapper_relu=True, attn_scale="dim", out_act="none", diffaugment="asarigun"
    )
    torch.manual_seed(0)
    model.build((channels, 32, 32))
    before = snapshot({"backbone": model.backbone})
    torch.manual_seed(0)
    model.fit(train_set(channels))
    assert isinstance(model.backbone, SmallEncoder)
    assert changed({"backbone": model.backbone}, before)
    assert model.config.pretrained is None
    assert model.score(toy(3, channels)).shape == (3,)


def test_an_epoch_is_one_pass_over_the_normal_images_with_as_many_partners():
    shuffle = torch.Generator().manual_seed(0)
    normal, anomalous = (
        dual.Images(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1), torch.arange(float(n)))
        for n in (70, 20)
    )
    pairs = list(dual.one_pass(normal, anomalous, 32, shuffle, "cpu"))
    assert [(len(a.x), len(b.x)) for a, b in pairs] == [(32, 32)] * 2  # the last 6 are dropped
    firsts = torch.cat([a.feats for a, _ in pairs])
    assert len(firsts.unique()) == 64
    partners = torch.cat([b.feats for _, b in pairs])
    assert partners.unique(return_counts=True)[1].min() >= 3  # 64 draws of 20, each before any comes again
    torch.testing.assert_close(dual.to_unit(firsts), torch.cat([a.x.flatten() for a, _ in pairs]))
    few = list(dual.one_pass(dual.Images(normal.pixels[:5], None), None, 32, shuffle, "cpu"))
    assert [len(a.x) for a, _ in few] == [5]  # fewer than a batch: all of them


@pytest.mark.parametrize(
    ("mode", "offered", "sizes"),
    [
        ("labelled", True, {(8, None), (8, 8)}),
        ("labelled", False, {(16, None)}),
        ("unsupervised", True, {(16, None)}),
    ],
)
def test_without_anomalies_a_batch_is_all_normal(mode, offered, sizes, monkeypatch):
    train, seen = train_set(), set()
    real = dual.one_pass

    def watched(*words):
        for normal, partner in real(*words):
            seen.add((len(normal.x), None if partner is None else len(partner.x)))
            yield normal, partner

    monkeypatch.setattr(dual, "one_pass", watched)
    detector(mode=mode, batch_size=16).fit(train if offered else TrainSet(train.normal))
    assert seen == sizes


def test_unsupervised_it_learns_nothing_from_anomalies():
    train, probe = train_set(), toy(5)
    alone = detector(mode="unsupervised").fit(TrainSet(train.normal))
    assert torch.equal(detector(mode="unsupervised").fit(train).score(probe), alone.score(probe))
    assert not torch.equal(detector().fit(train).score(probe), alone.score(probe))


# scores


def test_scoring_is_without_augmentation(fitted, monkeypatch):
    monkeypatch.setattr(dual, "diffaugment", lambda *_: pytest.fail("augmentation outside of training"))
    for method in (fitted.score, fitted.anomaly_map, fitted.reconstruct):
        assert torch.equal(method(toy(2)), method(toy(2)))


def test_training_augments_all_that_the_discriminators_see(monkeypatch):
    calls, real = [], dual.diffaugment

    def watch(images, variant):
        calls.append(variant)
        return real(images, variant)

    monkeypatch.setattr(dual, "diffaugment", watch)
    list(detector(warmup_epochs=0).epochs(train_set()))
    # Two steps, in each a real and a drawn half for D, and the drawn half for G, twice.
    assert calls == ["mit"] * 12


def test_score_is_the_mean_of_the_map_and_agrees_with_the_drawing(fitted):
    images = toy(4)
    scores, maps, drawn = fitted.score(images), fitted.anomaly_map(images), fitted.reconstruct(images)
    assert maps.shape == (4, 32, 32)
    assert drawn.dtype == torch.uint8
    assert drawn.shape == images.shape
    torch.testing.assert_close(maps.mean((1, 2)), scores)
    error = (dual.to_unit(images) - dual.to_unit(drawn)).square().mean((1, 2, 3))
    torch.testing.assert_close(error, scores, rtol=0.02, atol=1e-4)


def test_an_inverted_image_scores_above_normal_ones():
    normal = (toy(40) // 8) + 200  # bright
    anomalous = 255 - ((toy(40, seed=1) // 8) + 200)  # dark
    model = detector(warmup_epochs=3, epochs=3).fit(TrainSet(ImageSet(normal), ImageSet(anomalous)))
    assert model.score(anomalous).min() > model.score(normal).max()


# settings


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"image_size": 30}, "multiple of 4"),
        ({"image_size": 12, "patch_size": 4}, "multiple of 4 that is at least 16"),
        ({"image_size": 36}, "patch_size 8 does not divide image_size 36"),
        ({"discriminator_patch": 5}, "discriminator_patch 5"),
    ],
)
def test_sizes_without_a_network_are_refused(settings, remedy):
    with pytest.raises(AdbenchError, match=remedy):
        TransGANDual.Config(**settings)


def test_a_training_of_nothing_is_refused():
    with pytest.raises(AdbenchError, match="nothing is trained; set one of them to 1 or more"):
        TransGANDual.Config(epochs=0, warmup_epochs=0)
    TransGANDual.Config(epochs=0, warmup_epochs=0, iterations=1)


@pytest.mark.parametrize("steps", [{}, {"epochs": 0, "iterations": 5}])
def test_a_generator_without_a_loss_is_refused(steps):
    normal = dict.fromkeys(("w_patch", "w_adv_normal", "w_latent", "w_l1"), 0)
    with pytest.raises(ValueError, match="w_abc are all 0, with which the generator learns nothing"):
        TransGANDual.Config(**steps, **normal, w_adv_anomalous=0, w_abc=0)
    with pytest.raises(ValueError, match="w_l1 are all 0, with which the generator learns nothing"):
        TransGANDual.Config(**steps, **normal, mode="unsupervised")
    TransGANDual.Config(**steps, **normal)
    TransGANDual.Config(**normal, mode="unsupervised", epochs=0)  # the warm-up alone


def test_a_z_that_is_the_same_for_all_images_is_refused():
    with pytest.raises(AdbenchError, match="with latent=1 all images have the same z"):
        TransGANDual.Config(latent=1)
    TransGANDual.Config(latent=1, mapper_relu=True)
    TransGANDual.Config(latent=2)


@pytest.mark.parametrize("shape", [(1, 32, 64), (2, 32, 32), (4, 32, 32), (3, 28, 30)])
def test_shapes_without_a_network_are_refused(shape):
    with pytest.raises(AdbenchError, match="transgan_dual"):
        detector().build(shape)


def test_other_sizes_have_an_initial_side_of_a_quarter():
    config = TransGANDual.Config(**QUICK, image_size=48)
    generator = dual.build_generator(config, 1, 48)
    assert generator.positions[0].shape[1] == 12 * 12
    assert generator(torch.zeros(1, 128)).shape == (1, 1, 48, 48)


def test_planning_puts_the_backbone_in_the_settings(monkeypatch, tmp_path):
    monkeypatch.setattr(dual.features, "resolve", lambda name, weights: {"auto": "resnet50"}.get(name, name))
    planned = TransGANDual.plan(TransGANDual.Config())
    assert planned.backbone == planned.pretrained == "resnet50"
    assert TransGANDual.plan(TransGANDual.Config(backbone="none")).pretrained is None
    path = tmp_path / "own.pth"
    path.write_bytes(dual.features.lite0_file().read_bytes())
    own = TransGANDual.plan(TransGANDual.Config(backbone="tf_efficientnet_lite0", backbone_weights=str(path)))
    assert own.pretrained == f"tf_efficientnet_lite0:{own.backbone_sha256[:8]}"
    assert len(own.backbone_sha256) == 64


def test_weights_that_are_none_or_of_another_network_are_refused_before_a_job(tmp_path):
    path = tmp_path / "own.pth"
    path.write_bytes(b"weights")
    with pytest.raises(AdbenchError, match=r"^cannot read weights from "):
        TransGANDual.plan(TransGANDual.Config(backbone="resnet50", backbone_weights=str(path)))
    path.write_bytes(dual.features.lite0_file().read_bytes())
    with pytest.raises(AdbenchError, match="do not fit the backbone"):
        TransGANDual.plan(TransGANDual.Config(backbone="resnet50", backbone_weights=str(path)))
    state = dual.features.read_weights(path)
    torch.save({key: value for key, value in state.items() if not key.startswith("classifier.")}, path)
    headless = {"backbone": "tf_efficientnet_lite0", "backbone_weights": str(path)}
    TransGANDual.plan(TransGANDual.Config(**headless))
    with pytest.raises(AdbenchError, match="have no classification head; set feat=pooled"):
        TransGANDual.plan(TransGANDual.Config(**headless, feat="logits1000"))


def test_the_quick_preset_names_its_backbone_and_is_small():
    model = detector()
    model.build((3, 32, 32))
    assert TransGANDual.plan(model.config) == model.config
    assert isinstance(model.backbone, Backbone)
    assert sum(parameters(network) for network in model.networks.values()) < 6_000_000


def test_every_setting_has_its_help():
    assert all(field.description for field in TransGANDual.Config.model_fields.values())


def test_all_networks_are_offered(fitted):
    names = ["generator", "discriminator_normal", "discriminator_anomalous", "mapper", "backbone"]
    assert list(fitted.networks) == names
    assert TransGANDual().networks == {}
    assert all(a is not b for a, b in pairwise(fitted.networks.values()))


def test_a_block_normalises_what_it_adds_and_its_perceptron_has_gelu():
    torch.manual_seed(0)
    block, tokens = Block(16, 4, 0.0, "head"), 3 * torch.randn(2, 5, 16)
    for norm in (block.norm1, block.norm2):
        nn.init.normal_(norm.weight)
    attended = tokens + block.attention(block.norm1(tokens))
    hidden = nn.functional.gelu(block.mlp[0](block.norm2(attended)))
    torch.testing.assert_close(block(tokens), attended + block.mlp[2](hidden))


def test_positions_are_added_at_every_stage():
    torch.manual_seed(0)
    generator = Generator(latent=8, width=64, depths=(0, 0, 0)).double()
    z = torch.randn(2, 8).double()
    before = generator(z)
    for position in generator.positions:
        position.data.normal_()
        after = generator(z)
        assert (after - before).abs().max() > 1e-3
        before = after


def made(channels=1, **settings):
    model = detector(**settings)
    model.build((channels, 32, 32))
    return model


def test_duals_adams_have_the_settings():
    model = made(lr=3e-4, betas=(0.1, 0.8))
    optimise = model._optimisers()
    for optimiser in (optimise.generator, optimise.discriminators):
        (group,) = optimiser.param_groups
        assert (group["lr"], group["betas"]) == (3e-4, (0.1, 0.8))


def test_each_discriminator_learns_from_its_own_half():
    model = made(diffaugment="none")
    optimise, halves = step_inputs(model)
    x_hats = [torch.full_like(half.x, value) for half, value in zip(halves, (0.3, -0.3), strict=True)]
    judges = (model.discriminator_normal, model.discriminator_anomalous)
    expected = [
        lsgan_discriminator_loss(judge(half.x), judge(x_hat)).item()
        for judge, half, x_hat in zip(judges, halves, x_hats, strict=True)
    ]
    losses = model._discriminator_step(optimise, halves, x_hats)
    assert [losses["discriminator_normal"].item(), losses["discriminator_anomalous"].item()] == pytest.approx(
        expected
    )


def test_the_latent_loss_reaches_generator_and_mapper_from_both_sides():
    model = made()
    _, (normal, _) = step_inputs(model)
    weights = [model.mapper[0].weight, model.generator.to_image.weight]
    z, x_hat = model._draw(normal.feats)
    loss = model.normal_losses(normal.x, x_hat, z)["latent"]
    found = torch.autograd.grad(loss, weights, retain_graph=True)
    expected = torch.autograd.grad(latent_loss(z, model.mapper(model.backbone(x_hat))), weights)
    torch.testing.assert_close(found, expected)


def test_the_warm_up_is_by_l1():
    model = made()
    optimise, (normal, _) = step_inputs(model)
    expected = (normal.x - model._draw(normal.feats)[1]).abs().mean()
    torch.testing.assert_close(model._warmup_step(optimise, normal)["l1"], expected)


def test_tokens_of_the_discriminators_are_patches_of_the_setting():
    model = made(discriminator_patch=16)
    for judge in (model.discriminator_normal, model.discriminator_anomalous):
        assert judge.embed.kernel_size == (16, 16)


@pytest.mark.parametrize("settings", [{"warmup_epochs": 1, "epochs": 0}, {"epochs": 1}, {"iterations": 2}])
def test_the_seed_orders_what_dual_learns_from(settings, monkeypatch):
    seen = []

    def spy(self, optimise, normal, *_):
        seen.extend(normal.x.flatten(1).sum(1).tolist())
        return {"l1": normal.x.mean()}

    monkeypatch.setattr(TransGANDual, "_step", spy)
    monkeypatch.setattr(TransGANDual, "_warmup_step", spy)
    orders = []
    for seed in (0, 0, 1):
        seen.clear()
        model = detector(**{"warmup_epochs": 0, **settings})
        model.seed = seed
        list(model.epochs(train_set()))
        orders.append(list(seen))
    assert orders[0] == orders[1] != orders[2]


def test_duals_steps_forget_the_gradients_of_those_before():
    model, found = made(diffaugment="none"), []
    optimise, halves = step_inputs(model)
    for optimiser in (optimise.generator, optimise.discriminators):
        optimiser.param_groups[0]["lr"] = 0.0
    judges = (model.discriminator_normal, model.discriminator_anomalous)
    for _ in range(2):
        model._step(optimise, *halves)
        found.append([p.grad.clone() for judge in judges for p in judge.parameters()])
    torch.testing.assert_close(*found)


def test_the_discriminators_learn_before_the_generator():
    """It meets the new ones, as their step comes first."""
    model = made(diffaugment="none")
    optimise, halves = step_inputs(model)
    calls = []
    for name in ("generator", "discriminators"):
        step = getattr(optimise, name).step
        getattr(optimise, name).step = lambda step=step, name=name: calls.append(name) or step()
    model._step(optimise, *halves)
    assert calls == ["discriminators", "generator"]

"""TransGAN as AnoGAN: its networks, WGAN-GP with a working n_critic, and its walk against one of torch's own parts."""

import numpy as np
import pytest
import torch
from make_networks import changed, idle, same, weights
from torch import nn

from adbench_baselines.latent_search import starts
from adbench_plugins.transgan import anogan
from adbench_plugins.transgan.anogan import TransGANAnoGAN
from adbench_plugins.transgan.networks import as_map, upsample
from adbench_plugins.transgan.walk_losses import feature_loss, features, residual_loss
from adbench_tgan import AdbenchError, ImageSet, TrainSet, to_uint8, to_unit
from adbench_tgan.checkpoints import Checkpoint
from adbench_tgan.testing import smooth_images
from adbench_tgan.training import fit

Config = TransGANAnoGAN.Config
SMALL = Config(**TransGANAnoGAN.presets["quick"]).model_copy(
    update={"latent": 16, "generator_depths": (1, 0, 0), "iterations": 10, "walk_steps": 6, "together": None}
)


def images(count=8, channels=1, seed=0):
    return smooth_images(count, (channels, 32, 32), seed)


def built(channels=1, **settings):
    torch.manual_seed(0)
    detector = TransGANAnoGAN(SMALL.model_copy(update=settings))
    detector.build((channels, 32, 32))
    return detector


def fitted(channels=1, **settings):
    torch.manual_seed(0)
    detector = TransGANAnoGAN(SMALL.model_copy(update=settings))
    return detector.fit(TrainSet(ImageSet(images(24, channels))))


@pytest.fixture(scope="module", name="trained")
def fixture_trained():
    return fitted()


# networks and settings


@pytest.mark.parametrize(
    ("side", "generator", "discriminator"), [(32, 34_591_275, 12_458_497), (64, 108_491_643, 7_212_289)]
)
def test_default_networks_are_those_of_the_thesis(side, generator, discriminator):
    with torch.device("meta"):
        detector = TransGANAnoGAN(Config(image_size=side), device="meta")
        detector.build((3, side, side))
    assert detector.parameter_counts() == {"generator": generator, "discriminator": discriminator}


def test_defaults_are_those_of_the_specification():
    c = Config()
    assert (c.image_size, c.iterations, c.n_critic, c.batch_size, c.ema) == (64, 20_000, 5, 32, 0.999)
    assert (c.lr, c.betas, c.w_penalty, c.w_drift, c.generator_dropout) == (1e-4, (0.0, 0.99), 10, 1e-3, 0)
    assert (c.lam, c.r_mix, c.walk_steps, c.walk_lr, c.walk_clip) == (0.1, (1, 0), 500, 2e-2, 1)


def test_a_residual_loss_of_nothing_or_less_is_refused():
    with pytest.raises(ValueError, match="both are 0, which leaves nothing of R"):
        Config(r_mix=(0, 0))
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Config(r_mix=(-1, 2))


def test_settings_of_the_thesis_train_and_score():
    thesis = {
        "n_critic": 1,
        "betas": (0.0001, 0.9),
        "w_drift": 0.0,
        "diffaugment": "asarigun",
        "ema": 0.0,
        "lam": 0.001,
        "r_mix": (0.25, 0.75),
        "attn_scale": "dim",
        "out_act": "none",
        "generator_dropout": 0.5,
    }
    detector = fitted(3, **thesis)
    assert detector.generator.stages[0][0].attention.scale == 64**-0.5
    assert detector.discriminator.blocks[0].attention.scale == 32**-0.5
    assert detector.draw(1e4 * torch.randn(2, 16)).abs().max() > 1
    probe = images(3, 3)
    assert torch.equal(detector.score(probe), detector.score(probe))  # dropout does not act in the walk


@pytest.mark.parametrize("side", [12, 30])
def test_sides_without_networks_are_refused(side):
    with pytest.raises(
        AdbenchError, match=f"image_size {side} is not a multiple of 4 that is at least 16; use 32 or 64"
    ):
        Config(image_size=side)
    with pytest.raises(AdbenchError, match=f"image_size {side}"):
        TransGANAnoGAN(SMALL).build((3, side, side))


@pytest.mark.parametrize("shape", [(3, 32, 64), (2, 32, 32)])
def test_shapes_without_networks_are_refused(shape):
    with pytest.raises(AdbenchError, match="needs square images with 1 or 3 channels"):
        TransGANAnoGAN(SMALL).build(shape)


# training


class Mean(nn.Module):
    """A discriminator whose gradient is known: `slope` times the mean of the image."""

    def __init__(self, slope):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(float(slope)))

    def forward(self, x):
        return self.slope * x.mean((1, 2, 3))


def test_discriminator_loss_by_hand():
    detector = built(diffaugment="none")
    detector.discriminator = Mean(64.0)
    detector.generator = lambda z: torch.full((len(z), 1, 32, 32), 0.25)
    losses = detector.discriminator_step(torch.full((4, 1, 32, 32), 0.5), idle())
    penalty = (64 / 32 - 1) ** 2  # the gradient is 64 / 1024 in each of 1024 pixels
    assert losses["penalty"].item() == pytest.approx(penalty, rel=1e-5)
    expected = -64 * 0.5 + 64 * 0.25 + 10 * penalty + 1e-3 * (64 * 0.5) ** 2
    assert losses["loss_d"].item() == pytest.approx(expected, rel=1e-5)


def test_weights_of_penalty_and_drift():
    losses = {}
    for name, (penalty, drift) in {"none": (0, 0), "penalty": (3, 0), "drift": (0, 2)}.items():
        detector = built(diffaugment="none", w_penalty=penalty, w_drift=drift)
        detector.discriminator = Mean(64.0)
        detector.generator = lambda z: torch.zeros(len(z), 1, 32, 32)
        losses[name] = detector.discriminator_step(torch.full((4, 1, 32, 32), 0.5), idle())["loss_d"].item()
    assert losses["penalty"] - losses["none"] == pytest.approx(3, rel=1e-5)
    assert losses["drift"] - losses["none"] == pytest.approx(2 * 32**2, rel=1e-5)


def test_the_penalty_reaches_the_weights_through_the_transformer():
    x = to_unit(images())
    grads = []
    for weight in (0.0, 10.0):
        detector = built(w_penalty=weight)
        torch.manual_seed(1)
        detector.discriminator_step(x, idle())
        grads.append(detector.discriminator.blocks[0].attention.qkv.weight.grad.clone())
    assert not torch.allclose(*grads, rtol=0.01)


def test_generator_loss_by_hand():
    detector = built(diffaugment="none")
    detector.discriminator = Mean(2.0)
    torch.manual_seed(1)
    z = torch.randn(4, 16)
    expected = -2 * detector.generator(z).mean()
    torch.manual_seed(1)
    torch.testing.assert_close(detector.generator_step(4, idle()), expected.detach())


def test_each_step_moves_its_own_network():
    detector = built()
    x = to_unit(images())
    before_g, before_d = weights(detector.generator), weights(detector.discriminator)
    detector.discriminator_step(x, detector.adam(detector.discriminator))
    assert all(same(before_g, detector.generator))
    assert sum(same(before_d, detector.discriminator)) < len(before_d) / 10
    before_d = weights(detector.discriminator)
    detector.generator_step(8, detector.adam(detector.generator))
    assert all(same(before_d, detector.discriminator))
    assert sum(same(before_g, detector.generator)) < len(before_g) / 10
    assert all(parameter.requires_grad for parameter in detector.discriminator.parameters())


@pytest.mark.parametrize(("n_critic", "iterations", "rounds"), [(5, 12, 3), (1, 7, 7), (3, 90, 30)])
def test_the_generator_takes_a_step_after_every_n_critic_of_the_discriminator(
    n_critic, iterations, rounds, monkeypatch
):
    log, reals = [], []

    def judge(self, real, optimizer):
        reals.append(real)
        log.append("d")
        return {"loss_d": torch.tensor(1.0)}

    monkeypatch.setattr(TransGANAnoGAN, "discriminator_step", judge)
    monkeypatch.setattr(TransGANAnoGAN, "generator_step", lambda *_: log.append("g") or torch.tensor(2.0))
    detector = TransGANAnoGAN(SMALL.model_copy(update={"n_critic": n_critic, "iterations": iterations}))
    history = list(detector.epochs(TrainSet(ImageSet(images(24)))))
    assert "".join(log) == ("d" * n_critic + "g") * rounds
    assert min(rounds, 10) <= len(history) <= 20
    assert all(losses == {"loss_d": 1, "loss_g": 2} for losses in history)
    assert not torch.equal(reals[0], reals[1])
    assert torch.equal(
        torch.cat(reals[:3]).sort(0)[0], to_unit(images(24)).sort(0)[0]
    )  # all images in a pass


def test_diffaugment_changes_real_fake_and_mixed_images_in_training_and_none_in_the_walk(monkeypatch):
    seen = []

    def spy(x, variant):
        seen.append(variant)
        return x * 1

    monkeypatch.setattr(anogan, "diffaugment", spy)
    detector = built(diffaugment="asarigun")
    detector.step([to_unit(images())] * 2, idle(), idle())
    assert seen == ["asarigun"] * (2 * 3 + 1)
    seen.clear()
    detector.score(images(2))
    assert seen == []


def test_the_critic_is_random_in_training_and_the_discriminator_is_not():
    detector = built()
    x = to_unit(images())
    assert not torch.equal(detector.critic(x), detector.critic(x))
    assert torch.equal(detector.discriminator(x), detector.discriminator(x))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_generator_that_walks_is_an_average_and_the_discriminator_the_last(ema, monkeypatch):
    seen = []
    step = TransGANAnoGAN.step

    def spy(self, *args):
        losses = step(self, *args)
        seen.append((self.generator.stem.weight.clone(), self.discriminator.embed.weight.clone()))
        return losses

    monkeypatch.setattr(TransGANAnoGAN, "step", spy)
    detector = fitted(ema=ema, iterations=20)
    assert len(seen) == 4
    expected = seen[0][0]
    for weight, _ in seen[1:]:
        expected = ema * expected + (1 - ema) * weight
    torch.testing.assert_close(detector.generator.stem.weight, expected)
    assert torch.equal(detector.discriminator.embed.weight, seen[-1][1])


# walk


@pytest.mark.parametrize(("depth", "blocks"), [(0, 0), (1, 0), (2, 1), (4, 2), (7, 3)])
def test_features_are_the_embedding_and_the_first_half_of_the_blocks(depth, blocks):
    discriminator = built(discriminator_depth=depth).discriminator
    outputs = []
    modules = [discriminator.embed, *discriminator.blocks[:blocks]]
    hooks = [module.register_forward_hook(lambda *args: outputs.append(args[-1])) for module in modules]
    x = to_unit(images(2))
    discriminator(x)
    for hook in hooks:
        hook.remove()
    layers = features(discriminator, x)
    assert len(layers) == 1 + blocks
    torch.testing.assert_close(layers[0], outputs[0].flatten(2).mT)
    for layer, output in zip(layers[1:], outputs[1:], strict=True):
        torch.testing.assert_close(layer, output)


def test_feature_loss_by_hand():
    ours = [torch.zeros(2, 3, 4), torch.zeros(2, 5, 4)]
    theirs = [torch.full((2, 3, 4), 2.0), torch.ones(2, 5, 4)]
    theirs[1][1] *= -7
    assert feature_loss(ours, theirs).tolist() == [1.5, 4.5]  # means, averaged over layers


def test_residual_loss_by_hand():
    x, x_hat = torch.zeros(2, 1, 2, 2), torch.tensor([0.5, -2.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    assert residual_loss(x, x_hat, (1.0, 0.0)).tolist() == [0.5, 2.0]
    assert residual_loss(x, x_hat, (0.25, 0.75)).tolist() == [0.125 + 0.75 * 0.25, 0.5 + 0.75 * 4]


def reference(detector, image, clip):
    """The walk for one image, with torch's own Adam and clipping."""
    c = detector.config
    x = to_unit(image[None])
    z = starts(image[None], c.latent, detector.seed)[0].requires_grad_()
    optimizer = torch.optim.Adam([z], lr=2e-2)

    def loss():
        x_hat = detector.generator(z)
        layers = zip(
            features(detector.discriminator, x), features(detector.discriminator, x_hat), strict=True
        )
        judged = sum((a - b).abs().mean() for a, b in layers) / 2
        return 0.9 * (x - x_hat).abs().mean() + 0.1 * judged

    for _ in range(c.walk_steps):
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_([z], clip)
        optimizer.step()
    return z.detach(), loss().detach()


@pytest.mark.parametrize("clip", [1.0, 1e-7])
def test_the_score_is_the_loss_at_the_end_of_each_images_own_walk(trained, clip):
    probe = images(3, seed=5)
    detector = changed(trained, walk_clip=clip)
    found = detector.find(probe)
    ends = [reference(detector, image, clip) for image in probe]
    torch.testing.assert_close(found.z, torch.cat([z for z, _ in ends]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        detector.score(probe), torch.stack([loss for _, loss in ends]), rtol=1e-5, atol=0
    )


def test_clipping_shortens_the_walk(trained):
    probe = images(3, seed=5)
    free, short = trained.find(probe), changed(trained, walk_clip=1e-9).find(probe)
    start = starts(probe, 16, 0)[0]
    assert ((short.z - start).norm(dim=1) < 0.5 * (free.z - start).norm(dim=1)).all()


def test_lambda_and_mixture_act_on_the_score(trained):
    probe = images(3, seed=5)
    residual = changed(trained, lam=0.0)
    torch.testing.assert_close(residual.score(probe), residual.anomaly_map(probe).mean((1, 2)))
    scores = [changed(trained, **s).score(probe) for s in ({}, {"lam": 0.001}, {"r_mix": (0.25, 0.75)})]
    assert not torch.allclose(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_features_of_the_real_image_are_taken_once(trained):
    calls = []
    hook = trained.discriminator.embed.register_forward_hook(lambda *_: calls.append(1))
    trained.score(images(2))
    hook.remove()
    assert len(calls) == 1 + trained.config.walk_steps + 1  # the image, each step, and the end


@pytest.mark.parametrize("channels", [1, 3])
def test_map_and_reconstruction_are_of_the_z_that_was_found(channels):
    detector = fitted(channels)
    probe = images(4, channels, seed=3)
    x_hat = detector.draw(detector.find(probe).z).detach()
    torch.testing.assert_close(detector.anomaly_map(probe), (to_unit(probe) - x_hat).abs().sum(1))
    assert torch.equal(detector.reconstruct(probe), to_uint8(x_hat))


def test_more_restarts_find_no_worse_and_another_seed_another_z(trained):
    probe = images(4, seed=3)
    once, thrice = trained.score(probe), changed(trained, restarts=3).score(probe)
    assert (thrice <= once).all()
    assert (thrice < once).any()
    other = changed(trained)
    other.seed = 1
    assert not torch.equal(other.score(probe), once)


def test_patience_ends_walks_early(trained):
    long = changed(trained, walk_steps=60, walk_lr=0.1)
    calls = []
    hook = trained.discriminator.embed.register_forward_hook(lambda *_: calls.append(1))
    scores = changed(long, patience=5, tolerance=0.3).score(images(2))
    hook.remove()
    assert len(calls) < 40
    assert (scores < 1.5 * long.score(images(2))).all()


def test_fewer_images_than_a_batch_still_train():
    detector = TransGANAnoGAN(SMALL).fit(TrainSet(ImageSet(images(3))))
    assert detector.score(images(2)).isfinite().all()


# what scores where the walk ends


def test_the_parts_of_the_loss_score_alone(trained):
    probe = images(3, seed=5)
    x, x_hat = to_unit(probe), trained.draw(trained.find(probe).z).detach()
    loss_r, loss_d = (changed(trained, score_by=part).score(probe) for part in ("loss_r", "loss_d"))
    torch.testing.assert_close(loss_r, (x - x_hat).abs().mean((1, 2, 3)))
    ours, theirs = (features(trained.discriminator, image) for image in (x, x_hat))
    by_hand = sum((a - b).abs().mean((1, 2)) for a, b in zip(ours, theirs, strict=True)) / len(ours)
    torch.testing.assert_close(loss_d, by_hand.detach())
    torch.testing.assert_close(0.9 * loss_r + 0.1 * loss_d, trained.score(probe))


def test_either_is_too_large_by_hand(trained, monkeypatch):
    detector = changed(trained, score_by="or", thresholds=(0.5, 1.5))
    losses = torch.tensor([[0.4, 0.3], [0.4, 1.8], [1.0, 1.5]])  # R and D of three images
    monkeypatch.setattr(detector, "parts", lambda images, z: losses.unbind(1))
    scores = detector.score(images(3, seed=5))
    assert scores.tolist() == pytest.approx([0.8, 1.2, 2.0])  # .4 / .5, 1.8 / 1.5, 1 / .5
    assert "tau" not in detector.state()


def learned(path=None, on_epoch=None, seed=0, **settings):
    """Trained with thresholds of its own."""
    torch.manual_seed(0)
    detector = TransGANAnoGAN(SMALL.model_copy(update={"score_by": "or", **settings}), seed=seed)
    kept = Checkpoint(path, "a key", 1) if path else None
    fit(detector, TrainSet(ImageSet(images(24))), on_epoch, kept)
    return detector


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_thresholds_are_quantiles_on_images_that_training_never_sees(dropout, monkeypatch):
    seen = []
    step = TransGANAnoGAN.step
    monkeypatch.setattr(TransGANAnoGAN, "step", lambda self, *args: seen.extend(args[0]) or step(self, *args))
    detector = learned(held_out=0.25, generator_dropout=dropout)
    whole = to_unit(images(24))
    taken = torch.cat(seen)
    met = torch.tensor([bool((image == taken).flatten(1).all(1).any()) for image in whole])
    assert met.sum() == 18
    held = images(24)[~met]
    r, d = (changed(detector, score_by=part).score(held) for part in ("loss_r", "loss_d"))
    expected = [np.quantile(part.numpy().astype(float), 0.95) for part in (r, d)]
    assert detector.tau.tolist() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(detector.score(held), torch.maximum(r / expected[0], d / expected[1]))
    assert detector.notes == [
        f"tau_r = {expected[0]:.4g}, tau_d = {expected[1]:.4g}: 95 % quantiles on 6 normal images held out"
    ]


def test_the_training_seed_chooses_what_is_held_out():
    normal = ImageSet(images(24))
    cuts = [TransGANAnoGAN(SMALL, seed=seed).cut(normal)[1].on("cpu") for seed in (0, 0, 1)]
    assert [len(cut) for cut in cuts] == [2, 2, 2]
    assert torch.equal(cuts[0], cuts[1])
    assert not torch.equal(cuts[0], cuts[2])


def test_no_image_is_held_out_and_nothing_is_found_unless_asked_for(monkeypatch):
    monkeypatch.setattr(TransGANAnoGAN, "cut", lambda *_: pytest.fail("held out"))
    for settings in ({}, {"score_by": "loss_r"}):
        assert set(built(**settings).parameter_counts()) == {"generator", "discriminator"}
    detector = fitted(score_by="or", thresholds=(0.5, 1.5), iterations=5)
    assert set(detector.parameter_counts()) == {"generator", "discriminator"}
    assert detector.notes == []


def test_thresholds_are_saved_and_loaded():
    detector = learned(iterations=5)
    again = TransGANAnoGAN(detector.config).load_state(detector.state(), (1, 32, 32))
    probe = images(3, seed=5)
    assert torch.equal(again.score(probe), detector.score(probe))
    assert detector.parameter_counts()["tau"] == 2


def test_thresholds_survive_an_interrupted_training(tmp_path):
    whole, probe = learned(), images(3, seed=5)

    class Cut(Exception):
        pass

    for epoch in (1, whole.expected_epochs(None)):

        def cut(number, losses, epoch=epoch):
            if number == epoch:
                raise Cut

        with pytest.raises(Cut):
            learned(tmp_path / f"{epoch}.kept", cut)
        again = learned(tmp_path / f"{epoch}.kept")
        assert torch.equal(again.tau, whole.tau)
        assert torch.equal(again.score(probe), whole.score(probe))


def test_thresholds_that_are_not_found_yet_are_no_number():
    detector = TransGANAnoGAN(SMALL.model_copy(update={"score_by": "or"}))
    next(detector.epochs(TrainSet(ImageSet(images(24)))))
    with pytest.raises(AdbenchError, match="score_by=or computes its thresholds at the end of training"):
        detector.score(images(2))


def test_too_few_images_to_hold_any_out():
    detector = TransGANAnoGAN(SMALL.model_copy(update={"score_by": "or"}))
    with pytest.raises(AdbenchError, match="1 normal images are too few to hold any out"):
        detector.fit(TrainSet(ImageSet(images(1))))


def test_one_image_at_least_is_left_to_train_on():
    detector = TransGANAnoGAN(SMALL.model_copy(update={"held_out": 0.99}))
    for count in (24, 2):
        assert [len(cut) for cut in detector.cut(ImageSet(images(count)))] == [1, count - 1]


@pytest.mark.parametrize("settings", [{"thresholds": (0, 1)}, {"held_out": 1.0}, {"score_by": "both"}])
def test_rules_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Config(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"walk_steps": 30, "walk_lr": 0.1}, *({"score_by": part} for part in ("loss_r", "loss_d", "or"))],
)
def test_every_score_is_the_same_to_the_last_bit_in_any_batch(trained, settings):
    probe = images(5, seed=3)
    detector = changed(trained, thresholds=(0.3, 0.7), together=4, **settings)
    whole = detector.score(probe)
    assert torch.equal(torch.cat([detector.score(part) for part in probe.split(1)]), whole)
    assert torch.equal(detector.score(probe.flip(0)).flip(0), whole)
    assert whole.unique().numel() == 5


# a lighter generator


def test_a_narrow_stem_takes_most_of_the_generator_away():
    with torch.device("meta"):
        detector = TransGANAnoGAN(Config(stem_width=16), device="meta")
        detector.build((3, 64, 64))
    stem = 1024 * 256 * 16 + 256 * 16  # z to 256 tokens of 16 channels
    widened = 16 * 384 + 384
    assert detector.parameter_counts()["generator"] == 108_491_643 - 100_761_600 + stem + widened


def test_narrow_tokens_are_widened_one_by_one():
    generator = built(stem_width=5).generator.eval()
    assert generator.stem.weight.shape == (64 * 5, 16)
    z = torch.randn(2, 16)
    wide = generator.stem(z).view(2, 64, 5) @ generator.widen.weight.mT + generator.widen.bias
    torch.testing.assert_close(generator(z), from_tokens(generator, wide))
    plain = built().generator.eval()
    assert not any(name.startswith("widen") for name in plain.state_dict())
    torch.testing.assert_close(plain(z), from_tokens(plain, plain.stem(z).view(2, 64, 64)))


def from_tokens(generator, tokens):
    """The drawing, from the first stage's tokens on."""
    for position, stage in zip(generator.positions, generator.stages, strict=True):
        tokens = tokens if position is generator.positions[0] else upsample(tokens)
        tokens = stage(tokens + position)
    return generator.to_image(as_map(tokens)).tanh()


def test_a_generator_with_a_narrow_stem_trains_and_scores():
    assert fitted(stem_width=4, iterations=5).score(images(2)).isfinite().all()


def test_the_drift_is_of_the_squared_mean():
    detector = built(diffaugment="none", w_penalty=0.0, w_drift=1e3)
    x = to_unit(images())
    on_real = detector.discriminator(x)
    torch.manual_seed(1)
    fake = detector.discriminator(detector.generator(torch.randn(8, 16)))
    torch.manual_seed(1)
    still = torch.optim.SGD(detector.discriminator.parameters(), lr=0.0)
    loss = detector.discriminator_step(x, still)["loss_d"]
    expected = fake.mean() - on_real.mean() + 1e3 * on_real.mean().square()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=0)


def test_dropout_of_the_generator_is_that_of_the_setting():
    drops = {m.p for m in built(generator_dropout=0.25).generator.modules() if isinstance(m, nn.Dropout)}
    assert drops == {0.25}
    assert not any(m.p for m in built().generator.modules() if isinstance(m, nn.Dropout))


def test_batches_are_shuffled_by_the_seed_and_whole():
    pixels = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    orders = []
    for seed in (0, 0, 1):
        batches = TransGANAnoGAN(SMALL, seed=seed).batches(ImageSet(pixels))
        orders.append([next(batches).flatten().tolist() for _ in range(4)])
        assert [len(batch) for batch in orders[-1]] == [8] * 4  # two passes; 4 of 20 are left out of each
        first = orders[-1][0] + orders[-1][1]
        assert len(set(first)) == 16
        assert first != sorted(first)
        assert first != orders[-1][2] + orders[-1][3]
    assert orders[0] == orders[1] != orders[2]


def test_both_adams_have_the_settings():
    detector = built(lr=3e-4, betas=(0.1, 0.8))
    for network in detector.networks.values():
        (group,) = detector.adam(network).param_groups
        assert (group["lr"], group["betas"]) == (3e-4, (0.1, 0.8))


def test_steps_forget_the_gradients_of_those_before():
    detector, x, found = built(), to_unit(images()), []
    for _ in range(2):
        torch.manual_seed(1)
        detector.discriminator_step(x, torch.optim.SGD(detector.discriminator.parameters(), lr=0.0))
        detector.generator_step(8, torch.optim.SGD(detector.generator.parameters(), lr=0.0))
        found.append(
            [
                p.grad.clone()
                for net in detector.networks.values()
                for p in net.parameters()
                if p.grad is not None
            ]
        )
    torch.testing.assert_close(*found)

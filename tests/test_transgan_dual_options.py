"""Options by which `transgan_dual` comes closer to the thesis, or to small categories; off, they change nothing."""

import numpy as np
import pytest
import timm
import torch
from test_transgan import changed, detector, parameters, snapshot, step_inputs, toy, train_set

from adbench_plugins import features
from adbench_plugins.features import Backbone, lite0_file, read_weights
from adbench_plugins.transgan.dual import TransGANDual
from adbench_tgan import AdbenchError, ImageSet, TrainSet, metrics, to_unit
from adbench_tgan.checkpoints import Checkpoint
from adbench_tgan.training import fit

LITE0 = "tf_efficientnet_lite0"


def built(channels=1, **settings):
    model = detector(**settings)
    model.build((channels, 32, 32))
    return model


def test_off_they_add_no_network_and_no_layer():
    model = built()
    names = "generator discriminator_normal discriminator_anomalous mapper backbone".split()
    assert list(model.networks) == names
    assert model.backbone.features == model.mapper[0].in_features == 1280
    assert not any("classifier" in name for name in model.backbone.state_dict())


# class logits as features


def test_logits_are_those_of_the_backbones_own_head():
    network = timm.create_model(LITE0, pretrained=False, num_classes=1000).eval()
    network.load_state_dict(read_weights(lite0_file()))
    images = toy(3, channels=3)
    with torch.no_grad():
        expected = network((images.float() - 127) / 128)
    backbone = built(3, feat="logits1000").backbone
    torch.testing.assert_close(backbone(images), expected, rtol=1e-3, atol=1e-3)
    assert backbone.features == 1000


def test_a_detector_of_logits_trains_and_is_loaded_without_weights_of_its_own(monkeypatch):
    model = detector(feat="logits1000").fit(train_set(anomalies=False))
    assert model.mapper[0].in_features == 1000
    state, probe = model.state(), toy(3)
    monkeypatch.setattr(features, "find_weights", lambda name: pytest.fail("weights looked for"))
    assert torch.equal(
        TransGANDual(model.config).load_state(state, (1, 32, 32)).score(probe), model.score(probe)
    )


def test_logits_of_a_backbone_without_a_head_are_refused(tmp_path):
    with pytest.raises(AdbenchError, match="feat=logits1000 needs a classification head, and backbone=none"):
        detector(feat="logits1000", backbone="none")
    headless = timm.create_model(LITE0, pretrained=False, num_classes=0)
    torch.save(headless.state_dict(), tmp_path / "headless.pth")
    with pytest.raises(AdbenchError, match=r"headless.pth have no classification head; set feat=pooled"):
        Backbone(LITE0, weights=str(tmp_path / "headless.pth"), head=True)
    assert Backbone(LITE0, weights=str(tmp_path / "headless.pth")).features == 1280


# an encoder of its own for the latent loss


@pytest.mark.parametrize("latent_by", ["enc_random", "enc_trained"])
def test_the_latent_loss_by_the_thesiss_encoder(latent_by):
    model = built(3, latent_by=latent_by)
    assert parameters(model.enc) == 2_756_544
    x, x_hat = to_unit(toy(4, 3)), to_unit(toy(4, 3, seed=1))
    by_hand = (model.enc.convolutions(x) - model.enc.convolutions(x_hat)).abs().mean()
    z = model.mapper(model.backbone(x))
    torch.testing.assert_close(model.normal_losses(x, x_hat, z)["latent"], by_hand)
    assert model.normal_losses(x, x, z)["latent"] == 0
    mapped = (z - model.mapper(model.backbone(x_hat))).abs().mean()
    torch.testing.assert_close(built(3).normal_losses(x, x_hat, z)["latent"], mapped)


@pytest.mark.parametrize(("latent_by", "learns"), [("enc_random", False), ("enc_trained", True)])
def test_that_encoder_learns_only_if_asked_to(latent_by, learns, monkeypatch):
    model = built(latent_by=latent_by)
    optimise, halves = step_inputs(model)
    monkeypatch.setattr(model, "_discriminator_step", lambda *_: {})
    before = snapshot(model.networks)
    model._step(optimise, *halves)
    assert changed(model.networks, before) == {"generator", "mapper"} | ({"enc"} if learns else set())


def test_the_encoder_is_drawn_after_all_other_networks():
    plain, own = built(), built(latent_by="enc_random")
    for name, network in plain.networks.items():
        assert all(map(torch.equal, network.state_dict().values(), own.networks[name].state_dict().values()))
    assert list(own.networks)[-1] == "enc"


# scores that are cut


def test_a_cut_score_is_one_from_the_threshold_on():
    model = built()
    for network in model.networks.values():
        network.eval()
    probe = toy(8)
    errors = model.score(probe)
    cut = errors.sort().values[3].item()  # the fourth smallest is an anomaly too
    model.config = model.config.model_copy(update={"legacy_threshold": cut})
    assert model.score(probe).tolist() == [float(error >= cut) for error in errors.tolist()]
    assert model.score(probe).sum() == 5
    assert model.score(probe).dtype == torch.float32
    assert torch.cat([model.score(image[None]) for image in probe[errors != cut]]).tolist() == [
        float(error > cut) for error in errors.tolist() if error != cut
    ]


def test_auroc_of_cut_scores_is_balanced_accuracy():
    """With the counts of the thesis's only recorded result: 871 of 1,000 and 688 of 999 on the right side."""
    labels = np.repeat([0, 0, 1, 1], [871, 129, 688, 311])
    cut = np.repeat([0.0, 1.0, 1.0, 0.0], [871, 129, 688, 311])
    assert metrics.auroc(cut, labels, 0.5) == pytest.approx(0.7798443, abs=1e-7)
    assert metrics.auroc(cut, labels, 0.5) == pytest.approx(metrics.balanced_accuracy(cut, labels, 0.5))


# steps instead of epochs


def test_iterations_count_steps_through_as_many_passes_as_it_takes(monkeypatch):
    steps = []
    monkeypatch.setattr(
        TransGANDual, "_step", lambda _, optimise, *pair: steps.append(pair) or {"l1": pair[0].x.mean()}
    )
    model = detector(iterations=45, epochs=99, batch_size=16, warmup_epochs=1)
    history = list(model.epochs(train_set()))
    assert len(steps) == 45
    assert len(history) == model.expected_epochs(train_set()) == 1 + 15  # 45 steps in rounds of 3
    seen = torch.cat([normal.x for normal, _ in steps[:5]])  # a pass of 5 steps of 8, over 40 images
    assert torch.equal(seen.flatten(1).sort(0).values, to_unit(toy(40)).flatten(1).sort(0).values)
    assert all(len(anomalous.x) == 8 for _, anomalous in steps)


def test_iterations_can_be_interrupted(tmp_path):
    class Cut(Exception):
        pass

    def cut(number, losses):
        if number == 3:
            raise Cut

    def trained(path=None, on_epoch=None):
        model = detector(iterations=4, batch_size=16)
        fit(model, TrainSet(ImageSet(toy(40))), on_epoch, path and Checkpoint(path, "a key", 1))
        return model.state()

    with pytest.raises(Cut):
        trained(tmp_path / "kept", cut)
    whole, again = trained(), trained(tmp_path / "kept")
    assert all(torch.equal(whole[name], again[name]) for name in whole)

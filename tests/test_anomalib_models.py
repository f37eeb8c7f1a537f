"""anomalib's models as detectors: raw scores, weights from this machine, draws from the detector's seed."""

import os
import subprocess
import sys

import pytest
import torch

from adbench_plugins import anomalib_models, features
from adbench_plugins.anomalib_models import STFPM, PaDiM, PatchCore
from adbench_tgan import AdbenchError, ImageSet, TrainSet
from adbench_tgan.testing import smooth_images

MODELS = [PatchCore, PaDiM, STFPM]


def fitted(cls, seed=0, count=16, **settings):
    torch.manual_seed(seed)
    detector = cls(cls.Config(**(cls.presets["quick"] | settings)), seed=seed)
    return detector.fit(TrainSet(ImageSet(smooth_images(count, (3, 32, 32), seed=0))))


@pytest.fixture(scope="module", params=MODELS, ids=lambda cls: cls.name)
def model(request):
    return fitted(request.param)


def test_scores_are_those_of_anomalibs_model_unscaled(model):
    probe = smooth_images(4, (3, 32, 32), seed=1)
    with torch.no_grad():
        found = model.model(model.prepared(probe))
    assert torch.equal(model.score(probe), found.pred_score.flatten())
    assert found.anomaly_map.shape == (4, 1, 64, 64)
    assert model.anomaly_map(probe).shape == (4, 32, 32)
    assert model.anomaly_map(probe).mean() == pytest.approx(found.anomaly_map.mean().item(), rel=0.05)


def test_an_odd_patch_raises_the_score_and_the_map_there(model):
    probe = smooth_images(4, (3, 32, 32), seed=1)
    odd = probe.clone()
    odd[:, :, 4:14, 4:14] = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    assert model.score(odd).mean() > model.score(probe).mean()
    gain = model.anomaly_map(odd) - model.anomaly_map(probe)
    assert gain[:, 4:14, 4:14].mean() > gain[:, 18:, 18:].mean()


def test_the_backbone_has_this_machines_weights_and_its_own_scaling(model):
    state = features.lite0_to_timm(features.read_weights(features.find_weights("tf_efficientnet_lite0")))
    teacher = model.model.teacher_model if isinstance(model, STFPM) else model.model.feature_extractor
    network = teacher.feature_extractor
    assert torch.equal(network.conv_stem.weight, state["conv_stem.weight"])
    assert torch.equal(network.blocks[4][0].bn1.running_var, state["blocks.4.0.bn1.running_var"])
    assert not any(parameter.requires_grad for parameter in network.parameters())
    white = torch.full((1, 1, 64, 64), 255, dtype=torch.uint8)
    assert torch.equal(model.prepared(white), torch.ones(1, 3, 64, 64))


def test_the_coreset_is_a_part_of_the_patches_drawn_from_the_seed():
    one, other = fitted(PatchCore, seed=0), fitted(PatchCore, seed=1)
    patches = 16 * 8 * 8
    assert one.model.memory_bank.shape == (int(0.1 * patches), 40 + 112)
    assert one.model.embedding_store == []
    assert not torch.equal(one.model.memory_bank, other.model.memory_bank)


def test_of_more_images_than_are_remembered_evenly_spaced_ones_are():
    images, probe = smooth_images(9, (3, 32, 32), seed=0), smooth_images(4, (3, 32, 32), seed=1)
    settings = {"backbone": "tf_efficientnet_lite0", "image_size": 32, "feature_size": 64, "dimensions": 20}
    scores = []
    for most, chosen in ((5, images), (500, images[::2])):
        torch.manual_seed(0)
        padim = PaDiM(PaDiM.Config(**settings, most_images=most))
        scores.append(padim.fit(TrainSet(ImageSet(chosen))).score(probe))
    assert torch.equal(*scores)


def test_the_student_learns():
    torch.manual_seed(0)
    detector = STFPM(STFPM.Config(**(STFPM.presets["quick"] | {"epochs": 4})))
    losses = [
        epoch["loss"] for epoch in detector.epochs(TrainSet(ImageSet(smooth_images(16, (3, 32, 32), 0))))
    ]
    assert losses[-1] < losses[0]
    teacher = detector.model.teacher_model.feature_extractor
    assert not any(module.training for module in teacher.modules())


def test_weights_of_another_network_are_refused(monkeypatch):
    monkeypatch.setattr(features, "read_weights", lambda _: {"conv_stem.weight": torch.zeros(1)})
    with pytest.raises(
        AdbenchError, match=r"lack blocks\..* of tf_efficientnet_lite0; name another backbone"
    ):
        PaDiM(PaDiM.Config(**PaDiM.presets["quick"])).build((3, 32, 32))


def test_layers_are_those_of_a_quarter_an_eighth_and_a_sixteenth():
    import timm

    for name, layers in anomalib_models.LAYERS.items():
        network = timm.create_model(name, pretrained=False, features_only=True)
        reductions = {info["module"]: info["reduction"] for info in network.feature_info.info}
        assert [reductions[layer] for layer in layers] == [4, 8, 16]


def test_a_run_without_its_detectors_does_without_anomalib_and_what_reports_need(tmp_path):
    code = """
import sys
sys.modules |= dict.fromkeys(("anomalib", "altair", "pandera"))  # to import them is an error
from adbench_tgan import cli
sys.argv = "adbench run --detectors mean_image --categories 0 --no-timing".split()
cli.main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "mean_image" in (tmp_path / "runs/results.csv").read_text()


@pytest.mark.parametrize("cls", [PatchCore, PaDiM])
def test_statistics_and_distances_are_in_full_precision_under_bf16(cls):
    probe = smooth_images(6, (3, 32, 32), seed=1)
    in_full = fitted(cls)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        short = fitted(cls)
        assert torch.equal(short.score(probe), in_full.score(probe))
        assert torch.equal(short.anomaly_map(probe), in_full.anomaly_map(probe))


def test_padim_says_that_one_image_is_too_few():
    with pytest.raises(AdbenchError, match="2 training images or more"):
        fitted(PaDiM, count=1)

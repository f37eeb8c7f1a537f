"""Every registered detector keeps the contract; deliberately broken ones are caught by the right check."""

import pytest
import torch

from adbench_tgan import Detector
from adbench_tgan.errors import AdbenchError
from adbench_tgan.registry import Registry
from adbench_tgan.testing import CHECKS, check_detector

REGISTRY = Registry.discover()
SHAPES = {"rgb": (3, 32, 32), "grey": (1, 32, 32)}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", REGISTRY.names("detector"))
def test_registered_detectors_conform(name, kind):
    detector = REGISTRY.detector(name)
    config = detector.Config(**detector.presets["quick"])
    labelled = REGISTRY.find("detector", name).supervision == "labelled"
    ran = check_detector(lambda seed: detector(config, seed=seed), SHAPES[kind], labelled=labelled)
    assert len(ran) == len(CHECKS) == 9


class Brightness(Detector):
    """Conforms: the distance of an image's mean to the training mean."""

    def fit(self, train):
        self.mean = train.normal.on("cpu").float().mean()
        return self

    def score(self, images):
        return (images.float().mean((1, 2, 3)) - self.mean).abs()


class ReturnsNothing(Brightness):
    def fit(self, train):
        super().fit(train)


class TrainMode(Brightness):
    def build(self, shape):
        self.norm = torch.nn.BatchNorm2d(shape[0])

    @property
    def networks(self):
        return {"norm": self.norm}

    def fit(self, train):
        self.build(train.shape)
        return super().fit(train)


class DoublePrecision(Brightness):
    def score(self, images):
        return super().score(images).double()


class RelativeToBatch(Brightness):
    def score(self, images):
        scores = super().score(images)
        return scores - scores.mean()


class WritesToInput(Brightness):
    def score(self, images):
        scores = super().score(images)
        images.zero_()
        return scores


class RollsDice(Brightness):
    def score(self, images):
        torch.rand(1)
        return super().score(images)


class LearnsWhileScoring(Brightness):
    def score(self, images):
        scores = super().score(images)
        self.mean = self.mean + 1e-3
        return scores


class IgnoresSeed(Brightness):
    def fit(self, train):
        self.mean = torch.rand((), generator=torch.Generator().manual_seed(torch.seed() % 2**31)) * 255
        return self


class Constant(Brightness):
    def score(self, images):
        return torch.ones(len(images))


class ForgetsOnSave(Brightness):
    def fit(self, train):
        self.mean = float(train.normal.on("cpu").float().mean())
        return self


class SmallMaps(Brightness):
    def anomaly_map(self, images):
        return torch.zeros(len(images), 4, 4)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ReturnsNothing, "fit returns the detector itself"),
        (TrainMode, "networks are in eval mode after fit: still in train mode: norm"),
        (DoublePrecision, "scores are one finite detached float32 per image: dtype torch.float64"),
        (RelativeToBatch, "a score does not depend on the rest of its batch"),
        (WritesToInput, "scoring changes nothing: score wrote to its input"),
        (RollsDice, "scoring changes nothing: score drew from the global random numbers"),
        (LearnsWhileScoring, "scoring changes nothing: score changed mean"),
        (IgnoresSeed, "the same seed gives the same scores"),
        (Constant, "scores tell images apart: 1 distinct scores for 10 images"),
        (SmallMaps, "maps and reconstructions match the images: maps are (10, 4, 4)"),
    ],
)
def test_broken_detectors_are_caught_by_name(broken, message):
    with pytest.raises(AdbenchError) as caught:
        check_detector(lambda seed: broken(seed=seed))
    assert message in str(caught.value)


def test_state_outside_tensors_is_caught():
    with pytest.raises(AttributeError, match="mean"):
        check_detector(lambda seed: ForgetsOnSave(seed=seed))


def test_a_sound_detector_passes_every_check():
    assert len(check_detector(lambda seed: Brightness(seed=seed))) == len(CHECKS)

"""The anchors: chance, the mean image, principal components; and the plugin that offers all detectors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import adbench_plugins
from adbench_plugins.anchors import PCA, MeanImage, MeanPixel, Random
from adbench_tgan import AdbenchError, Detector, DetectorConfig, ImageSet, TrainSet, to_unit
from adbench_tgan.hooks import load


def images(count: int, channels: int = 3, seed: int = 0, side: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def train_set(count: int = 40, channels: int = 3) -> TrainSet:
    return TrainSet(ImageSet(images(count, channels)))


@pytest.mark.parametrize("cls", [MeanImage, PCA])
def test_maps_average_to_the_score_and_drawings_explain_it(cls):
    detector = cls().fit(train_set())
    test = images(5, seed=1)
    maps, drawn = detector.anomaly_map(test), detector.reconstruct(test)
    assert maps.shape == (5, 8, 8)
    assert maps.dtype == torch.float32
    assert drawn.dtype == torch.uint8
    assert drawn.shape == test.shape
    torch.testing.assert_close(maps.mean((1, 2)), detector.score(test))
    error = ((test.double() - drawn.double()) / 127.5).square().mean((1, 2, 3))
    torch.testing.assert_close(error, detector.score(test).double(), rtol=0.05, atol=1e-4)


def test_random_is_uniform_and_follows_its_seed():
    test = images(4000, 1, side=4)
    first, second = (Random(seed=seed).fit(train_set()).score(test) for seed in (0, 1))
    for scores in (first, second):
        assert scores.min() >= 0
        assert scores.max() < 1
        counts = torch.histc(scores, 10, 0, 1)
        assert counts.min() > 300
    correlation = np.corrcoef(first, second)[0, 1]
    assert abs(correlation) < 0.06
    assert not Random().has_maps


def test_mean_image_by_hand():
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    pixels[1] = 255  # the mean is 0 in [-1, 1]
    detector = MeanImage().fit(TrainSet(ImageSet(pixels)))
    torch.testing.assert_close(detector.score(pixels), torch.ones(2))
    assert detector.reconstruct(pixels).unique().tolist() == [128]


def test_pca_leaves_nothing_of_what_it_spans_and_all_that_is_outside():
    generator = torch.Generator().manual_seed(0)
    normal = torch.full((30, 1, 4, 4), 100, dtype=torch.uint8)
    normal[:, 0, 0, 0] = torch.randint(0, 256, (30,), generator=generator).to(torch.uint8)
    normal[:, 0, 1, 1] = torch.randint(0, 256, (30,), generator=generator).to(torch.uint8)
    detector = PCA().fit(TrainSet(ImageSet(normal)))
    assert detector.basis.shape == (16, 2)  # the training images span no more
    inside, outside = normal[:1].clone(), normal[:1].clone()
    inside[0, 0, 0, 0] = 17
    outside[0, 0, 2, 2] = 151  # 51 grey levels, .4 in [-1, 1]
    assert detector.score(inside).item() < 1e-10
    assert detector.score(outside).item() == pytest.approx(0.4**2 / 16, rel=1e-4)


@pytest.mark.parametrize("count", [30, 300])  # fewer and more images than pixels
def test_pca_is_the_best_linear_reconstruction(count):
    detector = PCA(PCA.Config(components=5)).fit(train_set(count, channels=1))
    pixels = images(count, 1).flatten(1).double().numpy() / 127.5 - 1
    values = np.linalg.svd(pixels - pixels.mean(0), compute_uv=False)
    expected = (values[5:] ** 2).sum() / pixels.size
    assert detector.score(images(count, 1)).double().mean().item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(detector.basis.T @ detector.basis, torch.eye(5).double())


def test_pca_takes_no_more_components_than_the_training_images_allow():
    few = PCA(PCA.Config(components=50)).fit(train_set(6))
    assert few.basis.shape[1] == 5
    assert few.notes == ["5 of 50 components: the training images span no more"]
    assert PCA(PCA.Config(components=5)).fit(train_set(6)).notes == []
    same = PCA().fit(TrainSet(ImageSet(images(1).expand(4, -1, -1, -1))))
    assert same.basis.shape[1] == 0
    assert same.score(images(1)).item() < 1e-10
    assert same.score(images(1, seed=1)).item() > 0.1


def test_pca_refuses_as_many_components_as_an_image_has_values():
    tiny = TrainSet(ImageSet(images(40, 1, side=4)))
    with pytest.raises(AdbenchError, match=r"^pca.components=32: 16 components .* set fewer than 16$"):
        PCA().fit(tiny)
    assert PCA(PCA.Config(components=15)).fit(tiny).score(images(1, 1, side=4)).item() > 1e-4


def test_pca_needs_no_seed():
    one, two = (PCA(seed=seed).fit(train_set()) for seed in (0, 1))
    assert torch.equal(one.score(images(5, seed=2)), two.score(images(5, seed=2)))


def test_listing_the_plugin_imports_no_torch():
    code = "import adbench_plugins, sys; list(adbench_plugins.adbench_detectors()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("info", list(adbench_plugins.adbench_detectors()), ids=lambda info: info.name)
def test_every_detector_offered_is_there(info):
    cls = load(info.target)
    assert issubclass(cls, Detector)
    assert issubclass(cls.Config, DetectorConfig)
    assert ("anomaly_map" in info.extras) == (cls.anomaly_map is not Detector.anomaly_map)
    assert ("reconstruct" in info.extras) == (cls.reconstruct is not Detector.reconstruct)
    assert "quick" in cls.presets
    assert cls.Config(**cls.presets["quick"])


def test_mean_pixel_by_hand():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    torch.testing.assert_close(MeanPixel().fit(train_set()).score(pixels), torch.tensor([-1.0, -0.6, 1.0]))


def test_the_mean_image_is_that_of_all_training_images():
    normal = images(600) // 2  # more than are taken at a time, and darker than grey
    detector = MeanImage().fit(TrainSet(ImageSet(normal)))
    torch.testing.assert_close(detector.mean, to_unit(normal).mean(0), rtol=1e-5, atol=1e-6)

import pytest
import torch
from adbench_tgan import AdbenchError, ImageSet, TrainSet
from adbench_tgan.testing import check_detector

from adbench_example_pca.detector import PCAPatches


def test_conformance():
    check_detector("pca_patches")


def fitted(pixels, **settings):
    return PCAPatches(PCAPatches.Config(**settings)).fit(TrainSet(ImageSet(pixels)))


def noise(count, seed, side=16):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, side, side), generator=draw, dtype=torch.uint8)


def test_energies_of_the_training_patches_are_one_on_average():
    """With every direction but one free, the energy is the full Mahalanobis distance: D on average."""
    pixels = noise(50, seed=0)
    detector = fitted(pixels, patch=4, stride=4, components=15)
    assert detector.energies(pixels).mean().item() == pytest.approx(1, rel=1e-9)


def test_energy_is_the_mahalanobis_distance_of_the_model_covariance():
    pixels, probe = noise(50, seed=0), noise(3, seed=1)
    detector = fitted(pixels, patch=4, stride=4, components=5)
    centred = detector.patches(pixels) - detector.mean
    values, vectors = torch.linalg.eigh(torch.cov(centred.flatten(0, 1).T, correction=0))
    values[:11] = values[:11].mean()
    inverse = torch.linalg.inv(vectors @ values.diag() @ vectors.T)
    gap = detector.patches(probe) - detector.mean
    wanted = torch.einsum("bpd,de,bpe->bp", gap, inverse, gap) / 16
    assert torch.allclose(detector.energies(probe), wanted)


def test_a_defect_scores_higher_and_is_where_the_map_is_highest():
    ramp = torch.linspace(40, 160, 32).round().to(torch.uint8).expand(60, 1, 32, 32)
    normal = ramp + noise(60, seed=0, side=32) // 16
    detector = fitted(normal[:50])
    defect = normal[50:].clone()
    defect[..., 20:24, 6:10] = 255
    assert detector.score(defect).min() > 5 * detector.score(normal[50:]).max()
    down, across = divmod(int(detector.anomaly_map(defect)[0].argmax()), 32)
    assert 18 <= down <= 25
    assert 4 <= across <= 11


def test_patches_larger_than_the_image_are_an_error():
    with pytest.raises(AdbenchError, match="do not fit images of 16"):
        fitted(noise(4, seed=0), patch=20)

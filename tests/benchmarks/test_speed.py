"""How fast the parts are, for comparison with an earlier commit: ``tox run -e bench -- --benchmark-compare``.

These are no leaderboard numbers. On a GPU each call is synchronised; ``ADBENCH_BENCH_DEVICE=cuda`` chooses it.
"""

import os

import numpy as np
import pytest
import torch

from adbench_tgan import Detector, ImageSet, TrainSet, metrics
from adbench_tgan.jobs import Request, plan
from adbench_tgan.registry import Registry
from adbench_tgan.results import ResultStore
from adbench_tgan.testing import smooth_images
from adbench_tgan.training import fit, seed_everything

pytestmark = pytest.mark.bench
DEVICE = os.environ.get("ADBENCH_BENCH_DEVICE", "cpu")
REGISTRY = Registry.discover()
DETECTORS = REGISTRY.names("detector")
SHAPE = (3, 32, 32)


def synchronised(function):
    """`function`, and on a GPU the wait for its kernels."""

    def call(*arguments):
        result = function(*arguments)
        if DEVICE != "cpu":
            torch.cuda.synchronize()
        return result

    return call


def built(name, **settings):
    seed_everything(0)
    detector = REGISTRY.detector(name)
    return detector(detector.Config(**(detector.presets["quick"] | settings)), device=DEVICE)


def train_set(name, count=64):
    labelled = REGISTRY.find("detector", name).supervision == "labelled"
    anomalies = ImageSet(smooth_images(count, SHAPE, seed=2)) if labelled else None
    return TrainSet(ImageSet(smooth_images(count, SHAPE, seed=0)), anomalies)


@pytest.mark.parametrize("name", DETECTORS)
def test_fit_64_images_quick(benchmark, name):
    benchmark.pedantic(
        synchronised(fit), setup=lambda: ((built(name), train_set(name)), {}), rounds=3, warmup_rounds=1
    )


TRAINED = [name for name in DETECTORS if REGISTRY.detector(name).fit is Detector.fit]
ONE_STEP = {  # settings under which `epochs` yields after every step, of 16 images
    "f_anogan": {"gan_steps": 20, "batch_size": 16},
    "egbad": {"steps": 20, "batch_size": 16},
    "anogan": {"iterations": 20, "batch_size": 16},
    "transgan_anogan": {"iterations": 20, "n_critic": 1, "batch_size": 16},
    "transgan_dual": {"warmup_epochs": 0, "epochs": 20, "batch_size": 32},
}


@pytest.mark.parametrize("name", TRAINED)
def test_one_training_step_quick(benchmark, name):
    """From its sixth step on, when a GPU has a graph of it; reading the losses included."""
    detector = built(name, **ONE_STEP.get(name, {"epochs": 20, "batch_size": 16}))
    steps = detector.epochs(train_set(name, 16))
    benchmark.pedantic(next, (steps,), rounds=10, warmup_rounds=5)


@pytest.mark.parametrize("name", ["anogan", "transgan_anogan"])
def test_a_walk_of_16_images_for_50_steps_quick(benchmark, name):
    settings = {"walk_steps": 50, "together": 16} if name == "transgan_anogan" else {"steps": 50}
    detector = built(name, **settings)
    detector.build(SHAPE)
    for network in detector.networks.values():
        network.eval().requires_grad_(False)
    images = smooth_images(16, SHAPE, seed=1).to(DEVICE)
    benchmark.pedantic(synchronised(detector.walk), (images,), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("name", DETECTORS)
def test_score_100_images_quick(benchmark, name):
    detector, train = built(name), train_set(name)
    fit(detector, train)
    images = smooth_images(100, SHAPE, seed=1).to(DEVICE)
    benchmark.pedantic(synchronised(detector.score), (images,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("name", ["auroc", "average_precision", "f1_max", "fpr95"])
def test_image_metric_of_10_000_scores(benchmark, name):
    draw = np.random.default_rng(0)
    labels = (np.arange(10_000) < 9_000).astype(np.uint8)
    benchmark(getattr(metrics, name), (draw.normal(size=10_000) + labels).astype(np.float32), labels, 0.0)


@pytest.mark.parametrize("name", ["pixel_auroc", "aupro"])
def test_pixel_metric_of_an_mvtec_category(benchmark, name):
    draw = np.random.default_rng(0)
    masks = np.zeros((100, 256, 256), np.uint8)
    masks[30:, 100:140, 90:150] = 1
    maps = (draw.random(masks.shape) + 0.3 * masks).astype(np.float32)
    benchmark.pedantic(getattr(metrics, name), (maps, masks), rounds=2)


def test_planning_digits(benchmark, tmp_path):
    request = Request(detectors=["ganomaly", "pca"], data_root=tmp_path, seeds=range(5))
    assert len(benchmark(plan, request, REGISTRY).jobs) == 100


def test_finding_200_finished_jobs(benchmark, tmp_path):
    from test_leaderboard import result

    store = ResultStore(tmp_path)
    store.open()
    results = [result("d", seed=seed) for seed in range(200)]
    for one in results:
        store.put(one)
    assert all(benchmark(lambda: [store.get(one.job) for one in results]))

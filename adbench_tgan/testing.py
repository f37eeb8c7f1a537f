"""Conformance: what every detector must keep, as checks whose names are their messages."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adbench_tgan.data.images import ImageSet, TrainSet
from adbench_tgan.detector import Detector, Shape
from adbench_tgan.errors import AdbenchError

Build = Callable[[int], Detector]  # from a seed
Check = Callable[["Trial"], None]
TOLERANCE = 1e-5  # relative: the largest difference of two scores that should be the same


class Trial:
    """One detector, fitted on a few smooth images, and the images it is probed with."""

    def __init__(self, build: Build, shape: Shape = (3, 32, 32), *, labelled: bool = False):
        self.build, self.shape = build, shape
        anomalies = ImageSet(255 - smooth_images(24, shape, seed=2)) if labelled else None
        self.train = TrainSet(ImageSet(smooth_images(40, shape, seed=0)), anomalies)
        self._probe = smooth_images(10, shape, seed=1)
        self.returned: object = None
        self.detector = self.fitted()
        self.scores = self.detector.score(self.probe)

    @property
    def probe(self) -> Tensor:
        """The images to be scored, a fresh copy each time."""
        return self._probe.clone()

    def fitted(self, seed: int = 0) -> Detector:
        """A detector built and fitted as the runner does it."""
        torch.manual_seed(seed)
        detector = self.build(seed)
        self.returned = detector.fit(self.train)
        return detector


def smooth_images(count: int, shape: Shape, seed: int) -> Tensor:
    """Smooth random images around one pattern, uint8 (count, C, H, W): easier to learn than noise."""
    draw = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    ramp = torch.linspace(60, 160, height)[:, None] + torch.linspace(0, 40, width)
    coarse = torch.randn(count, channels, 4, 4, generator=draw) * 25
    detail = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (ramp + detail).round().clamp(0, 255).to(torch.uint8)


def fit_returns_the_detector_itself(trial: Trial) -> None:
    """`fit` is chained."""
    assert trial.returned is trial.detector, f"fit returned {type(trial.returned).__name__}"


def networks_are_in_eval_mode_after_fit(trial: Trial) -> None:
    """Else batch norm and dropout make scores depend on their batch."""
    training = [name for name, network in trial.detector.networks.items() if network.training]
    assert not training, f"still in train mode: {', '.join(training)}"


def scores_are_one_finite_detached_float32_per_image(trial: Trial) -> None:
    """For a batch of any size."""
    for images in (trial.probe, trial.probe[:1], trial.probe[:7]):
        scores = trial.detector.score(images)
        assert scores.shape == (len(images),), f"shape {tuple(scores.shape)} for {len(images)} images"
        assert scores.dtype == torch.float32, f"dtype {scores.dtype}"
        assert not scores.requires_grad, "scores carry a gradient"
        assert bool(scores.isfinite().all()), "scores are not finite"


def a_score_does_not_depend_on_the_rest_of_its_batch(trial: Trial) -> None:
    """Nor on its place in it."""
    parts = torch.cat([trial.detector.score(trial.probe[i : i + 3]) for i in range(0, len(trial.scores), 3)])
    assert same(trial.scores, parts), f"batches of 3 change scores by {gap(trial.scores, parts):.2g}"
    turned = trial.detector.score(trial.probe.flip(0)).flip(0)
    assert same(trial.scores, turned), f"another order changes scores by {gap(trial.scores, turned):.2g}"


def scoring_changes_nothing(trial: Trial) -> None:
    """Neither the images, nor the state, nor the global random numbers, nor the next scores."""
    probe, state, dice = trial.probe, trial.detector.state(), torch.get_rng_state()
    again = trial.detector.score(probe)
    assert torch.equal(probe, trial.probe), "score wrote to its input"
    assert torch.equal(dice, torch.get_rng_state()), "score drew from the global random numbers"
    after = trial.detector.state()
    changed = [name for name in state if not torch.equal(state[name], after[name])]
    assert not changed, f"score changed {', '.join(changed)}"
    assert torch.equal(trial.scores, again), "scoring twice gives other scores"


def the_same_seed_gives_the_same_scores(trial: Trial) -> None:
    """Bit for bit on the CPU."""
    assert torch.equal(trial.scores, trial.fitted().score(trial.probe))


def scores_tell_images_apart(trial: Trial) -> None:
    """More than half of them differ."""
    distinct = len(set(trial.scores.tolist()))
    assert distinct > len(trial.scores) / 2, f"{distinct} distinct scores for {len(trial.scores)} images"


def a_loaded_state_gives_equal_scores(trial: Trial) -> None:
    """What `state` holds is all that `score` needs."""
    torch.manual_seed(7)
    twin = trial.build(0).load_state(trial.detector.state(), trial.shape)
    assert torch.equal(trial.scores, twin.score(trial.probe)), "the loaded detector gives other scores"


def maps_and_reconstructions_match_the_images(trial: Trial) -> None:
    """In shape, kind and finiteness, where the detector has them."""
    detector, (channels, height, width) = trial.detector, trial.shape
    if detector.has_maps:
        maps = detector.anomaly_map(trial.probe)
        assert maps.shape == (len(trial.probe), height, width), f"maps are {tuple(maps.shape)}"
        assert maps.dtype == torch.float32, f"maps are {maps.dtype}"
        assert bool(maps.isfinite().all()), "maps are not finite"
    if type(detector).reconstruct is not Detector.reconstruct:
        images = detector.reconstruct(trial.probe)
        assert images.shape == (len(trial.probe), channels, height, width), f"{tuple(images.shape)}"
        assert images.dtype == torch.uint8, f"reconstructions are {images.dtype}"


CHECKS: tuple[Check, ...] = (
    fit_returns_the_detector_itself,
    networks_are_in_eval_mode_after_fit,
    scores_are_one_finite_detached_float32_per_image,
    a_score_does_not_depend_on_the_rest_of_its_batch,
    scoring_changes_nothing,
    the_same_seed_gives_the_same_scores,
    scores_tell_images_apart,
    a_loaded_state_gives_equal_scores,
    maps_and_reconstructions_match_the_images,
)


def check_detector(build: Build, shape: Shape = (3, 32, 32), *, labelled: bool = False) -> list[str]:
    """Run every check on the detector that `build` makes from a seed; return the names of the checks that ran.

    Raises:
        AdbenchError: naming each check that failed, and why.
    """
    trial = Trial(build, shape, labelled=labelled)
    failures = []
    for check in CHECKS:
        try:
            check(trial)
        except AssertionError as failure:
            failures.append(f"{check.__name__.replace('_', ' ')}: {failure or 'it does not hold'}")
    if failures:
        raise AdbenchError(f"{len(failures)} of {len(CHECKS)} checks failed: " + "; ".join(failures))
    return [check.__name__ for check in CHECKS]


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest score."""
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to within `TOLERANCE`, relative."""
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * float(a.abs().max()))

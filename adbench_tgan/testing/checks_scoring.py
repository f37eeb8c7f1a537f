"""Checks of `score`: what it gives, and what it leaves behind."""

from __future__ import annotations

import torch

from adbench_tgan.metrics import auroc
from adbench_tgan.testing.outcome import expect
from adbench_tgan.testing.pictures import DEFECTS
from adbench_tgan.testing.trial import Trial, gap, same

FOUND = 0.9  # AUROC from which on a kind of defect counts as found


def scores_are_one_finite_detached_float32_per_image(trial: Trial) -> None:
    """For a batch of any size."""
    for images in (trial.probe, trial.probe[:1], trial.probe[:7]):
        scores = trial.detector.score(images)
        expect(scores.shape == (len(images),), f"shape {tuple(scores.shape)} for {len(images)} images")
        expect(scores.dtype == torch.float32, f"dtype {scores.dtype}")
        expect(not scores.requires_grad, "scores carry a gradient")
        expect(bool(scores.isfinite().all()), "scores are not finite")


def a_score_does_not_depend_on_the_rest_of_its_batch(trial: Trial) -> None:
    """An image scores the same alone, in threes and among all, also with a detector that has scored no batch before."""
    for size, detector in ((1, trial.detector), (3, trial.detector), (1, trial.newcomer)):
        batches = trial.probe.split(size)  # type: ignore[no-untyped-call]
        parts = torch.cat([detector.score(part).clone() for part in batches])
        change = f"batches of {size} change scores by {gap(trial.scores, parts):.2g}"
        remembered = (
            "" if detector is trial.detector else " in a detector that has scored none of the images before"
        )
        expect(same(trial.scores, parts), f"{change}{remembered}")


def a_score_does_not_depend_on_its_place_in_the_batch(trial: Trial) -> None:
    """Nor on the order of the others."""
    turned = trial.detector.score(trial.probe.flip(0)).flip(0)
    expect(same(trial.scores, turned), f"another order changes scores by {gap(trial.scores, turned):.2g}")


def scoring_twice_gives_the_same_scores(trial: Trial) -> None:
    """Bit for bit, on one machine."""
    again = trial.detector.score(trial.probe)
    expect(torch.equal(trial.scores, again), f"the second time differs by {gap(trial.scores, again):.2g}")


def scores_tell_images_apart(trial: Trial) -> None:
    """More than half of the scores are distinct."""
    distinct = len(set(trial.scores.flatten().tolist()))
    expect(distinct > len(trial.scores) / 2, f"{distinct} distinct scores for {len(trial.scores)} images")


def an_obvious_defect_scores_higher(trial: Trial) -> None:
    """At least one of five crude kinds of defect clearly does; a detector whose scores have the wrong sign finds none."""
    labels = torch.cat([torch.zeros(len(trial.scores)), torch.ones(len(trial.scores))]).numpy()
    found = {}
    for name, defect in DEFECTS.items():
        scores = torch.cat([trial.scores, trial.detector.score(defect(trial.probe))])
        found[name] = auroc(scores.detach().flatten().numpy(), labels, 0.0)
    best = "AUROC " + ", ".join(f"{value:.2f} of {name} images" for name, value in found.items())
    expect(max(found.values()) >= FOUND, f"{best}; higher scores must be more anomalous")


def scoring_does_not_write_to_its_images(trial: Trial) -> None:
    """Other detectors score the same images; `anomaly_map` and `reconstruct` are checked as well."""
    expect(not trial.traces.images, f"{', '.join(trial.traces.images)} wrote to the images")


def scoring_leaves_parameters_and_buffers_alone(trial: Trial) -> None:
    """Also every network's mode and gradients: nothing is learned from a test image."""
    expect(not trial.traces.state, f"scoring changed {', '.join(trial.traces.state[:3])}")


def scoring_leaves_the_global_random_numbers_alone(trial: Trial) -> None:
    """Those of torch, NumPy and Python; a detector that needs random numbers has a generator of its own."""
    expect(not trial.traces.dice, f"scoring drew from the random numbers of {', '.join(trial.traces.dice)}")


def scoring_leaves_the_settings_of_torch_alone(trial: Trial) -> None:
    """Such as the grad mode and cuDNN's flags."""
    expect(not trial.traces.settings, f"scoring changed {', '.join(trial.traces.settings)}")


SCORING = (
    scores_are_one_finite_detached_float32_per_image,
    a_score_does_not_depend_on_the_rest_of_its_batch,
    a_score_does_not_depend_on_its_place_in_the_batch,
    scoring_twice_gives_the_same_scores,
    scores_tell_images_apart,
    an_obvious_defect_scores_higher,
    scoring_does_not_write_to_its_images,
    scoring_leaves_parameters_and_buffers_alone,
    scoring_leaves_the_global_random_numbers_alone,
    scoring_leaves_the_settings_of_torch_alone,
)

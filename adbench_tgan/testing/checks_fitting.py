"""Checks of `fit`."""

from __future__ import annotations

import torch

from adbench_tgan.detector import networks_of
from adbench_tgan.testing.outcome import CheckFailed, Skipped, expect
from adbench_tgan.testing.pictures import negative, smooth_images
from adbench_tgan.testing.trial import Trial, gap, same, untrained


def it_fits_and_scores(trial: Trial) -> None:
    """Neither `fit` nor `score` raises an error; if one does, the checks that need scores are skipped."""
    try:
        _ = trial.scores
    except Skipped as skipped:
        raise CheckFailed(trial.broken) from skipped


def fit_returns_the_detector_itself(trial: Trial) -> None:
    """So that calls can be chained, as in `detector.fit(train).score(images)`."""
    detector = trial.detector
    expect(trial.returned is detector, f"fit returned {type(trial.returned).__name__}")


def fit_asks_for_training_images_only(trial: Trial) -> None:
    """It is given no test image, no label and not the size of the test set, and asks for none of them."""
    try:
        _ = trial.detector
    finally:
        names = ", ".join(dict.fromkeys(trial.asked))
        expect(not names, f"fit asked its training images for {names}")


def fit_leaves_the_training_images_alone(trial: Trial) -> None:
    """Other detectors learn from the same images."""
    _ = trial.detector
    kept = torch.equal(trial.train.normal.on("cpu"), smooth_images(40, trial.shape, 0))
    if trial.train.anomalies is not None:
        original = negative(smooth_images(24, trial.shape, 2))
        kept = kept and torch.equal(trial.train.anomalies.on("cpu"), original)
    expect(kept, "fit wrote to the training images")


def networks_are_in_eval_mode_after_fit(trial: Trial) -> None:
    """Otherwise batch norm would make a score depend on its batch, and dropout on chance."""
    training = [
        f"{name}.{inner}".rstrip(".")
        for name, network in networks_of(trial.detector).items()
        for inner, module in network.named_modules()
        if module.training
    ]
    expect(not training, f"still in train mode: {', '.join(training[:3])}")


def training_changes_the_scores(trial: Trial) -> None:
    """They differ from those of the untrained networks, and from those after training on other images."""
    scores = trial.scores
    before = untrained(trial)
    if before is not None:
        expect(not same(scores, before), "the untrained networks give the same scores")
    others, _ = trial.refitted
    expect(not same(scores, others), "other training images give the same scores")


def fitting_again_starts_afresh(trial: Trial) -> None:
    """Fitting a detector that was fitted before gives the same scores as fitting a new one."""
    scores = trial.scores
    _, again = trial.refitted
    expect(
        torch.equal(scores, again),
        f"after an earlier fit scores differ by {gap(scores, again):.2g}: something is kept from it, or does "
        "not follow the seed",
    )


def an_interrupted_training_ends_like_a_whole_one(trial: Trial) -> None:
    """If `epochs` calls `resume`, training is interrupted several times; `resume` must be given all that training changes."""
    scores = trial.scores
    if trial.resumed is None:
        raise Skipped("its training cannot be resumed: it has no epochs that call resume")
    again = trial.resumed
    expect(
        torch.equal(scores, again),
        f"interrupted after epochs {', '.join(map(str, trial.cuts))} and resumed, scores differ by "
        f"{gap(scores, again):.2g}: resume is not given all that training changes",
    )


def another_seed_gives_other_scores_unless_declared_deterministic(trial: Trial) -> None:
    """If it is declared in `DetectorInfo.deterministic`, another seed gives the same scores."""
    equal = torch.equal(trial.scores, trial.other_seed_scores)
    if trial.subject.info.deterministic:
        expect(equal, "it is declared deterministic, and another seed gives other scores")
    else:
        expect(not equal, "every seed gives the same scores; if that is meant, declare deterministic=True")


FITTING = (
    it_fits_and_scores,
    fit_returns_the_detector_itself,
    fit_asks_for_training_images_only,
    fit_leaves_the_training_images_alone,
    networks_are_in_eval_mode_after_fit,
    training_changes_the_scores,
    fitting_again_starts_afresh,
    an_interrupted_training_ends_like_a_whole_one,
    another_seed_gives_other_scores_unless_declared_deterministic,
)

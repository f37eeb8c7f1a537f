"""Checks that need another process: one child serves them all."""

from __future__ import annotations

import torch
from torch import Tensor

from adbench_tgan.testing.outcome import CheckFailed, Skipped, expect
from adbench_tgan.testing.trial import KEEP, Trial, gap


def a_worker_process_can_run_it(trial: Trial) -> None:
    """It is built there from its name and its settings; what it holds, such as a lambda, need not be pickled."""
    finding = trial.finding
    expect(not finding.crash, finding.crash)
    expect(not finding.fit_error, finding.fit_error)


def the_same_seed_gives_the_same_scores_in_another_process(trial: Trial) -> None:
    """Bit for bit on the CPU, although Python hashes strings differently there (`PYTHONHASHSEED`)."""
    there = _given(trial.finding.fitted, "no other process could fit it")
    expect(torch.equal(trial.scores, there), f"scores differ by {gap(trial.scores, there):.2g}")


def a_saved_state_gives_equal_scores_in_another_process(trial: Trial) -> None:
    """It is loaded from a safetensors file: `score` needs nothing else that `fit` left in memory."""
    finding = trial.finding
    if finding.crash:
        raise Skipped("the other process crashed")
    if finding.load_error:
        raise CheckFailed(f"{finding.load_error}; {KEEP}")
    there = _given(finding.loaded, "there was no state to load")
    expect(torch.equal(trial.scores, there), f"scores differ by {gap(trial.scores, there):.2g}; {KEEP}")


def ctrl_c_stops_training(trial: Trial) -> None:
    """Interrupted at its first call of torch and midway, `fit` raises KeyboardInterrupt and leaves nothing that keeps the program alive."""
    finding = trial.finding
    if finding.crash or finding.fitted is None:
        raise Skipped("no other process could fit it")
    if not finding.interruptible:
        raise Skipped("fit calls no function of torch, so it could not be interrupted")
    expect(not finding.interrupted, finding.interrupted)


def _given(scores: Tensor | None, otherwise: str) -> Tensor:
    if scores is None:
        raise Skipped(otherwise)
    return scores


PROCESSES = (
    a_worker_process_can_run_it,
    the_same_seed_gives_the_same_scores_in_another_process,
    a_saved_state_gives_equal_scores_in_another_process,
    ctrl_c_stops_training,
)

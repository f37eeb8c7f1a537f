"""Checks of a detector that has not been fitted, and of its settings."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from adbench_tgan.testing.outcome import CheckFailed, expect
from adbench_tgan.testing.traces import changed
from adbench_tgan.testing.trial import SEED, Trial
from adbench_tgan.training import dice_kept, dice_now


def building_a_detector_does_no_work(trial: Trial) -> None:
    """`__init__` only stores its arguments; networks are made, and random numbers drawn, in `build` or `fit`."""
    with dice_kept() as before:
        detector = trial.subject.build(SEED)
        drawn = changed(before, dice_now())
    made = [name for name, value in vars(detector).items() if holds_tensors(value)]
    expect(not made, f"__init__ makes {', '.join(made)}; make it in build(shape) or in fit")
    expect(not drawn, f"__init__ draws from the global random numbers of {', '.join(drawn)}")


def holds_tensors(value: Any) -> bool:
    """Whether it is a tensor or a network, or a list or dictionary of such."""
    if isinstance(value, dict):
        return any(holds_tensors(each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(holds_tensors(each) for each in value)
    return isinstance(value, Tensor | nn.Module)


def settings_survive_writing_and_reading(trial: Trial) -> None:
    """A job stores them as JSON, from which another process builds the detector."""
    config = trial.subject.config
    try:
        text = json.dumps(config.model_dump(mode="json"))
        again = type(config).model_validate(json.loads(text))
    except (ValueError, TypeError) as error:
        raise CheckFailed(" ".join(str(error).split())) from error
    lost = [name for name in type(config).model_fields if getattr(again, name) != getattr(config, name)]
    expect(not lost, f"{', '.join(lost)} came back changed")


def unknown_settings_are_refused(trial: Trial) -> None:
    """Otherwise a misspelled ``--set`` would change nothing and go unnoticed."""
    config = type(trial.subject.config)
    try:
        config.model_validate({"no_such_setting": 1})
    except ValidationError:
        return
    expect(False, 'Config takes a setting that it does not have; keep extra="forbid"')


def settings_cannot_be_changed(trial: Trial) -> None:
    """A job's key is computed from them before the detector runs."""
    config = trial.subject.config
    before = config.model_dump()
    try:
        config.image_size = config.image_size
    except (ValidationError, AttributeError, TypeError):
        expect(trial.detector.config.model_dump() == before, "fit changed its settings")
        return
    expect(False, "Config takes assignments; keep frozen=True")


BUILDING = (
    building_a_detector_does_no_work,
    settings_survive_writing_and_reading,
    unknown_settings_are_refused,
    settings_cannot_be_changed,
)

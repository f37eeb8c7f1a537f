"""What a look at images leaves behind: in the images, in the detector, and in the process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adbench_tgan.detector import Detector
from adbench_tgan.torch_settings import settings_kept, settings_now
from adbench_tgan.training import dice_kept, dice_now


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What was changed, by name; nothing, for a detector that keeps the contract."""

    images: tuple[str, ...]  # calls that wrote to their images
    state: tuple[str, ...]  # parameters, buffers and tensors, their gradients, and networks that changed mode
    dice: tuple[str, ...]  # global generators of random numbers that moved on
    settings: tuple[str, ...]  # global settings of torch


def traced(detector: Detector, images: Tensor) -> Traces:
    """Score the images, draw their maps and reconstructions, and compare before and after; mend what was changed."""
    before = state_of(detector)
    calls = calls_of(detector)
    with settings_kept() as settings, dice_kept() as dice:
        handed = {name: images.clone() for name in calls}
        for name, call in calls.items():
            call(handed[name])
        return Traces(
            images=tuple(name for name in calls if not torch.equal(handed[name], images)),
            state=changed(before, state_of(detector)),
            dice=changed(dice, dice_now()),
            settings=changed(settings, settings_now()),
        )


def calls_of(detector: Detector) -> dict[str, Any]:
    """The methods that take images, those that are written only."""
    calls: dict[str, Any] = {"score": detector.score}
    for name in ("anomaly_map", "reconstruct"):
        if getattr(type(detector), name) is not getattr(Detector, name):
            calls[name] = getattr(detector, name)
    return calls


def learned(detector: Detector) -> dict[str, Tensor]:
    """A copy of what `state` gives, which may be the very tensors that a detector goes on to use."""
    return {name: tensor.detach().clone() for name, tensor in detector.state().items()}


def state_of(detector: Detector) -> dict[str, Any]:
    """The tensors of a detector, their gradients, and the mode of each of its modules."""
    found: dict[str, Any] = dict(learned(detector))
    for name, network in detector.networks.items():
        for inner, module in network.named_modules():
            found[f"mode of {name}.{inner}".rstrip(".")] = module.training
        for inner, parameter in network.named_parameters():
            gradient = None if parameter.grad is None else parameter.grad.clone()
            found[f"gradient of {name}.{inner}"] = gradient
            found[f"requires_grad of {name}.{inner}"] = parameter.requires_grad
    return found


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """The names whose values differ, or are on one side only."""
    names = [*before, *(name for name in after if name not in before)]
    return tuple(
        name
        for name in names
        if name not in before or name not in after or _differ(before[name], after[name])
    )


def _differ(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape != b.shape or a.dtype != b.dtype or not torch.equal(a, b)
    return type(a) is not type(b) or bool(a != b)

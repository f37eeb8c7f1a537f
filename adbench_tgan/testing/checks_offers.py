"""Checks of what a detector offers beyond scores: maps, reconstructions, a state to save, other devices."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from adbench_tgan.detector import Detector
from adbench_tgan.hooks import one_line
from adbench_tgan.testing.outcome import CheckFailed, Skipped, expect
from adbench_tgan.testing.trial import KEEP, SEED, TOLERANCE, Trial, gap
from adbench_tgan.training import seed_everything

SUM_TOLERANCE = 1e-3  # relative: sums of a map's pixels in another order, and in float32
FEW = 3  # pictures that are drawn again in other company
LEVEL = 1  # of 255: a pixel may be rounded to the next
DEVICE_TOLERANCE = 1e-2  # relative: other kernels, and a search of many steps


def maps_match_the_images(trial: Trial) -> None:
    """One finite float32 map per image, of the image's height and width, which depends on its own image alone."""
    if not trial.detector.has_maps:
        raise Skipped("it has no maps")
    _, height, width = trial.shape
    together = trial.detector.anomaly_map(trial.probe).clone()  # the next call may write into the same memory
    alone = trial.detector.anomaly_map(trial.probe[:1])
    for maps, count in ((together, len(trial.probe)), (alone, 1)):
        expect(maps.shape == (count, height, width), f"maps are {tuple(maps.shape)}")
        expect(maps.dtype == torch.float32, f"maps are {maps.dtype}")
        expect(not maps.requires_grad, "maps carry a gradient")
        expect(bool(maps.isfinite().all()), "maps are not finite")
    largest = float(together.abs().max())
    for way, change in changes(trial, together, trial.detector.anomaly_map).items():
        expect(change <= TOLERANCE * largest, f"{way} changes maps by {change:.2g} of {largest:.2g}")


def maps_add_up_to_the_scores_where_declared(trial: Trial) -> None:
    """A score is its map's mean or sum, if the detector's `extras` have "map_mean" or "map_sum"."""
    declared = {"map_mean", "map_sum"} & set(trial.subject.info.extras)
    if not declared:
        raise Skipped("its extras have neither map_mean nor map_sum")
    flat = trial.detector.anomaly_map(trial.probe).flatten(1)
    total = flat.mean(1) if "map_mean" in declared else flat.sum(1)
    difference = gap(trial.scores, total)
    expect(difference <= SUM_TOLERANCE, f"scores and maps differ by {difference:.2g}")


def reconstructions_match_the_images(trial: Trial) -> None:
    """One uint8 image per image, of the same shape, which depends on its own image alone."""
    if type(trial.detector).reconstruct is Detector.reconstruct:
        raise Skipped("it reconstructs nothing")
    images = trial.detector.reconstruct(trial.probe)
    expect(images.shape == trial.probe.shape, f"reconstructions are {tuple(images.shape)}")
    expect(images.dtype == torch.uint8, f"reconstructions are {images.dtype}")
    for way, change in changes(trial, images, trial.detector.reconstruct).items():
        expect(change <= LEVEL, f"{way} changes reconstructions by {change:.0f} of 255")


def changes(trial: Trial, together: Tensor, draw: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """How much a few of the pictures drawn `together`, of the probe, change at most in other company."""
    few = together[:FEW].double()
    others = {
        "another batch": torch.cat([draw(image[None]).clone() for image in trial.probe[:FEW]]),
        "another order": draw(trial.probe.flip(0)).flip(0)[:FEW],
    }
    return {way: float((each.double() - few).abs().max()) for way, each in others.items()}


def a_loaded_state_gives_equal_scores(trial: Trial) -> None:
    """What `state` holds is all that `score` needs."""
    fitted = trial.detector
    seed_everything(SEED + 7)
    try:
        twin = trial.subject.built(SEED).load_state(fitted.state(), trial.shape)
        scores = twin.score(trial.probe)
    except (Exception, SystemExit) as error:  # what is missing shows in any way
        raise CheckFailed(f"it raises {one_line(error)}; {KEEP}") from error
    difference = gap(trial.scores, scores)
    expect(
        torch.equal(trial.scores, scores), f"scores of the loaded detector differ by {difference:.2g}; {KEEP}"
    )


def it_moves_between_devices(trial: Trial) -> None:
    """Loaded onto a GPU and back, it scores as before; without a GPU, all its tensors move along to torch's "meta" device."""
    if torch.cuda.is_available():
        there = moved(trial, "cuda")
        scores = there.score(trial.probe.to("cuda")).cpu()
        change = gap(trial.scores, scores)
        expect(change <= DEVICE_TOLERANCE, f"on the GPU scores differ by {change:.2g}")
        back = trial.subject.built(SEED).load_state(there.state(), trial.shape)
        expect(torch.equal(trial.scores, back.score(trial.probe)), "back from the GPU scores differ")
    else:
        _moves_to_meta(trial)


def moved(trial: Trial, device: str) -> Detector:
    """The fitted detector, loaded on another device, with nothing of it left behind."""
    twin = trial.subject.built(SEED, device).load_state(trial.detector.state(), trial.shape)
    tensors: dict[str, Tensor] = {
        f"{name}.{key}": tensor
        for name, network in twin.networks.items()
        for key, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    tensors |= {name: value for name, value in vars(twin).items() if isinstance(value, Tensor)}
    left = [name for name, tensor in tensors.items() if tensor.device.type != device]
    expect(not left, f"not on {device} when loaded there: {', '.join(left[:3])}")
    return twin


class Mixing(TorchFunctionMode):
    """Notes the functions whose tensors are on two devices; single numbers, copies and indices may be."""

    ALLOWED = ("to", "copy_", "__getitem__", "__setitem__", "__get__", "__set__", "cpu", "type_as")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at the arguments, then go on."""
        name = getattr(func, "__name__", "")
        leaves = tree_leaves((args, kwargs or {}))
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim}
        if len(devices) > 1 and name not in self.ALLOWED:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def _moves_to_meta(trial: Trial) -> None:
    """Tensors on "meta" have a device and no numbers, so that mixing devices shows and nothing is computed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that numbers copied to "meta" are lost is what it is for
        twin = moved(trial, "meta")
    stopped = ""
    with Mixing() as mixing:
        try:
            twin.score(torch.empty(trial.probe.shape, dtype=torch.uint8, device="meta"))
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            stopped = " ".join(str(error).split())
    expect(not mixing.names, f"{', '.join(dict.fromkeys(mixing.names))} mixes tensors of two devices")
    if stopped:
        expect(
            "meta" in stopped.lower() and "expected device" not in stopped,
            f"on another device score raises {stopped}",
        )
        raise Skipped(
            "without a GPU: score needs the values of tensors, so only part of it was checked; no tensor stayed behind"
        )


OFFERS = (
    maps_match_the_images,
    maps_add_up_to_the_scores_where_declared,
    reconstructions_match_the_images,
    a_loaded_state_gives_equal_scores,
    it_moves_between_devices,
)

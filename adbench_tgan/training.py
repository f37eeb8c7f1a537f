"""What trained detectors share: the epoch loop with its guard, batches without end, the step at the device's speed,
running means of losses, image scaling."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from adbench_tgan.detector import Detector, networks_of
from adbench_tgan.errors import AdbenchError, TrainingDiverged
from adbench_tgan.graphs import Captured

if TYPE_CHECKING:
    from adbench_tgan.checkpoints import Checkpoint
    from adbench_tgan.data import TrainSet

Losses = Mapping[str, float]
Outputs = TypeVar("Outputs")
Batch = TypeVar("Batch")


def fit(
    detector: Detector,
    train: TrainSet,
    on_epoch: Callable[[int, Losses], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[dict[str, float]]:
    """Fit `detector` and return the losses of each epoch; every network ends in eval mode.

    With a `checkpoint` the training is kept there on its way, and goes on where an earlier one was kept.

    Raises:
        TrainingDiverged: a loss is NaN or infinite.
        AdbenchError: what is kept belongs to other code of the detector, its epochs are no losses by name, or its
            `networks` no networks by name.
    """
    history: list[dict[str, float]] = [] if checkpoint is None else checkpoint.losses
    detector.checkpoint = checkpoint
    for losses in epochs(detector, train):
        history.append({name: float(value) for name, value in losses.items()})
        check_finite(losses, len(history))
        if checkpoint is not None:
            checkpoint.epoch_ended(detector)
        if on_epoch is not None:
            on_epoch(len(history), losses)
    if checkpoint is not None and checkpoint.every and type(detector).fit is not Detector.fit:
        detector.notes.append("no checkpoint was saved: it has a fit of its own, which does not call resume")
    if checkpoint is not None:
        checkpoint.parts = detector.checkpoint = None  # or they would hold optimisers while it scores
    for network in networks_of(detector).values():
        network.eval()
    return history


def epochs(detector: Detector, train: TrainSet) -> Iterator[Losses]:
    """The losses of each epoch of a training; none from a detector that only has `fit`.

    Raises:
        AdbenchError: its epochs are no losses by name.
    """
    if type(detector).fit is Detector.fit:
        yield from losses_of(detector, train)
    else:
        detector.fit(train)


def losses_of(detector: Detector, train: TrainSet) -> Iterator[Losses]:
    """What its `epochs` yield.

    Raises:
        AdbenchError: that is no losses by name.
    """
    found = detector.epochs(train)
    if isinstance(found, Mapping) or not isinstance(found, Iterable):
        raise _no_losses("returns", found)
    for losses in found:
        if not isinstance(losses, Mapping):
            raise _no_losses("yields", losses)
        yield losses


def _no_losses(verb: str, found: Any) -> AdbenchError:
    return AdbenchError(
        f"epochs {verb} something of type {type(found).__name__}; it must yield losses by name"
    )


def check_finite(losses: Losses, epoch: int) -> None:
    """Raise `TrainingDiverged` naming the first loss that is NaN or infinite."""
    for name, value in losses.items():
        if not math.isfinite(value):
            raise TrainingDiverged(f"loss {name} became {value} in epoch {epoch}; try a lower learning rate")


def seed_everything(seed: int) -> None:
    """Seed every generator that a detector might use."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (strangers' detectors may use the global generator)
    torch.manual_seed(seed)  # every GPU too


@contextmanager
def dice_kept() -> Iterator[dict[str, Any]]:
    """Give the states of the global generators, and put them back at the end."""
    numbers, others = np.random.get_state(), random.getstate()  # noqa: NPY002
    # GPUs that nobody has used yet would be woken to be asked.
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(gpus):
        try:
            yield dice_now()
        finally:
            np.random.set_state(numbers)  # noqa: NPY002
            random.setstate(others)


def dice_now() -> dict[str, Any]:
    """The states of the global generators."""
    return {
        "torch": torch.get_rng_state(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002 (strangers may draw from the global generator)
        "random": random.getstate(),
    }


class Endless(Generic[Batch]):
    """Batches in pass after pass without end, for detectors that count steps; it can be kept by `Detector.resume`.

    Args:
        one_pass: the batches of one pass, in an order drawn from the generator that it is given.
        seed: of that generator.
    """

    def __init__(self, one_pass: Callable[[torch.Generator], Iterator[Batch]], seed: int):
        self.one_pass = one_pass
        self.order = torch.Generator().manual_seed(seed)
        self._begin()

    def _begin(self) -> None:
        self.before, self.taken = self.order.get_state(), 0  # where the pass can be found again
        self.batches = self.one_pass(self.order)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if (batch := next(self.batches, None)) is None:
            self._begin()
            batch = next(self.batches)
        self.taken += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"before": self.before, "taken": self.taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go there."""
        self.order.set_state(state["before"])
        self._begin()
        for _ in range(state["taken"]):
            if next(self.batches, None) is None:
                raise ValueError("more batches were taken than a pass has")
            self.taken += 1


def stepper(detector: Detector, step: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """A training step at the device's speed: `step` as it is on the CPU, a CUDA graph on a GPU.

    Call it once the networks are built and before anything else holds their weights' layout, see `lay_out`. For what
    `step` may do see `adbench_tgan.graphs.Captured`.
    """
    lay_out(detector)
    return captured(detector, step)


def lay_out(detector: Detector) -> None:
    """Lay networks out channels-last under bf16 on a GPU.

    Not those with depthwise convolutions: PyTorch's own kernels for these, which know only the other layout, are
    faster than cuDNN's.
    """
    device = torch.device(detector.device)
    if device.type == "cuda" and torch.is_autocast_enabled("cuda"):
        for network in detector.networks.values():
            if not any(getattr(module, "groups", 1) > 1 for module in network.modules()):
                network.to(memory_format=torch.channels_last)


def captured(detector: Detector, function: Callable[..., Outputs]) -> Captured[Outputs]:
    """`function` of tensors, on a GPU replayed as a CUDA graph; where it cannot be, the detector's `notes` say so."""
    return Captured(function, detector.device, detector.notes, plain=not detector.graphs)


@contextmanager
def without_graphs(detector: Detector) -> Iterator[None]:
    """Let the detector call its functions plainly, one kernel at a time."""
    before = detector.graphs
    detector.graphs = False
    try:
        yield
    finally:
        detector.graphs = before


def adam(parameters: Iterable[Tensor], lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam; on a GPU in one kernel, and with all that it counts on the device, so that a CUDA graph can hold it."""
    parameters = list(parameters)
    on_gpu = any(parameter.is_cuda for parameter in parameters)
    options = {"fused": True, "capturable": True} if on_gpu else {}
    return torch.optim.Adam(parameters, lr=lr, betas=betas, **options)


def mean_losses(steps: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """The mean of each loss over an epoch's steps; read from the device once, at the end."""
    total: dict[str, Tensor] = {}
    count = 0
    for step in steps:
        count += 1
        for name, value in step.items():
            # In fp32: bf16 would stop counting at some hundred steps.
            value = value.detach().to(torch.float32, copy=True)
            total[name] = total[name] + value if name in total else value
    return {name: float(value) / count for name, value in total.items()}


def to_unit(images: Tensor) -> Tensor:
    """Uint8 in 0..255 -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8 in 0..255, clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

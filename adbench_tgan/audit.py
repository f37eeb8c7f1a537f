"""How a published number comes about: one training, scored after every epoch in three ways.

clean             networks in eval mode, one image independent of the next; the last epoch counts
batch_statistics  + networks, but for dropout, in train mode: batch norm takes its statistics from the test batch; test
                    set shuffled
class_sorted      + test set sorted by class, so that most batches are all normal or all abnormal
best epoch        + the epoch that is best on the test set: as published, where the authors' code scores so

The last epoch is scored when the training has ended, with averaged weights where a detector averages them and with all
that it learns at its end; earlier ones with the weights that are learning. What is between `clean` and the best epoch
is optimism. These are diagnoses: no AUROC, rank or interval of a leaderboard comes from their scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from adbench_tgan.data.images import ImageSet, Split, TrainSet
from adbench_tgan.detector import Detector
from adbench_tgan.errors import AdbenchError
from adbench_tgan.metrics import auroc
from adbench_tgan.scoring import purity, scores_of
from adbench_tgan.training import check_finite, dice_kept, epochs

BATCH = 64  # GANomaly's and Skip-GANomaly's test loaders'; SAGAN's has 32, AnoTrans's 128
SHUFFLE_SEED = 0
Orders = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The AUROC after every epoch, in each of the three ways of scoring."""

    clean: tuple[float, ...]
    batch_statistics: tuple[float, ...]
    class_sorted: tuple[float, ...]
    purity_delta: float  # how much the last clean scores change with their batch, as a run probes it


def audit(
    detector: Detector,
    split: Split,
    train: TrainSet,
    on_epoch: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Audit:
    """Fit `detector` and score it in every way after each epoch; its training is as without an audit.

    Raises:
        AdbenchError: the detector has no networks whose mode could matter, or makes them anew at each call; or its
            scores are not one finite number an image.
    """
    curves: dict[str, list[float]] = {"clean": [], "batch_statistics": [], "class_sorted": []}
    for number, losses in enumerate(epochs(detector, train), start=1):
        check_finite(losses, number)
        _extend(curves, detector, split)
        if on_epoch is not None:
            on_epoch(number, {**losses, **{name: values[-1] for name, values in curves.items()}})
    for values in curves.values():  # the last epoch counts as the training leaves it
        del values[-1:]
    scores = _extend(curves, detector, split)
    with networks_as(detector.networks, training=False):
        delta = purity(detector, split.test, scores["clean"], str(detector.device))
    return Audit(**{name: tuple(values) for name, values in curves.items()}, purity_delta=delta)


def _extend(
    curves: Mapping[str, list[float]], detector: Detector, split: Split
) -> dict[str, NDArray[np.float32]]:
    """Add a point to each curve; the scores that it is of."""
    name, networks, again = type(detector).__name__, detector.networks, detector.networks
    if not networks:
        raise AdbenchError(
            f"{name} has no networks, and an audit compares their train and eval modes; leave it out of --detectors"
        )
    if any(again.get(key) is not network for key, network in networks.items()):
        raise AdbenchError(f"{name}.networks returns new modules at each call; return those that score uses")
    orders = orders_of(split.labels)
    scores = {way: score_as(detector, split.test, orders[way], training=way != "clean") for way in curves}
    for way, values in curves.items():
        values.append(auroc(scores[way], split.labels, 0.0))
    return scores


def orders_of(labels: NDArray[np.uint8]) -> Orders:
    """In which order each way of scoring takes the test images."""
    shuffled = np.random.default_rng(SHUFFLE_SEED).permutation(len(labels))
    sorted_by_class = np.argsort(labels, kind="stable")
    return {"clean": np.arange(len(labels)), "batch_statistics": shuffled, "class_sorted": sorted_by_class}


def score_as(
    detector: Detector, images: ImageSet, order: NDArray[np.int64], *, training: bool
) -> NDArray[np.float32]:
    """The scores of all images, in their own order, taken in batches of `order`; leaves no trace in the detector."""
    pixels = images.on("cpu")
    scores = torch.empty(len(images), dtype=torch.float32)
    index = torch.from_numpy(order)
    with networks_as(detector.networks, training=training):
        for chosen in batches_of(index):
            scores[chosen] = scores_of(detector, pixels[chosen].to(detector.device)).float().cpu()
    if not bool(scores.isfinite().all()):
        raise AdbenchError(f"{type(detector).__name__}: scores are NaN or infinite")
    found: NDArray[np.float32] = scores.numpy()
    return found


def batches_of(index: Tensor) -> list[Tensor]:
    """Batches of `BATCH`, the last of the rest; one more if it is one, of which batch norm may know no variance."""
    ends = list(range(BATCH, len(index), BATCH))
    if ends and ends[-1] == len(index) - 1:
        ends.pop()
    return list(index.tensor_split(ends))


@contextmanager
def networks_as(networks: Mapping[str, nn.Module], *, training: bool) -> Iterator[None]:
    """Set the mode of networks, but for dropout; they and the random numbers are as before at the end."""
    with networks_kept(networks), dice_kept():
        for network in networks.values():
            network.train(training)
            for module in network.modules():
                if isinstance(module, _DropoutNd):  # it is about batch norm, and not about chance
                    module.eval()
        yield


@contextmanager
def networks_kept(networks: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put every module's mode and tensors back as they were, such as batch norm's averages or a learned codebook."""
    modules = [module for network in networks.values() for module in network.modules()]
    before = [
        (module, module.training, dict(module._parameters), dict(module._buffers)) for module in modules
    ]
    tensors = {
        tensor: tensor.detach().clone()
        for *_, parameters, buffers in before
        for tensor in (*parameters.values(), *buffers.values())
        if tensor is not None
    }
    try:
        yield
    finally:
        for module, mode, parameters, buffers in before:
            module.training = mode
            module._parameters.update(parameters)
            module._buffers.update(buffers)
        with torch.no_grad():
            for tensor, value in tensors.items():
                tensor.copy_(value)

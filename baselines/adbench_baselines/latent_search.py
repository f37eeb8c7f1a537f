"""Search of a generator's latent space by gradient descent: one z for each image, many images at a time.

AnoGAN (Schlegl et al., IPMI 2017) and its descendants search for the z from which the generator makes the image
closest to a given one. Here all images of a batch are searched together, each as if it were alone. Losses are summed
over the batch, never averaged, so that each image has the gradient that it has in a batch of 1. Adam and gradient
clipping treat each image separately. The starting point depends on the image's own pixels, not on its place in the
batch. What remains is rounding: matrix products of batches of different sizes can differ in the last bit. A long
search is chaotic and amplifies this to some 5e-4 of the loss, in double precision too. `in_groups` removes this
difference. On a GPU there is another one: sums whose terms are added in a different order each time. `repeatable`
forbids these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.utils.deterministic
from torch import Tensor, nn

from adbench_tgan import Detector, captured

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's, as everywhere
Prior = Literal["normal", "truncated"]
Loss = Callable[..., Tensor]  # (z, *targets) -> (B,): the loss of each image


@dataclass(frozen=True)
class Found:
    """Where the searches, or walks, ended."""

    z: Tensor  # (B, latent)
    loss: Tensor  # (B,), at that z


class Ends:
    """Remembers the z found for each image, so that the map of a scored image needs no second search.

    A z is valid for the generator as it is: make a new `Ends` whenever the generator has been trained. In train mode,
    where images of a batch influence each other through batch norm, nothing is remembered.
    """

    def __init__(self, generator: nn.Module):
        self.generator = generator
        self.z: dict[bytes, Tensor] = {}  # by the hash of an image, (latent,) each

    def new(self, images: Tensor, find: Callable[[Tensor], Found]) -> Found:
        """`find` the z of uint8 images (B, C, H, W), known or not, and remember them."""
        found = find(images)
        if not self.generator.training:
            self.z.update(zip(map(digest, images.cpu()), found.z, strict=True))
        return found

    def known(self, images: Tensor, find: Callable[[Tensor], Found]) -> Tensor:
        """The z of each image, (B, latent); `find` only those that are not known."""
        if self.generator.training:
            return find(images).z
        names = [digest(image) for image in images.cpu()]
        unknown = [number for number, name in enumerate(names) if name not in self.z]
        if unknown:
            self.new(images[unknown], find)
        return torch.stack([self.z[name] for name in names])


def digest(image: Tensor) -> bytes:
    """A hash of an image's pixels, (C, H, W) on the CPU."""
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()


def in_groups(find: Callable[[Tensor], Found], images: Tensor, size: int | None) -> Found:
    """`find` the z of (B, ...) in groups of exactly `size` images, the last one filled up with copies.

    As all products then have the same shape, what is found for an image is the same to the last bit whatever batch it
    came in. It costs time where there are fewer images than `size`. With None all images are one group.
    """
    if size is None:
        return find(images)
    parts = []
    for first in range(0, len(images), size):
        index = torch.arange(first, first + size, device=images.device).clamp(max=len(images) - 1)
        found = find(images[index])
        count = min(size, len(images) - first)
        parts.append(Found(found.z[:count], found.loss[:count]))
    return Found(torch.cat([part.z for part in parts]), torch.cat([part.loss for part in parts]))


def starts(
    images: Tensor, latent: int, seed: int, restarts: int = 1, *, prior: Prior = "normal"
) -> list[Tensor]:
    """`restarts` starting points of uint8 (B, C, H, W), each (B, latent) from N(0, I), cut at |z| = 2 if truncated.

    They depend on `seed` and on each image's own pixels; the first ones are the same for any number of restarts.
    """
    drawn = [torch.stack(list(_draws(image, latent, seed, restarts, prior))) for image in images.cpu()]
    z0 = torch.stack(drawn, dim=1).to(images.device)  # (restarts, B, latent)
    return list(z0)


def _draws(image: Tensor, latent: int, seed: int, restarts: int, prior: Prior) -> Iterator[Tensor]:
    own = hashlib.sha256(str(seed).encode() + b":" + image.contiguous().numpy().tobytes()).digest()
    dice = torch.Generator().manual_seed(int.from_bytes(own[:8], "big") >> 1)
    for _ in range(restarts):
        if prior == "truncated":
            yield nn.init.trunc_normal_(torch.empty(latent), a=-2.0, b=2.0, generator=dice)
        else:
            yield torch.randn(latent, generator=dice)


def search(
    loss: Loss,
    targets: Sequence[Tensor],
    z0: Sequence[Tensor],
    rates: Sequence[float],
    *,
    clip: float | None = None,
    patience: int = 0,
    tolerance: float = 0.0,
    detector: Detector | None = None,
) -> Found:
    """Walk from each start of `z0` by Adam steps of `rates`; keep for each image the end with the lowest loss.

    Args:
        loss: the loss of each image, (z, *targets) -> (B,); eval-mode networks, so that images stay apart.
        targets: what is known of each image beforehand, such as its pixels and its features, (B, ...) each.
        z0: starting points, (B, latent) each.
        rates: the learning rate of each step.
        clip: largest norm of one image's gradient.
        patience: every so many steps, the walk of an image ends if its loss has fallen by no more than the fraction
            `tolerance` of itself since the last check; 0: all walks take every step.
        detector: the detector whose loss it is; with it, the step is captured in a CUDA graph on a GPU.
    """
    best: Found | None = None
    for start in z0:
        in_graph = detector is not None and start.is_cuda and detector.graphs
        go = partial(walk_captured, detector) if in_graph else walk
        with repeatable():
            z = go(loss, targets, start, rates, clip=clip, patience=patience, tolerance=tolerance)
            with torch.no_grad():
                found = Found(z, loss(z, *targets))
        best = found if best is None else better(best, found)
    if best is None:
        raise ValueError("no starting point")
    return best


@contextmanager
def repeatable() -> Iterator[None]:
    """Let sums add their terms in the same order every time, so that a walk can be repeated exactly."""
    strict, lenient = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # many kernels, only to find mistakes
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        torch.utils.deterministic.fill_uninitialized_memory = fill


def better(one: Found, other: Found) -> Found:
    """For each image the one with the lower loss."""
    wins = other.loss < one.loss
    return Found(torch.where(wins[:, None], other.z, one.z), torch.where(wins, other.loss, one.loss))


def walk(
    loss: Loss,
    targets: Sequence[Tensor],
    z0: Tensor,
    rates: Sequence[float],
    *,
    clip: float | None = None,
    patience: int = 0,
    tolerance: float = 0.0,
) -> Tensor:
    """The end of one walk of each image, (B, latent); see `search`."""
    end = z0.detach().clone()
    walking = torch.arange(len(end), device=end.device)
    z, mean, square = end.clone(), torch.zeros_like(end), torch.zeros_like(end)
    before = torch.full((len(end),), torch.inf, device=end.device)
    for number, pace in enumerate(paces(rates, end)):
        values, gradient = slope(loss, z, targets)
        if patience and number % patience == 0:
            going = values < (1 - tolerance) * before
            end[walking] = z
            z, mean, square, gradient, walking, before, *targets = (
                rows[going] for rows in (z, mean, square, gradient, walking, values, *targets)
            )
            if not len(walking):
                return end
        z -= adam(gradient if clip is None else clipped(gradient, clip), mean, square, pace)
    end[walking] = z
    return end


def walk_captured(
    detector: Detector,
    loss: Loss,
    targets: Sequence[Tensor],
    z0: Tensor,
    rates: Sequence[float],
    *,
    clip: float | None = None,
    patience: int = 0,
    tolerance: float = 0.0,
) -> Tensor:
    """`walk` with the same operations in every step, for a CUDA graph: the z of images that have stopped stays as it is."""
    z = z0.detach().clone()
    mean, square = torch.zeros_like(z), torch.zeros_like(z)
    before = torch.full((len(z),), torch.inf, device=z.device)
    walking = torch.ones(len(z), dtype=torch.bool, device=z.device)
    number = torch.zeros(1, dtype=torch.long, device=z.device)  # of the step, counted on the device
    all_paces = paces(rates, z)

    def step() -> Tensor:
        values, gradient = slope(loss, z, targets)
        if patience:
            looking = number % patience == 0
            walking.logical_and_(~looking | (values < (1 - tolerance) * before))
            before.copy_(torch.where(looking, values, before))
        pace = all_paces.index_select(0, number)[0]
        stride = adam(gradient if clip is None else clipped(gradient, clip), mean, square, pace)
        z.sub_(torch.where(walking[:, None], stride, 0))
        number.add_(1)
        return walking

    run = captured(detector, step)
    for count in range(len(rates)):
        if patience and count % patience == 1 % patience and not bool(walking.any()):  # a look now and then
            break
        run()
    detector.graphs = not run.plain  # what could not be captured once is not tried again for the next images
    return z


def slope(loss: Loss, z: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of each image, (B,), and its gradient by the image's own z, (B, latent)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        values = loss(z.view_as(z), *targets)  # FlopCounterMode cannot bear a leaf that enters a module
        (gradient,) = torch.autograd.grad(values.sum(), z)
    return values.detach(), gradient


def clipped(gradient: Tensor, most: float) -> Tensor:
    """Each image's gradient, (B, latent), scaled down to norm `most` where it is longer."""
    norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    return gradient * (most / (norm + 1e-6)).clamp(max=1.0)


def paces(rates: Sequence[float], z: Tensor) -> Tensor:
    """Of each step, (steps, 2): its rate with Adam's first bias correction, and the square root of the second one."""
    corrected = [
        (rate / (1 - BETA1**number), (1 - BETA2**number) ** 0.5) for number, rate in enumerate(rates, start=1)
    ]
    return torch.tensor(corrected, dtype=torch.float64).to(z)


def adam(gradient: Tensor, mean: Tensor, square: Tensor, pace: Tensor) -> Tensor:
    """What Adam's next step subtracts from z; `mean` and `square` are changed in place.

    The same as torch.optim.Adam, which cannot drop single rows.
    """
    mean.lerp_(gradient, 1 - BETA1)
    square.lerp_(gradient.square(), 1 - BETA2)
    return pace[0] * mean / (square.sqrt() / pace[1] + EPS)

"""How a fitted detector scores a whole set of images: in batches, image by image, and as maps. No label in sight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import monotonic

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adbench_tgan.data.images import ImageSet
from adbench_tgan.detector import Detector
from adbench_tgan.errors import AdbenchError
from adbench_tgan.ranking.statistics import relative_change
from adbench_tgan.timing import flops
from adbench_tgan.training import without_graphs

BATCH = 100  # images per score() call, the same for every detector
PURITY_IMAGES = 4  # test images that are scored again, alone and in another order
THRESHOLD_IMAGES = 500  # at most so many training normals set the threshold, and are reconstructed
PICTURES = 8  # training images that a reporter may show
PAUSE = 0.5  # seconds between two words on how many images are done
Tell = Callable[[int, int], None]  # images that are done, of how many


def silent(done: int, total: int) -> None:
    """Tell nobody."""


def warm_up(detector: Detector, images: ImageSet, device: str) -> Tensor:
    """Score off the clock; return one image (1, C, H, W).

    The first call compiles, allocates and, on a GPU, loads what the shape of its batch asks for.
    """
    size = BATCH if torch.device(device).type == "cuda" else 1
    first = next(images.batches(size, device=device))
    detector.score(first)
    return first[:1]


def score_all(detector: Detector, images: ImageSet, device: str, tell: Tell = silent) -> np.ndarray:
    """The scores of a whole set, float32 (N,). No inference_mode here: AnoGAN scores by gradient descent."""
    batches = [scores_of(detector, batch) for batch in batches_of(images, device, tell)]
    return torch.cat(batches).float().cpu().numpy()


def scores_of(detector: Detector, images: Tensor) -> Tensor:
    """The scores of one batch, (B,).

    Raises:
        AdbenchError: they are something else.
    """
    found = detector.score(images)
    if not isinstance(found, Tensor):
        raise AdbenchError(f"score returned {type(found).__name__}; it must return a tensor of shape (B,)")
    if found.shape != (len(images),):
        raise AdbenchError(
            f"score returned shape {tuple(found.shape)} for {len(images)} images; it must return one each"
        )
    return found.detach().clone()  # the next call may write into the same memory


def sample(images: ImageSet, most: int = THRESHOLD_IMAGES) -> ImageSet:
    """At most so many of the images, evenly spaced."""
    count = min(len(images), most)
    chosen = torch.linspace(0, len(images) - 1, count).round().long()
    return ImageSet(images.on("cpu")[chosen])


def batches_of(images: ImageSet, device: str, tell: Tell) -> Iterator[Tensor]:
    """The images in batches of `BATCH`; `tell` hears now and then how many are done, and of how many."""
    done, told = 0, monotonic()
    for batch in images.batches(BATCH, device=device):
        yield batch
        done += len(batch)
        if monotonic() - told > PAUSE:
            tell(done, len(images))
            told = monotonic()


def check_scores(scores: np.ndarray) -> None:
    """Raise unless all scores are finite."""
    if not np.isfinite(scores).all():
        raise AdbenchError(f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are NaN or infinite")


def purity(detector: Detector, images: ImageSet, scores: np.ndarray, device: str) -> float:
    """The largest change of a score when a few images are scored alone, and together in the reverse of their order.

    Relative as in `statistics.relative_change`. Above rounding, a score depends on more than its own image.
    """
    chosen, few = some(images)
    alone = np.concatenate([score_all(detector, ImageSet(image[None]), device) for image in few])
    together = score_all(detector, ImageSet(few), device)
    return relative_change(scores[chosen], np.stack([alone, together]), scores)


def purity_of_maps(detector: Detector, images: ImageSet, maps: np.ndarray, device: str) -> float:
    """How much a few images' maps change when they are drawn alone, and together in the reverse of their order.

    The mean change of a pixel, relative to the mean distance of pixels from their mean. 0 of maps that are not finite,
    which no metric takes.
    """
    chosen, few = some(images)
    before, size = maps[chosen].astype(np.float64), maps.shape[1:]
    if not np.isfinite(before).all():
        return 0.0
    alone = np.concatenate([map_all(detector, ImageSet(image[None]), size, device) for image in few])
    together = map_all(detector, ImageSet(few), size, device)
    changes = [np.abs(after - before).mean() for after in (alone, together)]
    change = float(np.max(changes))  # not a number if one is none
    spread = float(np.abs(before - before.mean()).mean())
    return change / max(spread, float(np.finfo(np.float32).tiny)) if np.isfinite(change) else 1.0


def some(images: ImageSet) -> tuple[np.ndarray, Tensor]:
    """The positions of `PURITY_IMAGES` images, the last first, and these images."""
    count = min(len(images), PURITY_IMAGES)
    chosen = np.random.default_rng(len(images)).permutation(len(images))[:count]
    chosen = np.flip(np.sort(chosen)).copy()  # some drawn orders are the test set's own
    return chosen, images.on("cpu")[torch.from_numpy(chosen)]


def reconstruction_error(detector: Detector, images: ImageSet, device: str) -> float | None:
    """The squared error of its reconstructions, divided by that of one flat colour for all: the images' mean.

    0 is perfect; from 1 on nothing of an image is reconstructed but that colour, if that. Over a `sample` of them,
    whose walks through a latent space are known once it is scored. None of a detector that has no networks or
    reconstructs nothing, and where all images are flat and alike.

    Raises:
        AdbenchError: what it returns is no batch of images such as it was given.
    """
    if type(detector).reconstruct is Detector.reconstruct or not detector.networks:
        return None
    few = sample(images)
    error = squares = 0.0
    total = torch.zeros(few.shape[0], dtype=torch.float64)  # of each channel
    for batch in few.batches(BATCH, device=device):
        drawn = detector.reconstruct(batch.clone())
        if not (isinstance(drawn, Tensor) and drawn.shape == batch.shape and drawn.dtype == torch.uint8):
            raise AdbenchError("reconstruct must return a tensor of the shape of its images, uint8")
        x = batch.cpu().double()
        error += float((x - drawn.cpu().double()).square().sum())
        squares += float(x.square().sum())
        total += x.sum((0, 2, 3))
    pixels = len(few) * few.shape[1] * few.shape[2]
    spread = squares - float(total.square().sum()) / pixels  # what the mean colour leaves
    return error / spread if spread > 0.5 else None  # below it is rounding


def map_all(
    detector: Detector, images: ImageSet, size: Sequence[int], device: str, tell: Tell = silent
) -> np.ndarray:
    """The anomaly maps of a whole set at the masks' size, float32 (N, H, W)."""
    maps = []
    for batch in batches_of(images, device, tell):
        raw = detector.anomaly_map(batch)
        if not (isinstance(raw, Tensor) and raw.ndim == 3 and len(raw) == len(batch)):
            raise AdbenchError("anomaly_map must return a tensor of shape (B, H, W)")
        planes = raw.detach().float()[:, None]
        maps.append(F.interpolate(planes, tuple(size), mode="bilinear", align_corners=False)[:, 0].cpu())
    return torch.cat(maps).numpy()


def pictures(detector: Detector, images: ImageSet) -> dict[str, Tensor]:
    """A few training images, uint8 (N, C, H, W), their reconstructions and their maps (N, H, W), as far as it has any.

    Training images only: who watches a run must not come to choose by the test set.
    """
    few = images.on("cpu")[:PICTURES].to(detector.device)
    found = {"images": few}
    if type(detector).reconstruct is not Detector.reconstruct:
        found["reconstructions"] = detector.reconstruct(few.clone())  # which may write to its own
    if detector.has_maps:
        found["maps"] = detector.anomaly_map(few.clone())
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


def operations(detector: Detector, image: Tensor) -> int:
    """Floating-point operations to score one image (1, C, H, W): its share, where several are always scored at once."""
    with without_graphs(detector):  # of a replayed graph the counter sees nothing
        return flops(detector.score, image.repeat(detector.side_by_side, 1, 1, 1)) // detector.side_by_side

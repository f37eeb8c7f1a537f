"""Scores for new images from a finished job whose model was saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adbench_tgan.data.files import Cache, only_regular
from adbench_tgan.data.samples import resize
from adbench_tgan.detector import Detector
from adbench_tgan.discovery.development import is_of_file
from adbench_tgan.errors import AdbenchError, unwritable
from adbench_tgan.failures import explain
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result, result_of
from adbench_tgan.scoring import BATCH, check_scores, scores_of
from adbench_tgan.store import places
from adbench_tgan.store.stored import ROUNDING, SCORES, read, read_scores, vouched
from adbench_tgan.terminal.pace import silent, through
from adbench_tgan.text import plain
from adbench_tgan.torch_settings import precision

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: what Pillow weighs red, green and blue with
ROOM = 2**31  # bytes that building a detector may take beside its weights
DRAWN = 24  # rows of a picture: what draws it takes ever longer for each, and a taller one is hard to open
LARGEST_SIDE = 8192  # pixels of an image that a model may ask for


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One image's score, and the threshold over which it counts as anomalous, if the job has one."""

    path: Path
    score: float
    threshold: float | None

    @property
    def anomalous(self) -> bool | None:
        """Whether the score is above the 0.95 quantile of training scores, as far as that is known."""
        return None if self.threshold is None else self.score > self.threshold


def load_detector(folder: Path | str, registry: Registry, device: str) -> tuple[Detector, Result]:
    """The fitted detector of a job's folder.

    Raises:
        AdbenchError: no finished job with a saved model is there, or it does not fit the installed detector.
    """
    folder = Path(folder) if isinstance(folder, str) else folder
    found = read(folder)
    if found is None or found.status != "ok" or found.shape is None:
        raise AdbenchError(
            f"{folder} holds no finished job; name a folder whose result.json can be read and has the status ok"
        )
    result, path = result_of(found), folder / "model.safetensors"
    if not path.exists():
        raise AdbenchError(f"{folder} holds no model; run the job again with --save-models")
    name, made = result.job.detector, result.job.detector_version
    if is_of_file(made) and name not in registry.names("detector"):
        raise AdbenchError(f"{folder}: detector {name!r} is in a file ({made}); name it with --plugin")
    installed = registry.find("detector", name).version
    if installed != made:
        raise AdbenchError(
            f"{folder} was made by version {made} of {name}, version {installed} is installed; run the job again"
        )
    code = registry.code(name)
    if result.code.partition(" ")[0] not in ("", code.partition(" ")[0]):
        raise AdbenchError(
            f"{folder} was made with {result.code}, and {code or 'other code'} is installed; install the former"
        )
    if found.key != result.job.key:
        raise AdbenchError(f"{folder}: its result.json was edited; delete the folder and run again")
    vouched(folder, path.name)
    state = read_state(path)
    kind = registry.detector(name)
    try:
        with memory_limited(ROOM + 8 * path.stat().st_size):
            detector = rebuild(kind, result, state, "cpu")
        if torch.device(device).type != "cpu":  # what a GPU's driver reserves goes beyond any such limit
            detector = rebuild(kind, result, state, device)
        return detector, result
    except AdbenchError as error:
        raise AdbenchError(f"{folder}: {error}; {remedy(name)}") from None
    except Exception as error:  # settings and shapes that no run has written can fail anywhere
        reason = explain(error, device)
        raise AdbenchError(f"{folder}: its model cannot be built ({reason}); {remedy(name)}") from None


def remedy(name: str) -> str:
    """What helps where a model does not fit its detector: the file may be to blame, or the detector."""
    again = "remove the job's folder, then run it again with --save-models"
    return f"{again}; if that does not help, adbench check {name} says what the detector has to keep"


def rebuild(kind: type[Detector], result: Result, state: Mapping[str, Tensor], device: str) -> Detector:
    """The fitted detector that a result describes.

    Raises:
        AdbenchError: the result's shape is not what its settings say, or the tensors are not the detector's.
    """
    assert result.shape is not None
    channels, height, width = result.shape
    config = kind.Config.model_validate(dict(result.job.config))
    if channels not in (1, 3) or height != width or height != config.image_size or height > LARGEST_SIDE:
        raise AdbenchError(
            f"the shape {result.shape} of its images is not that of image_size={config.image_size}"
        )
    return kind(config, device=device, seed=result.job.seed).load_state(state, result.shape)


@contextmanager
def memory_limited(room: int) -> Iterator[None]:
    """Let this process take at most `room` more bytes of memory. Only Linux can: elsewhere nothing is limited."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(statm.read_text().split()[0]) * resource.getpagesize() + room
    if before[0] != resource.RLIM_INFINITY:
        limit = min(limit, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        AdbenchError: it is damaged or of another format.
    """
    try:
        only_regular(path)
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise AdbenchError(
            f"{path} cannot be read: {error}; remove its folder, then run the job again with --save-models"
        ) from None


def read_images(
    paths: Sequence[Path | str], shape: tuple[int, int, int], say: Callable[[str], None] = silent
) -> Tensor:
    """Images as a detector trained on `shape` wants them, uint8 (N, C, H, W); grey where it learned from grey.

    `say` is told now and then how many are read.

    Raises:
        AdbenchError: one of the paths is no image, or there is none.
    """
    channels, size, _ = shape
    images, files, cache = [], [Path(path) for path in paths], Cache(0)
    for index, path in through(enumerate(files), "read", len(files), say, "images"):
        if path.is_dir():
            raise AdbenchError(f"{path} is a folder; name image files, such as {path / '*.png'}")
        pixels = cache.one_of(files, index)
        if channels == 1:
            pixels = np.tensordot(GREY, pixels.astype(np.float64), axes=1).round().astype(np.uint8)[None]
        images.append(resize(pixels, size))
    if not images:
        raise AdbenchError("there is no image to read; name one or more files")
    return torch.stack(images)


def precision_of(result: Result, device: str | torch.device) -> AbstractContextManager[Any]:
    """The arithmetic that the job's scores come from, as far as the device has it: a CPU has no tf32."""
    name = result.job.precision
    return precision("fp32" if name == "tf32" and torch.device(device).type == "cpu" else name, str(device))


def predict(
    detector: Detector,
    result: Result,
    paths: Sequence[Path | str],
    images: Tensor,
    say: Callable[[str], None] = silent,
) -> list[Prediction]:
    """The prediction for each image, uint8 (N, C, H, W) of the shape that the job was trained on.

    `say` is told now and then how many are scored.

    Raises:
        AdbenchError: the images are others, or no path each, or the saved model gives no finite score for each.
    """
    ensure_fitting(images, result, len(paths))
    try:
        with precision_of(result, detector.device):
            parts = torch.split(images, BATCH)
            told = through(parts, "scored", len(parts), say, f"batches of {BATCH} images")
            scores = torch.cat([scores_of(detector, part.to(detector.device)).float().cpu() for part in told])
        check_scores(scores.numpy())
    except Exception as error:  # tensors that no run has saved can fail anywhere
        reason = explain(error, str(detector.device))
        raise AdbenchError(
            f"the saved model gives no scores ({reason}); {remedy(result.job.detector)}"
        ) from None
    return [
        Prediction(path=Path(path), score=float(score), threshold=result.threshold)
        for path, score in zip(paths, scores, strict=True)
    ]


def ensure_fitting(images: Tensor, result: Result, count: int) -> None:
    """Raise `AdbenchError` unless these are `count` images as `read_images` makes them: of others scores mean nothing."""
    wanted, found = f"uint8 {(count, *(result.shape or ()))}", type(images).__name__
    if isinstance(images, Tensor):
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    if found != wanted:
        raise AdbenchError(f"images must be a tensor, {wanted}, not {found}; read_images makes them")


def meaning_of(result: Result, folder: Path) -> str:
    """What the threshold is worth: the shares of the job's own test images that are above it.

    Empty for a model that was taken along without its scores.

    Raises:
        AdbenchError: the scores are damaged, or the threshold is not theirs.
    """
    if result.threshold is None:
        return "this job has no threshold: its scores of training images are not finite"
    if not (folder / SCORES).exists():
        return ""
    scores = read_scores(folder).astype({"score": "float64"})
    above = scores["score"] > result.threshold
    normal, abnormal = (float(above[scores["label"] == label].mean()) for label in (0, 1))
    told = result.metrics.get("balanced_accuracy")
    if told is not None and abs(told - (1 - normal + abnormal) / 2) > ROUNDING:
        raise AdbenchError(f"{folder}: its threshold was edited; delete the folder and run again")
    shares = f"{normal:.0%} of the normal and {abnormal:.0%} of the abnormal test images of this job"
    return f"{shares} score above the threshold"


def ensure_drawable(detector: Detector, count: int) -> None:
    """Raise `AdbenchError`, before the scores, when a detector has no anomaly maps or a picture would have too many."""
    if not detector.has_maps:
        raise AdbenchError("this detector has no anomaly maps; leave out --heatmap")
    if count > DRAWN:
        raise AdbenchError(f"--heatmap draws {DRAWN} images at most, and {count} are given; name fewer")


def draw(
    detector: Detector, result: Result, predictions: Sequence[Prediction], images: Tensor, out: Path
) -> None:
    """Write a PNG with a row an image: the image, its reconstruction if there is one, and its anomaly map.

    Raises:
        StoreError: `out` cannot be written.
    """
    from matplotlib.figure import Figure

    pixels = images.to(detector.device)
    columns = [("image", images)]
    with precision_of(result, detector.device):
        maps = detector.anomaly_map(pixels).detach().float().cpu().numpy()
        if type(detector).reconstruct is not Detector.reconstruct:
            columns.append(("reconstruction", detector.reconstruct(pixels).detach().cpu()))
    width = len(columns) + 1
    figure = Figure(figsize=(3 * width, 3 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), width, squeeze=False)
    for row, prediction in enumerate(predictions):
        for column, (title, pictures) in enumerate(columns):
            axes[row][column].imshow(
                pictures[row].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=255
            )
            axes[row][column].set_title(title)
        heat = axes[row][-1].imshow(maps[row], cmap="inferno", vmin=maps.min(), vmax=maps.max())
        figure.colorbar(heat, ax=axes[row][-1], shrink=0.8)
        verdict = {True: ", anomalous", False: ", normal", None: ""}[prediction.anomalous]
        axes[row][-1].set_title(f"map: {prediction.score:.4g}{verdict}")
        axes[row][0].set_ylabel(plain("/".join(prediction.path.parts[-2:])), parse_math=False)
        for axis in axes[row]:
            axis.set_xticks([])
            axis.set_yticks([])
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    try:
        places.replace(out, drawn.getvalue())
    except OSError as error:
        raise unwritable(out, error, "name another file") from None

"""Scores for new images from a finished job whose model was saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adbench_tgan.data.files import decode
from adbench_tgan.data.samples import resize
from adbench_tgan.detector import Detector
from adbench_tgan.errors import AdbenchError
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result, read_result

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: what Pillow weighs red, green and blue with


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One image's score, and the threshold over which it counts as anomalous."""

    path: Path
    score: float
    threshold: float

    @property
    def anomalous(self) -> bool:
        """Whether the score is above the 0.95 quantile of training scores."""
        return self.score > self.threshold


def load_detector(folder: Path, registry: Registry, device: str) -> tuple[Detector, Result]:
    """The fitted detector of a job's folder.

    Raises:
        AdbenchError: no finished job with a saved model is there, or it does not fit the installed detector.
    """
    result = read_result(folder)
    if result is None or result.status != "ok" or result.shape is None:
        raise AdbenchError(f"{folder} holds no finished job; name a folder with a result.json that is ok")
    path = folder / "model.safetensors"
    if not path.exists():
        raise AdbenchError(f"{folder} holds no model; run the job again with --save-models")
    installed = registry.find("detector", result.job.detector).version
    if installed != result.job.detector_version:
        raise AdbenchError(
            f"{folder} was made by version {result.job.detector_version} of {result.job.detector}, version "
            f"{installed} is installed; run the job again"
        )
    detector_class = registry.detector(result.job.detector)
    config = detector_class.Config.model_validate(dict(result.job.config))
    detector = detector_class(config, device=device, seed=result.job.seed)
    return detector.load_state(read_state(path), result.shape), result


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        AdbenchError: it is damaged or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise AdbenchError(f"{path} cannot be read: {error}; run the job again with --save-models") from None


def read_images(paths: Sequence[Path], shape: tuple[int, int, int]) -> Tensor:
    """Images as a detector trained on `shape` wants them, uint8 (N, C, H, W); grey where it learned from grey."""
    channels, size, _ = shape
    images = []
    for path in paths:
        pixels = decode(path)
        if channels == 1:
            pixels = np.tensordot(GREY, pixels.astype(np.float64), axes=1).round().astype(np.uint8)[None]
        images.append(resize(pixels, size))
    return torch.stack(images)


def predict(detector: Detector, result: Result, paths: Sequence[Path], images: Tensor) -> list[Prediction]:
    """The prediction for each image."""
    scores = detector.score(images.to(detector.device)).cpu()
    threshold = float("nan") if result.threshold is None else result.threshold
    return [
        Prediction(path=path, score=float(score), threshold=threshold)
        for path, score in zip(paths, scores, strict=True)
    ]


def draw(detector: Detector, predictions: Sequence[Prediction], images: Tensor, out: Path) -> None:
    """Write a PNG with a row an image: the image, its reconstruction if there is one, and its anomaly map.

    Raises:
        AdbenchError: the detector has no maps, or `out` cannot be written.
    """
    if not detector.has_maps:
        raise AdbenchError("this detector has no anomaly maps; leave out --heatmap")
    from matplotlib.figure import Figure

    pixels = images.to(detector.device)
    maps = detector.anomaly_map(pixels).detach().cpu().numpy()
    columns = [("image", images)]
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
        heat = axes[row][-1].imshow(maps[row], cmap="inferno")
        figure.colorbar(heat, ax=axes[row][-1], shrink=0.8)
        verdict = "anomalous" if prediction.anomalous else "normal"
        axes[row][-1].set_title(f"map: {prediction.score:.4g}, {verdict}")
        axes[row][0].set_ylabel("/".join(prediction.path.parts[-2:]), parse_math=False)
        for axis in axes[row]:
            axis.set_xticks([])
            axis.set_yticks([])
    try:
        figure.savefig(out, format="png", dpi=110)
    except OSError as error:
        raise AdbenchError(f"cannot write {out}: {error.strerror}; name another file") from None

"""Example images with reconstruction and anomaly map, chosen by rule, scored again by the saved models."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adbench_tgan.data.tasks import Tasks
from adbench_tgan.detector import Detector
from adbench_tgan.errors import AdbenchError
from adbench_tgan.leaderboard import PURITY
from adbench_tgan.predict import load_detector, precision_of
from adbench_tgan.ranking.statistics import relative_change
from adbench_tgan.registry import Registry
from adbench_tgan.report.gallery import CASES, EACH, SEED, Example, Gallery, Picture
from adbench_tgan.report.material import Material
from adbench_tgan.results import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 96  # larger pictures are made smaller


def gallery_of(
    entry: str, folder: Path, material: Material, tasks: Tasks, registry: Registry, device: str
) -> Gallery:
    """The examples of the model that was saved in a job's folder.

    Raises:
        AdbenchError: the images are not those that were scored, or the model does not load.
    """
    detector, result = load_detector(folder, registry, device)
    if tasks.fingerprint(result.job.category) != result.job.split_fingerprint:
        raise AdbenchError(
            f"the images of {result.job.category!r} in {tasks.root} are not those that were scored; "
            "give --data-root the folder of those"
        )
    return gallery(entry, detector, result, material.scores(result.job.key), tasks)


def gallery(entry: str, detector: Detector, result: Result, scores: pd.DataFrame, tasks: Tasks) -> Gallery:
    """The examples of one job's model."""
    assert result.shape is not None
    cases = chosen(scores["score"].to_numpy("float64"), scores["label"].to_numpy() == 1)
    rows = [row for members in cases.values() for row in members]
    samples, cut = tasks.cut(result.job.category)
    images = samples.images(cut.test[rows], result.shape[1])
    with precision_of(result, detector.device):
        strips, again = draw(detector, images)
    names = [case for case, members in cases.items() for _ in members]
    examples = tuple(
        Example(
            case=case,
            sample_id=str(scores["sample_id"].iloc[row]),
            label="anomaly" if scores["label"].iloc[row] == 1 else "normal",
            score=float(scores["score"].iloc[row]),
            pictures=strip,
        )
        for case, row, strip in zip(names, rows, strips, strict=True)
    )
    note = same_scores(again, scores["score"].to_numpy("float64"), rows, PURITY[result.job.precision])
    return Gallery(entry=entry, category=result.job.category, examples=examples, note=note)


def chosen(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> Mapping[str, list[int]]:
    """The rows of each case; of equal scores the first come first."""
    order = np.argsort(scores, kind="stable")
    anomalies, normals = order[labels[order]], order[~labels[order]]
    drawn = np.random.default_rng(SEED).permutation(len(scores))[:EACH]
    rows = (anomalies[::-1][:EACH], anomalies[:EACH], normals[::-1][:EACH], np.sort(drawn))
    return {case: each.tolist() for case, each in zip(CASES, rows, strict=True)}


def same_scores(
    again: NDArray[np.float64], stored: NDArray[np.float64], rows: list[int], allowed: float
) -> str:
    """What to say if the model here does not give the scores that are stored; nothing if it does."""
    change = relative_change(stored[rows], again, stored)
    if change <= allowed:
        return ""
    return f"scored again for this page, these images got scores that differ from the stored ones by up to {change:.2g} (relative)"


def draw(detector: Detector, images: Tensor) -> tuple[list[tuple[Picture, ...]], NDArray[np.float64]]:
    """Of each image the pictures side by side, and its score. Maps share one scale."""
    pixels = images.to(detector.device)
    scores = detector.score(pixels).detach().double().cpu().numpy()
    strips = [("image", [encode(image) for image in images])]
    if type(detector).reconstruct is not Detector.reconstruct:
        drawn = detector.reconstruct(pixels).detach().cpu()
        strips.append(("reconstruction", [encode(image) for image in drawn]))
    if detector.has_maps:
        strips.append(
            ("map", [encode(heat) for heat in coloured(detector.anomaly_map(pixels).detach().cpu())])
        )
    side = min(SIDE, images.shape[-1])
    rows = [
        tuple(Picture(title=title, uri=uris[i], side=side) for title, uris in strips)
        for i in range(len(images))
    ]
    return rows, scores


def coloured(maps: Tensor) -> Tensor:
    """Maps (B, H, W) as uint8 (B, 3, H, W), dark where lowest and light where highest among them."""
    from matplotlib import colormaps

    values = maps.float().numpy()
    low, high = values.min(), values.max()
    unit = (values - low) / (high - low) if high > low else np.zeros_like(values)
    colours = (colormaps["viridis"](unit)[..., :3] * 255).round().astype(np.uint8)
    return torch.from_numpy(colours).permute(0, 3, 1, 2)


def encode(image: Tensor) -> str:
    """Uint8 (C, H, W) as a data URI, at most `SIDE` wide."""
    from PIL import Image

    picture = Image.fromarray(image.permute(1, 2, 0).numpy().squeeze())
    picture.thumbnail((SIDE, SIDE))
    file = BytesIO()
    picture.save(file, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()

"""``adbench predict``: score new images with a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adbench_tgan.commands.show import show, tell
from adbench_tgan.options import (
    Device,
    Json,
    Plugins,
    registry,
)


def predict(
    job_folder: Annotated[Path, typer.Argument(help="Folder of a job run with --save-models.")],
    image: Annotated[list[Path], typer.Argument(help="Image files.")],
    heatmap: Annotated[
        Path | None, typer.Option(help="Write image, reconstruction and map to this PNG.")
    ] = None,
    device: Device = "auto",
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Score new images with a finished job's model."""
    from adbench_tgan import predict as saved
    from adbench_tgan.benchmark import usable

    detector, result = saved.load_detector(job_folder, registry(plugin), usable(device))
    assert result.shape is not None
    images = saved.read_images(image, result.shape)
    found = saved.predict(detector, result, image, images)
    records = [
        {"image": str(p.path), "score": p.score, "threshold": p.threshold, "anomalous": p.anomalous}
        for p in found
    ]
    show(records, as_json, f"{result.job}")
    if heatmap is not None:
        saved.draw(detector, result, found, images, heatmap)
        if not as_json:
            tell(f"wrote {heatmap}")

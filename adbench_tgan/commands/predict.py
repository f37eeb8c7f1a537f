"""``adbench predict``: score new images with a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adbench_tgan.commands.options import Device, Json, Plugins, file_of, registry
from adbench_tgan.commands.show import answer, show, tell, warn
from adbench_tgan.errors import AdbenchError


def predict(
    job_folder: Annotated[Path, typer.Argument(help="Folder of a job run with --save-models.")],
    image: Annotated[list[Path], typer.Argument(help="Image files.")],
    heatmap: Annotated[
        Path | None,
        typer.Option(help="Write image, reconstruction and anomaly map to this PNG, of 24 images at most."),
    ] = None,
    device: Device = "auto",
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Score new images with a finished job's model."""
    from adbench_tgan import predict as saved
    from adbench_tgan.benchmark import usable

    detector, result = saved.load_detector(job_folder, registry(plugin), usable(device))
    if heatmap is not None:
        saved.ensure_drawable(detector, len(image))
        drawn = file_of("--heatmap", str(heatmap), "map.png")
        if drawn.exists() and any(path.exists() and drawn.samefile(path) for path in image):
            raise AdbenchError(f"--heatmap {heatmap} is one of the images to score; name another file")
    assert result.shape is not None
    images = saved.read_images(image, result.shape, warn)
    meaning = saved.meaning_of(result, job_folder)
    found = saved.predict(detector, result, image, images, warn)
    records = [
        {"image": str(p.path), "score": p.score, "threshold": p.threshold, "anomalous": p.anomalous}
        for p in found
    ]
    if as_json:
        answer(records)
    else:
        show(records, f"{result.job}")
    if meaning:
        warn(f"note: {meaning}")
    if heatmap is not None:
        saved.draw(detector, result, found, images, heatmap)
        if not as_json:
            tell(f"wrote {heatmap}")

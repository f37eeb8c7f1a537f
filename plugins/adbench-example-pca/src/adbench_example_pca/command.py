"""A command is a function with typer's annotations."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from adbench_tgan import AdbenchError


def pca_basis(
    job_folder: Annotated[Path, typer.Argument(help="Folder of a pca_patches job run with --save-models.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("basis.png"),
) -> None:
    """Draw the patches that a saved pca_patches model learned, the most important first."""
    from PIL import Image
    from safetensors.numpy import load_file

    model = job_folder / "model.safetensors"
    if not model.is_file():
        raise AdbenchError(f"{model} is not there; run the job with --save-models")
    state = load_file(model)
    if "basis" not in state:
        raise AdbenchError(f"{model} holds no pca_patches model; give the folder of one")
    drawn = Image.fromarray(sheet(state["basis"]))
    drawn.resize((8 * drawn.width, 8 * drawn.height), Image.Resampling.NEAREST).save(out)
    print(f"wrote {out}: {state['basis'].shape[1]} patches")


def sheet(basis: np.ndarray) -> np.ndarray:
    """Directions (C * side^2, q) -> uint8 (side, q * (side + 1)): side by side, each to its own range."""
    directions = basis[:, ::-1].T  # the largest variance first
    channels = next(c for c in (1, 3, 4) if (directions.shape[1] / c) ** 0.5 % 1 == 0)
    side = int((directions.shape[1] / channels) ** 0.5)
    patches = directions.reshape(-1, channels, side, side).mean(1)
    low, high = patches.min((1, 2), keepdims=True), patches.max((1, 2), keepdims=True)
    shown = 255 * (patches - low) / np.maximum(high - low, 1e-12)
    return np.hstack([np.pad(patch, ((0, 0), (0, 1))) for patch in shown.round().astype(np.uint8)])

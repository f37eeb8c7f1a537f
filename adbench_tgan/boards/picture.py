"""A board's pictures. Their bytes depend on the drawing library: boards do not vouch for them, but for their stamps."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adbench_tgan.boards import diagram, intervals
from adbench_tgan.boards.board import Board
from adbench_tgan.boards.schemas import LEADERBOARD, PAIRS
from adbench_tgan.store.stored import STAMP


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG in a board's folder."""

    file: str
    of: str  # the table that it shows, whose SHA-256 it carries
    is_drawn: Callable[[Board], bool]
    figure: Callable[[Board], Any]


INTERVALS = Picture(
    file="intervals.png", of=LEADERBOARD.file, is_drawn=intervals.is_drawn, figure=intervals.figure
)
DIAGRAM = Picture(
    file="critical_difference.png", of=PAIRS.file, is_drawn=diagram.is_drawn, figure=diagram.figure
)
PICTURES = (INTERVALS, DIAGRAM)


def draw(picture: Picture, board: Board, files: Mapping[str, bytes]) -> bytes:
    """The PNG. `files` are the board's, by name."""
    out = io.BytesIO()
    metadata = {"Software": None, STAMP: digest(picture, files)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")  # a name's letters that no font here has
        picture.figure(board).savefig(out, format="png", dpi=100, metadata=metadata)
    return out.getvalue()


def digest(picture: Picture, files: Mapping[str, bytes]) -> str:
    """What a picture of these files is stamped with."""
    return hashlib.sha256(files[picture.of]).hexdigest()

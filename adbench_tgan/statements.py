"""What a detector says of itself beside its scores, checked: it goes into files that others have to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

from adbench_tgan.detector import Detector
from adbench_tgan.errors import AdbenchError


def notes_of(detector: Detector) -> tuple[str, ...]:
    """Its notes; half a character, as in a file's name that is no Unicode, shows as its escape.

    Raises:
        AdbenchError: they are no list of texts.
    """
    notes = getattr(detector, "notes", ())  # a stranger's __init__ may not call ours
    if isinstance(notes, str) or not isinstance(notes, Sequence):
        raise AdbenchError(f"notes is of type {type(notes).__name__}; it must be a list of texts")
    for note in notes:
        if not isinstance(note, str):
            raise AdbenchError(f"notes holds something of type {type(note).__name__}; it must hold texts")
    return tuple(note.encode(errors="backslashreplace").decode() for note in notes)


def parameters_of(detector: Detector) -> dict[str, int]:
    """How many numbers each of its parts has.

    Raises:
        AdbenchError: a count is no whole number, or below 0.
    """
    return {name: _count(name, value) for name, value in detector.parameter_counts().items()}


def _count(name: str, value: Any) -> int:
    try:
        count = index(value)  # NumPy's integers too
    except TypeError:
        count = -1
    if count < 0:
        raise AdbenchError(
            f"parameter_counts says {value!r} for {name!r}; it must be a whole number from 0 on"
        )
    return count


def check_losses(losses: Mapping[str, float]) -> None:
    """Refuse a loss that has the name of the column that counts the epochs."""
    if "epoch" in losses:
        raise AdbenchError("a loss is named 'epoch', as the number of the epoch is; give it another name")

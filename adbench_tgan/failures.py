"""What went wrong with a job, as its result."""

from __future__ import annotations

from dataclasses import replace
from traceback import format_exception
from typing import TYPE_CHECKING

import torch

from adbench_tgan import __version__
from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import one_line, said
from adbench_tgan.jobs import Job
from adbench_tgan.machine import device_name
from adbench_tgan.results import Result
from adbench_tgan.text import plain

if TYPE_CHECKING:
    from adbench_tgan.runner import Settings


def failed(job: Job, settings: Settings, error: BaseException) -> Result:
    """The result of a job that raised; a mistake in a program comes with its traceback."""
    mistaken = not isinstance(error, AdbenchError) or error.__cause__ is not None
    trace = "".join(format_exception(error)) if mistaken else ""
    return replace(failure(job, settings, explain(error, settings.device)), trace=trace)


def failure(job: Job, settings: Settings, reason: str) -> Result:
    """The result of a job that came to nothing."""
    device = _named(settings.device)
    return Result(job=job, status="failed", error=reason, device=device, version=__version__)


def explain(error: BaseException, device: str) -> str:
    """One line for a row: what went wrong, and for lack of memory the remedy."""
    text = plain(said(error))
    if lacks_memory(error):
        return f"out of memory on {_named(device)}; with --set, lower image_size or another size, such as batch_size or width"
    if text and isinstance(error, AdbenchError):
        return text
    return one_line(error)


def lacks_memory(error: BaseException) -> bool:
    """Whether there was too little memory, which on a CPU torch says in words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in said(error)


def _named(device: str) -> str:
    try:
        return device_name(device)
    except (RuntimeError, AssertionError):
        return device

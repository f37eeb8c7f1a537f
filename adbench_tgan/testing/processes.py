"""Starts the other process of the checks, and reads what it found. Files are JSON and safetensors, never pickles."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adbench_tgan.hooks import one_line
from adbench_tgan.store.drafts import clear_temporary, draft_name
from adbench_tgan.testing.outcome import Skipped
from adbench_tgan.workers.nursery import LOST, begin, own_environment, stop

if TYPE_CHECKING:
    from adbench_tgan.testing.trial import Trial

PATIENCE = 120.0  # seconds that another process may take at least
SAID = "said"  # what it prints


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the other process found with images of one shape; an empty text where nothing went wrong."""

    loaded: Tensor | None = None  # scores of the saved state
    fitted: Tensor | None = None  # scores after a training of its own
    load_error: str = ""
    fit_error: str = ""
    interruptible: bool = False
    interrupted: str = ""  # what was wrong with how it stopped on Ctrl-C
    crash: str = ""  # how the process ended, if before its time


def look_from_outside(trials: Sequence[Trial]) -> list[Finding]:
    """Let one fresh process load, fit and interrupt the detector of each trial.

    Raises:
        Skipped: the class cannot be imported by another process.
    """
    if not trials[0].subject.word:
        raise Skipped("no other process can import it; give a name or module:Class")
    clear_temporary()
    with tempfile.TemporaryDirectory(prefix=f"{draft_name()}-") as folder:
        home = Path(folder)
        errors = [write_state(trial, home / f"state-{i}.safetensors") for i, trial in enumerate(trials)]
        (home / "order.json").write_text(json.dumps(order_of(trials)))
        crash = run_child(home, patience=max(PATIENCE, 20 * sum(trial.fit_seconds for trial in trials)))
        return [finding(home, i, error, crash) for i, error in enumerate(errors)]


def order_of(trials: Sequence[Trial]) -> dict[str, Any]:
    """What the other process is to do."""
    subject = trials[0].subject
    return {
        "word": subject.word,
        "config": subject.config.model_dump(mode="json"),
        "labelled": subject.info.supervision == "labelled",
        "shapes": [trial.shape for trial in trials],
        "threads": torch.get_num_threads(),
    }


def write_state(trial: Trial, path: Path) -> str:
    """Save a fitted detector; the reason if that cannot be done."""
    try:
        save_file(trial.detector.state(), path)
    except (Exception, SystemExit) as error:
        return f"its state cannot be saved: {one_line(error)}"
    return ""


def run_child(home: Path, patience: float) -> str:
    """Run the other process to its end; how it failed if it did."""
    hashing = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    child = begin("adbench_tgan.testing.child", home, own_environment() | {"PYTHONHASHSEED": hashing})
    assert child.stdout is not None
    assert child.stderr is not None
    with child.stdout, child.stderr:
        try:
            status = child.wait(patience)
        except subprocess.TimeoutExpired:
            return f"another process was not done after {patience:.0f} s"
        finally:
            stop(child)
        if status == 0:
            return ""
        said = home / SAID
        words = said.read_bytes() if said.exists() else child.stderr.read()
    last = words.decode(errors="replace").strip().splitlines()[-1:]
    how = "could not be forked" if status == LOST else f"ended with status {status}"
    return f"another process {how}: {''.join(last) or 'it said nothing'}"


def finding(home: Path, number: int, save_error: str, crash: str) -> Finding:
    """What the files say about the images of one shape."""
    try:
        facts = json.loads((home / f"facts-{number}.json").read_text())
    except (OSError, ValueError):
        return Finding(crash=crash or "another process left no answer")
    facts["load_error"] = save_error or facts["load_error"]
    return Finding(
        loaded=_scores(home / f"loaded-{number}.safetensors"),
        fitted=_scores(home / f"fitted-{number}.safetensors"),
        **facts,
    )


def _scores(path: Path) -> Tensor | None:
    return load_file(path)["scores"] if path.exists() else None

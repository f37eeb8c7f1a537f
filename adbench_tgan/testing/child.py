"""The other process of the checks: ``python -m adbench_tgan.testing.child FOLDER``."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from adbench_tgan.hooks import one_line
from adbench_tgan.info import DetectorInfo
from adbench_tgan.registry import Registry
from adbench_tgan.testing.processes import SAID, Finding
from adbench_tgan.testing.subject import Subject
from adbench_tgan.testing.trial import SEED, Trial
from adbench_tgan.workers.nursery import take_streams


class Interrupting(TorchFunctionMode):
    """Counts the calls of torch, and sends the Ctrl-C of a terminal during one of them."""

    def __init__(self, at: int = 0):
        super().__init__()
        self.calls, self.at = 0, at

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, then go on."""
        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        return func(*args, **(kwargs or {}))


def main(home: Path) -> None:
    """Do what the order says, leave a file of facts a shape, and end without looking back."""
    take_streams().close()
    with (home / SAID).open("wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's child would ignore it
    order = json.loads((home / "order.json").read_text())
    torch.set_num_threads(order["threads"])
    subject = subject_of(order)
    for number, shape in enumerate(order["shapes"]):
        trial = Trial(subject, tuple(shape), unasked)
        facts: dict[str, Any] = {"load_error": load(trial, home, number)}
        calls, facts["fit_error"] = fit(trial, home, number)
        facts["interruptible"] = calls > 0
        facts["interrupted"] = ""
        if not facts["fit_error"]:
            points = sorted({1, (calls + 1) // 2} if calls else {})
            facts["interrupted"] = next(filter(None, (interrupt(trial, at) for at in points)), "")
        (home / f"facts-{number}.json").write_text(json.dumps(facts))
    sys.stdout.flush()
    os._exit(0)  # at once, also where a detector's thread would not let it


def subject_of(order: dict[str, Any]) -> Subject:
    """The detector to run, from its word and its settings."""
    found = Registry.discover().detector(order["word"])
    config = found.Config.model_validate(order["config"])
    info = DetectorInfo(
        name=order["word"], target=order["word"], supervision="labelled" if order["labelled"] else "one-class"
    )
    return Subject(info=info, build=lambda seed: found(config, seed=seed), config=config)


def unasked(trial: Trial) -> Finding:
    """A child starts no process of its own."""
    raise NotImplementedError


def load(trial: Trial, home: Path, number: int) -> str:
    """Score with the saved state; why not, if not."""
    path = home / f"state-{number}.safetensors"
    if not path.exists():
        return ""
    try:
        detector = trial.subject.built(SEED).load_state(load_file(path), trial.shape)
        write(detector.score(trial.probe), home / f"loaded-{number}.safetensors")
    except (Exception, SystemExit) as error:
        return f"scoring with the saved state raises {one_line(error)}"
    return ""


def fit(trial: Trial, home: Path, number: int) -> tuple[int, str]:
    """Train and score; how many calls of torch the training took, and what went wrong."""
    counting = Interrupting()
    try:
        with counting:
            detector = trial.fitted(SEED)
        write(detector.score(trial.probe), home / f"fitted-{number}.safetensors")
    except (Exception, SystemExit) as error:
        return 0, f"in another process it raises {one_line(error)}"
    return counting.calls, ""


def interrupt(trial: Trial, at: int) -> str:
    """Press Ctrl-C during a training; what was wrong with how it stopped."""
    detector = trial.seeded(SEED)
    try:
        with Interrupting(at):
            detector.fit(trial.train)
    except KeyboardInterrupt:
        pass  # its traceback holds what fit held, and what that would end with itself
    except (Exception, SystemExit) as error:
        return f"after Ctrl-C, fit raises {one_line(error)} instead of KeyboardInterrupt"
    else:
        return "fit went on after Ctrl-C"
    gc.collect()
    return left_over()


def left_over() -> str:
    """What still runs beside the main thread and would keep the process from ending."""
    threads = [t.name for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    workers = [process.name for process in multiprocessing.active_children() if not process.daemon]
    still = ", ".join(threads + workers)
    return f"still running after Ctrl-C: {still}" if still else ""


def write(scores: Tensor, path: Path) -> None:
    """Leave scores for the parent."""
    save_file({"scores": scores.detach().cpu().contiguous()}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

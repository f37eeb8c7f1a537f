"""Global settings of torch, and what else is the process's: what one detector turns is not the next one's fault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from adbench_tgan.interrupts import handlers_kept


def settings_now() -> dict[str, Any]:
    """The global settings of torch that a detector might turn."""
    cudnn = torch.backends.cudnn
    return {
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "hooks of all modules": {name: dict(hooks) for name, hooks in module_hooks().items()},
        "threads": torch.get_num_threads(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "cudnn.enabled": cudnn.enabled,
        "cudnn.benchmark": cudnn.benchmark,
        "cudnn.deterministic": cudnn.deterministic,
        "cudnn.allow_tf32": cudnn.allow_tf32,
    }


def module_hooks() -> dict[str, dict[Any, Any]]:
    """The hooks that torch calls for every module, by their kind; torch has no function that lists or removes them."""
    kinds = vars(torch.nn.modules.module).items()
    return {name: hooks for name, hooks in kinds if name.startswith("_global_") and isinstance(hooks, dict)}


@contextmanager
def settings_kept() -> Iterator[dict[str, Any]]:
    """Give the global settings, and put them, the working folder and what handles Ctrl-C back at the end."""
    before, folder = settings_now(), os.getcwd()
    try:
        with handlers_kept():
            yield before
    finally:
        device = before["default device"]
        torch.set_default_device(
            None if device.type == "cpu" else device
        )  # None, which costs no time, is the CPU
        for name, hooks in module_hooks().items():
            hooks.clear()
            hooks.update(before["hooks of all modules"].get(name, {}))
        cudnn = torch.backends.cudnn
        torch.set_grad_enabled(before["grad mode"])
        torch.set_default_dtype(before["default dtype"])
        torch.set_num_threads(before["threads"])
        torch.set_float32_matmul_precision(before["matmul precision"])
        torch.use_deterministic_algorithms(before["deterministic algorithms"])
        torch.set_autocast_enabled("cpu", before["autocast"])
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32"):
            setattr(cudnn, name, before[f"cudnn.{name}"])
        os.chdir(folder)

"""Global settings of torch, and what else is the process's: what one detector turns is not the next one's fault."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from operator import attrgetter
from threading import RLock
from typing import Any

import numpy as np
import torch

from adbench_tgan.interrupts import handlers_kept
from adbench_tgan.training import dice_kept

ROUNDING = "cudnn cudnn.conv cudnn.rnn cuda.matmul mkldnn mkldnn.matmul mkldnn.conv mkldnn.rnn".split()
ATTENTION = ("flash", "mem_efficient", "math", "cudnn")  # its kernels
ALONE = RLock()  # held by the one job that runs in this process
CUDNN = ("enabled", "benchmark", "deterministic")


def settings_now() -> dict[str, Any]:
    """The global settings that a detector might turn, nearly all of torch."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return {
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "anomaly mode": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "default device": torch.empty(0).device,
        "hooks of all modules": {name: dict(hooks) for name, hooks in module_hooks().items()},
        "threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        **{f"autocast on {kind}": torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")},
        "mkldnn.enabled": torch.backends.mkldnn.enabled,
        **{f"cudnn.{name}": getattr(cudnn, name) for name in CUDNN},
        **{f"{name} attention": getattr(cuda, f"{name}_sdp_enabled")() for name in ATTENTION},
        "matmul precision": _unless_mixed(torch.get_float32_matmul_precision),
        "cudnn.allow_tf32": _unless_mixed(lambda: cudnn.allow_tf32),
        **{f"{name} precision": level.fp32_precision for name, level in rounding_levels().items()},
        "NumPy's errors": np.geterr(),
        "warnings that are errors": errors_of_warnings(),
        "standard streams": (sys.stdout, sys.stderr),
    }


def errors_of_warnings() -> list[Any]:
    """The filters that make errors of warnings."""
    return [each for each in warnings.filters if each[0] == "error"]


def _unless_mixed(read: Callable[[], Any]) -> Any:
    """What an old setting of rounding is; None where torch refuses to tell, since a new one contradicts it."""
    try:
        return read()
    except RuntimeError:
        return None


def rounding_levels() -> dict[str, Any]:
    """Where torch, from 2.9 on, keeps how float32 is rounded: for all, for a library, for an operation of it."""
    levels: dict[str, Any] = {"backends": torch.backends}
    for path in ROUNDING:
        with suppress(AttributeError):  # of an older torch
            levels[path] = attrgetter(path)(torch.backends)
    return {path: level for path, level in levels.items() if hasattr(level, "fp32_precision")}


def round_fp32(*, to_tf32: bool) -> None:
    """Let products of float32 be in full, or rounded to TF32 on a GPU, whatever any level was set to before."""
    for level in rounding_levels().values():
        level.fp32_precision = "none"
    torch.set_float32_matmul_precision("high" if to_tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = to_tf32


def precision(name: str, device: str) -> AbstractContextManager[Any]:
    """Set how matrix products round: fp32 in full, tf32 on tensor cores, bf16 by autocast.

    Under bf16 on a GPU networks that train are also laid out channels-last; see `training.stepper`.
    """
    round_fp32(to_tf32=name == "tf32")
    # Without its cache, which would keep the weights of the first step for as long as the whole training.
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=name == "bf16", cache_enabled=False
    )


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
        os.chdir(folder)  # first, for what torch imports next asks where it is
        device = before["default device"]
        # Only where it was turned: after a None torch 2.6 can tell no default device.
        if torch.empty(0).device != device:
            # None, which costs no time, is the CPU.
            torch.set_default_device(None if device.type == "cpu" else device)
        for name, hooks in module_hooks().items():
            hooks.clear()
            hooks.update(before["hooks of all modules"].get(name, {}))
        cudnn = torch.backends.cudnn
        torch.set_grad_enabled(before["grad mode"])
        torch.set_default_dtype(before["default dtype"])
        torch.autograd.set_detect_anomaly(*before["anomaly mode"])
        torch.set_num_threads(before["threads"])
        # Only where it was turned: it imports torch._inductor, which takes seconds.
        if torch.are_deterministic_algorithms_enabled() != before["deterministic algorithms"]:
            torch.use_deterministic_algorithms(before["deterministic algorithms"])
        for kind in ("cpu", "cuda"):
            torch.set_autocast_enabled(kind, before[f"autocast on {kind}"])
        for name in CUDNN:
            setattr(cudnn, name, before[f"cudnn.{name}"])
        for name in ATTENTION:
            getattr(torch.backends.cuda, f"enable_{name}_sdp")(before[f"{name} attention"])
        torch.backends.mkldnn.enabled = before["mkldnn.enabled"]
        _round_as(before)
        np.seterr(**before["NumPy's errors"])
        for added in [
            each for each in errors_of_warnings() if each not in before["warnings that are errors"]
        ]:
            warnings.filters.remove(added)  # type: ignore[attr-defined]
        sys.stdout, sys.stderr = before["standard streams"]


@contextmanager
def process_to_itself() -> Iterator[None]:
    """Let a job have what is the process's, while jobs of other threads wait, and put it back at the end.

    Torch is as in a new process, whatever the caller has turned: with gradients, without hooks, in float32, on the CPU.
    """
    with ExitStack() as kept:
        for each in (
            ALONE,
            dice_kept(),
            settings_kept(),
            torch.inference_mode(mode=False),
            torch.enable_grad(),
        ):
            kept.enter_context(each)
        for hooks in module_hooks().values():
            hooks.clear()
        torch.set_default_dtype(torch.float32)
        if torch.empty(0).device.type != "cpu":
            torch.set_default_device(None)
        if torch.empty(0).device.type != "cpu":  # within ``with torch.device(...)``
            kept.enter_context(torch.device("cpu"))
        yield


def _round_as(before: Mapping[str, Any]) -> None:
    round_fp32(to_tf32=False)
    if before["matmul precision"] is not None:
        torch.set_float32_matmul_precision(before["matmul precision"])
    if before["cudnn.allow_tf32"] is not None:
        torch.backends.cudnn.allow_tf32 = before["cudnn.allow_tf32"]
    for name, level in rounding_levels().items():
        level.fp32_precision = before[f"{name} precision"]

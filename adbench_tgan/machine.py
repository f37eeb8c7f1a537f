"""What machine and versions a result was made on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution, version
from math import ceil
from pathlib import Path

import torch

PIPES = "CUDA_MPS_PIPE_DIRECTORY"  # where a process finds NVIDIA's MPS
DEFAULT = "/tmp/nvidia-mps"  # where it is looked for without that
DRIVER = Path("/proc/driver/nvidia/version")
CONTROL = Path("/sys/fs/cgroup")
# Of control groups, version 2 (both numbers in one) and 1.
QUOTA = tuple(CONTROL / name for name in ("cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
SYSCTL = "/usr/sbin/sysctl"  # of macOS
PACKAGES = ("adbench-tgan", "torch", "torchvision", "timm", "anomalib", "numpy", "pandas", "scikit-learn")


def machine(device: str | torch.device) -> dict[str, object]:
    """The machine's fingerprint: hardware, driver, and the versions of what computes."""
    device = torch.device(device)
    facts: dict[str, object] = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    if (quota := cpu_quota()) is not None:
        facts["cpu_quota"] = quota
    if device.type == "cpu":
        facts["cpu_capability"] = cpu_capability()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_gb": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": driver_of(DRIVER),
        }
        if mps_folder():
            facts["mps"] = True
    return facts


def driver_of(path: Path) -> str | None:
    """The version that NVIDIA's driver says it has; None where it says nothing."""
    try:
        found = re.search(r"Kernel Module.*?(\d+\.\d[\d.]*)", path.read_text())
    except OSError:
        return None
    return found[1] if found else None


def mps_folder() -> str:
    """The folder of the NVIDIA MPS that a process started now would use; empty without one.

    With it kernels of several processes run on a GPU at the same time.
    """
    folder = os.environ.get(PIPES) or DEFAULT
    return folder if Path(folder, "control").exists() else ""


def cores() -> int:
    """The CPU cores that this process may use, in a container no more than it has time for."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, ceil(cpu_quota() or own))


def cpu_capability() -> str:
    """The vector instructions by which torch computes, and what oneDNN is limited to: other ones round otherwise.

    A virtual machine's processor often has a name that does not tell.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN {limit}" if limit else "")


def cpu_quota() -> float | None:
    """The cores whose time a container's limit leaves, such as 0.5 or 2, on however many it runs; None without one."""
    try:
        quota, period = map(float, " ".join(path.read_text() for path in QUOTA if path.is_file()).split())
    except (OSError, ValueError):  # such as "max 100000"
        return None
    return round(quota / period, 3) if quota > 0 else None


def bf16_is_slow() -> bool:
    """Whether bf16 is only emulated on this CPU; where torch cannot tell, it is no."""
    knows = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return knows and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def device_name(device: str | torch.device) -> str:
    """The name that stands in the tables: "cpu", or the GPU's."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return _told_by_sysctl() or platform.processor()
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()  # ARM has no such line


def _told_by_sysctl() -> str:
    """Such as "Apple M1", where `platform.processor` says "arm" of them all; empty but on macOS."""
    asked = [SYSCTL, "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _version(name: str) -> str | None:
    """From the head of its metadata: to parse all of that takes as long as a small network's scores."""
    try:
        text = distribution(name).read_text("METADATA") or ""
    except PackageNotFoundError:
        return None
    found = re.search(r"^Version: *(\S+)", text, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else version(name)

"""What a GPU draws while it works, from NVML."""

from __future__ import annotations

from collections.abc import Callable

import torch

LEAST = 5.0  # seconds under which nothing is told: NVML counts in steps of some milliseconds

Meter = Callable[[], float]


def meter_of(device: str | torch.device) -> Meter | None:
    """A function that reads the joules that a GPU has drawn since its driver was loaded; None where NVML does not tell.

    A counter, not power: that is a mean over the last second, which was another load's. It is of the whole board:
    what other programs do on it counts too. GPUs before Volta have none.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        # by its UUID: NVML's numbers are not CUDA's where CUDA_VISIBLE_DEVICES hides some
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no driver library, no right to read, a virtual GPU: the cells stay empty
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000

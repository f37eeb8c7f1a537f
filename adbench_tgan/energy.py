"""What a GPU draws while it works, from NVML."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

import torch

EVERY = 0.1  # seconds between samples; NVML renews its reading about as often
ENOUGH = 60  # samples under which a mean is not given


class PowerMeter:
    """Samples a GPU's power, in a thread, for as long as the block lasts. On the CPU it finds nothing.

    NVML reads the whole board: what other programs do on it counts too.
    """

    def __init__(self, device: str | torch.device):
        self.watts: list[float] = []
        self._read = _reader(torch.device(device))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def works(self) -> bool:
        """Whether the device tells its power."""
        return self._read is not None

    def mean(self) -> float | None:
        """Watts, mean over the block; None if it was too short to tell."""
        return sum(self.watts) / len(self.watts) if len(self.watts) >= ENOUGH else None

    def __enter__(self) -> Self:
        if self.works:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self.works:
            self._thread.join()

    def _sample(self) -> None:
        assert self._read is not None
        while not self._stop.wait(EVERY):
            self.watts.append(self._read())


def _reader(device: torch.device) -> Any:
    """A function that reads the device's power in watts; None where NVML does not tell."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        # by its UUID: NVML's numbers are not CUDA's where CUDA_VISIBLE_DEVICES hides some
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetPowerUsage(handle)
    except Exception:  # no driver library, no right to read, a virtual GPU: the cells stay empty
        return None
    return lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000

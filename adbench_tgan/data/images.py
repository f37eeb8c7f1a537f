"""Images as the detectors see them: one size, uint8, decoded once."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adbench_tgan.detector import Shape

ROOM = 0.5  # share of a GPU's free memory that one image set may take


class ImageSet:
    """Images of one size as uint8 (N, C, H, W): resident on the GPU when they fit, else pinned and streamed.

    Raises:
        ValueError: they are something else.
    """

    def __init__(self, pixels: Tensor):
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(f"images must be uint8 (N, C, H, W), not {pixels.dtype} {tuple(pixels.shape)}")
        self._pixels = pixels.contiguous()
        self._resident: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self._pixels)

    @property
    def shape(self) -> Shape:
        """Channels, height and width of each image."""
        _, channels, height, width = self._pixels.shape
        return channels, height, width

    def on(self, device: str | torch.device) -> Tensor:
        """All images as one tensor: on `device` when they fit, else in (pinned) host memory."""
        device = torch.device(device)
        if device.type != "cuda":
            return self._pixels
        if device not in self._resident:
            free, _ = torch.cuda.mem_get_info(device)
            fits = self._pixels.nbytes < ROOM * free
            self._resident[device] = self._pixels.to(device) if fits else self._pixels.pin_memory()
        return self._resident[device]

    def checksum(self) -> int:
        """Changes when someone writes to the images, here or on a GPU."""
        writes = sum(0 if copy.is_inference() else copy._version for copy in self._resident.values())
        return zlib.crc32(self._pixels.numpy().data, writes)

    def leave_gpu(self) -> None:
        """Give up the copies on GPUs, or their memory would be counted as that of whoever works there next."""
        self._resident.clear()

    def batches(
        self,
        size: int,
        *,
        device: str | torch.device = "cpu",
        shuffle: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> Iterator[Tensor]:
        """Yield uint8 (B, C, H, W) on `device`, in order, or in an order drawn from `shuffle` (a CPU generator).

        `drop_last` drops an incomplete last batch, unless it is the only one.

        Raises:
            ValueError: `size` is below 1.
        """
        if size < 1:
            raise ValueError(f"a batch has at least one image, not {size}")
        pixels = self.on(device)
        count = len(self)
        order = torch.arange(count) if shuffle is None else torch.randperm(count, generator=shuffle)
        order = order.to(pixels.device)
        stop = count - count % size if drop_last and count >= size else count
        for start in range(0, stop, size):
            batch = pixels[order[start : min(start + size, stop)]]
            yield batch.to(device, non_blocking=True)


@dataclass(frozen=True)
class TrainSet:
    """What `Detector.fit` sees. `anomalies` is there only for detectors declared "labelled"."""

    normal: ImageSet
    anomalies: ImageSet | None = None

    @property
    def shape(self) -> Shape:
        """Channels, height and width of each image."""
        return self.normal.shape


@dataclass(frozen=True, kw_only=True)
class Split:
    """One category cut by a protocol, at one image size. Only the runner holds one."""

    normal: ImageSet  # to train on
    anomalies: ImageSet | None  # to train on, for labelled detectors
    test: ImageSet
    test_ids: tuple[str, ...]
    labels: np.ndarray  # uint8 (N,), 1 = anomaly
    masks: np.ndarray | None  # uint8 (N, H, W), 1 = defect, at the size at which maps are judged
    fingerprint: str
    anomalies_fingerprint: str = ""  # empty when the protocol offers none
    of_categories: int | None = None  # categories that the dataset has
    unofficial: str = ""  # how the images differ from the dataset's own, where that is known
    notes: tuple[str, ...] = ()  # what else a reader of its rows must know of the images

    def leave_gpu(self) -> None:
        """As `ImageSet.leave_gpu`."""
        for images in (self.normal, self.anomalies, self.test):
            if images is not None:
                images.leave_gpu()

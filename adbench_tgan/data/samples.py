"""A dataset's images with their classes, and how a protocol's cut of them becomes a split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adbench_tgan.data.images import ImageSet, Split
from adbench_tgan.errors import DataError, unknown

CHANNELS = (1, 3)  # of images: grey and colour
MASK_SIDE = 256  # maps are judged at the masks' own size, and at this one where masks are larger

Indices = NDArray[np.int64]
Pixels = NDArray[np.uint8]
Labelled = tuple[Pixels, NDArray[np.int64]]  # images (N, C, H, W) and the numbers of their classes (N,)


class ChangedError(DataError):
    """An image or a mask is no longer what it was when it was hashed."""


class Dataset(Protocol):
    """What a `DatasetSpec` loads."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the categories, each a task of its own."""

    @property
    def note(self) -> str:
        """A remark on the data that was found, such as whether the pixels are the official ones."""

    def samples(self, category: str) -> Samples:
        """The images that a protocol splits for `category`."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Images with their classes. `read(i)` gives image i as uint8 (C, H, W) at its own size.

    `read_mask(i)` gives the mask of image i as uint8 (H, W), 1 = defect; that of an image without a defect is all 0.
    """

    read: Callable[[int], Pixels]
    ids: Sequence[str]  # names, which identify images in score tables; no two test images share one
    classes: Sequence[str]  # class names; "good" for the normal images of a layout with defects
    parts: Sequence[str]  # "train" or "test"
    read_mask: Callable[[int], Pixels] | None = None
    # If all images have one size: reads several at once, as uint8 (n, C, H, W).
    read_many: Callable[[Indices], Pixels] | None = None
    release: Callable[[], None] = lambda: None  # gives up what `read` keeps in memory
    _shapes: dict[int, tuple[int, ...]] = field(default_factory=dict, init=False, repr=False)
    _digests: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)
    _mask_digests: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        counts = len(self.ids), len(self.classes), len(self.parts)
        if len(set(counts)) > 1:
            raise ValueError(
                f"samples have {counts[0]} ids, {counts[1]} classes and {counts[2]} parts; "
                "give one of each for each image"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _labels(self) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
        return np.asarray(self.parts), np.asarray(self.classes)

    def where(self, part: str, *, only: str | None = None, but: str | None = None) -> Indices:
        """Indices of the images of a part, optionally of `only` one class or of all `but` one."""
        parts, classes = self._labels
        chosen = parts == part
        if only is not None:
            chosen &= classes == only
        if but is not None:
            chosen &= classes != but
        return np.flatnonzero(chosen)

    def digest(self, index: int) -> bytes:
        """SHA-256 of image `index`: its shape and its pixels, before any resizing."""
        if index not in self._digests:
            pixels = self.read(index)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] not in CHANNELS:
                raise DataError(
                    f"image {self.ids[index]} is {pixels.dtype} {tuple(pixels.shape)}; "
                    "a dataset must read uint8 (C, H, W), with 1 or 3 channels"
                )
            self._digests[index], self._shapes[index] = _digest(pixels), pixels.shape
        return self._digests[index]

    def digests(self, indices: Indices) -> NDArray[np.uint8]:
        """The digests of those images, (n, 32)."""
        joined = b"".join([self._digests.get(i) or self.digest(i) for i in indices.tolist()])
        return np.frombuffer(joined, np.uint8).reshape(-1, hashlib.sha256().digest_size)

    def mask_bits(self, index: int) -> bytes:
        """The mask of image `index`, which has one: 8 pixels a byte."""
        bits = _bits(self._mask(index))
        self._mask_digests[index] = hashlib.sha256(bits).digest()
        return bits

    def _mask(self, index: int) -> Pixels:
        """The mask of image `index`, which has one, as a dataset must give it; one of truth values becomes bytes."""
        assert self.read_mask is not None
        mask = self.read_mask(index)
        if isinstance(mask, np.ndarray) and mask.dtype == bool:
            mask = mask.astype(np.uint8)
        if not (isinstance(mask, np.ndarray) and mask.dtype == np.uint8 and mask.ndim == 2):
            found = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        elif (highest := mask.max(initial=0)) > 1:
            found = f"uint8 up to {highest}"
        else:
            return mask
        raise DataError(
            f"mask of {self.ids[index]} is {found}; masks are uint8 (H, W): 1 = defect, and 0 all over where there is none"
        )

    def images(self, indices: Indices, size: int) -> Tensor:
        """Those images resized to (size, size): uint8 (n, C, size, size).

        Raises:
            ChangedError: one is not what it was when it was hashed.
        """
        if self.read_many is not None and self.read(0).shape[1:] == (size, size):
            return torch.from_numpy(self.read_many(indices))  # of arrays in memory, which no one changes
        resized = []
        for i in map(int, indices):
            image = self.read(i)
            self._compare(self._digests, i, _digest(image))
            # One after another: photographs at their own size would not all find room.
            resized.append(resize(image, size))
        channels = {image.shape[0] for image in resized}
        if len(channels) > 1:
            raise DataError(
                f"images with {sorted(channels)} channels in one dataset; convert them to one kind"
            )
        return torch.stack(resized)

    def _compare(self, known: dict[int, bytes], index: int, found: bytes) -> None:
        """Remember a hash, or raise unless it is the one remembered."""
        if known.setdefault(index, found) != found:
            raise ChangedError(f"{self.ids[index]} changed while it was in use; run again")

    def masks(self, indices: Indices) -> Pixels | None:
        """Their masks at one size, at most `MASK_SIDE`: uint8 (n, H, W).

        Raises:
            DataError: one is of another kind or not as large as its image, or a `ChangedError`, as for `images`.
        """
        if self.read_mask is None:
            return None
        masks = []
        for i in map(int, indices):
            mask, shape = self._mask(i), self._shapes.get(i) or self.read(i).shape
            if mask.shape != shape[1:]:
                turned = " (a rotation noted in EXIF is not applied)" if mask.shape == shape[:0:-1] else ""
                raise DataError(
                    f"mask of {self.ids[i]} is {mask.shape[1]}x{mask.shape[0]} pixels, "
                    f"its image {shape[2]}x{shape[1]}{turned}; replace the mask"
                )
            self._compare(self._mask_digests, i, hashlib.sha256(_bits(mask)).digest())
            masks.append(mask)
        if all(mask.shape == masks[0].shape for mask in masks) and max(masks[0].shape) <= MASK_SIDE:
            return np.stack(masks)
        return np.stack([_nearest(mask, MASK_SIDE) for mask in masks])


@dataclass(frozen=True, kw_only=True)
class ClassDataset:
    """A dataset whose classes are its categories, each cut out of the same images."""

    categories: tuple[str, ...]
    images: Samples
    note: str = ""  # what was found
    unofficial: str = ""  # how the images differ from the dataset's own, where that is known

    def samples(self, category: str) -> Samples:
        """All images, whichever the category."""
        if category not in self.categories:
            raise unknown("category", category, self.categories)
        return self.images


def labelled_arrays(names: Sequence[str], train: Labelled, test: Labelled) -> Samples:
    """Samples of two parts, each uint8 (N, C, H, W) with N indices into the class `names`."""
    pixels, labels = (train[0], test[0]), (train[1], test[1])
    counts = {"train": len(labels[0]), "test": len(labels[1])}

    def read(index: int) -> Pixels:
        of_test = index >= counts["train"]
        image: Pixels = pixels[of_test][index - of_test * counts["train"]]
        return image

    def read_many(indices: Indices) -> Pixels:
        of_test = indices >= counts["train"]
        for part, chosen in zip(pixels, (~of_test, of_test), strict=True):
            if chosen.all():  # copied once instead of twice
                return part.take(indices - of_test * counts["train"], axis=0)
        found = np.empty((len(indices), *pixels[0].shape[1:]), np.uint8)
        found[~of_test] = pixels[0][indices[~of_test]]
        found[of_test] = pixels[1][indices[of_test] - counts["train"]]
        return found

    return Samples(
        read=read,
        read_many=read_many if pixels[0].shape[1:] == pixels[1].shape[1:] else None,
        ids=[f"{part}-{i:05}" for part, count in counts.items() for i in range(count)],
        classes=[names[label] for part in labels for label in part],
        parts=[part for part, count in counts.items() for _ in range(count)],
    )


def class_dataset(
    names: tuple[str, ...], train: Labelled, test: Labelled, counts: str, note: str, *, official: bool
) -> ClassDataset:
    """The dataset of two parts, see `labelled_arrays`, with a `note` of an official one; of another, how it differs."""
    here = f"{len(train[1]):,} + {len(test[1]):,}"
    unlike = f"{here} images; not the official {counts if here != counts else 'pixels and labels'}"
    told = "" if official else unlike
    images = labelled_arrays(names, train, test)
    return ClassDataset(categories=names, images=images, note=told or note, unofficial=told)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What a protocol returns: indices into the samples.

    Labelled anomalies are chosen from the training images `on_offer`, and only for a detector that learns from them.
    `on_offer` and `choose_anomalies` are given both or not at all; no image on offer is a test image.
    """

    normal: Indices  # to train on
    test: Indices
    labels: NDArray[np.uint8]  # of the test images: 1 = anomaly
    on_offer: Indices | None = None  # all that labelled anomalies may be chosen from
    choose_anomalies: Callable[[], Indices] | None = None  # some of `on_offer`


def fingerprint(samples: Samples, cut: Cut) -> str:
    """SHA-256 over pixels and labels, in order: what rows must share to stand in one table."""
    whole = hashlib.sha256(_tagged(b"train", samples.digests(cut.normal)))
    whole.update(_tagged(b"test", np.column_stack([samples.digests(cut.test), cut.labels])))
    if samples.read_mask is not None:
        for index in map(int, cut.test):
            whole.update(b"mask" + samples.mask_bits(index))
    return whole.hexdigest()


def _tagged(tag: bytes, rows: NDArray[np.uint8]) -> bytes:
    """The bytes of the rows (n, m), with `tag` before each."""
    tags = np.frombuffer(tag * len(rows), np.uint8).reshape(len(rows), len(tag))
    return np.column_stack([tags, rows]).tobytes()


def fingerprint_of(samples: Samples, indices: Indices) -> str:
    """SHA-256 over the pixels of some images, in order."""
    return hashlib.sha256(samples.digests(indices).tobytes()).hexdigest()


def split(samples: Samples, cut: Cut, size: int, fingerprint: str, anomalies: Indices | None = None) -> Split:
    """Load one category's images at `size`, with the labelled `anomalies` chosen for training, if any."""
    return Split(
        normal=ImageSet(samples.images(cut.normal, size)),
        anomalies=None if anomalies is None else ImageSet(samples.images(anomalies, size)),
        test=ImageSet(samples.images(cut.test, size)),
        test_ids=tuple(samples.ids[i] for i in cut.test),
        labels=cut.labels,
        masks=samples.masks(cut.test),
        fingerprint=fingerprint,
        anomalies_fingerprint="" if anomalies is None else fingerprint_of(samples, anomalies),
    )


def resize(image: Pixels, size: int) -> Tensor:
    """(C, H, W) -> (C, size, size), bilinear with antialiasing; the same for every dataset and detector."""
    pixels = torch.from_numpy(np.require(image, requirements=("C", "W")))
    if pixels.shape[1:] == (size, size):
        return pixels.clone()
    resized = F.interpolate(
        pixels[None].float(), (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def _digest(pixels: Pixels) -> bytes:
    found = hashlib.sha256("x".join(map(str, pixels.shape)).encode())
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()


def _bits(mask: Pixels) -> bytes:
    return np.packbits(mask).tobytes()


def _nearest(mask: Pixels, size: int) -> Pixels:
    tensor = torch.from_numpy(np.ascontiguousarray(mask))[None, None].float()
    return F.interpolate(tensor, (size, size), mode="nearest-exact")[0, 0].numpy().astype(np.uint8)

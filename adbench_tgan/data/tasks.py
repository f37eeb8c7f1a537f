"""The categories of one dataset under one protocol: loaded once, cut, fingerprinted, split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adbench_tgan.data.cuts import check_alike, check_ids, check_offer, checked, chosen_anomalies
from adbench_tgan.data.images import Split
from adbench_tgan.data.remarks import remarks
from adbench_tgan.data.samples import (
    ChangedError,
    Cut,
    Dataset,
    Indices,
    Samples,
    fingerprint,
    fingerprint_of,
    split,
)
from adbench_tgan.data.spec import DatasetSpec, ProtocolSpec
from adbench_tgan.errors import AdbenchError, unknown
from adbench_tgan.hooks import load, one_line
from adbench_tgan.text import composed


class Tasks:
    """Cuts are kept; splits only those of the last category, since jobs come ordered by category."""

    def __init__(self, dataset: DatasetSpec, protocol: ProtocolSpec, root: Path, *, fetch: bool = True):
        if protocol.layout != dataset.layout:
            raise AdbenchError(
                f"protocol {protocol.name!r} is for datasets with {protocol.layout}, and {dataset.name!r} has "
                f"{dataset.layout}; use --protocol {dataset.protocol}"
            )
        if protocol.datasets and dataset.name not in protocol.datasets:
            raise AdbenchError(
                f"protocol {protocol.name!r} is for {' and '.join(protocol.datasets)} alone, not for "
                f"{dataset.name!r}; use --protocol {dataset.protocol}"
            )
        self.dataset, self.protocol, self.root = dataset, protocol, root
        with self._loading():
            self.loaded: Dataset = load(dataset.target)(root, fetch)
        with _blaming(f"protocol {protocol.name!r}"):
            self._cut = load(protocol.target)
        self._cuts: dict[str, tuple[Samples, Cut]] = {}
        self._fingerprints: dict[str, str] = {}
        self._anomalies: dict[str, Indices | None] = {}
        self._splits: dict[tuple[str, int, bool], Split] = {}

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of all categories: those of the protocol if it names some, else those of the dataset."""
        with self._loading():
            names = self.protocol.categories or tuple(self.loaded.categories)
            if strange := [name for name in names if not isinstance(name, str)]:
                raise TypeError(f"category {strange[0]!r} is not a string")
            if unnamed := [name for name in names if not name.strip()]:
                raise ValueError(f"category {unnamed[0]!r} has no name; give it one")
            return names

    @property
    def note(self) -> str:
        """What the dataset says of itself, such as whether its pixels are the official ones."""
        with self._loading():
            return self.loaded.note

    def named(self, category: str) -> str:
        """The category of that name, in whichever Unicode form it is given.

        Raises:
            AdbenchError: there is no such category.
        """
        if category in self.categories:
            return category
        for known in self.categories:
            if composed(known) == composed(category):
                return known
        under = f" under {self.protocol.name}" if self.protocol.categories else ""
        raise unknown(f"category of {self.dataset.name}{under}", category, self.categories)

    def cut(self, category: str) -> tuple[Samples, Cut]:
        """The images of a category and how the protocol cuts them.

        Raises:
            AdbenchError: there is no such category, or nothing can be learned or measured on it.
        """
        if category not in self._cuts:
            self.named(category)
            with self._loading():
                samples = self.loaded.samples(category)
                if not isinstance(samples, Samples):
                    raise TypeError(f"samples({category!r}) gave {type(samples).__name__}, not Samples")
            who = self._who(category)
            with _blaming(f"protocol {self.protocol.name!r}"):
                cut, again = (checked(samples, self._cut(samples, category), who) for _ in range(2))
                check_offer(samples, cut, who)
                check_alike(cut, again, who)
            check_ids(samples, cut, f"dataset {self.dataset.name!r}, category {category!r}")
            self._cuts[category] = samples, cut
        return self._cuts[category]

    def fingerprint(self, category: str) -> str:
        """Of the training normals, the test images, their labels and masks."""
        if category not in self._fingerprints:
            samples, cut = self.cut(category)
            with self._reading(category):
                self._fingerprints[category] = fingerprint(samples, cut)
        return self._fingerprints[category]

    def sides(self, category: str) -> tuple[int, int]:
        """Height and width of the first training image, which `fingerprint` has seen to be one."""
        self.fingerprint(category)
        samples, cut = self.cut(category)
        with self._reading(category):
            height, width = samples.read(int(cut.normal[0])).shape[1:]
            return height, width

    def brightness(self, category: str) -> NDArray[np.float64]:
        """The mean pixel value of each test image, which `fingerprint` has seen to be images."""
        self.fingerprint(category)
        samples, cut = self.cut(category)
        with self._reading(category):
            return np.array([samples.read(int(index)).mean() for index in cut.test])

    def notes(self, category: str) -> tuple[str, ...]:
        """What a reader of its rows must know of its images."""
        samples, cut = self.cut(category)
        with self._reading(category):
            return remarks(samples, cut, samples.masks(cut.test), cut.on_offer)

    def anomalies(self, category: str) -> Indices | None:
        """The training images chosen as labelled anomalies; None when the protocol offers none."""
        if category not in self._anomalies:
            samples, cut = self.cut(category)
            with self._reading(category, f"protocol {self.protocol.name!r} on "):
                self._anomalies[category] = chosen_anomalies(samples, cut, self._who(category))
        return self._anomalies[category]

    def offer_fingerprint(self, category: str) -> str:
        """Of all training images out of which labelled anomalies are chosen; empty when there are none.

        With the protocol's version it fixes what is chosen from, without the time that choosing takes; clusters, and so
        the choice, can differ between kinds of processors. `anomalies_fingerprint` of a result is that of the choice.
        """
        samples, cut = self.cut(category)
        with self._reading(category):
            return "" if cut.on_offer is None else fingerprint_of(samples, cut.on_offer)

    def release(self) -> None:
        """Give up images of full size that are in memory: they would count as that of a job."""
        for samples, _ in self._cuts.values():
            samples.release()

    def forget(self) -> None:
        """Let the next split be made anew from the dataset."""
        self._splits.clear()

    def split(self, category: str, size: int, *, labelled: bool) -> Split:
        """The images of one category at one size; with `labelled` also the anomalies on offer.

        Raises:
            AdbenchError: they are not those of the category's fingerprint any more.
        """
        asked = (category, size, labelled)
        for key, kept in self._splits.items():
            if key != asked:
                kept.leave_gpu()
        if asked not in self._splits:
            self._splits = {key: kept for key, kept in self._splits.items() if key[0] == category}
            self._splits[asked] = self._made(category, size, labelled)
        return self._splits[asked]

    def _made(self, category: str, size: int, labelled: bool) -> Split:
        samples, cut = self.cut(category)
        known = self.fingerprint(category)  # first: what is read from here on must have the same hashes
        try:
            chosen = self.anomalies(category) if labelled else None
            with self._reading(category):
                made = split(samples, cut, size, known, chosen)
                notes = remarks(samples, cut, made.masks, chosen)
        except ChangedError:
            raise changed(category) from None
        self.release()
        unofficial = getattr(self.loaded, "unofficial", "")  # only some datasets can tell
        return replace(made, of_categories=len(self.categories), unofficial=unofficial, notes=notes)

    def _who(self, category: str) -> str:
        """Whose mistake a wrong cut is."""
        return f"protocol {self.protocol.name!r}, category {category!r}"

    def _loading(self) -> AbstractContextManager[None]:
        """Let a mistake in what the dataset's own code gives name it."""
        return _blaming(f"dataset {self.dataset.name!r}")

    def _reading(self, category: str, who: str = "") -> AbstractContextManager[None]:
        """Let an error of the dataset's own reader name it and the category; also that of a file that is not there."""
        passing = AdbenchError, MemoryError
        return _blaming(f"{who}dataset {self.dataset.name!r}, category {category!r}", passing)


@contextmanager
def _blaming(
    whom: str, passing: tuple[type[Exception], ...] = (AdbenchError, OSError, MemoryError)
) -> Iterator[None]:
    """Let an error of a dataset's or a protocol's code name it; what is no mistake of its code passes as it is."""
    try:
        yield
    except passing:
        raise
    except (Exception, SystemExit) as error:
        raise AdbenchError(f"{whom}: {one_line(error)}; --debug shows where") from error


def changed(category: str) -> AdbenchError:
    """The error for images that are not those of a job's fingerprint any more."""
    return AdbenchError(f"the images of {category!r} changed since the job was planned; run again")

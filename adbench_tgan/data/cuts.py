"""What a protocol's cut must be before a detector sees an image of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from adbench_tgan.data.samples import Cut, Indices, Samples
from adbench_tgan.errors import DataError


def checked(samples: Samples, cut: Cut, who: str) -> Cut:
    """The cut that `who` made, its indices as arrays and its labels as bytes; `check_offer` has its anomalies.

    Raises:
        DataError: nothing can be learned from it, nothing measured on it, its images not told apart, or it tests on
            what it trains on.
    """
    normal, test, labels = map(np.asarray, (cut.normal, cut.test, cut.labels))
    on_offer = None if cut.on_offer is None else np.asarray(cut.on_offer)
    cut = replace(cut, normal=normal, test=test, labels=labels, on_offer=on_offer)
    for name, chosen in (("normal", normal), ("test", test)):
        if not _are_indices(chosen, len(samples)):
            raise DataError(f"{who}: {name} must be indices into its {len(samples)} images")
    if cut.labels.shape != cut.test.shape or not np.isin(cut.labels, (0, 1)).all():
        raise DataError(f"{who}: labels must be 0 or 1, one for each of its test images")
    if len(both := np.intersect1d(cut.normal, cut.test)):
        raise DataError(
            f"{who}: {len(both)} test images are among those it trains on; leave them out of normal"
        )
    if len(cut.normal) == 0:
        raise DataError(f"{who}: there is no normal training image; add some")
    for label, kind in enumerate(("normal", "abnormal")):
        if not (cut.labels == label).any():
            raise DataError(f"{who}: there is no {kind} test image, which an AUROC needs; add some")
    ((name, count),) = Counter(samples.ids[i] for i in cut.test.tolist()).most_common(1)
    if count > 1:
        raise DataError(f"{who}: two test images have the id {name!r}; each needs an id of its own")
    return replace(cut, labels=cut.labels.astype(np.uint8))


def check_ids(samples: Samples, cut: Cut, whose: str) -> None:
    """Refuse ids of test images that no file can hold, before any training; `whose` they are.

    Raises:
        DataError: one has half of a surrogate pair, as a file's name that is not UTF-8 has.
    """
    for name in (samples.ids[i] for i in cut.test.tolist()):
        try:
            str(name).encode()
        except UnicodeEncodeError:
            raise DataError(f"{whose}: the id {name!r} cannot be written as UTF-8; rename it") from None


def check_offer(samples: Samples, cut: Cut, who: str) -> None:
    """Refuse an offer of labelled anomalies that a detector must not learn from; `who` made the cut.

    Raises:
        DataError: it has test images, what it holds are no indices, or nothing chooses from it.
    """
    if (cut.on_offer is None) != (cut.choose_anomalies is None):
        raise DataError(f"{who}: on_offer and choose_anomalies go together; give both or neither")
    if cut.on_offer is None:
        return
    if not _are_indices(cut.on_offer, len(samples)):
        raise DataError(f"{who}: on_offer must be indices into its {len(samples)} images")
    if count := int(np.isin(cut.test, cut.on_offer).sum()):
        raise DataError(f"{who}: {count} test images are among those on_offer; offer training images alone")


def check_alike(cut: Cut, again: Cut, who: str) -> None:
    """Refuse two cuts of the same images that differ: no job could be planned by one and run by the other.

    Raises:
        DataError: they do.
    """
    for name in ("normal", "test", "labels", "on_offer"):
        if not np.array_equal(getattr(cut, name), getattr(again, name)):
            raise DataError(
                f"{who}: {name} differs between two calls; use a random generator with a fixed seed"
            )


def chosen_anomalies(samples: Samples, cut: Cut, who: str) -> Indices | None:
    """The labelled anomalies that the cut chooses; None when it offers none.

    Raises:
        DataError: there are none, some are normal training images, or some are not on offer, so that neither
            `check_offer` nor the offer's fingerprint knew of them.
    """
    if cut.choose_anomalies is None or cut.on_offer is None:
        return None
    chosen = np.asarray(cut.choose_anomalies())
    if chosen.size == 0:
        raise DataError(
            f"{who}: choose_anomalies() chooses no image; let it choose one at least, or offer none"
        )
    if not (_are_indices(chosen, len(samples)) and np.isin(chosen, cut.on_offer).all()):
        raise DataError(
            f"{who}: choose_anomalies() gives images that are not among those on_offer; choose from on_offer alone"
        )
    if count := int(np.isin(cut.normal, chosen).sum()):
        raise DataError(f"{who}: {count} of the labelled anomalies are normal training images; choose others")
    return chosen


def _are_indices(chosen: Indices, count: int) -> bool:
    """Whether they can be looked up among `count` images."""
    if chosen.ndim != 1:
        return False
    return len(chosen) == 0 or (chosen.dtype.kind in "iu" and bool(0 <= chosen.min() <= chosen.max() < count))

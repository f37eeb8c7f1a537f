"""One detector on images of one shape: what the checks look at, made once and when it is first asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import Tensor

from adbench_tgan.checkpoints import NOT_KEPT, Checkpoint
from adbench_tgan.data.images import ImageSet
from adbench_tgan.detector import Detector, Shape
from adbench_tgan.hooks import one_line
from adbench_tgan.ranking.statistics import relative_change
from adbench_tgan.store.drafts import draft_name
from adbench_tgan.testing.outcome import CheckFailed, Skipped
from adbench_tgan.testing.pictures import negative, other_images, smooth_images
from adbench_tgan.testing.subject import Subject
from adbench_tgan.testing.traces import Traces, learned, traced
from adbench_tgan.testing.watched import WatchedTrainSet
from adbench_tgan.training import fit, seed_everything

if TYPE_CHECKING:
    from adbench_tgan.testing.processes import Finding

TOLERANCE = 1e-5  # relative: the largest difference of two scores that should be the same
SEED, OTHER_SEED = 0, 1
KEEP = "keep what fit learns in networks, which build makes, or in tensor attributes, or write state and load_state"


class Trial:
    """A detector, fitted on a few smooth images of one shape, and the images that it is probed with."""

    def __init__(self, subject: Subject, shape: Shape, find: Callable[[Trial], Finding]):
        self.subject, self.shape, self._find = subject, shape, find
        self.asked: list[str] = []  # what fit wanted of the training images beyond the contract
        self.train = self.training_images(smooth_images)
        self._probe = smooth_images(10, shape, seed=1)
        self.returned: object = None  # by fit
        self._learned: dict[str, Tensor] = {}  # the state before the first score
        self.fit_seconds = 0.0
        self.epochs = 0  # of a training that `epochs` makes
        self.broken = ""  # why it cannot be fitted or cannot score

    def training_images(self, make: Callable[[int, Shape, int], Tensor]) -> WatchedTrainSet:
        """A training set, with labelled anomalies for a detector that learns from them."""
        labelled = self.subject.info.supervision == "labelled"
        anomalies = ImageSet(negative(make(24, self.shape, 2))) if labelled else None
        return WatchedTrainSet(ImageSet(make(40, self.shape, 0)), anomalies, self.asked)

    @property
    def probe(self) -> Tensor:
        """The images to be scored, a fresh copy each time."""
        return self._probe.clone()

    @property
    def detector(self) -> Detector:
        """Built and fitted as the runner does it, and able to score.

        Raises:
            Skipped: it is not; a check of its own says so, the others have nothing to look at.
        """
        return self._fitted_and_scored[0]

    @property
    def scores(self) -> Tensor:
        """Of the probe, all in one batch."""
        return self._fitted_and_scored[1]

    @cached_property
    def _fitted_and_scored(self) -> tuple[Detector, Tensor]:
        if self.broken:  # it is not tried again
            raise Skipped("it does not fit and score")
        doing, start = "fit", time.perf_counter()
        try:
            detector, self.returned = self._fit(SEED)
            self.fit_seconds = time.perf_counter() - start
            with suppress(Exception):  # a check of its own says so
                self._learned = learned(detector)
            doing = "score"
            scores = detector.score(self.probe)
            if not isinstance(scores, Tensor):
                raise TypeError(f"it gives a {type(scores).__name__}, not a tensor")
        except (Exception, SystemExit) as error:  # a stranger's detector may fail in any way
            self.broken = f"{doing} raises {one_line(error)}"
            raise Skipped("it does not fit and score") from error
        return detector, scores.clone()

    @cached_property
    def newcomer(self) -> Detector:
        """One that has scored nothing, so it remembers no image: loaded from what fit learned, else fitted once more."""
        scores = self.scores
        with suppress(Exception, SystemExit):  # a check of its own says so
            proof, twin = (self.subject.built(SEED).load_state(self._learned, self.shape) for _ in range(2))
            if same(scores, proof.score(self.probe)):
                return twin
        return self.fitted(SEED)

    @cached_property
    def traces(self) -> Traces:
        """What one look at the probe leaves behind."""
        return traced(self.detector, self.probe)

    @cached_property
    def other_seed_scores(self) -> Tensor:
        """Of the probe, from a detector of another seed."""
        return self.fitted(OTHER_SEED).score(self.probe)

    @cached_property
    def refitted(self) -> tuple[Tensor, Tensor]:
        """Scores of the probe from one detector, fitted on other images first, and then on the usual ones."""
        detector = self.subject.built(SEED)
        seed_everything(SEED)
        detector.fit(self.training_images(other_images))
        others = detector.score(self.probe).clone()
        seed_everything(SEED)
        detector.fit(self.train)
        return others, detector.score(self.probe)

    @cached_property
    def resumed(self) -> Tensor | None:
        """Scores of the probe after a training that was cut after each of `cuts`; None where none can be taken up.

        Raises:
            CheckFailed: it calls `resume`, and could not be kept.
        """
        if type(self.detector).fit is not Detector.fit:
            return None
        with TemporaryDirectory(prefix=f"{draft_name()}-") as folder:
            path = Path(folder) / "kept.checkpoint"
            for last in self.cuts:
                detector = self.seeded(SEED)
                with suppress(Cut):
                    fit(detector, self.train, cut_after(last), Checkpoint(path, "trial", every=1))
                if failed := [note for note in detector.notes if note.startswith(NOT_KEPT)]:
                    raise CheckFailed(failed[0])
            if not path.exists():
                return None
            detector = self.seeded(SEED)
            fit(detector, self.train, checkpoint=Checkpoint(path, "trial"))
            return detector.score(self.probe)

    @property
    def cuts(self) -> list[int]:
        """After how many epochs a training is cut: the first ones, half of them, all but one, and all."""
        return sorted({1, 2, self.epochs // 2, self.epochs - 1, self.epochs} & set(range(1, self.epochs + 1)))

    def seeded(self, seed: int) -> Detector:
        """A detector built as the runner does it."""
        seed_everything(seed)
        return self.subject.built(seed)

    @cached_property
    def finding(self) -> Finding:
        """What another process saw of the same detector."""
        return self._find(self)

    def fitted(self, seed: int) -> Detector:
        """A detector built and fitted as the runner does it."""
        return self._fit(seed)[0]

    def _fit(self, seed: int) -> tuple[Detector, object]:
        detector = self.seeded(seed)
        if type(detector).fit is not Detector.fit:
            return detector, detector.fit(self.train)
        self.epochs = len(fit(detector, self.train))
        return detector, detector


class Cut(Exception):
    """A training ends before its end."""


def cut_after(last: int) -> Callable[[int, object], None]:
    """What raises `Cut` at the end of epoch `last`."""

    def look(epoch: int, _: object) -> None:
        if epoch == last:
            raise Cut

    return look


def untrained(trial: Trial) -> Tensor | None:
    """The scores of a detector that has its networks and no training; None where it cannot score without."""
    detector = trial.seeded(SEED)
    try:
        detector.build(trial.shape)
        for network in detector.networks.values():
            network.eval()
        return detector.score(trial.probe)
    except Exception:  # most detectors cannot, each in its own way
        return None


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative as in `statistics.relative_change`."""
    before, after = (scores.detach().double().cpu().numpy() for scores in (a, b))
    return relative_change(before, after, before)


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to within `TOLERANCE`."""
    return gap(a, b) <= TOLERANCE

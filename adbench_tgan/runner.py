"""Runs jobs. The only file where a detector meets labels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from adbench_tgan import __version__
from adbench_tgan.checkpoints import Checkpoint
from adbench_tgan.codebase import code_behind
from adbench_tgan.data.images import ImageSet, Split, TrainSet
from adbench_tgan.data.tasks import Tasks, changed
from adbench_tgan.detector import Detector
from adbench_tgan.errors import AdbenchError
from adbench_tgan.failures import explain, failed
from adbench_tgan.info import SUITE
from adbench_tgan.interrupts import handlers_kept, not_swallowed
from adbench_tgan.jobs import Job
from adbench_tgan.machine import device_name, machine
from adbench_tgan.metrics import QUANTILE
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result, ResultStore, checkpoint_name
from adbench_tgan.scoring import (
    Tell,
    check_scores,
    map_all,
    operations,
    pictures,
    purity,
    purity_of_maps,
    reconstruction_error,
    sample,
    score_all,
    warm_up,
)
from adbench_tgan.statements import check_losses, notes_of, parameters_of
from adbench_tgan.store.keeping import stored
from adbench_tgan.store.places import place_of
from adbench_tgan.timing import Clock, PeakMemory, latency, stopwatch
from adbench_tgan.torch_settings import precision, process_to_itself
from adbench_tgan.training import fit, seed_everything


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How jobs are run; nothing here changes a score beyond rounding."""

    device: str = "cpu"
    data_root: Path = Path("data")
    timing: bool = True
    save_models: bool = False
    workers: int | None = None  # jobs at a time; None leaves it to the executor
    jobs_per_gpu: int | Literal["auto"] | None = None  # jobs that share the GPU at a time
    job_timeout: float | None = None  # seconds that a job may take
    address: str | None = None  # of a cluster that runs already
    gpus_per_job: float | None = None  # share of a GPU, or number of them, on a cluster
    scratch: Path | None = None  # for what executors write on the way; None is the system's temporary folder
    pictures: bool = False  # of training images, for a reporter that shows them
    checkpoints: str = ""  # folder or URL where trainings are kept while they last
    checkpoint_every: int | None = None  # epochs; None goes on with what is kept there, and keeps nothing


class Reporter(Protocol):
    """Who is told how the jobs get on."""

    def reading(self, category: str, number: int, count: int) -> None:
        """The images of a category, one of `count`, are read, so that its jobs are known."""

    def planned(self, missing: Sequence[Job], kept: int) -> None:
        """These jobs are to be run; so many others that were asked for are finished already."""

    def job_started(self, job: Job) -> None:
        """A job begins."""

    def phase(self, name: str, job: Job) -> None:
        """`job` comes to "data", "fit", "score", "threshold", "purity", "timing" or "metrics"."""

    def epoch(self, number: int, total: int | None, losses: Mapping[str, float], job: Job) -> None:
        """An epoch has ended, out of `total` if that is known."""

    def images(self, done: int, total: int, job: Job) -> None:
        """So many images of this phase are done; told now and then."""

    def job_finished(self, result: Result) -> None:
        """A job ended, well or not."""

    def warn(self, message: str) -> None:
        """Something to know that stops nothing."""


Executor = Callable[[Iterable[Job], Settings, Tasks, Registry, Reporter], Iterator[Result]]


def run(
    jobs: Iterable[Job],
    store: ResultStore,
    executor: Executor,
    settings: Settings,
    tasks: Tasks,
    registry: Registry,
    reporter: Reporter,
) -> Iterator[Result]:
    """Yield a result per job, stored the moment it is there."""
    results = executor(jobs, settings, tasks, registry, reporter)
    try:
        for made in results:
            result = stored(made, store, settings, reporter.warn)
            reporter.job_finished(result)
            registry.tell("adbench_job_finished", reporter.warn, job=result.job, result=result)
            yield result
    finally:  # an executor's processes end now, not when its iterator happens to be collected
        if isinstance(results, Generator):
            results.close()


def announce(job: Job, registry: Registry, reporter: Reporter) -> None:
    """Tell plugins and the user that a job begins; executors do so in the command's own process."""
    registry.tell("adbench_job_started", reporter.warn, job=job)
    reporter.job_started(job)


def attempt(job: Job, settings: Settings, tasks: Tasks, registry: Registry, reporter: Reporter) -> Result:
    """Run one job; whatever goes wrong in it becomes a failed result, never an exception but Ctrl-C's."""
    try:
        with begun(job, settings.device, tasks, registry, reporter) as begin:
            return run_job(job, begin, settings, registry, reporter)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's detector may raise anything
        tasks.forget()  # images that it may have written to
        return failed(job, settings, error)


@dataclass(frozen=True, kw_only=True)
class Begin:
    """What a job begins with."""

    split: Split
    code: Mapping[str, object]  # that runs it
    detector: Callable[[], Detector]  # makes it, new and seeded


@contextmanager
def begun(job: Job, device: str, tasks: Tasks, registry: Registry, reporter: Reporter) -> Iterator[Begin]:
    """Begin a job, in a process to itself, which Ctrl-C ends whatever the detector makes of it.

    Raises:
        AdbenchError: the job cannot run, its detector or images are not those that were planned, or the detector wrote
            to the images.
    """
    if job.problem:
        raise AdbenchError(job.problem)
    if (here := registry.find("detector", job.detector).version) != job.detector_version:
        planned = f"the run was planned with version {job.detector_version} of {job.detector}"
        raise AdbenchError(
            f"{planned}, and version {here} is installed where it runs; install the same in both places, then run again"
        )
    with process_to_itself():
        reporter.phase("data", job)
        detector_class = registry.detector(job.detector)
        code = code_behind(detector_class, registry.distribution(job.detector))  # before its files can change
        config = detector_class.Config.model_validate(dict(job.config))
        split = tasks.split(job.category, config.image_size, labelled=job.supervision == "labelled")
        if split.fingerprint != job.split_fingerprint:
            raise changed(job.category)

        def detector() -> Detector:
            seed_everything(job.seed)  # before the detector exists, or its initial weights escape the seed
            return detector_class(config, device=device, seed=job.seed)

        with not_swallowed(), pixels_kept(split):
            yield Begin(split=split, code=code, detector=detector)


@contextmanager
def pixels_kept(split: Split) -> Iterator[None]:
    """See to it that a detector leaves the training images as they are: the next one learns from them too.

    Raises:
        AdbenchError: it wrote to them.
    """
    sets = [images for images in (split.normal, split.anomalies) if images is not None]
    before = [images.checksum() for images in sets]
    yield
    if [images.checksum() for images in sets] != before:
        raise AdbenchError(
            "it wrote to its training images; let it work on a copy, images.on(device).clone()"
        )


def run_job(job: Job, begin: Begin, settings: Settings, registry: Registry, reporter: Reporter) -> Result:
    """Fit and score one detector, and measure both. Same job, same machine, same numbers."""
    split, device, tell = begin.split, settings.device, partial(reporter.images, job=job)
    memory = PeakMemory(device)

    with precision(job.precision, device):
        detector = begin.detector()
        reporter.phase("fit", job)
        losses, fit_seconds = train(detector, job, begin, settings, reporter)

        reporter.phase("score", job)
        image = warm_up(detector, split.test, device)
        with stopwatch(device) as scoring:
            scores = score_all(detector, split.test, device, tell)
        check_scores(scores)
        peak = memory.megabytes()
        reporter.phase("threshold", job)
        threshold = float(np.quantile(score_all(detector, sample(split.normal), device, tell), QUANTILE))
        reconstruction, unmeasured = reconstructed(detector, split.normal, device)
        reporter.phase("purity", job)
        purity_delta = purity(detector, split.test, scores, device)
        reporter.phase("timing", job)
        timing = measure(detector, image, len(scores), fit_seconds, scoring) if settings.timing else {}

        reporter.phase("metrics", job)
        maps = maps_of(detector, split, device, tell)
        if maps is not None:
            purity_delta = max(purity_delta, purity_of_maps(detector, split.test, maps, device))
        metrics, notes = evaluate(maps, split.masks, scores, split.labels, threshold, registry, device)
        shown = pictured(detector, split.normal, job, settings, reporter)

    return Result(
        job=job,
        status="ok",
        metrics=metrics,
        timing=timing | ({"peak_memory_mb": peak} if settings.timing else {}),
        parameters=parameters_of(detector),
        threshold=threshold if np.isfinite(threshold) else None,
        purity_delta=purity_delta,
        reconstruction_error=reconstruction,
        anomalies_fingerprint=split.anomalies_fingerprint,
        shape=split.test.shape,
        device=device_name(device),
        machine={**machine(device), "code": begin.code},
        notes=(*split.notes, *notes_of(detector), *unmeasured, *notes),
        declared=dict(registry.find("detector", job.detector).expected_failures),
        suite=SUITE,
        code=registry.code(job.detector),
        metrics_code=registry.metrics_code(metrics),
        of_categories=split.of_categories,
        unofficial=split.unofficial,
        version=__version__,
        scores=pd.DataFrame({"sample_id": split.test_ids, "label": split.labels, "score": scores}),
        losses=tuple(losses),
        state=detector.state() if settings.save_models else None,
        pictures=shown,
    )


def train(
    detector: Detector, job: Job, begin: Begin, settings: Settings, reporter: Reporter
) -> tuple[list[dict[str, float]], float]:
    """Fit a detector, or go on where an interrupted training was kept; its losses, and the seconds of both together."""
    if type(detector).fit is Detector.fit:
        import_module("torch._dynamo")  # the first optimiser of a process would: seconds, but no training
    kept = checkpoint(job, begin, settings)  # which counts its seconds from here
    images = TrainSet(begin.split.normal, begin.split.anomalies)
    total = detector.expected_epochs(images)

    def on_epoch(number: int, means: Mapping[str, float]) -> None:
        check_losses(means)
        reporter.epoch(number, total, means, job)

    with stopwatch(settings.device) as clock, handlers_kept():
        losses = fit(detector, images, on_epoch, kept)
    return losses, clock.seconds + (kept.seconds - kept.spent if kept else 0)


def checkpoint(job: Job, begin: Begin, settings: Settings) -> Checkpoint | None:
    """Where a job's training is kept while it lasts, if anywhere: no code goes on with what other code began."""
    if not settings.checkpoints:
        return None
    path = place_of(settings.checkpoints) / checkpoint_name(job)
    key = f"{job.key} {begin.code['framework']} {begin.code['detector']}"
    return Checkpoint(path, key, settings.checkpoint_every)


def pictured(
    detector: Detector, images: ImageSet, job: Job, settings: Settings, reporter: Reporter
) -> dict[str, Tensor]:
    """`pictures` for a reporter that shows them; none where they cannot be drawn, which costs the job nothing."""
    try:
        return pictures(detector, images) if settings.pictures else {}
    except Exception as error:
        reporter.warn(f"{job}: no pictures: {explain(error, settings.device)}")
        return {}


def reconstructed(detector: Detector, images: ImageSet, device: str) -> tuple[float | None, list[str]]:
    """`reconstruction_error` of training images, and a note if it could not be measured: scores do not need it."""
    try:
        return reconstruction_error(detector, images, device), []
    except Exception as error:
        return None, [f"its reconstructions were not measured: {explain(error, device)}"]


def measure(
    detector: Detector, image: Tensor, count: int, fit_seconds: float, scoring: Clock
) -> dict[str, Any]:
    """Latency at batch 1 with all its samples, operations of one image, and what `count` images took to be scored."""
    samples = latency(detector.score, image, fit_seconds + scoring.seconds)
    return {
        "latency_ms": samples,
        "latency_ms_p50": float(np.percentile(samples, 50)),
        "latency_ms_p99": float(np.percentile(samples, 99)),
        "flops_per_image": operations(detector, image),
        "fit_seconds": fit_seconds,
        "score_seconds": scoring.seconds,
        "images_per_second": count / scoring.device_seconds,
    }


def maps_of(detector: Detector, split: Split, device: str, tell: Tell) -> np.ndarray | None:
    """The test set's anomaly maps, float32 (N, H, W); None if there are none, or no mask to judge them by."""
    if split.masks is None or not split.masks.any() or not detector.has_maps:
        return None
    return map_all(detector, split.test, split.masks.shape[1:], device, tell)


def evaluate(
    maps: np.ndarray | None,
    masks: np.ndarray | None,
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float,
    registry: Registry,
    device: str,
) -> tuple[dict[str, float], list[str]]:
    """All metrics that apply, and a note for each that could not be computed.

    Each has copies of its own: what it writes into them is not what is stored.
    """
    values: dict[str, float] = {}
    notes = []
    for spec in registry.metrics():
        try:
            given: tuple[Any, ...]
            if spec.level == "image":
                given = scores.copy(), labels.copy(), threshold
            elif maps is not None and masks is not None:
                given = maps.copy(), masks.copy()
            else:
                continue
            found = registry.load("metric", spec.name)(*given)
            if isinstance(found, str | bytes | bool | np.bool_):
                raise TypeError(f"it returned {found!r}, not a number")
            value = float(found)
            if not np.isfinite(value):
                raise ValueError(f"it returned {value}")
            values[spec.name] = value
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # one metric must not cost the job
            notes.append(f"{spec.name} not computed: {explain(error, device)}")
    return values, notes

"""A whole run: from a request to stored results and tables."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import pandas as pd

from adbench_tgan.data.classfolders import ensure_apart
from adbench_tgan.errors import AdbenchError
from adbench_tgan.executors import answerable
from adbench_tgan.hooks import ExecutorSpec, one_line
from adbench_tgan.jobs import Job, Request, plan
from adbench_tgan.leaderboard import LEADERBOARD_COLUMNS, METRICS, RESULT_COLUMNS
from adbench_tgan.machine import bf16_is_slow
from adbench_tgan.ranking.published import read_published
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result, ResultStore, result_of
from adbench_tgan.runner import Reporter, Settings, run
from adbench_tgan.store.asking import answers
from adbench_tgan.store.claims import Claims
from adbench_tgan.store.drafts import ensure_temporary
from adbench_tgan.store.keeping import patiently
from adbench_tgan.store.places import ensure_ours, ensure_writable, is_remote, place_of
from adbench_tgan.store.sharing import Sharing
from adbench_tgan.tables import once, saying_interrupted, write_in_time, write_tables
from adbench_tgan.terminal.pace import silent, through
from adbench_tgan.workers.packing import check_packing

WITHIN = ("phase", "epoch", "images")  # what a reporter is told by a job itself
FIRST = {  # how the tables begin
    "results.csv": ",".join(RESULT_COLUMNS[:3]),
    "leaderboard.csv": ",".join(LEADERBOARD_COLUMNS[:3]),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run ended with: one result a job, in the jobs' order, and the leaderboard they stand on.

    A result is what its ``result.json`` says. ``ResultStore(out).scores(job)`` reads its scores, ``losses`` its losses,
    ``trace`` is the file of a traceback, and ``predict.load_detector`` reads the model from its folder.
    """

    results: tuple[Result, ...]
    leaderboard: pd.DataFrame
    ran: int  # jobs that were run now; the others were found finished
    elsewhere: tuple[str, ...] = ()  # categories with results, of the same protocol, that were not asked for

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results of jobs that failed."""
        return tuple(result for result in self.results if result.status != "ok")


def benchmark(
    request: Request,
    settings: Settings,
    registry: Registry,
    reporter: Reporter,
    out: Path | str = "runs",
    executor: str = "local",
    published: Path | str | None = None,
) -> Outcome:
    """Run what is not yet in `out`, then write ``results.csv`` and ``leaderboard.csv``, also when interrupted.

    `out` is a folder, or an fsspec URL; `published` a table of what papers print, for the columns about it. An error in
    a method of `reporter` is a warning of Python's, and stops nothing; to stop the run it raises `KeyboardInterrupt`.

    Raises:
        AdbenchError: the request or the table is wrong, or `out` cannot be written.
        KeyboardInterrupt: after the tables of what was finished are written.
    """
    reporter = cast("Reporter", Undisturbed(reporter))
    execute = answerable(executor, registry.load("executor", executor))
    printed = read_published(Path(published)) if published else ()
    check_options(settings, registry.find("executor", executor), registry)
    device = on_cluster(settings) or usable(str(settings.device))
    ensure_offered(request.precision, device, reporter.warn)
    check_packing(replace(settings, device=device))
    store = fit_store(out, request)
    settings = replace(
        settings,
        device=device,
        data_root=request.data_root,
        scratch=store.scratch,
        checkpoints=str(store.checkpoints.absolute()),
    )
    planned = plan(request, registry, reporter.warn, reporter.reading)
    store.open()
    fresh: dict[str, Result] = {}
    missing, before, kept = looked_at(
        planned.jobs, store, registry, reporter, with_model=settings.save_models
    )
    write = partial(write_tables, store, planned.jobs, registry, printed, once(reporter.warn))
    try:
        with Claims(store.root.absolute()) as claims, saying_interrupted(reporter.warn):
            shared = Sharing(missing, before, store, claims, reporter, with_model=settings.save_models)
            for jobs in shared.rounds():
                for result in run(jobs, store, execute, settings, planned.tasks, registry, reporter):
                    fresh[result.job.key] = result_of(result)  # scores, losses and weights fill memory
                    claims.release(result.job)
    except KeyboardInterrupt:
        write_in_time(write, store, reporter.warn)
        raise
    table, elsewhere = patiently(write, reporter.warn)
    results = patiently(partial(outcomes, planned.jobs, kept | fresh, store), reporter.warn)
    return Outcome(
        results=without_gaps(planned.jobs, results, executor),
        leaderboard=table,
        ran=len(fresh),
        elsewhere=elsewhere,
    )


class Undisturbed:
    """Tells another reporter everything, whose errors are not those of a run: each method's first one is a warning.

    A terminal that is gone ends the command, but not within a job, whose failure it would be.
    """

    def __init__(self, inner: Reporter):
        self._inner, self._warned = inner, set[str]()

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):  # as those who copy and pickle look for
            raise AttributeError(name)
        return partial(self._tell, name)

    def _tell(self, name: str, /, *facts: object, **named: object) -> None:
        try:
            getattr(self._inner, name)(*facts, **named)
        except (Exception, SystemExit) as error:
            if isinstance(error, BrokenPipeError) and name not in WITHIN:
                raise
            if name not in self._warned:
                self._warned.add(name)
                with warnings.catch_warnings():
                    warnings.simplefilter("always")  # also where warnings are errors
                    warnings.warn(f"the reporter's {name} failed: {one_line(error)}", stacklevel=2)


def ensure_fit(out: Path, request: Request, first: Mapping[str, str]) -> None:
    """See to it, before the work, that a folder is apart from the images, can be written to, and is ours.

    `first` is how our files in it begin.

    Raises:
        AdbenchError: it is not.
    """
    ensure_apart(out, request.dataset, request.data_root)
    ensure_temporary()
    # Before its files are looked at: this has the remedy for a place that is not to be had.
    ensure_writable(out)
    ensure_ours(out, first)


def fit_store(out: Path | str, request: Request) -> ResultStore:
    """The results in a folder, still to be opened, once it is known that it is fit for more and can be listed: before the work.

    Raises:
        AdbenchError: it is not, or cannot be.
    """
    place = place_of(out) if isinstance(out, str) else out
    ensure_fit(place, request, FIRST)
    store = ResultStore(place)
    store.listed()
    return store


def outcomes(
    jobs: Sequence[Job], known: Mapping[str, Result], store: ResultStore
) -> tuple[Result | None, ...]:
    """What became of each job: the result that is known by its key, or what another run has stored."""
    return tuple(answers(lambda job: known.get(job.key) or store.outcome(job), jobs, store.root))


def without_gaps(jobs: Sequence[Job], results: Sequence[Result | None], executor: str) -> tuple[Result, ...]:
    """A result for each job.

    Raises:
        AdbenchError: the executor left some out.
    """
    if gaps := [job for job, result in zip(jobs, results, strict=True) if result is None]:
        raise AdbenchError(
            f"executor {executor!r} gave no result for {len(gaps)} of {len(jobs)} jobs, the first {gaps[0]}; "
            "run again, or with --executor local"
        )
    return tuple(result for result in results if result)


def looked_at(
    jobs: Sequence[Job], store: ResultStore, registry: Registry, reporter: Reporter, *, with_model: bool
) -> tuple[list[Job], dict[str, str], dict[str, Result]]:
    """As `unfinished`; the reporter is told of it, and of what is remarkable about the others.

    Raises:
        AdbenchError: a later version has stored some.
        StoreAway: the store did not answer for minutes.
    """
    look = partial(unfinished, jobs, store, with_model=with_model, say=reporter.warn)
    missing, before, kept = patiently(look, reporter.warn)
    patiently(partial(refuse_newer, store, [job for job in missing if before[job.key]]), reporter.warn)
    reporter.planned(missing, len(jobs) - len(missing))
    warn_of_other_code(kept.values(), registry, reporter.warn)
    warn_of_other_metrics(kept.values(), registry, reporter.warn)
    return missing, before, kept


def unfinished(
    jobs: Sequence[Job], store: ResultStore, *, with_model: bool, say: Callable[[str], None] = silent
) -> tuple[list[Job], dict[str, str], dict[str, Result]]:
    """The jobs to be run, the stamp of what is stored of each, and the results of the others; both by key.

    What changes a stamp is another run's doing. Each job was looked at once more after it, so that there is no gap in
    which another run could finish it unseen. Of an object store, which would be asked eight times about each job of
    which nothing is stored, one listing tells which these are. `say` is told now and then how far it is.
    """
    there, kept = store.listed() if is_remote(store.root) else None, dict[str, Result]()

    def is_there(job: Job) -> bool:
        return there is None or store.folder(job) / "result.json" in there

    def look(job: Job) -> Result | None:
        return store.get(job, with_model=with_model) if is_there(job) else None

    def lacking(some: Sequence[Job]) -> list[Job]:
        found = through(answers(look, some, store.root), "looked at", len(some), say)
        looked = list(zip(some, found, strict=True))
        kept.update((job.key, result) for job, result in looked if result is not None)
        return [job for job, result in looked if result is None]

    missing = lacking(jobs)
    stamps = answers(lambda job: store.stamp(job) if is_there(job) else "", missing, store.root)
    before = {job.key: stamp for job, stamp in zip(missing, stamps, strict=True)}
    return lacking(missing), before, kept


def check_options(settings: Settings, executor: ExecutorSpec, registry: Registry) -> None:
    """Refuse what the executor would not heed."""
    for name in ("workers", "jobs_per_gpu", "job_timeout", "address", "gpus_per_job"):
        value = getattr(settings, name)
        alone = name == "workers" and value == 1  # as where there are none
        if value is not None and name not in executor.options and not alone:
            able = [spec.name for spec, _ in registry.offers("executor") if name in spec.options]
            option = f"--{name.replace('_', '-')} {value if isinstance(value, str) else f'{value:g}'}"
            raise AdbenchError(
                f"{option}: executor {executor.name!r} has no such option; use --executor {' or '.join(able)}"
            )


def warn_of_other_code(finished: Iterable[Result], registry: Registry, warn: Callable[[str], None]) -> None:
    """Say so where finished jobs were run by code that has since been changed without a new version."""
    finished = list(finished)
    codes = {name: registry.code(name) for name in {result.job.detector for result in finished}}
    others: Counter[tuple[str, str, str]] = Counter()
    for result in finished:
        installed = codes[result.job.detector]
        if installed and result.code and result.code != installed:
            others[result.job.detector, result.code, installed] += 1
    for (name, then, now), count in sorted(others.items()):
        warn(
            f"{name}: {count} finished jobs were run by other code ({then}) than is installed now ({now}); if it gives other "
            "scores, raise the detector's version, and they are run again"
        )


def warn_of_other_metrics(
    finished: Iterable[Result], registry: Registry, warn: Callable[[str], None]
) -> None:
    """Say so where finished jobs lack a plugin's metric, installed or mended after they were run, or have another's."""
    added = [spec for spec in registry.metrics() if spec.name not in METRICS]
    if not added:  # `METRICS` are of every job
        return
    lacking: Counter[str] = Counter()
    codes = registry.metrics_code([spec.name for spec in added])
    others: Counter[tuple[str, str]] = Counter()
    for result in finished:
        # Maps, and masks to judge them by, were there where the framework's own metric is.
        able = [spec.name for spec in added if spec.level == "image" or "pixel_auroc" in result.metrics]
        lacking.update(set(able) - result.metrics.keys())
        others.update(case for case in result.metrics_code.items() if case[1] != codes.get(case[0], case[1]))
    for name, count in sorted(lacking.items()):
        warn(
            f"metric {name}: {count} finished jobs lack it, and are not run again for it; to have it, run them into another --out"
        )
    for (name, then), count in sorted(others.items()):
        warn(
            f"metric {name}: in {count} finished jobs it was computed by other code ({then}) than there is now "
            f"({codes[name]}); for comparable values, run them into another --out"
        )


def refuse_newer(store: ResultStore, stored: Sequence[Job]) -> None:
    """Raise when some of the jobs to run, of which something is stored, are stored by a later version: they are neither run again nor replaced."""
    found = answers(store.is_newer, stored, store.root)
    newer = [job for job, is_newer in zip(stored, found, strict=True) if is_newer]
    if newer:
        raise AdbenchError(
            f"{len(newer)} of these jobs, the first {newer[0]}, are stored in {store.root} by a newer adbench-tgan; "
            "upgrade, or give --out another folder"
        )


def on_cluster(settings: Settings) -> str:
    """The device of jobs that get GPUs of a cluster, which this machine need not have; empty for all others.

    Raises:
        AdbenchError: the share of a GPU goes with another device, or is none that Ray cuts.
    """
    share = settings.gpus_per_job
    if not share:
        return ""
    given = f"--gpus-per-job {share:g}"
    if settings.device not in ("auto", "cuda"):  # of the GPUs of a cluster a job sees its own, as the first
        raise AdbenchError(f"{given} cannot be combined with --device {settings.device}; leave one out")
    if share > 1 and share != int(share):
        raise AdbenchError(f"{given}: give a share below 1, or whole GPUs")
    return "cuda"


def ensure_offered(precision: str, device: str, warn: Callable[[str], None]) -> None:
    """Refuse a precision that a device does not have, which would be recorded and not used; warn of one that is slow.

    Raises:
        AdbenchError: it has not.
    """
    if precision == "tf32" and not device.startswith("cuda"):
        raise AdbenchError(f"--precision tf32 needs a CUDA device, not {device}; use fp32 or bf16")
    if precision == "bf16" and device == "cpu" and bf16_is_slow():
        warn(
            "--precision bf16: this CPU has no instructions for it and may need many times as long; fp32 is faster"
        )


def usable(device: str) -> str:
    """Resolve "auto", and refuse a device that is not there, or is not supported, such as mps.

    Raises:
        AdbenchError: it is such a device.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise AdbenchError(f"--device {device}: not supported; use auto, cpu, cuda or cuda:N")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise AdbenchError(f"--device {device}: {reason}; use --device auto or cpu") from None
    return device

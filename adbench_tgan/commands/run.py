"""``adbench run``: train, score, rank."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adbench_tgan.commands.options import (
    Categories,
    Data,
    DataRoot,
    Detectors,
    Device,
    Plugins,
    Precision,
    Preset,
    Protocol,
    Published,
    Seeds,
    Set,
    complete,
    interruptible,
    published_table,
    registry,
    request_of,
)
from adbench_tgan.commands.show import draw, tell, warn
from adbench_tgan.errors import AdbenchError

if TYPE_CHECKING:
    from adbench_tgan.benchmark import Outcome

DETECTORS = "ganomaly,pca,mean_image,random"  # a GAN and three anchors: quick on slow machines too


Executor = Annotated[
    str,
    typer.Option(
        help="How to run jobs: local, processes, ray, or a plugin's.",
        autocompletion=complete("executor", several=False),
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Jobs to run at a time, unless local.  [default: 1; on a cluster, as many as fit]",
    ),
]
JobsPerGpu = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Jobs that share the GPU at a time; auto: as many as fit into its memory.  [default: 1]",
    ),
]
JobTimeout = Annotated[
    float | None,
    typer.Option(
        min=1, metavar="SECONDS", help="Stop a job after this time and count it as failed.  [default: never]"
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Head of a running Ray cluster, or auto to find it.  [default: start one on this machine]",
    ),
]
GpusPerJob = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        metavar="SHARE",
        help="GPUs that a job reserves on a cluster, such as 0.25 or 1.  [default: none]",
    ),
]
Out = Annotated[str, typer.Option(help="Folder for the results, or an fsspec URL: s3://bucket/prefix.")]
NoTiming = Annotated[bool, typer.Option("--no-timing", help="Measure no times; their columns stay empty.")]
SaveModels = Annotated[
    bool, typer.Option("--save-models", help="Save each job's model, for predict and report.")
]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="EPOCHS",
        help="Save a checkpoint this often; repeating the command resumes from it.  [default: never]",
    ),
]
EventFiles = Annotated[
    Path | None, typer.Option(help="Write TensorBoard event files (losses, pictures) to this folder.")
]


def run(
    detectors: Detectors = DETECTORS,
    data: Data = "digits",
    data_root: DataRoot = None,
    protocol: Protocol = None,
    categories: Categories = None,
    seeds: Seeds = "0",
    preset: Preset = None,
    set_: Set = None,
    plugin: Plugins = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    executor: Executor = "local",
    workers: Workers = None,
    jobs_per_gpu: JobsPerGpu = None,
    job_timeout: JobTimeout = None,
    address: Address = None,
    gpus_per_job: GpusPerJob = None,
    out: Out = "runs",
    no_timing: NoTiming = False,
    save_models: SaveModels = False,
    checkpoint_every: CheckpointEvery = None,
    tensorboard: EventFiles = None,
    published: Published = None,
) -> None:
    """Train and score detectors, and print the leaderboard. Finished jobs are not run again."""
    from adbench_tgan.benchmark import benchmark
    from adbench_tgan.events import EventReporter
    from adbench_tgan.runner import Settings
    from adbench_tgan.store.places import place_of
    from adbench_tgan.terminal.progress import TerminalReporter

    place = place_of(out)
    found = registry(plugin)
    request = request_of(
        found, detectors, data, data_root, protocol, categories, seeds, preset, set_, precision
    )
    settings = Settings(
        device=device,
        timing=not no_timing,
        save_models=save_models,
        checkpoint_every=checkpoint_every,
        workers=workers,
        jobs_per_gpu=number_or_auto(jobs_per_gpu),
        job_timeout=job_timeout,
        address=address,
        gpus_per_job=gpus_per_job,
        pictures=tensorboard is not None,
    )
    with ExitStack() as stack:
        terminal = stack.enter_context(TerminalReporter())
        stack.enter_context(interruptible(terminal.say, place))
        reporter = stack.enter_context(EventReporter(terminal, tensorboard)) if tensorboard else terminal
        outcome = benchmark(request, settings, found, reporter, place, executor, published_table(published))
    show_outcome(outcome, place)
    raise typer.Exit(1 if outcome.failed else 0)


def number_or_auto(text: str | None) -> int | Literal["auto"] | None:
    """What ``--jobs-per-gpu`` says."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal() or len(text) > 6 or int(text) == 0:
        raise AdbenchError(f"--jobs-per-gpu: {text!r} is not a number of jobs; give 1 or more, or auto")
    return int(text)


def show_outcome(outcome: Outcome, place: Path) -> None:
    """Print the leaderboard, where the details are, and what failed."""
    from adbench_tgan.results import ResultStore
    from adbench_tgan.terminal.views import leaderboard_views

    if outcome.ran == 0:
        tell(f"nothing was run: all {len(outcome.results)} jobs are finished in {place}")
    job = outcome.results[0].job
    for view in leaderboard_views(outcome.leaderboard, f"{job.dataset}, {job.protocol}"):
        draw(view)
    tell(f"{place / 'results.csv'} and {place / 'leaderboard.csv'} hold the details")
    if outcome.elsewhere:
        tell(
            f"the leaderboard covers the categories asked for; {place} has results of {len(outcome.elsewhere)} more, "
            "which adbench report and publish include"
        )
    store = ResultStore(place)
    for result in outcome.failed:
        trace = store.trace(result.job)
        warn(f"failed: {result.job}: {result.error}{f'; {trace} shows where' if trace else ''}")

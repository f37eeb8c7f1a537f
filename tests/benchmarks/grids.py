"""A ten-category grid of jobs on one GPU: one after another in this process, and in as many processes as fit.

Part of gpu.py: ``python tests/benchmarks/gpu.py --only grid``. Images are made up; a GAN takes as long for them as for
others. One after another in this process is the fastest way without company: a process of its own costs seconds.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1]))

from make_data import make_cifar10

from adbench_tgan.benchmark import benchmark
from adbench_tgan.jobs import Request
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result, ResultStore
from adbench_tgan.runner import Reporter, Settings

DETECTOR = "ganomaly"
MODES = {"local": ("local", {}), "auto": ("processes", {"jobs_per_gpu": "auto"})}


class Mute(Reporter):
    """A reporter that says nothing, as the protocol's own methods do."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a grid took. Overhead is wall time that was neither fit nor score, without the start of the first job."""

    results: tuple[Result, ...]
    seconds: float  # of all, on the wall

    @property
    def own(self) -> float:
        """Seconds of fit and score, of all jobs."""
        return sum(each.timing["fit_seconds"] + each.timing["score_seconds"] for each in self.results)

    @property
    def overhead(self) -> float:
        """Seconds a job, of jobs that ran one at a time."""
        return (self.seconds - self.own) / len(self.results)

    @property
    def at_once(self) -> int:
        """Jobs that ran side by side at most."""
        return max(int(each.machine.get("jobs_at_once", 1)) for each in self.results)

    def difference(self, other: Grid) -> float:
        """The largest difference of a job's scores, relative to its largest score."""
        theirs = {each.job.key: scores(each) for each in other.results}
        return max(
            float(np.abs(scores(each) - theirs[each.job.key]).max() / np.abs(scores(each)).max())
            for each in self.results
        )


def scores(result: Result) -> np.ndarray:
    assert result.scores is not None
    return result.scores["score"].to_numpy()


def run_grid(mode: str, device: str, *, tiny: bool) -> Grid:
    """Run the grid in one of `MODES`; tiny on two digits with small networks."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()  # what was measured before needs it no more
    executor, options = MODES[mode]
    settings = Settings(device=device, **options)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        if not tiny:
            make_cifar10(root / "data", batch=10_000, test=10_000)
        warm = Request(
            detectors=[DETECTOR],
            dataset="digits" if tiny else "cifar10",
            data_root=root / "data",
            categories=["0"] if tiny else ["ship"],
            seeds=[1],
            overrides=[f"{DETECTOR}.epochs=1"],
            precision="tf32" if device.startswith("cuda") else "fp32",
        )
        if mode == "local":  # libraries load, the device starts
            benchmark(warm, settings, Registry.discover(), Mute(), root / "warm", executor)
        asked = Request(
            detectors=[DETECTOR],
            dataset=warm.dataset,
            data_root=warm.data_root,
            categories=["0", "1"] if tiny else (),
            overrides=warm.overrides if tiny else (),
            precision=warm.precision,
        )
        started = perf_counter()
        outcome = benchmark(asked, settings, Registry.discover(), Mute(), root / "runs", executor)
        seconds = perf_counter() - started
        if outcome.failed:
            raise RuntimeError(f"{outcome.failed[0].job}: {outcome.failed[0].error}")
        store = ResultStore(root / "runs")
        results = tuple(replace(each, scores=store.scores(each.job)) for each in outcome.results)
    return Grid(results=results, seconds=seconds)

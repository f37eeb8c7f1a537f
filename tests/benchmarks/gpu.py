"""How fast a GPU trains, searches and runs many jobs, with CUDA graphs and without: ``python tests/benchmarks/gpu.py``.

It takes some minutes, writes gpu.csv, gpu.json and profiles to --out (default $OUT, else the folder it is called in)
after every measurement, and prints a table at the end. Images are made up: speed does not depend on them.
``--only grid`` measures many jobs on one GPU and nothing else, see grids.py; ``--only profile`` just the kernels.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

sys.path.append(str(Path(__file__).parent))

from grids import MODES, Grid, run_grid

from adbench_tgan import Detector, ImageSet, TrainSet
from adbench_tgan.machine import device_name, machine
from adbench_tgan.registry import Registry
from adbench_tgan.testing import smooth_images
from adbench_tgan.timing import stopwatch
from adbench_tgan.torch_settings import precision
from adbench_tgan.training import seed_everything

DETECTORS = ("ganomaly", "skip_ganomaly", "sagan", "transgan_dual")
PRECISIONS = ("fp32", "tf32", "bf16")
SIDE = 32
WALK_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement; what does not apply is empty."""

    what: str  # training, equality, walk or grid
    detector: str
    precision: str
    mode: str  # eager or graph; of a grid: local, auto
    batch: int | None = None
    steps: int | None = None  # on the clock
    ms_per_step: float | None = None
    images_per_second: float | None = None
    difference: float | None = (
        None  # equality: the largest relative difference of losses, graph against eager; of a grid of scores
    )
    jobs: int | None = None  # of a grid
    jobs_at_once: int | None = None  # at most
    seconds: float | None = None  # of all jobs, on the wall
    overhead_seconds: float | None = None  # a job, beside fit and score, the first start apart
    overhead_share: float | None = None  # of fit and score
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured."""

    device: str
    tiny: bool

    @property
    def batch(self) -> int:
        return 8 if self.tiny else 64

    @property
    def precisions(self) -> tuple[str, ...]:
        return PRECISIONS[:1] if self.tiny else PRECISIONS

    def steps(self, name: str, mode: str) -> int:
        if self.tiny:
            return 2
        slow = mode == "eager" or name == "transgan_dual"  # whose features take long, off the clock
        return 20 if slow else 100


def build(name: str, scale: Scale, mode: str, settings: dict[str, Any]) -> Detector:
    """A detector of the paper's size, or a small one, seeded."""
    kind = Registry.discover().detector(name)
    preset = kind.presets["quick"] if scale.tiny else {}
    seed_everything(0)
    detector = kind(kind.Config(**(preset | settings)), device=scale.device)
    detector.graphs = mode == "graph"
    return detector


def settings_of(name: str, scale: Scale) -> dict[str, Any]:
    """Batches of one size; the two-discriminator TransGAN without its other phase, and with a backbone that is here."""
    settings: dict[str, Any] = {"batch_size": scale.batch, "epochs": 3}
    if name == "transgan_dual":
        from adbench_plugins.features import lite0_file

        backbone = "tf_efficientnet_lite0" if lite0_file() else "none"
        settings |= {"warmup_epochs": 0, "backbone": backbone}
    return settings


def train_set(name: str, scale: Scale, steps: int) -> TrainSet:
    """So many images that an epoch has `steps` steps."""
    dual = name == "transgan_dual"  # half of its batch are anomalies
    count = steps * scale.batch // (2 if dual else 1)
    few = smooth_images(min(count, 256), (3, SIDE, SIDE), seed=0)
    normal = ImageSet(few[torch.arange(count) % len(few)])
    return TrainSet(normal, ImageSet(255 - few) if dual else None)


def training(name: str, dtype: str, mode: str, scale: Scale) -> Row:
    """Images per second of an epoch's steps, from the second epoch on."""
    steps = scale.steps(name, mode)
    settings = settings_of(name, scale)
    with precision(dtype, scale.device):
        detector = build(name, scale, mode, settings)
        epochs = detector.epochs(train_set(name, scale, steps))
        next(epochs)
        with stopwatch(scale.device) as clock:
            count = steps * sum(1 for _ in epochs)
    note = "; ".join([*detector.notes, f"backbone {settings['backbone']}" if "backbone" in settings else ""])
    return Row(
        what="training",
        detector=name,
        precision=dtype,
        mode=mode,
        batch=scale.batch,
        steps=count,
        ms_per_step=1000 * clock.seconds / count,
        images_per_second=count * scale.batch / clock.seconds,
        note=note.strip("; "),
    )


def equality(name: str, scale: Scale) -> Row:
    """How far the mean losses of the first steps in a graph are from those of plain calls."""
    steps = 2 if scale.tiny else 12
    losses = {}
    notes: list[str] = []
    for mode in ("eager", "graph"):
        with precision("fp32", scale.device):
            detector = build(name, scale, mode, settings_of(name, scale))
            losses[mode] = next(detector.epochs(train_set(name, scale, steps)))
        notes += detector.notes
    gaps = [
        abs(losses["graph"][key] - value) / max(abs(value), 1e-6) for key, value in losses["eager"].items()
    ]
    return Row(
        what="equality",
        detector=name,
        precision="fp32",
        mode="graph",
        batch=scale.batch,
        steps=steps,
        difference=max(gaps),
        note="; ".join(notes),
    )


def walk(images: int, iterations: int, dtype: str, mode: str, scale: Scale) -> Row:
    """Images per second of TransGAN's latent walk of 1,000 iterations, from the time that `iterations` of them take."""
    side = SIDE if scale.tiny else WALK_SIDE
    settings = {"image_size": side, "walk_steps": iterations, "together": None}
    detector = build("transgan_anogan", scale, mode, settings)
    detector.build((3, side, side))
    for network in detector.networks.values():
        network.eval().requires_grad_(False)
    batch = smooth_images(images, (3, side, side), seed=1).to(scale.device)
    with precision(dtype, scale.device):
        short = detector.config.model_copy(update={"walk_steps": 2})
        detector.config, config = short, detector.config
        detector.walk(batch)  # libraries load and allocate
        detector.config = config
        with stopwatch(scale.device) as clock:
            detector.walk(batch)
    return Row(
        what="walk",
        detector="transgan_anogan",
        precision=dtype,
        mode=mode,
        batch=images,
        steps=iterations,
        ms_per_step=1000 * clock.seconds / iterations,
        images_per_second=images * iterations / 1000 / clock.seconds,
        note="; ".join(detector.notes),
    )


def grid(mode: str, scale: Scale, done: dict[str, Grid]) -> Row:
    """A ten-category one-vs-rest grid; scores are compared with those of jobs one after another in this process."""
    done[mode] = found = run_grid(mode, scale.device, tiny=scale.tiny)
    local = mode == "local"
    return Row(
        what="grid",
        detector=found.results[0].job.detector,
        precision=found.results[0].job.precision,
        mode=mode,
        difference=None if local or "local" not in done else found.difference(done["local"]),
        jobs=len(found.results),
        jobs_at_once=found.at_once,
        seconds=found.seconds,
        overhead_seconds=found.overhead if local else None,
        overhead_share=found.overhead * len(found.results) / found.own if local else None,
        note="; ".join(sorted({note for each in found.results for note in each.notes})),
    )


def measurements(scale: Scale) -> Iterator[tuple[str, Callable[[], Row]]]:
    """What is measured, the quick ones first."""
    for name in DETECTORS:
        yield f"equality {name}", lambda name=name: equality(name, scale)
    for name in DETECTORS:
        for dtype in scale.precisions:
            for mode in ("graph", "eager") if dtype == scale.precisions[-1] else ("graph",):
                yield (
                    f"training {name} {dtype} {mode}",
                    lambda name=name, dtype=dtype, mode=mode: training(name, dtype, mode, scale),
                )
    some, many = (2, 2) if scale.tiny else (50, 160)
    walks = [(1, 4 * some, "fp32", "eager"), (1, 4 * some, "fp32", "graph")]
    if not scale.tiny:
        walks += [
            (many, some, "fp32", "graph"),
            (many, some, "tf32", "graph"),
            (many, 2 * some, "bf16", "graph"),
        ]
    for images, iterations, dtype, mode in walks:
        yield (
            f"walk of {images} {dtype} {mode}",
            lambda a=images, b=iterations, c=dtype, d=mode: walk(a, b, c, d, scale),
        )

    done: dict[str, Grid] = {}
    for mode in ("local",) if scale.tiny else MODES:
        yield f"grid {mode}", lambda mode=mode: grid(mode, scale, done)


def profiles(scale: Scale, only: str, out: Path) -> None:
    """Which kernels the time goes to, of plain calls in the last precision, in a file each."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = scale.device.startswith("cuda")
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    many = 2 if scale.tiny else 160
    dtype = scale.precisions[-1]
    names = DETECTORS[:1] if scale.tiny else DETECTORS
    tasks: dict[str, Callable[[], object]] = {
        name: lambda name=name: profiled_epoch(name, dtype, scale) for name in names
    }
    tasks["walk"] = lambda: walk(many, 3, dtype, "eager", scale)
    for name, task in tasks.items():
        if only in f"profile {name}":
            with profile(activities=[activity]) as found:
                task()
            (out / f"profile-{name}.txt").write_text(
                found.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=120)
            )


def profiled_epoch(name: str, dtype: str, scale: Scale) -> None:
    with precision(dtype, scale.device):
        detector = build(name, scale, "eager", settings_of(name, scale) | {"epochs": 1})
        list(detector.epochs(train_set(name, scale, 2 if scale.tiny else 10)))


def write(rows: list[Row], scale: Scale, out: Path) -> None:
    names = [field.name for field in fields(Row)]
    with (out / "gpu.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows(
            {key: "" if value is None else value for key, value in asdict(row).items()} for row in rows
        )
    facts = {"device": device_name(scale.device), "machine": machine(scale.device)}
    (out / "gpu.json").write_text(
        json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
    )


def table(rows: list[Row]) -> Iterator[str]:
    """The lines of the table; walks as a ratio to the walk of one image, grids to one job after another."""
    alone = next((row.images_per_second for row in rows if row.what == "walk" and row.batch == 1), None)
    for row in rows:
        value = "" if row.images_per_second is None else f"{row.images_per_second:,.4g} images/s"
        if row.difference is not None:
            value = f"largest difference {row.difference:.2g}"
        if row.what == "grid":
            value = "; ".join(grid_words(row, rows))
        if row.what == "walk" and alone and row.images_per_second:
            value += f", {row.images_per_second / alone:.3g} times one at a time"
        pace = "" if row.ms_per_step is None else f"{row.ms_per_step:.3g} ms/step"
        batch = "" if row.batch is None else row.batch
        yield (
            f"{row.what:9} {row.detector:15} {row.precision:5} {row.mode:6} {batch:>4} {pace:>16}  {value}"
            f"{'  ' + row.note if row.note else ''}"
        )


def grid_words(row: Row, rows: list[Row]) -> Iterator[str]:
    """What a grid took, as far as that is known."""
    yield f"{row.jobs} jobs in {row.seconds:.3g} s, {row.jobs_at_once} at once at most"
    one = next((each.seconds for each in rows if each.what == "grid" and each.mode == "local"), None)
    if row.mode != "local" and one and row.seconds:
        yield f"{one / row.seconds:.3g} times one after another"
    if row.overhead_seconds is not None and row.overhead_share is not None:
        yield f"{row.overhead_seconds:.3g} s a job beside fit and score, {100 * row.overhead_share:.2g} % of them"
    if row.difference is not None:
        yield f"largest difference of scores {row.difference:.2g}"


def measured(name: str, measure: Callable[[], Row]) -> Row:
    """A measurement, or a row that says why there is none."""
    started = perf_counter()
    try:
        row = measure()
    except Exception as error:  # one that fails must not cost the others
        what, _, rest = name.partition(" ")
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        row = Row(what=what, detector=rest, precision="", mode="", note=f"failed: {reason}")
    print(f"{name}: {perf_counter() - started:.0f} s {row.note}", file=sys.stderr, flush=True)
    return row


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="small networks and few steps, to try it out")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", default="", help="measure only what has this text in its name")
    given = parser.parse_args(words)
    scale = Scale(device=given.device, tiny=given.tiny)
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name, measure in measurements(scale):
        if given.only in name:
            rows.append(measured(name, measure))
            write(rows, scale, given.out)
    profiles(scale, given.only, given.out)
    print(device_name(scale.device))
    print("\n".join(table(rows)))
    return int(any(row.note.startswith("failed") for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())

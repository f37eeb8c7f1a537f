"""What adbench is told of this plugin: each hook once. What is slow to import is named here, not imported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adbench_tgan import CommandSpec, DatasetSpec, DetectorInfo, ExecutorSpec, ProtocolSpec, hookimpl

if TYPE_CHECKING:
    from adbench_tgan.jobs import Job
    from adbench_tgan.metrics import MetricSpec
    from adbench_tgan.results import Result


@hookimpl
def adbench_detectors() -> Iterator[DetectorInfo]:
    yield DetectorInfo(
        name="pca_patches",
        target="adbench_example_pca.detector:PCAPatches",
        family="linear",
        deterministic=True,
        paper="Tipping & Bishop, Probabilistic Principal Component Analysis, JRSS B 61(3), 1999, "
        "https://doi.org/10.1111/1467-9868.00196",
        extras=("anomaly_map",),
    )


@hookimpl
def adbench_datasets() -> Iterator[DatasetSpec]:
    yield DatasetSpec(
        name="fabric",
        target="adbench_example_pca.fabric:load",
        layout="defects",
        protocol="official",
        channels=1,
        preset="quick",
        summary="360 drawn grey images of cloth in two weaves, 64x64 pixels, defects with masks",
        licence="CC0 1.0",
    )


@hookimpl
def adbench_protocols() -> Iterator[ProtocolSpec]:
    yield ProtocolSpec(
        name="official-20",
        version="1",
        target="adbench_example_pca.protocol:official_20",
        layout="defects",
        summary="official, trained on the first 20 training images",
    )


@hookimpl
def adbench_metrics() -> Iterator[MetricSpec]:
    from adbench_tgan.metrics import MetricSpec

    yield MetricSpec(
        name="tpr_at_fpr5",
        target="adbench_example_pca.metric:tpr_at_fpr5",
        summary="share of anomalies found at 5 % false alarms",
    )


@hookimpl
def adbench_executors() -> Iterator[ExecutorSpec]:
    yield ExecutorSpec(
        name="retry",
        target="adbench_example_pca.executor:retry",
        summary="one job after another; one that fails is run once more",
    )


@hookimpl
def adbench_commands() -> Iterator[CommandSpec]:
    yield CommandSpec(
        name="pca-basis",
        target="adbench_example_pca.command:pca_basis",
        summary="Draw the patches that a saved pca_patches model learned.",
    )


@hookimpl
def adbench_job_started(job: Job) -> None:
    from adbench_example_pca.log import note

    note("started", job)


@hookimpl
def adbench_job_finished(job: Job, result: Result) -> None:
    from adbench_example_pca.log import note

    note(result.status, job)

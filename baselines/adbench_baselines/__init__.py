"""The published GAN baselines: one paper, one file."""

from __future__ import annotations

from collections.abc import Iterator

from adbench_tgan import DetectorInfo, hookimpl


@hookimpl
def adbench_detectors() -> Iterator[DetectorInfo]:
    yield DetectorInfo(
        name="ganomaly",
        target="adbench_baselines.ganomaly:GANomaly",
        family="encoder-decoder-encoder GAN",
        paper="Akcay, Atapour-Abarghouei, Breckon, ACCV 2018, https://arxiv.org/abs/1805.06725",
        extras=("anomaly_map", "reconstruct"),
    )

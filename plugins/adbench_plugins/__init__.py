"""The detectors shipped as plugins: the thesis's TransGAN, and anchors to measure everything against."""

from __future__ import annotations

from collections.abc import Iterator

from adbench_tgan import DetectorInfo, hookimpl


@hookimpl
def adbench_detectors() -> Iterator[DetectorInfo]:
    yield DetectorInfo(
        name="transgan_dual",
        target="adbench_plugins.transgan.dual:TransGANDual",
        family="gan",
        supervision="labelled",
        pretrained=True,
        paper="Nayan Khemka, thesis 'Anomaly Detection using TransGAN', on Jiang et al., TransGAN, "
        "NeurIPS 2021, https://arxiv.org/abs/2102.07074",
        extras=("anomaly_map", "reconstruct"),
    )
    yield DetectorInfo(name="random", target="adbench_plugins.anchors:Random", family="anchor")
    for name, cls in (("mean_image", "MeanImage"), ("pca", "PCA")):
        yield DetectorInfo(
            name=name,
            target=f"adbench_plugins.anchors:{cls}",
            family="anchor",
            extras=("anomaly_map", "reconstruct"),
        )

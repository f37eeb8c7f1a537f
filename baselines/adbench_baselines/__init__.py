"""The published GAN baselines: one paper, one file."""

from __future__ import annotations

from collections.abc import Iterator

from adbench_tgan import DetectorInfo, hookimpl


@hookimpl
def adbench_detectors() -> Iterator[DetectorInfo]:
    yield DetectorInfo(
        name="f_anogan",
        target="adbench_baselines.f_anogan:FAnoGAN",
        family="WGAN-GP with an encoder",
        paper="Schlegl et al., Medical Image Analysis 2019, https://doi.org/10.1016/j.media.2019.01.010",
        aliases=("fanogan",),
        extras=("anomaly_map", "reconstruct"),
    )
    yield DetectorInfo(
        name="egbad",
        target="adbench_baselines.egbad:EGBAD",
        family="BiGAN",
        paper="Zenati et al., ICLR Workshops 2018, https://arxiv.org/abs/1802.06222",
        extras=("anomaly_map", "reconstruct"),
    )
    yield DetectorInfo(
        name="anogan",
        target="adbench_baselines.anogan:AnoGAN",
        family="latent-search GAN",
        paper="Schlegl, Seeboeck, Waldstein, Schmidt-Erfurth, Langs, IPMI 2017, https://arxiv.org/abs/1703.05921",
        extras=("anomaly_map", "reconstruct"),
    )
    yield DetectorInfo(
        name="ganomaly",
        target="adbench_baselines.ganomaly:GANomaly",
        version="2",
        family="encoder-decoder-encoder GAN",
        paper="Akcay, Atapour-Abarghouei, Breckon, ACCV 2018, https://arxiv.org/abs/1805.06725",
        extras=("anomaly_map", "reconstruct"),
        as_published_on=("cifar10",),  # it shuffles the test images of other data
    )
    yield DetectorInfo(
        name="skip_ganomaly",
        target="adbench_baselines.skip_ganomaly:SkipGANomaly",
        version="2",
        family="reconstruction GAN",
        paper="Akcay, Atapour-Abarghouei, Breckon, IJCNN 2019, https://arxiv.org/abs/1901.08954",
        extras=("anomaly_map", "reconstruct"),
        as_published_on=("*",),
    )
    yield DetectorInfo(
        name="sagan",
        target="adbench_baselines.sagan:SAGAN",
        version="2",
        family="reconstruction GAN",
        paper="Liu, Lan et al., Skip-Attention GAN, ICIP 2021, https://doi.org/10.1109/ICIP42928.2021.9506332",
        aliases=("skip_attention_gan",),
        extras=("anomaly_map", "reconstruct"),
        as_published_on=("*",),
    )

"""The detectors shipped as plugins: TransGAN's and AnoTrans, and anchors to measure everything against."""

from __future__ import annotations

from adbench_tgan import DetectorInfo, hookimpl

THESIS = (
    "Nayan Khemka, thesis 'Anomaly Detection using TransGAN', on Jiang et al., TransGAN, NeurIPS 2021, "
    "https://arxiv.org/abs/2102.07074"
)

METHODS = (
    DetectorInfo(
        name="transgan_anogan",
        target="adbench_plugins.transgan.anogan:TransGANAnoGAN",
        family="latent-search GAN",
        paper=THESIS,
        extras=("anomaly_map", "reconstruct"),
    ),
    DetectorInfo(
        name="transgan_dual",
        target="adbench_plugins.transgan.dual:TransGANDual",
        family="reconstruction GAN, two discriminators",
        supervision="labelled",
        pretrained=True,
        paper=THESIS,
        extras=("anomaly_map", "reconstruct"),
    ),
    DetectorInfo(
        name="anotrans",
        target="adbench_plugins.anotrans:AnoTrans",
        family="skip-connected GAN",
        paper="Yang, Lan et al., ICANN 2022, https://github.com/SYLan2019/Transformer-Gan-Anomaly-Detection",
        extras=("anomaly_map", "reconstruct"),
        as_published_on=("*",),
    ),
)

ANCHORS = (
    DetectorInfo(
        name="random",
        target="adbench_plugins.anchors:Random",
        family="anchor",
        expected_failures={
            "training_changes_the_scores": "it learns nothing",
            "an_obvious_defect_scores_higher": "its scores are chance",
        },
    ),
    DetectorInfo(
        name="mean_pixel",
        target="adbench_plugins.anchors:MeanPixel",
        family="anchor",
        deterministic=True,
        expected_failures={"training_changes_the_scores": "it learns nothing"},
    ),
    *(
        DetectorInfo(
            name=name,
            target=f"adbench_plugins.anchors:{cls}",
            family="anchor",
            extras=("anomaly_map", "reconstruct", "map_mean"),
            deterministic=True,
        )
        for name, cls in (("mean_image", "MeanImage"), ("pca", "PCA"))
    ),
    DetectorInfo(
        name="knn",
        target="adbench_plugins.feature_anchors:KNN",
        family="anchor",
        pretrained=True,
        deterministic=True,
    ),
    DetectorInfo(
        name="logistic",
        target="adbench_plugins.feature_anchors:Logistic",
        family="anchor",
        supervision="labelled",
        pretrained=True,
        deterministic=True,
    ),
    *(
        DetectorInfo(
            name=f"anomalib_{cls.lower()}",
            target=f"adbench_plugins.anomalib_models:{cls}",
            family="anchor, anomalib's",
            pretrained=True,
            paper=paper,
            extras=("anomaly_map",),
        )
        for cls, paper in (
            ("PatchCore", "Roth et al., CVPR 2022, https://arxiv.org/abs/2106.08265"),
            ("PaDiM", "Defard et al., ICPR Workshops 2021, https://arxiv.org/abs/2011.08785"),
            ("STFPM", "Wang et al., BMVC 2021, https://arxiv.org/abs/2103.04257"),
        )
    ),
)


@hookimpl
def adbench_detectors() -> tuple[DetectorInfo, ...]:
    return METHODS + ANCHORS

"""What the framework itself offers; it comes through the same door as a stranger's plugin."""

from __future__ import annotations

from collections.abc import Iterator

from adbench_tgan.data.spec import DatasetSpec, ProtocolSpec
from adbench_tgan.hooks import ExecutorSpec, hookimpl
from adbench_tgan.metrics import MetricSpec

DATASETS = (
    DatasetSpec(
        name="digits",
        target="adbench_tgan.data.digits:load",
        layout="classes",
        protocol="one-vs-rest",
        channels=1,
        preset="quick",
        summary="1,797 handwritten digits of 8x8 pixels, embedded in scikit-learn",
        source="https://archive.ics.uci.edu/dataset/80",
        licence="CC BY 4.0",
    ),
    DatasetSpec(
        name="cifar10",
        target="adbench_tgan.data.cifar10:load",
        layout="classes",
        protocol="one-vs-rest",
        summary="60,000 colour images of 32x32 pixels in ten classes",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    DatasetSpec(
        name="mnist",
        target="adbench_tgan.data.mnist:load_mnist",
        layout="classes",
        protocol="one-vs-rest",
        channels=1,
        summary="70,000 handwritten digits of 28x28 pixels",
        source="http://yann.lecun.com/exdb/mnist/",
    ),
    DatasetSpec(
        name="fashion_mnist",
        target="adbench_tgan.data.mnist:load_fashion_mnist",
        layout="classes",
        protocol="one-vs-rest",
        channels=1,
        summary="70,000 grey images of clothes of 28x28 pixels",
        source="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
    ),
    DatasetSpec(
        name="stl10",
        target="adbench_tgan.data.stl10:load",
        layout="classes",
        protocol="one-vs-rest",
        summary="13,000 labelled colour images of 96x96 pixels in ten classes",
        source="https://cs.stanford.edu/~acoates/stl10/",
    ),
    DatasetSpec(
        name="mvtec",
        target="adbench_tgan.data.mvtec:load",
        layout="defects",
        protocol="official",
        summary="MVTec AD: 5,354 images of 15 objects and textures, defects with masks",
        source="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        licence="CC BY-NC-SA 4.0",
    ),
    DatasetSpec(
        name="folder",
        target="adbench_tgan.data.folder:load",
        layout="defects",
        protocol="official",
        summary="your own images: train/0.normal, test/0.normal, test/1.abnormal, or the MVTec AD layout",
    ),
    DatasetSpec(
        name="imagefolder",
        target="adbench_tgan.data.imagefolder:load",
        layout="classes",
        protocol="one-vs-rest",
        summary="your own images in class folders, any class as normal or as anomaly; without train/ and test/, "
        "every 5th image of a class is in its test split",
    ),
)

PROTOCOLS = (
    ProtocolSpec(
        name="one-vs-rest",
        version="1",
        target="adbench_tgan.data.protocols:one_vs_rest",
        layout="classes",
        summary="train on one class; test on the dataset's own test split, all other classes being anomalies",
    ),
    ProtocolSpec(
        name="one-vs-rest-1k",
        version="1",
        target="adbench_tgan.data.protocols:one_vs_rest_1k",
        layout="classes",
        summary="one-vs-rest on a fixed, stratified 1,000 test images",
    ),
    ProtocolSpec(
        name="one-vs-rest-80",
        version="1",
        target="adbench_tgan.data.protocols:one_vs_rest_80",
        layout="classes",
        summary="train on the first 80 % of one class's training images; test on all other images (A03ki's f-AnoGAN)",
    ),
    ProtocolSpec(
        name="leave-one-out",
        version="1",
        target="adbench_tgan.data.protocols:leave_one_out",
        layout="classes",
        summary="train on all classes but one, which is the anomaly in the dataset's own test split",
    ),
    ProtocolSpec(
        name="leave-one-out-6k",
        version="1",
        target="adbench_tgan.data.protocols:leave_one_out_6k",
        layout="classes",
        summary="leave-one-out, tested on all images of the abnormal class (GANomaly family's tables)",
    ),
    ProtocolSpec(
        name="leave-one-out-pooled",
        version="1",
        target="adbench_tgan.data.protocols:leave_one_out_pooled",
        layout="classes",
        summary="both splits pooled: train on 80 % of all classes but one; test on the rest (EGBAD, GANomaly with a seed)",
    ),
    ProtocolSpec(
        name="egbad-article",
        version="1",
        target="adbench_tgan.data.protocols:egbad_article",
        layout="classes",
        datasets=("mnist",),
        categories=("2",),
        summary="MNIST alone: train on the first 400 sevens and eights; test on 600 of them and of twos, the anomalies",
    ),
    ProtocolSpec(
        name="official",
        version="1",
        target="adbench_tgan.data.protocols:official",
        layout="defects",
        summary="the dataset's own good training images and test images, with masks",
    ),
)


@hookimpl
def adbench_datasets() -> tuple[DatasetSpec, ...]:
    """The datasets with a file each in `adbench_tgan.data`."""
    return DATASETS


@hookimpl
def adbench_protocols() -> tuple[ProtocolSpec, ...]:
    """The protocols of `adbench_tgan.data.protocols`."""
    return PROTOCOLS


@hookimpl
def adbench_metrics() -> Iterator[MetricSpec]:
    """The metrics of `adbench_tgan.metrics`."""
    home = "adbench_tgan.metrics"
    yield MetricSpec(name="auroc", target=f"{home}:auroc", summary="area under the ROC curve")
    yield MetricSpec(
        name="average_precision",
        target=f"{home}:average_precision",
        summary="area under the precision-recall curve",
    )
    yield MetricSpec(name="f1_max", target=f"{home}:f1_max", summary="best F1 over all thresholds (oracle)")
    yield MetricSpec(
        name="fpr95",
        target=f"{home}:fpr95",
        higher_is_better=False,
        summary="false positive rate at a true positive rate of 95 %",
    )
    yield MetricSpec(
        name="balanced_accuracy",
        target=f"{home}:balanced_accuracy",
        summary="balanced accuracy at the 0.95 quantile of normal training scores",
    )
    yield MetricSpec(
        name="pixel_auroc", target=f"{home}:pixel_auroc", level="pixel", summary="AUROC over all pixels"
    )
    yield MetricSpec(
        name="aupro",
        target=f"{home}:aupro",
        level="pixel",
        summary="area under the per-region overlap curve up to a false positive rate of 30 %",
    )


@hookimpl
def adbench_executors() -> Iterator[ExecutorSpec]:
    """In this process, in one a job, or on the machines of a cluster."""
    yield ExecutorSpec(
        name="local", target="adbench_tgan.executors:local", summary="one job after another, in this process"
    )
    yield ExecutorSpec(
        name="processes",
        target="adbench_tgan.workers.processes:processes",
        summary="each job in a fresh process, so that a crash costs only that job",
        options=("workers", "jobs_per_gpu", "job_timeout"),
    )
    yield ExecutorSpec(
        name="ray",
        target="adbench_tgan.workers.clusters:on_ray",
        summary="jobs on a Ray cluster, each in a fresh process on one of its machines",
        options=("workers", "job_timeout", "address", "gpus_per_job"),
    )

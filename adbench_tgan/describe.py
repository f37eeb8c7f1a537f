"""Detectors and datasets described as plain data, for people and for ``--json``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from adbench_tgan.data.spec import DatasetSpec
from adbench_tgan.data.tasks import Tasks
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Entry, default_of, in_json
from adbench_tgan.metrics import auroc, chance_f1


def describe_detector(each: Entry, dataset: DatasetSpec) -> dict[str, Any]:
    """A detector's card: paper, settings with help, and the parameters of each network on that dataset."""
    size = each.config.image_size
    detector = each.detector(each.config)
    detector.build((dataset.channels, size, size))
    fields = each.detector.Config.model_fields
    return asdict(each.info) | {
        "presets": ["paper", *each.detector.presets],
        "preset": each.preset,
        "config": {
            name: {
                "value": in_json(getattr(each.config, name)),
                "default": None if field.is_required() else default_of(each.config, name),
                "help": " ".join((field.description or "").split()),
            }
            for name, field in fields.items()
        },
        "data": dataset.name,
        "image_shape": [dataset.channels, size, size],
        "parameters": detector.parameter_counts(),
    }


def passport(tasks: Tasks, category: str) -> dict[str, Any]:
    """What a category is, as its protocol cuts it: sizes, prevalence, chance levels, fingerprint.

    `brightness_auroc` is that of an image's mean pixel value. Near 1 or 0 the test set can be told apart without
    looking at what is in its images.
    """
    samples, cut = tasks.cut(category)
    share = float(cut.labels.mean())
    return {
        "category": category,
        "train": len(cut.normal),
        "labelled_on_offer": 0 if cut.on_offer is None else len(cut.on_offer),
        "test_normal": int((cut.labels == 0).sum()),
        "test_abnormal": int((cut.labels == 1).sum()),
        "masks": samples.read_mask is not None,
        "prevalence": share,
        "chance_average_precision": share,
        "chance_f1": chance_f1(share),
        "brightness_auroc": auroc(tasks.brightness(category), cut.labels, 0.0),
        "fingerprint": tasks.fingerprint(category),
        "notes": list(tasks.notes(category)),
    }


def passports(
    tasks: Tasks, categories: tuple[str, ...], reading: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """The passports of some categories; one that cannot be cut says why instead. `reading` is told as in `plan`."""
    cards = []
    for number, category in enumerate(categories, start=1):
        reading(category, number, len(categories))
        try:
            cards.append(passport(tasks, category))
        except AdbenchError as error:
            cards.append({"category": category, "error": str(error)})
    return {
        "dataset": asdict(tasks.dataset),
        "protocol": asdict(tasks.protocol),
        "note": tasks.note,
        "categories": cards,
    }

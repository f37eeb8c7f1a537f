"""What a page shows of example images: the rule, the records, and where models were saved. No torch needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adbench_tgan.report.material import Material

EACH = 3  # images of each case
SEED = 0  # of the random cases
DETECTORS = 24  # with examples, at most
CASES = (
    "found: anomalies scored highest",
    "missed: anomalies scored lowest",
    "false alarms: normal images scored highest",
    "at random",
)
RULE = (
    f"for each detector, {EACH} images of each kind, by the stored scores of the run with the lowest seed: the anomalies "
    f"scored highest (found) and lowest (missed), the normal images scored highest (false alarms), and {EACH} test images "
    f"drawn at random (generator seed {SEED})."
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as a data URI, with what it shows."""

    title: str
    uri: str
    side: int


@dataclass(frozen=True, kw_only=True)
class Example:
    """One test image, why it is shown, and what the detector makes of it."""

    case: str
    sample_id: str
    label: str
    score: float
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The examples of one entry in one category; `note` says what a reader must know of them."""

    entry: str
    category: str
    examples: tuple[Example, ...]
    note: str

    @property
    def cases(self) -> dict[str, list[Example]]:
        """The examples by case, best and worst first."""
        return {case: [one for one in self.examples if one.case == case] for case in CASES}


def models(material: Material, category: str | None) -> dict[str, Path]:
    """Folder of a saved model for each entry that has one, in `category`, else in the first."""
    found: dict[str, Path] = {}
    for (entry, name), key in sorted(material.first_seeds().items()):
        folder = material.folders.get(key)
        fits = category in (None, name) and entry not in found and len(found) < DETECTORS
        if fits and folder is not None and (folder / "model.safetensors").exists():
            found[entry] = folder
    return found


def no_model(category: str | None) -> str:
    """Why an entry has no examples."""
    return f"no model of its lowest seed is saved{f' for {category}' if category else ''}"


def without_models(material: Material, category: str | None = None) -> str:
    """Why a page has no examples at all."""
    if not material.folders:
        return "A board holds scores and no models, so no image can be shown."
    return f"No detector has examples: {no_model(category)}; run again with --save-models."

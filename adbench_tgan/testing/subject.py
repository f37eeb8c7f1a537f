"""Who is checked: a detector, its settings, and what its plugin declares of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adbench_tgan.detector import Detector, DetectorConfig, Shape
from adbench_tgan.errors import AdbenchError, unknown
from adbench_tgan.info import DetectorInfo
from adbench_tgan.jobs import configure
from adbench_tgan.registry import Registry

Build = Callable[[int], Detector]  # from a seed
Checkable = str | type[Detector] | Build


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A detector as it is checked."""

    info: DetectorInfo
    build: Build
    config: DetectorConfig
    preset: str = "paper"
    word: str = ""  # by which another process finds the class; empty where none can

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Of the images unless others are asked for: grey and RGB, as large as the runner makes them for it."""
        side = self.config.image_size
        return (1, side, side), (3, side, side)

    def built(self, seed: int, device: str = "cpu") -> Detector:
        """A detector that has done no work yet; where its tensors will be may still be said."""
        detector = self.build(seed)
        detector.device = device
        return detector


def subject(
    detector: Checkable | Subject,
    *,
    info: DetectorInfo | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Subject:
    """The detector that a name, ``module:Class``, ``path.py``, a class or a function from a seed stands for.

    Args:
        detector: who is checked. Only a function makes its own settings.
        info: what is declared of it; by default what its plugin says, for a class that no plugin offers nothing.
        preset: by default "quick" if it has that, else "paper".
        settings: values that differ from the preset.

    Raises:
        AdbenchError: it cannot be found, a setting does not fit, or a declared failure names no check.
    """
    if isinstance(detector, Subject):
        return detector
    registry = Registry.discover()
    if isinstance(detector, str):
        found = registry.detector(detector)
        declared = info or registry.find("detector", detector)
        return _of_class(found, declared, detector, preset, settings or {})
    if isinstance(detector, type):
        return _of_class(
            detector, info or info_of(detector, registry), _word(detector), preset, settings or {}
        )
    if preset or settings:
        raise AdbenchError(
            "a function from a seed makes its own settings; give a name or a class, or no settings"
        )
    built = detector(0)
    return Subject(info=info or info_of(type(built), registry), build=detector, config=built.config)


def info_of(detector: type[Detector], registry: Registry) -> DetectorInfo:
    """What a plugin says of a class, or for one that none offers what its name says."""
    target = f"{detector.__module__}:{detector.__qualname__}"
    offered = [record for record, _ in registry.offers("detector") if record.target == target]
    return offered[0] if offered else DetectorInfo(name=detector.__name__, target=target)


def _word(detector: type[Detector]) -> str:
    """By which a fresh process imports a class; empty for one inside a function or a script."""
    word = f"{detector.__module__}:{detector.__qualname__}"
    importable = detector.__module__ != "__main__" and "." not in detector.__qualname__
    return word if importable else ""


def _of_class(
    detector: type[Detector], info: DetectorInfo, word: str, preset: str | None, settings: Mapping[str, Any]
) -> Subject:
    preset = preset or ("quick" if "quick" in detector.presets else "paper")
    if preset != "paper" and preset not in detector.presets:
        raise unknown(f"preset of {info.name}", preset, ["paper", *detector.presets])
    config = detector.plan(configure(info.name, detector, settings, preset))
    label = "; ".join([preset, *(f"{key}={value}" for key, value in sorted(settings.items()))])
    return Subject(
        info=info, build=lambda seed: detector(config, seed=seed), config=config, preset=label, word=word
    )

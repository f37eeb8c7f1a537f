"""What is known of a detector before it is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SUITE = "6"  # version of the conformance checks; raised when one is added or asks for more


@dataclass(frozen=True, kw_only=True)
class DetectorInfo:
    """A detector as its plugin offers it."""

    name: str
    target: str  # "module:Class"
    family: str = ""
    supervision: Literal["one-class", "labelled"] = "one-class"
    pretrained: bool = False  # uses features learned on other data, by default
    version: str = "1"  # bump it when scores change: stored results of other versions count as absent
    paper: str = ""
    aliases: tuple[str, ...] = ()
    # Beyond scores: "anomaly_map", "reconstruct", and "map_mean" or "map_sum" if a map's mean or sum is the score.
    extras: tuple[str, ...] = ()
    # Datasets on which its authors' code scores as the last step of `adbench audit` does; "*" stands for all.
    as_published_on: tuple[str, ...] = ()
    deterministic: bool = False  # every seed gives the same scores
    # Conformance checks that it is known to fail, with the reason; shown wherever its results are.
    expected_failures: Mapping[str, str] = field(default_factory=dict, hash=False)

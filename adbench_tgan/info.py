"""What is known of a detector before it is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    extras: tuple[str, ...] = ()  # what it offers beyond scores, such as "anomaly_map"

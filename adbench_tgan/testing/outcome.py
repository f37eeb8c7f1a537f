"""What became of a check, and of all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "expected failure", "skipped"]


class CheckFailed(AssertionError):
    """The detector does not keep what the check's name says."""


class Skipped(Exception):
    """The check does not apply to this detector, or not on this machine, for a reason that the report prints."""


def expect(holds: bool, otherwise: str) -> None:
    """Fail the check unless it holds. Unlike `assert`, also under ``python -O``."""
    if not holds:
        raise CheckFailed(otherwise)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one check."""

    check: str  # its name, as a sentence
    status: Status
    detail: str = ""  # why it failed, was expected to, or was left out
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.status:<16}  {self.check}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of every check of one detector."""

    detector: str
    suite: str  # version of the checks
    preset: str
    shapes: tuple[str, ...]  # of the images, such as "3x32x32"
    outcomes: tuple[Outcome, ...]

    def __len__(self) -> int:
        """How many checks there were, those left out included."""
        return len(self.outcomes)

    def of(self, status: Status) -> list[Outcome]:
        """The outcomes of one kind."""
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @property
    def failed(self) -> list[Outcome]:
        """The outcomes that a detector's author has to do something about."""
        return self.of("failed")

    @property
    def ran(self) -> int:
        """How many checks ran to an answer."""
        return len(self) - len(self.of("skipped"))

    def __str__(self) -> str:
        count = Counter(outcome.status for outcome in self.outcomes)
        return (
            f"{self.detector} ({self.preset}, {' and '.join(self.shapes)}): {self.ran} of {len(self)} checks "
            f"of suite {self.suite} ran: {count['passed']} passed, {count['expected failure']} failed as "
            f"declared, {count['failed']} failed; {count['skipped']} skipped"
        )

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self) | {"ran": self.ran, "ok": not self.failed}

"""The conformance suite: every check, run on a detector, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from adbench_tgan.detector import Shape
from adbench_tgan.errors import AdbenchError, unknown
from adbench_tgan.hooks import one_line
from adbench_tgan.info import SUITE, DetectorInfo
from adbench_tgan.testing.checks_building import BUILDING
from adbench_tgan.testing.checks_fitting import FITTING
from adbench_tgan.testing.checks_offers import OFFERS
from adbench_tgan.testing.checks_processes import PROCESSES
from adbench_tgan.testing.checks_scoring import SCORING
from adbench_tgan.testing.outcome import CheckFailed, Outcome, Report, Skipped
from adbench_tgan.testing.processes import Finding, look_from_outside
from adbench_tgan.testing.subject import Checkable, Subject, subject
from adbench_tgan.testing.trial import Trial
from adbench_tgan.torch_settings import settings_kept
from adbench_tgan.training import dice_kept

Check = Callable[[Trial], None]
IN_PROCESS: tuple[Check, ...] = (*BUILDING, *FITTING, *SCORING, *OFFERS)
CHECKS: tuple[Check, ...] = (*IN_PROCESS, *PROCESSES)


class Examination:
    """One detector under examination: its trials are made once and serve every check."""

    def __init__(self, subject: Subject, shapes: Sequence[Shape] | None = None):
        self.subject = subject
        self.trials = [Trial(subject, shape, self.finding) for shape in shapes or subject.shapes]
        check_declared(subject.info)

    @cached_property
    def findings(self) -> list[Finding]:
        """Of another process, one a trial."""
        for trial in self.trials:
            _ = trial.scores  # nobody sends out what does not run here
        return look_from_outside(self.trials)

    def finding(self, trial: Trial) -> Finding:
        """Of another process, with the images of one trial."""
        return self.findings[self.trials.index(trial)]

    def hold(self, check: Check) -> None:
        """Run a check with images of every shape.

        Raises:
            CheckFailed: it does not hold for one.
            Skipped: it applies to none.
        """
        reasons = [reason for trial in self.trials if (reason := hold(check, trial))]
        if len(reasons) == len(self.trials):
            raise Skipped("; ".join(dict.fromkeys(reasons)))

    def outcome(self, check: Check) -> Outcome:
        """Run a check and say what became of it; a declared failure that does not happen is a failure."""
        declared = self.subject.info.expected_failures.get(check.__name__)
        start = time.perf_counter()
        status, detail = self._judged(check)
        if declared is not None and status == "failed":
            status, detail = "expected failure", f"{declared} ({detail})"
        elif declared is not None and status == "passed":
            status, detail = (
                "failed",
                f"it passes, and expected_failures says that it fails ({declared}); remove it there",
            )
        seconds = round(time.perf_counter() - start, 3)
        return Outcome(check=sentence(check), status=status, detail=detail, seconds=seconds)

    def _judged(self, check: Check) -> tuple[Any, str]:
        try:
            self.hold(check)
        except CheckFailed as failure:
            return "failed", str(failure)
        except Skipped as skipped:
            return "skipped", str(skipped)
        return "passed", ""


def check_declared(info: DetectorInfo) -> None:
    """Raise `AdbenchError` where a detector declares to fail a check that there is not."""
    names = [check.__name__ for check in CHECKS]
    for name in info.expected_failures:
        if name not in names:
            raise AdbenchError(
                f"expected_failures of detector {info.name!r}: {unknown('check', name, names)}"
            )


def hold(check: Check, trial: Trial) -> str:
    """Run a check with images of one shape; why it was left out, if it was.

    Raises:
        CheckFailed: it does not hold, or the detector raises an error.
    """
    where = f"on {'x'.join(map(str, trial.shape))} "
    try:
        with settings_kept(), dice_kept():  # what one check turns is not the next one's fault
            check(trial)
    except Skipped as skipped:
        return str(skipped)
    except CheckFailed as failure:
        raise CheckFailed(f"{where}{failure}") from failure
    except (Exception, SystemExit) as error:  # a stranger's detector may fail in any way
        raise CheckFailed(f"{where}it raises {one_line(error)}") from error
    return ""


def sentence(check: Check) -> str:
    """A check's name as it is read: it says what holds."""
    return check.__name__.replace("_", " ")


def examine(
    who: Subject,
    shapes: Sequence[Shape] | None = None,
    checks: Sequence[Check] = CHECKS,
    say: Callable[[Outcome], None] = lambda _: None,
) -> Report:
    """Run checks on a detector; each outcome is told to `say` at once."""
    examination = Examination(who, shapes)
    outcomes = []
    for check in checks:
        outcomes.append(examination.outcome(check))
        say(outcomes[-1])
    return Report(
        detector=who.info.name,
        suite=SUITE,
        preset=who.preset,
        shapes=tuple("x".join(map(str, trial.shape)) for trial in examination.trials),
        outcomes=tuple(outcomes),
    )


def check_detector(
    detector: Checkable | Subject,
    *,
    info: DetectorInfo | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    shapes: Sequence[Shape] | None = None,
    checks: Sequence[Check] = CHECKS,
) -> Report:
    """Run every check on a detector, given as `subject` takes it: name, ``module:Class``, class, or build from a seed.

    Raises:
        AdbenchError: naming each check that failed, and why.
    """
    report = examine(subject(detector, info=info, preset=preset, settings=settings), shapes, checks)
    if report.failed:
        reasons = "; ".join(f"{outcome.check}: {outcome.detail}" for outcome in report.failed)
        raise AdbenchError(f"{len(report.failed)} of {report.ran} checks failed: {reasons}")
    return report

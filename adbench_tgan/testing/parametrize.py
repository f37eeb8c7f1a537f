"""The suite as pytest tests: one a detector and check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from adbench_tgan.detector import Shape
from adbench_tgan.testing.outcome import CheckFailed, Skipped
from adbench_tgan.testing.subject import Checkable, Subject, subject
from adbench_tgan.testing.suite import CHECKS, Check, Examination

if TYPE_CHECKING:
    import pytest


def parametrize_with_checks(
    detectors: Sequence[Checkable | Subject],
    *,
    shapes: Sequence[Shape] | None = None,
    checks: Sequence[Check] = CHECKS,
) -> pytest.MarkDecorator:
    """Decorate a test of one argument, `check`, that does nothing but call it.

    A check that does not apply is skipped with its reason. A failure that the detector declares is a strict xfail.
    """
    import pytest

    examinations = [Examination(subject(detector), shapes) for detector in detectors]
    return pytest.mark.parametrize("check", [case for each in examinations for case in _cases(each, checks)])


def _cases(examination: Examination, checks: Sequence[Check]) -> Iterator[Any]:
    import pytest

    info = examination.subject.info
    for check in checks:
        reason = info.expected_failures.get(check.__name__)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True, raises=CheckFailed)]
        yield pytest.param(_call(examination, check), id=f"{info.name}-{check.__name__}", marks=marks)


def _call(examination: Examination, check: Check) -> Callable[[], None]:
    def call() -> None:
        import pytest

        try:
            examination.hold(check)
        except Skipped as skipped:
            pytest.skip(str(skipped))

    return call

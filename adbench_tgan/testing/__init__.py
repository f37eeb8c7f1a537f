"""Conformance: what every detector must keep, as checks whose names are their messages.

`check_detector` runs them all, `parametrize_with_checks` makes a pytest test of each, ``adbench check`` prints them.
"""

from adbench_tgan.info import SUITE
from adbench_tgan.testing.outcome import CheckFailed, Outcome, Report, Skipped
from adbench_tgan.testing.parametrize import parametrize_with_checks
from adbench_tgan.testing.pictures import smooth_images
from adbench_tgan.testing.subject import Subject, subject
from adbench_tgan.testing.suite import CHECKS, IN_PROCESS, check_detector, examine, sentence

__all__ = [
    "CHECKS",
    "IN_PROCESS",
    "SUITE",
    "CheckFailed",
    "Outcome",
    "Report",
    "Skipped",
    "Subject",
    "check_detector",
    "examine",
    "parametrize_with_checks",
    "sentence",
    "smooth_images",
    "subject",
]

"""The short version of the fault campaign; ``python tests/faults/campaign.py`` does many rounds of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "faults/campaign.py"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_whatever_is_killed_the_next_run_ends_with_the_same_scores() -> None:
    """A process of a job; commands are killed in test_faults, and with such processes in test_checkpoints."""
    words = [sys.executable, SCRIPT, "--executor", "processes", "--rounds", "1", "--seed", "3"]
    words += ["--detectors", "pca"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr
    (row,) = (line.split() for line in ended.stdout.splitlines()[1:])
    assert (*row[:3], *row[5:]) == ("processes", "worker", "1", "1", "0", "0", "0")

"""The short version of the fault campaign; ``python tests/faults/campaign.py`` does many rounds of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "faults/campaign.py"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize(
    ("executor", "rounds", "detectors"),
    [("local", 2, "mean_image,pca,random"), ("processes", 2, "pca")],
)
def test_whatever_is_killed_the_next_run_ends_with_the_same_scores(
    executor: str, rounds: int, detectors: str
) -> None:
    words = [sys.executable, SCRIPT, "--executor", executor, "--rounds", str(rounds), "--seed", "3"]
    words += ["--detectors", detectors]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr
    rows = [line.split() for line in ended.stdout.splitlines()[1:]]
    assert sum(int(row[2]) for row in rows) == rounds
    jobs = len(detectors.split(","))
    assert [row[5:] for row in rows] == [[str(jobs * int(row[2])), "0", "0", "0"] for row in rows]

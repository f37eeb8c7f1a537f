"""What the framework adds to a job's own fit and score: planning, data, probes, clocks, storing, tables."""

import pytest
from test_runner import Silent

from adbench_tgan.benchmark import benchmark as run_all
from adbench_tgan.jobs import Request
from adbench_tgan.registry import Registry
from adbench_tgan.runner import Settings

pytestmark = pytest.mark.bench
MOST = 0.3  # seconds a job


def run(out, seeds):
    request = Request(detectors=["mean_image", "pca"], seeds=seeds)
    return run_all(request, Settings(), Registry.discover(), Silent(), out)


def test_overhead_of_a_job(benchmark, tmp_path):
    """Of 40 jobs that take next to nothing themselves, with timing, in this process; the first start apart."""
    run(tmp_path / "warm", [9])
    outcome = benchmark.pedantic(run, (tmp_path / "runs", [0, 1]), rounds=1)
    assert len(outcome.results) == 40
    assert outcome.failed == ()
    own = sum(each.timing["fit_seconds"] + each.timing["score_seconds"] for each in outcome.results)
    overhead = (benchmark.stats.stats.min - own) / len(outcome.results)
    benchmark.extra_info |= {"own_seconds": own, "overhead_seconds_a_job": overhead}
    assert 0 < overhead < MOST

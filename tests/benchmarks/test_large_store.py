"""A resume over a store of 20,000 finished jobs: how long until the first missing one is known."""

import json
from dataclasses import replace

import pytest
from test_leaderboard import result

from adbench_tgan.results import ResultStore, as_json

pytestmark = pytest.mark.bench
JOBS = 20_000


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The store, and its jobs as a plan would make them: without a key yet."""
    store = ResultStore(tmp_path_factory.mktemp("store"))
    store.open()
    latency = {"latency_ms": [1.2345678] * 200}  # as many samples as a run keeps
    jobs = []
    for seed in range(JOBS):
        one = result("d", "abcdefghij"[seed % 10], seed=seed, status="failed")
        one = replace(one, status="ok", error="", timing=latency, machine={"cpu": "x" * 40})
        folder = store.folder(one.job)
        folder.mkdir(parents=True)
        (folder / "scores.parquet").write_bytes(b"x")
        files = {"scores.parquet": {"bytes": 1, "sha256": "0" * 64}}
        (folder / "result.json").write_text(json.dumps(as_json(one) | {"files": files}))
        jobs.append(replace(one.job))
    return store, jobs


def test_finding_20_000_finished_jobs(benchmark, stored):
    store, jobs = stored

    def fresh():
        return ([replace(job) for job in jobs],), {}

    found = benchmark.pedantic(lambda asked: [store.has(job) for job in asked], setup=fresh, rounds=3)
    assert found == [True] * JOBS
    assert store.get(jobs[-1]) is not None
    assert benchmark.stats.stats.min < 5

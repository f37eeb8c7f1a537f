"""Jobs on a Ray cluster: results are those of `local`, and what dies is begun again."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from conftest import Ended
from test_isolation import PHASES, SAME, Told, assert_same_files
from test_leaderboard import result
from test_runner import Silent

from adbench_tgan import clusters
from adbench_tgan.benchmark import benchmark
from adbench_tgan.clusters import pack, place
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Request
from adbench_tgan.registry import Registry
from adbench_tgan.results import PARTIAL
from adbench_tgan.runner import Settings

Call = Callable[..., Ended]
JOB = result("d").job

DYING = """
    import os, signal, time
    from pathlib import Path
    from adbench_tgan import Detector

    class Dying(Detector):
        def fit(self, train):
            before = Path(__file__).with_suffix(".begun")
            if not before.exists():
                before.touch()
                above = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1]
                os.kill(int(above), signal.SIGKILL)  # the Ray worker
                time.sleep(600)
            return self

        def score(self, images):
            return images.float().mean((1, 2, 3))

    class Crashing(Dying):
        def fit(self, train):
            os._exit(3)
"""


def test_results_are_those_of_local_to_the_byte_and_a_dead_worker_costs_a_new_attempt(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    same, dying = tmp_path / "same.py", tmp_path / "dying.py"
    same.write_text(dedent(SAME))
    dying.write_text(dedent(DYING))
    request = Request(detectors=["drawn", "pca"], categories=["0"], seeds=[3])
    faults = Request(detectors=["dying", "crashing"], categories=["0"])
    settings = Settings(save_models=True)
    reporter = Told()
    benchmark(request, settings, Registry.discover([same]), Told(), tmp_path / "local")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        registry = Registry.discover([same])
        outcome = benchmark(request, settings, registry, reporter, tmp_path / "ray", "ray")
        assert outcome.failed == ()
        assert_same_files(tmp_path / "local", tmp_path / "ray")
        later = Told()
        registry = Registry.discover([dying])
        ended = benchmark(faults, Settings(timing=False), registry, later, tmp_path / "faults", "ray")
        assert ray.is_initialized()  # a connection that was there is kept
    finally:
        ray.shutdown()
    drawn = [each[:-1] for each in reporter.heard if each[-1] == "drawn on digits/0 seed 3"]
    assert [each[1] for each in drawn if each[0] == "phase"] == PHASES
    assert [each[1:3] for each in drawn if each[0] == "epoch"] == [(1, 3), (2, 3), (3, 3)]
    assert [result.status for result in ended.results] == ["ok", "failed"]
    assert ended.results[1].error.startswith("the process ended with exit status 3")
    again = [each[1] for each in later.heard if each[0] == "warn" and "begun again" in each[1]]
    assert len(again) == 1
    assert again[0].startswith("dying on digits/0 seed 0: its Ray worker or machine died")
    assert again[0].endswith("begun again, 2 of 5")
    assert not any((tmp_path / "faults" / PARTIAL).iterdir())


def test_a_plugin_file_reaches_a_machine_that_lacks_it(tmp_path: Path) -> None:
    here, there = tmp_path / "here.py", tmp_path / "there.py"
    here.write_text("here = 1")
    there.write_text("there = 1")
    words = [f"{there}:There", "package.module:Installed"]
    parcel = pack({"plugins": [str(here), str(there)], "detectors": words, "job": {}})
    there.unlink()
    spec = place(parcel, tmp_path / "new")
    copy = Path(spec["plugins"][1])
    assert spec["plugins"][0] == str(here)
    assert copy.name == "there.py"
    assert copy.read_text() == "there = 1"
    assert spec["detectors"] == [f"{copy}:There", "package.module:Installed"]
    here.write_text("here = 2")  # another version there: that is not the one which was asked for
    assert Path(place(parcel, tmp_path / "newer")["plugins"][0]).read_text() == "here = 1"
    assert json.dumps(spec)


def test_what_is_wrong_with_a_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch, adbench: Call) -> None:
    run = ("run", "--detectors", "mean_image", "--categories", "0", "--device", "cpu")
    ended = adbench(*run, "--gpus-per-job", "0.5")
    assert ended.error == "--gpus-per-job 0.5: executor 'local' has no such option; use --executor ray"
    ended = adbench(*run, "--address", "auto")
    assert ended.error == "--address auto: executor 'local' has no such option; use --executor ray"
    ended = adbench(*run, "--executor", "ray", "--gpus-per-job", "0.5")
    assert ended.error == "--gpus-per-job 0.5 is not for --device cpu; leave one out"
    ended = adbench(*run[:-1], "cuda:1", "--executor", "ray", "--gpus-per-job", "0.5")
    assert ended.error == "--gpus-per-job 0.5 is not for --device cuda:1; leave one out"
    ended = adbench(*run[:-2], "--executor", "ray", "--gpus-per-job", "1.5")
    assert ended.error == "--gpus-per-job 1.5: give a share below 1, or whole GPUs"
    assert not Path("runs").exists()
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = adbench(*run, "--executor", "ray")
    assert (ended.status, ended.error) == (2, "executor 'ray' needs Ray: pip install 'adbench-tgan[ray]'")


def test_an_address_where_nobody_answers_is_refused_at_once(adbench: Call) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        run = (
            "run",
            "--detectors",
            "mean_image",
            "--categories",
            "0",
            "--device",
            "cpu",
            "--executor",
            "ray",
        )
        ended = adbench(*run, "--address", address)
    assert ended.error == (
        f"--address {address}: no Ray cluster answers (Connection refused); start one with 'ray start --head'"
    )
    ended = adbench(*run, "--address", "http://head")
    assert ended.error == "--address http://head: write it as auto, or HOST:PORT of the cluster's head"
    assert ended.status == 2


class Cluster:
    """Stands in for Ray: tasks give what they are told to give, or raise it."""

    def __init__(self, *streams: list[Any], **resources: float):
        self.streams, self.resources, self.cancelled = iter(streams), resources, []

    def begin(self) -> Any:
        return iter(next(self.streams))

    def get(self, said: Any) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    def cancel(self, stream: Any, *, force: bool) -> None:
        self.cancelled.append((stream, force))
        raise RuntimeError("the cluster is gone")

    def cluster_resources(self) -> dict[str, float]:
        return self.resources


@pytest.mark.parametrize(
    ("resources", "facts", "places"),
    [
        ({"CPU": 4.0}, {}, 4),
        ({"CPU": 4.0}, {"workers": 3}, 3),
        ({"CPU": 4.0}, {"workers": 9}, 4),
        ({}, {"workers": 3}, 1),  # it may grow
        ({"CPU": 16.0, "GPU": 3.0}, {"gpus_per_job": 0.4}, 6),  # no job has shares of two
        ({"CPU": 16.0, "GPU": 3.0}, {"gpus_per_job": 2.0}, 1),
        ({"CPU": 2.0, "GPU": 3.0}, {"gpus_per_job": 0.5}, 2),
    ],
)
def test_as_many_jobs_run_as_the_cluster_has_room_for(
    resources: dict[str, float], facts: dict[str, Any], places: int
) -> None:
    assert clusters.room(Cluster(**resources), Settings(**facts)) == places


def test_a_cluster_without_gpus_is_refused() -> None:
    clusters.check_gpus(Cluster(CPU=4.0), Settings())
    clusters.check_gpus(Cluster(GPU=1.0), Settings(gpus_per_job=0.5))
    with pytest.raises(AdbenchError, match="the cluster has no GPU"):
        clusters.check_gpus(Cluster(CPU=4.0), Settings(gpus_per_job=0.5))


def test_a_job_whose_worker_dies_each_time_is_begun_five_times() -> None:
    errors = pytest.importorskip("ray.exceptions")
    cluster, reporter = Cluster(*[[errors.WorkerCrashedError()]] * 9), Silent()
    distant = clusters.Distant(JOB, Settings(), cluster.begin, cluster)
    found = [distant.hear(reporter) for _ in range(5)]
    assert found[:4] == [None] * 4
    assert found[4].error == "what ran it died 5 times, the last time by WorkerCrashedError"
    assert len(list(cluster.streams)) == 4
    assert [what for what, *_ in reporter.heard] == ["warn"] * 4


def test_a_task_that_raises_or_gives_nothing_is_a_failure_and_not_begun_again() -> None:
    errors = pytest.importorskip("ray.exceptions")
    cause = ModuleNotFoundError("No module named 'adbench_tgan'")
    raised = errors.RayTaskError("carry_out_there", "Traceback", cause)
    for said, told in (([raised], "ModuleNotFoundError: No module"), ([], "its Ray task left no result")):
        cluster = Cluster(said)
        distant = clusters.Distant(JOB, Settings(), cluster.begin, cluster)
        assert distant.hear(Silent()).error.startswith(told)
        distant.cancel()
        assert cluster.cancelled == [(distant.stream, True)]

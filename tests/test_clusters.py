"""Jobs on a Ray cluster: results are those of `local`, and what dies is begun again."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Ended
from test_hostile import in_time
from test_isolation import PHASES, SAME, Told, assert_same_files
from test_leaderboard import result
from test_runner import Silent

from adbench_tgan.benchmark import benchmark
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Request, plan
from adbench_tgan.registry import Registry
from adbench_tgan.results import PARTIAL
from adbench_tgan.runner import Settings
from adbench_tgan.workers import clusters, heads
from adbench_tgan.workers.clusters import pack, place

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
    assert again[0].endswith("begun again, attempt 2 of 5")
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
    assert ended.error == "--gpus-per-job 0.5 cannot be combined with --device cpu; leave one out"
    ended = adbench(*run[:-1], "cuda:1", "--executor", "ray", "--gpus-per-job", "0.5")
    assert ended.error == "--gpus-per-job 0.5 cannot be combined with --device cuda:1; leave one out"
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
        run = "run --detectors mean_image --categories 0 --device cpu --executor ray".split()
        ended = adbench(*run, "--address", address)
    assert ended.error == (
        f"--address {address}: no Ray cluster answers (Connection refused); start one with 'ray start --head'"
    )
    ended = adbench(*run, "--address", "http://head")
    assert ended.error == "--address http://head: write it as auto, or HOST:PORT of the cluster's head"
    assert ended.status == 2


class FakeRay:
    """As much of Ray as is asked while nothing is to be told."""

    def __init__(self, head: str):
        self.head, self.calls = head, list[str]()
        self.back = threading.Event()  # without a head some calls take long

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address=self.head)

    def cluster_resources(self) -> dict[str, float]:
        self.calls.append("cluster_resources")
        return {"CPU": 1}

    def is_initialized(self) -> bool:
        return False

    def init(self, *_: Any, **__: Any) -> None:
        pass

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        self.back.wait(60)

    def cancel(self, *_: Any, **__: Any) -> None:
        self.calls.append("cancel")


def test_a_cluster_whose_head_is_gone_ends_the_run_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        ray = FakeRay(address)

        def nothing_more(*_: Any) -> list[Any]:
            ray.calls.clear()
            head.close()
            return []

        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr(heads, "GONE", 0.05)
        monkeypatch.setattr(heads, "ANSWER", 0.2)
        monkeypatch.setattr(heads, "PAUSE", 0.01)
        monkeypatch.setattr(clusters, "beginner", lambda *_: lambda: object())
        monkeypatch.setattr(clusters, "ready", nothing_more)
        registry = Registry.discover()
        request = Request(detectors=["mean_image", "pca"], categories=["0"])
        planned = plan(request, registry, lambda _: None)
        with in_time(30), pytest.raises(AdbenchError) as raised:
            list(clusters.on_ray(planned.jobs, Settings(timing=False), planned.tasks, registry, Told()))
    assert str(raised.value) == (
        f"the Ray cluster at {address} is gone (Connection refused); start it and run the same command again"
    )
    assert ray.calls == ["shutdown"]
    ray.back.set()


def test_an_answer_that_hangs_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, asked = FakeRay("127.0.0.1:1"), list[int]()

    def hanging_once(_: object) -> int:
        asked.append(1)
        if len(asked) == 1:
            ray.back.wait(60)
        return 3

    monkeypatch.setattr(heads, "unanswered", lambda address: "")
    monkeypatch.setattr(heads, "ANSWER", 0.2)
    with in_time(30):
        assert heads.Head(ray).ask(hanging_once, "about it") == 3
    ray.back.set()


def test_a_head_that_is_away_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["Connection refused", "timed out", ""]
    monkeypatch.setattr(heads, "unanswered", lambda address: answers.pop(0))
    monkeypatch.setattr(heads, "PAUSE", 0.01)
    head = heads.Head(FakeRay("127.0.0.1:1"))
    head.wait_for()
    assert head.is_there
    assert answers == []


def test_what_takes_connections_and_is_no_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    back = threading.Event()
    ray = SimpleNamespace(_raylet=SimpleNamespace(GcsClient=lambda address: back.wait(60)))
    monkeypatch.setattr(heads, "JOINING", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with (
            in_time(30),
            pytest.raises(AdbenchError, match=r": no Ray cluster answers \(something else listens there"),
        ):
            heads.check_answers(ray, address)
        back.set()
        heads.check_answers(ray, address)
        heads.check_answers(SimpleNamespace(), address)  # another version of Ray


def test_a_cluster_of_another_version_is_not_one_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mismatch = "Version mismatch: The cluster was started with:\n Ray: 2.40.0\nThis process was started with:\n Ray: 2.60.0"

    class Other(FakeRay):
        def init(self, *_: Any, **__: Any) -> None:
            raise RuntimeError(mismatch)

    monkeypatch.setattr(clusters, "check_answers", lambda ray, address: None)
    with pytest.raises(AdbenchError) as raised:
        clusters.connect(Other(""), Settings(address="head:6379"))
    assert str(raised.value) == (
        "--address head:6379: its cluster has another version of Ray or Python "
        f"(RuntimeError: {' '.join(mismatch.split())}); install the same here"
    )


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
    assert found[4].error == "its Ray worker or machine died 5 times, the last time with WorkerCrashedError"
    assert len(list(cluster.streams)) == 4
    assert [what for what, *_ in reporter.heard] == ["warn"] * 4


def test_a_task_that_raises_or_gives_nothing_is_a_failure_and_not_begun_again() -> None:
    errors = pytest.importorskip("ray.exceptions")
    cause = ModuleNotFoundError("No module named 'adbench_tgan'")
    raised = errors.RayTaskError("carry_out_there", "Traceback", cause)
    for said, told in (([raised], "ModuleNotFoundError: No module"), ([], "its Ray task returned no result")):
        cluster = Cluster(said)
        distant = clusters.Distant(JOB, Settings(), cluster.begin, cluster)
        assert distant.hear(Silent()).error.startswith(told)
        distant.cancel()
        assert cluster.cancelled == [(distant.stream, True)]


def test_a_machine_that_lacks_the_package_is_named_in_one_short_line_with_the_remedy() -> None:
    errors = pytest.importorskip("ray.exceptions")
    lacks = "ModuleNotFoundError: No module named 'adbench_tgan'"
    dump = (
        f"The remote function failed to import on the worker. sys.path {['/x'] * 99}:\n\nTraceback\n{lacks}\n"
    )
    remedy = "install there what is installed here, then run again"
    for cause, told in (
        (RuntimeError(dump), f"{lacks} (on 10.0.0.7); {remedy}"),
        (ModuleNotFoundError("No module named 'adbench_tgan'"), f"{lacks} (on 10.0.0.7); {remedy}"),
        (OSError("disk full"), "OSError: disk full (on 10.0.0.7)"),
    ):
        trace = "Traceback (most recent call last):\nError: it"
        raised = errors.RayTaskError(
            "carry_out_there", trace, cause, pid=7, ip="10.0.0.7"
        ).as_instanceof_cause()
        cluster = Cluster([raised])
        assert clusters.Distant(JOB, Settings(), cluster.begin, cluster).hear(Silent()).error == told


def test_a_job_that_fails_on_a_machine_of_a_cluster_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        def __init__(self, *_: Any) -> None:
            pass

        def ended(self) -> bool:
            return True

        def result(self) -> Any:
            return clusters.failure(JOB, Settings(), "no such folder; give --data-root")

        def close(self) -> None:
            pass

    monkeypatch.setattr(clusters, "Process", Ended)
    monkeypatch.setattr(clusters, "read_spec", lambda spec: (JOB, Settings()))
    monkeypatch.setattr(socket, "gethostname", lambda: "third-node")
    parcel = {"search": [], "threads": None, "sources": {}, "spec": {"plugins": [], "detectors": []}}
    *_, files = clusters.carry_out_there(parcel)
    assert json.loads(files["result.json"])["error"] == "no such folder; give --data-root (on third-node)"


def test_a_head_that_is_gone_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "unanswered", lambda address: "Connection refused")
    monkeypatch.setattr(heads, "GONE", 0.0)
    asked = list[str]()
    with pytest.raises(AdbenchError, match=r"is gone \(Connection refused\)"):
        heads.Head(FakeRay("127.0.0.1:1")).ask(lambda about: len(asked.append(about) or asked), "it")
    assert asked == []


def test_an_address_that_is_no_name_of_a_host_is_refused() -> None:
    with pytest.raises(AdbenchError, match=r"--address a\.\.b:80: no Ray cluster answers"):
        heads.check_answers(None, "a..b:80")


def test_a_cluster_of_this_machine_has_as_many_processors_as_we_may_use(monkeypatch):
    asked = {}
    ray = SimpleNamespace(init=lambda *given, **options: asked.update(options))
    monkeypatch.setattr(clusters, "cores", lambda: 3)
    clusters.connect(ray, Settings())
    assert asked["num_cpus"] == 3


def test_a_polite_kill_while_ray_starts_is_an_interruption():
    def killed(*given, **options):
        raise SystemExit(signal.SIGTERM.value)

    with pytest.raises(KeyboardInterrupt):
        clusters.connect(SimpleNamespace(init=killed), Settings())

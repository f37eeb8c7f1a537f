"""Kill what runs a benchmark at random moments, go on, and check: every job ok, none doubled, no score changed.

python tests/faults/campaign.py --executor processes --rounds 50
python tests/faults/campaign.py --executor ray --rounds 10
python tests/faults/campaign.py --grid            60 jobs on three Ray nodes, which are killed and added meanwhile
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DETECTORS = ["mean_image", "pca", "random"]
SMALL = {"detectors": DETECTORS, "categories": ["0"], "seeds": [0]}
GRID = {"detectors": DETECTORS, "categories": [str(digit) for digit in range(10)], "seeds": [0, 1]}
FAULTS = {"local": ["driver"], "processes": ["worker", "driver"], "ray": ["driver", "worker", "node"]}
# What their command lines hold; that of jobs' processes is their nursery's, which is struck too.
WORKERS = {"processes": "adbench_tgan.workers.nursery", "ray": "ray::carry_out_there"}
PATIENCE = 600.0  # seconds that a run may take


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round saw."""

    executor: str
    fault: str
    struck: bool  # there was something to kill, before the run ended by itself
    kept: int  # jobs that were finished before the run was taken up again
    ok: int
    lost: int
    doubled: int
    different: int  # in the bytes of the scores


class Diary:
    """A reporter that writes down which jobs ended well, and in which process."""

    def __init__(self, path: Path):
        self.path = path

    def __getattr__(self, name: str) -> Any:
        return lambda *facts, **more: None

    def job_finished(self, result: Any) -> None:
        if result.status == "ok":
            with self.path.open("a") as file:
                file.write(f"{result.job.key}\n")

    def warn(self, message: str) -> None:
        with self.path.with_suffix(".notes").open("a") as file:
            file.write(f"{message}\n")


def drive(out: Path, grid: dict[str, Any], executor: str, address: str | None) -> None:
    """The process that stands for a user's command."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from adbench_tgan.benchmark import benchmark
    from adbench_tgan.jobs import Request
    from adbench_tgan.registry import Registry
    from adbench_tgan.runner import Settings

    workers = 2 if executor == "processes" else None
    settings = Settings(timing=False, workers=workers, address=address)
    benchmark(Request(**grid), settings, Registry.discover(), Diary(out / "diary"), out, executor)


class Campaign:
    """Rounds in folders of their own below `home`, compared with one uninterrupted run of `local`."""

    def __init__(self, home: Path, grid: dict[str, Any], seed: int):
        self.home, self.grid = home, grid
        self.chance = random.Random(seed)
        self.context = multiprocessing.get_context("forkserver")
        libraries = ["sklearn.datasets", "sklearn.metrics"]
        self.context.set_forkserver_preload(
            ["adbench_tgan.benchmark", "adbench_tgan.workers.processes", *libraries]
        )
        self.finish(self.run(home / "reference", "local"))
        self.scores = scores(home / "reference")

    def run(self, out: Path, executor: str, address: str | None = None) -> Any:
        out.mkdir(exist_ok=True)
        process = self.context.Process(target=drive, args=(out, self.grid, executor, address))
        process.start()
        return process

    def finish(self, process: Any) -> None:
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            raise SystemExit(f"a run did not end in {PATIENCE:g} s")
        assert process.exitcode == 0, f"a run ended with {process.exitcode}"

    def timed(self, executor: str, cluster: Any = None) -> float:
        """Seconds that an uninterrupted run takes."""
        began = time.monotonic()
        self.finish(self.run(self.home / f"timed-{executor}", executor, cluster and cluster.address))
        return time.monotonic() - began

    def round(self, name: str, executor: str, fault: str, seconds: float, cluster: Any = None) -> Round:
        """Run, kill at a random moment of `seconds`, run again to the end, and look."""
        out, address = self.home / name, cluster and cluster.address
        process = self.run(out, executor, address)
        process.join(self.chance.uniform(0, seconds))
        struck = process.exitcode is None and strike(fault, executor, process.pid, cluster, self.chance)
        process.join(0 if fault == "driver" and struck else PATIENCE)
        process.join()
        kept = len(scores(out))
        self.finish(self.run(out, executor, address))
        return self.seen(out, executor, fault, struck, kept)

    def seen(self, out: Path, executor: str, fault: str, struck: bool, kept: int) -> Round:
        """What is in a store, beside the reference."""
        found = scores(out)
        times = Counter((out / "diary").read_text().split())
        return Round(
            executor=executor,
            fault=fault,
            struck=struck,
            kept=kept,
            ok=len(found),
            lost=len(self.scores.keys() - found.keys()),
            doubled=sum(count > 1 for count in times.values()) + len(found.keys() - self.scores.keys()),
            different=sum(found[name] != self.scores[name] for name in found.keys() & self.scores.keys()),
        )


def scores(out: Path) -> dict[str, bytes]:
    """The bytes of each finished job's scores, by its folder's name."""
    from adbench_tgan.results import read_result

    found = {}
    for path in out.glob("*/*/*/*/result.json"):
        result = read_result(path.parent)
        assert result is not None, path
        if result.status == "ok":
            found[str(path.parent.relative_to(out))] = (path.parent / "scores.parquet").read_bytes()
    return found


def strike(fault: str, executor: str, driver: int, cluster: Any, chance: random.Random) -> bool:
    """Kill what the fault says; False if there is none."""
    if fault == "node":
        node = chance.choice(list(cluster.worker_nodes))
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        return True
    found = [driver] if fault == "driver" else sorted(workers(executor))
    if not found:
        return False
    with suppress(ProcessLookupError):
        os.kill(chance.choice(found), signal.SIGKILL)
        return True
    return False


def workers(executor: str) -> Iterator[int]:
    """Processes that run this campaign's jobs: they descend from it, as its clusters do."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (path / "cmdline").read_bytes().decode(errors="replace")
            if WORKERS[executor] in line and os.getpid() in ancestors(int(path.name)):
                yield int(path.name)


def ancestors(pid: int) -> Iterator[int]:
    """The process that started a process, the one that started that, and so on."""
    with suppress(OSError):
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            yield pid


@contextmanager
def three_nodes() -> Iterator[Any]:
    """A cluster of a head without places and three nodes with one each, all on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def rounds(campaign: Campaign, executor: str, count: int, seconds: float) -> Iterator[Round]:
    """Up to `count` rounds, none begun after `seconds`."""
    until = time.monotonic() + seconds
    with three_nodes() if executor == "ray" else no_cluster() as cluster:
        whole = campaign.timed(executor, cluster)
        for number in range(count):
            if time.monotonic() > until:
                return
            fault = FAULTS[executor][number % len(FAULTS[executor])]
            name = f"{executor}-{number}"
            yield campaign.round(name, executor, fault, whole, cluster)
            shutil.rmtree(campaign.home / name)


@contextmanager
def no_cluster() -> Iterator[None]:
    """Nothing to start."""
    yield None


def restless(campaign: Campaign, every: float) -> Round:
    """The campaign's grid in one Ray run, while every few seconds a node is killed or one is added."""
    out, killed, added = campaign.home / "restless", 0, 0
    with three_nodes() as cluster:
        process = campaign.run(out, "ray", cluster.address)
        until = time.monotonic() + PATIENCE
        while process.exitcode is None and time.monotonic() < until:
            process.join(campaign.chance.uniform(0.5, 1.5) * every)
            nodes = list(cluster.worker_nodes)
            if len(nodes) > 1 and campaign.chance.random() < 0.6:
                cluster.remove_node(campaign.chance.choice(nodes), allow_graceful=False)
                killed += 1
            elif len(nodes) < 4:
                cluster.add_node(num_cpus=1)
                added += 1
        campaign.finish(process)
    again = sum("begun again" in note for note in (out / "diary.notes").read_text().splitlines())
    print(f"{killed} nodes killed, {added} added, {again} jobs begun again", flush=True)
    return campaign.seen(out, "ray", "nodes", killed > 0, 0)


def table(found: Sequence[Round]) -> str:
    """A line an executor and fault, with sums over its rounds."""
    lines = ["executor   fault    rounds  struck  kept  ok    lost  doubled  different"]
    for executor, fault in dict.fromkeys((one.executor, one.fault) for one in found):
        some = [one for one in found if (one.executor, one.fault) == (executor, fault)]
        sums = [
            sum(getattr(one, name) for one in some)
            for name in ("struck", "kept", "ok", "lost", "doubled", "different")
        ]
        struck, kept, ok, lost, doubled, different = sums
        lines.append(
            f"{executor:10} {fault:8} {len(some):<7} {struck:<7} {kept:<5} {ok:<5} {lost:<5} {doubled:<8} {different}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table; the exit status says whether all was well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--executor", choices=FAULTS, default="processes")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1800, help="no round begins later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detectors", default=",".join(DETECTORS), help="of the small grid, a job each")
    parser.add_argument(
        "--grid", action="store_true", help="60 jobs on a Ray cluster whose nodes come and go"
    )
    parser.add_argument("--every", type=float, default=15, help="seconds between two events with --grid")
    wanted = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="campaign-") as home:
        small = SMALL | {"detectors": wanted.detectors.split(",")}
        campaign = Campaign(Path(home), GRID if wanted.grid else small, wanted.seed)
        if wanted.grid:
            found.append(restless(campaign, wanted.every))
        else:
            for one in rounds(campaign, wanted.executor, wanted.rounds, wanted.seconds):
                found.append(one)
                print(one, file=sys.stderr, flush=True)
    print(table(found))
    sys.exit(any(one.lost or one.doubled or one.different for one in found))


if __name__ == "__main__":
    main()

"""The executor `ray`: jobs on the machines of a Ray cluster, each in a fresh process there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from adbench_tgan.data.tasks import Tasks
from adbench_tgan.discovery.sources import digest
from adbench_tgan.errors import AdbenchError
from adbench_tgan.failures import failure
from adbench_tgan.hooks import one_line
from adbench_tgan.jobs import Job
from adbench_tgan.machine import cores
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result, write_files
from adbench_tgan.runner import Reporter, Settings, announce, attempt
from adbench_tgan.store.drafts import clear_temporary, draft_name
from adbench_tgan.workers.heads import Head, check_answers
from adbench_tgan.workers.processes import MANY, Heard, Process, beside, environment, pass_on, told
from adbench_tgan.workers.worker import read_back, read_spec, spec_of

ATTEMPTS = 5  # times that a job is begun, when what runs it dies
PATIENCE = 0.5  # seconds between two looks at the cluster
MEMORY = 2**28  # bytes of a local cluster's object store: results are small, and larger ones go to the disk

# In what Ray prints of an error; the error itself forgets it.
MACHINE = re.compile(r"\(pid=\d+, ip=([^,)\s]+)")
LACKING = "failed to import on the worker"  # what Ray says where a machine lacks this package

Files = dict[str, bytes]


def on_ray(
    jobs: Iterable[Job], settings: Settings, tasks: Tasks, registry: Registry, reporter: Reporter
) -> Iterator[Result]:
    """Each job as a Ray task that runs it in a fresh process of its machine, as the executor `processes` does.

    As many at a time as the cluster has CPUs, and GPU shares of `settings.gpus_per_job`, or `settings.workers` if that
    is less; machines may join and leave. A job whose Ray worker or machine dies is begun again, `ATTEMPTS` times in
    all; one whose own process dies is a failed result.

    Raises:
        AdbenchError: Ray is not installed, does not start, or no cluster answers, or none does any more.
    """
    tasks.release()  # each process reads its own
    with connected(settings) as (ray, head):
        waiting, running = iter(jobs), list[Distant]()
        warn_of_sharing(room(ray, settings), settings, reporter)
        try:
            while True:
                while len(running) < head.ask(room, ray, settings) and (job := next(waiting, None)):
                    announce(job, registry, reporter)
                    if job.problem:  # nothing to run
                        yield attempt(job, settings, tasks, registry, reporter)
                    else:
                        running.append(Distant(job, settings, beginner(ray, job, settings, registry), ray))
                if not running:
                    return
                for distant in running:
                    distant.at_once = max(distant.at_once, len(running))
                heard = ready(ray, running)
                head.wait_for()
                for distant in heard:
                    if (result := distant.hear(reporter)) is not None:
                        running.remove(distant)
                        yield beside(result, distant.at_once)
        finally:
            for distant in running if head.is_there else ():
                distant.cancel()


class Distant:
    """A job on the cluster: begun once, and again when what runs it dies."""

    def __init__(self, job: Job, settings: Settings, begin: Callable[[], Any], ray: Any):
        self.job, self.settings, self.begin, self.ray = job, settings, begin, ray
        self.attempts = 1
        self.at_once = 1  # jobs of this run that ran beside it, and itself
        self.stream = begin()  # of references to what `carry_out_there` yields

    def hear(self, reporter: Reporter) -> Result | None:
        """Pass on the next thing that it tells; its result if that is it."""
        from ray.exceptions import RayError, RayTaskError

        try:
            said = self.ray.get(next(self.stream))
        except StopIteration:
            return failure(self.job, self.settings, "its Ray task returned no result")
        except RayTaskError as error:  # raised by the task: its node lacks something
            return failure(self.job, self.settings, raised_there(error))
        except RayError as error:
            return self._again(type(error).__name__, reporter)
        if isinstance(said, dict):
            return unpack(self.job, self.settings, said)
        pass_on(said, self.job, reporter)
        return None

    def _again(self, why: str, reporter: Reporter) -> Result | None:
        if self.attempts == ATTEMPTS:
            return failure(
                self.job,
                self.settings,
                f"its Ray worker or machine died {ATTEMPTS} times, the last time with {why}",
            )
        self.attempts += 1
        reporter.warn(
            f"{self.job}: its Ray worker or machine died ({why}); begun again, attempt {self.attempts} of {ATTEMPTS}"
        )
        self.stream = self.begin()
        return None

    def cancel(self) -> None:
        """End it, wherever it runs."""
        with suppress(Exception):  # the cluster may be gone
            self.ray.cancel(self.stream, force=True)


def ready(ray: Any, running: Sequence[Distant]) -> list[Distant]:
    """Those that have something to tell, after a moment's wait at most."""
    by_stream = {distant.stream: distant for distant in running}
    streams, _ = ray.wait(list(by_stream), num_returns=len(by_stream), timeout=0)
    if not streams:
        streams, _ = ray.wait(list(by_stream), num_returns=1, timeout=PATIENCE)
    return [by_stream[stream] for stream in streams]


def beginner(ray: Any, job: Job, settings: Settings, registry: Registry) -> Callable[[], Any]:
    """A function that begins a job as a Ray task; Ray itself never repeats one."""
    task = ray.remote(num_cpus=1, num_gpus=settings.gpus_per_job or 0, max_retries=0, num_returns="streaming")
    parcel = pack(spec_of(job, replace(settings, workers=None), registry))
    return lambda: task(carry_out_there).remote(parcel)


def warn_of_sharing(places: int, settings: Settings, reporter: Reporter) -> None:
    """Say that times are those of machines at work on several jobs."""
    if places > 1 and settings.timing:
        reporter.warn(
            f"up to {places} jobs at a time share the cluster, which makes their times longer; for fair times, give --workers 1"
        )


# --- what travels -----------------------------------------------------------------------------------------------


def pack(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A job's spec, with the files of plugins that are not installed and where this process finds modules."""
    words = [word.rpartition(":")[0] for word in spec["detectors"]]
    paths = [*spec["plugins"], *(word for word in words if word.endswith(".py"))]
    return {
        "spec": dict(spec),
        "sources": {path: Path(path).read_bytes() for path in paths},
        "search": [os.path.abspath(entry) for entry in sys.path],
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def place(parcel: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The spec for this machine: plugins' files that it lacks, or has otherwise, are written into `folder`."""
    here = {path: _placed(Path(path), data, folder) for path, data in parcel["sources"].items()}
    spec = dict(parcel["spec"])
    spec["plugins"] = [here[path] for path in spec["plugins"]]
    parts = [word.rpartition(":") for word in spec["detectors"]]
    spec["detectors"] = [f"{here.get(path, path)}:{name}" for path, _, name in parts]
    return spec


def _placed(path: Path, data: bytes, folder: Path) -> str:
    with suppress(OSError):
        if path.read_bytes() == data:
            return str(path)
    copy = folder / digest(str(path).encode()) / path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(data)
    return str(copy)


def carry_out_there(parcel: Mapping[str, Any]) -> Iterator[list[Any] | Files]:
    """Run a job in a process of this machine; yield what it tells, and at last the files of its result."""
    sys.path += [entry for entry in parcel["search"] if entry not in sys.path and os.path.exists(entry)]
    if parcel["threads"]:
        os.environ["OMP_NUM_THREADS"] = parcel["threads"]
    clear_temporary()
    with tempfile.TemporaryDirectory(prefix=f"{draft_name()}-") as name:
        folder = Path(name)
        spec = place(parcel, folder / "plugins")
        job, settings = read_spec(spec)
        heard = Heard(MANY)
        process = Process(job, replace(settings, scratch=folder), spec, heard, environment(1))
        try:
            while not process.ended():
                yield from (line for _, line in told(heard))
            yield from (line for _, line in told(heard))
            result = process.result()
            if result.status == "failed":  # it may be for what this machine lacks
                result = replace(result, error=f"{result.error} (on {socket.gethostname()})")
        finally:
            process.close()
        (folder / "result").mkdir()
        write_files(result, folder / "result")
        yield {path.name: path.read_bytes() for path in (folder / "result").iterdir()}


def unpack(job: Job, settings: Settings, files: Files) -> Result:
    """The result that came as files; they are checked as any that are read from a disk."""
    folder = Path(settings.scratch or tempfile.gettempdir()) / draft_name()
    try:
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / Path(name).name).write_bytes(data)
        found = read_back(job, folder)
        return found or failure(job, settings, "its Ray task returned an incomplete result")
    except (AdbenchError, OSError) as error:
        return failure(job, settings, str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def raised_there(error: BaseException) -> str:
    """What a task raised, and on which machine, without the traceback and the search path that Ray prints."""
    cause = getattr(error, "cause", None)
    lacking = isinstance(cause, ImportError) or LACKING in str(cause)
    if isinstance(cause, BaseException) and LACKING not in str(cause):
        told = one_line(cause)
    else:
        told = str(cause or error).strip().splitlines()[-1]
    remedy = "; install there what is installed here, then run again" if lacking else ""
    machine = MACHINE.search(str(error))
    return f"{told}{f' (on {machine[1]})' if machine else ''}{remedy}"


# --- the cluster ------------------------------------------------------------------------------------------------


@contextmanager
def connected(settings: Settings) -> Iterator[tuple[Any, Head]]:
    """The module `ray`, connected to the cluster at `settings.address`, or to a new one on this machine; and its head.

    A connection that this process has already is used, and kept.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise AdbenchError("executor 'ray' needs Ray: pip install 'adbench-tgan[ray]'") from None
    ours = not ray.is_initialized()
    with silenced(ray):
        if ours:
            connect(ray, settings)
        head = Head(ray)
        try:
            check_gpus(ray, settings)
            yield ray, head
        finally:
            if ours:
                head.leave()


@contextmanager
def silenced(ray: Any) -> Iterator[None]:
    """Keep what Ray prints about dead machines, pages of it, off the standard output; no setting of its own does."""
    home, name = getattr(ray, "_private", None), "print_to_stdstream"
    worker = getattr(home, "worker", None)
    printing = getattr(worker, name, None)
    if printing is None:  # another version of Ray: then it prints
        yield
        return
    setattr(worker, name, lambda *words, **more: None)
    try:
        yield
    finally:
        setattr(worker, name, printing)


def connect(ray: Any, settings: Settings) -> None:
    """Join a cluster, or start one of this machine alone."""
    polite = signal.getsignal(signal.SIGTERM)
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if settings.address:
            check_answers(ray, settings.address)
            ray.init(address=settings.address, **quiet)
        else:
            cpus = settings.workers or cores()
            ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=MEMORY, **quiet)
    except AdbenchError:
        raise
    except Exception as error:
        raise unconnected(settings.address, one_line(error)) from None
    except SystemExit as ended:  # while SIGTERM is Ray's
        raise (KeyboardInterrupt if ended.code == signal.SIGTERM else ended) from None
    finally:
        with suppress(ValueError):  # only the main thread may
            signal.signal(signal.SIGTERM, polite)  # Ray takes it


def unconnected(address: str | None, reason: str) -> AdbenchError:
    """The error for a cluster that cannot be joined, or not be started."""
    if not address:
        return AdbenchError(f"Ray does not start ({reason[:200]}); use --executor processes")
    if "Version mismatch" in reason:
        what, remedy = "its cluster has another version of Ray or Python", "install the same here"
    else:
        what = "no Ray cluster answers"
        remedy = "start one with 'ray start --head', or set RAY_AUTH_MODE=token if it asks for a token"
    return AdbenchError(f"--address {address}: {what} ({reason[:300]}); {remedy}")


def check_gpus(ray: Any, settings: Settings) -> None:
    """Refuse a cluster that has no GPU to give."""
    share = settings.gpus_per_job
    if share and not ray.cluster_resources().get("GPU", 0):
        raise AdbenchError(f"--gpus-per-job {share:g}: the cluster has no GPU; leave the option out")


def room(ray: Any, settings: Settings) -> int:
    """Jobs that the cluster, as it is now, runs at a time; one may always wait for it to grow."""
    there = ray.cluster_resources()
    places = int(there.get("CPU", 0))
    if share := settings.gpus_per_job:
        gpus = there.get("GPU", 0)
        places = min(places, int(gpus) * int(1 / share) if share < 1 else int(gpus / share))
    return max(1, min(places, settings.workers or places))

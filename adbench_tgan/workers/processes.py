"""The executor `processes`: each job in a fresh process, so that what a plugin breaks is one job."""

from __future__ import annotations

import json
import math
import queue
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import torch

from adbench_tgan.data.tasks import Tasks
from adbench_tgan.errors import AdbenchError, unwritable
from adbench_tgan.failures import failure
from adbench_tgan.interrupts import KINDS
from adbench_tgan.jobs import Job
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result
from adbench_tgan.runner import Reporter, Settings, announce, attempt
from adbench_tgan.store.drafts import draft_name
from adbench_tgan.workers.mps import side_by_side
from adbench_tgan.workers.nursery import LOST, Child, begin, kill, own_environment, stop
from adbench_tgan.workers.packing import Packing, Waiting, packing_of, read_footprint
from adbench_tgan.workers.worker import FAULT, RESULT, SPEC, read_back, spec_of

PATIENCE = 0.1  # seconds between two looks at the processes
START = 60.0  # seconds that a process may take to start, on top of its job's own limit
MANY = 1000  # lines that wait to be passed on, after which those who print more have to wait
LAST = 1.0  # seconds in which what a process said last is heard: what it started may hold its streams, others be loud
NEXT = 1.0  # seconds in which we are told to end too, where a batch system ends us all: that is no failure of a job
WORDS = 200  # characters of its last line that a failed job's reason quotes
LINE = 2**16  # characters after which a line that has no end is passed on

TOLD_TO_END = {LOST, *(-kind for kind in KINDS)}  # how a process, or its nursery, then ends

ENDED_ITSELF = (
    "its process ended before there was a result, and without an error; does the detector call os._exit?"
)

FEWER = "lower --workers, or raise the limits of open files and processes (ulimit -n, ulimit -u)"

Heard = queue.Queue[tuple["Process", list[Any]]]


def processes(
    jobs: Iterable[Job], settings: Settings, tasks: Tasks, registry: Registry, reporter: Reporter
) -> Iterator[Result]:
    """Each job in a fresh process, as many at a time as the settings say, else one; results come as they are ready.

    A process that dies, or gives nothing within `settings.job_timeout` seconds of its job's begin, is a failed
    result. No process of a job outlives this iterator, nor the process that iterates.
    """
    tasks.release()  # each process reads its own
    yield from packed(jobs, settings, tasks, registry, reporter, packing_of(settings))


def packed(
    jobs: Iterable[Job],
    settings: Settings,
    tasks: Tasks,
    registry: Registry,
    reporter: Reporter,
    packing: Packing,
) -> Iterator[Result]:
    """As `processes`, with a packing of one's own."""
    if settings.timing and (warning := packing.warning()):
        reporter.warn(warning)
    waiting, running, heard = Waiting(jobs), list[Process](), Heard(MANY)
    mps: Mapping[str, str] = {}
    with ExitStack() as ending:
        if packing.on_gpu and packing.most > 1:
            mps = ending.enter_context(side_by_side(reporter.warn))
        ending.callback(close, running)  # before MPS ends
        while True:
            while (job := waiting.take(packing, [process.job for process in running])) is not None:
                if job.key not in packing.alone:
                    announce(job, registry, reporter)
                if job.problem:  # nothing to run
                    yield attempt(job, settings, tasks, registry, reporter)
                    continue
                env = {**environment(packing.share(job)), **mps}
                running.append(Process(job, settings, spec_of(job, settings, registry), heard, env))
            if not running:
                return
            for process in running:
                process.at_once = max(process.at_once, len(running))
            listen(heard, reporter)
            ended = [each for each in running if each.ended()]
            if any(each.process.returncode in TOLD_TO_END for each in ended):
                sleep(NEXT)
            for process in ended:
                hear_out(process, heard, reporter)
                running.remove(process)
                if (result := conclude(process, packing)) is not None:
                    yield result
                else:
                    waiting.again.append(process.job)
                    why = packing.alone[process.job.key]
                    reporter.warn(f"{process.job}: {why}; it runs once more, alone")


def close(running: Iterable[Process]) -> None:
    """End processes, and remove what they wrote."""
    for process in running:
        kill(process.process)  # all at once, before any is waited for
    for process in running:
        process.close()


def conclude(process: Process, packing: Packing) -> Result | None:
    """The result of a process that has ended; None if its job has to run once more, alone."""
    found = read_footprint(process.folder)
    result = process.result()
    if found is not None and result.status == "ok":
        packing.learn(process.job, found, at_once=process.at_once)
    if packing.again(process.job, result, at_once=process.at_once):
        return None
    return packing.noted(result)


def listen(heard: Heard, reporter: Reporter) -> None:
    """Pass on what the processes tell, for a moment."""
    for job, line in told(heard):
        pass_on(line, job, reporter)


def hear_out(process: Process, heard: Heard, reporter: Reporter) -> None:
    """Pass on what is left of what a process told that has ended."""
    until = monotonic() + LAST
    while not (process.silent() and heard.empty()) and monotonic() < until:
        listen(heard, reporter)


def told(heard: Heard) -> Iterator[tuple[Job, list[Any]]]:
    """What the processes tell, for a moment: some may never fall silent."""
    until = monotonic() + PATIENCE
    while (rest := until - monotonic()) > 0:
        try:
            process, line = heard.get(timeout=rest)
        except queue.Empty:
            return
        process.heed(line)
        yield process.job, line


def pass_on(line: Sequence[Any], job: Job, reporter: Reporter) -> None:
    """Tell the user what a job's process told."""
    what, *facts = line
    if what == "phase":
        reporter.phase(facts[0], job)
    elif what == "epoch":
        number, total, losses = facts
        reporter.epoch(number, total, losses, job)
    elif what == "images":
        done, total = facts
        reporter.images(done, total, job)
    elif what == "warn":
        reporter.warn(facts[0])
    else:
        sys.stderr.write(facts[0])


class Process:
    """A job's process, from its start to its result."""

    def __init__(
        self, job: Job, settings: Settings, spec: Mapping[str, Any], heard: Heard, env: Mapping[str, str]
    ):
        self.job, self.settings = job, settings
        self.at_once = 1  # jobs that ran at a time with it, at most, and itself
        self.limit = math.inf if settings.job_timeout is None else settings.job_timeout  # seconds
        self.deadline = monotonic() + START + self.limit
        self.begun = self.late = False
        self.last = ""  # line that it printed
        self.folder = new_folder(settings, spec)
        self.readers = [
            threading.Thread(target=self._hear, args=(heard, kind), daemon=True) for kind in (1, 2)
        ]
        with ExitStack() as undoing:
            undoing.callback(shutil.rmtree, self.folder, ignore_errors=True)
            try:
                self.process = begin("adbench_tgan.workers.worker", self.folder, env)
                undoing.callback(stop, self.process)
                for reader in self.readers:
                    reader.start()
            except (OSError, RuntimeError) as error:  # what a thread that cannot be started raises
                raise AdbenchError(f"cannot start a process for {job}: {error}; {FEWER}") from None
            undoing.pop_all()

    def _hear(self, heard: Heard, stream: int) -> None:
        pipe = self.process.stdout if stream == 1 else self.process.stderr
        assert pipe is not None
        with pipe:
            while line := pipe.readline(LINE):
                if stream == 2:
                    heard.put((self, ["print", line.decode(errors="replace")]))
                    continue
                with suppress(ValueError):  # a crash cut it short
                    heard.put((self, json.loads(line)))

    def heed(self, line: Sequence[Any]) -> None:
        """Its job begins, after all that had to be imported: from now on its time counts. Or it printed something."""
        if line[0] == "phase" and not self.begun:
            self.begun, self.deadline = True, monotonic() + self.limit
        elif line[0] == "print":  # the last line that says something, in a form fit for a table
            shown = "".join(char for char in line[1] if char.isprintable()).strip()
            self.last = shown[:WORDS] or self.last

    def silent(self) -> bool:
        """Whether all that it told is among what is heard."""
        return not any(reader.is_alive() for reader in self.readers)

    def ended(self) -> bool:
        """Whether it has come to its end, or to that of its time; then nothing of it is left."""
        running = self.process.poll() is None
        if running and monotonic() < self.deadline:
            return False
        self.late = running
        stop(self.process)
        return True

    def close(self) -> None:
        """End it, and remove what it wrote."""
        stop(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def result(self) -> Result:
        """What it wrote; when that is not all there, a failure with the reason."""
        found, reason = None, self.reason()
        try:
            if not reason:
                found, reason = read_back(self.job, self.folder / RESULT), ENDED_ITSELF
        except AdbenchError as error:
            reason = str(error)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        if found is None:
            return failure(self.job, self.settings, reason)
        return beside(found, self.at_once, forked=isinstance(self.process, Child))

    def said(self) -> str:
        """What it said last, to go on a sentence; empty if it said nothing."""
        return f"; its last line: {self.last}" if self.last else ""

    def reason(self) -> str:
        """Why there is no result, in a line; empty if the process ended well."""
        code = self.process.returncode
        if self.late and not self.begun:
            return f"not started after {START + self.limit:g} s: stopped; is the machine too busy?"
        if self.late:
            return f"no result after {self.limit:g} s: stopped; raise --job-timeout if it needs longer"
        assert code is not None
        if code == 0:
            return ""
        if code == LOST:
            if isinstance(self.process, Child) and not self.last:
                self.last = self.process.nursery.last_words()
            return (
                f"its process could not be forked, or the process that forks died{self.said()}; "
                "run again, with fewer --workers if it comes again"
            )
        if code > 0:
            return f"the process ended with exit status {code}{self.said()}"
        if code == -signal.SIGKILL:
            return "the process died by signal SIGKILL; if memory ran out, lower --workers, batch_size or image_size"
        return f"the process died by signal {signal_name(-code)}{crash_site(self.folder / FAULT)}"


def beside(result: Result, at_once: int, *, forked: bool = False) -> Result:
    """A result that says how many jobs ran at once, as its times show, and if its process was forked, as its memory does."""
    if not result.machine:
        return result
    facts = {"jobs_at_once": at_once} if at_once > 1 else {}
    return replace(result, machine={**result.machine, **facts, **({"forked": True} if forked else {})})


def new_folder(settings: Settings, spec: Mapping[str, Any]) -> Path:
    """A folder for one process, with its spec."""
    folder = Path(settings.scratch or tempfile.gettempdir()) / draft_name()
    try:
        folder.mkdir(parents=True)
        (folder / SPEC).write_text(json.dumps(spec))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise unwritable(folder, error) from None
    return folder


def environment(workers: int) -> dict[str, str]:
    """This process's own, with its search path; several processes share its threads, unless the user set them."""
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))} if workers > 1 else {}
    return threads | own_environment()


def signal_name(number: int) -> str:
    """``SIGSEGV``; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def crash_site(fault: Path) -> str:
    """Where the interpreter was when it crashed, as `faulthandler` wrote it down: `` in fit (crash.py, line 12)``."""
    with suppress(OSError):
        if found := re.search(r'File "(.*)", line (\d+) in (.*)', fault.read_text(errors="replace")):
            return f" in {found[3]} ({Path(found[1]).name}, line {found[2]})"
    return ""

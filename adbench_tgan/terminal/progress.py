"""How a run shows itself on the terminal: bars for jobs and epochs, and a line a finished job."""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from adbench_tgan.terminal.forecast import Forecast, Pace, left
from adbench_tgan.text import in_digits, plain

if TYPE_CHECKING:
    from adbench_tgan.jobs import Job
    from adbench_tgan.results import Result


QUIET = 30.0  # seconds after which a log, which has no bars, is told how far a job is
SILENT = (60.0, 600.0)  # at first, and at last, between two words on a job that tells nothing itself
FORETOLD = 60.0  # seconds between two words in a log on how long the rest will take


class TimeLeft(ProgressColumn):
    """How long a bar's things will take, to the moment in its field `until`."""

    def render(self, task: Task) -> Text:
        """The words, fewer seconds each time; none once they are over."""
        moment = task.fields["until"]
        return Text(left(None if moment is None else moment - monotonic()))


def redrawn() -> bool | None:
    """False if the standard error stream only grows, though it may call itself a terminal; else rich decides.

    ``FORCE_COLOR`` makes any file a terminal for rich. A notebook gives ``!adbench run`` a real one, but adds a line each
    time that the cursor should go up; ipykernel sets these two variables.
    """
    notebook = os.environ.get("TERM") == "xterm-color" and os.environ.get("GIT_PAGER") == "cat"
    return None if sys.stderr and sys.stderr.isatty() and not notebook else False


class TerminalReporter:
    """Bars on the standard error stream where that is a terminal; a line a job everywhere."""

    def __init__(self, console: Console | None = None):
        # A detector may turn `sys.stderr` elsewhere for a while: this goes on to where it was.
        self.console = console = console or Console(file=sys.stderr, stderr=True, force_interactive=redrawn())
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeLeft(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=not console.is_interactive,
            transient=True,
        )
        self.jobs = self.progress.add_task("jobs", total=None, until=None, detail="")
        self.bars: dict[str, TaskID] = {}  # one for each job that is running, by its key
        self.phases: dict[str, tuple[Job, str, float]] = {}  # that these jobs are in, and since when
        self.paces: defaultdict[str, Pace] = defaultdict(Pace)  # of these phases
        self.forecast, self.foretold = Forecast(), monotonic()
        self.notes = Counter[tuple[str, str]]()  # how many jobs of a detector have this note
        self.done = 0
        self.count = 0
        self.read: tuple[str, float] | None = None  # what is being read, and since when
        self.said = monotonic()
        self.ended = Event()

    def __enter__(self) -> Self:
        self.progress.start()
        if not self.console.is_interactive:
            Thread(target=self._show_life, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.progress.stop()

    def _show_life(self) -> None:
        """Say in a log, ever more seldom, what is being read, and which jobs have told nothing for so long."""
        pause, longest = SILENT
        while not self.ended.wait(pause):
            if monotonic() - self.said < pause:
                pause = SILENT[0]
                continue
            if read := self.read:
                self.say(f"{read[0]}, for {monotonic() - read[1]:,.0f} s")
            for job, phase, since in list(self.phases.values()):
                self.say(f"[{self.done + 1}/{self.count}] {job}: {phase}, for {monotonic() - since:,.0f} s")
            pause = min(2 * pause, longest)

    def reading(self, category: str, number: int, count: int) -> None:
        """Say whose images are being read, of which there can be thousands."""
        told = f"reading the images of {category}, category {number} of {count}"
        detail = escape(plain(category))
        self.progress.update(
            self.jobs, description="reading", completed=number - 1, total=count, detail=detail
        )
        self.log(told)
        self.read = told, monotonic()

    def planned(self, missing: Sequence[Job], kept: int) -> None:
        """Say how much is to do, and what is there already."""
        self.count, self.read = len(missing), None
        self.forecast, self.foretold = Forecast(missing), monotonic()
        self.progress.reset(self.jobs, description="jobs", total=self.count, until=None, detail="")
        if kept:
            rest = f"{self.count} to run" if self.count else "nothing to run"
            self.say(f"{kept} of {kept + self.count} jobs are finished already; {rest}")

    def job_started(self, job: Job) -> None:
        """A job begins, or begins anew."""
        self._drop_bar(job)
        self.forecast.start(job)
        self.bars[job.key] = self.progress.add_task(
            "start", total=None, until=None, detail=escape(plain(str(job)))
        )

    def phase(self, name: str, job: Job) -> None:
        """A job's bar begins anew with each phase."""
        if job.key in self.bars:
            bar = self.bars[job.key]
            self.phases[job.key] = job, name, monotonic()
            self.paces.pop(job.key, None)
            self.progress.reset(bar, description=name, total=None, until=None, detail=escape(str(job)))

    def epoch(self, number: int, total: int | None, losses: Mapping[str, float], job: Job) -> None:
        """An epoch has ended."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        seconds = self.paces[job.key].seconds(number, total)
        if job.key in self.bars:
            detail = escape(plain(f"{job}  {shown}"))
            self.progress.update(
                self.bars[job.key], completed=number, total=total, until=until(seconds), detail=detail
            )
        of = f"{number}/{total}" if total else str(number)
        self.log(f"[{self.done + 1}/{self.count}] {job}: epoch {of}{aside(left(seconds))}  {shown}")

    def images(self, done: int, total: int, job: Job) -> None:
        """So many images are done in this phase."""
        if job.key in self.bars:
            seconds = self.paces[job.key].seconds(done, total)
            self.progress.update(self.bars[job.key], completed=done, total=total, until=until(seconds))
            _, phase, _ = self.phases.get(job.key, (job, "images", 0.0))
            self.log(
                f"[{self.done + 1}/{self.count}] {job}: {phase} {done:,}/{total:,} images{aside(left(seconds))}"
            )

    def job_finished(self, result: Result) -> None:
        """Print what became of the job, and what its row notes; not again and again what each job of a detector has."""
        if result.status == "ok":
            seconds = result.timing.get("fit_seconds")
            clock = "" if seconds is None else f", fit {seconds:.1f} s"
            auroc = in_digits(result.metrics.get("auroc")) or "missing"
            self.job_ended(result.job, f"AUROC {auroc}{clock}")
        else:
            self.job_ended(result.job, f"failed: {result.error}")
        for note in result.notes:
            self.notes[result.job.detector, note] += 1
            if (times := self.notes[result.job.detector, note]) <= 2:
                rest = "" if times == 1 else "; of its further jobs only the rows say so"
                self.warn(f"{result.job}: {note}{rest}")

    def job_ended(self, job: Job, how: str) -> None:
        """Print how a job ended, and take its bar away."""
        self.done += 1
        self._drop_bar(job)
        self.forecast.end(job)
        seconds = self.forecast.seconds()
        self.progress.update(self.jobs, completed=self.done, until=until(seconds))
        self.say(f"[{self.done}/{self.count}] {job}: {how}")
        rest = left(seconds)
        if rest and not self.console.is_interactive and monotonic() - self.foretold > FORETOLD:
            self.foretold = monotonic()
            self.say(f"{self.done} of {self.count} jobs have ended, {rest}")

    def _drop_bar(self, job: Job) -> None:
        self.phases.pop(job.key, None)
        self.paces.pop(job.key, None)
        if job.key in self.bars:
            self.progress.remove_task(self.bars.pop(job.key))

    def log(self, message: str) -> None:
        """Print a line where there are no bars, if there was none for a while."""
        if not self.console.is_interactive and monotonic() - self.said > QUIET:
            self.say(message)

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        self.said = monotonic()
        self.progress.console.print(plain(message), markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Something to know that stops nothing."""
        self.say(f"note: {message}")


def until(seconds: float | None) -> float | None:
    """The moment in so many seconds, on the clock that does not jump."""
    return None if seconds is None else monotonic() + seconds


def aside(words: str) -> str:
    """Words in brackets, if there are any."""
    return f" ({words})" if words else ""

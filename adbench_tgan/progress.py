"""How a run shows itself on the terminal: bars for jobs and epochs, a line a finished job, tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from adbench_tgan.jobs import Job
    from adbench_tgan.results import Result

    Cell = Callable[[pd.Series], str]


class TerminalReporter:
    """Bars on the standard error stream where that is a terminal; a line a job everywhere."""

    def __init__(self, console: Console):
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.jobs = self.progress.add_task("jobs", total=None, detail="")
        self.epochs = self.progress.add_task("epochs", total=None, detail="", visible=False)
        self.done = 0
        self.count = 0

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def planned(self, jobs: int, kept: int) -> None:
        """Say how much is to do, and what is there already."""
        self.count = jobs - kept
        self.progress.update(self.jobs, total=self.count)
        if kept:
            rest = f"{self.count} to run" if self.count else "nothing to run"
            self.say(f"{kept} of {jobs} jobs are finished already; {rest}")

    def job_started(self, job: Job) -> None:
        """A job begins."""
        self.progress.update(self.jobs, detail=escape(str(job)))

    def phase(self, name: str) -> None:
        """Show the epochs' bar while fitting only."""
        self.progress.reset(self.epochs, description=name, total=None, visible=True, detail="")

    def epoch(self, number: int, total: int | None, losses: Mapping[str, float]) -> None:
        """An epoch has ended."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        self.progress.update(self.epochs, completed=number, total=total, detail=escape(shown))

    def job_finished(self, result: Result) -> None:
        """Print what became of the job."""
        self.done += 1
        self.progress.update(self.epochs, visible=False)
        self.progress.update(self.jobs, completed=self.done, detail="")
        if result.status == "ok":
            seconds = result.timing.get("fit_seconds")
            clock = "" if seconds is None else f", fit {seconds:.1f} s"
            auroc = f"{result.metrics['auroc']:.3f}" if "auroc" in result.metrics else "missing"
            ended = f"AUROC {auroc}{clock}"
        else:
            ended = f"failed: {result.error}"
        self.say(f"[{self.done}/{self.count}] {result.job}: {ended}")
        for note in result.notes:
            self.warn(f"{result.job}: {note}")

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        self.progress.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Something to know that stops nothing."""
        self.say(f"note: {message}")


def leaderboard_view(board: pd.DataFrame, title: str) -> Table:
    """The leaderboard as a person reads it."""
    with_maps = bool(board["pixel_auroc_mean"].notna().any())
    columns: list[tuple[str, Cell]] = [
        ("rank", lambda line: _number(line["rank"], "{:d}")),
        ("detector", lambda line: escape(line["detector"])),
        ("supervision", lambda line: line["supervision"]),
        ("pretrained", lambda line: "no" if line["pretrained"] == "False" else escape(line["pretrained"])),
        ("preset", lambda line: escape(line["preset"])),
        ("AUROC", lambda line: _number(line["auroc_mean"], "{:.3f}")),
        ("95 % interval", _interval),
        ("AP", lambda line: _number(line["average_precision_mean"], "{:.3f}")),
    ]
    if with_maps:
        columns.append(("pixel AUROC", lambda line: _number(line["pixel_auroc_mean"], "{:.3f}")))
        columns.append(("AUPRO", lambda line: _number(line["aupro_mean"], "{:.3f}")))
    columns += [
        ("jobs", _jobs),
        ("fit s", lambda line: _number(line["fit_seconds"], "{:.2f}")),
        ("ms/image", lambda line: _number(line["latency_ms_p50"], "{:.2f}")),
        ("images/s", lambda line: _number(line["images_per_second"], "{:,.0f}")),
        ("peak MB", lambda line: _number(line["peak_memory_mb"], "{:,.0f}")),
        ("parameters", lambda line: _number(line["parameters"], "{:,d}")),
    ]
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for name, _ in columns:
        left = name in ("detector", "supervision", "pretrained", "preset")
        table.add_column(name, justify="left" if left else "right", no_wrap=name == "detector")
    for kind in board["supervision"].unique():
        for _, line in board[board["supervision"] == kind].iterrows():
            table.add_row(*(cell(line) for _, cell in columns))
        table.add_section()  # ranks start anew
    return table


def records_view(records: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Any list of records as a table; the keys of the first are the columns."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for name in records[0] if records else ():
        table.add_column(name.replace("_", " "), overflow="fold")
    for record in records:
        table.add_row(*(escape(_text(value)) for value in record.values()))
    return table


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: Any, form: str) -> str:
    import pandas as pd

    return "" if pd.isna(value) else form.format(int(value) if "d" in form else float(value))


def _interval(line: pd.Series) -> str:
    return f"{_number(line['auroc_ci_low'], '{:.3f}')}-{_number(line['auroc_ci_high'], '{:.3f}')}"


def _jobs(line: pd.Series) -> str:
    shown = f"{line['n_categories']}x{line['n_seeds']}"
    return f"{shown}, {line['n_failed']} failed" if line["n_failed"] else shown

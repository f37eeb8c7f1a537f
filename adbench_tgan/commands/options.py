"""What several commands share: options, how their texts are read and completed, how a run is interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adbench_tgan.commands.show import warn
from adbench_tgan.errors import AdbenchError
from adbench_tgan.interrupts import as_ctrl_c

if TYPE_CHECKING:
    from adbench_tgan.data.tasks import Tasks
    from adbench_tgan.jobs import Request
    from adbench_tgan.registry import Registry


def registry(files: list[Path] | None = None, *, quiet: bool = False) -> Registry:
    """The installed plugins, found anew, and those in `files`; unless `quiet` with a line for each that is broken."""
    from adbench_tgan.registry import Registry

    found = Registry.discover(files or ())
    for plugin in () if quiet else found.plugins():
        if plugin.error:
            warn(f"plugin {plugin.origin} is broken: {plugin.error}")
    return found


def complete(kind: str, *, several: bool = True) -> Any:
    """A shell completion of registered names, also after a comma."""

    def names(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [
            f"{before}{comma}{name}" for name in registry(quiet=True).names(kind) if name.startswith(last)
        ]

    return names


Detectors = Annotated[
    str, typer.Option(help="Comma-separated names, or all.", autocompletion=complete("detector"))
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to the standard output.")]
Device = Annotated[
    str, typer.Option(help="auto (a CUDA GPU if there is one, else the CPU), cpu, cuda or cuda:N.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder that holds the dataset; downloads go there too.  [default: $ADBENCH_DATA, else ./data]"
    ),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="How the dataset is split for training and testing.  [default: the dataset's own]",
        autocompletion=complete("protocol"),
    ),
]
Categories = Annotated[str | None, typer.Option(help="Comma-separated names.  [default: all]")]
Data = Annotated[
    str, typer.Option(help="Name of the dataset.", autocompletion=complete("dataset", several=False))
]
ResultsData = Annotated[
    str | None,
    typer.Option(
        help="Dataset, if the results are of several.", autocompletion=complete("dataset", several=False)
    ),
]
ResultsProtocol = Annotated[
    str | None,
    typer.Option(
        help="Protocol, if the results are of several.", autocompletion=complete("protocol", several=False)
    ),
]
Seeds = Annotated[str, typer.Option(help="Comma-separated training seeds.")]
Precision = Annotated[str, typer.Option(help="fp32, tf32 or bf16.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="paper, quick, or another that the detector has.  [default: the dataset's: quick for digits, else paper]"
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="DETECTOR.KEY=VALUE", help="Change one setting; repeatable."),
]
Published = Annotated[
    Path | None,
    typer.Option(
        help="CSV of the numbers that papers report.  [default: leaderboards/published_numbers.csv, else the packaged one]"
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="A Python file with detectors or hooks; repeatable."),
]


def root(given: Path | None) -> Path:
    """Where datasets are: the option, else ``$ADBENCH_DATA``, else ``data``."""
    return given if given is not None else Path(os.environ.get("ADBENCH_DATA") or "data")


def published_table(given: Path | None) -> Path:
    """Where published numbers are: the option, else the table beside the boards here, else the one that is shipped."""
    from adbench_tgan.ranking.published import SHIPPED

    here = Path("leaderboards/published_numbers.csv")
    return given or (here if here.exists() else SHIPPED)


def split(text: str, option: str) -> list[str]:
    """The names in a list with commas."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise AdbenchError(f"{option} is empty; give names with commas between")
    return names


def seed(text: str) -> int:
    """One of ``--seeds``: from 0 to what NumPy takes."""
    from adbench_tgan.jobs import LAST_SEED

    if not text.isdecimal() or int(text) > LAST_SEED:
        raise AdbenchError(f"--seeds: {text!r} is not a whole number from 0 to {LAST_SEED}")
    return int(text)


def request_of(
    found: Registry,
    detectors: str,
    data: str,
    data_root: Path | None,
    protocol: str | None,
    categories: str | None,
    seeds: str,
    preset: str | None,
    overrides: list[str] | None,
    precision: str,
) -> Request:
    """What the options ask for."""
    from adbench_tgan.jobs import Request

    return Request(
        detectors=found.names("detector") if detectors == "all" else split(detectors, "--detectors"),
        dataset=data,
        data_root=root(data_root),
        protocol=protocol,
        categories=split(categories, "--categories") if categories is not None else (),
        seeds=list(map(seed, split(seeds, "--seeds"))),
        preset=preset,
        overrides=overrides or (),
        precision=precision,
    )


def tasks_of(
    found: Registry, name: str, data_root: Path | None, protocol: str | None, *, fetch: bool
) -> Tasks:
    """A dataset's categories under a protocol, by default its own."""
    dataset = found.find("dataset", name)
    from adbench_tgan.data.tasks import Tasks

    return Tasks(dataset, found.find("protocol", protocol or dataset.protocol), root(data_root), fetch=fetch)


def no_url(option: str, given: str) -> AdbenchError:
    """The error for a URL, also as a `Path` writes it, where only a place on this machine is taken."""
    url = given if "://" in given else given.replace(":/", "://", 1)
    what = f"{option} {url}".strip()
    return AdbenchError(
        f"{what} is a URL, which only --out of adbench run takes; name a place on this machine"
    )


def file_of(option: str, given: str, example: str) -> Path:
    """The file to write that an option names: before the work.

    Raises:
        AdbenchError: it is a URL or a folder, or ends in a slash as one, or its folder cannot be written.
    """
    from adbench_tgan.store.places import ensure_writable

    if "://" in given:
        raise no_url(option, given)
    file = Path(given)
    if file.is_dir() or given.endswith("/"):
        raise AdbenchError(f"{option} {given} is a folder; name a file, such as {file / example}")
    ensure_writable(file.parent, option)
    return file


@contextmanager
def interruptible(say: Callable[[str], None], out: Path | None) -> Iterator[None]:
    """Let Ctrl-C, a polite kill and a terminal that is closed end a run with a line that says how to go on."""
    try:
        with as_ctrl_c():
            yield
    except KeyboardInterrupt:
        kept = f"finished jobs are kept in {out}, the same command goes on from there"
        say(f"interrupted; {kept if out else 'nothing is kept without --out'}")
        raise typer.Exit(130) from None

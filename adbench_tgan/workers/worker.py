"""One job in a process of its own, and how what it is and what came of it cross the border: as files.

``python -m adbench_tgan.workers.worker FOLDER`` carries out ``FOLDER/spec.json`` and writes ``FOLDER/result``. Progress goes
to its standard output, a line of JSON each; when its standard input ends, so does it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from adbench_tgan.workers.nursery import take_streams

if TYPE_CHECKING:
    from adbench_tgan.jobs import Job
    from adbench_tgan.registry import Registry
    from adbench_tgan.results import Result
    from adbench_tgan.runner import Reporter, Settings

SPEC = "spec.json"
RESULT = "result"  # folder of what `write_files` writes
FAULT = "fault.txt"  # where the interpreter was when it crashed


def spec_of(job: Job, settings: Settings, registry: Registry) -> dict[str, Any]:
    """All that another process needs to run a job, as JSON; it loads data and plugins itself."""
    own = asdict(settings) | {"data_root": str(settings.data_root.resolve()), "scratch": None}
    own["pictures"] = False  # they would not come back
    return {"job": asdict(job), "settings": own, "plugins": registry.files, "detectors": registry.words}


def read_spec(spec: Mapping[str, Any]) -> tuple[Job, Settings]:
    """The job and the settings of a spec."""
    from adbench_tgan.jobs import Job
    from adbench_tgan.runner import Settings

    return Job(**spec["job"]), Settings(
        **spec["settings"] | {"data_root": Path(spec["settings"]["data_root"])}
    )


def carry_out(spec: Mapping[str, Any], folder: Path, reporter: Reporter) -> None:
    """Run the job of a spec and write its result into `folder`; nothing is downloaded for it.

    A job that fails has a result too. Raises only what ends a process, or when the result cannot be written.
    """
    from adbench_tgan.data.tasks import Tasks
    from adbench_tgan.failures import failed
    from adbench_tgan.registry import Registry
    from adbench_tgan.results import check_readable, write_files
    from adbench_tgan.runner import attempt

    job, settings = read_spec(spec)
    try:
        registry = Registry.discover(spec["plugins"])
        for detector in spec["detectors"]:
            registry.find("detector", detector)
        dataset, protocol = registry.find("dataset", job.dataset), registry.find("protocol", job.protocol)
        tasks = Tasks(dataset, protocol, settings.data_root, fetch=False)
        result = attempt(job, settings, tasks, registry, reporter)
        check_readable(result)
    except (Exception, SystemExit) as error:  # of the data or of a plugin; `attempt` raises nothing
        result = failed(job, settings, error)
    folder.mkdir()
    write_files(result, folder)


def read_back(job: Job, folder: Path) -> Result | None:
    """What `carry_out` wrote, whole; None if it did not come to that, or the result is another job's."""
    from safetensors.torch import load_file

    from adbench_tgan.results import TRACE, result_of
    from adbench_tgan.store import stored

    found = stored.read(folder)
    if found is None or found.job.key != job.key or not stored.is_whole(found, folder):
        return None
    losses = stored.read_losses(folder).drop(columns="epoch")
    return replace(
        result_of(found),
        job=job,
        scores=stored.read_scores(folder) if stored.SCORES in found.files else None,
        trace=(folder / TRACE).read_text() if TRACE in found.files else "",
        losses=tuple(losses.to_dict("records")),  # type: ignore[arg-type]
        state=load_file(folder / "model.safetensors") if "model.safetensors" in found.files else None,
    )


class LineReporter:
    """Tells of progress by lines of JSON."""

    def __init__(self, out: TextIO):
        self.out = out

    def tell(self, what: str, *facts: Any) -> None:
        """Write one line."""
        self.out.write(json.dumps([what, *facts]) + "\n")
        self.out.flush()

    def reading(self, category: str, number: int, count: int) -> None:
        """The command's own process knows."""

    def planned(self, missing: Sequence[Job], kept: int) -> None:
        """The command's own process knows."""

    def job_started(self, job: Job) -> None:
        """The command's own process knows."""

    def job_finished(self, result: Result) -> None:
        """The command's own process will find out."""

    def phase(self, name: str, job: Job) -> None:
        """It comes to "data", "fit", or whatever is next."""
        self.tell("phase", name)

    def epoch(self, number: int, total: int | None, losses: Mapping[str, float], job: Job) -> None:
        """An epoch has ended."""
        self.tell(
            "epoch",
            number,
            None if total is None else int(total),
            {name: float(value) for name, value in losses.items()},
        )

    def images(self, done: int, total: int, job: Job) -> None:
        """So many images are done in this phase."""
        self.tell("images", done, total)

    def warn(self, message: str) -> None:
        """Something to know that stops nothing."""
        self.tell("warn", message)


def main(folder: Path) -> None:
    """Carry out the spec in `folder`, tell of it, and leave without looking back."""
    out = take_streams()
    with (folder / FAULT).open("w") as fault:
        faulthandler.enable(fault, all_threads=False)
        spec = json.loads((folder / SPEC).read_text())
        carry_out(spec, folder / RESULT, LineReporter(out))
        from adbench_tgan.workers.packing import (
            write_footprint,  # with torch, that the job has imported by now
        )

        write_footprint(spec["settings"]["device"], folder)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that a plugin left running, and libraries that crash on the way out, have no say


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The hooks by which detectors, datasets, protocols, metrics, executors and commands reach adbench.

A plugin is a module named by an entry point of the group ``adbench``. Each hook returns records; no hook is
handed anything it could change, so none can alter a score, a split or a result; an executor that one offers is trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from adbench_tgan.discovery.sources import load_module
from adbench_tgan.errors import AdbenchError
from adbench_tgan.text import plain

if TYPE_CHECKING:
    from adbench_tgan.data import DatasetSpec, ProtocolSpec
    from adbench_tgan.info import DetectorInfo
    from adbench_tgan.metrics import MetricSpec

hookspec = pluggy.HookspecMarker("adbench")
hookimpl = pluggy.HookimplMarker("adbench")

INIT = "let its __init__ call super().__init__(config, device=device, seed=seed) first"


@dataclass(frozen=True, kw_only=True)
class ExecutorSpec:
    """A way to run jobs. `target` is a function ``(jobs, settings, tasks, registry, reporter) -> iterator of Result``.

    It takes a job from the iterator `jobs` only when it is about to run it, because that claims the job among the runs
    that share a store, and calls `adbench_tgan.runner.announce` before it runs the job. `options` names those fields of
    `Settings` that it supports; a run that asks for another is refused. A run that gets no result for a job, or two,
    ends with an error.
    """

    name: str
    target: str
    summary: str = ""
    options: tuple[Literal["workers", "jobs_per_gpu", "job_timeout", "address", "gpus_per_job"], ...] = ()


@dataclass(frozen=True, kw_only=True)
class CommandSpec:
    """A sub-command of ``adbench``. `target` is a function with typer annotations."""

    name: str
    target: str
    summary: str = ""


@hookspec
def adbench_detectors() -> Iterable[DetectorInfo]:  # type: ignore[empty-body]
    """Offer detectors."""


@hookspec
def adbench_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Offer datasets."""


@hookspec
def adbench_protocols() -> Iterable[ProtocolSpec]:  # type: ignore[empty-body]
    """Offer protocols: ways to split a category of a dataset into training and test images."""


@hookspec
def adbench_metrics() -> Iterable[MetricSpec]:  # type: ignore[empty-body]
    """Offer metrics."""


@hookspec
def adbench_executors() -> Iterable[ExecutorSpec]:  # type: ignore[empty-body]
    """Offer executors: ways to run jobs."""


@hookspec
def adbench_commands() -> Iterable[CommandSpec]:  # type: ignore[empty-body]
    """Offer sub-commands of ``adbench``."""


@hookspec
def adbench_job_started(job: Any) -> None:
    """Called before a job runs. `job` is a frozen `adbench_tgan.jobs.Job`."""


@hookspec
def adbench_job_finished(job: Any, result: Any) -> None:
    """Called after a job has run, even if it failed. `result` is a frozen `adbench_tgan.results.Result`."""


def load(target: str, missing: str = "fix or uninstall its plugin") -> Any:
    """Import what ``"module:attribute"`` names, or ``"path.py:attribute"``, or ``"path.py"`` as a whole.

    `missing` is the remedy where it cannot be imported.

    Raises:
        AdbenchError: it names no module, or one that cannot be imported, in whatever way it fails, or that lacks the
            attribute.
    """
    module, attribute = (target, "") if target.endswith(".py") else target.rpartition(":")[::2]
    if not module:
        raise AdbenchError(f"{target} cannot be imported: a target is 'module:attribute'; {missing}")
    try:
        loaded = load_module(module)
        return getattr(loaded, attribute) if attribute else loaded
    except (AdbenchError, KeyboardInterrupt):
        raise
    except BaseException as failure:  # a stranger's module may fail in any way
        remedy = "fix it" if module.endswith(".py") else missing
        raise AdbenchError(f"{target} cannot be imported: {one_line(failure)}; {remedy}") from failure


def one_line(failure: BaseException) -> str:
    """What went wrong, for a message of one line."""
    line = plain(f"{type(failure).__name__}: {said(failure)}".rstrip(": "))
    return f"{line}; {INIT}" if _lacks_init(failure) else line


def _lacks_init(failure: BaseException) -> bool:
    """Whether it is a detector without what `Detector.__init__` stores."""
    if not isinstance(failure, AttributeError) or failure.name not in ("config", "device", "seed", "notes"):
        return False
    from adbench_tgan.detector import Detector

    return isinstance(failure.obj, Detector)


def said(failure: BaseException) -> str:
    """The text of an error without its line breaks; empty for a stranger's that fails even at that."""
    try:
        return " ".join(str(failure).split())
    except KeyboardInterrupt:
        raise
    except BaseException:
        return ""

"""What of stored results a board takes: one dataset and protocol, and the detectors and presets that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from adbench_tgan.errors import AdbenchError, unknown
from adbench_tgan.jobs import Job
from adbench_tgan.leaderboard import plain_preset, shown_presets
from adbench_tgan.ranking.selection import is_current, without_superseded
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result
from adbench_tgan.terminal.pace import silent
from adbench_tgan.text import counted


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of some runs to take; empty is all."""

    detectors: Sequence[str] = ()
    dataset: str = ""
    protocol: str = ""
    presets: Sequence[str] = ()


def select(
    results: Iterable[Result], choice: Choice, registry: Registry, say: Callable[[str], None] = silent
) -> list[Result]:
    """What of `results` a board takes: one dataset and protocol, current detectors, no mended failures.

    Raises:
        AdbenchError: nothing is left, or several datasets or protocols are.
    """
    results = list(results)
    for kind, name in (("dataset", choice.dataset), ("protocol", choice.protocol)):
        if results and name and name not in (there := {getattr(result.job, kind) for result in results}):
            raise unknown(f"{kind} of these runs", name, there)
    every = replace(choice, detectors=())
    taken = [result for result in results if is_wanted(result.job, every)]
    if not taken:
        raise AdbenchError(f"these runs hold no {'such ' if results else ''}result; adbench run makes some")
    for name in choice.detectors:
        if name not in (there := {result.job.detector for result in taken}):
            raise unknown("detector of these runs", name, there)
    taken = [result for result in taken if is_wanted(result.job, choice)]
    taken = of_installed_protocol(taken, registry, say)
    one_kind(taken)
    versions = registry.versions()
    current = [result for result in taken if is_current(result.job, versions)]
    if len(current) < len(taken):
        gone = [result.job.detector for result in taken if not is_current(result.job, versions)]
        say(
            f"left out: {counted(len(gone), 'job', 'jobs')} of another version of a detector than the installed one "
            f"({', '.join(sorted(set(gone)))})"
        )
    if not current:
        raise AdbenchError(
            "all results are of other versions of their detectors than the installed ones; run them again"
        )
    left = without_superseded(current)
    if not (chosen := of_presets(left, choice.presets)):
        raise unknown("preset of these runs", choice.presets[0], set(shown_presets(left).values()))
    return chosen


def of_installed_protocol(
    results: Sequence[Result], registry: Registry, say: Callable[[str], None]
) -> list[Result]:
    """Where a protocol is there in several versions, the installed one among them, only what is of that one."""
    jobs = [result.job for result in results]
    names = {job.protocol for job in jobs}
    versions = {name: card(registry, "protocol", name, ("version",))["version"] for name in names}
    current = {job.key for job in jobs if job.protocol_version == versions[job.protocol]}
    there = {(job.dataset, job.protocol) for job in jobs if job.key in current}
    kept = [
        result
        for result, job in zip(results, jobs, strict=True)
        if job.key in current or (job.dataset, job.protocol) not in there
    ]
    if left := len(results) - len(kept):
        say(
            f"left out: {counted(left, 'job', 'jobs')} of another version of a protocol than the installed one"
        )
    return kept


def one_kind(results: Sequence[Result]) -> Job:
    """The first job, once all are known to be of its dataset, protocol and version.

    Raises:
        AdbenchError: they are not.
    """
    kinds = sorted(
        {(result.job.dataset, result.job.protocol, result.job.protocol_version) for result in results}
    )
    if len(kinds) > 1:
        known = ", ".join(f"{dataset} {protocol} (version {version})" for dataset, protocol, version in kinds)
        remedy = "choose one with --data and --protocol"
        if len({kind[:2] for kind in kinds}) == 1:
            remedy = "install the version to be used, or run again into another --out"
        raise AdbenchError(f"these runs hold {known}; {remedy}")
    return results[0].job


def is_wanted(job: Job, choice: Choice) -> bool:
    """Whether a choice takes a job, its preset apart."""
    return (
        (not choice.detectors or job.detector in choice.detectors)
        and choice.dataset in ("", job.dataset)
        and choice.protocol in ("", job.protocol)
    )


def of_presets(results: Sequence[Result], presets: Sequence[str]) -> list[Result]:
    """Those whose row in the table of all `results`, or whose preset, goes by one of `presets`; all if there is none."""
    if not presets:
        return list(results)
    shown = shown_presets(results)
    return [
        result
        for result in results
        if not {result.job.preset, plain_preset(result.job), shown[result.job.key]}.isdisjoint(presets)
    ]


def card(
    registry: Registry, kind: str, name: str, fields: Sequence[str], held: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What is known of a dataset or protocol; when its plugin is gone, what a board `held` of it, else its name alone."""
    try:
        record = registry.find(kind, name)
    except AdbenchError:
        known = held if held and held["name"] == name else {}
        return {"name": name} | {field: known.get(field, "") for field in fields}
    return {"name": name} | {field: getattr(record, field) for field in fields}

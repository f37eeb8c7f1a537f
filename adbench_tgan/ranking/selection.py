"""Which stored results may stand in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adbench_tgan.jobs import Job
from adbench_tgan.ranking.spreads import variant_of
from adbench_tgan.results import Result
from adbench_tgan.text import counted


def comparable(results: Iterable[Result], jobs: Sequence[Job]) -> list[Result]:
    """Of stored results those that may stand in one table with `jobs`.

    Same dataset, protocol and fingerprint of each category, and of the images that labelled anomalies come from: where
    `jobs` do not say which, there must be one.
    """
    first = jobs[0]
    fingerprints = {job.category: job.split_fingerprint for job in jobs}
    offers = {job.category: job.offer_fingerprint for job in jobs if job.offer_fingerprint}
    found = [
        result
        for result in results
        if (result.job.dataset, result.job.protocol, result.job.protocol_version)
        == (first.dataset, first.protocol, first.protocol_version)
        and fingerprints.get(result.job.category) == result.job.split_fingerprint
        and result.job.offer_fingerprint
        in ("", offers.get(result.job.category, result.job.offer_fingerprint))
    ]
    seen: dict[str, set[str]] = {}
    for result in found:
        seen.setdefault(result.job.category, set()).update({result.job.offer_fingerprint} - {""})
    return [each for each in found if not each.job.offer_fingerprint or len(seen[each.job.category]) == 1]


def is_current(job: Job, versions: Mapping[str, str]) -> bool:
    """Whether a job was run by the installed version of its detector, or by one no longer installed."""
    return versions.get(job.detector, job.detector_version) == job.detector_version


def without_superseded(results: Sequence[Result]) -> list[Result]:
    """Leave out failures of what has since been run well, such as after a broken image was replaced.

    What could not begin, for want of weights say, has settings that are still to be resolved: it goes by its preset.
    """
    done: set[tuple[Any, ...]] = set()
    for result in results:
        # A success stands for failures on its images, and for those that could read none.
        if result.status == "ok":
            done |= {_asked(result.job), _task(result.job), _task(result.job, result.job.split_fingerprint)}
    return [result for result in results if result.status == "ok" or _failed(result.job) not in done]


def _failed(job: Job) -> tuple[Any, ...]:
    """What a success must share to supersede a failure."""
    return _asked(job) if job.problem else _task(job, job.split_fingerprint)


def _task(job: Job, images: str = "") -> tuple[Any, ...]:
    return variant_of(job), job.dataset, job.protocol, job.protocol_version, job.category, job.seed, images


def _asked(job: Job) -> tuple[Any, ...]:
    return job.detector, job.detector_version, job.preset, job.precision, *_task(job)[1:]


def of_one_fingerprint(results: Sequence[Result]) -> tuple[list[Result], tuple[str, ...]]:
    """Of each category the results on the images that most of its jobs had, and a note of what is left out."""
    prints: dict[str, Counter[tuple[str, str]]] = {}
    for result in results:
        job = result.job
        if job.split_fingerprint:  # images that could not be read have none
            prints.setdefault(job.category, Counter())[_images(job)] += 1
    usual = {category: found.most_common(1)[0][0] for category, found in prints.items()}
    kept: list[Result] = []
    left: list[Result] = []
    for result in results:
        is_usual = not result.job.split_fingerprint or _images(result.job) == usual[result.job.category]
        (kept if is_usual else left).append(result)
    if not left:
        return kept, ()
    job = left[0].job
    shown, other = (
        f"images {found[:8]} under version {version}"
        for version, found in (usual[job.category], _images(job))
    )
    note = (
        f"{counted(len(left), 'job is left out: its', 'jobs are left out: their')} images or protocol are not those of "
        "most jobs of the category "
        f"(of {job.category} {shown} are shown, not {other}); run what has changed into another --out, "
        "and report that folder"
    )
    return kept, (note,)


def _images(job: Job) -> tuple[str, str]:
    return job.protocol_version, job.split_fingerprint

"""The commands that run jobs again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from adbench_tgan.discovery.development import is_of_file
from adbench_tgan.jobs import Job
from adbench_tgan.text import plain

Settings = tuple[str, ...]  # detector, and "key=value" each


def run_commands(jobs: Sequence[Job]) -> list[str]:
    """The command lines that run these jobs, all of one dataset and protocol, and a remark on detectors in files."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.preset.partition("; ")[0], job.precision), []).append(job)
    found = []
    for (preset, precision), members in sorted(groups.items()):
        by_settings: dict[Settings, list[Job]] = {}
        for job in members:
            by_settings.setdefault((job.detector, *job.preset.split("; ")[1:]), []).append(job)
        grids = [(settings, grid) for settings, own in sorted(by_settings.items()) for grid in _grids(own)]
        found += [_command(preset, precision, batch) for batch in _batches(grids)]
    files = sorted({(job.detector, job.detector_version) for job in jobs if is_of_file(job.detector_version)})
    return found + [f"# --plugin: {plain(name)} is in a file, {plain(version)}" for name, version in files]


def _grids(jobs: Sequence[Job]) -> Iterable[Sequence[Job]]:
    """Jobs in groups of categories that have the same seeds: a command runs all seeds in all categories."""
    seeds: dict[str, set[int]] = {}
    for job in jobs:
        seeds.setdefault(job.category, set()).add(job.seed)
    found: dict[frozenset[int], list[Job]] = {}
    for job in jobs:
        found.setdefault(frozenset(seeds[job.category]), []).append(job)
    return found.values()


def _batches(grids: Iterable[tuple[Settings, Sequence[Job]]]) -> Iterable[Mapping[Settings, Sequence[Job]]]:
    """Together what one command can run: the same categories and seeds, no detector twice."""
    batches: list[dict[Settings, Sequence[Job]]] = []
    for settings, jobs in grids:
        for batch in batches:
            first = next(iter(batch.values()))
            alike = [{(job.category, job.seed) for job in each} for each in (first, jobs)]
            if alike[0] == alike[1] and settings[0] not in {other[0] for other in batch}:
                batch[settings] = jobs
                break
        else:
            batches.append({settings: jobs})
    return batches


def _command(preset: str, precision: str, batch: Mapping[Settings, Sequence[Job]]) -> str:
    jobs = next(iter(batch.values()))
    options = {
        "--detectors": ",".join(settings[0] for settings in batch),
        "--data": jobs[0].dataset,
        "--protocol": jobs[0].protocol,
        "--categories": ",".join(sorted({job.category for job in jobs})),
        "--seeds": ",".join(map(str, sorted({job.seed for job in jobs}))),
        "--preset": preset,
        "--precision": precision,
    }
    words = [word for option in options.items() for word in option]
    words += [word for name, *rest in batch for text in rest for word in ("--set", f"{name}.{text}")]
    words += [word for settings, jobs in batch.items() for word in _weights(jobs[0], settings)]
    return joined(["adbench", "run", *words])


def joined(words: Iterable[str]) -> str:
    """A command in one line, whatever a word holds: what is not printable is escaped, as bash and zsh read it."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = (c if c.isprintable() and c not in "\\'" else _escape(c) for c in word)
    return f"$'{''.join(escaped)}'"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"


def _weights(job: Job, settings: Settings) -> list[str]:
    """The setting that named the pretrained weights, where the machine chose: another one may find others."""
    named = [f"{name}={job.pretrained}" for name, value in job.config.items() if value == job.pretrained]
    chosen = [text for text in named if job.pretrained and text not in settings]
    return [word for text in chosen for word in ("--set", f"{job.detector}.{text}")]

"""From stored runs to a board: what may share one table, with every file checked against its hash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import pandas as pd

from adbench_tgan.boards.audited import read_audit
from adbench_tgan.boards.board import IMAGE_METRICS, RULES, Basis, Board, Facts, assemble, canonical
from adbench_tgan.boards.choice import Choice, card, is_wanted, select
from adbench_tgan.boards.document import results_of
from adbench_tgan.boards.folder import read_content
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.leaderboard import PURITY, Rules
from adbench_tgan.ranking.published import papers_of, read_published
from adbench_tgan.ranking.selection import without_superseded
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result, ResultStore, dataset_folder, left_alone, removal, safe_name
from adbench_tgan.store.stored import ROUNDING
from adbench_tgan.terminal.pace import paced, silent
from adbench_tgan.text import counted

if TYPE_CHECKING:
    from adbench_tgan.boards.part import Part


PassedOver = Callable[[Path, str], None]


def ignore(_: Path, __: str) -> None:
    """Take no note of a result that is not read."""


class Source(Protocol):
    """Where jobs are read from."""

    def results(self, passed_over: PassedOver = ..., /) -> Iterable[Result]:
        """What became of each job; `passed_over` is told of each result that is there and is not read, and why."""

    def scores(self, job: Job) -> pd.DataFrame:
        """Of every test image."""

    def losses(self, job: Job) -> pd.DataFrame:
        """Of every epoch."""


S = TypeVar("S", bound=Source)


@dataclass(frozen=True)
class OfBoard:
    """The jobs of a published board, read as those of a folder of runs are."""

    board: Basis

    def results(self, _: PassedOver = ignore, /) -> Iterable[Result]:
        """Of every job of the board; none is passed over."""
        return self.board.measured

    def scores(self, job: Job) -> pd.DataFrame:
        """Of every test image."""
        return self.board.scores[job.key]

    def losses(self, job: Job) -> pd.DataFrame:
        """Of every epoch; none if its detector reports none."""
        return self.board.losses.get(job.key, pd.DataFrame({"epoch": []}))


def from_runs(
    runs: Sequence[Path],
    registry: Registry,
    *,
    name: str = "runs",
    choice: Choice | None = None,
    published: Path | None = None,
    audit: Path | None = None,
    kept: Basis | None = None,
    part: Part | None = None,
    rules: Rules = RULES,
    say: Callable[[str], None] = silent,
    whole: bool = False,
) -> Board:
    """The board of what `runs` hold, and beside it of the jobs, the note and the audit of a board that is `kept`.

    A job that several hold is taken from the first in which it ended well, the board before all runs. Runs beside a board
    give jobs of its dataset and protocol, unless `choice` names others, and must have its images. With a `part`
    the board is of its protocol, and jobs of another enter with their scores of the part's test images. `say` is told of
    results that cannot be read; a `whole` board must not lack one.

    Raises:
        AdbenchError: there is nothing to take, or it is not of one dataset, protocol and set of images, or a file
            is damaged.
    """
    sources: Sequence[Source] = [*([OfBoard(kept)] if kept else []), *map(store_of, runs)]
    asked = choice = choice or Choice()
    if part is not None:
        sources, choice = part.of(sources, choice, registry, say)
    elif kept and kept.measured:
        choice = of_its_kind(choice, kept)
    stored = gathered(sources, asked if part else choice, say, whole=whole)
    chosen = select([result for result, _ in stored.values()], choice, registry, say)
    judged = {key for key, (_, source) in stored.items() if isinstance(source, OfBoard)}
    if kept and part is None:
        check_images(chosen, kept)
        say_added(chosen, judged, kept, asked, say)
    good = [result.job for result in chosen if result.status == "ok"]
    scores = scores_by_key(good, stored, say)
    losses = {job.key: stored[job.key][1].losses(job) for job in good}
    first = chosen[0].job
    held = (kept.facts.dataset, kept.facts.protocol) if kept else (None, None)
    detectors = {result.job.detector for result in chosen}
    say_mixed(chosen, say)
    facts = Facts(
        name=name,
        dataset=card(registry, "dataset", first.dataset, ("summary", "source", "licence"), held[0]),
        protocol={
            **card(registry, "protocol", first.protocol, ("summary",), held[1]),
            "version": first.protocol_version,
        },
        papers=papers_of(read_published(published), first.dataset, detectors) if published else (),
        audit=audit_of(audit, kept, scores, say),
        note=note_of(kept, name) if kept else "",
    )
    board = assemble(facts, tuple(chosen), scores, losses, say, rules, judged)
    check_metrics(chosen, board.measured)
    return board


def of_its_kind(choice: Choice, kept: Basis) -> Choice:
    """A choice among runs to be added to a board: of its dataset and protocol, unless it names others."""
    job = kept.measured[0].job
    return replace(choice, dataset=choice.dataset or job.dataset, protocol=choice.protocol or job.protocol)


def check_images(chosen: Iterable[Result], kept: Basis) -> None:
    """See to it that jobs are of the images of a board.

    Raises:
        AdbenchError: one is not.
    """
    images = {result.job.category: result.job.split_fingerprint for result in kept.measured}
    for job in (result.job for result in chosen):
        own, other = job.split_fingerprint, images.get(job.category)
        if own and other and own != other:
            raise AdbenchError(
                f"{job}: its images ({own[:8]}) are not those of {kept.facts.name} ({other[:8]}), so the scores do not "
                "compare; run it on the board's images, or leave out --again"
            )


def say_added(
    chosen: Sequence[Result], own: Collection[str], kept: Basis, asked: Choice, say: Callable[[str], None]
) -> None:
    """Say if a board gains no job, and if what was asked for leaves out some of its own, by key."""
    name, kind = kept.facts.name, f"{kept.facts.dataset['name']}, {kept.facts.protocol['name']}"
    staying = sum(result.job.key in own for result in chosen)
    if staying == len(chosen):
        say(
            f"note: nothing is added: {name} ({kind}) has these jobs already, or --runs holds none of its kind"
        )
    if asked != Choice() and staying < len(own):
        lost = counted(len(own) - staying, "job", "jobs")
        say(
            f"note: {lost} of {name} not taken: --detectors, --data, --protocol and --preset choose among them too"
        )


def note_of(kept: Basis, name: str) -> str:
    """The note of a board, for one called `name` that has its jobs: whose note it is, if that is another."""
    note, origin = kept.facts.note, kept.facts.name
    if not note or name == origin:
        return note
    return f"This board has the jobs of {origin}, whose note says: {note}"


def audit_of(
    audit: Path | None, kept: Basis | None, scores: Collection[str], say: Callable[[str], None]
) -> dict[str, float]:
    """AUROCs as published of the jobs that have `scores`, by key: those of a board that is kept, and of an audit."""
    audited = kept.facts.audit or {} if kept else {}
    before = {key: auroc for key, auroc in audited.items() if key in scores}
    told = read_audit(audit, scores) if audit else {}
    if audit and not told:
        say(f"note: {audit} has no value of as_published for these jobs, and so adds nothing")
    return before | told


def scores_by_key(
    jobs: Sequence[Job], stored: Mapping[str, tuple[Result, Source]], say: Callable[[str], None]
) -> dict[str, pd.DataFrame]:
    """The scores of these jobs out of where they are stored, in the form of a board."""

    def scores_of(job: Job) -> pd.DataFrame:
        return canonical(stored[job.key][1].scores(job))

    read = paced(scores_of, "scores read", len(jobs), say)
    return {job.key: read(job) for job in jobs}


def store_of(path: Path, option: str = "--runs") -> ResultStore:
    """The results in a folder of runs, which an option named.

    Raises:
        AdbenchError: it is none.
    """
    if not path.is_dir():
        raise AdbenchError(f"{option} {path} is no folder; give the folder that adbench run wrote to")
    return ResultStore(path)


def homes(
    sources: Iterable[S], passed_over: PassedOver = ignore, unlike: Callable[[Job], None] = lambda _: None
) -> dict[str, tuple[Result, S]]:
    """Every job once, by key, with where it is taken from.

    `passed_over` is told of each result that is not read, `unlike` of each job that a later source has with other
    metrics.
    """
    found: dict[str, tuple[Result, S]] = {}
    for source in sources:
        for result in source.results(passed_over):
            known = found.get(result.job.key)
            if known is None or (known[0].status != "ok" and result.status == "ok"):
                found[result.job.key] = result, source
            elif known[0].status == result.status == "ok" and differ(known[0], result):
                unlike(result.job)
    return found


def differ(one: Result, other: Result) -> bool:
    """Whether two results of a job have metrics that rounding does not explain."""
    shared = one.metrics.keys() & other.metrics.keys()
    return any(abs(one.metrics[name] - other.metrics[name]) > PURITY[one.job.precision] for name in shared)


def gathered(
    sources: Sequence[Source], choice: Choice, say: Callable[[str], None], *, whole: bool
) -> dict[str, tuple[Result, Source]]:
    """Every job once, by key, with where it is taken from; `say` is told what of a choice is left out, and why.

    Raises:
        AdbenchError: one cannot be read, and the choice is to be `whole`.
    """
    unread: dict[Path, str] = {}
    twice: list[Job] = []
    stored = homes(sources, unread.__setitem__, twice.append)
    for name, count in sorted(Counter(job.detector for job in twice if is_wanted(job, choice)).items()):
        say(
            f"note: {name}: {counted(count, 'result', 'results')} left out: a folder read earlier has the same jobs with other "
            "metrics (the board of --again is read first, then --runs as they are given)"
        )
    for path, why in gaps(unread, choice, stored).items():
        if whole:
            raise AdbenchError(f"{path} would be missing from the board: {why}, or remove its folder")
        say(f"note: {left_alone(path, why)}")
    return stored


def gaps(unread: Mapping[Path, str], choice: Choice, taken: Iterable[str]) -> dict[Path, str]:
    """The results, of those that cannot be read, that a choice may miss; `taken` are the keys of jobs it has."""
    known = {key[:8] for key in taken}
    datasets, protocols = {dataset_folder(choice.dataset)} - {""}, {safe_name(choice.protocol)} - {""}
    wanted = datasets, protocols, set(map(safe_name, choice.detectors))
    found = {}
    for path, why in unread.items():
        *_, dataset, protocol, detector, last = path.parent.parts  # see `ResultStore.folder`
        chosen = zip((dataset, protocol, detector), wanted, strict=True)
        if last[-8:] not in known and all(not names or name in names for name, names in chosen):
            found[path] = why
    return found


def check_metrics(stored: Iterable[Result], judged: Iterable[Result]) -> None:
    """Raise unless the stored metrics are those of the stored scores.

    Raises:
        AdbenchError: naming the job and the metric.
    """
    again: Mapping[str, Result] = {result.job.key: result for result in judged}
    for result in stored:
        for name in IMAGE_METRICS:
            old, new = result.metrics.get(name), again[result.job.key].metrics.get(name)
            if old is not None and (new is None or abs(old - new) > ROUNDING):
                raise AdbenchError(
                    f"{result.job}: {name} is stored as {old}, its scores give {new}; {removal(result.job)}"
                )


def say_mixed(results: Sequence[Result], say: Callable[[str], None]) -> None:
    """Say of which plugins' metrics the values are not all of one code."""
    codes: dict[str, set[str]] = {}
    for result in results:
        for name, code in result.metrics_code.items():
            codes.setdefault(name, set()).add(str(code))
    for name, found in sorted(codes.items()):
        if len(found) > 1:
            say(
                f"note: metric {name}: its values were computed by different code ({'; '.join(sorted(found))}); for comparable "
                "values, run all jobs into another --out"
            )


def check_lost(folder: Path, new: Sequence[Result], again: Path | None) -> None:
    """See to it that no job of the board that is there gets lost, nor the scores of one that ended well.

    Raises:
        AdbenchError: one would.
    """
    if not (folder / "board.json").exists():
        return
    try:
        old = results_of(read_content(folder))
    except AdbenchError as error:
        raise AdbenchError(f"{error}; --replace overwrites it without reading it") from None
    kept = {(result.job.key, status) for result in new for status in (result.status, "failed")}
    lost = [
        result for result in without_superseded([*new, *old]) if (result.job.key, result.status) not in kept
    ]
    if lost:
        remedy = f"--again {folder} with --runs keeps them"
        if again:
            remedy = (
                "name them in --detectors and --preset too, or install the versions they are of, to keep them"
            )
        if not alike([*new, *lost]):
            remedy = "they are of other images or another protocol, another --board keeps both"
        names = ", ".join(sorted({result.job.detector for result in lost}))
        raise AdbenchError(
            f"{folder} holds {counted(len(lost), 'job', 'jobs')} (of {names}) that the new board would lack; {remedy}, "
            "--replace drops them"
        )


def alike(results: Iterable[Result]) -> bool:
    """Whether results may share a board: one dataset and protocol, and of each category the same images."""
    jobs = [result.job for result in results]
    kinds = {(job.dataset, job.protocol, job.protocol_version) for job in jobs}
    images = {(job.category, job.split_fingerprint) for job in jobs if job.split_fingerprint}
    return len(kinds) == 1 and len(images) == len({category for category, _ in images})

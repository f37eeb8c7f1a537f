"""Jobs that were tested on more images than a protocol tests on: their results under it, out of the scores they have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from adbench_tgan.boards.board import canonical, judge
from adbench_tgan.boards.choice import Choice, is_wanted, of_installed_protocol, of_presets, one_kind
from adbench_tgan.boards.gather import PassedOver, Source, check_metrics, homes, ignore
from adbench_tgan.boards.soundness import impure
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Job
from adbench_tgan.registry import Registry
from adbench_tgan.results import Result
from adbench_tgan.text import counted

if TYPE_CHECKING:  # who publishes whole test sets needs no torch
    from adbench_tgan.data.samples import Indices
    from adbench_tgan.data.tasks import Tasks


@dataclass(frozen=True, kw_only=True)
class Part:
    """A protocol that trains as that of some jobs does, and tests on a part of their test images."""

    protocol: str
    root: Path  # where the dataset is

    def of(
        self, sources: Sequence[Source], choice: Choice, registry: Registry, say: Callable[[str], None]
    ) -> tuple[list[Source], Choice]:
        """The sources, after them what their chosen jobs are under this protocol; and the choice of nothing else.

        Jobs that failed, and those whose scores depend on their batch, are left out.

        Raises:
            AdbenchError: the chosen jobs are of several kinds, not of the images in `root`, trained on others than
                this protocol trains on, or tested on too few.
        """
        spec = registry.find("protocol", self.protocol)
        found = [
            (result, source)
            for result, source in homes(sources).values()
            if result.job.protocol != spec.name and is_wanted(result.job, choice)
        ]
        current = of_installed_protocol([result for result, _ in found], registry, say)
        chosen = {each.job.key for each in of_presets(current, choice.presets)}
        found = [each for each in found if each[0].job.key in chosen]
        unfit = {job.key for job, _ in impure(result for result, _ in found)}
        unfit |= {result.job.key for result, _ in found if result.status != "ok"}
        if unfit:
            say(
                f"left out: {counted(len(unfit), 'job', 'jobs')} that failed, or whose scores may depend on their batch; "
                f"to have them, run adbench run --protocol {spec.name}"
            )
        fit = [each for each in found if each[0].job.key not in unfit]
        cut = [OfPart(self._made(fit, spec.name, registry, say))] if fit else []
        return [*sources, *cut], replace(choice, protocol=spec.name)

    def _made(
        self,
        found: Sequence[tuple[Result, Source]],
        name: str,
        registry: Registry,
        say: Callable[[str], None],
    ) -> dict[str, Made]:
        from adbench_tgan.data.tasks import Tasks

        first = one_kind([result for result, _ in found])
        dataset = registry.find("dataset", first.dataset)
        whole, part = (
            Tasks(dataset, registry.find("protocol", protocol), self.root, fetch=False)
            for protocol in (first.protocol, name)
        )
        by_category: dict[str, list[tuple[Result, Source]]] = {}
        for each in found:
            by_category.setdefault(each[0].job.category, []).append(each)
        made = {}
        for category, members in by_category.items():
            say(f"{category}: comparing the images of {first.protocol} and {name}")
            for result, _ in members:
                check_origin(result, whole, part)
            check_images(category, whole, part)
            for result, source in members:
                check_choice(result, whole, part)
                one = cut(result, source, part, registry)
                made[one.result.job.key] = one
        return made


@dataclass(frozen=True, kw_only=True)
class Made:
    """A job under the part's protocol."""

    result: Result
    scores: pd.DataFrame  # sample_id, label, score of the part's images
    job: Job  # as the source has it
    source: Source


@dataclass(frozen=True)
class OfPart:
    """Jobs under the part's protocol, by key, read as those of a folder of runs are."""

    made: Mapping[str, Made]

    def results(self, _: PassedOver = ignore, /) -> Iterable[Result]:
        """What became of each job; none is passed over."""
        return [each.result for each in self.made.values()]

    def scores(self, job: Job) -> pd.DataFrame:
        """Of every test image of the part."""
        return self.made[job.key].scores

    def losses(self, job: Job) -> pd.DataFrame:
        """Of every epoch."""
        each = self.made[job.key]
        return each.source.losses(each.job)


def check_origin(result: Result, whole: Tasks, part: Tasks) -> None:
    """Raise `AdbenchError` unless a job was run on the images that `whole` cuts here."""
    job, category = result.job, result.job.category
    here = (whole.protocol.version, whole.fingerprint(category))
    offer = job.offer_fingerprint and whole.offer_fingerprint(category)
    if (job.protocol_version, job.split_fingerprint, job.offer_fingerprint) != (*here, offer):
        raise AdbenchError(
            f"{job} was not run on the images that {whole.protocol.name}, version {here[0]}, cuts out of "
            f"{whole.root}; give the --data-root that it was run with, or {_anew(part)}"
        )


def check_images(category: str, whole: Tasks, part: Tasks) -> None:
    """Raise `AdbenchError` unless `part` trains on the images of `whole`, and tests on some of them, labelled alike."""
    trained, tested = [], []
    for tasks in (whole, part):
        _, taken = tasks.cut(category)
        trained.append((_images(tasks, category, taken.normal), tasks.offer_fingerprint(category)))
        tested.append({*zip(_images(tasks, category, taken.test), taken.labels.tolist(), strict=True)})
    if trained[0] != trained[1]:
        raise _trained_otherwise(category, whole, part)
    if not tested[1] <= tested[0]:
        raise AdbenchError(
            f"{whole.dataset.name}/{category}: {part.protocol.name} has test images, or labels, that "
            f"{whole.protocol.name} does not have; {_anew(part)}"
        )


def check_choice(result: Result, whole: Tasks, part: Tasks) -> None:
    """Raise `AdbenchError` unless a job that learned from labelled anomalies would get the same ones under `part`."""
    if result.job.supervision == "labelled" and not _same_choice(result, whole, part):
        raise _trained_otherwise(result.job.category, whole, part)


def _trained_otherwise(category: str, whole: Tasks, part: Tasks) -> AdbenchError:
    pair = f"{whole.dataset.name}/{category}: {part.protocol.name}"
    return AdbenchError(f"{pair} trains on other images than {whole.protocol.name}; {_anew(part)}")


def _anew(part: Tasks) -> str:
    return f"run it again with adbench run --protocol {part.protocol.name}"


def _images(tasks: Tasks, category: str, indices: Indices) -> list[tuple[str, bytes]]:
    """Names and hashes of those images."""
    samples, _ = tasks.cut(category)
    return [(str(samples.ids[i]), samples.digest(i)) for i in indices.tolist()]


def _same_choice(result: Result, whole: Tasks, part: Tasks) -> bool:
    """Whether both choose the same labelled anomalies: those of the job, or others where the processor is another."""
    from adbench_tgan.data.samples import fingerprint_of

    category = result.job.category
    chosen = part.anomalies(category)
    if chosen is None:
        return False
    if fingerprint_of(part.cut(category)[0], chosen) == result.anomalies_fingerprint:
        return True
    own = whole.anomalies(category)
    return own is not None and _images(whole, category, own) == _images(part, category, chosen)


def cut(result: Result, source: Source, part: Tasks, registry: Registry) -> Made:
    """A checked job under the protocol of `part`. What was measured on all its images is gone: times, pixel metrics.

    Raises:
        AdbenchError: the stored metrics are not those of the scores, or an image has no score.
    """
    from adbench_tgan.runner import evaluate

    old, category = result.job, result.job.category
    table = canonical(source.scores(old))
    check_metrics([result], [judge(result, {old.key: table})])
    samples, chosen = part.cut(category)
    names = [str(samples.ids[i]) for i in chosen.test.tolist()]
    wanted = pd.DataFrame({"sample_id": names, "label": chosen.labels})
    scores = wanted.merge(table, how="left", on=["sample_id", "label"])
    if scores["score"].isna().any():
        raise AdbenchError(f"{old}: its scores are not of the images that it was tested on; run it again")
    threshold = float("nan") if result.threshold is None else result.threshold
    metrics, notes = evaluate(
        None, None, scores["score"].to_numpy(), chosen.labels, threshold, registry, "cpu"
    )
    origin = f"scores of job {old.key} of {old.protocol}, of whose test images these are a part"
    job = replace(
        old,
        protocol=part.protocol.name,
        protocol_version=part.protocol.version,
        split_fingerprint=part.fingerprint(category),
        offer_fingerprint=old.offer_fingerprint and part.offer_fingerprint(category),
    )
    made = replace(
        result,
        job=job,
        metrics=metrics,
        metrics_code=registry.metrics_code(metrics),
        timing={},
        of_categories=len(part.categories),
        notes=tuple(dict.fromkeys([*result.notes, *notes, origin])),
    )
    return Made(result=made, scores=scores, job=old, source=source)

"""What is to be run: a request becomes jobs, and a job's key holds everything that can change a score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, get_args

from pydantic import RootModel, ValidationError
from pydantic_core import ErrorDetails, to_jsonable_python

from adbench_tgan.errors import AdbenchError, NotHere, unknown
from adbench_tgan.terminal.pace import silent
from adbench_tgan.text import counted

if TYPE_CHECKING:  # who reads stored results needs no torch
    from pydantic.fields import FieldInfo

    from adbench_tgan.data.tasks import Tasks
    from adbench_tgan.detector import Detector, DetectorConfig
    from adbench_tgan.info import DetectorInfo
    from adbench_tgan.registry import Registry

Precision = Literal["fp32", "tf32", "bf16"]
LAST_SEED = 2**32 - 1  # that NumPy takes


@dataclass(frozen=True, kw_only=True)
class Job:
    """One detector, trained once on one category. All fields but `preset`, `pretrained` and `problem` make its key."""

    detector: str
    detector_version: str
    config: Mapping[str, Any]  # resolved: nothing left to "auto"; see `recorded`
    dataset: str
    protocol: str
    protocol_version: str
    category: str
    seed: int
    precision: str
    supervision: str  # "labelled" only if the protocol offers labelled anomalies
    split_fingerprint: str
    offer_fingerprint: str = ""  # of the images out of which labelled anomalies are chosen
    preset: str = "paper"  # the name of the configuration, with what was set by hand
    pretrained: str = ""  # the pretrained weights used
    problem: str = ""  # why it cannot run, known before it is tried

    @cached_property
    def key(self) -> str:
        """A hash of all that can change a score."""
        left_out = ("preset", "pretrained", "problem")
        identity = {name: value for name, value in vars(self).items() if name not in left_out}
        identity["config"] = dict(self.config)
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.detector} on {self.dataset}/{self.category} seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for, by name."""

    detectors: Sequence[str]
    dataset: str = "digits"
    data_root: Path = Path("data")
    protocol: str | None = None  # the dataset's own
    categories: Sequence[str] = ()  # all
    seeds: Sequence[int] = (0,)
    preset: str | None = None  # the dataset's own
    overrides: Sequence[str] = ()  # "ganomaly.epochs=3"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        """Keep tuples, for what may come as a generator is gone through more than once.

        Raises:
            AdbenchError: a field is no list of names or seeds, or there is no detector or no seed.
        """
        for name in ("detectors", "categories", "overrides"):
            object.__setattr__(self, name, _tuple(name, getattr(self, name), str))
        object.__setattr__(self, "seeds", _tuple("seeds", self.seeds, SupportsIndex))
        for name in ("detectors", "seeds"):
            if not getattr(self, name):
                raise AdbenchError(f"{name} is empty; give one or more")
        if wrong := [seed for seed in self.seeds if not 0 <= seed <= LAST_SEED]:
            raise AdbenchError(f"seed {wrong[0]} is not from 0 to {LAST_SEED}")


def _tuple(name: str, given: Any, kind: type) -> tuple[Any, ...]:
    with suppress(TypeError):  # what cannot be gone through, or is no whole number
        found = (None,) if isinstance(given, str) else tuple(given)
        if all(isinstance(each, kind) and not isinstance(each, bool) for each in found):
            return found if kind is str else tuple(map(index, found))  # NumPy's numbers are none of JSON
    of = "names" if kind is str else "whole numbers"
    raise AdbenchError(f"{name} is {given!r}; give a list of {of}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs, category by category, and the tasks they are cut from."""

    jobs: tuple[Job, ...]
    tasks: Tasks


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A detector with its resolved configuration."""

    info: DetectorInfo
    detector: type[Detector]
    config: DetectorConfig
    preset: str
    problem: str = ""  # why it cannot run on this machine


def plan(
    request: Request,
    registry: Registry,
    say: Callable[[str], None] = silent,
    reading: Callable[[str, int, int], None] = lambda category, number, count: None,
) -> Plan:
    """Resolve names, settings and data into jobs. A category that cannot be cut becomes jobs with a `problem`.

    So does a detector that needs what this machine lacks. `say` is given notes, `reading` each category before all its
    images are read, and which it is of how many.

    Raises:
        AdbenchError: a name is unknown or offered twice, a setting is wrong, or the dataset cannot be read.
    """
    from adbench_tgan.data.tasks import Tasks

    if request.precision not in get_args(Precision):
        raise unknown("precision", request.precision, get_args(Precision))
    dataset = registry.find("dataset", request.dataset)
    protocol = registry.find("protocol", request.protocol or dataset.protocol)
    registry.metrics()
    preset = request.preset or dataset.preset
    check_overrides(request, registry)
    names = dict.fromkeys(registry.find("detector", name).name for name in request.detectors)
    entries = [entry(registry, name, preset, request.overrides, say) for name in names]
    tasks = Tasks(dataset, protocol, request.data_root)
    if tasks.note:
        say(f"{dataset.name}: {tasks.note}")
    wanted = tuple(map(tasks.named, request.categories)) or tasks.categories
    if not wanted:
        raise AdbenchError(f"dataset {dataset.name!r} has no category under {request.data_root}")
    jobs, categories = [], tuple(dict.fromkeys(wanted))
    for number, category in enumerate(categories, start=1):
        reading(category, number, len(categories))
        jobs += [
            job(each, tasks, category, seed, request.precision)
            for each in entries
            for seed in dict.fromkeys(request.seeds)
        ]
    for each in entries:
        if learns_from_anomalies(each) and any(_downgraded(each, one) for one in jobs):
            say(f"{each.info.name}: {protocol.name} offers no labelled anomalies; it gets normal images only")
    sound = next((one.category for one in jobs if not one.problem), None)
    if sound is not None and (note := _shrunk(entries, *tasks.sides(sound))):
        say(note)
    return Plan(jobs=tuple(jobs), tasks=tasks)


def learns_from_anomalies(each: Entry) -> bool:
    """Whether it gets labelled anomalies where a protocol offers some."""
    return each.info.supervision == "labelled" and each.config.takes_anomalies


def _downgraded(each: Entry, one: Job) -> bool:
    return one.detector == each.info.name and one.supervision != "labelled" and not one.problem


def _shrunk(entries: Sequence[Entry], height: int, width: int) -> str:
    """What a note says of detectors that see images of that size smaller than they are; empty when none do."""
    sizes = [(each.info.name, each.config.image_size) for each in entries]
    seen = [f"{name} at {size} x {size}" for name, size in sizes if size < max(height, width)]
    remedy = "--set DETECTOR.image_size=N changes that"
    return f"images of {width} x {height} pixels are seen by {', '.join(seen)}; {remedy}" if seen else ""


def check_overrides(request: Request, registry: Registry) -> None:
    """Refuse a ``--set`` that names no detector of this run."""
    names = {registry.find("detector", name).name for name in request.detectors}
    for override in request.overrides:
        target, dot, _ = override.partition("=")[0].partition(".")
        if "=" not in override or not dot or not target:
            raise AdbenchError(f"--set {override}: write it as DETECTOR.KEY=VALUE")
        if registry.find("detector", target).name not in names:
            raise AdbenchError(
                f"--set {override}: detector {target!r} is not in this run; add it to --detectors"
            )


def entry(
    registry: Registry, name: str, preset: str, overrides: Sequence[str], say: Callable[[str], None]
) -> Entry:
    """A detector's class and its resolved configuration."""
    info = registry.find("detector", name)
    detector = registry.detector(name)
    if info.expected_failures:  # they are shown wherever its results are
        from adbench_tgan.testing.suite import check_declared

        check_declared(info)
    if preset != "paper" and preset not in detector.presets:
        known = ", ".join(["paper", *detector.presets])
        raise AdbenchError(f"detector {info.name!r} has no preset {preset!r}; it has {known}")
    own = {
        path.partition(".")[2]: text
        for path, _, text in (override.partition("=") for override in overrides)
        if path.partition(".")[0] in (info.name, *info.aliases)
    }
    asked = configure(info.name, detector, own, preset)
    config, problem = asked, ""
    try:
        config = detector.plan(asked)
    except NotHere as error:
        problem = str(error)
    for key in type(config).model_fields:
        before, now = getattr(asked, key), getattr(config, key)
        if now != before:
            say(f"{info.name}: {key} {before} -> {now}")
    for key in own:
        if isinstance(value := getattr(asked, key), bool):
            own[key] = json.dumps(value)  # however it was spelt
    label = "; ".join([preset, *(f"{key}={value}" for key, value in sorted(own.items()))])
    return Entry(info=info, detector=detector, config=config, preset=label, problem=problem)


def configure(
    name: str, detector: type[Detector], own: Mapping[str, Any], preset: str = "paper"
) -> DetectorConfig:
    """Check one's own settings, over those of a preset, against the detector's `Config`; texts such as "3" become numbers.

    Raises:
        AdbenchError: a key is unknown or a value does not fit, the detector's own values included.
    """
    values = {**detector.presets.get(preset, {}), **own}
    for key in values:
        if key not in detector.Config.model_fields:
            raise unknown(f"setting of {name}", key, detector.Config.model_fields)
    try:
        return detector.Config.model_validate({key: _parsed(value) for key, value in values.items()})
    except ValidationError as error:
        raise _misfit(name, error.errors()[0], own, preset) from None


def _misfit(name: str, error: ErrorDetails, own: Mapping[str, Any], preset: str) -> AdbenchError:
    where, reason = ".".join(map(str, error["loc"])), error["msg"]
    if not where:
        return AdbenchError(f"the settings of detector {name!r} do not fit together: {reason}")
    if (key := str(error["loc"][0])) in own:
        if error["type"] == "missing" and isinstance(error["loc"][-1], int):  # the end of a tuple
            few = counted(len(error["input"]), "value is", "values are")
            where, reason = where.rpartition(".")[0], f"{few} too few"
        elif error["type"] != "missing" and error["input"] == _parsed(own[key]):
            where = key  # without the kind of value, out of several, that pydantic adds
        listed = "; write it as [0.5,0.999]" if error["type"] in ("tuple_type", "list_type") else ""
        return AdbenchError(f"--set {name}.{where}={error['input']}: {reason}{listed}")
    return AdbenchError(
        f"detector {name!r} has no valid {where}, neither as a default nor in its preset {preset!r}: {reason}; "
        f"correct it there, or give --set {name}.{error['loc'][0]}=VALUE"
    )


def recorded(config: DetectorConfig) -> dict[str, Any]:
    """Settings as a job holds them, in JSON; those marked as later ones only where they are not their defaults.

    So results from before there was such a setting stay current, and share a row with new ones.
    """
    settings: dict[str, Any] = _sorted_sets(config.model_dump(mode="json"), config)
    for name, setting in type(config).model_fields.items():
        if _came_later(setting) and settings[name] == default_of(config, name):
            del settings[name]
    return settings


def _came_later(setting: FieldInfo) -> bool:
    extra: Any = setting.json_schema_extra
    if callable(extra):
        marks: dict[str, Any] = {}
        extra(marks)
        return marks.get("later") is True
    return isinstance(extra, Mapping) and extra.get("later") is True


def default_of(config: DetectorConfig, name: str) -> Any:
    """What a setting is unless it is set, the others being what they are; in JSON."""
    others = {key: value for key, value in config if key != name}
    try:
        return in_json(getattr(type(config).model_validate(others), name))
    except (ValidationError, AdbenchError):  # it does not fit to the others
        setting = type(config).model_fields[name]
        return in_json(setting.get_default(call_default_factory=True, validated_data=others))


def in_json(value: Any) -> Any:
    """A setting's value in JSON, the same in every process; what JSON has no form for becomes its text."""
    return _sorted_sets(to_jsonable_python(value, fallback=str), value)


def _sorted_sets(written: Any, value: Any) -> Any:
    """`written`, which is `value` in JSON, with its sets sorted: those of texts have another order in every process."""
    value = value.root if isinstance(value, RootModel) else value
    parts = _parts(written, value)
    if parts is None or len(parts) != len(written):  # one value, or a serializer's own form of it
        return written
    if isinstance(written, dict):
        return dict(zip(written, map(_sorted_sets, written.values(), parts), strict=True))
    items = [*map(_sorted_sets, written, parts)]
    return sorted(items, key=partial(json.dumps, sort_keys=True)) if isinstance(value, Set) else items


def _parts(written: Any, value: Any) -> Collection[Any] | None:
    """What the parts of `written` were before they became JSON."""
    if not isinstance(written, dict):
        return value if isinstance(written, list) and isinstance(value, Sequence | Set) else None
    if isinstance(value, Mapping):
        return value.values()
    return [getattr(value, key, None) for key in written]


def _parsed(value: Any) -> Any:
    """Texts from the command line: JSON where it is JSON (3, 0.1, true, null, [1, 2]), else the text itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def job(each: Entry, tasks: Tasks, category: str, seed: int, precision: str) -> Job:
    """The job of one detector, category and seed."""
    fingerprint, offer, problem = "", "", each.problem
    labelled = learns_from_anomalies(each)
    try:
        fingerprint = tasks.fingerprint(category)
        if labelled:
            offer = tasks.offer_fingerprint(category)
    except AdbenchError as error:
        problem = str(error)
    return Job(
        detector=each.info.name,
        detector_version=each.info.version,
        config=recorded(each.config),
        dataset=tasks.dataset.name,
        protocol=tasks.protocol.name,
        protocol_version=tasks.protocol.version,
        category=category,
        seed=seed,
        precision=precision,
        supervision="labelled" if labelled and (offer or problem) else "one-class",
        split_fingerprint=fingerprint,
        offer_fingerprint=offer,
        preset=each.preset,
        pretrained=each.config.pretrained or "",
        problem=problem,
    )

"""Finds plugins through entry points, guards the host against broken ones, and looks names up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from adbench_tgan import hooks
from adbench_tgan.data.spec import DatasetSpec, ProtocolSpec
from adbench_tgan.discovery.development import (
    detector_class,
    detectors_in,
    find_detector,
    import_kept,
    info_of,
    is_word,
    shown,
    version_beside,
    version_of,
    with_holder,
)
from adbench_tgan.discovery.records import check
from adbench_tgan.discovery.sources import ensure_own_neighbours, forget_edited, hash_of_module, load_module
from adbench_tgan.errors import AdbenchError, unknown
from adbench_tgan.hooks import CommandSpec, ExecutorSpec, load, one_line
from adbench_tgan.info import DetectorInfo
from adbench_tgan.metrics import MetricSpec

if TYPE_CHECKING:
    from adbench_tgan.detector import Detector

GROUP = "adbench"
FIRST_PARTY = "adbench-tgan"
RECORDS: dict[str, type] = {  # kind -> what its hook returns
    "detector": DetectorInfo,
    "dataset": DatasetSpec,
    "protocol": ProtocolSpec,
    "metric": MetricSpec,
    "executor": ExecutorSpec,
    "command": CommandSpec,
}
Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One entry point, and what became of it."""

    origin: str  # "distribution:entry point"
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    error: str = ""  # why it is broken
    import_ms: float = 0.0  # what importing it took, with all that nothing had imported before

    @property
    def status(self) -> str:
        """Either "ok" or "broken"."""
        return "broken" if self.error else "ok"


@dataclass
class Registry:
    """The records that the installed plugins offer. Made by `discover`; there is no default registry."""

    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(GROUP))
    _plugins: dict[str, Plugin] = field(default_factory=dict)
    _offers: dict[str, list[tuple[Any, str]]] = field(default_factory=dict)  # kind -> (record, origin)
    _files: dict[str, Path] = field(default_factory=dict)  # origin -> file of a plugin that is not installed
    _words: dict[str, DetectorInfo] = field(default_factory=dict)  # where to find it -> detector
    _loaded: dict[str, Any] = field(default_factory=dict)  # path.py:Class -> the class, if edited since, too

    @classmethod
    def discover(cls, plugins: Iterable[Path | str] = ()) -> Registry:
        """Load every plugin; with ``ADBENCH_DISABLE_PLUGINS`` set (and not 0), first-party ones only.

        `plugins` are files that are not installed: modules with hooks, or with nothing but detectors.

        Raises:
            AdbenchError: one of `plugins` cannot be used, or this package is not installed and offers nothing; an
                installed plugin that is broken only says so.
        """
        registry = cls()
        registry.manager.add_hookspecs(hooks)
        only_ours = os.environ.get("ADBENCH_DISABLE_PLUGINS", "0") not in ("", "0")
        entries = sorted(entry_points(group=GROUP), key=_order)  # ours first
        if not entries or _distribution(entries[0])[0] != FIRST_PARTY:
            raise AdbenchError(f"{FIRST_PARTY} is not installed; pip install -e . in its checkout")
        for entry in entries:
            if not only_ours or _distribution(entry)[0] == FIRST_PARTY:
                distribution, version = _distribution(entry)
                registry._admit(f"{distribution}:{entry.name}", distribution, version, entry.load)
        for path in map(Path, plugins):
            registry._admit_file(path)
        for kind in RECORDS:
            registry._offers[kind] = list(registry._collect(kind))
        for origin in registry._files:
            registry._offer_file(origin)
        return registry

    def _admit(self, origin: str, distribution: str, version: str, load: Callable[[], Any]) -> None:
        found: tuple[str, ...] = ()
        error = ""
        began = perf_counter()
        took = None
        try:
            module = load()
            took = perf_counter() - began
            self.manager.register(module, origin)
            self.manager.check_pending()  # a misspelled hook is an error, not silence
            found = tuple(sorted(caller.name for caller in self.manager.get_hookcallers(module) or ()))
            _check_marked(module, found)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # a stranger's mistake is reported, never fatal
            error = one_line(failure)
            if self.manager.has_plugin(origin):
                self.manager.unregister(name=origin)
        self._plugins[origin] = Plugin(
            origin=origin,
            distribution=distribution,
            version=version,
            hooks=found,
            error=error,
            import_ms=round(1000 * (perf_counter() - began if took is None else took), 1),
        )

    def _admit_file(self, path: Path) -> None:
        """Load a plugin that the user named; that it cannot be used is an error."""
        if path.suffix != ".py" or not path.is_file():
            raise AdbenchError(
                f"--plugin {path}: not a file, or not named *.py; give the path of a Python file"
            )
        path = path.resolve()
        if all(getattr(module, "__file__", "") != str(path) for module in self.manager.get_plugins()):
            origin = shown(path)
            ensure_own_neighbours(path, self._files.values())
            self._files[origin] = path
            with import_kept(path):
                forget_edited(path)
                self._admit(origin, "", version_of(path), lambda: load_module(str(path)))

    def _offer_file(self, origin: str) -> None:
        """Of a file without hooks, offer every detector; refuse one with neither, or with a broken hook."""
        plugin = self._plugins[origin]
        if not plugin.error and not plugin.hooks:
            module = self.manager.get_plugin(origin)
            found = [] if module is None else detectors_in(module)
            self._offers["detector"] += [(info_of(detector), origin) for detector in found]
            if not found:
                raise AdbenchError(
                    f"--plugin {origin}: it has neither hooks nor a detector with a score; write one"
                )
        if plugin.error:
            raise AdbenchError(f"--plugin {origin}: {plugin.error}; fix it")

    @property
    def files(self) -> list[str]:
        """The full paths of the plugins that are not installed."""
        return [str(path) for path in self._files.values()]

    @property
    def words(self) -> list[str]:
        """Where to find the detectors that were not named but pointed at."""
        return [info.target for info in self._words.values()]

    def _collect(self, kind: str) -> Iterator[tuple[Any, str]]:
        """Call a plugin's hook by itself, so that one that raises is marked as broken and the rest go on."""
        for impl in getattr(self.manager.hook, f"adbench_{kind}s").get_hookimpls():
            try:
                records = list(impl.function())
                for record in records:
                    check(record, RECORDS[kind], kind)
                if kind == "detector" and impl.plugin_name in self._files:
                    path = self._files[impl.plugin_name]
                    records = [replace(each, version=version_beside(each, path)) for each in records]
            except KeyboardInterrupt:
                raise
            except BaseException as failure:
                broken = self._plugins[impl.plugin_name]
                self._plugins[impl.plugin_name] = replace(broken, error=one_line(failure))
                continue
            yield from ((record, impl.plugin_name) for record in records)

    def plugins(self) -> list[Plugin]:
        """Every plugin found, broken ones included."""
        return list(self._plugins.values())

    def offers(self, kind: str) -> list[tuple[Any, str]]:
        """Every (record, origin) of a kind, sorted by name; a name may be offered twice."""
        return sorted(self._offers[kind], key=lambda offer: (offer[0].name, offer[1]))

    def names(self, kind: str) -> list[str]:
        """The names of a kind, without aliases."""
        return sorted({record.name for record, _ in self._offers[kind]})

    def versions(self) -> dict[str, str]:
        """The version of each detector; one that two plugins offer has no version to go by."""
        infos = [info for info, _ in self.offers("detector")]
        names = [info.name for info in infos]
        return {info.name: info.version for info in infos if names.count(info.name) == 1}

    def find(self, kind: str, name: str) -> Any:
        """The one record of that name or alias; of a detector also where to find it: ``module:Class``, ``path.py``.

        Raises:
            AdbenchError: no plugin offers it, or two do, or it is not to be found there.
        """
        if kind == "detector" and is_word(name):
            name = self._pointed_at(name).name
        found = [
            offer for offer in self.offers(kind) if name in (offer[0].name, *getattr(offer[0], "aliases", ()))
        ]
        if not found:
            raise unknown(kind, name, self.names(kind))
        if len(found) > 1:
            origins = " and ".join(origin for _, origin in found)
            remedy = "uninstall one, or set ADBENCH_DISABLE_PLUGINS=1"
            itself = found[0][1] == found[1][1]
            if itself or any(origin in self._files or origin in self._words for _, origin in found):
                remedy = "rename one"
            raise AdbenchError(f"{kind} {name!r} comes from both {origins}; {remedy}")
        return found[0][0]

    def metrics(self) -> list[MetricSpec]:
        """Every metric, sorted by name: a job computes them all.

        Raises:
            AdbenchError: two plugins offer one name.
        """
        return [self.find("metric", name) for name in self.names("metric")]

    def _pointed_at(self, word: str) -> DetectorInfo:
        """The record of a detector that is offered already, or a new one that is offered from now on."""
        if word not in self._words:
            detector = find_detector(word)
            info = info_of(detector)
            self._loaded.setdefault(info.target, detector)
            targets = (info.target, f"{detector.__module__}:{detector.__qualname__}")
            known = [record for record, _ in self._offers["detector"] if record.target in targets]
            self._words[word] = known[0] if known else info
            if not known:
                self._offers["detector"].append((info, word))
        return self._words[word]

    def load(self, kind: str, name: str) -> Any:
        """Import what a record's target names.

        Raises:
            AdbenchError: unknown, offered twice, or its import fails.
        """
        record = self.find(kind, name)
        try:
            if not record.target.rpartition(":")[0].endswith(".py"):
                return load(record.target)
            if record.target not in self._loaded:
                self._loaded[record.target] = load(record.target)
            return self._loaded[record.target]
        except AdbenchError as error:
            raise AdbenchError(f"{kind} {name!r}: {error}") from error

    def detector(self, name: str) -> type[Detector]:
        """The class of a detector."""
        from adbench_tgan.detector import DetectorConfig
        from adbench_tgan.torch_settings import settings_kept

        # What a module turns when it is imported is not the next detector's fault either.
        with settings_kept():
            found = detector_class(name, self.load("detector", name))
        if not (isinstance(found.Config, type) and issubclass(found.Config, DetectorConfig)):
            raise AdbenchError(
                f"the Config of detector {name!r} is not a subclass of adbench_tgan.DetectorConfig"
            )
        return found

    def word(self, name: str) -> str:
        """By what a process without our plugin files finds a detector: name, ``path.py:Class``, or target elsewhere."""
        info = self.find("detector", name)
        origin = self.origin(info)
        if (path := self._files.get(origin)) is None:
            return name
        module, _, attribute = info.target.rpartition(":")
        own = getattr(self.manager.get_plugin(origin), "__name__", "")
        return f"{path}:{attribute}" if module == own else info.target

    def code(self, name: str) -> str:
        """Whose code an installed detector is: distribution, its version, and a hash of the detector's file.

        Empty for our own, whose versions are looked after, and for a file that is not installed, whose version is its hash.
        """
        info = self.find("detector", name)
        plugin = self._plugins.get(self.origin(info))
        if plugin is None or plugin.distribution in ("", FIRST_PARTY):
            return ""
        return f"{plugin.distribution} {plugin.version}, {hash_of_module(info.target.partition(':')[0])}"

    def metrics_code(self, names: Iterable[str]) -> dict[str, str]:
        """Whose code each of the metrics is that are not our own: as `code` tells, or the file that is not installed."""
        found = {}
        for spec, origin in self._offers["metric"]:
            plugin = self._plugins[origin]
            if spec.name in names and plugin.distribution != FIRST_PARTY:
                offering = f"{plugin.distribution} {plugin.version}".strip()
                found[spec.name] = with_holder(offering, spec.target)
        return found

    def distribution(self, name: str) -> str:
        """The distribution that a detector is installed with; empty for one that is not installed."""
        plugin = self._plugins.get(self.origin(self.find("detector", name)))
        return plugin.distribution if plugin else ""

    def origin(self, info: DetectorInfo) -> str:
        """The plugin that offers a detector; empty for one that none does."""
        return next((origin for record, origin in self._offers["detector"] if record is info), "")

    def tell(self, hook: str, warn: Callable[[str], None], **facts: Any) -> None:
        """Call a notification hook; one that raises is reported through `warn` and stops nothing.

        Each plugin is told by a copy: a frozen job still holds a dictionary, its configuration. What it turns that is
        the process's, such as the working folder, is put back.
        """
        from adbench_tgan.torch_settings import settings_kept

        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                with settings_kept():
                    impl.function(**{name: deepcopy(facts[name]) for name in impl.argnames})
            except KeyboardInterrupt:
                raise
            except BaseException as failure:
                warn(f"plugin {impl.plugin_name}: {hook} failed: {one_line(failure)}")


def _order(entry: EntryPoint) -> tuple[bool, str, str]:
    distribution, _ = _distribution(entry)
    return distribution != FIRST_PARTY, distribution, entry.name


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    """Name and version; what a half-finished uninstall leaves behind has neither."""
    try:
        return (entry.dist.name or "unknown", entry.dist.version or "") if entry.dist else ("unknown", "")
    except (KeyError, TypeError):
        return "unknown", ""


def _check_marked(module: Any, found: Sequence[str]) -> None:
    """Raise where a function has the name of a hook and is none: what it declares would be lost in silence."""
    for name in (name for name in vars(hooks) if name.startswith("adbench_")):
        if name not in found and callable(getattr(module, name, None)):
            raise pluggy.PluginValidationError(module, f"{name} lacks @hookimpl")

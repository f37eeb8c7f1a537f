"""Strangers' plugins: what they may add, and that their mistakes cost nobody else anything."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from conftest import Ended
from make_plugin import detector_source, make_plugin, offer
from make_process import Forked
from make_runs import made
from pydantic import BaseModel, ValidationError

from adbench_tgan import (
    CommandSpec,
    DatasetSpec,
    Detector,
    DetectorConfig,
    DetectorInfo,
    ExecutorSpec,
    MetricSpec,
)
from adbench_tgan.describe import describe_detector
from adbench_tgan.discovery.records import check
from adbench_tgan.errors import AdbenchError
from adbench_tgan.executors import answerable
from adbench_tgan.jobs import Entry, Job, Request, configure, plan
from adbench_tgan.registry import RECORDS, Registry
from adbench_tgan.results import Result
from adbench_tgan.runner import evaluate

Call = Callable[..., Ended]
RUN = ("run", "--categories", "0", "--device", "cpu", "--no-timing")


def listed(ended: Ended) -> dict[str, dict[str, object]]:
    """The records of a ``--json`` list by name or origin."""
    assert ended.status == 0
    return {record.get("name", record.get("origin")): record for record in json.loads(ended.out)}


def only_result(out: Path) -> dict[str, object]:
    """The one ``result.json`` below `out`."""
    (path,) = out.glob("*/*/*/*/result.json")
    return json.loads(path.read_text())


# --- what a stranger may add ------------------------------------------------------------------------------------


def test_strangers_detector_is_listed_and_runs(tmp_path: Path, shell: Call) -> None:
    make_plugin(
        tmp_path / "site",
        "glow",
        offer("glowing", "glow_detector:Bright", family="toy"),
        files={"glow_detector": detector_source()},
    )
    site = {"PYTHONPATH": str(tmp_path / "site")}
    record = listed(shell("list", "detectors", "--json", **site))["glowing"]
    assert (record["family"], record["plugin"]) == ("toy", "glow-dist:glow")
    ended = shell(*RUN, "--detectors", "glowing", "--out", "runs", **site)
    assert ended.status == 0, ended.err
    row = pd.read_csv(tmp_path / "runs/results.csv").iloc[0]
    assert (row["detector"], row["category"], row["status"]) == ("glowing", 0, "ok")
    assert 0 <= row["auroc"] <= 1


def find_first(site: Path) -> None:
    """Look for modules and distributions in `site` before any other folder."""
    sys.path.insert(0, str(site))


def test_code_that_changed_under_one_version_is_told_and_its_board_names_it(tmp_path: Path) -> None:
    """Each command is a process of its own: a process holds on to the code that it began with."""

    def said(*words: object, status: int = 0) -> str:
        process = Forked(*words, cwd=tmp_path, first=partial(find_first, tmp_path / "site"))
        err = process.stderr.read()
        assert process.wait() == status, err
        return " ".join(err.split())

    files = {"glow_detector": detector_source()}
    offered = offer("glowing", "glow_detector:Bright", family="toy")
    make_plugin(tmp_path / "site", "glow", offered, files=files)
    words = (*RUN, "--detectors", "glowing", "--out", "runs", "--save-models")
    for _ in range(2):
        assert "other code" not in said(*words)
    said("publish", "--board", "toy", "--out", "boards")
    page = (tmp_path / "boards/toy/README.md").read_text()
    assert "Detectors of other packages:\n\n* glowing: glow-dist 1.0, glow_detector.py " in page
    assert "1 of 10 categories" in page

    files = {"glow_detector": detector_source() + "\n# another line\n"}
    make_plugin(tmp_path / "site", "glow", offered, files=files)
    assert "glowing: 1 finished jobs were run by other code (glow-dist 1.0, glow_detector.py " in said(*words)
    (job,) = (tmp_path / "runs").glob("*/*/glowing/*")
    (tmp_path / "site/glow_dist-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: dim\nVersion: 1.0\n"
    )
    assert "was made with glow-dist 1.0, glow_detector.py" in said("predict", job, "none.png", status=2)


def test_a_checkout_that_is_not_installed_is_said_to_be(
    site: Path, adbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It offers nothing itself, whoever else does."""
    make_plugin(site, "glow", offer("glowing", "glow_detector:Bright"))
    strangers = [each for each in entry_points(group="adbench") if each.name == "glow"]
    for found in ([], strangers):
        monkeypatch.setattr("adbench_tgan.registry.entry_points", lambda group, found=found: found)
        with pytest.raises(AdbenchError, match=r"adbench-tgan is not installed; pip install -e \. in"):
            Registry.discover()
    for words in (["list"], ["plugins"], ["run"]):
        ended = adbench(*words)
        assert (ended.status, ended.out) == (2, "")
        assert ended.error == "adbench-tgan is not installed; pip install -e . in its checkout"
    assert adbench("--help").status == 0


@pytest.mark.parametrize("supervision", ["labeled", "semi"])
def test_supervision_of_another_name_is_refused(supervision: str, site: Path, adbench: Call) -> None:
    make_plugin(site, "glow", offer("glowing", "glow_detector:Bright", supervision=supervision))
    ended = adbench("plugins", "--json")
    assert f"has supervision='{supervision}'; it must be 'one-class' or 'labelled'" in ended.out


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (DetectorInfo(name="x", target="a:b", version=2), "detector 'x' has version=2; it must be a string"),
        (DetectorInfo(name="x", target=list), "has target=<class 'list'>; it must be a string"),
        (DetectorInfo(name="x", target="a:b", aliases="qa"), "has aliases='qa'; it must be a tuple"),
        (DetectorInfo(name="x", target="a:b", aliases=(1,)), "and each part a string"),
        (DetectorInfo(name="x", target="a:b", pretrained="no"), "it must be True or False"),
        (
            DetectorInfo(name="x", target="a:b", expected_failures={"a": None}),
            "has expected_failures={'a': None}; it must be a mapping, each key a string and each value a string",
        ),
        (
            MetricSpec(name="x", target="a:b", level="Image"),
            "has level='Image'; it must be 'image' or 'pixel'",
        ),
        (
            DatasetSpec(name="x", target="a:b", layout="defect", protocol="official"),
            "dataset 'x' has layout='defect'; it must be 'classes' or 'defects'",
        ),
        (
            DatasetSpec(name="x", target="a:b", layout="defects", protocol="official", channels=True),
            "has channels=True; it must be a whole number",
        ),
        (ExecutorSpec(name="x", target="a:b", options=("worker",)), "has options=('worker',)"),
        (CommandSpec(name="", target="a:b"), "adbench_commands gave CommandSpec(name='', target='a:b'"),
    ],
)
def test_a_field_that_holds_what_it_is_not_for_is_named(record: Any, told: str) -> None:
    kind = next(kind for kind, wanted in RECORDS.items() if isinstance(record, wanted))
    with pytest.raises(TypeError, match=re.escape(told)):
        check(record, RECORDS[kind], kind)


def test_strangers_dataset_protocol_metric_and_executor_work(
    site: Path, tmp_path: Path, adbench: Call
) -> None:
    make_plugin(site, "visitor", VISITOR, files={"visitor_parts": VISITOR_PARTS})
    for kind, name in {
        "datasets": "stripes",
        "protocols": "halves",
        "metrics": "spread",
        "executors": "backwards",
    }.items():
        assert listed(adbench("list", kind, "--json"))[name]["plugin"] == "visitor-dist:visitor"
    ended = adbench(
        *("run", "--detectors", "random,mean_image", "--data", "stripes", "--executor", "backwards"),
        *("--device", "cpu", "--no-timing", "--out", tmp_path / "runs", "--workers", "3"),
    )
    assert ended.status == 0, ended.err
    assert "note: 3 workers, last job first\n[1/2] mean_image on stripes/wide" in ended.err
    stored = list((tmp_path / "runs").glob("stripes/halves/*/wide-*/result.json"))
    assert len(stored) == 2
    for path in stored:
        result = json.loads(path.read_text())
        assert result["metrics"]["spread"] == pytest.approx(result["threshold"] + 1000)
        assert result["job"]["protocol_version"] == "7"
    table = pd.read_csv(tmp_path / "runs/results.csv")
    assert len(table) == 2
    assert "spread" not in table.columns  # its columns are fixed; result.json holds every metric


VISITOR = """
    from adbench_tgan import DatasetSpec, ExecutorSpec, ProtocolSpec, hookimpl
    from adbench_tgan.metrics import MetricSpec

    @hookimpl
    def adbench_datasets():
        yield DatasetSpec(
            name="stripes", target="visitor_parts:load", layout="classes", protocol="halves", preset="quick", channels=1
        )

    @hookimpl
    def adbench_protocols():
        return [ProtocolSpec(name="halves", version="7", target="visitor_parts:halves", layout="classes")]

    @hookimpl
    def adbench_metrics():
        return [MetricSpec(name="spread", target="visitor_parts:spread")]

    @hookimpl
    def adbench_executors():
        return [ExecutorSpec(name="backwards", target="visitor_parts:backwards", options=("workers",))]
"""
VISITOR_PARTS = """
    import numpy as np
    from adbench_tgan import Cut, Samples

    class Stripes:
        categories = ("wide",)
        note = "drawn in a moment"

        def samples(self, category):
            return Samples(
                read=lambda i: np.full((1, 8, 8), 10 * (i % 20), np.uint8),
                ids=[str(i) for i in range(40)],
                classes=["wide" if i % 2 else "thin" for i in range(40)],
                parts=["train" if i < 20 else "test" for i in range(40)],
            )

    def load(root, fetch):
        return Stripes()

    def halves(samples, category):
        test = samples.where("test")
        labels = np.array([samples.classes[i] != category for i in test], np.uint8)
        return Cut(normal=samples.where("train", only=category), test=test, labels=labels)

    def spread(scores, labels, threshold):
        return threshold + 1000

    def backwards(jobs, settings, tasks, registry, reporter):
        from adbench_tgan.executors import local
        reporter.warn(f"{settings.workers} workers, last job first")
        return local(list(jobs)[::-1], settings, tasks, registry, reporter)
"""


def test_strangers_command_runs_and_cannot_take_a_name_of_ours(site: Path, adbench: Call) -> None:
    make_plugin(site, "caller", CALLER, files={"caller_command": CALLER_COMMAND})
    left_out = "command 'run' of plugin caller-dist:caller is left out: adbench has one of that name\n"
    assert adbench("greet", "you") == Ended(0, "hello you\n", left_out)
    assert adbench("greet", "you", "--times", "2", "--loud").out == "HELLO YOU\nHELLO YOU\n"
    assert "How often." in adbench("greet", "--help").out
    assert adbench("greet", "you", "--times", "0").status == 2
    ended = adbench("--help")
    assert "say hello" in ended.out
    assert ended.err == left_out
    assert "--detectors" in adbench("run", "--help").out
    assert adbench("unloadable").error.startswith(
        "command 'unloadable': nowhere_at_all:f cannot be imported: ModuleNotFoundError: "
    )
    ended = adbench("grumble")
    assert (ended.status, ended.error) == (
        1,
        "Own: no luck; a mistake in adbench or in a plugin: --debug shows where",
    )


CALLER_COMMAND = """
    from typing import Annotated
    import typer

    def greet(
        name: str, times: Annotated[int, typer.Option(min=1, help="How often.")] = 1, loud: bool = False
    ):
        for _ in range(times):
            print(f"HELLO {name.upper()}" if loud else f"hello {name}")

    class Own(BaseException):
        pass

    def grumble():
        raise Own("no\\nluck")
"""
CALLER = """
    from adbench_tgan import CommandSpec, hookimpl

    @hookimpl
    def adbench_commands():
        yield CommandSpec(name="greet", target="caller_command:greet", summary="say hello")
        yield CommandSpec(name="run", target="caller_command:greet")
        yield CommandSpec(name="grumble", target="caller_command:grumble")
        yield CommandSpec(name="unloadable", target="nowhere_at_all:f")
"""


# --- strangers who make mistakes --------------------------------------------------------------------------------

MISTAKES = {
    "raises": ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    "exits": ("raise SystemExit('bye')", "SystemExit: bye"),
    "skips": ("import pytest\npytest.skip('not here', allow_module_level=True)", "Skipped: not here"),
    "syntax": ("def f(:", "SyntaxError: invalid syntax"),
    "hook_raises": (
        "from adbench_tgan import hookimpl\n@hookimpl\ndef adbench_detectors():\n    yield 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "hook_exits": (
        "from adbench_tgan import hookimpl\n@hookimpl\ndef adbench_metrics():\n    raise SystemExit(3)",
        "SystemExit: 3",
    ),
    "hook_skips": (
        "import pytest\nfrom adbench_tgan import hookimpl\n@hookimpl\ndef adbench_datasets():\n    pytest.skip('no')",
        "Skipped: no",
    ),
    "wrong_type": (
        "from adbench_tgan import hookimpl\n@hookimpl\ndef adbench_detectors():\n    return ['a']",
        "TypeError: adbench_detectors gave 'a', not a named DetectorInfo",
    ),
    "nameless": (
        "from adbench_tgan import DetectorInfo, hookimpl\n@hookimpl\ndef adbench_detectors():\n"
        "    yield DetectorInfo(name=None, target='a:b')",
        "TypeError: adbench_detectors gave DetectorInfo(name=None, target='a:b'",
    ),
    "nothing": (
        "from adbench_tgan import hookimpl\n@hookimpl\ndef adbench_detectors():\n    return None",
        "TypeError: 'NoneType' object is not iterable",
    ),
    "misspelled": (
        "from adbench_tgan import hookimpl\n@hookimpl\ndef adbench_detectros():\n    return []",
        "PluginValidationError: unknown hook 'adbench_detectros' in plugin",
    ),
    "wrong_argument": (
        "from adbench_tgan import hookimpl\n@hookimpl\ndef adbench_job_started(work):\n    pass",
        "PluginValidationError: Plugin 'wrong_argument-dist:wrong_argument'",
    ),
}


def test_mistaken_plugins_are_listed_as_broken_and_all_else_works(
    site: Path, tmp_path: Path, adbench: Call
) -> None:
    for module, (source, _) in MISTAKES.items():
        make_plugin(site, f"bad_{module}", source.replace("wrong_argument-", "bad_wrong_argument-"))
    make_plugin(site, "absent", "", entry="absent_module")
    make_plugin(
        site, "good", offer("fine", "fine_detector:Bright"), files={"fine_detector": detector_source()}
    )
    plugins = listed(adbench("plugins", "--json"))
    for module, (_, error) in MISTAKES.items():
        plugin = plugins[f"bad_{module}-dist:bad_{module}"]
        assert plugin["status"] == "broken", module
        shown = error.replace("wrong_argument", "bad_wrong_argument")
        assert str(plugin["error"]).startswith(shown), plugin["error"]
        assert "\n" not in str(plugin["error"])
    assert plugins["absent-dist:absent"]["error"] == "ModuleNotFoundError: No module named 'absent_module'"
    assert {plugins[name]["status"] for name in plugins if name.startswith(("adbench-tgan:", "good-"))} == {
        "ok"
    }
    good = plugins["good-dist:good"]
    assert (good["hooks"], good["distribution"], good["version"]) == (
        ["adbench_detectors"],
        "good-dist",
        "1.0",
    )
    assert 0 < good["import_ms"] < 10_000

    ended = adbench("list", "detectors", "--json")
    assert {"fine", "ganomaly", "random"} <= set(listed(ended))
    warnings = [line for line in ended.err.splitlines() if " is broken: " in line]
    assert len(warnings) == len(ended.err.splitlines()) == len(MISTAKES) + 1
    ended = adbench(*RUN, "--detectors", "fine,random", "--out", tmp_path / "runs")
    assert ended.status == 0, ended.err
    assert list(pd.read_csv(tmp_path / "runs/results.csv")["status"]) == ["ok", "ok"]


def test_remains_of_a_half_removed_plugin_do_no_harm(site: Path, adbench: Call) -> None:
    make_plugin(site, "remains", offer("remaining", "a:b"))
    (site / "remains_dist-1.0.dist-info/METADATA").unlink()
    assert listed(adbench("list", "--json"))["remaining"]["plugin"] == "unknown:remains"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere_at_all:X", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("late_empty.Missing", "a target is 'module:attribute'"),
        ("late_empty:Missing", "AttributeError: module 'late_empty' has no attribute 'Missing'"),
        ("late_raises:X", "RuntimeError: no luck"),
        ("late_exits:X", "SystemExit: 4"),
        ("late_skips:X", "Skipped: no"),
    ],
)
def test_target_that_cannot_be_imported_is_an_error_when_used(
    site: Path, adbench: Call, target: str, reason: str
) -> None:
    make_plugin(
        site,
        "belated",
        offer("tardy", target),
        files={
            "late_empty": "",
            "late_raises": "raise RuntimeError('no\\nluck')",
            "late_exits": "raise SystemExit(4)",
            "late_skips": "import pytest\npytest.skip('no', allow_module_level=True)",
        },
    )
    assert "tardy" in listed(adbench("list", "--json"))
    assert listed(adbench("plugins", "--json"))["belated-dist:belated"]["status"] == "ok"
    ended = adbench(*RUN, "--detectors", "random,tardy")
    assert ended.status == 2
    assert ended.error == (
        f"detector 'tardy': {target} cannot be imported: {reason}; fix or uninstall its plugin"
    )


def test_target_that_is_no_detector_is_an_error_when_used(site: Path, adbench: Call) -> None:
    make_plugin(site, "fake", offer("fraud", "json:JSONDecoder"))
    ended = adbench(*RUN, "--detectors", "fraud")
    assert ended.status == 2
    assert ended.error == (
        "detector 'fraud' is <class 'json.decoder.JSONDecoder'>, not a subclass of adbench_tgan.Detector; "
        "derive the class from it"
    )


def test_dataset_and_executor_that_cannot_be_imported_are_errors_when_used(site: Path, adbench: Call) -> None:
    make_plugin(site, "ghost", GHOST)
    ended = adbench(*RUN, "--detectors", "random", "--data", "mist")
    assert (ended.status, ended.error[:37]) == (2, "nowhere_at_all:load cannot be importe")
    ended = adbench(*RUN, "--detectors", "random", "--executor", "mist")
    assert (ended.status, ended.error[:39]) == (2, "executor 'mist': nowhere_at_all:execute")


GHOST = """
    from adbench_tgan import DatasetSpec, ExecutorSpec, hookimpl

    @hookimpl
    def adbench_datasets():
        yield DatasetSpec(
            name="mist", target="nowhere_at_all:load", layout="classes", protocol="one-vs-rest", preset="quick"
        )

    @hookimpl
    def adbench_executors():
        yield ExecutorSpec(name="mist", target="nowhere_at_all:execute")
"""


# --- names offered twice ----------------------------------------------------------------------------------------


def test_name_of_ours_offered_again_is_an_error_naming_both(site: Path, adbench: Call) -> None:
    make_plugin(site, "rival", offer("ganomaly", "a:b"))
    ended = adbench(*RUN, "--detectors", "ganomaly")
    assert ended.status == 2
    assert ended.error == (
        "detector 'ganomaly' comes from both adbench-tgan:baselines and rival-dist:rival; uninstall one, or set "
        "ADBENCH_DISABLE_PLUGINS=1"
    )


def test_a_clash_does_not_touch_runs_of_other_detectors(site: Path, tmp_path: Path, adbench: Call) -> None:
    make_plugin(site, "rival", offer("ganomaly", "a:b"))
    ended = adbench(*RUN, "--detectors", "random", "--out", tmp_path / "runs")
    assert ended.status == 0, ended.err
    assert list(pd.read_csv(tmp_path / "runs/results.csv")["status"]) == ["ok"]


def test_clash_of_two_strangers_and_of_an_alias_names_both(site: Path) -> None:
    make_plugin(site, "north", offer("star", "a:b"))
    make_plugin(site, "south", offer("cross", "a:b", aliases=("star", "lone")))
    found = Registry.discover()
    with pytest.raises(AdbenchError, match="'star' comes from both south-dist:south and north-dist:north;"):
        found.find("detector", "star")
    assert found.find("detector", "cross").name == found.find("detector", "lone").name == "cross"
    assert found.find("detector", "pca").target == "adbench_plugins.anchors:PCA"


def test_a_metric_that_one_plugin_offers_twice_is_to_be_renamed(site: Path) -> None:
    make_plugin(
        site,
        "echo",
        "from adbench_tgan import MetricSpec, hookimpl\n@hookimpl\ndef adbench_metrics():\n"
        "    yield from 2 * [MetricSpec(name='twin', target='json:dumps')]",
    )
    with pytest.raises(
        AdbenchError, match=r"'twin' comes from both echo-dist:echo and echo-dist:echo; rename one$"
    ):
        Registry.discover().metrics()


def test_a_metric_of_our_name_is_an_error_and_takes_no_numbers(
    site: Path, tmp_path: Path, adbench: Call
) -> None:
    make_plugin(
        site,
        "rival",
        "from adbench_tgan import MetricSpec, hookimpl\n@hookimpl\ndef adbench_metrics():\n"
        "    yield MetricSpec(name='auroc', target='json:dumps')",
    )
    ended = adbench(*RUN, "--detectors", "random", "--out", tmp_path / "runs")
    assert ended.status == 2
    assert "metric 'auroc' comes from both " in ended.error
    assert " and rival-dist:rival; uninstall one" in ended.error
    scores, labels = np.arange(4.0), np.array([0, 0, 1, 1])
    with pytest.raises(AdbenchError, match="metric 'auroc' comes from both"):  # in a process of its own too
        evaluate(None, None, scores, labels, 1.5, Registry.discover(), "cpu")


def test_two_commands_of_one_name_are_an_error_when_called(site: Path, adbench: Call) -> None:
    for module in ("first", "second"):
        make_plugin(
            site,
            module,
            "from adbench_tgan import CommandSpec, hookimpl\n@hookimpl\ndef adbench_commands():\n"
            "    yield CommandSpec(name='shout', target='json:dumps')",
        )
    assert adbench("list").status == 0
    assert "'shout' comes from both first-dist:first and second-dist:second" in adbench("shout").error


# --- switching strangers off ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "seen"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_plugins_can_be_disabled(site: Path, monkeypatch: pytest.MonkeyPatch, value: str, seen: bool) -> None:
    make_plugin(site, "shy", offer("hidden", "a:b"))
    make_plugin(site, "broken", "1 / 0")
    monkeypatch.setenv("ADBENCH_DISABLE_PLUGINS", value)
    found = Registry.discover()
    origins = {plugin.origin for plugin in found.plugins()}
    assert ("hidden" in found.names("detector")) == seen
    assert ({"shy-dist:shy", "broken-dist:broken"} <= origins) == seen
    assert {"adbench-tgan:framework", "adbench-tgan:baselines", "adbench-tgan:plugins"} <= origins


# --- hooks that are told of jobs --------------------------------------------------------------------------------

LISTENER = """
    from adbench_tgan import hookimpl
    HEARD = []

    @hookimpl
    def adbench_job_started(job):
        HEARD.append(f"started {job}")

    @hookimpl
    def adbench_job_finished(job, result):
        HEARD.append(f"{result.status} {job}: {round(result.metrics['auroc'], 3)}")
"""


def test_job_hooks_are_called_and_one_that_raises_is_a_warning(
    site: Path, tmp_path: Path, adbench: Call
) -> None:
    make_plugin(site, "listener", LISTENER)
    make_plugin(site, "moody", LISTENER.replace("HEARD.append", "raise OSError"))
    make_plugin(site, "sulky", LISTENER.replace("HEARD.append", "__import__('pytest').skip"))
    ended = adbench(*RUN, "--detectors", "mean_image", "--out", tmp_path / "runs")
    assert ended.status == 0
    heard = importlib.import_module("listener").HEARD
    auroc = only_result(tmp_path / "runs")["metrics"]["auroc"]
    job = "mean_image on digits/0 seed 0"
    assert heard == [f"started {job}", f"ok {job}: {round(auroc, 3)}"]
    warnings = [line for line in ended.err.splitlines() if "moody" in line]
    assert warnings == [
        f"note: plugin moody-dist:moody: adbench_job_started failed: OSError: started {job}",
        f"note: plugin moody-dist:moody: adbench_job_finished failed: OSError: ok {job}: {round(auroc, 3)}",
    ]
    assert [line for line in ended.err.splitlines() if "sulky" in line] == [
        line.replace("moody", "sulky").replace("OSError", "Skipped") for line in warnings
    ]


def test_a_hook_that_changes_the_folder_moves_no_results(site: Path, tmp_path: Path, adbench: Call) -> None:
    make_plugin(
        site,
        "rover",
        "import os\nfrom adbench_tgan import hookimpl\n@hookimpl\ndef adbench_job_started(job):\n"
        f"    os.chdir({str(site)!r})",
    )
    ended = adbench(*RUN, "--detectors", "random", "--out", "runs")
    assert ended.status == 0, ended.err
    assert Path.cwd() == tmp_path
    assert only_result(tmp_path / "runs")["status"] == "ok"
    assert (tmp_path / "runs/results.csv").exists()
    assert not (site / "runs").exists()


TAMPERER = """
    from adbench_tgan import hookimpl

    @hookimpl
    def adbench_job_started(job):
        job.config["components"] = 1
        object.__setattr__(job, "seed", 99)

    @hookimpl
    def adbench_job_finished(job, result):
        result.metrics["auroc"] = 1.0
        result.scores["score"] = 0.0
        result.job.config["components"] = 1
"""


def test_no_hook_can_change_a_result(site: Path, tmp_path: Path, adbench: Call) -> None:
    def row(out: str) -> dict[str, object]:
        ended = adbench(*RUN, "--detectors", "pca", "--out", tmp_path / out)
        assert ended.status == 0, ended.err
        assert "tamperer" not in ended.err
        return only_result(tmp_path / out)

    honest = row("honest")
    make_plugin(site, "tamperer", TAMPERER)
    assert "tamperer-dist:tamperer" in listed(adbench("plugins", "--json"))
    assert row("tampered") | {"machine": {}} == honest | {"machine": {}}
    boards = [(tmp_path / out / "leaderboard.csv").read_text() for out in ("honest", "tampered")]
    assert boards[0] == boards[1]


@pytest.mark.parametrize("record", [Job, Result])
def test_what_hooks_are_told_is_frozen(record: type) -> None:
    empty = {field.name: None for field in dataclasses.fields(record)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        record(**empty).status = "ok"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_setting_is_a_number_that_json_can_hold(value):
    class Config(DetectorConfig):
        w: float = 1.0

    with pytest.raises(ValidationError, match="finite"):
        Config(w=value)


def failing(key: str) -> Result:
    return Result(job=SimpleNamespace(key=key), status="failed")


def unlucky(jobs: Iterable[Any]) -> Iterator[Result]:
    yield failing(next(iter(jobs)).key)
    raise RuntimeError("no\nluck")


@pytest.mark.parametrize(
    ("executor", "given", "told"),
    [
        (lambda jobs, *_: (failing(job.key) for job in jobs), 2, None),
        (lambda jobs, *_: [failing(job.key) for job in jobs][::-1], 2, None),
        (lambda jobs, *_: unlucky(jobs), 1, "RuntimeError: no luck"),
        (lambda jobs, *_: (None for _ in jobs), 0, "TypeError: it yielded a NoneType, not a Result"),
        (
            lambda jobs, *_: (failing(job.key) for job in jobs for _ in "ab"),
            1,
            "ValueError: it yielded a result of ",
        ),
        (lambda jobs, *_: [failing("c")], 0, "ValueError: it yielded a result of "),
        (lambda jobs: None, 0, "TypeError: .* takes 1 positional argument but 5 were given"),
        (lambda jobs, *_: None, 0, "TypeError: 'NoneType' object is not iterable"),
        (lambda jobs, *_: sys.exit(3), 0, "SystemExit: 3"),
    ],
)
def test_an_executor_answers_for_its_mistakes_by_name(executor: Any, given: int, told: str | None) -> None:
    jobs = [SimpleNamespace(key=key) for key in "ab"]
    found = []
    with pytest.raises(AdbenchError, match=f"executor 'odd' failed: {told}") if told else nullcontext():
        for result in answerable("odd", executor)(jobs, None, None, None, None):
            found.append(result)  # noqa: PERF402 (those before a mistake count)
    assert len({result.job.key for result in found}) == len(found) == given


@pytest.mark.parametrize("error", [AdbenchError("as it says"), BrokenPipeError(), MemoryError()])
def test_an_error_that_has_words_of_its_own_is_left_as_it_is(error: Exception) -> None:
    def executor(*given: object) -> list[Any]:
        raise error

    with pytest.raises(type(error)) as caught:
        list(answerable("odd", executor)([], None, None, None, None))
    assert caught.value is error


def test_an_executor_that_is_left_alone_ends_at_once() -> None:
    ended = []

    def executor(jobs, *_):
        try:
            yield from (failing(job.key) for job in jobs)
        finally:
            ended.append(True)

    results = answerable("odd", executor)([SimpleNamespace(key=key) for key in "ab"], None, None, None, None)
    assert next(results).job.key == "a"
    results.close()
    assert ended == [True]


def test_a_declared_failure_of_no_check_is_refused_before_anything_runs(site: Path) -> None:
    declared = {"no_such_check": "because"}
    make_plugin(
        *(site, "glow", offer("glowing", "glow_detector:Bright", expected_failures=declared)),
        files={"glow_detector": detector_source()},
    )
    told = "expected_failures of detector 'glowing': unknown check 'no_such_check'"
    with pytest.raises(AdbenchError, match=told):
        plan(Request(detectors=["glowing"]), Registry.discover())


def test_a_setting_without_a_valid_default_is_its_detectors_mistake_not_the_users() -> None:
    class Careless(Detector):
        class Config(DetectorConfig):
            parts: int
            side: int = "long"

        presets: ClassVar = {"quick": {"parts": "few"}}

        def score(self, images):
            return images

    def refused(own: dict[str, str], preset: str = "paper") -> str:
        with pytest.raises(AdbenchError) as error:
            configure("careless", Careless, own, preset)
        return str(error.value)

    assert refused({}) == (
        "detector 'careless' has no valid parts, neither as a default nor in its preset 'paper': Field required; correct it "
        "there, or give --set careless.parts=VALUE"
    )
    assert "has no valid side, " in refused({"parts": "3"})
    assert "has no valid parts, neither as a default nor in its preset 'quick': " in refused({}, "quick")
    assert refused({"parts": "3", "side": "x"}).startswith("--set careless.side=x: ")
    card = describe_detector(
        Entry(
            info=DetectorInfo(name="careless", target="a:b"),
            detector=Careless,
            config=configure("careless", Careless, {"parts": "3", "side": "4"}),
            preset="paper",
        ),
        DatasetSpec(name="x", target="a:b", layout="classes", protocol="one-vs-rest"),
    )
    assert json.loads(json.dumps(card))["config"]["parts"]["default"] is None


class Part(BaseModel):
    depth: int
    pair: tuple[int, int] = (1, 2)


def test_a_setting_within_a_setting_is_named_as_it_is_written() -> None:
    class Parted(Detector):
        class Config(DetectorConfig):
            part: Part = Part(depth=1)

        def score(self, images):
            return images

    def refused(part: str) -> str:
        with pytest.raises(AdbenchError) as error:
            configure("parted", Parted, {"part": part})
        return str(error.value)

    assert refused("{}") == "--set parted.part.depth={}: Field required"
    assert refused('{"depth": 1, "pair": [3]}') == "--set parted.part.pair=[3]: 1 value is too few"
    assert refused('{"depth": "x"}').startswith("--set parted.part.depth=x: Input should be a valid integer")


def test_each_plugin_is_told_by_a_copy_of_its_own(site):
    source = "from adbench_tgan import hookimpl\nHEARD = []\n@hookimpl\ndef adbench_job_started(job):\n"
    for name in ("first", "second"):
        make_plugin(
            site, f"{name}_told", f"{source}    HEARD.append(dict(job.config))\n    job.config.clear()\n"
        )
    job = made("one").job
    Registry.discover().tell("adbench_job_started", pytest.fail, job=job)
    import first_told
    import second_told

    assert first_told.HEARD == second_told.HEARD == [job.config] == [{"epochs": 3}]


@pytest.mark.parametrize("where", ["import", "offer", "tell"])
def test_ctrl_c_in_a_plugin_is_no_mistake_of_the_plugin(site, where):
    hook = {
        "offer": "adbench_detectors()",
        "tell": "adbench_job_started(job)",
        "import": "adbench_datasets()",
    }[where]
    lines = "from adbench_tgan import hookimpl\n@hookimpl\n" + f"def {hook}:\n    raise KeyboardInterrupt\n"
    make_plugin(site, f"stopped_{where}", "raise KeyboardInterrupt" if where == "import" else lines)
    with pytest.raises(KeyboardInterrupt):
        Registry.discover().tell("adbench_job_started", pytest.fail, job=made("one").job)

"""Detectors that are not installed: ``--plugin path.py``, ``path.py:Class`` and ``module:Class``."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any
from zipfile import ZipFile

import pandas as pd
import pytest
import torch
from conftest import Ended
from make_plugin import detector_source, installed, offer

from adbench_tgan.discovery.development import info_of, snake_case
from adbench_tgan.discovery.sources import _imported, hash_of_module, load_file, load_module
from adbench_tgan.errors import AdbenchError
from adbench_tgan.registry import Registry

Call = Callable[..., Ended]
RUN = ("run", "--categories", "0", "--device", "cpu", "--no-timing", "--out", "runs")


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files of one test are not found in the next."""
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    with installed(tmp_path / "nothing"):
        before = set(sys.modules)
        yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    sys.path[:] = path


def write(path: str, text: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(dedent(text))
    return Path(path)


def rows() -> pd.DataFrame:
    return pd.read_csv("runs/results.csv", keep_default_na=False).set_index("detector")


def test_a_file_with_a_detector_runs_and_its_row_says_where_it_came_from(adbench: Call) -> None:
    write("bright.py", detector_source("BrightImage"))
    ended = adbench(*RUN, "--plugin", "bright.py", "--detectors", "bright_image,random")
    assert ended.status == 0, ended.err
    assert re.fullmatch(r"dev bright\.py [0-9a-f]{8}", rows().loc["bright_image", "detector_version"])
    record = {
        each["name"]: each for each in json.loads(adbench("list", "--plugin", "bright.py", "--json").out)
    }
    assert record["bright_image"]["plugin"] == "bright.py"
    assert record["bright_image"]["target"] == f"{Path('bright.py').resolve()}:BrightImage"
    assert json.loads(adbench("info", "bright.py", "--json").out)["name"] == "bright_image"


@pytest.mark.parametrize("word", ["bright.py", "bright.py:Bright", "bright:Bright", "package.bright:Bright"])
def test_a_detector_may_be_pointed_at_wherever_its_name_is_taken(word: str, adbench: Call) -> None:
    for path in ("bright.py", "package/bright.py"):
        write(path, detector_source())
    ended = adbench(*RUN, "--detectors", f"{word},random,{word}", "--set", "bright.image_size=8")
    assert ended.status == 0, ended.err
    assert "[2/2] random" in ended.err  # the same detector twice is one
    assert rows().loc["bright", "preset"] == "quick; image_size=8"
    again = adbench(*RUN, "--detectors", f"{word},random", "--set", "bright.image_size=8")
    assert "nothing was run" in again.out


def test_an_edit_makes_earlier_results_count_as_absent(
    adbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # as most users have it
    write("bright.py", detector_source())
    adbench(*RUN, "--detectors", "bright.py")
    first = rows().loc["bright"]
    before = Path("bright.py").stat()
    write("bright.py", detector_source().replace(".mean(", ".amax("))
    os.utime("bright.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (
        Path("bright.py").stat().st_size == before.st_size
    )  # all that Python's own cache looks at is the same
    ended = adbench(*RUN, "--detectors", "bright.py")  # in the same process, as in a notebook
    assert "[1/1] bright" in ended.err
    second = rows().loc["bright"]
    assert first["detector_version"] != second["detector_version"]
    assert first["auroc"] != second["auroc"]
    states = {
        json.loads(path.read_text())["machine"]["code"]["detector"] for path in Path().rglob("result.json")
    }
    assert len(states) == 2


def test_an_edit_during_a_run_changes_nothing_in_it() -> None:
    """Else jobs would run code of which the version that was planned says nothing."""
    write("bright.py", detector_source())
    registry = Registry.discover()
    before = registry.find("detector", "bright.py"), registry.detector("bright.py")
    write("bright.py", detector_source() + "# edited\n")
    assert (registry.find("detector", "bright.py"), registry.detector("bright.py")) == before
    later = Registry.discover()
    assert later.find("detector", "bright.py").version != before[0].version
    assert later.detector("bright.py") is not before[1]


def test_the_hash_of_a_module_is_of_what_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = write("lantern.py", detector_source())
    on_disk = hash_of_module("lantern")
    module = load_module("lantern")
    file.write_text(file.read_text() + "# edited\n")
    assert hash_of_module("lantern") == on_disk
    importlib.reload(module)
    assert hash_of_module("lantern") != on_disk


def test_a_module_in_a_zip_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("torchlight.py", detector_source())
    monkeypatch.syspath_prepend(str(tmp_path / "packed.zip"))
    assert load_module("torchlight").Bright.__name__ == "Bright"
    assert hash_of_module("torchlight") == ""


def test_a_class_that_was_typed_into_a_notebook_needs_a_file() -> None:
    typed: dict[str, Any] = {"__name__": "cell"}  # a module that is nowhere
    exec(detector_source("BrightLamp"), typed)
    with pytest.raises(AdbenchError, match=r"^BrightLamp is in no file.*%%writefile bright_lamp\.py"):
        info_of(typed["BrightLamp"])


def test_what_only_a_file_can_read_names_the_remedy(adbench: Call) -> None:
    write("bright.py", detector_source("Bright"))
    words = (*RUN, "--plugin", "bright.py", "--detectors", "bright", "--save-models")
    assert adbench(*words).status == 0
    (job,) = Path("runs").glob("*/*/bright/*")
    ended = adbench("predict", job, "none.png")
    assert re.search(r"'bright' is in a file \(dev bright\.py \w+\); name it with --plugin$", ended.error)
    write("bright.py", detector_source("Bright") + "\n# edited\n")
    ended = adbench("report", "--plugin", "bright.py")
    assert ended.error == "runs holds results of other versions of their detectors only; run them again"


def test_versions_of_a_file_are_told_apart_where_nobody_says_which_is_current(adbench: Call) -> None:
    write("bright.py", detector_source())
    adbench(*RUN, "--detectors", "bright.py,random")
    write("bright.py", detector_source().replace(".mean(", ".amax("))
    sys.modules.pop("bright")
    adbench(*RUN, "--detectors", "bright.py")
    board = pd.read_csv("runs/leaderboard.csv")
    assert list(board["preset"]) == ["quick", "quick"]  # the file was named, so that its old version is out
    adbench(*RUN, "--detectors", "random")
    presets = pd.read_csv("runs/leaderboard.csv").set_index("detector")["preset"]
    versions = [text.removeprefix("quick; version=") for text in presets["bright"]]
    assert sorted(versions) == sorted(set(rows().loc["bright", "detector_version"]))
    assert presets["random"] == "quick"
    assert (
        "'bright' has several rows; write 'bright:quick; version=dev"
        in adbench("compare", "bright", "random").error
    )
    ended = adbench("compare", "bright", "random", "--plugin", "bright.py")
    assert (ended.status, "left out: 1 job of another version" in ended.err) == (0, True)
    page = adbench("report", "--out", "page.html")
    assert page.status == 0, page.err
    assert f"bright (version={versions[0]})" in Path("page.html").read_text()


def test_results_of_a_file_are_compared_and_published_by_where_it_is(adbench: Call) -> None:
    write("bright.py", detector_source())
    adbench(*RUN, "--detectors", "bright.py,random", "--seeds", "0,1")
    write("bright.py", detector_source().replace(".mean(", ".amax("))
    sys.modules.pop("bright")
    adbench(*RUN, "--detectors", "bright.py")
    for word in ("bright.py", "bright.py:Bright", "bright:Bright"):
        ended = adbench("compare", word, "random", "--json")
        assert "left out: 2 jobs of another version" in ended.err  # of what the file was before
        assert (json.loads(ended.out)["a"], ended.status) == ("bright:quick", 0)
    published = adbench("publish", "--board", "mine", "--detectors", "random,bright.py:Bright")
    assert published.status == 0, published.err
    board = pd.read_csv("leaderboards/mine/leaderboard.csv")
    assert sorted(board["detector"]) == ["bright", "random"]
    again = adbench("compare", "bright.py", "random:quick", "--board", "leaderboards/mine", "--json")
    assert json.loads(again.out)["categories"] == json.loads(ended.out)["categories"]


def test_what_points_at_no_results_is_one_line(adbench: Call) -> None:
    for name in ("bright", "other"):
        write(f"{name}.py", detector_source(name.title()))
    adbench(*RUN, "--detectors", "bright.py,random")
    for words in (("compare", "other.py", "random"), ("publish", "--board", "b", "--detectors", "other.py")):
        assert re.match(r"unknown detector of these r\w+ 'other'", adbench(*words).error)
    ended = adbench("compare", "absent.py:Class", "random")
    assert ended.error == "absent.py is not a file; give the path of a Python file"
    assert (
        "unknown detector of these results 'brigt:quick'" in adbench("compare", "brigt:quick", "random").error
    )
    assert (
        "unknown detector of these results 'bright:slow'" in adbench("compare", "bright:slow", "random").error
    )
    published = adbench("publish", "--board", "b", "--detectors", "bright:quick")
    assert published.error.startswith("unknown detector of these runs 'bright:quick'")


def test_a_file_with_hooks_is_a_plugin_with_all_that_it_offers(adbench: Call) -> None:
    write("mine.py", offer("glow", "mine:Bright", version="4", paper="none yet") + METRIC + detector_source())
    ended = adbench(*RUN, "--plugin", "mine.py", "--detectors", "glow")
    assert ended.status == 0, ended.err
    assert re.fullmatch(r"4 dev mine\.py [0-9a-f]{8}", rows().loc["glow", "detector_version"])
    (path,) = Path("runs").glob("*/*/glow/*/result.json")
    assert json.loads(path.read_text())["metrics"]["half"] == 0.5
    plugin = json.loads(adbench("plugins", "--plugin", "mine.py", "--json").out)[-1]
    assert (plugin["origin"], plugin["hooks"]) == ("mine.py", ["adbench_detectors", "adbench_metrics"])


METRIC = """
from adbench_tgan import MetricSpec

@hookimpl
def adbench_metrics():
    yield MetricSpec(name="half", target=f"{__name__}:half")

def half(scores, labels, threshold):
    return 0.5
"""


def test_a_detector_of_a_file_with_hooks_is_checked_as_its_record_says(adbench: Call) -> None:
    source = detector_source("Bright").replace('"""The mean', '"""A mean')
    hooks = offer("glow", "glowing:Bright", deterministic=True)
    write("glowing.py", source + hooks)
    ended = adbench("check", "glow", "--plugin", "glowing.py", "--shape", "1x32x32", "--json")
    checks = {each["check"]: each for each in json.loads(ended.out)["outcomes"]}
    assert checks["a worker process can run it"]["status"] == "passed", checks
    name = "another seed gives other scores unless declared deterministic"
    assert checks[name]["status"] == "passed"


def test_a_detector_in_a_neighbour_of_the_file_with_hooks_is_checked(adbench: Call) -> None:
    write("bright_lamp.py", detector_source("Bright"))
    write("lamps.py", offer("lamp", "bright_lamp:Bright", deterministic=True))
    ended = adbench("check", "lamp", "--plugin", "lamps.py", "--shape", "1x32x32", "--json")
    checks = {each["check"]: each for each in json.loads(ended.out)["outcomes"]}
    assert checks["a worker process can run it"]["status"] == "passed", checks


@pytest.mark.parametrize("target", ["bright_lamp:Bright", "{here}/bright_lamp.py:Bright"])
def test_an_edit_of_the_neighbour_that_holds_a_detector_makes_it_another(target: str, tmp_path: Path) -> None:
    lamp = write("bright_lamp.py", detector_source("Bright"))
    write("lamps.py", offer("lamp", target.format(here=tmp_path)))

    def version() -> str:
        found: str = Registry.discover(["lamps.py"]).find("detector", "lamp").version
        return found

    before = version()
    assert re.fullmatch(r"1 dev lamps\.py [0-9a-f]{8}, bright_lamp\.py [0-9a-f]{8}", before)
    assert version() == before
    lamp.write_text(lamp.read_text() + "# edited\n")
    assert version() != before
    imported, before = Registry.discover(["lamps.py"]).detector("lamp"), version()
    lamp.write_text(lamp.read_text() + "# edited again\n")
    anew = Registry.discover(["lamps.py"]).detector("lamp") is not imported
    assert (version() != before) == anew == (".py" in target)  # Python imports a module once


def test_neighbours_are_found_and_hide_nothing_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)  # one that is still to be found
    write("here/neighbour.py", "VALUE = 7")
    for name in ("json", "colorsys"):
        write(f"here/{name}.py", "raise ImportError('this is not what you look for')")
    source = "import colorsys, json\nfrom neighbour import VALUE\njson.dumps(VALUE)\n" + detector_source(
        "Near"
    )
    path = write("here/near.py", source)
    assert Registry.discover([path]).detector("near").__name__ == "Near"
    write("here/statistics.py", detector_source("Far"))  # a name that the standard library has
    found = Registry.discover()
    assert found.detector("here/statistics.py").__module__ != "statistics"
    assert found.find("detector", "far").target.endswith("statistics.py:Far")
    write("there/statistics.py", detector_source("Farther"))
    assert found.detector("there/statistics.py").__name__ == "Farther"


@pytest.mark.parametrize("neighbour", ["nextdoor.py", "nextdoor/__init__.py"])
def test_a_neighbour_that_another_plugin_file_has_by_its_name_is_refused(neighbour: str) -> None:
    source = "import json\nfrom nextdoor import VALUE\n"
    for folder in ("a", "b"):
        write(f"{folder}/{neighbour}", "VALUE = 7")
        write(f"{folder}/json.py", "raise ImportError('this is not the json you look for')")
        write(f"{folder}/{folder}.py", source + detector_source(folder.upper()))
        write(f"{folder}/alone.py", "import json\n" + detector_source(f"Alone{folder.upper()}"))
        write(f"{folder}/again.py", source + detector_source(f"Again{folder.upper()}"))
    told = rf"b/b\.py would import .*a/{neighbour} instead of its neighbour of that name; rename one of them$"
    with pytest.raises(AdbenchError, match=told):
        Registry.discover(["a/a.py", "b/b.py"])
    write("c/c.py", source + detector_source("C"))  # which has no neighbour of that name
    found = Registry.discover(["a/a.py", "b/alone.py", "a/again.py", "c/c.py"])
    assert {"a", "alone_b", "again_a", "c"} <= set(found.names("detector"))


def test_a_member_of_a_package_is_imported_as_such() -> None:
    write("room/pack/__init__.py", "")
    write("room/pack/parts.py", "VALUE = 7")
    write("room/pack/inside.py", "from .parts import VALUE\n" + detector_source("Inside"))
    assert Registry.discover().detector("room/pack/inside.py").__module__ == "pack.inside"


def test_a_file_has_the_name_that_its_packages_give_it() -> None:
    for place in ("room/pack/__init__.py", "room/pack/deep/__init__.py", "room/pack/deep/inside.py"):
        write(place, "VALUE = 7")
    assert load_file(Path("room/pack/deep/inside.py")).__name__ == "pack.deep.inside"
    assert load_file(Path("room/pack/__init__.py")).__name__ == "pack"
    write("room/json/__init__.py", "")
    told = r"room/json/mine\.py cannot be imported as json\.mine: that is no valid name, or names another module; rename it$"
    with pytest.raises(AdbenchError, match=told):
        load_file(write("room/json/mine.py", "VALUE = 7"))


@pytest.mark.parametrize("name", ["here/statistics.py", "here/odd.name.py"])
def test_a_file_of_a_name_that_is_no_modules_is_imported_once_and_whole(name: str) -> None:
    path = write(name, "raise SystemExit(4)")
    for _ in range(2):
        with pytest.raises(SystemExit):
            load_file(path)
    write(name, "VALUE = 7")
    assert load_file(path) is load_file(path)


def test_what_a_file_imports_is_read_off_it() -> None:
    source = "import a.b, c\nfrom d.e import f\nfrom . import g\nfrom .h import i\n"
    assert list(_imported(write("whole.py", source))) == ["a", "c", "d"]
    assert list(_imported(write("broken.py", "import a\nf("))) == []


def test_a_member_of_a_package_needs_the_name_of_a_module() -> None:
    write("room/pack/__init__.py", "")
    write("room/pack/my-own.py", detector_source("Mine"))
    with pytest.raises(
        AdbenchError, match=r"as pack\.my-own: that is no valid name, or names another module; rename"
    ):
        Registry.discover().detector("room/pack/my-own.py")


def test_a_plugin_is_a_file_that_is_named_as_python_is() -> None:
    write("own.txt", detector_source("Own"))
    with pytest.raises(
        AdbenchError, match=r"^--plugin own\.txt: not a file, or not named \*\.py; give the path"
    ):
        Registry.discover(["own.txt"])


def test_what_points_at_an_installed_detector_is_that_detector() -> None:
    found = Registry.discover()
    assert found.find("detector", "adbench_plugins.anchors:PCA") == found.find("detector", "pca")
    assert found.words == ["adbench_plugins.anchors:PCA"]


def test_a_class_with_an_underscore_before_it_is_none_of_a_files_detectors() -> None:
    write("own.py", detector_source("_Base") + "\n\nclass Mine(_Base):\n    pass\n")
    assert Registry.discover().detector("own.py").__name__ == "Mine"


@pytest.mark.parametrize("named", [(), ("turns.py",)])
def test_what_a_file_turns_when_it_is_imported_is_not_the_next_detectors_fault(
    named: tuple[str, ...],
) -> None:
    turns = """
    import torch

    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    """
    write("turns.py", dedent(turns) + detector_source("Turns"))
    found = Registry.discover(named)
    assert found.detector("turns" if named else "turns.py").__name__ == "Turns"
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (torch.float32, True)


TWO = detector_source("One") + detector_source("Two")
MISTAKES = {
    "absent.py": "absent.py is not a file; give the path of a Python file",
    "syntax.py": "syntax.py cannot be imported: SyntaxError: '(' was never closed (syntax.py, line 1); fix it",
    "raises.py": "raises.py cannot be imported: RuntimeError: no luck; fix it",
    "exits.py:X": "exits.py:X cannot be imported: SystemExit: 4; fix it",
    "empty.py": "empty.py defines no subclass of adbench_tgan.Detector with a score; write one",
    "empty.py:Abstract": "detector 'empty.py:Abstract' cannot be created: Abstract lacks score; implement it",
    "two.py": "two.py defines 2 detectors; name one: two.py:One or two.py:Two",
    "two.py:Three": "two.py:Three cannot be imported: AttributeError: module 'two' has no attribute 'Three'; fix it",
    "json:JSONDecoder": "detector 'json:JSONDecoder' is <class 'json.decoder.JSONDecoder'>, not a subclass of "
    "adbench_tgan.Detector; derive the class from it",
    "nowhere:X": "nowhere:X cannot be imported: ModuleNotFoundError: No module named 'nowhere'; check its "
    "spelling, and that the module is installed",
    "clash.py": "detector 'pca' comes from both adbench-tgan:plugins and clash.py; rename one",
}
FILES = {
    "syntax.py": "f(",
    "raises.py": "raise RuntimeError('no luck')",
    "exits.py": "raise SystemExit(4)",
    "empty.py": "from adbench_tgan import Detector\nclass _Own(Detector): pass\nclass Abstract(Detector): pass",
    "two.py": TWO,
    "clash.py": detector_source("PCA"),
}


@pytest.mark.parametrize("word", MISTAKES)
def test_mistakes_with_a_pointer_are_one_line(word: str, adbench: Call) -> None:
    for name, text in FILES.items():
        write(name, text)
    ended = adbench("info", word)
    assert (ended.status, ended.error) == (2, MISTAKES[word])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("absent.py", "not a file, or not named *.py; give the path of a Python file"),
        ("folder", "not a file, or not named *.py; give the path of a Python file"),
        ("syntax.py", "SyntaxError: '(' was never closed (syntax.py, line 1); fix it"),
        ("exits.py", "SystemExit: 4; fix it"),
        ("empty.py", "it has neither hooks nor a detector with a score; write one"),
        ("hook.py", "ZeroDivisionError: division by zero; fix it"),
        ("misspelled.py", "PluginValidationError: unknown hook 'adbench_detectros' in plugin <module 'miss"),
        ("unmarked.py", "PluginValidationError: adbench_detectors lacks @hookimpl; fix it"),
    ],
)
def test_a_plugin_file_that_cannot_be_used_is_an_error(name: str, error: str, adbench: Call) -> None:
    hook = "from adbench_tgan import hookimpl\n@hookimpl\ndef adbench_{}():\n    yield 1 / 0"
    Path("folder").mkdir()
    more = {"hook.py": hook.format("detectors"), "misspelled.py": hook.format("detectros")}
    more["unmarked.py"] = "def adbench_detectors():\n    yield 1"
    for file, text in (FILES | more).items():
        write(file, text)
    ended = adbench("list", "--plugin", name)
    assert ended.status == 2
    assert ended.error.startswith(f"--plugin {name}: {error}")


def test_an_installed_plugin_given_as_a_file_too_is_one_plugin() -> None:
    import adbench_plugins

    found = Registry.discover([Path(adbench_plugins.__file__)])
    assert found.find("detector", "pca").version == "1"
    with pytest.raises(AdbenchError, match="unknown detector"):
        found.find("detector", "anchors")


def test_names_are_those_of_classes_in_snake_case() -> None:
    names = ["PCA", "MeanImage", "F1Max", "KNNScore", "already_snake"]
    assert [snake_case(name) for name in names] == "pca mean_image f1_max knn_score already_snake".split()

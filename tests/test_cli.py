"""The command line: exit status, one line for every error, JSON alone on stdout, speed, completion, a whole run."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from conftest import Ended
from make_data import make_mvtec
from make_plugin import detector_source, installed, make_plugin, offer

from adbench_tgan import __main__, cli
from adbench_tgan.cost.speed import Effort
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Request
from adbench_tgan.runner import Settings

Call = Callable[..., Ended]
SCRIPT = Path(sysconfig.get_path("scripts")) / "adbench"
RUN = ("run", "--device", "cpu", "--no-timing", "--detectors", "mean_image", "--categories", "0")

# design.md, section 4: columns are a contract, so they are written out here once more
RESULT_COLUMNS = (
    "detector,dataset,protocol,category,seed,status,auroc,average_precision,f1_max,fpr95,balanced_accuracy,"
    "pixel_auroc,aupro,fit_seconds,score_seconds,latency_ms_p50,latency_ms_p99,images_per_second,peak_memory_mb,"
    "flops_per_image,parameters,device,precision,supervision,pretrained,preset,detector_version,"
    "split_fingerprint,key,adbench_version,error,purity_delta"
)
LEADERBOARD_COLUMNS = (
    "rank,tie_group,detector,supervision,pretrained,preset,auroc_mean,auroc_ci_low,auroc_ci_high,auroc_seed_std,"
    "average_precision_mean,pixel_auroc_mean,aupro_mean,n_categories,n_seeds,n_failed,fit_seconds,latency_ms_p50,"
    "images_per_second,peak_memory_mb,parameters,published_auroc,published_source,as_published_auroc,remark"
)

# --- errors -----------------------------------------------------------------------------------------------------

SEEDS = "is not a whole number from 0 to 4294967295"
NO_URL = "is a URL, which only --out of adbench run takes; name a place on this machine"
MISTAKES = {
    "run --detectors ganomally": "unknown detector 'ganomally'; did you mean ganomaly",
    "run --detectors zzz": "unknown detector 'zzz'; known: ",
    "run --detectors ,": "--detectors is empty; give names with commas between",
    "run --data digit": "unknown dataset 'digit'; did you mean digits",
    "run --protocol one-vs-all": "unknown protocol 'one-vs-all'; did you mean one-vs-rest",
    "run --protocol official": "protocol 'official' is for datasets with defects, and 'digits' has classes; "
    "use --protocol one-vs-rest",
    "run --categories 11": "unknown category of digits '11'; did you mean 1",
    "run --categories eleven": "unknown category of digits 'eleven'; known: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    "run --categories ,": "--categories is empty; give names with commas between",
    "run --executor locl": "unknown executor 'locl'; did you mean local",
    "run --preset quik": "detector 'mean_image' has no preset 'quik'; it has paper, quick",
    "run --set epochs=3": "--set epochs=3: write it as DETECTOR.KEY=VALUE",
    "run --set .=3": "--set .=3: write it as DETECTOR.KEY=VALUE",
    "run --set mean_image.image_size": "--set mean_image.image_size: write it as DETECTOR.KEY=VALUE",
    "run --set mean_image.imagesize=8": "unknown setting of mean_image 'imagesize'; did you mean image_size?",
    "run --set mean_image.image_size=big": "--set mean_image.image_size=big: Input should be a valid integer",
    "info f_anogan --set f_anogan.betas=[.5,.999]": "Input should be a valid tuple; write it as [0.5,0.999]",
    "info anogan --set anogan.search_lr=[1,1]": "--set anogan.search_lr=[1, 1]: 2 values are too few",
    "info anogan --set anogan.iterations=0": "--set anogan.iterations=0: Input should be greater than or equal",
    "run --set mean_image.image_size=1": "--set mean_image.image_size=1: Input should be greater than or equal to 4",
    "run --set pca.components=3": "--set pca.components=3: detector 'pca' is not in this run; add it to --detectors",
    "run --set pcb.components=3": "unknown detector 'pcb'; did you mean pca",
    "run --seeds -1": f"--seeds: '-1' {SEEDS}",
    "run --seeds 0,one": f"--seeds: 'one' {SEEDS}",
    "run --seeds 4294967296": f"--seeds: '4294967296' {SEEDS}",
    "run --seeds ,": "--seeds is empty; give names with commas between",
    "run --tensorboard s3://bucket/events": f"--tensorboard s3://bucket/events {NO_URL}",
    "audit --out s3://bucket/audits": f"--out s3://bucket/audits {NO_URL}",
    "bench --out gs://bucket/times": f"--out gs://bucket/times {NO_URL}",
    "compare pca knn --runs s3://bucket/runs": f"--runs s3://bucket/runs {NO_URL}",
    "report --out s3://bucket/page.html --board file": f"--out s3://bucket/page.html {NO_URL}",
    "verify s3://bucket/board": f"s3://bucket/board {NO_URL}",
    "run --device gpu": "--device gpu: not supported; use auto, cpu, cuda or cuda:N",
    "report --board nowhere": "nowhere is no board: it has no board.json; name a folder that adbench publish wrote",
    "compare pca knn --board nowhere --protocol official": "--data and --protocol choose among --runs; leave them out with --board",
    "report --board nowhere --data digits": "--data, --data-root, --protocol and --published do not apply to a board; leave them out",
    "compare pca knn --board nowhere --data digits": "--data and --protocol choose among --runs; leave them out with --board",
    "compare pca knn --board nowhere --runs .": "give --runs or --board, not both",
    "report --board nowhere --runs runs": "--runs, --data, ",
    "report --board nowhere --protocol official": "--runs, --data, ",
    "report --board nowhere --data-root .": "--runs, --data, ",
    "report --board nowhere --published file": "--runs, --data, ",
    "run --device cuda:99": "--device cuda:99: ",
    "run --precision fp16": "unknown precision 'fp16'; did you mean bf16 or fp32?",
    "run --out file": "cannot write to file: ",
    "run --out file/below": "cannot write to file/below: Not a directory; give --out another folder",
    "run --tensorboard file": "cannot write to file: Not a directory; give --tensorboard another folder",
    "audit --out file": "cannot write to file: ",
    "bench --out file": "cannot write to file: ",
    "report --out file/page.html": "cannot write to file: ",
    "publish --board toy --out file": "cannot write to file: ",
    "publish --board toy --runs .": "these runs hold no result; adbench run makes some",
    "audit --detectors nope": "unknown detector 'nope'",
    "bench --detectors nope --out times": "unknown detector 'nope'",
    "run --tensorboard events --categories 11": "unknown category of digits '11'",
    "report --runs . --out pages/page.html": ". holds no results; ",
    "run --data folder --data-root nowhere": "nowhere",
    "run --data imagefolder --data-root nowhere": "nowhere",
    "data info digits --categories 12": "unknown category of digits '12'; did you mean",
    "list detectros": "unknown kind 'detectros'; did you mean detectors",
    "list metric": "unknown kind 'metric'; did you mean metrics",
    "info ganomally": "unknown detector 'ganomally'; did you mean ganomaly",
    "info ganomaly --data cifar": "unknown dataset 'cifar'; did you mean cifar10",
    "info ganomaly --set ganomaly.epoch=1": "unknown setting of ganomaly 'epoch'; did you mean epochs?",
    "data info digit": "unknown dataset 'digit'; did you mean digits",
    "data info cifar10 --data-root nowhere": "nowhere holds no cifar-10-batches-py",
    "data info folder --data-root nowhere": "nowhere",
    "predict nowhere image.png": "nowhere",
    "check json:JSONDecoder": "not a subclass of adbench_tgan.Detector; derive the class from it",
    "check no.such:Class": "No module named 'no'; check its spelling, and that the module is installed",
    "check pca:Nope": "No module named 'pca'; check its spelling, and that the module is installed",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistake_is_one_line_and_status_2(words: str, adbench: Call) -> None:
    Path("file").write_text("in the way")
    command, *rest = words.split()
    ended = adbench(*(RUN if command == "run" else (command,)), *rest)
    assert ended.status == 2
    assert MISTAKES[words] in ended.error
    assert ended.out == ""
    assert os.listdir() == ["file"]


EMPTY = (
    "run --preset",
    "run --detectors",
    "run --protocol",
    "bench --preset",
    "bench --category",
    "audit --preset",
    "info ganomaly --preset",
    "check pca --preset",
    "publish --board toy --preset",
    "publish --board toy --note",
    "publish --board",
    "compare pca knn --data",
    "report --protocol",
)


@pytest.mark.parametrize("equals", [False, True])
@pytest.mark.parametrize("words", EMPTY)
def test_empty_option_is_refused(words: str, equals: bool, adbench: Call) -> None:
    *rest, option = words.split()
    ended = adbench(*rest, *([f"{option}="] if equals else [option, ""]))
    assert (ended.status, ended.out) == (2, "")
    assert ended.error == f"{option} is empty; give it a value, or leave it out"


@pytest.mark.parametrize("command", ["run", "bench", "audit"])
def test_tf32_is_refused_without_a_gpu(adbench: Call, command: str) -> None:
    ended = adbench(command, "--device", "cpu", "--detectors", "mean_image", "--precision", "tf32")
    assert ended.status == 2
    assert "--precision tf32 needs a CUDA device, not cpu; use fp32 or bf16" in ended.err.splitlines()[-1]


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize("command", ["run", "bench", "audit"])
def test_bf16_that_a_cpu_only_emulates_is_warned_of(
    adbench: Call, monkeypatch: pytest.MonkeyPatch, command: str, slow: bool
) -> None:
    monkeypatch.setattr("adbench_tgan.benchmark.bf16_is_slow", lambda: slow)
    option = "--category" if command == "bench" else "--categories"
    words = f"--device cpu --detectors mean_image {option} none --precision".split()
    ended = adbench(command, *words, "bf16")
    assert ended.status == 2  # by the category, once that is said
    assert ("note: --precision bf16: this CPU has no instructions for it" in ended.err) is slow
    assert "bf16" not in adbench(command, *words, "fp32").err


def test_publish_reads_nothing_where_nothing_is(adbench: Call) -> None:
    ended = adbench("publish", "--board", "toy", "--runs", "nowhere")
    assert ended.err == ("adbench: --runs nowhere is no folder; give the folder that adbench run wrote to\n")


USAGE = {
    "run --frob": "No such option: --frob; adbench run --help shows how",
    "frobnicate": "No such command 'frobnicate'; adbench --help shows how",
    "list --jason": "--jason",
    "run --seeds": "Option '--seeds' requires an argument; ",
    "run --workers 0": "Invalid value for '--workers': ",
    "data inof": "No such command 'inof'",
    "predict": "Missing argument",
}


@pytest.mark.parametrize("words", USAGE)
def test_wrong_usage_is_one_line_and_status_2(words: str, adbench: Call) -> None:
    ended = adbench(*words.split())
    assert ended.status == 2
    assert USAGE[words] in ended.error
    assert (ended.out, len(ended.err.splitlines())) == ("", 1)


def test_an_option_given_twice_is_said_and_the_last_one_counts(adbench: Call) -> None:
    ended = adbench("data", "info", "digits", "--categories", "0", "--categories=1", "--json")
    assert [card["category"] for card in json.loads(ended.out)["categories"]] == ["1"]
    assert ended.err == "note: --categories is given more than once; the last one counts\n"


@pytest.mark.parametrize("words", [(), ("data",)])
def test_command_that_needs_another_shows_its_help(words: tuple[str, ...], adbench: Call) -> None:
    ended = adbench(*words)
    assert ended.status == 2
    assert "Commands" in ended.out + ended.err
    assert "adbench: " not in ended.err


def test_windows_is_told_where_it_runs(adbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    ended = adbench("--version")
    assert (ended.status, ended.out) == (2, "")
    assert ended.error == "adbench does not run on Windows itself; install and run it in WSL"


def test_debug_shows_the_traceback(adbench: Call, shell: Call) -> None:
    ended, plain = shell("--debug", "list", "nothing"), shell("list", "nothing")
    assert ended.status == plain.status == 2
    assert ended.err.startswith("Traceback (most recent call last):")
    assert "\nadbench_tgan.errors.AdbenchError: unknown kind 'nothing';" in ended.err
    assert ended.err.endswith(f"\n{plain.err}")
    assert "Traceback" not in plain.err


@pytest.mark.parametrize(
    "error",
    [RuntimeError("can't start new thread"), ImportError("lib.so: failed to map segment from shared object")],
)
def test_a_limit_of_the_system_is_no_mistake(
    error: Exception, adbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(*given: object) -> None:
        raise error

    monkeypatch.setattr("adbench_tgan.commands.offers.registry", limited)
    ended = adbench("list")
    assert ended.status == 1
    assert ended.error.endswith(f"{error}; raise the limits of memory and processes (ulimit -v, ulimit -u)")


def test_mistake_in_the_program_is_one_line_too(adbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adbench_tgan.commands.offers.registry", lambda *_: 1 / 0)
    ended = adbench("list")
    assert ended.status == 1
    assert ended.error == (
        "ZeroDivisionError: division by zero; a mistake in adbench or in a plugin: --debug shows where"
    )
    ended = adbench("list", "--debug")
    assert ended.status == 1
    assert ended.err.startswith("Traceback (most recent call last):")
    assert (
        "ZeroDivisionError: division by zero; a mistake in adbench or in a plugin"
        in ended.err.splitlines()[-1]
    )


# --- what is printed --------------------------------------------------------------------------------------------


def test_version_and_help(adbench: Call) -> None:
    assert adbench("--version").out == f"adbench-tgan {version('adbench-tgan')}\n"
    pages = [adbench(*words) for words in (["-h"], ["--help"])]
    assert pages[0] == pages[1]
    assert (pages[0].status, pages[0].err) == (0, "")
    for command in ("run", "list", "plugins", "info", "predict", "data"):
        assert re.search(rf"^  {command} ", pages[0].out, re.MULTILINE), command
    for page in (pages[0], adbench("data", "-h")):
        assert "..." not in page.out.partition("Commands:")[2]  # no summary is cut off
    assert "--detectors" in adbench("run", "-h").out


def test_help_says_the_defaults_that_are_told_in_words(
    adbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(adbench("run", "--help").out.split())
    assert "Comma-separated names. [default: all]" in shown
    assert "go there too. [default: $ADBENCH_DATA, else ./data]" in shown
    assert "\\[" not in shown


@pytest.mark.parametrize(
    ("command", "name", "told"),
    [
        ("run", "results.csv", "f/results.csv was not written by adbench, and would be overwritten"),
        ("run", "leaderboard.csv", "f/leaderboard.csv was not written by adbench, and would be overwritten"),
        ("run", "board.json", "f is a published board"),
        ("audit", "audit.csv", "f/audit.csv was not written by adbench, and would be overwritten"),
        ("bench", "README.md", "f/README.md was not written by adbench, and would be overwritten"),
    ],
)
def test_files_of_others_are_not_written_over(command: str, name: str, told: str, adbench: Call) -> None:
    Path("f").mkdir()
    Path("f", name).write_text("my notes\n")
    ended = adbench(command, "--detectors", "mean_image", "--out", "f")
    assert (ended.status, ended.error) == (2, f"{told}; give --out another folder")
    assert [(path.name, path.read_text()) for path in Path("f").iterdir()] == [(name, "my notes\n")]


@pytest.mark.parametrize(
    "words",
    [
        "list detectors",
        "list datasets",
        "list protocols",
        "list metrics",
        "list executors",
        "plugins",
        "data info digits",
    ],
)
def test_json_is_alone_on_stdout(words: str, adbench: Call) -> None:
    ended = adbench(*words.split(), "--json")
    assert (ended.status, ended.err) == (0, "")
    assert json.loads(ended.out)
    table = adbench(*words.split())
    assert table.status == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads(table.out)


@pytest.mark.parametrize("words", ["list detectors", "list datasets", "plugins", "data info digits"])
def test_lists_fit_eighty_columns_and_cut_no_name(
    words: str, adbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = json.loads(adbench(*words.split(), "--json").out)
    names = [next(iter(each.values())) for each in (records["categories"] if words[0] == "d" else records)]
    monkeypatch.setenv("COLUMNS", "80")
    shown = adbench(*words.split()).out
    lines = [line for line in shown.splitlines() if line.startswith("│")]
    assert max(map(len, lines)) <= 80
    assert [name for name in names if not any(f"│ {name} " in line for line in lines)] == []
    assert len(lines) <= 3 * len(names)
    assert "not shown for lack of width: " in shown


def test_what_a_plugin_prints_is_not_in_the_json(adbench: Call, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(f"print('importing')\n{detector_source(fit='print(42)')}")
    listed = adbench("list", "--plugin", "noisy.py", "--json")
    assert "bright" in {each["name"] for each in json.loads(listed.out)}
    assert "importing" in listed.err
    checked = adbench("check", "noisy.py", "--shape", "1x8x8", "--json")
    assert json.loads(checked.out)["detector"] == "bright"
    assert "42" in checked.err.splitlines()


def test_what_other_programs_print_is_not_in_the_json_either(shell: Call, tmp_path: Path) -> None:
    noise = "import atexit, os\nos.system('echo from a program')\natexit.register(print, 'at the end')\n"
    (tmp_path / "noisy.py").write_text(noise + offer("glow", "nowhere:Glow"))
    ended = shell("list", "--plugin", "noisy.py", "--json")
    assert "glow" in {each["name"] for each in json.loads(ended.out)}
    assert ended.err == "from a program\nat the end\n"


def test_info_gives_parameters_and_help(adbench: Call) -> None:
    ended = adbench("info", "ganomaly", "--data", "cifar10", "--json")
    card = json.loads(ended.out)
    assert card["parameters"] == {"generator": 3206528, "discriminator": 663296}
    assert card["image_shape"] == [3, 32, 32]
    assert card["config"]["epochs"]["value"] == 15
    assert [name for name, field in card["config"].items() if len(field["help"]) < 5] == []
    presets = [
        json.loads(adbench("info", "pca", *words, "--json").out)["preset"]
        for words in ((), ("--data", "digits"), ("--data", "digits", "--preset", "paper"))
    ]
    assert presets == ["paper", "quick", "paper"]  # as a run would take them
    changed = json.loads(adbench("info", "ganomaly", "--set", "ganomaly.epochs=4", "--json").out)
    assert changed["config"]["epochs"] == card["config"]["epochs"] | {"value": 4}
    shown = adbench("info", "ganomaly").out
    assert "3,206,528" in shown
    assert "adbench-tgan:baselines" in shown
    assert re.search(r"│ lr +│ 0.0002 +│ 0.0002 +│", shown)


ODD = """
import enum
from pathlib import Path
from types import ModuleType
from pydantic import BaseModel

class Kind(enum.Enum):
    A = "a"

class Sub(BaseModel):
    x: int = 1
    y: tuple[float, float] = (0.1, 0.2)

class Odd(Bright):
    class Config(DetectorConfig):
        kind: Kind = Kind.A
        names: frozenset[int] = frozenset((8, 0))
        sub: Sub = Sub()
        path: Path = Path("here")
"""


def test_info_writes_settings_of_any_kind_and_notes_no_change_where_none_was(
    adbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = detector_source().replace("import Detector", "import Detector, DetectorConfig")
    (tmp_path / "odd.py").write_text(source + ODD)
    monkeypatch.chdir(tmp_path)
    ended = adbench("info", "odd.py:Odd", "--json")
    assert (ended.status, ended.err) == (0, "")
    fields = json.loads(ended.out)["config"]
    assert [field["value"] for field in fields.values()] == [field["default"] for field in fields.values()]
    assert {name: field["value"] for name, field in fields.items()} == {
        "image_size": 32,
        "kind": "a",
        "names": [0, 8],
        "sub": {"x": 1, "y": [0.1, 0.2]},
        "path": "here",
    }
    shown = adbench("info", "odd.py:Odd")
    assert re.search(r"│ names +│ 0, 8 +│ 0, 8 +│", shown.out)
    assert shown.err == ""


def test_info_and_list_show_declared_failures(adbench: Call) -> None:
    assert "an_obvious_defect_scores_higher: its scores are chance" in adbench("info", "random").out
    listed = {each["name"]: each for each in json.loads(adbench("list", "--json").out)}
    assert set(listed["random"]["expected_failures"]) == {
        "training_changes_the_scores",
        "an_obvious_defect_scores_higher",
    }
    assert listed["pca"]["expected_failures"] == {}


def test_info_of_the_thesis_detector(adbench: Call) -> None:
    ended = adbench("info", "transgan_dual", "--data", "cifar10", "--json")
    assert ended.status == 0, ended.err
    card = json.loads(ended.out)
    assert card["parameters"]["generator"] == 34591275
    assert card["parameters"]["discriminator_normal"] == 12458497
    assert card["parameters"]["discriminator_anomalous"] == 12458497
    assert [name for name, field in card["config"].items() if len(field["help"]) < 5] == []


def test_passport_of_digits_is_the_same_in_two_processes(adbench: Call, shell: Call) -> None:
    words = ("data", "info", "digits", "--categories", "0,1", "--json")
    passport = json.loads(adbench(*words).out)
    assert passport == json.loads(shell(*words).out)
    assert passport["protocol"]["name"] == "one-vs-rest"
    zero, one = passport["categories"]
    assert zero["fingerprint"] != one["fingerprint"]
    for card in (zero, one):
        assert card["test_normal"] + card["test_abnormal"] == 596
        share = card["test_abnormal"] / 596
        assert card["prevalence"] == card["chance_average_precision"] == pytest.approx(share)
        assert card["chance_f1"] == pytest.approx(2 * share / (1 + share))
        assert re.fullmatch("[0-9a-f]{64}", card["fingerprint"])
        assert 0 < card["brightness_auroc"] < 1
    assert (zero["train"], zero["test_normal"], zero["masks"]) == (119, 59, False)


def test_a_category_that_cannot_be_cut_says_why_beside_the_passports_of_others(adbench: Call) -> None:
    make_mvtec(Path("images"), ["nut", "screw", "bolt"])
    Path("images/screw/test/good/000.png").write_text("no picture")
    shutil.copy("images/nut/train/good/000.png", "images/nut/test/good/000.png")
    words = ("data", "info", "folder", "--data-root", "images")
    ended = adbench(*words)
    assert ended.status == 1
    assert "found: 3 categories, 3 with masks" in ended.out
    assert [line.split("│")[1].strip() for line in ended.out.splitlines() if line.startswith("│")] == [
        "bolt",
        "nut",
    ]
    (note,) = [line for line in ended.out.splitlines() if line.startswith("nut: ")]
    assert "training" in note
    assert re.fullmatch(r"screw: .*images/screw/test/good/000\.png .*\n", ended.err)
    whole = adbench(*words, "--json")
    cards = {card["category"]: card for card in json.loads(whole.out)["categories"]}
    assert (whole.status, cards["screw"]["error"]) == (1, ended.err.strip().removeprefix("screw: "))
    nut = cards["nut"]
    assert (nut["train"], nut["test_normal"], nut["test_abnormal"], nut["masks"]) == (6, 3, 4, True)
    assert nut["notes"] == [note.removeprefix("nut: ")]


# --- shells -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("adbench ", {"run", "list", "plugins", "info", "predict", "data"}),
        ("adbench run --detectors gano", {"ganomaly"}),
        ("adbench run --detectors ganomaly,mean", {"ganomaly,mean_image"}),
        ("adbench info pc", {"pca"}),
        ("adbench data info fash", {"fashion_mnist"}),
        ("adbench list data", {"datasets"}),
    ],
)
def test_bash_completes(line: str, offered: set[str], shell: Call) -> None:
    ended = shell(
        _ADBENCH_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(line.split(" ")) - 1)
    )
    assert ended.status == 0
    assert offered <= set(ended.out.split())
    assert all(word.startswith(line.split(" ")[-1]) for word in ended.out.split())


@pytest.mark.parametrize("which", ["zsh", "fish"])
def test_other_shells_complete(which: str, shell: Call) -> None:
    ended = shell(
        _ADBENCH_COMPLETE=f"complete_{which}",
        _TYPER_COMPLETE_ARGS="adbench run --detectors ganomaly,mean",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert ended.status == 0
    assert "ganomaly,mean_image" in ended.out


def test_completion_script_is_shown(shell: Call) -> None:
    ended = shell("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ended.status == 0
    assert "_ADBENCH_COMPLETE=complete_bash" in ended.out
    assert "complete -o default -F _adbench_completion adbench" in ended.out


@pytest.mark.parametrize(("words", "limit"), [("--help", 0.5), ("list detectors", 1.5)])
def test_answer_is_quick(words: str, limit: float, shell: Call) -> None:
    """In seconds of the processor, and at best: that other tests keep it busy is not adbench's fault."""

    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    def once() -> float:
        start = spent()
        assert shell(*words.split()).status == 0
        return spent() - start

    assert any(once() < limit for _ in range(20))


@pytest.mark.parametrize("words", ["list detectors", "list detectors --json", "--help"])
@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_reader_that_leaves_early_sees_no_traceback(words: str, reader: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        f"{SCRIPT} {words} | {reader}", shell=True, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("words", ["list detectors", "list detectors --json"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_cannot_be_written_is_one_line(words: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        f"{SCRIPT} {words} > /dev/full", shell=True, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    reason = os.strerror(errno.ENOSPC)
    line = f"adbench: cannot write to the standard output ({reason}); redirect it elsewhere\n"
    assert (ended.returncode, ended.stderr) == (2, line)


@pytest.mark.parametrize("words", ["list detectors", "list detectors --json"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_failure(words: str, closed: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        f"{SCRIPT} {words} {closed}", shell=True, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ("mean_image" in ended.stdout) is (closed == "2>&-")


def test_a_name_that_the_terminal_cannot_write_is_no_failure(shell: Call) -> None:
    ended = shell("new-plugin", "mine", "--out", "brätter", PYTHONIOENCODING="ascii")
    assert (ended.status, ended.err) == (0, "")
    assert "br\\xe4tter" in ended.out


# --- a whole run ------------------------------------------------------------------------------------------------


def test_run_writes_tables_and_does_nothing_twice(tmp_path: Path, adbench: Call) -> None:
    words = "run --detectors mean_image,random --categories 0,1 --device cpu --out r".split()
    first = adbench(*words)
    assert first.status == 0, first.err
    assert [name in first.out for name in ("digits, one-vs-rest", "mean_image", "random", "AUROC")] == [
        True
    ] * 4
    assert [line[:6] for line in first.err.splitlines() if "AUROC" in line] == [
        *("[1/4] ", "[2/4] ", "[3/4] ", "[4/4] ")
    ]
    results, board = tmp_path / "r/results.csv", tmp_path / "r/leaderboard.csv"
    assert results.read_text().splitlines()[0] == RESULT_COLUMNS
    assert board.read_text().splitlines()[0] == LEADERBOARD_COLUMNS
    rows = pd.read_csv(results, dtype={"category": str})
    assert sorted(zip(rows["detector"], rows["category"], rows["status"], strict=True)) == [
        ("mean_image", "0", "ok"),
        ("mean_image", "1", "ok"),
        ("random", "0", "ok"),
        ("random", "1", "ok"),
    ]
    assert rows[["fit_seconds", "latency_ms_p50", "images_per_second"]].gt(0).all(axis=None)
    line = pd.read_csv(board).set_index("detector").loc["mean_image"]
    assert line["auroc_mean"] == pytest.approx(rows[rows["detector"] == "mean_image"]["auroc"].mean())
    assert (line["rank"], line["n_categories"], line["n_seeds"], line["n_failed"]) == (1, 2, 1, 0)

    tables = results.read_text(), board.read_text()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("result.json")}
    second = adbench(*words)
    assert second.status == 0
    assert second.out.splitlines()[0] == "nothing was run: all 4 jobs are finished in r"
    assert "4 of 4 jobs are finished already; nothing to run" in second.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("result.json")} == before
    assert len(before) == 4
    assert (results.read_text(), board.read_text()) == tables
    narrow = adbench(*words, "--categories", "1")
    assert "has results of 1 more" in narrow.out
    assert "more" not in second.out


# What `run`, `audit` and `bench` are asked for alike, and as what it reaches them.
ASKED = "--detectors pca --data-root d --protocol one-vs-rest --preset paper --set pca.components=3 "
ASKED += "--precision bf16 --device cuda --published numbers.csv"
WANTED = {"detectors": ("pca",), "data_root": Path("d"), "protocol": "one-vs-rest", "preset": "paper"}
WANTED |= {"overrides": ("pca.components=3",), "precision": "bf16"}


def taken(monkeypatch: pytest.MonkeyPatch, function: str, call: Callable[[], Ended]) -> tuple[Any, ...]:
    """What a function is given that a command would call."""
    given: list[tuple[Any, ...]] = []

    def stop(*args: Any, **_: Any) -> None:
        given.append(args)
        raise AdbenchError("so far")

    monkeypatch.setattr(function, stop)
    assert call().error == "so far"
    return given[0]


def test_every_option_of_run_has_its_effect(adbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("numbers.csv").touch()
    words = "--categories 1,2 --seeds 3,4 --executor ray --workers 2 --jobs-per-gpu 3 --job-timeout 4 --address auto"
    words += (
        " --gpus-per-job 0.5 --out there --no-timing --save-models --checkpoint-every 5 --tensorboard events"
    )
    given = taken(
        monkeypatch,
        "adbench_tgan.benchmark.benchmark",
        lambda: adbench("run", *ASKED.split(), *words.split()),
    )
    request, settings, _, _, place, executor, published = given
    assert request == Request(**WANTED, categories=["1", "2"], seeds=[3, 4])
    assert settings == Settings(
        device="cuda",
        timing=False,
        save_models=True,
        workers=2,
        jobs_per_gpu=3,
        job_timeout=4.0,
        address="auto",
        gpus_per_job=0.5,
        pictures=True,
        checkpoint_every=5,
    )
    assert (str(place), executor, published) == ("there", "ray", Path("numbers.csv"))


def test_every_option_of_audit_has_its_effect(adbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("numbers.csv").touch()
    words = (*ASKED.split(), *"--categories 1,2 --seeds 3,4 --out there".split())
    given = taken(monkeypatch, "adbench_tgan.audits.run_audits", lambda: adbench("audit", *words))
    request, settings, _, _, out, published = given
    assert request == Request(**WANTED, categories=["1", "2"], seeds=[3, 4])
    assert (settings, out, published) == (Settings(device="cuda"), Path("there"), Path("numbers.csv"))


@pytest.mark.parametrize(("words", "category"), [((), "0"), (("--category", "7"), "7")])
def test_every_option_of_bench_has_its_effect(
    words: tuple[str, ...], category: str, adbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    words += (*ASKED.split()[:-2], *"--seconds 2 --max-batch 3 --fit-images 4 --out there".split())
    given = taken(monkeypatch, "adbench_tgan.cost.speeds.run_bench", lambda: adbench("bench", *words))
    request, effort, device, _, _, out = given
    assert request == Request(**WANTED, categories=[category])
    assert (effort, device, out) == (Effort(seconds=2.0, max_batch=3, fit_images=4), "cuda", Path("there"))


def test_every_option_of_check_has_its_effect(adbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "ganomaly --preset paper --set epochs=3 --shape 1x8x8 --shape 3x8x8 --labelled --deterministic".split()

    who, shapes = taken(monkeypatch, "adbench_tgan.testing.examine", lambda: adbench("check", *words))
    assert (who.preset, who.config.epochs) == ("paper; epochs=3", 3)
    assert shapes == ((1, 8, 8), (3, 8, 8))
    assert (who.info.supervision, who.info.deterministic) == ("labelled", True)


@pytest.mark.parametrize("name", ["f_anogan", "fanogan"])
def test_a_setting_of_a_checked_detector_may_go_by_its_alias(
    name: str, adbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("check", "f_anogan", "--set", f"{name}.image_size=16")
    who, _ = taken(monkeypatch, "adbench_tgan.testing.examine", lambda: adbench(*words))
    assert who.config.image_size == 16


def test_no_timing_leaves_times_empty(tmp_path: Path, adbench: Call) -> None:
    assert adbench(*RUN, "--out", tmp_path / "runs").status == 0
    row = pd.read_csv(tmp_path / "runs/results.csv").iloc[0]
    times = RESULT_COLUMNS.split(",")[13:20]
    assert (times[0], times[-1]) == ("fit_seconds", "flops_per_image")
    assert row[times].isna().all()


def test_failed_job_is_a_row_with_its_error_and_status_1(tmp_path: Path, adbench: Call) -> None:
    make_plugin(
        tmp_path / "site",
        "clumsy",
        offer("stumble", "clumsy_detector:Clumsy"),
        files={"clumsy_detector": detector_source("Clumsy", fit='raise RuntimeError("it\\n fell")')},
    )
    with installed(tmp_path / "site"):
        ended = adbench(*RUN, "--detectors", "stumble,random", "--out", tmp_path / "runs")
    assert ended.status == 1
    (trace,) = (tmp_path / "runs").rglob("traceback.txt")
    assert ended.err.splitlines()[-1] == (
        f"failed: stumble on digits/0 seed 0: RuntimeError: it fell; {trace} shows where"
    )
    assert re.search(r'clumsy_detector\.py", line \d+, in fit\n', trace.read_text())
    assert "Traceback" not in ended.err
    rows = pd.read_csv(tmp_path / "runs/results.csv").set_index("detector")
    assert (rows.loc["stumble", "status"], rows.loc["stumble", "error"]) == (
        "failed",
        "RuntimeError: it fell",
    )
    assert (rows.loc["random", "status"], rows.loc["random"].isna()["error"]) == ("ok", True)
    assert rows.isna()["auroc"].to_dict() == {"random": False, "stumble": True}
    board = pd.read_csv(tmp_path / "runs/leaderboard.csv").set_index("detector")
    assert board["n_failed"].to_dict() == {"random": 0, "stumble": 1}
    assert board["rank"].isna().to_dict() == {"random": False, "stumble": True}


@pytest.mark.parametrize("shown", [SystemExit(130), KeyboardInterrupt()])
def test_a_second_interrupt_has_nothing_left_to_stop(
    shown: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise shown

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli, "main", interrupted)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.entry()
        assert ended.value.code == 130
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_process_ends_with_its_command_whatever_threads_are_left(tmp_path):
    code = (
        "import sys, threading, time\nfrom adbench_tgan import cli\ncli.PATIENCE = 0.1\n"
        "threading.Thread(target=time.sleep, args=(100,), name='for\\n ever').start()\n"
        "sys.argv = ['adbench', 'run', '--nonsense']\ncli.entry()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=50, check=False
    )
    assert ended.returncode == 2
    error, note = ended.stderr.splitlines()
    assert "--nonsense" in error
    assert note == "note: threads that a plugin left running are not waited for: for\\n ever"


LEAVES = """
import os, threading
from adbench_tgan import Detector
class Leaves(Detector):
    def fit(self, train):
        if os.fork() == 0:  # a child may leave
            os._exit(3)
        self.child = os.waitstatus_to_exitcode(os.wait()[1])
        thread = threading.Thread(target=os._exit, args=(0,), name="its own")
        thread.start()
        thread.join()
        os._exit(0)
    def score(self, images): ...
"""


@pytest.mark.parametrize(
    ("words", "made"), [("run --help", 1), ("data info digits", 1), ("--help run", len(cli.COMMANDS) + 1)]
)
def test_only_the_command_that_is_called_is_made(words, made, monkeypatch):
    monkeypatch.setenv("ADBENCH_DISABLE_PLUGINS", "1")
    offer = cli.offered(words.split())
    assert len(offer.registered_commands) + len(offer.registered_groups) == made
    assert len(cli.app.registered_commands) == len(cli.COMMANDS)


def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_traceback(monkeypatch):
    def stopped(name):
        raise KeyboardInterrupt

    half_way = ModuleType("adbench_tgan.cli")
    half_way.__getattr__ = stopped
    monkeypatch.setitem(sys.modules, "adbench_tgan.cli", half_way)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 130


def test_a_detector_cannot_end_the_command_in_silence(tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    command = (
        "run --no-timing --categories 0 --device cpu --out runs --detectors leaves,random --plugin leaves.py"
    )
    words = [sys.executable, "-m", "adbench_tgan", *command.split()]
    ended = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False)
    assert ended.returncode == 1
    told = " ".join(ended.stderr.split())
    assert "note: in thread its own os._exit(0) was called; raise an error instead" in told
    rows = pd.read_csv(tmp_path / "runs/results.csv").set_index("detector")
    assert rows["status"].to_dict() == {"leaves": "failed", "random": "ok"}
    assert rows["error"]["leaves"] == "SystemExit: os._exit(0) was called; raise an error instead"


@pytest.mark.parametrize(
    ("running", "ration", "free"),
    [
        ("0.00 0.00 0.00 1/90 1234", None, True),
        ("9.00 9.00 9.00 1/90 1234", "max 100000", True),  # nobody computes now
        ("0.00 0.00 0.00 3/90 1234", None, True),
        ("0.00 0.00 0.00 4/90 1234", None, False),  # three others on four cores, of which we take two
        ("0.00 0.00 0.00 1/90 1234", "200000 100000", False),
        ("0.00 0.00 0.00 1/90 1234", "-1", True),
        ("something else", None, False),
        ("", None, False),
        (None, None, False),
    ],
)
def test_threads_wait_asleep_unless_the_cores_are_free(running, ration, free, monkeypatch, tmp_path, adbench):
    """Spinning beside another program makes training many times slower; on free cores it is sleeping that is slower."""
    for name, text in {"running": running, "ration": ration}.items():
        if text is not None:
            (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(cli, "RUNNING", tmp_path / "running")
    monkeypatch.setattr(cli, "RATIONS", (tmp_path / "ration",))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert cli.cores_are_free() is free
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert adbench("list", "metrics").status == 0
    assert os.environ.pop("GOMP_SPINCOUNT", None) == (None if free else "3000")
    monkeypatch.setenv("GOMP_SPINCOUNT", "17")
    assert adbench("list", "metrics").status == 0
    assert os.environ["GOMP_SPINCOUNT"] == "17", "the user's own"


def test_where_no_system_tells_what_runs_threads_wait_asleep(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS and Windows
    assert not cli.cores_are_free()

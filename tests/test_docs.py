"""The documentation keeps up with the code, and its examples work as printed.

The tutorial is followed word by word in test_plugin_projects.py; that the site builds is for ``tox -e docs``.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from types import ModuleType, SimpleNamespace
from typing import get_type_hints

import pandas as pd
import pytest
import typer.main
from make_data import make_mvtec
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from adbench_tgan import cli, hooks
from adbench_tgan.audit_table import COLUMNS as AUDIT_COLUMNS
from adbench_tgan.cost.timing_board import COLUMNS as TIMING_COLUMNS
from adbench_tgan.data.samples import Cut, Samples
from adbench_tgan.data.tasks import Tasks
from adbench_tgan.leaderboard import LEADERBOARD_COLUMNS, RESULT_COLUMNS
from adbench_tgan.ranking.comparison import PAIR_COLUMNS
from adbench_tgan.registry import FIRST_PARTY, RECORDS, Registry
from adbench_tgan.testing import CHECKS, IN_PROCESS, check_detector

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FINDINGS = re.sub(r"(?<!\n)\n(?!\n)", " ", (ROOT / "docs/findings.md").read_text())  # a paragraph a line
PLUGINS = (ROOT / "plugins/README.md").read_text()
PAGES = sorted((ROOT / "docs").glob("*.md"))
PAGE_OF = {  # the page where everything of a kind is explained
    "detector": "detectors",
    "dataset": "data",
    "protocol": "data",
    "metric": "metrics",
    "executor": "hooks",
}


def load_hook(name: str) -> ModuleType:
    """A file in ``docs/`` that mkdocs calls."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate():
    """What writes the generated parts of the pages."""
    return load_hook("generate")


@pytest.fixture(scope="module")
def pages():
    """The pages by name, as a forge and the site show them."""
    return {path.stem: path.read_text() for path in PAGES}


def table_cells(text, heading):
    """The names in the first column of the table under a heading."""
    part = text.split(heading)[1].split("\n## ")[0]
    return [
        name
        for line in part.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]


def commands(group, prefix="adbench"):
    """Every command with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


OUR_COMMANDS = dict(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda path: path.stem)
def test_titles_go_down_one_level_at_a_time(path):
    text = re.sub(r"(?ms)^```.*?^```$", "", path.read_text())
    levels = [len(marks) for marks in re.findall(r"(?m)^(#+) ", text)]
    assert levels[0] == 1
    assert [pair for pair in pairwise(levels) if pair[1] > pair[0] + 1] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_column_has_a_title(path):
    heads = re.findall(r"(?m)^(\|.*)\n\|[ :|-]+\|$", path.read_text())
    assert [head for head in heads if "" in map(str.strip, head.strip("|").split("|"))] == []


def test_every_column_is_explained(pages):
    for text in ((ROOT / "leaderboards/README.md").read_text(), pages["leaderboards"]):
        assert table_cells(text, "## `results.csv`") == RESULT_COLUMNS
        assert table_cells(text, "## `leaderboard.csv`") == LEADERBOARD_COLUMNS
        assert table_cells(text, "## `pairs.csv`") == PAIR_COLUMNS
        assert sorted(table_cells(text, "## `audit.csv`")) == sorted(AUDIT_COLUMNS)
        assert sorted(table_cells(text, "## `timing.csv`")) == sorted(TIMING_COLUMNS)


def test_every_command_is_in_the_readme():
    assert "adbench run" in OUR_COMMANDS
    assert [name for name in OUR_COMMANDS if f"`{name}" not in README] == []


@pytest.mark.parametrize("function", cli.COMMANDS.values())
def test_no_option_takes_its_name_from_what_stands_for_its_value(function):
    """Typer 0.27 calls an option --SECONDS whose parameter is `seconds`, and that has the metavar SECONDS."""
    for name, hint in get_type_hints(function, include_extras=True).items():
        for option in getattr(hint, "__metadata__", ()):
            named = str(option.default).startswith("--")  # inside Annotated the name comes first
            assert named or (option.metavar or "").lower() != name


@pytest.mark.parametrize("name", OUR_COMMANDS)
def test_every_command_and_option_is_in_the_docs(pages, name):
    (section,) = re.findall(rf"(?s)## `{name}`\n.*?(?=\n## |\Z)", pages["commands"])
    options = [each for each in OUR_COMMANDS[name].params if each.param_type_name == "option"]
    words = [word for each in options if each.name != "help" for word in each.opts]
    assert [word for word in words if f"`{word}`" not in section] == []
    assert OUR_COMMANDS[name].help.split(".")[0].split("\n")[0] in section
    without_help = [
        line for line in section.splitlines() if line.startswith("| `--") and line.endswith("|  |")
    ]
    assert without_help == []


def test_every_hook_is_in_the_guide_and_in_the_docs(pages):
    names = [name for name in vars(hooks) if name.startswith("adbench_")]
    assert "adbench_detectors" in names
    assert [name for name in names if f"`{name}`" not in PLUGINS] == []
    assert [name for name in names if f"## `{name}(" not in pages["hooks"]] == []


@pytest.mark.parametrize("kind", RECORDS)
def test_every_field_of_a_record_is_in_the_docs(pages, kind):
    (section,) = re.findall(rf"(?s)## `adbench_{kind}s\(.*?(?=\n##|\Z)", pages["hooks"])
    record = RECORDS[kind]
    assert f"`{record.__name__}`" in section
    assert [name for name in record.__dataclass_fields__ if f"| `{name}` |" not in section] == []


def test_every_field_of_what_datasets_and_protocols_give_is_in_the_docs(pages):
    for given in (Samples, Cut):
        (section,) = re.findall(rf"(?s)### `{given.__name__}`\n.*?(?=\n##)", pages["hooks"])
        names = [name for name in given.__dataclass_fields__ if not name.startswith("_")]
        assert [name for name in names if f"| `{name}` |" not in section] == []
    (section,) = re.findall(r"(?s)### `Dataset`\n.*?(?=\n##)", pages["hooks"])
    assert re.findall(r"(?m)^\| `(\w+)", section) == ["categories", "note", "samples"]
    assert "| some of `on_offer` |" in pages["hooks"]  # behind the last field


@pytest.mark.parametrize("kind", PAGE_OF)
def test_all_that_is_offered_is_in_the_docs(pages, generate, kind):
    ours = [one for one, origin in Registry.discover().offers(kind) if origin.startswith(f"{FIRST_PARTY}:")]
    assert ours
    assert generate.offered(kind) == ours
    text = pages[PAGE_OF[kind]]
    assert [
        one.name for one in ours if f"| `{one.name}` |" not in text and f"| [`{one.name}`]" not in text
    ] == []


def test_every_metric_has_its_formula_and_every_protocol_its_text(pages, generate):
    for one in generate.offered("metric"):
        (section,) = re.findall(rf"(?s)## `{one.name}`\n.*?(?=\n## )", pages["metrics"])
        assert re.search(r"\b(19|20)\d\d\b", section), f"{one.name} cites no source"
        assert "```math" in section or one.name == "pixel_auroc"  # which is auroc's
    for one in generate.offered("protocol"):
        assert f"**`{one.name}`**" in pages["data"]


def test_every_detector_says_where_it_differs_from_its_authors_code(pages, generate):
    for one in generate.offered("detector"):
        (section,) = re.findall(rf"(?s)### `{one.name}`\n.*?(?=\n##)", pages["detectors"])
        assert one.family == "anchor" or "Where this differs" in section, one.name
        assert len(section) > 120, one.name


def test_every_check_is_in_the_docs(pages):
    names = [check.__name__.replace("_", " ") for check in CHECKS]
    assert sorted(re.findall(r"(?m)^- \*\*(.*?)\*\*: .+", pages["conformance"])) == sorted(names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_generated_is_current(page, generate):
    current = (
        generate.complete(page.read_text()) == page.read_text()
    )  # a comparison of texts would fill pages
    assert current, f"docs/{page.name} is not current: python docs/generate.py writes it anew"


def test_every_generated_part_is_on_a_page(pages, generate):
    begun = [name for text in pages.values() for name in re.findall("<!-- generated: (.*?) -->", text)]
    assert sorted(begun) == sorted(generate.GENERATED)
    assert sum(text.count("<!-- end -->") for text in pages.values()) == len(begun)


def test_a_page_that_was_edited_is_written_anew_and_refused_by_the_site(generate):
    stale = "before\n<!-- generated: executors -->\nby hand\n<!-- end -->\nbehind\n"
    mended = generate.complete(stale)
    assert "by hand" not in mended
    assert "| `local` |" in mended
    assert (mended.startswith("before\n"), mended.endswith("\nbehind\n")) == (True, True)
    assert generate.complete(mended) == mended
    where = SimpleNamespace(file=SimpleNamespace(src_uri="hooks.md"))
    assert generate.on_page_markdown(mended, page=where) == mended
    pytest.importorskip("mkdocs")
    with pytest.raises(Exception, match=r"hooks.md is not current: python docs/generate.py writes it anew"):
        generate.on_page_markdown(stale, page=where)


def test_links_to_sections_lead_to_a_title(pages):
    for name, text in pages.items():
        for page, section in re.findall(r"\]\(([\w-]*)(?:\.md)?#([\w-]+)\)", text):
            assert section in sections(pages[page or name]), f"{name}.md: {page}.md#{section}"


def sections(text):
    """What a forge and the site call the titles of a page."""
    titles = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?s)```.*?```", "", text))
    return {re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_every_page_is_in_the_menu():
    menu = re.findall(r"(?m)^ +- (?:\w+: )?(\w+\.md)$", (ROOT / "mkdocs.yml").read_text())
    assert sorted(menu) == [path.name for path in PAGES]


def test_pages_that_load_from_elsewhere_are_found(generate):
    found = generate.loaded_from_elsewhere(
        '<a href="https://x.y/z">fine</a> <script src="assets/a.js"></script> <img src="//cdn.x/y.png">'
        '<script async src="https://cdn.x/a.js"></script> <link href=https://fonts.x/css rel="stylesheet">'
    )
    assert [tag.split()[0] for tag in found] == ["<img", "<script", "<link"]


def test_generating_needs_no_torch():
    """The environment that builds the site has none."""
    code = r"""
import sys, json, runpy
for name in ("torch", "pandas", "sklearn", "scipy", "numpy", "anomalib"):
    sys.modules[name] = None  # its import fails
made = runpy.run_path("docs/generate.py")
parts = {name: f"<!-- generated: {name} -->\n<!-- end -->" for name in made["GENERATED"]}
print(json.dumps({name: len(made["complete"](part)) for name, part in parts.items()}))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert min(json.loads(ended.stdout).values()) > 150


def test_the_citation_is_of_this_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {project['version']}" in lines
    assert f"license: {project['license']}" in lines
    assert [line for line in lines if " name: " in line] == [f"  - name: {project['authors'][0]['name']}"]
    assert "](CITATION.cff)" in README


def test_every_detector_dataset_and_protocol_is_in_the_changelog(generate):
    text = (ROOT / "CHANGELOG.md").read_text()
    for kind in ("detector", "dataset", "protocol"):
        assert [one.name for one in generate.offered(kind) if f"`{one.name}`" not in text] == []


@pytest.mark.parametrize(
    "page",
    [
        *sorted(ROOT.glob("*.md")),
        *sorted(ROOT.glob("*/README.md")),
        *PAGES,
        ROOT / "plugins/adbench-example-pca/README.md",
    ],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_number_of_checks_is_as_printed():
    assert f"{len(CHECKS)} checks" in README
    assert f"{len(CHECKS)} checks" in PLUGINS
    assert f"{len(CHECKS)} checks" in (ROOT / "CHANGELOG.md").read_text()


def between(text, start, end):
    return text.partition(start)[2].partition(end)[0]


def rows_of(path):
    """The lines of a table in leaderboards/."""
    return list(csv.DictReader((ROOT / "leaderboards" / path).read_text().splitlines()))


def short(number):
    """As texts print an AUROC: .518."""
    return f"{float(number):.3f}".removeprefix("0")


def test_the_readmes_table_of_digits_is_that_of_the_boards_first_seed():
    jobs = pd.DataFrame(rows_of("digits-one-vs-rest/results.csv"))
    jobs = jobs[jobs["seed"] == "0"].astype({"auroc": float, "average_precision": float})
    means = jobs.groupby("detector")[["auroc", "average_precision"]].mean().map("{:.3f}".format)
    said = re.findall(r"│ +\d │ (\w+)[* ]+│ quick +│ (\d\.\d+) │ [-.\d]+ │ (\d\.\d+) │", README)
    assert len(said) == 4
    assert said == [(name, *means.loc[name]) for name, *_ in said]


def test_what_the_readme_says_of_cifar10_is_what_the_board_says():
    board = "cifar10-one-vs-rest"
    words = between(README, "![AUROC of sixteen detectors", f"](leaderboards/{board}/intervals.png)")
    said = re.findall(r"(\w+) (?:on ImageNet features )?(\.\d{3})", words)
    rows = rows_of(f"{board}/leaderboard.csv")
    assert len(rows) == 16
    assert said == [(row["detector"], short(row["auroc_mean"])) for row in rows if row["rank"]]
    assert "no ranked one-class GAN is measurably better than `mean_image`" in README
    assert "`sagan` cannot be told from `random`" in README
    better = set()
    for row in rows_of(f"{board}/pairs.csv"):
        a, b = row["detector_a"], row["detector_b"]
        better |= {(a, b)} if float(row["difference_ci_low"]) > 0 else set()
        better |= {(b, a)} if float(row["difference_ci_high"]) < 0 else set()
    assert {name for name, other in better if other == "mean_image"} == {"knn"}
    assert not better & {("sagan", "random"), ("random", "sagan")}


def test_what_texts_say_of_leave_one_out_is_what_board_and_paper_say():
    papers = [row for row in rows_of("published_numbers.csv") if row["our_protocol"] == "leave-one-out-6k"]
    printed = {(row["our_detector"], row["category"]): short(row["value"]) for row in papers}
    readme = between(README, "Over the eight classes", "[All boards]")
    audit = between((ROOT / "docs/audit.md").read_text(), "On all ten classes", "\n\n")
    baselines = (ROOT / "baselines/README.md").read_text()
    jobs = rows_of("cifar10-leave-one-out-6k/results.csv")
    for name in ("ganomaly", "skip_ganomaly", "sagan", "egbad", "mean_image"):
        own = [(row["category"], float(row["auroc"])) for row in jobs if row["detector"] == name]
        eight = short(fmean(auroc for category, auroc in own if ("sagan", category) in printed))
        assert f" {eight}" in readme
        if average := printed.get((name, "average")):
            mean = short(fmean(auroc for _, auroc in own))
            assert f" {average}" in readme
            assert {eight, average, mean} <= set(re.findall(r"\.\d{3}", audit))
            assert mean in baselines


def test_what_is_said_of_anotrans_audit_is_what_its_curves_say(pages):
    (path,) = (ROOT / "leaderboards/audit/curves").rglob("anotrans/*.json")
    record = json.loads(path.read_text())
    curves = [record[name] for name in ("clean", "batch_statistics", "class_sorted")]
    said = between(pages["audit"], "AnoTrans scores in the same way", "\n\n")
    assert re.findall(r"\.\d{3}", said) == [short(auroc) for curve in curves for auroc in curve]


def test_classes_go_with_pca_as_printed():
    text = between(FINDINGS, "Over the ten classes", "\n\n")

    def alike(board):
        jobs = pd.DataFrame(rows_of(f"{board}/results.csv")).astype({"auroc": float})
        return jobs.groupby(["category", "detector"])["auroc"].mean().unstack().corr()

    whole, part = alike("cifar10-one-vs-rest"), alike("cifar10-leave-one-out-6k")
    gans = whole.loc[["anotrans", "egbad", "f_anogan", "ganomaly", "sagan", "skip_ganomaly"]]
    said = [gans["pca"].min(), gans["pca"].max(), gans["knn"].min(), gans["knn"].max()]
    for name in ("ganomaly", "skip_ganomaly", "anotrans", "sagan", "egbad", "f_anogan"):
        said += [*part.loc[name, ["pca", "mean_image"]]]
    said.append(alike("cifar10-one-vs-rest-1k").loc["anogan", "pca"])
    assert [float(number) for number in re.findall(r"-?\.\d\d\b", text)] == [round(each, 2) for each in said]


def test_seeds_on_screws_are_as_printed():
    text = between(FINDINGS, "five seeds of `ganomaly`", "How little")
    order = {"ganomaly": 0, "sagan": 1, "skip_ganomaly": 2}
    large = sorted(
        (order[row["detector"]], row["precision"] != "tf32", row["seed"], row["auroc"])
        for row in rows_of("mvtec-screw/results.csv")
        if row["detector"] in order and "128" in row["preset"]
    )
    assert re.findall(r"\.\d{3}", text) == [short(auroc) for *_, auroc in large]


def test_what_is_said_of_transgan_duals_failed_trainings_is_what_board_and_losses_say():
    text = between(FINDINGS, "Two of thirty trainings", "\n\n")
    board = "cifar10-one-vs-rest"
    jobs = [row for row in rows_of(f"{board}/results.csv") if row["detector"] == "transgan_dual"]
    failed = sorted(jobs, key=lambda row: float(row["auroc"]))[:2]
    assert len(jobs) == 30
    assert [(row["category"], row["seed"]) for row in failed] == [("horse", "2"), ("cat", "0")]
    losses = pd.DataFrame(rows_of(f"{board}/losses/transgan_dual.csv")).astype({"l1": float})
    last = losses[losses["category"].isin(["horse", "cat"]) & (losses["epoch"] == "2")]
    keys = [row["key"] for row in failed]
    ends = last.set_index("key")["l1"]
    others = ends.drop(keys)
    said = [*(row["auroc"] for row in failed), *ends[keys], others.min(), others.max()]
    assert re.findall(r"\.\d{3}", text) == [*map(short, said)]


def test_digits_that_are_scored_by_their_distance_from_grey_are_as_printed():
    text = between(FINDINGS, "The rank correlation of a score", "So these rows")
    squares = (load_digits().images / 8 - 1) ** 2  # (1797, 8, 8), pixels in [-1, 1]
    grey = pd.Series(squares.mean((1, 2)), [f"digit-{number:04}" for number in range(len(squares))])

    def scores(name):
        rows = pd.read_parquet(ROOT / f"leaderboards/digits-one-vs-rest/scores/{name}.parquet")
        return rows.assign(grey=rows["sample_id"].map(grey))

    said = re.findall(r"(\.\d\d) for\s`(\w+)`", text)
    assert len(said) == 5
    board = json.loads((ROOT / "leaderboards/digits-one-vs-rest/board.json").read_text())
    detectors = {row["key"]: row["detector"] for row in rows_of("digits-one-vs-rest/results.csv")}
    errors = {name: [] for _, name in said}
    for job in board["jobs"]:
        errors.get(detectors[job["key"]], []).append(job.get("reconstruction_error"))
    for name, all_30 in errors.items():
        low, high = (f"{end:.2f}".removeprefix("0") for end in (min(all_30), max(all_30)))
        assert re.search(rf"{low} to {high}\b[^`]* with\s`{name}`", text), name
    for number, name in said:
        jobs = scores(name).groupby(["category", "seed"])[["score", "grey"]]
        assert number == f"{jobs.corr('spearman')['grey'].xs('score', level=2).mean():.2f}".removeprefix("0")
    alone = scores("pca").query("seed == 0").groupby("category")[["label", "grey"]]
    aurocs = alone.apply(lambda rows: roc_auc_score(rows["label"], rows["grey"]))
    assert (
        f"digit 1 has an AUROC of {short(aurocs['1'])}, and all ten {short(aurocs.mean())} on average" in text
    )
    jobs = pd.DataFrame(rows_of("digits-one-vs-rest/results.csv")).astype({"auroc": float})
    ones = jobs[jobs["category"] == "1"].groupby("detector")["auroc"].mean()[[name for _, name in said]]
    assert f"{ones.min():.2f} to {ones.max():.2f}".replace("0.", ".") in text


def test_every_board_has_as_many_anchors_as_the_readme_says(generate):
    assert "in the same table, five or more of them on each board" in README
    anchors = {one.name for one in generate.offered("detector") if one.family.startswith("anchor")}
    for table in (ROOT / "leaderboards").glob("*/leaderboard.csv"):
        assert len({row["detector"] for row in rows_of(table)} & anchors) >= 5, table


def test_which_gans_had_their_default_training_on_cifar10_is_as_printed(pages, generate):
    gans = {one.name for one in generate.offered("detector") if "GAN" in one.family}
    whole = {
        row["detector"]
        for board in (ROOT / "leaderboards").glob("cifar10-*")
        for row in rows_of(f"{board.name}/leaderboard.csv")
        if row["detector"] in gans and row["preset"].split("; precision")[0] == "paper"
    }
    said = between(pages["leaderboards"], "Of the GANs on", "default training")
    assert whole == set(re.findall(r"`(\w+)`", said))


def test_detectors_that_score_alike_with_every_seed_are_as_printed(pages):
    said = between(pages["leaderboards"], "classes are fixed. ", " score alike with every")
    jobs = pd.DataFrame(rows_of("cifar10-one-vs-rest/results.csv")).groupby(["detector", "category"])["auroc"]
    alike = jobs.nunique().groupby("detector").max() == 1
    several = jobs.count().groupby("detector").min() > 1
    assert set(alike[alike & several].index) == set(re.findall(r"`(\w+)`", said))


@pytest.mark.parametrize("board", ["cifar10-one-vs-rest", "cifar10-one-vs-rest-1k"])
def test_what_a_note_says_of_transgan_duals_failed_trainings_is_of_its_own_board(board):
    note = json.loads((ROOT / "leaderboards" / board / "board.json").read_text())["note"]
    jobs = [row for row in rows_of(f"{board}/results.csv") if row["detector"] == "transgan_dual"]
    horse, cat = (
        sorted(float(row["auroc"]) for row in jobs if row["category"] == category)
        for category in ("horse", "cat")
    )
    others = [f"{auroc:.2f}".removeprefix("0") for auroc in horse[1:] + cat[1:]]
    text = between(note, "trainings of transgan_dual", "its wide interval")
    assert re.findall(r"\.\d+", text) == [short(horse[0]), short(cat[0]), *others]


def test_what_is_said_of_anotrans_and_sagan_on_screws_is_what_losses_and_rows_say():
    text = between(FINDINGS, "`anotrans` shows", "\n\n")
    jobs = pd.DataFrame(rows_of("mvtec-screw/results.csv"))[["key", "preset", "pixel_auroc", "auroc"]]

    def mean(detector, side):
        """The loss in the first and in the last epoch, and the metrics, over the seeds."""
        rows = pd.DataFrame(rows_of(f"mvtec-screw/losses/{detector}.csv")).merge(jobs)
        rows = rows[rows["preset"].str.partition("; precision")[0] == f"paper; image_size={side}"]
        numbers = rows[["epoch", "loss_g", "pixel_auroc", "auroc"]].astype(float).groupby("epoch").mean()
        ends = [f"{loss:.1f}" for loss in numbers["loss_g"].iloc[[0, -1]]]
        return *ends, *(short(numbers[name].iloc[0]) for name in ("pixel_auroc", "auroc"))

    large, sagan = mean("anotrans", 128), mean("sagan", 64)
    said = [*mean("anotrans", 64), *large[:2], large[3], *sagan[:2], sagan[3]]
    assert re.findall(r"\d*\.\d+", text) == said


@pytest.mark.parametrize(
    ("name", "begins", "count"), [("sagan", "has learned", 10), ("egbad", "reconstructs hardly", 10)]
)
def test_what_is_said_of_reconstructions_is_what_jobs_say(name, begins, count):
    text = between(FINDINGS, f"`{name}` {begins}", "\n\n")
    jobs = json.loads((ROOT / "leaderboards/cifar10-leave-one-out-6k/board.json").read_text())["jobs"]
    errors = [job["reconstruction_error"] for job in jobs if job["configuration"].startswith(f"{name}-")]
    rows = rows_of("cifar10-leave-one-out-6k/leaderboard.csv")
    (mean,) = [row["auroc_mean"] for row in rows if row["detector"] == name]
    assert len(errors) == count
    assert re.findall(r"\d?\.\d{3}", text)[:3] == [*map(short, (min(errors), max(errors), mean))]


def test_what_is_said_of_anotrans_is_what_its_losses_say():
    text = between(FINDINGS, "`anotrans` has hardly begun", "\n\n")

    def last(board):
        losses = pd.DataFrame(rows_of(f"{board}/losses/anotrans.csv")).astype({"epoch": int, "loss_g": float})
        return losses[losses["epoch"] == losses["epoch"].max()].groupby("category")["loss_g"].mean()

    whole, part = last("cifar10-one-vs-rest"), last("cifar10-leave-one-out-6k")
    lowest = f"{part.min():.1f} with the {part.idxmin()} left out"
    assert f"was {whole.mean():.1f} and {part.mean():.1f} ({lowest}" in text


def test_the_guides_detector_works_as_printed(tmp_path, monkeypatch):
    package = tmp_path / "my_detector"
    package.mkdir()
    init, module = re.findall(
        r"```python\n# my_detector/(?:__init__|brightness)\.py.*?\n(.*?)```", PLUGINS, re.S
    )
    (package / "__init__.py").write_text(init)
    (package / "brightness.py").write_text(module)
    info = tmp_path / "my_detector-0.1.dist-info"
    info.mkdir()
    toml = re.search(r"```toml\n(.*?)```", PLUGINS, re.S)[1]
    point = re.search(r"\[project.entry-points.adbench\]\n(\w+) = \"(\w+)\"", toml)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-detector\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[adbench]\n{point[1]} = {point[2]}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    try:
        detector = Registry.discover().detector("brightness")
        assert not check_detector("brightness", checks=IN_PROCESS).failed
        assert detector.Config.model_fields["power"].description == "exponent of the distance"
    finally:
        for name in ("my_detector", "my_detector.brightness"):
            sys.modules.pop(name, None)


def test_the_dataset_of_a_table_works_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/data.md").read_text(), re.S)[1]
    Path("visa.py").write_text(code)
    root, lines = make_mvtec(tmp_path / "VisA", ["candle"]), ["object,split,label,image,mask"]
    for path in sorted(root.glob("candle/t*/*/*.png")):
        part, kind = path.parts[-3:-1]
        mask = "" if kind == "good" else f"candle/ground_truth/{kind}/{path.stem}_mask.png"
        label = "normal" if kind == "good" else "anomaly"
        lines.append(f"candle,{part},{label},{path.relative_to(root)},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(lines))
    registry = Registry.discover([Path("visa.py")])
    tasks = Tasks(registry.find("dataset", "visa"), registry.find("protocol", "official"), root)
    ours = Tasks(registry.find("dataset", "mvtec"), registry.find("protocol", "official"), root)
    own, other = (each.split("candle", 16, labelled=False) for each in (tasks, ours))
    assert (own.labels == other.labels).all()
    assert (own.masks == other.masks).all()
    assert own.masks.any()
    assert own.fingerprint == other.fingerprint


def test_ci_runs_the_readmes_test_command():
    commands = re.findall(r"```console\n(python3 .*?)\n```", README)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci/run").read_text().splitlines()


def test_contributors_find_every_package_of_the_framework():
    packages = {path.name for path in (ROOT / "adbench_tgan").iterdir() if path.is_dir()} - {"__pycache__"}
    assert set(table_cells((ROOT / "CONTRIBUTING.md").read_text(), "## Where things are")) == packages

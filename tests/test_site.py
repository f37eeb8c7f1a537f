"""The site has a page for every board, and what strangers wrote into a board is text there.

That the site builds is for ``tox -e docs``; mkdocs is not needed here.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_docs import load_hook

ROOT = Path(__file__).parent.parent
BOARDS = ROOT / "leaderboards"
HOSTILE = (
    "<script>alert(1)</script>",
    r"\<img src=x onerror=alert(1)\>",
    "| a |\n| --- |\n| cell {: onmouseover=alert(1) } |",
    "## title {: onmouseover=alert(1) }",
    "[words](javascript:alert(1))",
    "[words]\n\n[words]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "`` ` `` <b onclick=alert(1)>",
    "~~~\n```console\n~~~\n<img src=x onerror=alert(1)>\n```",
    "```foo\n```console\n<img src=x onerror=alert(1)>\n```\n```",
    "```console { onclick=alert(1) }\n<b>\n```",
    '[words](https://x"onclick=alert)',
    "<div markdown onclick=alert(1)>",
    "[a`b](https://x) `](javascript:alert(1)) c`",
    "![alert](https://x/p.png)",
)


site = load_hook("boards")
PAGES = site.pages()


def test_every_folder_has_a_page_that_the_overview_and_the_menu_name():
    names = sorted(path.parent.name for path in BOARDS.glob("*/README.md"))
    assert {"cifar10-one-vs-rest", "digits-one-vs-rest", "mvtec-screw", "audit"} <= set(names)
    assert sorted(PAGES) == sorted(
        ["leaderboards/README.md", *(f"leaderboards/{name}/README.md" for name in names)]
    )
    config = SimpleNamespace(nav=[{"Home": "index.md"}, {"Leaderboards": [{"Overview": site.OVERVIEW}]}])
    menu = [place for each in site.on_config(config).nav[1]["Leaderboards"] for place in each.values()]
    assert sorted(menu) == sorted(PAGES)
    for name in names:
        assert f"({name}/README.md)" in PAGES[site.OVERVIEW]


def test_only_what_verify_checks_and_what_lies_here_has_a_page(tmp_path, monkeypatch):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder, kind in (("a", "board.json"), ("b", "timing.json"), ("c", "audit.csv"), ("made-up", "x.md")):
        (here / folder).mkdir(parents=True)
        (here / folder / "README.md").write_text("# Title\n")
        (here / folder / kind).touch()
    (here / "notes").mkdir()
    (here / "notes/audit.csv").touch()
    elsewhere.mkdir()
    (elsewhere / "board.json").touch()
    (elsewhere / "README.md").write_text("# Secret\n")
    (here / "notes/README.md").symlink_to(elsewhere / "README.md")
    (here / "linked").symlink_to(elsewhere)
    monkeypatch.setattr(site, "BOARDS", here)
    assert [folder.name for folder in site.folders()] == ["a", "b", "c"]
    assert [folder.name for folder in site.boards()] == ["a"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_what_the_site_has(page):
    offered = {path.relative_to(ROOT) for path in site.attachments(BOARDS)} | set(map(Path, PAGES))
    offered |= {(folder / site.CHARTS).relative_to(ROOT) for folder in site.boards()}
    offered |= {Path(path.name) for path in (ROOT / "docs").glob("*.md")}
    targets = [
        target for target in re.findall(r"\]\(([^)#]+)", PAGES[page]) if not target.startswith("https:")
    ]
    found = [(ROOT / page).parent.joinpath(target).resolve().relative_to(ROOT) for target in targets]
    assert len(found) > (1 if "timing-" in page else 5)  # times have no pictures and few files
    assert [str(each) for each in found if each not in offered] == []


@pytest.mark.parametrize("folder", site.folders(), ids=lambda folder: folder.name)
def test_a_page_says_what_the_readme_says_and_offers_every_file(folder):
    text, readme = PAGES[f"leaderboards/{folder.name}/README.md"], (folder / "README.md").read_text()
    assert (f"]({site.CHARTS})" in text) == (folder / "board.json").exists()
    for title in re.findall(r"(?m)^## .*", readme):
        assert title in text
    for number in re.findall(r"\b\d?\.\d{3}\b", readme):
        assert number in text
    for path in site.attachments(folder):
        assert f"]({path.relative_to(folder).as_posix()})" in text, path
    assert all(
        line in text for part in re.findall(r"(?s)```console\n(.*?)```", readme) for line in part.splitlines()
    )


def test_the_overview_has_the_best_row_of_each_kind_and_says_why_there_is_no_rank():
    lines = {folder.name: site.line(folder) for folder in site.boards()}
    for name, line in lines.items():
        rows = list(csv.DictReader((BOARDS / name / "leaderboard.csv").open()))
        for kind in ("one-class", "labelled"):
            block = [row for row in rows if row["supervision"] == kind]
            block = [row for row in block if row["rank"]] or block
            scores = [(float(row["auroc_mean"]), row["detector"]) for row in block]
            best, detector = max(scores, default=(None, ""))
            assert line[f"highest {kind}"].startswith(detector.replace("_", "&#95;"))
            assert best is None or f"<br>{best:.3f} (" in line[f"highest {kind}"]
    assert lines["cifar10-one-vs-rest"]["ranked"].endswith("1 of the 3 seeds needed")
    assert lines["cifar10-one-vs-rest"]["categories, size"].startswith(
        "10 of 10,000<br>test images<br>4,000,000 scores<br>"
    )
    assert lines["cifar10-one-vs-rest"]["detectors, seeds"] == "16<br>seeds: 1 to 3"
    assert lines["digits-one-vs-rest"]["ranked"] == "all 18 rows"
    assert lines["mvtec-screw"]["highest one-class"].endswith("rank shared with 2 more")
    assert "](../findings.md)" in PAGES[site.OVERVIEW]


def row(detector, auroc, rank="", remark=""):
    interval = {"auroc_ci_low": auroc, "auroc_ci_high": auroc}
    return {
        "detector": detector,
        "supervision": "one-class",
        "auroc_mean": auroc,
        "rank": rank,
        "remark": remark,
    } | interval


def test_a_row_without_a_rank_does_not_stand_above_one_with():
    rows = [row("ranked", ".6", "1"), row("lucky", ".9", remark="not ranked: 1 of the 3 seeds needed; more")]
    assert site.highest(rows, "one-class").startswith("ranked<br>0.600")
    assert site.ranked(rows) == "1 of 2 rows: 1 of the 3 seeds needed"
    rows.append(row("other", "", remark="not ranked: no result for a"))
    assert site.ranked(rows) == "1 of 3 rows: see each remark"
    assert site.highest(rows, "labelled") == ""


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_readme_smuggles_in_is_text(text):
    made = site.as_text(f"# name\n\nwords\n\n{text}\n\n[fine](README.md)\n", BOARDS)
    assert "[fine](../leaderboards/README.md)" in made
    markdown = pytest.importorskip("markdown", reason="comes with pymdown-extensions")
    extensions = "admonition attr_list md_in_html tables pymdownx.highlight pymdownx.superfences".split()
    html = markdown.markdown(made, extensions=extensions)
    tags = [tag for tag in re.findall(r"<[^>]+>", html) if not tag.startswith("</")]
    known = r"<(code|code class=\"language-\w+\"|h1|h2|p|div class=\"(highlight|commands)\"|pre|span[^>]*|table|thead|tbody|tr|th|td|a href=\"(\.\./leaderboards/README\.md|https://[^\"]*)\")>"
    assert [tag for tag in tags if not re.fullmatch(known, tag)] == []
    assert "alert" in html or "<b>" in text


def test_pages_and_files_from_elsewhere_are_not_offered(tmp_path):
    board = (tmp_path / "board").resolve()
    (board / "scores").mkdir(parents=True)
    (board / ".killed").mkdir()
    (tmp_path / "elsewhere.csv").write_text("a secret")
    (board / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    (board / "folder").symlink_to(tmp_path)
    names = "README.md page.html more.md picture.svg pairs.csv .draft.csv .killed/pairs.csv scores/a.parquet"
    for name in names.split():
        (board / name).write_text("words")
    assert [path.relative_to(board).as_posix() for path in site.attachments(board)] == [
        "pairs.csv",
        "scores/a.parquet",
    ]


def test_nothing_but_tables_links_code_and_emphasis_is_left_to_markdown():
    made = site.as_text(r"a \| b \<i\> **c** `d|e` {x} <b> [y] ~ [z](no-such-file)", BOARDS)
    assert made == "a &#124; b &#60;i&#62; **c** `d|e` &#123;x&#125; &#60;b&#62; &#91;y&#93; &#126; z"


def test_a_table_is_laid_out_for_a_page():
    long = "a remark " * 10
    text = f"| rank | detector | AUROC | preset |\n| --- | --- | --- | --- |\n| 1 | a | 0.500 | {long}|\n|  | b | 0.250 |  |\n"
    made = site.TABLE.sub(site.wide, text).splitlines()
    assert made[2] == "| rank | detector | AUROC | preset |"
    assert made[3] == "| --: | --- | --: | --- |"
    assert made[4] == f"| 1 | a | 0.500 | <span class='words'>{long.strip()}</span> |"
    assert made[5] == "|  | b | 0.250 |  |"
    ragged = "| a | b |\n| --- | --- |\n| 1 |\n"
    assert site.TABLE.sub(site.wide, ragged) == ragged


def test_pages_of_the_docs_link_to_boards_as_on_a_forge():
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    text = "[all](../leaderboards/README.md)"
    assert site.on_page_markdown(text, page) == "[all](leaderboards/README.md)"


APART = """
import importlib.metadata, runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "anomalib", "timm", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
found, asked = importlib.metadata.entry_points, []
importlib.metadata.entry_points = lambda **words: asked.append(words.get("group")) or found(**words)
from adbench_tgan.report import page
page.bundle = str  # which takes seconds
made = runpy.run_path("docs/boards.py")
text = made["charts"](made["BOARDS"] / "mvtec-screw")
assert "adbench" not in asked, "the site is built where the package is not installed"
from adbench_tgan import cli
sys.argv = ["adbench", "report", "--board", "leaderboards/mvtec-screw", "--audit", "leaderboards/audit", "--out", sys.argv[1]]
cli.main()
assert "adbench" in asked
assert open(sys.argv[-1]).read() == text
"""


def test_charts_are_those_of_the_command_and_need_neither_torch_nor_an_installation(tmp_path):
    out = tmp_path / "page.html"
    ended = subprocess.run(
        [sys.executable, "-c", APART, str(out)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "A board holds scores and no models, so no image can be shown." in out.read_text()
    assert "The audits in audit are of other datasets than mvtec." in out.read_text()

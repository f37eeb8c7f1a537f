"""A board's pictures, and its page."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from make_board import CATEGORIES, board_of, grid, made

from adbench_tgan import boards
from adbench_tgan.boards import diagram, intervals
from adbench_tgan.boards.document import document
from adbench_tgan.boards.readme import readme


def test_long_presets_leave_the_diagram_its_width(tmp_path):
    from matplotlib.figure import Figure

    long = f"paper; {'; '.join(f'setting_{n}={n}' for n in range(6))}"
    results = [replace(r, job=replace(r.job, preset=long)) for r in grid()]
    axes = Figure(figsize=(8, 3), layout="constrained").subplots()
    diagram._diagram(board_of(tmp_path, results), "one-class", axes)
    axes.figure.draw_without_rendering()
    assert axes.get_position().width > 0.5
    assert [text.get_text() for text in axes.texts] == ["good (1.0)", "fair (2.0)", "poor (3.0)"]


def test_a_diagram_of_many_detectors_is_as_high_as_their_names_need(tmp_path, monkeypatch):
    def results(count, **changes):
        named = itertools.product(range(count), CATEGORIES, range(3))
        return [made(f"d{number:02}", *each, number / 10, **changes) for number, *each in named]

    def height(name, some):
        return diagram.figure(board_of(tmp_path / name, some)).bbox.height

    few, many = results(3, supervision="labelled"), results(16)
    assert (height("few", few), height("many", many)) == (300, 400)
    panels, draw = [], diagram._diagram
    monkeypatch.setattr(diagram, "_diagram", lambda *words: (panels.append(words[-1]), draw(*words)))
    unranked = [made("one_seed", name, 0, 1.0) for name in CATEGORIES]
    assert height("both", [*few, *many, *unranked]) == 700
    assert panels[0].get_gridspec().get_height_ratios() == [4, 3]
    assert [len(panel.texts) for panel in panels] == [16 + 1, 3 + 1]  # names, and what bars mean


@pytest.mark.parametrize(("pairs", "categories", "drawn"), [(3, 2, True), (2, 2, False), (3, 1, False)])
def test_a_diagram_takes_three_detectors_and_two_categories(pairs, categories, drawn):
    frame = pd.DataFrame({"supervision": ["one-class"] * pairs, "n_categories": categories})
    assert diagram.is_drawn(SimpleNamespace(pairs=frame)) == drawn


def test_intervals_are_drawn_in_the_order_of_the_table(tmp_path):
    failed = replace(made("broken", "ant", 0, 0.0), status="failed", metrics={}, scores=None)
    alone = made("alone", "ant", 0, 0.5)
    board = board_of(tmp_path, [*grid(("taught", "poor", "good")), alone, failed])
    figure = intervals.figure(board)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["good", "poor", "alone", "taught"]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["no pretrained weights", "labelled anomalies", "not ranked"]
    rows = board.leaderboard.set_index("detector")
    drawn = zip(axes.collections, axes.lines[1:], strict=True)
    shown = dict(zip(("good", "poor", "alone", "taught"), drawn, strict=True))
    for name, (bar, point) in shown.items():
        ((low, place), (high, _)) = bar.get_segments()[0]
        assert (low, high) == tuple(rows.loc[name, ["auroc_ci_low", "auroc_ci_high"]])
        assert (point.get_xdata()[0], point.get_ydata()[0]) == (rows.loc[name, "auroc_mean"], place)
        assert (point.get_markerfacecolor() == "white") == (name == "alone")
    assert [bar.get_segments()[0][0][1] for bar, _ in shown.values()] == [0, 1, 2, 4]  # kinds stand apart
    right = axes.child_axes[0].get_yticklabels()
    assert [text.get_text() for text in right] == [f"{rows.loc[name, 'auroc_mean']:.3f}" for name in shown]


def test_intervals_with_pretrained_weights_have_a_colour_of_their_own(tmp_path):
    learned = [made("learned", name, 0, 0.5, pretrained="resnet") for name in CATEGORIES]
    figure = intervals.figure(board_of(tmp_path, [*grid(("good",)), *learned]))
    colours = [point.get_color() for point in figure.axes[0].lines[1:]]
    assert colours == [intervals.SCRATCH, intervals.PRETRAINED]
    assert figure.legends[0].get_texts()[1].get_text() == "pretrained weights"


def test_a_board_without_an_auroc_has_no_picture_of_intervals(tmp_path):
    failed = replace(made("broken", "ant", 0, 0.0), status="failed", metrics={}, scores=None)
    assert boards.publish(board_of(tmp_path / "runs", [failed]), tmp_path)
    assert not (tmp_path / "toy/intervals.png").exists()
    assert "intervals.png" not in (tmp_path / "toy/README.md").read_text()
    assert boards.verify(tmp_path / "toy") == []


@pytest.mark.parametrize(("rows", "drawn"), [(0, False), (1, True), (200, True), (201, False)])
def test_intervals_are_drawn_of_as_many_rows_as_can_be_seen(rows, drawn):
    board = SimpleNamespace(leaderboard=pd.DataFrame({"auroc_mean": [0.5] * rows + [math.nan]}))
    assert intervals.is_drawn(board) == drawn


def test_a_page_says_each_remark_once(tmp_path):
    board = board_of(tmp_path, [*grid(), *(made(name, "ant", 0, 0.5) for name in ("alone", "single"))])
    page = readme(board, document(board, {}))
    lines = [line.split(" | ") for line in page.partition("## AUROC")[0].splitlines() if line.startswith("|")]
    notes = {line[1]: line[lines[0].index("notes")] for line in lines[2:]}
    assert [notes[name] for name in ("good", "alone", "single")] == ["", "1", "1"]
    (remark,) = set(board.leaderboard["remark"]) - {""}
    assert page.count(remark) == page.count(f"\n1. {remark}\n") == 1

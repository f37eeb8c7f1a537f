"""The numbers of a page's charts and tables, against ones worked out by hand, and what of them each chart draws."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from make_runs import LABELS, made, make_runs
from sklearn.metrics import average_precision_score

from adbench_tgan.errors import AdbenchError
from adbench_tgan.registry import Registry
from adbench_tgan.report import audited, charts, curves, examples, provenance, tables
from adbench_tgan.report.gallery import CASES, EACH, models, without_models
from adbench_tgan.report.material import from_board, from_store

SCORES, ANOMALIES = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    results = [made("one", seed=1), made("one", seed=2, shift=3.0), made("two", shift=2.0)]
    return from_store(make_runs(tmp_path_factory.mktemp("runs"), *results), Registry.discover())


@pytest.fixture(scope="module")
def records(material):
    return list(curves.curve_records(material))


def encoded(spec, number=0):
    """Of a chart, or of one of its layers, the field or the constant behind each channel."""
    layer = spec["layer"][number] if "layer" in spec else spec
    found = layer["encoding"].items()
    return {name: each.get("field", each.get("datum")) for name, each in found if isinstance(each, dict)}


# --- curves ------------------------------------------------------------------------------------------------------


def test_precision_and_recall_are_those_of_each_threshold_from_the_highest():
    recall, precision = curves.precision_recall(SCORES, ANOMALIES)
    assert (recall, precision) == ([0.5, 0.5, 1.0, 1.0], [1.0, 0.5, 0.6667, 0.5])
    draw = np.random.default_rng(0)
    labels = draw.random(20_000) < 0.3
    scores = draw.normal(size=20_000) + labels
    recall, precision = curves.precision_recall(scores, labels)
    area = np.dot(np.diff(recall, prepend=0), precision)
    assert area == pytest.approx(average_precision_score(labels, scores), abs=0.005)


def test_bars_are_shares_of_the_images_of_their_own_kind():
    found = curves.histogram(SCORES, ANOMALIES)
    edges = np.array(found["edges"])
    for name, scores in (("normal", [0.1, 0.4]), ("abnormal", [0.35, 0.8])):
        bars = np.flatnonzero(found[name])
        assert [found[name][bar] for bar in bars] == [0.5, 0.5]
        np.testing.assert_allclose(edges[bars], scores, atol=2 * (edges[1] - edges[0]))
    half = curves.histogram(np.arange(1000.0), np.zeros(1000, bool))
    assert (half["edges"][0], half["edges"][-1]) == pytest.approx((5, 994), abs=0.1)


def test_each_record_is_of_its_own_jobs_scores_and_threshold(material, records):
    assert [(each["entry"], each["category"]) for each in records] == [("one", "a"), ("two", "a")]
    for record, result in zip(records, (made("one", seed=1), made("two", shift=2.0)), strict=True):
        scores = result.scores["score"].to_numpy("float64")
        assert record["threshold"] == result.threshold
        assert (record["false"], record["true"]) == curves.roc(scores, LABELS == 1)
        assert (record["recall"], record["precision"]) == curves.precision_recall(scores, LABELS == 1)
        assert record["histogram"] == curves.histogram(scores, LABELS == 1)


def test_a_published_board_keeps_the_thresholds_of_its_jobs():
    material = from_board(Path(__file__).parent.parent / "leaderboards/mvtec-screw")
    good = material.results[material.results["status"] == "ok"]
    assert set(material.thresholds) == set(good["key"])
    assert all(np.isfinite(value) for value in material.thresholds.values())


def test_many_epochs_are_thinned_evenly_and_the_last_one_is_kept(tmp_path):
    losses = tuple({"loss": float(number)} for number in range(1, 1001))
    runs = make_runs(tmp_path, made("one", losses=losses))
    (record,) = curves.loss_records(from_store(runs, Registry.discover()))
    assert (record["epoch"][0], record["epoch"][-1], len(record["epoch"])) == (1, 1000, curves.POINTS)
    assert max(np.diff(record["epoch"])) <= 6
    assert record["value"] == [float(number) for number in record["epoch"]]


def test_of_a_long_audit_the_last_epoch_and_the_best_so_far_are_drawn():
    count = 2 * curves.POINTS + 1
    rising, once = [n / count for n in range(count)], [0.9] + [0.5] * (count - 1)
    audit = {"audit": "x", "clean": rising, "batch_statistics": [0.7] * count, "class_sorted": once}
    found = {record["scored"]: record for record in audited.curve_records([audit])}
    for record in found.values():
        assert record["epoch"][-1] == count
        assert set(np.diff(record["epoch"])) == {3}
        assert record["epoch"][0] <= 3
        assert curves.POINTS / 2 < len(record["epoch"]) <= curves.POINTS
    clean, batch, pure, best = found.values()
    assert clean["auroc"] == [round(rising[epoch - 1], 4) for epoch in clean["epoch"]]
    assert [set(each["auroc"]) for each in (batch, pure, best)] == [{0.7}, {0.5}, {0.9}]
    assert list(found) == [
        "clean: eval mode",
        "+ batch statistics, shuffled",
        "+ sorted by class",
        "+ best epoch so far",
    ]


# --- charts ------------------------------------------------------------------------------------------------------


def test_an_entry_has_one_colour_in_all_charts():
    board = pd.DataFrame(
        {
            "entry": ["a", "b", "c"],
            "supervision": "one-class",
            "auroc_mean": [0.9, 0.8, 0.7],
            "auroc_ci_low": 0.6,
            "auroc_ci_high": 0.95,
            "rank": [1.0, None, 3.0],
            "n_seeds": 3,
            "latency_ms_p50": 1.0,
            "images_per_second": 1.0,
        }
    )
    entries = list(board["entry"])
    for chart in (charts.intervals, charts.pareto):
        point = chart(board[1:], entries)["layer"][1]["encoding"]["color"]["scale"]
        assert dict(zip(point["domain"], point["range"], strict=True)) == {
            "b": charts.COLOURS[1],
            "c": charts.COLOURS[2],
        }
        fill = chart(board, entries)["layer"][1]["encoding"]["fillOpacity"]
        assert (fill["condition"], fill["value"]) == ([{"test": "datum.rank === null", "value": 0}], 1)


def test_bars_of_intervals_go_from_their_low_to_their_high_end_around_the_mean(material):
    spec = charts.intervals(material.leaderboard, material.entries)
    bars, points, chance = (encoded(spec, number) for number in range(3))
    assert (bars["x"], bars["x2"], points["x"], chance["x"]) == (
        "auroc_ci_low",
        "auroc_ci_high",
        "auroc_mean",
        0.5,
    )


def test_roc_and_precision_recall_draw_what_their_axes_say(records):
    roc = charts.roc(records, ["one", "two"])
    lines, chance = encoded(roc), encoded(roc, 1)
    assert (lines["x"], lines["y"], lines["order"]) == ("false", "true", "false")
    assert (chance["x"], chance["y"], chance["x2"], chance["y2"]) == (0, 0, 1, 1)
    assert roc["layer"][0]["mark"]["interpolate"] == "linear"
    found = charts.precision_recall(records, ["one", "two"])
    assert (encoded(found)["x"], encoded(found)["y"], encoded(found)["order"]) == (
        "recall",
        "precision",
        "recall",
    )
    assert found["mark"]["interpolate"] == "step-before"  # as average precision counts


def test_histograms_draw_each_kind_in_its_colour_and_the_threshold_where_it_is(records):
    spec = charts.histograms(records)
    bars = encoded(spec)
    assert (bars["x"], bars["x2"], bars["y"], bars["color"]) == ("from", "to", "share", "images")
    scale = spec["layer"][0]["encoding"]["color"]["scale"]
    assert scale == {"domain": ["normal", "abnormal"], "range": [charts.NORMAL, charts.ABNORMAL]}
    first, drawn = records[0]["histogram"], spec["layer"][0]["data"]["values"]
    for line, kind in zip(drawn[:2], ("normal", "abnormal"), strict=True):
        assert (line["images"], line["share"]) == (kind, first[kind])
        assert (line["from"], line["to"]) == (first["edges"][:-1], first["edges"][1:])
    assert encoded(spec, 1)["x"] == "at"


def test_what_ties_in_one_of_both_is_beaten_by_the_other_and_equals_beat_nobody():
    def best(*lines):
        board = pd.DataFrame(lines, columns=["entry", "auroc_mean", "latency_ms_p50"])
        board = board.assign(supervision="one-class", rank=1, images_per_second=1.0)
        values = charts.pareto(board, list(board["entry"]))["data"]["values"]
        return [line["entry"] for line in values if line["best"]]

    assert best(("a", 0.9, 1.0), ("b", 0.9, 2.0)) == ["a"]
    assert best(("a", 0.9, 1.0), ("b", 0.8, 1.0)) == ["a"]
    assert best(("a", 0.9, 1.0), ("b", 0.9, 1.0)) == ["a", "b"]


@pytest.mark.parametrize(("chart", "layer", "channel"), [(charts.intervals, 0, "x"), (charts.pareto, 1, "y")])
def test_an_axis_of_one_auroc_has_its_decimals(material, chart, layer, channel):
    axis = chart(material.leaderboard[:1], material.entries)["layer"][layer]["encoding"][channel]["axis"]
    assert axis["labelExpr"] == f"span(domain('{channel}')) ? datum.label : format(datum.value, '.3~f')"


def test_each_kind_of_supervision_and_each_way_of_an_audit_has_its_own_sign(material):
    board = material.leaderboard.assign(supervision=["one-class", "labelled"])
    shape = charts.intervals(board, list(board["entry"]))["layer"][1]["encoding"]["shape"]["scale"]
    assert dict(zip(shape["domain"], shape["range"], strict=True)) == {
        "one-class": "circle",
        "labelled": "diamond",
    }


def test_what_was_not_measured_is_no_zero(material):
    board = material.leaderboard.copy()
    board.loc[0, "auroc_ci_low"] = np.nan
    values = charts.intervals(board, list(board["entry"]))["data"]["values"]
    assert values[0]["auroc_ci_low"] is None


# --- tables ------------------------------------------------------------------------------------------------------


def test_heat_is_the_mean_over_seeds_and_its_distance_from_chance(material):
    aurocs = [made("one", seed=1).metrics["auroc"], made("one", seed=2, shift=3.0).metrics["auroc"]]
    (cell,) = tables.heat_table(material)["one"]
    assert float(cell.value) == pytest.approx(np.mean(aurocs))
    assert cell.text == f"{np.mean(aurocs):.3f}"
    for auroc, strength, below in ((0.5, 0, False), (0.25, 0.5, True), (1.0, 1.0, False), (0.0, 1.0, True)):
        heat = tables._heat(auroc)
        assert (heat.strength, heat.below_chance) == (strength, below)


def test_an_interval_is_written_from_low_to_high_and_pretrained_in_words():
    cells = tables._interval(pd.Series({"auroc_ci_low": 0.25, "auroc_ci_high": 0.75, "auroc_mean": 0.5}))
    assert (cells.text, cells.value) == ("0.250 to 0.750", "0.25")
    assert [tables._word(each) for each in (False, "False", "resnet50")] == ["no", "no", "resnet50"]


def test_the_row_of_an_audit_is_of_last_epochs_but_for_the_best_one():
    curves_ = {"clean": [0.9, 0.6], "batch_statistics": [0.2, 0.7], "class_sorted": [0.95, 0.8]}
    (row,) = tables.audit_rows([{"audit": "x", **curves_}])
    assert list(row.values()) == ["x", "2", "0.600", "0.700", "0.800", "0.950", "+0.350"]


# --- examples ----------------------------------------------------------------------------------------------------


class Brightness:
    """Scores by brightness; its map is an image's first channel."""

    device, has_maps = "cpu", True
    reconstruct = examples.Detector.reconstruct

    def score(self, images):
        return images.float().mean((1, 2, 3))

    def anomaly_map(self, images):
        return images[:, 0].float()


def test_each_example_is_the_image_that_its_score_and_label_are_of():
    names = [f"test-{number:03}" for number in range(100)]
    scores = pd.DataFrame({"sample_id": names, "label": LABELS, "score": np.arange(100.0)})
    asked = []

    def images(indices, size):
        asked.extend(indices)
        shades = torch.tensor([index - 500 for index in indices], dtype=torch.uint8)
        return shades[:, None, None, None].expand(-1, 1, size, size)

    samples = SimpleNamespace(images=images)
    tasks = SimpleNamespace(cut=lambda category: (samples, SimpleNamespace(test=np.arange(500, 600))))
    job = SimpleNamespace(category="a", precision="fp32")
    result = SimpleNamespace(job=job, shape=(1, 8, 8))
    found = examples.gallery("one", Brightness(), result, scores, tasks)
    assert found.note == ""  # scored again, each gives the score that is stored for it
    rows = [int(each.sample_id.removeprefix("test-")) for each in found.examples]
    assert asked == [500 + row for row in rows]
    assert [each.case for each in found.examples] == [case for case in CASES for _ in range(EACH)]
    for each, row in zip(found.examples, rows, strict=True):
        assert (each.score, each.label) == (float(row), "anomaly" if LABELS[row] else "normal")
    assert rows[3 * EACH :] != list(range(EACH))
    whole = images([500 + row for row in rows], 8)
    maps = examples.coloured(Brightness().anomaly_map(whole))
    for each, image, heat in zip(found.examples, whole, maps, strict=True):
        shown = {picture.title: picture.uri for picture in each.pictures}
        assert shown == {"image": examples.encode(image), "map": examples.encode(heat)}


def test_no_examples_are_drawn_of_images_that_are_not_those_that_were_scored(material, tmp_path, monkeypatch):
    result = made("one")
    monkeypatch.setattr(examples, "load_detector", lambda *_: (None, result))
    tasks = SimpleNamespace(fingerprint=lambda category: "f" * 64, root="data")
    with pytest.raises(AdbenchError, match="the images of 'a' in data are not those that were scored"):
        examples.gallery_of("one", tmp_path, material, tasks, Registry.discover(), "cpu")


def test_machines_are_those_on_which_jobs_ended_well(tmp_path):
    lost = made("bad", status="failed", device="a GPU", machine={"cpu": "another"})
    found = from_store(make_runs(tmp_path, made("one"), lost), Registry.discover())
    assert [each["device"] for each in found.machines] == ["cpu"]


def test_maps_are_dark_where_lowest_and_light_where_highest_of_all_maps():
    maps = torch.tensor([[[10.0, 20.0]], [[20.0, 30.0]]])
    low, middle, same, high = examples.coloured(maps).permute(0, 2, 3, 1).reshape(4, 3).int().sum(1).tolist()
    assert low < middle == same < high
    assert (low, high) == (68 + 1 + 84, 253 + 231 + 37)  # the ends of viridis


def test_each_heading_stands_over_the_numbers_of_its_column(material):
    board = material.leaderboard[:1].copy()
    numbers = {
        "rank": (1, "1"),
        "auroc_mean": (0.25, "0.250"),
        "auroc_seed_std": (0.125, "0.125"),
        "average_precision_mean": (0.5, "0.500"),
        "pixel_auroc_mean": (0.75, "0.750"),
        "aupro_mean": (0.875, "0.875"),
        "n_categories": (3, "3"),
        "n_seeds": (4, "4"),
        "n_failed": (5, "5"),
        "fit_seconds": (1234.5, "1,234.5"),
        "latency_ms_p50": (7.25, "7.25"),
        "images_per_second": (800.0, "800"),
        "peak_memory_mb": (9000.0, "9,000"),
        "parameters": (10000000, "10,000,000"),
        "published_auroc": (0.625, "0.625"),
        "as_published_auroc": (0.375, "0.375"),
    }
    for name, (value, _) in numbers.items():
        board[name] = value
    columns = tables.leaderboard_columns(board)
    (row,) = tables.leaderboard_rows(board, columns)
    shown = dict(zip([column.title for column in columns], row.cells, strict=True))
    titles = (
        "rank,AUROC,± seeds,AP,pixel AUROC,AUPRO,categories,seeds,failed,fit s,ms / image,images / s,peak MiB,"
        "parameters,published,as published"
    ).split(",")
    for title, (value, text) in zip(titles, numbers.values(), strict=True):
        assert (shown[title].text, float(shown[title].value)) == (text, value)


def test_first_press_puts_the_best_on_top_in_every_column():
    least = {column.title for column in tables.COLUMNS if column.numeric and column.first == "ascending"}
    assert least == {"rank", "± seeds", "fit s", "ms / image", "peak MiB"}
    words = {column.title for column in tables.COLUMNS if not column.numeric}
    assert words == {"detector", "supervision", "pretrained", "preset"}


def test_what_is_said_of_jobs_stands_under_its_heading_and_notes_too(tmp_path, registry):
    results = [made("one", seed=3, notes=("fell back",)), made("bad", "b", status="failed")]
    material = from_store(make_runs(tmp_path, *results), registry)
    told = provenance.remarks(material.results)
    assert sorted(map(tuple, map(dict.values, told))) == [
        ("bad", "b", "0", "failed", "RuntimeError: boom"),
        ("one", "a", "3", "ok", "note: fell back"),
    ]
    assert list(told[0]) == ["detector", "category", "seed", "status", "reason"]


def test_a_threshold_of_nought_is_drawn(tmp_path, registry):
    material = from_store(make_runs(tmp_path, made("one", threshold=0.0)), registry)
    (mark,) = charts.histograms(list(curves.curve_records(material)))["layer"][1]["data"]["values"]
    assert (mark["threshold"], mark["at"], mark["note"]) == (0.0, 0.0, "on the axis")


def test_more_entries_than_colours_are_told_apart_by_dashes():
    entries = [f"e{n:02}" for n in range(2 * len(charts.COLOURS) + 1)]
    colours, dashes = (
        draw(entries, entries).to_dict()["scale"]["range"] for draw in (charts._colour, charts._dash)
    )
    signs = [(colour, tuple(dash)) for colour, dash in zip(colours, dashes, strict=True)]
    assert len(set(signs)) == len(entries)
    assert set(map(tuple, dashes[: len(charts.COLOURS)])) == {(1, 0)}


def test_scales_are_as_their_titles_say_and_the_line_of_chance_is_at_a_half(material):
    pareto = charts.pareto(material.leaderboard, material.entries)["layer"][1]["encoding"]
    assert pareto["x"]["scale"]["type"] == "log"
    losses = charts.losses(list(curves.loss_records(material)))["encoding"]["y"]["scale"]
    assert (losses["type"], losses["constant"]) == ("symlog", 0.1)
    audit = {"audit": "x", "clean": [0.5], "batch_statistics": [0.6], "class_sorted": [0.7]}
    spec = charts.audits(audited.curve_records([audit]))
    assert spec["layer"][1]["encoding"]["y"]["datum"] == 0.5
    scale = spec["layer"][0]["encoding"]["color"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True)) == charts.AUDIT_COLOURS


def test_equal_scores_give_a_bar_of_their_own_and_not_none():
    found = curves.histogram(np.full(10, 3.0), np.arange(10) < 4)
    assert max(found["normal"]) == max(found["abnormal"]) == 1.0
    assert found["edges"][0] < found["edges"][-1]
    found = curves.histogram(np.array([0.0] * 998 + [1.0, 2.0]), np.arange(1000) >= 998)
    assert (found["normal"][0], found["edges"][-1]) == (1.0, 2.0)
    assert [share for share in found["abnormal"] if share] == [0.5, 0.5]


def test_models_are_of_the_category_asked_for_and_no_more_than_so_many(tmp_path, registry, monkeypatch):
    material = from_store(make_runs(tmp_path, made("one", "a"), made("one", "b"), made("two", "b")), registry)
    for folder in material.folders.values():
        (folder / "model.safetensors").touch()
    first = material.first_seeds()
    where = {pair: material.folders[key] for pair, key in first.items()}
    assert models(material, None) == {"one": where["one", "a"], "two": where["two", "b"]}
    assert models(material, "b") == {"one": where["one", "b"], "two": where["two", "b"]}
    monkeypatch.setattr("adbench_tgan.report.gallery.DETECTORS", 1)
    assert list(models(material, None)) == ["one"]
    assert without_models(material, "b").endswith(
        "no model of its lowest seed is saved for b; run again with --save-models."
    )


def test_bars_of_scores_close_to_each_other_are_apart():
    scores = np.linspace(0.69314, 0.69316, 100)
    edges = curves.histogram(scores, np.arange(100) > 60)["edges"]
    assert np.diff(edges).min() > 0


@pytest.mark.parametrize(
    "scores", [np.full(9, 1e17), np.array([1.0] * 8 + [1 - 1.2e-16]), np.array([-1e308, 1e308])]
)
def test_scores_of_any_size_have_bars(scores):
    assert len(curves.histogram(scores, np.arange(len(scores)) > 0)["edges"]) == curves.BINS + 1


def test_a_passport_has_the_fingerprint_of_the_images_though_a_job_could_not_read_them(tmp_path, registry):
    lost = made("bad", status="failed", split_fingerprint="")
    (line,) = provenance.passport(from_store(make_runs(tmp_path, lost, made("one")), registry))
    assert line["fingerprint"] == made("one").job.split_fingerprint


def test_losses_none_of_which_is_finite_cost_the_page_nothing(tmp_path, registry):
    results = [made("one", losses=({"loss": float("nan"), "other": 1.0},))]
    found = list(curves.loss_records(from_store(make_runs(tmp_path, *results), registry)))
    assert [each["loss"] for each in found] == ["other"]

"""Scores for new images from a saved model, through the command line."""

import errno
import hashlib
import json
import re
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from make_data import make_mvtec
from make_runs import made, make_runs
from PIL import Image

from adbench_tgan import DetectorConfig
from adbench_tgan.errors import AdbenchError, DataError
from adbench_tgan.predict import Prediction, load_detector, meaning_of, predict, read_images, rebuild
from adbench_tgan.registry import Registry
from adbench_tgan.results import ResultStore


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_mvtec(tmp_path_factory.mktemp("data"))


@pytest.fixture
def job(adbench, data, tmp_path):
    """The folder of a finished job of a detector with maps and reconstructions."""

    def run(detector, *more):
        out = tmp_path / "out"
        ended = adbench(
            "run", "--detectors", detector, "--data", "mvtec", "--data-root", data, "--out", out, *more
        )
        assert ended.status == 0, ended.err
        return next(out.glob(f"mvtec/official/{detector}/*"))

    return run


def test_a_folder_in_place_of_an_image_is_not_to_be_removed(tmp_path):
    with pytest.raises(AdbenchError, match=r"is a folder; name image files, such as .*/\*\.png$"):
        read_images([tmp_path], (3, 8, 8))


def test_images_come_in_the_order_in_which_they_are_named_also_those_named_twice(data):
    paths = [data / f"screw/test/{name}.png" for name in ("dent/001", "good/000", "dent/001", "scratch/000")]
    images = read_images(paths, (3, 8, 8))
    assert all(
        torch.equal(read_images([path], (3, 8, 8))[0], image)
        for path, image in zip(paths, images, strict=True)
    )
    with pytest.raises(DataError, match=r"none\.png cannot be read"):
        read_images([*paths, data / "none.png"], (3, 8, 8))


@pytest.mark.parametrize(
    ("detector", "precision"), [("pca", "fp32"), ("ganomaly", "fp32"), ("ganomaly", "bf16")]
)
def test_a_saved_model_scores_as_the_run_did(detector, precision, adbench, job, data):
    folder = job(detector, "--save-models", "--preset", "quick", "--precision", precision)
    modes = {(folder / name).stat().st_mode for name in ("model.safetensors", "result.json")}
    assert len(modes) == 1  # whoever may read a job may use its model
    stored = pd.read_parquet(folder / "scores.parquet").set_index("sample_id")["score"]
    paths = [data / name for name in stored.index]
    ended = adbench("predict", folder, *paths, "--json")
    assert ended.status == 0, ended.err
    records = json.loads(ended.out)
    np.testing.assert_allclose([r["score"] for r in records], stored, rtol=1e-5)
    threshold = json.loads((folder / "result.json").read_text())["threshold"]
    above = [r["anomalous"] for r in records]
    labels = pd.read_parquet(folder / "scores.parquet")["label"]
    shares = [
        f"{np.mean([a for a, b in zip(above, labels, strict=True) if b == label]):.0%}" for label in (0, 1)
    ]
    told = "note: {} of the normal and {} of the abnormal test images of this job score above the threshold"
    assert ended.err.splitlines()[-1] == told.format(*shares)
    assert [r["threshold"] for r in records] == [threshold] * len(records)
    assert [r["anomalous"] for r in records] == [bool(r["score"] > threshold) for r in records]


def test_without_a_threshold_there_is_no_verdict(adbench, job, data, monkeypatch):
    folder = job("mean_image", "--save-models")

    def without(*words):
        detector, result = load_detector(*words)
        return detector, replace(result, threshold=None)

    monkeypatch.setattr("adbench_tgan.predict.load_detector", without)
    words = ("predict", folder, data / "screw/test/good/000.png")
    (record,) = json.loads(adbench(*words, "--json").out, parse_constant=pytest.fail)
    assert (record["threshold"], record["anomalous"]) == (None, None)
    ended = adbench(*words)
    assert "anomalous" not in ended.out
    assert "this job has no threshold" in ended.err
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda axes, text, **more: titles.append(text))
    assert adbench(*words, "--heatmap", "map.png").status == 0
    assert re.fullmatch(r"map: [\d.]+", titles[-1])


def test_a_model_is_built_within_bounds_before_a_gpu_reserves_what_it_likes(job, monkeypatch):
    folder = job("mean_image", "--save-models")
    built = []

    def rebuild(kind, result, state, device):
        built.append((device, resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY))
        return device

    monkeypatch.setattr("adbench_tgan.predict.rebuild", rebuild)
    assert load_detector(folder, Registry.discover(), "cuda:1")[0] == "cuda:1"
    assert built == [("cpu", True), ("cuda:1", False)]


def test_a_heat_map_is_a_picture_with_a_row_an_image(adbench, job, data, tmp_path):
    folder = job("mean_image", "--save-models")
    picture = tmp_path / "map.png"
    images = [data / "screw/test/good/000.png", data / "screw/test/dent/000.png"]
    ended = adbench("predict", folder, *images, "--heatmap", picture)
    assert ended.status == 0, ended.err
    assert f"wrote {picture}" in ended.out
    with Image.open(picture) as image:
        width, height = image.size
    assert width == pytest.approx(990, abs=2)  # image, reconstruction and map
    assert height == pytest.approx(660, abs=2)


def test_a_heat_map_of_many_images_is_refused_and_their_scores_are_those_of_any_number(
    adbench, job, data, monkeypatch
):
    folder, image = job("mean_image", "--save-models"), data / "screw/test/good/000.png"
    ended = adbench("predict", folder, *[image] * 25, "--heatmap", "map.png")
    assert ended.error == "--heatmap draws 24 images at most, and 25 are given; name fewer"
    monkeypatch.setattr("adbench_tgan.predict.BATCH", 2)
    images = [image, data / "screw/test/dent/000.png"]
    few, many = (
        [record["score"] for record in json.loads(adbench("predict", folder, *given, "--json").out)]
        for given in (images, [*images, *images, image])
    )
    assert many == [*few, *few, few[0]]


def test_a_heat_map_is_refused_before_the_scores_and_its_folder_made(adbench, job, data, tmp_path):
    folder, image = job("mean_image", "--save-models"), data / "screw/test/good/000.png"
    ended = adbench("predict", folder, image, "--heatmap", image / "map.png")
    assert (ended.status, ended.out) == (2, "")
    assert ended.error == f"cannot write to {image}: Not a directory; give --heatmap another folder"
    ended = adbench("predict", folder, image, "--heatmap", tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert ended.error == f"--heatmap {tmp_path} is a folder; name a file, such as {tmp_path / 'map.png'}"
    before = image.read_bytes()
    for same in (image, image.parent / "../good/000.png"):
        ended = adbench("predict", folder, image, "--heatmap", same)
        assert (ended.status, ended.out, image.read_bytes()) == (2, "", before)
        assert ended.error == f"--heatmap {same} is one of the images to score; name another file"
    assert adbench("predict", folder, image, "--heatmap", tmp_path / "new" / "map.png").status == 0
    assert (tmp_path / "new" / "map.png").is_file()


def test_a_heat_map_that_cannot_be_written_leaves_the_picture_that_was_there(
    adbench, job, data, tmp_path, monkeypatch
):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder, picture = job("mean_image", "--save-models"), tmp_path / "map.png"
    picture.write_bytes(b"older")
    monkeypatch.setattr("adbench_tgan.store.places.os.fsync", full)
    ended = adbench("predict", folder, data / "screw/test/good/000.png", "--heatmap", picture)
    remedy = "free some space, then run the same command again"
    assert (ended.status, ended.error) == (1, f"cannot write {picture}: No space left on device; {remedy}")
    assert picture.read_bytes() == b"older"
    assert [path.name for path in tmp_path.glob("*.png")] == ["map.png"]


def test_a_model_of_grey_images_takes_colour_files(adbench, tmp_path):
    ended = adbench(
        "run", "--detectors", "mean_image", "--categories", "0", "--save-models", "--out", tmp_path / "out"
    )
    assert ended.status == 0, ended.err
    folder = next((tmp_path / "out").glob("digits/*/mean_image/*"))
    grey, colour = tmp_path / "grey.png", tmp_path / "colour.png"
    pixels = np.full((8, 8), 100, np.uint8)
    Image.fromarray(pixels).save(grey)
    Image.fromarray(np.stack([pixels] * 3, axis=2)).save(colour)
    one, two = json.loads(adbench("predict", folder, grey, colour, "--json").out)
    assert one["score"] == two["score"]
    Image.fromarray(np.tile(np.uint8([210, 100, 30]), (8, 8, 1))).save(colour)
    weighed = np.asarray(Image.open(colour).convert("L"))[0, 0].item()
    assert [each.unique().tolist() for each in read_images([grey, colour], (1, 8, 8))] == [[100], [weighed]]


def test_each_thing_that_is_missing_is_named_with_its_remedy(adbench, job, data, tmp_path):
    image = data / "screw/test/good/000.png"
    plain = job("random")
    assert adbench("predict", tmp_path, image).error == (
        f"{tmp_path} holds no finished job; name a folder whose result.json can be read and has the status ok"
    )
    assert adbench("predict", plain, image).error == (
        f"{plain} holds no model; run the job again with --save-models"
    )
    saved = job("random", "--save-models")
    assert saved == plain  # the same job, run again for its model
    assert adbench("predict", saved, image).status == 0
    drawn = adbench("predict", saved, image, "--heatmap", tmp_path / "x.png")
    assert (drawn.out, drawn.error) == ("", "this detector has no anomaly maps; leave out --heatmap")
    gone = adbench("predict", saved, tmp_path / "gone.png")
    assert "gone.png" in gone.error
    assert gone.status == 2


def test_a_model_that_its_detector_cannot_load_comes_with_a_remedy_that_lasts(job, monkeypatch):
    folder = job("mean_image", "--save-models")
    lasting = "if that does not help, adbench check mean_image says what the detector has to keep"
    for error in (AdbenchError("no"), AttributeError("no")):
        monkeypatch.setattr("adbench_tgan.predict.rebuild", Mock(side_effect=error))
        with pytest.raises(AdbenchError, match=lasting):
            load_detector(folder, Registry.discover(), "cpu")
    named = SimpleNamespace(detector="mean_image", precision="fp32")
    found, pixels = SimpleNamespace(job=named, shape=(1, 8, 8)), torch.ones(1, 1, 8, 8).byte()
    with pytest.raises(AdbenchError, match=r"gives no scores \(.*" + lasting):
        predict(SimpleNamespace(device="cpu"), found, ["a.png"], pixels)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda images: images / 255, "float32 (2, 3, 32, 32)"),
        (lambda images: images[:, :1], "uint8 (2, 1, 32, 32)"),
        (lambda images: images[..., :16, :16], "uint8 (2, 3, 16, 16)"),
        (lambda images: images[:1], "uint8 (1, 3, 32, 32)"),
        (lambda images: images[0], "uint8 (3, 32, 32)"),
        (lambda images: images.numpy(), "ndarray"),
    ],
)
def test_images_that_a_model_was_not_trained_on_get_no_verdict(job, data, wrong, named):
    detector, result = load_detector(str(job("mean_image", "--save-models")), Registry.discover(), "cpu")
    paths = [str(path) for path in sorted((data / "screw/test/good").glob("*.png"))[:2]]
    images = read_images(paths, result.shape)
    assert len(predict(detector, result, paths, images)) == 2
    wanted = "images must be a tensor, uint8 (2, 3, 32, 32), not "
    with pytest.raises(AdbenchError, match=re.escape(wanted + named)):
        predict(detector, result, paths, wrong(images))
    with pytest.raises(AdbenchError, match="name one or more files"):
        read_images([], result.shape)


def test_many_images_are_told_of_while_they_are_read_and_scored(adbench, job, data, monkeypatch):
    monkeypatch.setattr("adbench_tgan.terminal.pace.PAUSE", -1.0)
    monkeypatch.setattr("adbench_tgan.predict.BATCH", 2)
    paths = sorted((data / "screw/test/good").glob("*.png"))[:3]
    ended = adbench("predict", str(job("mean_image", "--save-models")), *map(str, paths), "--json")
    assert [each["image"] for each in json.loads(ended.out)] == [*map(str, paths)]
    told = [line for line in ended.err.splitlines() if "images" in line]
    assert told[:5] == [
        *(f"read: {count} of 3 images" for count in range(3)),
        *(f"scored: {count} of 2 batches of 2 images" for count in range(2)),
    ]


def test_the_documented_lines_score_new_images(adbench, job, data, capsys):
    folder = job("pca", "--save-models")
    page = (Path(__file__).parents[1] / "docs/running.md").read_text()
    lines = re.search(r"## What a saved model says.*?```python\n(.*?)```", page, re.S)[1]
    for stands, there in (
        ("runs/mvtec/official/pca/screw-seed0-0a1b2c3d", folder),
        ("new_images", data / "screw/test/good"),
    ):
        assert f'"{stands}"' in lines
        lines = lines.replace(stands, str(there))
    exec(lines, found := {})
    told = capsys.readouterr().out.splitlines()
    shown = json.loads(adbench("predict", folder, *found["paths"], "--json").out)
    assert told == [f"{each['image']} {each['score']} {each['anomalous']}" for each in shown]
    assert found["maps"].shape == (len(found["paths"]), *found["result"].shape[1:])


def test_a_job_that_was_edited_gives_no_verdict(adbench, job, data):
    folder = job("ganomaly", "--save-models", "--preset", "quick")
    image, path = data / "screw/test/good/000.png", folder / "result.json"
    told = json.loads(path.read_text())
    scores = pd.read_parquet(folder / "scores.parquet")

    def balanced_accuracy(threshold):
        right = (scores["score"] > threshold) == (scores["label"] == 1)
        return right.groupby(scores["label"]).mean().mean()

    known = told["metrics"]["balanced_accuracy"]
    another = next(each for each in scores["score"].tolist() if abs(balanced_accuracy(each) - known) > 0.01)
    another_method = told["job"] | {"config": told["job"]["config"] | {"score_norm": "l1"}}
    for edited, what in (
        ({"job": another_method}, "its result.json"),
        ({"threshold": another}, "its threshold"),
    ):
        path.write_text(json.dumps(told | edited))
        refused = adbench("predict", folder, image)
        assert (refused.out, refused.error) == (
            "",
            f"{folder}: {what} was edited; delete the folder and run again",
        )
    path.write_text(json.dumps(told))
    (folder / "scores.parquet").write_bytes(b"")
    assert "scores.parquet was changed after it was written" in adbench("predict", folder, image).error
    (folder / "scores.parquet").unlink()  # a model may be taken along without its scores
    assert adbench("predict", folder, image, "--json").err == ""


@pytest.mark.parametrize("damage", [b"", b"\x00" * 64, b"garbage" * 100])
def test_a_damaged_model_is_one_line(damage, adbench, job, data):
    folder = job("pca", "--save-models")
    (folder / "model.safetensors").write_bytes(damage)
    error = adbench("predict", folder, data / "screw/test/good/000.png").error
    assert "model.safetensors was changed after it was written" in error
    assert error.endswith("and run again")
    described = json.loads((folder / "result.json").read_text())
    described["files"]["model.safetensors"] = {
        "bytes": len(damage),
        "sha256": hashlib.sha256(damage).hexdigest(),
    }
    (folder / "result.json").write_text(json.dumps(described))
    error = adbench("predict", folder, data / "screw/test/good/000.png").error
    assert "model.safetensors cannot be read" in error
    assert error.endswith("run the job again with --save-models")


def test_the_model_of_another_job_is_refused(adbench, job, data):
    folder = job("pca", "--save-models", "--seeds", "0,1")
    other = next(each for each in folder.parent.iterdir() if each != folder)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    error = adbench("predict", folder, next(data.rglob("*.png"))).error
    assert "model.safetensors was changed after it was written" in error


def test_a_model_of_another_detector_version_or_shape_is_refused(adbench, job, data):
    folder = job("ganomaly", "--save-models", "--preset", "quick")
    image = data / "screw/test/good/000.png"
    path = Path(folder, "result.json")
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"job": whole["job"] | {"detector_version": "0"}}))
    installed = Registry.discover().find("detector", "ganomaly").version
    refused = adbench("predict", folder, image).error
    assert f"was made by version 0 of ganomaly, version {installed} is installed" in refused
    path.write_text(json.dumps(whole | {"shape": [1, 32, 32]}))
    assert "the saved model does not fit network 'generator'" in adbench("predict", folder, image).error


def test_a_score_at_the_threshold_is_not_above_it():
    verdicts = [
        Prediction(path=Path("a.png"), score=score, threshold=1.0).anomalous for score in (0.5, 1.0, 1.5)
    ]
    assert verdicts == [False, False, True]


def test_a_test_score_at_the_threshold_is_not_above_it(tmp_path):
    one = made("d")
    one = replace(one, threshold=float(one.scores["score"].max()))
    folder = ResultStore(make_runs(tmp_path, one)).folder(one.job)
    assert meaning_of(one, folder).startswith(
        "0% of the normal and 0% of the abnormal test images of this job score above the threshold"
    )


@pytest.mark.parametrize(
    ("size", "shape"), [(8, (2, 8, 8)), (8, (3, 8, 4)), (8, (3, 16, 16)), (9000, (3, 9000, 9000))], ids=str
)
def test_a_shape_that_the_settings_do_not_give_is_refused_before_anything_is_built(size, shape):
    kind = Registry.discover().detector("mean_image")
    result = made("mean_image", config={"image_size": size}, shape=shape)
    with pytest.raises(AdbenchError, match=f"is not that of image_size={size}$"):
        rebuild(kind, result, {}, "cpu")


def test_a_model_is_built_with_the_seed_of_its_job():
    class Kind:
        Config = DetectorConfig

        def __init__(self, config, *, device, seed):
            self.seed = seed

        def load_state(self, state, shape):
            return self

    result = made("d", seed=3, config={"image_size": 8}, shape=(3, 8, 8))
    assert rebuild(Kind, result, {}, "cpu").seed == 3


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_no_predictions(wrong, monkeypatch, tmp_path):
    monkeypatch.setattr("adbench_tgan.predict.scores_of", lambda *_: torch.tensor([1.0, wrong]))
    images = torch.zeros(2, 3, 8, 8).byte()
    with pytest.raises(AdbenchError, match="the saved model gives no scores"):
        predict(SimpleNamespace(device="cpu"), made("d", shape=(3, 8, 8)), [tmp_path] * 2, images)


def test_a_model_of_a_failed_job_or_of_another_distribution_is_refused(adbench, job, data):
    folder = job("mean_image", "--save-models")
    image, path = data / "screw/test/good/000.png", folder / "result.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"status": "failed", "error": "RuntimeError: boom"}))
    assert "holds no finished job" in adbench("predict", folder, image).error
    path.write_text(json.dumps(told | {"code": "glow-dist 1.0, 0a1b"}))
    refused = adbench("predict", folder, image).error
    assert (
        refused
        == f"{folder} was made with glow-dist 1.0, 0a1b, and other code is installed; install the former"
    )


def test_a_heat_map_has_the_verdicts_of_its_images_and_one_scale(adbench, job, data, monkeypatch):
    folder = job("mean_image", "--save-models")
    words = ("predict", folder, data / "screw/train/good/000.png", data / "screw/test/dent/000.png")
    records = json.loads(adbench(*words, "--json").out)
    assert [record["anomalous"] for record in records] == [False, True]
    from matplotlib.axes import Axes

    titles, scales, imshow = [], [], Axes.imshow

    def shown(axes, picture, **how):
        if how["cmap"] == "inferno":
            scales.append((how["vmin"], how["vmax"]))
        return imshow(axes, picture, **how)

    monkeypatch.setattr(Axes, "imshow", shown)
    monkeypatch.setattr(Axes, "set_title", lambda axes, text, **how: titles.append(text))
    assert adbench(*words, "--heatmap", "map.png").status == 0
    verdicts = [title.rpartition(", ")[2] for title in titles if title.startswith("map: ")]
    assert verdicts == ["normal", "anomalous"]
    assert len(scales) == 2
    assert len(set(scales)) == 1

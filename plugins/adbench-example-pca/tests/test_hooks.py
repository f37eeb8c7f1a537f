"""Each hook, through the command line as a user has it."""

import csv
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from adbench_tgan import hooks
from adbench_tgan.registry import Registry
from PIL import Image

from adbench_example_pca.executor import retry
from adbench_example_pca.fabric import COUNTS, Fabric
from adbench_example_pca.metric import tpr_at_fpr5

FINGERPRINT = "9346b5baef490b1498f87506ca1d93737f1484781edb4696b83632df9e05dd5e"


def adbench(*words, cwd, **variables):
    return subprocess.run(
        [sys.executable, "-m", "adbench_tgan", *map(str, words)],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a finished run that used every hook but the command."""
    place = tmp_path_factory.mktemp("run")
    words = "run --detectors pca_patches,random --data fabric --categories plain --protocol official-20"
    more = "--executor retry --save-models --no-timing"
    adbench(*words.split(), *more.split(), cwd=place, ADBENCH_EXAMPLE_LOG="log.txt")
    return place


def test_every_hook_is_shown():
    (plugin,) = [plugin for plugin in Registry.discover().plugins() if "example-pca" in plugin.distribution]
    assert plugin.status == "ok"
    assert set(plugin.hooks) == {name for name in vars(hooks) if name.startswith("adbench_")}


def test_the_detector_finds_the_defects(place):
    with open(place / "runs/results.csv", newline="") as file:
        rows = {row["detector"]: row for row in csv.DictReader(file)}
    assert [row["status"] for row in rows.values()] == ["ok", "ok"]
    assert float(rows["pca_patches"]["auroc"]) > 0.9
    assert float(rows["pca_patches"]["pixel_auroc"]) > 0.9
    assert rows["pca_patches"]["split_fingerprint"] == FINGERPRINT


def test_the_metric_is_in_each_result(place):
    found = [json.loads(path.read_text()) for path in place.glob("runs/**/result.json")]
    values = {result["job"]["detector"]: result["metrics"]["tpr_at_fpr5"] for result in found}
    assert values["random"] < 0.5 < values["pca_patches"]


def test_jobs_are_logged(place):
    lines = (place / "log.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["started", "ok", "started", "ok"]


def test_the_command_draws_what_was_learned(place):
    (folder,) = place.glob("runs/fabric/official-20/pca_patches/plain-*")
    assert "24 patches" in adbench("pca-basis", folder, "--out", "basis.png", cwd=place)
    assert Image.open(place / "basis.png").size == (24 * 9 * 8, 8 * 8)


def test_the_dataset_has_what_it_says():
    for category in Fabric().categories:
        samples = Fabric().samples(category)
        assert len(samples) == sum(COUNTS.values())
        masks = np.array([samples.read_mask(i).any() for i in range(len(samples))])
        assert masks.tolist() == [kind != "good" for kind in samples.classes]


def test_the_metric_on_scores_with_a_known_answer():
    labels = np.array([0] * 20 + [1] * 4)
    scores = np.array([*range(20), 18.5, 19.5, 3, 0], dtype=float)
    assert tpr_at_fpr5(scores, labels, 0.0) == 0.5  # one of 20 normals, 19, is above 18.5


def test_a_failed_job_is_run_once_more(monkeypatch):
    answers = iter(["failed", "ok", "ok", "failed", "failed"])
    calls = []

    def local(jobs):
        calls.extend(jobs)
        yield SimpleNamespace(status=next(answers))

    monkeypatch.setattr("adbench_example_pca.executor.local", local)
    assert [result.status for result in retry(["a", "b", "c"])] == ["ok", "ok", "failed"]
    assert calls == ["a", "a", "b", "c", "c"]

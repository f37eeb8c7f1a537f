"""A board of a part of the test images, from scores of all of them: what running the jobs under its protocol gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Ended
from make_board import made as of_grid
from make_plugin import installed, make_plugin
from test_events import Silent

from adbench_tgan import boards
from adbench_tgan.benchmark import benchmark
from adbench_tgan.boards.part import check_choice, check_images, check_origin, cut
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Request
from adbench_tgan.leaderboard import Rules
from adbench_tgan.registry import Registry
from adbench_tgan.results import ResultStore
from adbench_tgan.runner import Settings

Call = Callable[..., Ended]

OFFERS = """
    from adbench_tgan import DatasetSpec, DetectorInfo, ProtocolSpec, hookimpl
    from adbench_tgan.metrics import MetricSpec

    @hookimpl
    def adbench_datasets():
        yield DatasetSpec(
            name="specks", target="specks_parts:load", layout="classes", protocol="one-vs-rest", channels=1
        )

    @hookimpl
    def adbench_protocols():
        for name in ("otherwise", "fewer"):
            yield ProtocolSpec(name=name, version="2", target=f"specks_parts:{name}", layout="classes")

    @hookimpl
    def adbench_metrics():
        yield MetricSpec(name="above", target="specks_parts:above")

    @hookimpl
    def adbench_detectors():
        yield DetectorInfo(name="taught", target="specks_parts:Taught", supervision="labelled")
"""
PARTS = """
    from dataclasses import replace

    import numpy as np
    from adbench_tgan import Detector
    from adbench_tgan.data.protocols import one_vs_rest_1k
    from adbench_tgan.data.samples import ClassDataset, labelled_arrays

    def load(root, fetch):
        draw = np.random.default_rng(int((root / "seed").read_text()))
        parts = []
        for count in (200, 1200):
            labels = np.arange(count) % 10
            pixels = draw.integers(0, 100, (count, 1, 8, 8)) + 12 * labels[:, None, None, None]
            parts.append((pixels.astype(np.uint8), labels))
        names = tuple("abcdefghij")
        return ClassDataset(categories=names, images=labelled_arrays(names, *parts))

    def otherwise(samples, category):
        cut = one_vs_rest_1k(samples, category)
        return replace(cut, choose_anomalies=lambda: cut.on_offer[:7])

    def fewer(samples, category):
        cut = one_vs_rest_1k(samples, category)
        return replace(cut, normal=cut.normal[1:])

    def above(scores, labels, threshold):
        return (scores > threshold).mean()

    class Taught(Detector):
        def fit(self, train):
            self.centre = next(train.anomalies.batches(512, device=self.device)).float().mean()
            return self

        def score(self, images):
            return -(images.float().mean((1, 2, 3)) - self.centre).abs()
"""


@pytest.fixture(scope="module")
def specks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A plugin with 1,200 test images in ten classes; two folders of data, of one seed each."""
    root = tmp_path_factory.mktemp("specks")
    for number in ("1", "2"):
        (root / number).mkdir()
        (root / number / "seed").write_text(number)
    make_plugin(root / "site", "specks", OFFERS, files={"specks_parts": PARTS})
    with installed(root / "site"):
        yield root


@pytest.fixture(scope="module")
def runs(specks: Path) -> Path:
    """Where both protocols ran: ``whole`` and ``direct``."""
    registry, settings = Registry.discover(()), Settings(data_root=specks / "1", timing=True)
    for name, protocol in (("whole", "one-vs-rest"), ("direct", "one-vs-rest-1k")):
        request = Request(
            detectors=("mean_image", "pca", "taught"),
            overrides=["pca.components=16"],  # of what these images span
            dataset="specks",
            data_root=specks / "1",
            protocol=protocol,
            categories=("a", "c"),
        )
        outcome = benchmark(request, settings, registry, Silent(), specks / name)
        assert [result.error for result in outcome.results] == [""] * 6
    return specks


def part(root: Path, out: Path) -> list[object]:
    """The words of a command that makes a board of a part."""
    words = {"--part": "one-vs-rest-1k", "--data-root": root / "1", "--board": "small", "--out": out}
    return ["publish", *(word for option in words.items() for word in option)]


def made(
    root: Path, *folders: Path, to: str = "one-vs-rest-1k", data: str = "1", **choice: object
) -> boards.Board:
    """The board of a part, of folders of runs."""
    wanted = boards.Part(protocol=to, root=root / data)
    return boards.from_runs(
        folders, Registry.discover(()), part=wanted, choice=boards.Choice(**choice), rules=Rules()
    )


def same_scores(taken: boards.Board, direct: boards.Board) -> bool:
    """Whether two boards have the same jobs, and the same scores to the bit."""
    return [one.job for one in taken.measured] == [one.job for one in direct.measured] and all(
        table.equals(direct.scores[key]) for key, table in taken.scores.items()
    )


@pytest.fixture(scope="module")
def direct(runs: Path) -> boards.Board:
    """The board of the runs under one-vs-rest-1k."""
    return boards.from_runs([runs / "direct"], Registry.discover(()))


def test_scores_of_a_part_are_those_of_a_run_on_it(
    runs: Path, direct: boards.Board, tmp_path: Path, adbench: Call
) -> None:
    ended = adbench(*part(runs, tmp_path), "--runs", runs / "whole")
    assert ended.status == 0, ended.err
    taken = boards.read(tmp_path / "small")
    assert len(taken.measured) == 6
    assert same_scores(taken, direct)
    assert {len(table) for table in taken.scores.values()} == {1000}
    for one, other in zip(taken.measured, direct.measured, strict=True):
        assert one.job.key == other.job.key
        assert one.metrics == {"above": other.metrics["above"]}
        assert (one.threshold, one.parameters, one.shape) == (other.threshold, other.parameters, other.shape)
        assert one.anomalies_fingerprint == other.anomalies_fingerprint
        assert (one.of_categories, one.metrics_code) == (other.of_categories, other.metrics_code)
        assert other.timing
        assert one.timing == {}
    rebuilt = boards.tabulate(boards.basis(tmp_path / "small"))
    assert [one.metrics for one in rebuilt.measured] == [one.metrics for one in direct.measured]
    assert rebuilt.pairs.equals(direct.pairs)
    whole = ResultStore(runs / "whole").results()
    told = {
        f"note: scores of job {each.job.key} of one-vs-rest, of whose test images these are a part"
        for each in whole
    }
    assert set(taken.results["error"]) == told
    assert boards.verify(tmp_path / "small") == []
    assert boards.rerun(tmp_path / "small", [runs / "direct"]) == (6, [])
    commands = json.loads((tmp_path / "small/board.json").read_text())["commands"]
    assert "--protocol one-vs-rest-1k" in commands[0]


def test_part_of_a_board_beside_runs_of_the_part_itself(
    runs: Path, direct: boards.Board, tmp_path: Path, adbench: Call
) -> None:
    whole = ("publish", "--runs", runs / "whole", "--detectors", "pca,taught", "--board", "whole")
    assert adbench(*whole, "--note", "By hand.", "--out", tmp_path).status == 0
    folder = "specks/one-vs-rest-1k/mean_image"
    shutil.copytree(runs / "direct" / folder, tmp_path / "walks" / folder)
    words = [*part(runs, tmp_path), "--again", tmp_path / "whole", "--runs", tmp_path / "walks"]
    first = adbench(*words)
    assert first.status == 0, first.err
    assert "small is written: 6 jobs" in first.out
    assert "small has not changed: 6 jobs" in adbench(*words).out
    taken = boards.read(tmp_path / "small")
    assert same_scores(taken, direct)
    assert taken.facts.note == "This board has the jobs of whole, whose note says: By hand."
    assert {one.job.detector for one in taken.measured if one.notes} == {"pca", "taught"}
    assert boards.verify(tmp_path / "small") == []


def test_a_job_that_ran_on_the_part_stands_before_its_scores_of_the_whole(runs: Path) -> None:
    for folders in (("whole", "direct"), ("direct",)):
        taken = made(runs, *(runs / name for name in folders), detectors=["pca"])
        assert [one.notes for one in taken.measured] == [(), ()]


def test_failures_and_impure_scores_do_not_become_a_part(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "whole", tmp_path / "runs")
    store = ResultStore(tmp_path / "runs")
    pca, taught = (
        next(each for each in store.results() if (each.job.detector, each.job.category) == (name, "a"))
        for name in ("pca", "taught")
    )
    store.put(replace(taught, purity_delta=0.5, scores=store.scores(taught.job)))
    shutil.rmtree(store.folder(pca.job))
    store.put(replace(pca, status="failed", error="boom", metrics={}))
    said: list[str] = []
    wanted = boards.Part(protocol="one-vs-rest-1k", root=runs / "1")
    taken = boards.from_runs([store.root], Registry.discover(()), part=wanted, say=said.append)
    assert said[0].startswith(
        "left out: 2 jobs that failed, or whose scores may depend on their batch; to have them, run adbench run"
    )
    assert len(taken.measured) == 4


def altered(runs: Path, out: Path, **changes: object) -> Path:
    """The runs with one job of `pca` changed; what it scored by a function."""
    shutil.copytree(runs / "whole", out)
    store = ResultStore(out)
    one = next(each for each in store.results() if each.job.detector == "pca")
    scores = store.scores(one.job)
    store.put(replace(one, metrics={}, scores=changes.pop("scored", lambda table: table)(scores), **changes))
    return out


@pytest.mark.parametrize(
    "scored",
    [lambda table: table[table.index != 600], lambda table: table.assign(label=1 - table["label"])],
    ids=["an image is missing", "labels are others"],
)
def test_scores_of_other_images_or_labels_do_not_become_a_part(
    runs: Path, tmp_path: Path, scored: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    with pytest.raises(AdbenchError, match="its scores are not of the images that it was tested on; run it"):
        made(runs, altered(runs, tmp_path / "runs", scored=scored), detectors=["pca"])


def test_metrics_that_are_not_those_of_the_scores_do_not_become_a_part() -> None:
    one = replace(of_grid("good", "ant", 0, 1.0), metrics={"auroc": 0.99})
    source: Any = SimpleNamespace(scores=lambda job: one.scores)
    with pytest.raises(AdbenchError, match=r"seed 0: auroc is stored as 0\.99, its scores give"):
        cut(one, source, tasks(), Registry(_offers={}))


def test_a_job_without_a_threshold_has_none_under_a_part(runs: Path, tmp_path: Path) -> None:
    taken = made(runs, altered(runs, tmp_path / "runs", threshold=None), detectors=["pca"])
    (one,) = [each for each in taken.measured if each.threshold is None]
    assert "balanced_accuracy" not in one.metrics
    assert "auroc" in one.metrics


def test_a_jobs_notes_and_losses_stand_under_a_part_too(runs: Path, tmp_path: Path) -> None:
    folder = altered(runs, tmp_path / "runs", notes=("fell back",), losses=({"loss": 1.5},))
    taken = made(runs, folder, detectors=["pca"])
    (one,) = [each for each in taken.measured if "fell back" in each.notes]
    assert one.notes[-1].startswith("scores of job ")
    assert taken.losses[one.job.key]["loss"].tolist() == [1.5]


def test_jobs_of_presets_that_were_not_asked_for_are_not_looked_at(runs: Path, tmp_path: Path) -> None:
    one = next(each for each in ResultStore(runs / "whole").results() if each.job.detector == "pca")
    job = replace(one.job, preset="quick", config={**one.job.config, "components": 8})
    folder = altered(runs, tmp_path / "runs", job=job, scored=lambda table: table[1:])
    assert len(made(runs, folder, detectors=["pca"], presets=[one.job.preset]).measured) == 2


@pytest.mark.parametrize(
    ("folder", "to", "data", "told"),
    [
        (
            "whole",
            "one-vs-rest-1k",
            "2",
            r"on specks/a seed 0 was not run on the images that one-vs-rest, version 1, ",
        ),
        (
            "whole",
            "fewer",
            "1",
            r"^specks/a: fewer trains on other images than one-vs-rest; run it again with adbench run",
        ),
        (
            "whole",
            "leave-one-out",
            "1",
            r"^specks/a: leave-one-out trains on other images .*run --protocol leave-one",
        ),
        (
            "direct",
            "one-vs-rest",
            "1",
            r"^specks/a: one-vs-rest has test images, or .* that one-vs-rest-1k does not have; ",
        ),
        ("whole", "one-vs-rest-2k", "1", "unknown protocol 'one-vs-rest-2k'"),
        ("whole", "official", "1", "protocol 'official' is for datasets with defects"),
    ],
)
def test_what_is_no_part_is_refused(runs: Path, folder: str, to: str, data: str, told: str) -> None:
    with pytest.raises(AdbenchError, match=told):
        made(runs, runs / folder, to=to, data=data, detectors=["pca"])


def tasks(*, version: str = "1", fingerprint: str = "f", offer: str = "o", **chosen: list[int]) -> Any:
    """What the checks ask of a dataset's tasks: image 0 is trained on, 1 is a normal and 2 an abnormal test image."""
    whole = {"normal": [0], "test": [1, 2], "labels": [0, 1]}
    arrays = SimpleNamespace(**{name: np.array(values) for name, values in (whole | chosen).items()})
    samples = SimpleNamespace(ids="abcd", digest=lambda index: b"abcd"[index : index + 1])
    return SimpleNamespace(
        dataset=SimpleNamespace(name="specks"),
        protocol=SimpleNamespace(name="one-vs-rest", version=version),
        root="data",
        fingerprint=lambda category: fingerprint,
        offer_fingerprint=lambda category: offer,
        cut=lambda category: (samples, arrays),
    )


@pytest.mark.parametrize("other", [{}, {"version": "2"}, {"fingerprint": "g"}, {"offer": "p"}], ids=str)
def test_a_job_is_of_the_protocol_and_the_images_that_are_here(other: dict[str, str]) -> None:
    one = of_grid("good", "ant", 0, 1.0, split_fingerprint="f", offer_fingerprint="o")
    check_origin(one, tasks(), tasks())
    alone = replace(one, job=replace(one.job, offer_fingerprint=""))  # of a job that chose out of none
    check_origin(alone, tasks(offer="p"), tasks())
    if other:
        with pytest.raises(
            AdbenchError, match="good on toy/ant seed 0 was not run on the images that one-vs-"
        ):
            check_origin(one, tasks(**other), tasks())


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"normal": [3]}, "trains on other images"),
        ({"offer": "p"}, "trains on other images"),
        ({"test": [1, 3]}, "has test images, or labels, that"),
        ({"labels": [1, 1]}, "has test images, or labels, that"),
    ],
    ids=str,
)
def test_a_part_trains_on_the_same_images_and_tests_on_some_labelled_alike(
    other: dict[str, Any], told: str
) -> None:
    check_images("a", tasks(), tasks(test=[2], labels=[1]))
    with pytest.raises(AdbenchError, match=f"^specks/a: one-vs-rest {told}"):
        check_images("a", tasks(), tasks(**other))


@pytest.mark.parametrize(
    ("whole", "part", "same"),
    [([2, 3], [2, 3], True), ([2, 3], [2, 1], False), ([2], None, False), (None, None, False)],
)
def test_who_learned_from_anomalies_gets_the_same_ones_whatever_another_processor_chose(
    monkeypatch: pytest.MonkeyPatch, whole: list[int] | None, part: list[int] | None, same: bool
) -> None:
    monkeypatch.setattr("adbench_tgan.data.samples.fingerprint_of", lambda *_: "not that of the job")
    taught = of_grid("taught", "ant", 0, 1.0, supervision="labelled")
    wholes, parts = tasks(), tasks()
    for each, chosen in ((wholes, whole), (parts, part)):
        each.anomalies = lambda category, chosen=chosen: None if chosen is None else np.array(chosen)
    check_choice(of_grid("good", "ant", 0, 1.0), wholes, parts)
    with nullcontext() if same else pytest.raises(AdbenchError, match="trains on other images"):
        check_choice(taught, wholes, parts)


def test_anomalies_that_a_part_chooses_otherwise_matter_to_who_learns_from_them(runs: Path) -> None:
    with pytest.raises(AdbenchError, match="specks/a: otherwise trains on other images than one-vs-rest"):
        made(runs, runs / "whole", to="otherwise", detectors=["taught"])
    taken = made(runs, runs / "whole", to="otherwise", detectors=["pca"]).measured
    assert [each.job.protocol_version for each in taken] == ["2", "2"]


def test_of_several_protocols_one_is_chosen(runs: Path) -> None:
    folders = runs / "whole", runs / "direct"
    with pytest.raises(
        AdbenchError, match=r"one-vs-rest \(version 1\), .*-1k \(version 1\); choose one with"
    ):
        made(runs, *folders, to="otherwise", detectors=["pca"])
    assert made(runs, *folders, to="otherwise", detectors=["pca"], protocol="one-vs-rest").measured


def test_of_several_versions_of_a_protocol_the_installed_one_is_taken(runs: Path, tmp_path: Path) -> None:
    old = ResultStore(tmp_path)
    old.open()
    for each in ResultStore(runs / "whole").results():
        if each.job.detector == "pca":
            scores = ResultStore(runs / "whole").scores(each.job)
            old.put(replace(each, job=replace(each.job, protocol_version="0"), scores=scores))
    taken = made(runs, tmp_path, runs / "whole", detectors=["pca"]).measured
    assert [each.job.category for each in taken] == ["a", "c"]


def test_a_folder_of_data_without_a_part_is_refused(runs: Path, adbench: Call) -> None:
    ended = adbench("publish", "--board", "x", "--runs", runs / "whole", "--data-root", runs / "1")
    assert "--data-root is for --part" in ended.error

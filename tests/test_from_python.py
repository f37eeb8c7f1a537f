"""Runs that a program starts, such as a notebook: what it passes, what it has set, and what else it does meanwhile."""

import copy
import random
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_runner import Silent

from adbench_tgan import runner
from adbench_tgan.benchmark import Undisturbed, benchmark
from adbench_tgan.data.images import ImageSet
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Request
from adbench_tgan.registry import Registry
from adbench_tgan.results import ResultStore
from adbench_tgan.runner import Settings
from adbench_tgan.torch_settings import module_hooks

GAN = {
    "detectors": ["ganomaly"],
    "categories": ["0"],
    "preset": "quick",
    "overrides": ["ganomaly.epochs=1", "ganomaly.width=8"],
}


def run(out, reporter=None, settings=None, **asked):
    request = Request(**({"detectors": ["mean_image"], "categories": ["0"]} | asked))
    return benchmark(
        request, settings or Settings(timing=False), Registry.discover(), reporter or Silent(), out
    )


def scores_of(out, outcome):
    return ResultStore(out).scores(outcome.results[0].job)["score"].to_numpy()


def test_a_reporter_is_told_of_each_category_whose_images_are_read(tmp_path):
    run(tmp_path, reporter := Silent(), categories=["1", "0", "1"], detectors=["mean_image", "random"])
    assert reporter.read == [("1", 1, 2), ("0", 2, 2)]


def test_jobs_in_two_threads_have_the_scores_of_one_alone(tmp_path):
    alone = scores_of(tmp_path / "alone", run(tmp_path / "alone", **GAN))
    folders = [tmp_path / "one", tmp_path / "two"]
    with ThreadPoolExecutor() as threads:
        outcomes = list(threads.map(lambda folder: run(folder, **GAN), folders))
    for folder, outcome in zip(folders, outcomes, strict=True):
        np.testing.assert_array_equal(scores_of(folder, outcome), alone)


def test_a_run_keeps_no_models_in_memory_but_in_its_store(tmp_path):
    outcome = run(tmp_path, settings=Settings(timing=False, save_models=True))
    assert outcome.results[0].state is None
    assert (ResultStore(tmp_path).folder(outcome.results[0].job) / "model.safetensors").is_file()


def test_finished_jobs_whose_models_were_not_saved_are_run_for_them(tmp_path):
    run(tmp_path)
    saving = Settings(timing=False, save_models=True)
    assert [run(tmp_path, settings=saving).ran for _ in range(2)] == [1, 0]


def test_what_a_run_ends_with_is_small_and_the_same_when_it_is_repeated(tmp_path):
    """Scores of 10,000 images take a quarter of a MB: a grid of tens of thousands of jobs would fill the memory."""
    settings = Settings(timing=False, pictures=True)
    (ran,) = run(tmp_path, settings=settings, **GAN).results
    assert (ran.scores, ran.losses, ran.pictures) == (None, (), {})
    assert run(tmp_path, settings=settings, **GAN).results == (ran,)
    store = ResultStore(tmp_path)
    assert (len(store.scores(ran.job)), len(store.losses(ran.job))) == (596, 1)


def test_the_tables_of_a_long_run_say_how_far_they_are(tmp_path, monkeypatch):
    run(tmp_path, categories=["2"])
    monkeypatch.setattr("adbench_tgan.terminal.pace.PAUSE", -1)
    run(tmp_path, reporter := Silent(), categories=["0", "1"])
    told = [fact for what, fact, *_ in reporter.heard if what == "warn"]
    results = [f"results read: {number} of 3 jobs" for number in range(3)]
    assert told[-5:] == [*results, "scores resampled: 0 of 2 jobs", "scores resampled: 1 of 2 jobs"]


def test_a_repeated_run_says_how_many_of_its_jobs_it_has_looked_at(tmp_path, monkeypatch):
    run(tmp_path, categories=["0", "1"])
    monkeypatch.setattr("adbench_tgan.terminal.pace.PAUSE", -1)
    run(tmp_path, reporter := Silent(), categories=["0", "1"])
    told = [fact for what, fact, *_ in reporter.heard if what == "warn"]
    assert told[1:3] == ["looked at: 0 of 2 jobs", "looked at: 1 of 2 jobs"]


def float64():
    torch.set_default_dtype(torch.float64)


@pytest.mark.parametrize(
    "turned",
    [
        float64,
        lambda: torch.set_default_device("meta"),
        lambda: torch.device("meta").__enter__(),
        lambda: torch.nn.modules.module.register_module_forward_hook(lambda *given: given[-1] + 1),
        lambda: torch.no_grad().__enter__(),
        lambda: torch.inference_mode().__enter__(),
    ],
    ids=["float64", "another device", "within another device", "hooks", "no gradients", "inference"],
)
def test_what_the_caller_has_set_in_torch_changes_no_score(turned, tmp_path):
    alone = scores_of(tmp_path / "alone", run(tmp_path / "alone", **GAN))

    def elsewhere():  # most of these settings are a thread's own
        try:
            turned()
            before = (torch.get_default_dtype(), torch.empty(0).device, torch.is_inference_mode_enabled())
            outcome = run(tmp_path / "turned", **GAN)
            assert before == (
                torch.get_default_dtype(),
                torch.empty(0).device,
                torch.is_inference_mode_enabled(),
            )
            return outcome
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
            for hooks in module_hooks().values():
                hooks.clear()

    with ThreadPoolExecutor(1) as thread:
        outcome = thread.submit(elsewhere).result()
    assert outcome.results[0].error == ""
    np.testing.assert_array_equal(scores_of(tmp_path / "turned", outcome), alone)


def test_the_callers_random_numbers_go_on_as_if_there_had_been_no_run(tmp_path):
    def drawn():
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    def seeded():
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        torch.manual_seed(7)

    run(tmp_path / "what it imports may draw some")
    seeded()
    alone = drawn()
    seeded()
    run(tmp_path / "runs")
    assert drawn() == alone


def test_what_can_be_gone_through_once_is_asked_for_in_full(tmp_path):
    asked = Request(
        detectors=(name for name in ("mean_image", "pca")),
        categories=(name for name in "01"),
        seeds=(seed for seed in np.arange(2)),
        overrides=(text for text in ("pca.components=3",)),
    )
    assert asked.detectors == ("mean_image", "pca")
    assert asked.categories == ("0", "1")
    assert asked.seeds == (0, 1)
    assert {type(seed) for seed in asked.seeds} == {int}
    assert asked.overrides == ("pca.components=3",)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"categories": "01"}, "categories is '01'; give a list of names"),
        ({"categories": [0]}, "categories is [0]; give a list of names"),
        ({"detectors": []}, "detectors is empty; give one or more"),
        ({"seeds": 1}, "seeds is 1; give a list of whole numbers"),
        ({"seeds": [0.0]}, "seeds is [0.0]; give a list of whole numbers"),
        ({"seeds": ["0"]}, "seeds is ['0']; give a list of whole numbers"),
        ({"seeds": [True]}, "seeds is [True]; give a list of whole numbers"),
        ({"seeds": torch.tensor([0.5])}, "seeds is tensor([0.5000]); give a list of whole numbers"),
        ({"seeds": np.array(3)}, "seeds is array(3); give a list of whole numbers"),
        ({"seeds": []}, "seeds is empty; give one or more"),
        ({"seeds": [0, -1]}, "seed -1 is not from 0 to 4294967295"),
        ({"seeds": [2**32]}, "seed 4294967296 is not from 0 to 4294967295"),
    ],
)
def test_a_request_of_something_else_is_refused_in_a_line(asked, said):
    with pytest.raises(AdbenchError, match=f"^{re.escape(said)}$"):
        Request(**({"detectors": ["pca"]} | asked))


@pytest.mark.parametrize("method", ["planned", "job_started", "phase", "epoch", "job_finished"])
def test_what_a_reporter_raises_is_a_warning_once_and_no_failure_of_a_detector(method, tmp_path):
    errors = [KeyError("a listener's own mistake"), ConnectionError("its tracker is away"), SystemExit(3)]

    def broken(*_):
        raise errors.pop(0) if len(errors) > 1 else errors[0]

    reporter = Silent()
    setattr(reporter, method, broken)
    with pytest.warns(UserWarning, match=f"reporter's {method} failed: KeyError") as told:
        outcome = run(tmp_path, reporter, **(GAN | {"seeds": [0, 1, 2]}))
    assert [result.status for result in outcome.results] == ["ok"] * 3
    assert len(told) == 1


def test_warnings_that_are_errors_make_no_failure_of_a_reporters_mistake(tmp_path):
    reporter = SimpleNamespace(planned=lambda *_: None)  # has nothing else
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("error")
        assert run(tmp_path, reporter).results[0].status == "ok"


@pytest.mark.filterwarnings("ignore:the reporter's phase failed")
@pytest.mark.parametrize("method", ["phase", "job_finished"])
def test_a_terminal_that_is_gone_ends_the_run_and_fails_no_job(method, tmp_path):
    def gone(*_):
        raise BrokenPipeError

    reporter = Silent()
    reporter.job_finished = gone
    setattr(reporter, method, gone)
    with pytest.raises(BrokenPipeError):
        run(tmp_path, reporter)
    (stored,) = ResultStore(tmp_path).results()
    assert stored.status == "ok"


def test_what_tells_a_reporter_can_be_copied():
    told = copy.deepcopy(Undisturbed(Silent()))
    told.planned([], 1)
    assert told._inner.heard == [("planned", 0, 1)]


def test_a_reporter_stops_a_run_as_ctrl_c_does(tmp_path):
    reporter = Silent()

    def stop(*_):
        raise KeyboardInterrupt

    reporter.job_finished = stop
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, reporter, seeds=[0, 1])
    assert (tmp_path / "leaderboard.csv").exists()


def test_a_training_that_other_code_began_begins_anew(tmp_path, monkeypatch):
    reporter, settings = Silent(), Settings(timing=False, checkpoint_every=1)
    asked = GAN | {"overrides": ["ganomaly.epochs=2", "ganomaly.width=8"]}

    def stop(*_):
        raise KeyboardInterrupt

    def of_other_code(detector, installed_with):
        return runner_code(detector, installed_with) | {"framework": "f" * 64}

    runner_code = runner.code_behind
    real, reporter.phase = reporter.phase, lambda name, job: stop() if name == "score" else real(name, job)
    notes = []
    for code in (runner_code, of_other_code):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / code.__name__, reporter, settings, **asked)
        monkeypatch.setattr(runner, "code_behind", of_other_code)
        notes.append(run(tmp_path / code.__name__, None, settings, **asked).results[0].notes)
    (anew,), (on,) = notes
    assert anew.startswith("training started from the beginning: ")
    assert "it belongs to another job, or to other code" in anew
    assert on == "training was interrupted, and taken up again after epoch 2"


def test_the_documented_lines_run(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs/running.md").read_text()
    lines = re.search(r"## From a program.*?```python\n(.*?)```", page, re.S)[1]
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    assert capsys.readouterr().out.split()[:4] == ["detector", "auroc_mean", "0", "pca"]


def test_the_documented_lines_write_both_tables_for_a_paper(monkeypatch, capsys):
    root = Path(__file__).parents[1]
    lines = re.search(
        r"## In a paper.*?```python\n(.*?)```", (root / "docs/leaderboards.md").read_text(), re.S
    )[1]
    monkeypatch.chdir(root)
    exec(lines, {})
    table, means = capsys.readouterr().out.split("\\begin{tabular}")[1:]
    assert (
        r"1 & knn & paper; backbone=tf\_efficientnet\_lite0; precision=tf32 & 0.957 & 0.955 & 0.958 & 3 \\"
        in table
    )
    assert r"-- & f\_anogan & " in table  # without a rank
    assert "ship & truck" in means


def test_a_folder_may_be_named_by_text(tmp_path):
    outcome = run(str(tmp_path / "runs"), settings=Settings(timing=False, device=torch.device("cpu")))
    assert (tmp_path / "runs/leaderboard.csv").exists()
    assert outcome.results[0].status == "ok"


def test_a_batch_of_no_images_is_refused():
    images = ImageSet(torch.zeros(3, 1, 4, 4, dtype=torch.uint8))
    for size in (0, -1):
        with pytest.raises(ValueError, match="a batch has at least one image"):
            list(images.batches(size))

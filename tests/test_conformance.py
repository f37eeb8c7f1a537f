"""Every registered detector keeps the contract; each check is proven by detectors that break just it."""

import json
import os
import re
import signal
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import broken_detectors
import pytest
import torch
from broken_detectors import Closed, Sound
from make_process import Forked

from adbench_tgan import DetectorInfo, ImageSet, TrainSet
from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import one_line
from adbench_tgan.registry import Registry
from adbench_tgan.testing import (
    CHECKS,
    IN_PROCESS,
    SUITE,
    CheckFailed,
    check_detector,
    checks_building,
    checks_fitting,
    checks_offers,
    checks_processes,
    child,
    examine,
    parametrize_with_checks,
    sentence,
    smooth_images,
    subject,
)
from adbench_tgan.testing.outcome import Skipped
from adbench_tgan.testing.pictures import negative
from adbench_tgan.testing.processes import SAID, Finding, run_child
from adbench_tgan.testing.traces import traced
from adbench_tgan.testing.trial import Trial
from adbench_tgan.workers.nursery import begin, own_environment

PAGE = (Path(__file__).parent.parent / "docs/conformance.md").read_text()
GREY = ((1, 32, 32),)
RGB = ((3, 32, 32),)
IN_TRAINING = "training changes the scores"
AGAIN = "fitting again starts afresh"
INTERRUPTED = "an interrupted training ends like a whole one"
SEEDS = "another seed gives other scores unless declared deterministic"
FORM = "scores are one finite detached float32 per image"
BATCH = "a score does not depend on the rest of its batch"
WORKER = "a worker process can run it"
SAME = "the same seed gives the same scores in another process"
SAVED = "a saved state gives equal scores in another process"
CTRL_C = "ctrl c stops training"

TINY = {  # less training and narrower networks than "quick", by the same paths through the code
    "anomalib_padim": {"image_size": 32, "feature_size": 32, "dimensions": 20},
    "anomalib_patchcore": {"image_size": 32, "feature_size": 32},
    "anomalib_stfpm": {"image_size": 32, "feature_size": 32, "epochs": 2, "batch_size": 20},
    "anogan": {"width": 8, "epochs": 2, "iterations": None, "steps": 6, "search_lr_until": (2, 4)},
    "anotrans": {"width": 16, "discriminator_width": 8, "latent": 16, "epochs": 2, "batch_size": 20},
    "egbad": {"width": 8, "steps": 8},
    "f_anogan": {"width": 4, "gan_steps": 3, "encoder_steps": 4},
    "ganomaly": {"width": 8, "epochs": 3},
    "knn": {"feature_size": 32},
    "logistic": {"feature_size": 32},
    "sagan": {"width": 4, "epochs": 2, "batch_size": 20},
    "skip_ganomaly": {"width": 8, "epochs": 2},
    "transgan_anogan": {"iterations": 5, "walk_steps": 3},
    "transgan_dual": {"epochs": 1},
}
TRAIN_ANEW = {IN_TRAINING, AGAIN, INTERRUPTED, SEEDS}  # most of the time; what they show has no channels


def row_of(report):
    """The detector's row in the table of docs/conformance.md."""
    names = (
        "; ".join(outcome.check for outcome in report.of(kind)) for kind in ("expected failure", "skipped")
    )
    link = f"[`{report.detector}`](detectors.md#{report.detector})"
    return "| " + " | ".join([link, str(report.ran), str(len(report.of("passed"))), *names]) + " |"


def test_the_page_has_a_row_for_each_detector_and_names_the_suite():
    assert re.findall(r"^\| \[`(\w+)`\]", PAGE, re.MULTILINE) == Registry.discover().names("detector")
    assert f"Of the {len(CHECKS)} checks of suite {SUITE}," in PAGE


@pytest.mark.parametrize("name", Registry.discover().names("detector"))
def test_registered_detectors_conform(name):
    """On grey images by every check, on coloured ones by those that look at the outcome of one training."""
    report = check_detector(name, settings=TINY.get(name), shapes=GREY)
    assert len(report) == len(CHECKS)
    failing = Registry.discover().find("detector", name).expected_failures
    declared = [sentence(check) for check in CHECKS if check.__name__ in failing]
    assert len(declared) == len(failing)
    assert [outcome.check for outcome in report.of("expected failure")] == declared
    if not torch.cuda.is_available():  # on which one check more runs
        assert row_of(report) in PAGE
    left_out = TRAIN_ANEW.union(declared)
    once = [check for check in IN_PROCESS if sentence(check) not in left_out]
    assert len(once) == len(IN_PROCESS) - len(left_out)
    check_detector(name, settings=TINY.get(name), shapes=RGB, checks=once)


BROKEN = {
    "BuildsNetworksAtOnce": {"building a detector does no work"},
    "DrawsAtOnce": {"building a detector does no work"},
    "DriftingSettings": {"settings survive writing and reading"},
    "AnySetting": {"unknown settings are refused"},
    "LooseSettings": {"settings cannot be changed"},
    "FailsToFit": {"it fits and scores"},
    "FailsToScore": {"it fits and scores"},
    "RGBOnly": {"it fits and scores"},
    "ListOfNumbers": {"it fits and scores"},
    "ReturnsNothing": {"fit returns the detector itself"},
    "Peeks": {"fit asks for training images only"},
    "PeeksAtLabels": {"fit asks for training images only"},
    "WritesToTraining": {"fit leaves the training images alone"},
    "TrainMode": {"networks are in eval mode after fit"},
    "LearnsNothing": {IN_TRAINING},
    "KeepsHalf": {INTERRUPTED},
    "AveragesLate": {INTERRUPTED},
    "ChangesNetworks": {INTERRUPTED},
    "ResumesTwice": {INTERRUPTED},
    "UsesItsLoop": {INTERRUPTED},
    "NamesAStranger": {INTERRUPTED},
    "Remembers": {AGAIN},
    "IgnoresSeed": {AGAIN},  # and the same seed in another process
    "OneSeed": {SEEDS},
    "DoublePrecision": {FORM},
    "CarriesGradient": {FORM},
    "Column": {FORM},
    "OneForAll": {FORM, BATCH},  # scores of single images cannot be put together
    "NeedsCompany": {FORM, BATCH},
    "RelativeToBatch": {BATCH},
    "KnowsItsImages": {BATCH},
    "ScaledByTheFirst": {BATCH},
    "ScaledByTheFirstInPlace": {BATCH},
    "BehindAConstant": {BATCH},
    "FirstIsSpecial": {BATCH, "a score does not depend on its place in the batch"},
    "Jitters": {"scoring twice gives the same scores", AGAIN},
    "Saturates": {"scores tell images apart", IN_TRAINING, SEEDS},  # 0 for everything, always
    "WrongSign": {"an obvious defect scores higher"},
    "WritesToInput": {"scoring does not write to its images"},
    "MapWritesToInput": {"scoring does not write to its images"},
    "LearnsWhileScoring": {"scoring leaves parameters and buffers alone"},
    "RollsTorch": {"scoring leaves the global random numbers alone"},
    "RollsNumpy": {"scoring leaves the global random numbers alone"},
    "RollsPython": {"scoring leaves the global random numbers alone"},
    "SwitchesGradOff": {"scoring leaves the settings of torch alone"},
    "TunesCudnn": {"scoring leaves the settings of torch alone"},
    "SmallMaps": {"maps match the images"},
    "MapsOfTheirBatch": {"maps match the images"},
    "SummedMaps": {"maps add up to the scores where declared"},
    "FloatImages": {"reconstructions match the images"},
    "DrawsTheMean": {"reconstructions match the images"},
    "ForgetsOnSave": {
        "a loaded state gives equal scores",
        "it moves between devices",
    },  # nothing to score with
    "StaysOnTheCPU": {"it moves between devices"},
}
BROKEN_OUTSIDE = {
    "NeedsItsParent": {WORKER},
    "Crashes": {WORKER},
    "FollowsTheHash": {SAME},
    "KeepsInTheClass": {SAVED},
    "SwallowsCtrlC": {CTRL_C},
    "LeavesAThread": {CTRL_C},
}


def examined(name, **how):
    extras = ("map_mean",) if name == "SummedMaps" else ()
    info = DetectorInfo(name=name, target=f"broken_detectors:{name}", extras=extras)
    return examine(subject(getattr(broken_detectors, name), info=info), **how)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_detectors_fail_just_their_check(name):
    report = examined(name, checks=IN_PROCESS)
    assert {outcome.check for outcome in report.failed} == BROKEN[name]


@pytest.mark.parametrize("name", BROKEN_OUTSIDE)
def test_broken_detectors_are_seen_from_another_process(name, monkeypatch):
    monkeypatch.setitem(broken_detectors.PARENT, "said so", True)
    report = examined(name, shapes=GREY)
    assert {outcome.check for outcome in report.failed} == BROKEN_OUTSIDE[name]


def test_every_check_is_proven_and_every_broken_detector_is_used():
    proven = set.union(*BROKEN.values(), *BROKEN_OUTSIDE.values())
    assert proven == {sentence(check) for check in CHECKS}
    classes = {
        name for name, each in vars(broken_detectors).items() if getattr(each, "__mro__", ())[1:2] == (Sound,)
    }
    assert classes - {"HoldsALambda", "Closed"} == {*BROKEN, *BROKEN_OUTSIDE}
    assert len(CHECKS) == 32


# what a check expects beside that by which a broken detector shows it


def looked_at(**offers):
    """What a check looks at: a detector that offers just this, with scores of ten images."""
    probe = torch.zeros(10, 1, 4, 4, dtype=torch.uint8)
    methods = {name: staticmethod(function) for name, function in offers.items()}
    return SimpleNamespace(
        shape=(1, 4, 4), probe=probe, detector=type("Offers", (), {"has_maps": True, **methods})()
    )


@pytest.mark.parametrize(
    ("drawn", "told"),
    [
        (lambda images: torch.zeros(len(images), 4, 4), ""),
        (lambda images: torch.zeros(10, 4, 4), r"maps are \(10, 4, 4\)"),  # for one image too
        (lambda images: torch.zeros(len(images), 4, 4).double(), "maps are torch.float64"),
        (lambda images: torch.zeros(len(images), 4, 4).requires_grad_(), "maps carry a gradient"),
        (lambda images: torch.full((len(images), 4, 4), torch.nan), "maps are not finite"),
    ],
)
def test_whatever_is_wrong_with_maps_is_said(drawn, told):
    failing(checks_offers.maps_match_the_images, looked_at(anomaly_map=drawn), told)


def failing(check, trial, told):
    """Hold a check, which fails with just these words, or not at all."""
    if not told:
        check(trial)
        return
    with pytest.raises(CheckFailed, match=f"^{told}$"):
        check(trial)


@pytest.mark.parametrize(
    ("drawn", "told"),
    [
        (lambda images: images, ""),
        (lambda images: images[:, :, :2], r"reconstructions are \(10, 1, 2, 4\)"),
        (lambda images: images.float(), "reconstructions are torch.float32"),
    ],
)
def test_whatever_is_wrong_with_reconstructions_is_said(drawn, told):
    failing(checks_offers.reconstructions_match_the_images, looked_at(reconstruct=drawn), told)


@pytest.mark.parametrize("declared", ["map_mean", "map_sum"])
def test_maps_add_up_as_declared(declared):
    maps = torch.arange(160.0).view(10, 4, 4)
    for kind, scores in (("map_mean", maps.mean((1, 2))), ("map_sum", maps.sum((1, 2)))):
        trial = looked_at(anomaly_map=lambda images: maps)
        trial.scores, trial.subject = scores, SimpleNamespace(info=SimpleNamespace(extras=(declared,)))
        told = "" if kind == declared else "scores and maps differ by .*"
        failing(checks_offers.maps_add_up_to_the_scores_where_declared, trial, told)


def test_a_tensor_that_stays_behind_is_named():
    twin = SimpleNamespace(networks={"net": torch.nn.Linear(2, 1, device="meta")}, mean=torch.zeros(3))
    twin.load_state = lambda state, shape: twin
    trial = looked_at(state=dict)
    trial.subject = SimpleNamespace(built=lambda seed, device: twin)
    with pytest.raises(CheckFailed, match=r"^not on meta when loaded there: mean$"):
        checks_offers.moved(trial, "meta")
    twin.mean = twin.mean.to("meta")
    assert checks_offers.moved(trial, "meta") is twin


class DrawsThere(Sound):
    """Sound: noise of its own, drawn on the images' device."""

    def scaled(self, images):
        draw = torch.Generator(device=images.device).manual_seed(self.seed)
        return super().scaled(images) + torch.rand((), generator=draw, device=images.device)


class LooksAtNumbers(Sound):
    """Sound: what it does depends on the images' numbers."""

    def scaled(self, images):
        return super().scaled(images) / max(int(images.max()), 1)


@pytest.mark.parametrize("kind", [DrawsThere, LooksAtNumbers])
def test_what_only_a_gpu_could_show_is_left_out(kind, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    trial = Trial(subject(kind), (1, 8, 8), None)
    with pytest.raises(Skipped, match=r"^without a GPU: score needs the values of tensors"):
        checks_offers.it_moves_between_devices(trial)


REMEDY = "; keep what fit learns in networks, which build makes, or in tensor attributes, or write state and load_state"


def test_what_a_loaded_state_lacks_is_said_with_the_remedy():
    told = "it raises AttributeError: 'ForgetsOnSave' object has no attribute 'scale'" + REMEDY
    trial = Trial(subject(broken_detectors.ForgetsOnSave), (1, 8, 8), None)
    failing(checks_offers.a_loaded_state_gives_equal_scores, trial, told)


@pytest.mark.parametrize(
    ("error", "scores", "told"),
    [
        (
            "scoring with the saved state raises KeyError",
            None,
            "scoring with the saved state raises KeyError",
        ),
        ("", torch.ones(10), "scores differ by 0"),
    ],
)
def test_what_a_saved_state_lacks_is_said_with_the_remedy(error, scores, told):
    finding = Finding(load_error=error, loaded=scores)
    trial = SimpleNamespace(finding=finding, scores=torch.arange(10.0))
    with pytest.raises(CheckFailed, match=told) as caught:
        checks_processes.a_saved_state_gives_equal_scores_in_another_process(trial)
    assert str(caught.value).endswith(REMEDY)


class WithoutInit(Sound):
    def __init__(self, config=None, *, device="cpu", seed=0):
        self.own = config, device, seed


def test_a_detector_whose_init_leaves_out_ours_is_told_so():
    trial = Trial(subject(WithoutInit), (1, 8, 8), None)
    with pytest.raises(CheckFailed) as told:
        checks_fitting.it_fits_and_scores(trial)
    lacking = "AttributeError: 'WithoutInit' object has no attribute "
    assert re.search(lacking + r"'(config|device|seed|notes)'; let its __init__ call super", str(told.value))
    with pytest.raises(AttributeError) as other:
        WithoutInit().mean  # noqa: B018 (an attribute that only fit makes)
    assert one_line(other.value) == lacking + "'mean'"


def test_networks_are_found_wherever_a_detector_keeps_them():
    tensor, network = torch.zeros(1), torch.nn.Identity()
    for value in (tensor, network, [network], (1, tensor), {"a": tensor}, {"a": [{"b": network}]}):
        assert checks_building.holds_tensors(value)
    assert not any(map(checks_building.holds_tensors, (1, "text", None, [], {}, {"a": [1]})))


def test_settings_that_fit_changed_are_said():
    planned, others = Sound.Config(), Sound.Config(features=3)
    for found, told in ((planned, ""), (others, "fit changed its settings")):
        trial = SimpleNamespace(
            subject=SimpleNamespace(config=planned), detector=SimpleNamespace(config=found)
        )
        failing(checks_building.settings_cannot_be_changed, trial, told)


@pytest.mark.parametrize("written_to", ["", "normal", "anomalies"])
def test_either_kind_of_training_images_is_looked_at(written_to):
    images = {
        "normal": smooth_images(40, (1, 8, 8), 0),
        "anomalies": negative(smooth_images(24, (1, 8, 8), 2)),
    }
    for name, pixels in images.items():
        pixels[-1, 0, 0, 0] ^= name == written_to
    trial = SimpleNamespace(shape=(1, 8, 8), detector=None, train=TrainSet(*map(ImageSet, images.values())))
    told = written_to and "fit wrote to the training images"
    failing(checks_fitting.fit_leaves_the_training_images_alone, trial, told)


def graded(net):
    net[1].weight.grad = torch.ones_like(net[1].weight)


@pytest.mark.parametrize(
    ("act", "left"),
    [
        (lambda net: None, ()),
        (lambda net: net[0].train(), ("mode of net.0",)),
        (lambda net: net[1].bias.requires_grad_(False), ("requires_grad of net.1.bias",)),
        (graded, ("gradient of net.1.weight",)),
    ],
)
def test_whatever_scoring_leaves_in_a_network_is_named(act, left):
    images = smooth_images(8, (1, 8, 8), 0)
    detector = Sound().fit(TrainSet(ImageSet(images)))
    score = detector.score
    detector.score = lambda given: (act(detector.net), score(given))[1]
    assert traced(detector, images).state == left


def test_scores_that_follow_no_training_images_are_said():
    scores = torch.arange(10.0)
    for others, told in ((scores + 1, ""), (scores, "other training images give the same scores")):
        trial = SimpleNamespace(shape=(1, 4, 4), scores=scores, refitted=(others, scores))
        trial.seeded = lambda seed: SimpleNamespace()  # which cannot score before it is fitted
        failing(checks_fitting.training_changes_the_scores, trial, told)


def test_a_lambda_and_a_lock_break_nothing():
    report = check_detector("broken_detectors:HoldsALambda", shapes=GREY)
    assert [outcome.detail for outcome in report.of("skipped")] == [
        "its training cannot be resumed: it has no epochs that call resume",
        "its extras have neither map_mean nor map_sum",
    ]
    assert report.ran == len(CHECKS) - 2


def test_a_function_from_a_seed_is_checked_in_this_process():
    report = check_detector(lambda seed: Sound(seed=seed), shapes=GREY)
    left_out = {outcome.check: outcome.detail for outcome in report.of("skipped")}
    reason = "no other process can import it; give a name or module:Class"
    assert [check for check, detail in left_out.items() if detail == reason] == [WORKER, SAME, SAVED, CTRL_C]
    assert f"26 of 32 checks of suite {SUITE} ran: 26 passed" in str(report)


class EndsItsThread:
    """Keeps a thread until nobody holds it, as a loader keeps its workers."""

    def __init__(self):
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.end.wait, args=(60,), name="loader")
        self.thread.start()

    def __del__(self):
        self.end.set()
        self.thread.join()


class HoldsALoader(Sound):
    def fit(self, train):
        loader = EndsItsThread()
        return super().fit(train) if loader else None


def test_what_ends_with_the_training_is_not_left_over(ctrl_c):
    assert child.interrupt(Trial(subject(HoldsALoader), (1, 8, 8), None), at=1) == ""


def test_what_ends_with_the_process_is_not_left_over(monkeypatch):
    workers = [SimpleNamespace(name=f"daemon={daemon}", daemon=daemon) for daemon in (True, False)]
    monkeypatch.setattr("multiprocessing.active_children", lambda: workers)
    assert child.left_over() == "still running after Ctrl-C: daemon=False"


def test_failures_name_the_check_the_shape_and_the_reason():
    with pytest.raises(AdbenchError) as caught:
        check_detector(lambda seed: broken_detectors.DoublePrecision(seed=seed), checks=IN_PROCESS)
    assert str(caught.value) == (f"1 of 26 checks failed: {FORM}: on 1x32x32 dtype torch.float64")


class Sized(Sound):
    """Sound: its networks have the size that its settings say."""

    class Config(Sound.Config):
        image_size: int = 16

    def build(self, shape):
        super().build((shape[0], self.config.image_size, self.config.image_size))


class UsesItsMemoryAgain(Sound):
    """Sound: each of its scores is good until the next, as the runner allows."""

    def score(self, images):
        found = super().score(images)
        self.__dict__.setdefault("kept", [torch.empty(100)])
        return self.kept[0][: len(images)].copy_(found)


def test_scores_in_memory_that_is_used_again_are_scores():
    assert examine(subject(UsesItsMemoryAgain), GREY, IN_PROCESS).failed == []


@pytest.mark.parametrize("side", [16, 20])
def test_images_are_as_large_as_the_settings_say(side):
    who = subject(Sized, settings={"image_size": side})
    report = examine(who, checks=[checks_fitting.it_fits_and_scores])
    assert (report.failed, report.shapes) == ([], (f"1x{side}x{side}", f"3x{side}x{side}"))


def declared(**failures):
    return DetectorInfo(
        name="closed", target="broken_detectors:Closed", deterministic=True, expected_failures=failures
    )


def test_a_deterministic_detector_is_held_to_it():
    assert not examine(subject(Closed, info=declared()), GREY, IN_PROCESS).failed
    info = DetectorInfo(name="sound", target="broken_detectors:Sound", deterministic=True)
    report = examine(subject(Sound, info=info), GREY, IN_PROCESS)
    assert [outcome.check for outcome in report.failed] == [SEEDS]


def test_a_declared_failure_that_passes_is_a_failure():
    info = declared(it_fits_and_scores="it is old")
    (outcome,) = examine(subject(Closed, info=info), GREY, IN_PROCESS).failed
    assert outcome.check == "it fits and scores"
    assert (
        outcome.detail == "it passes, and expected_failures says that it fails (it is old); remove it there"
    )


def test_a_declared_failure_must_name_a_check():
    with pytest.raises(AdbenchError, match="unknown check 'direction'"):
        examine(subject(Closed, info=declared(direction="it is old")), GREY)


@parametrize_with_checks(["random"], shapes=GREY, checks=IN_PROCESS)
def test_the_decorator_makes_a_test_of_each_check(check):
    check()


SUITE_OF_A_THIRD_PARTY = """
from broken_detectors import Closed, OneSeed, Sound
from adbench_tgan import DetectorInfo
from adbench_tgan.testing import IN_PROCESS, parametrize_with_checks, subject

failures = {"it_fits_and_scores": "it is old"}
old = subject(Sound, info=DetectorInfo(name="old", target="broken_detectors:Sound", expected_failures=failures))

@parametrize_with_checks([old, OneSeed], shapes=[(1, 32, 32)], checks=IN_PROCESS)
def test_conformance(check):
    check()
"""


class Reports:
    """A pytest plugin that keeps what became of each test."""

    def __init__(self):
        self.failed = {}

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed[report.nodeid.partition("[")[2].rstrip("]")] = str(report.longrepr)


def test_the_decorator_fails_as_it_should(tmp_path):
    (tmp_path / "test_third_party.py").write_text(SUITE_OF_A_THIRD_PARTY)
    reports = Reports()
    words = ["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    assert pytest.main(words, plugins=[reports]) == 1
    declared, undeclared = "old-it_fits_and_scores", f"OneSeed-{SEEDS.replace(' ', '_')}"
    assert list(reports.failed) == [declared, undeclared]
    assert reports.failed[declared] == "[XPASS(strict)] it is old"
    assert "CheckFailed: on 1x32x32 every seed gives the same scores" in reports.failed[undeclared]


def forget_the_temporary_folder():
    tempfile.tempdir = None


def test_a_check_that_is_killed_leaves_nothing_for_long(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    for signalled, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)):
        before = set(folder.glob("*/order.json"))
        process = Forked("check", "mean_image", first=forget_the_temporary_folder)
        while not set(folder.glob("*/order.json")) - before:
            assert process.process.is_alive(), process.stderr.read()
            time.sleep(0.01)
        process.send(signalled)
        assert process.wait() == status
        assert bool(set(folder.glob("*/order.json"))) == (signalled == signal.SIGKILL)


def test_how_the_other_process_failed_is_said(tmp_path):
    assert run_child(tmp_path, 60).startswith("another process ended with status 1: FileNotFoundError: ")
    os.mkfifo(tmp_path / "order.json")  # which never comes
    assert run_child(tmp_path, 1) == "another process was not done after 1 s"


def test_the_other_process_ends_with_the_one_that_asked_for_it(tmp_path):
    os.mkfifo(tmp_path / "order.json")
    process = begin("adbench_tgan.testing.child", tmp_path, own_environment())
    while not (tmp_path / SAID).exists():
        assert process.poll() is None
    process.stdin.close()
    assert process.wait(10) == -signal.SIGKILL


def test_the_command_prints_a_line_a_check_and_the_count(adbench):
    ended = adbench("check", "random", "--shape", "1x32x32")
    lines = ended.out.splitlines()
    assert ended.status == 0
    assert len(lines) == len(CHECKS) + 1
    assert lines[4] == "passed            it fits and scores"
    assert any(line.startswith(f"expected failure  {IN_TRAINING}: it learns nothing (") for line in lines)
    skipped = sum(line.startswith("skipped  ") for line in lines)
    assert lines[-1].startswith(
        f"random (quick, 1x32x32): {len(CHECKS) - skipped} of 32 checks of suite {SUITE} ran: "
    )
    assert lines[-1].endswith(f"2 failed as declared, 0 failed; {skipped} skipped")


def test_the_command_ends_with_1_and_speaks_json(adbench):
    ended = adbench(
        "check", "broken_detectors:OneSeed", "--shape", "1x32x32", "--set", "one_seed.features=8", "--json"
    )
    report = json.loads(ended.out)
    assert ended.status == 1
    assert (report["ok"], report["ran"], report["preset"]) == (False, 30, "quick; features=8")
    assert [each["check"] for each in report["outcomes"] if each["status"] == "failed"] == [SEEDS]
    assert f"failed            {SEEDS}: on 1x32x32" in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "unknown detector 'nothing'"),
        (["broken_detectors:Nothing"], "broken_detectors:Nothing cannot be imported"),
        (["broken_detectors:os"], "not a subclass of adbench_tgan.Detector"),
        (["random", "--preset", "fast"], "unknown preset of random 'fast'"),
        (["random", "--set", "random.sides=3"], "unknown setting of random 'sides'"),
        (["random", "--set", "sides"], "--set sides: write it as"),
        (
            ["pca", "--set", "ganomaly.epochs=3"],
            "--set ganomaly.epochs=3: pca is checked; write pca.KEY=VALUE",
        ),
        (
            ["broken_detectors:OneSeed", "--set", "other.features=8"],
            "--set other.features=8: one_seed is checked; write one_seed.KEY=VALUE",
        ),
        (["random", "--shape", "32"], "--shape 32: write it as CHANNELSxHEIGHTxWIDTH"),
    ],
)
def test_the_command_names_what_is_wrong(adbench, words, message):
    ended = adbench("check", *words)
    assert ended.status == 2
    assert message in ended.error

"""Settings that came later: results from before there was such a setting stay current, and share a row with new ones."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, Field, RootModel, field_serializer

from adbench_tgan import DetectorConfig
from adbench_tgan.boards.document import results_of
from adbench_tgan.errors import AdbenchError
from adbench_tgan.jobs import Request, default_of, entry, plan, recorded
from adbench_tgan.jobs import job as job_of
from adbench_tgan.ranking.spreads import variant_of
from adbench_tgan.registry import Registry

REGISTRY = Registry.discover()
BOARDS = sorted((Path(__file__).parent.parent / "leaderboards").glob("*/board.json"))
LATER = {"json_schema_extra": {"later": True}}


class Grown(DetectorConfig):
    epochs: int = 3
    depth: int = Field(default=1, **LATER)
    pair: tuple[int, int] = Field(default=(1, 2), **LATER)
    made: list[int] = Field(default_factory=lambda: [7], **LATER)
    none: float | None = Field(default=None, **LATER)
    told: int = Field(default=5, json_schema_extra={"later": False})


BEFORE = {"image_size": 32, "epochs": 3, "told": 5}


@pytest.mark.parametrize(
    ("settings", "added"),
    [
        ({}, {}),
        ({"depth": 1, "pair": [1, 2], "made": [7], "none": None}, {}),
        ({"depth": 2}, {"depth": 2}),
        ({"pair": (2, 1)}, {"pair": [2, 1]}),
        ({"made": []}, {"made": []}),
        ({"none": 0.0}, {"none": 0.0}),
    ],
)
def test_a_later_setting_is_recorded_only_where_it_is_not_its_default(settings, added):
    kept = recorded(Grown(**settings))
    assert kept == BEFORE | added
    assert Grown.model_validate(json.loads(json.dumps(kept))) == Grown(**settings)  # nothing is lost


class Unusual(DetectorConfig):
    """Defaults in another form than they have once validated, or that follow from another setting."""

    model_config = {"validate_default": True}
    half: int = Field(default_factory=lambda data: data["image_size"] // 2, **LATER)
    share: float = Field(default="0.5", **LATER)
    path: Path = Field(default="a/./b", **LATER)
    told: int = Field(default=5, json_schema_extra=lambda schema: schema.update(later=True))


def test_defaults_of_any_form_are_known_as_such():
    assert recorded(Unusual(image_size=64)) == {"image_size": 64}
    assert recorded(Unusual(image_size=64, half=16, share=0.25, path="b", told=6)) == {
        "image_size": 64,
        "half": 16,
        "share": 0.25,
        "path": "b",
        "told": 6,
    }
    assert default_of(Unusual(image_size=64, half=16), "half") == 32


def test_a_default_that_does_not_fit_to_the_others_is_known():
    dual = REGISTRY.detector("transgan_dual")
    assert default_of(dual.Config(image_size=64, patch_size=64), "image_size") == 32


def test_other_settings_are_recorded_whatever_they_are():
    plain = DetectorConfig(image_size=64)
    assert recorded(plain) == plain.model_dump(mode="json") == {"image_size": 64}


class Inner(BaseModel):
    names: frozenset[int] = frozenset((0, 8))


class Sets(DetectorConfig):
    flat: frozenset[int]
    nested: dict[str, list[tuple[int, frozenset[int]]]]
    inner: Inner
    root: RootModel[set[int]]
    of_sets: frozenset[frozenset[int]]
    told: tuple[int, ...] = (8, 0)
    written: frozenset[int]
    counted: dict[str, int] = {"a": 8}
    late: frozenset[int] = Field(default=frozenset((0, 8)), **LATER)
    inner_late: Inner = Field(default=Inner(), **LATER)

    @field_serializer("counted")
    def number(self, counted):
        return len(counted)

    @field_serializer("written")
    def longer(self, written):
        return [8, *sorted(written)]


def with_sets(*order):
    one = frozenset(order)
    return Sets(
        flat=one,
        nested={"a": [(9, one)]},
        inner=Inner(names=one),
        root=set(order),
        of_sets=frozenset((one, frozenset((1,)))),
        written=one,
        late=one,
        inner_late=Inner(names=one),
    )


def test_sets_are_recorded_in_an_order_of_their_own():
    """Texts have another order in every process; numbers of equal hash have that in which they came."""
    one, other = with_sets(0, 8), with_sets(8, 0)
    assert one == other
    assert list(one.flat) != list(other.flat)
    kept = {
        "flat": [0, 8],
        "nested": {"a": [[9, [0, 8]]]},
        "inner": {"names": [0, 8]},
        "root": [0, 8],
        "of_sets": [[0, 8], [1]],
        "told": [8, 0],
        "written": [8, 0, 8],
        "counted": 1,
    }
    assert recorded(one) == recorded(other) == {"image_size": 32, **kept}
    assert Sets.model_validate(json.loads(json.dumps(recorded(other))) | {"counted": {"a": 8}}) == one


def committed():
    for path in BOARDS:
        for result in results_of(json.loads(path.read_text())):
            yield path.parent.name, result.job


def test_jobs_of_published_boards_keep_their_keys_and_rows():
    seen = set()
    for _, job in committed():
        config = REGISTRY.detector(job.detector).Config.model_validate(dict(job.config))
        again = replace(job, config=recorded(config))
        assert again.key == job.key, job
        assert variant_of(again) == variant_of(job)
        seen.add(job.detector)
    assert {"transgan_dual", "ganomaly", "skip_ganomaly"} <= seen


def planned_alike():
    """Of each board and detector's settings one job, and the words that plan it: label, and what the machine chose."""
    found = {}
    for board, job in committed():
        found.setdefault((board, job.detector, job.preset), job)
    return found


@pytest.mark.parametrize(("board", "name", "label"), planned_alike())
def test_what_is_planned_now_has_the_settings_of_published_boards(board, name, label):
    job = planned_alike()[board, name, label]
    preset, *own = label.split("; ")
    own += [f"backbone={job.pretrained}"] if "backbone" in job.config and job.pretrained else []
    each = entry(REGISTRY, name, preset, [f"{name}.{word}" for word in own], lambda _: None)
    assert each.info.version == job.detector_version
    assert recorded(each.config) == job.config
    assert replace(job, config=recorded(each.config)).key == job.key


@pytest.mark.parametrize("spelt", ["true", "True"])
def test_a_row_is_named_alike_however_a_setting_is_spelt(spelt):
    each = entry(REGISTRY, "f_anogan", "paper", [f"f_anogan.encoder_tanh={spelt}"], lambda _: None)
    assert each.preset == "paper; encoder_tanh=true"


def test_a_later_setting_that_is_set_makes_another_job():
    job = next(job for _, job in committed() if job.detector == "transgan_dual")
    config = REGISTRY.detector(job.detector).Config.model_validate({**job.config, "mode": "unsupervised"})
    other = replace(job, config=recorded(config))
    assert "mode" not in job.config
    assert other.config == {**job.config, "mode": "unsupervised"}
    assert other.key != job.key
    assert variant_of(other) != variant_of(job)


# settings by hand, and what else a plan puts into a job


def test_what_is_set_by_hand_comes_before_the_preset_by_any_name_of_the_detector():
    own = ["skip_attention_gan.width=4", "sagan.lr=0.5", "ganomaly.width=9"]
    each = entry(REGISTRY, "skip_attention_gan", "quick", own, lambda _: None)
    config = each.config
    assert (each.info.name, config.width, config.lr, config.batch_size) == ("sagan", 4, 0.5, 16)
    assert each.preset == "quick; lr=0.5; width=4"


def test_a_job_names_its_weights_and_a_detector_of_two_names_is_planned_once():
    request = Request(detectors=["sagan", "knn", "skip_attention_gan"], categories=["0"], preset="quick")
    jobs = plan(request, REGISTRY).jobs
    found = [(each.detector, each.pretrained, each.preset) for each in jobs]
    assert found == [("sagan", "", "quick"), ("knn", "tf_efficientnet_lite0", "quick")]


def test_a_detector_that_learns_from_labels_stays_one_where_its_images_cannot_be_read():
    def unreadable(category):
        raise AdbenchError("no such image")

    names = {"dataset": SimpleNamespace(name="toy"), "protocol": SimpleNamespace(name="cut", version="1")}
    tasks = SimpleNamespace(fingerprint=unreadable, offer_fingerprint=unreadable, **names)
    for name, supervision in (("logistic", "labelled"), ("knn", "one-class")):
        failed = job_of(entry(REGISTRY, name, "quick", (), lambda _: None), tasks, "0", 0, "fp32")
        assert (failed.supervision, failed.problem) == (supervision, "no such image")


def planned(**asked):
    said = []
    request = Request(**({"detectors": ["mean_image"], "data_root": Path("none")} | asked))
    return plan(request, REGISTRY, said.append).jobs, said


def test_what_is_asked_for_twice_is_one_job():
    jobs, _ = planned(detectors=["mean_image", "mean_image"], categories=["1", "1", "0"], seeds=[3, 3])
    assert [(job.category, job.seed) for job in jobs] == [("1", 3), ("0", 3)]


def test_a_value_may_hold_an_equals_sign():
    with pytest.raises(AdbenchError, match=r"^--set ganomaly\.epochs=a=b: Input should be a valid integer"):
        entry(REGISTRY, "ganomaly", "paper", ["ganomaly.epochs=a=b"], print)


def test_deeply_nested_text_is_a_text():
    with pytest.raises(AdbenchError, match=r"^--set ganomaly\.epochs=\[\[\["):
        entry(REGISTRY, "ganomaly", "paper", ["ganomaly.epochs=" + "[" * 100_000], print)

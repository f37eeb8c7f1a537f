"""A detector whose scores change gets another version, or results of two methods would share a row.

`scores_of_versions.json` has the scores of each detector's version after a tiny training; after raising a version, or
where a mend moves no more than rounding does, ``python tests/test_versions.py`` writes it anew.
"""

import json
from pathlib import Path

import pytest
import torch
from test_conformance import TINY

from adbench_tgan.registry import FIRST_PARTY, Registry
from adbench_tgan.testing.subject import subject
from adbench_tgan.testing.trial import Trial
from adbench_tgan.torch_settings import process_to_itself

KNOWN = Path(__file__).with_name("scores_of_versions.json")
OPTIONS = {"anotrans": {"attention": "tf"}}  # other networks under the same name and version
REGISTRY = Registry.discover()
OURS = [name for name in REGISTRY.names("detector") if REGISTRY.distribution(name) == FIRST_PARTY]
CASES = [*OURS, *(f"{name} {OPTIONS[name]}" for name in OPTIONS)]
# Of the largest score: what other CPUs, threads and releases of one torch were seen to change stays below half of it.
TOLERANCE = {"anomalib_stfpm": 0.5, "f_anogan": 0.15}
USUAL = 0.005
TORCH = ".".join(torch.__version__.split(".")[:2])


def found(case):
    """The version of a detector, and its scores of ten images after a training on forty."""
    name, _, options = case.partition(" ")
    settings = TINY.get(name, {}) | (OPTIONS[name] if options else {})
    who = subject(name, settings=settings or None)
    with process_to_itself():
        scores = Trial(who, (1, 32, 32), None).scores
    return {"version": who.info.version, "scores": [float(f"{score:.6g}") for score in scores]}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_version(case):
    known, now = json.loads(KNOWN.read_text()), found(case)
    assert set(known["detectors"]) == set(CASES)
    then = known["detectors"][case]
    assert now["version"] == then["version"], "raised; write the scores of this version"
    if known["torch"] != TORCH:
        pytest.skip(f"the scores kept are of torch {known['torch']}, whose random numbers may be others")
    allowed = TOLERANCE.get(case, USUAL) * max(map(abs, then["scores"]))
    assert now["scores"] == pytest.approx(then["scores"], rel=0, abs=allowed), "raise the version"


if __name__ == "__main__":
    lines = ",\n".join(f"  {json.dumps(case)}: {json.dumps(found(case))}" for case in CASES)
    KNOWN.write_text(f'{{"torch": "{TORCH}", "detectors": {{\n{lines}\n}}}}\n')

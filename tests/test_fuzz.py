"""A bounded time of fuzzing each reader of strangers' bytes; ``python tests/fuzz/run.py`` does it for longer."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adbench_tgan.errors import AdbenchError

FOLDER = Path(__file__).parent / "fuzz"
sys.path.append(str(FOLDER))

from targets import KINDS, SEEDS, TARGETS, attempt, mutated  # noqa: E402

EDITS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(KINDS), st.binary(max_size=8)), max_size=6)
HALF = settings(
    max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", TARGETS)
def test_a_sound_input_is_read(name, tmp_path):
    """Or the fuzzers would set out from nowhere."""
    for number, seed in enumerate(SEEDS[name]):
        place = tmp_path / str(number)
        place.mkdir()
        if name == "tree":
            attempt(TARGETS[name], seed, place)
        else:
            TARGETS[name](seed, place)


@pytest.mark.parametrize("name", TARGETS)
def test_a_changed_input_is_read_or_refused_in_one_line(name):
    @HALF
    @given(st.sampled_from(SEEDS[name]), EDITS)
    def changed(seed, edits):
        with TemporaryDirectory() as place:
            attempt(TARGETS[name], mutated(seed, edits), Path(place))

    changed()


@HALF
@given(st.text())
def test_any_text_is_a_setting_or_refused(text):
    with TemporaryDirectory() as place:
        attempt(TARGETS["setting"], f"latent={text}".encode(errors="replace"), Path(place))


def test_a_target_that_fails_is_told_from_one_that_refuses(tmp_path):
    def breaks(data, place):
        raise KeyError("x")

    def refuses(data, place):
        raise AdbenchError("no")

    with pytest.raises(KeyError):
        attempt(breaks, b"", tmp_path)
    attempt(refuses, b"", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_the_steered_fuzzer_runs(tmp_path):
    words = [
        sys.executable,
        FOLDER / "run.py",
        "--seconds",
        "2",
        "--target",
        "published",
        "--crashes",
        tmp_path,
    ]
    done = subprocess.run([*words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.startswith("by atheris\npublished")
    assert done.stdout.endswith(" 0 crashes\n")

"""Which code made a number: told alike wherever a job runs, without naming anybody's files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from make_plugin import detector_source, installed, make_plugin, offer

from adbench_tgan import codebase
from adbench_tgan.codebase import (
    UNKNOWN,
    code_behind,
    commit_of,
    packages_of,
    shown_code,
    sources_hash,
    state_of,
)
from adbench_tgan.registry import Registry

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on this machine")


def git(folder: Path, *words: str) -> str:
    """Run git as nobody in particular."""
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@nowhere", "-c", "commit.gpgsign=false")
    here = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", *who, *words], cwd=folder, env=here, check=True, capture_output=True, text=True
    ).stdout


def package(root: Path, name: str, text: str = "x = 1\n") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "part.py").write_text(text)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package that is tracked by git."""
    folder = package(tmp_path / "tree", "tracked")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "--quiet", "--message", "first")
    return folder


def fresh(folder: Path) -> tuple[str, bool | None]:
    """`commit_of` as another process would find it."""
    return commit_of.__wrapped__(folder)


@needs_git
def test_the_commit_of_a_checkout_and_whether_it_was_changed(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD").strip()
    assert fresh(checkout) == (head, False)
    (checkout.parent / "runs.csv").write_text("what git does not track is no change")
    assert fresh(checkout) == (head, False)
    (checkout / "part.py").write_text("x = 2\n")
    assert fresh(checkout) == (head, True)


@needs_git
def test_a_worktree_is_a_checkout_too_and_a_hooks_settings_are_not_ours(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(checkout, "worktree", "add", "--quiet", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    head = git(checkout, "rev-parse", "HEAD").strip()
    assert fresh(tmp_path / "other/tracked") == (head, False)


@needs_git
def test_a_program_that_the_checkout_would_have_git_start_is_not_started(
    checkout: Path, tmp_path: Path
) -> None:
    (checkout.parent / ".git/info/attributes").write_text("* filter=own\n")
    git(checkout, "config", "filter.own.clean", f"touch {tmp_path / 'started'}; cat")
    (checkout / "part.py").write_text("x = 2\n")
    assert fresh(checkout) == (git(checkout, "rev-parse", "HEAD").strip(), None)
    assert not (tmp_path / "started").exists()


@needs_git
def test_an_environment_inside_somebody_elses_checkout_has_no_commit(checkout: Path) -> None:
    assert fresh(package(checkout.parent / ".venv/site-packages", "elsewhere")) == ("", None)


@needs_git
def test_git_that_is_missing_or_slow_or_refuses_is_unknown_and_no_error(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codebase, "PATIENCE", 0.0)
    assert fresh(checkout) == (UNKNOWN, None)
    monkeypatch.undo()
    (checkout.parent / ".git/HEAD").write_text("nonsense")
    assert fresh(checkout) == (UNKNOWN, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fresh(checkout) == (UNKNOWN, None)


def test_what_is_in_no_checkout_has_no_commit_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codebase, "_git", lambda *_: pytest.fail("git was asked"))
    assert fresh(package(tmp_path, "plain")) == ("", None)


def test_the_hash_is_of_names_and_bytes_wherever_they_lie(tmp_path: Path) -> None:
    def found(place: str, text: str = "x = 1\n", part: str = "part.py") -> str | None:
        folder = package(tmp_path / place, "hashed", text)
        (folder / "part.py").rename(folder / part)
        (folder / "data.bin").write_text(place)  # no source
        with installed(tmp_path / place):
            return sources_hash.__wrapped__(("hashed",))

    first = found("here")
    assert re.fullmatch("[0-9a-f]{64}", str(first))
    assert found("there") == first
    assert found("edited", "x = 2\n") != first
    assert found("renamed", part="other.py") != first
    assert sources_hash(("no_such_package",)) is None


def test_a_process_keeps_to_what_it_found_first(tmp_path: Path) -> None:
    folder = package(tmp_path, "edited_later")
    with installed(tmp_path):
        before = sources_hash(("edited_later",))
        (folder / "part.py").write_text("x = 3\n")
        assert sources_hash(("edited_later",)) == before != sources_hash.__wrapped__(("edited_later",))


def test_our_own_detectors_come_with_all_our_packages() -> None:
    registry = Registry.discover()
    assert registry.distribution("ganomaly") == "adbench-tgan"
    found = packages_of(registry.detector("ganomaly"), "adbench-tgan")
    assert found == {"adbench_baselines", "adbench_plugins"}


def test_a_strangers_detector_comes_with_the_packages_that_its_distribution_names(tmp_path: Path) -> None:
    make_plugin(
        tmp_path, "far_plugin", offer("far", "far_detector:Bright"), files={"far_detector": detector_source()}
    )
    package(tmp_path, "far_layers")
    with installed(tmp_path):
        registry = Registry.discover()
        detector = registry.detector("far")
        assert registry.distribution("far") == "far_plugin-dist"
        assert packages_of(detector, "far_plugin-dist") == {"far_detector"}
        named = tmp_path / "far_plugin_dist-1.0.dist-info/top_level.txt"
        named.write_text("far_plugin\nfar_detector\nfar_layers\n")
        assert packages_of(detector, "far_plugin-dist") == {"far_plugin", "far_detector", "far_layers"}
        assert packages_of(detector, "") == {"far_detector"}
        code = code_behind(detector, "far_plugin-dist")
    assert code["framework"] != code["detector"]
    assert str(tmp_path) not in json.dumps(code)
    assert set(code) == {"commit", "changed", "framework", "detector"}


def test_a_file_that_is_not_installed_is_hashed_alone(tmp_path: Path) -> None:
    path = tmp_path / "lonely_detector.py"
    path.write_text(detector_source("Lonely"))
    (tmp_path / "beside.py").write_text("x = 1\n")
    registry = Registry.discover([path])
    detector = registry.detector("lonely")
    try:
        (name,) = packages_of(detector, registry.distribution("lonely"))
        assert [name for name, _ in codebase._files(name)] == ["lonely_detector.py"]
        assert sources_hash((name,))
    finally:
        sys.modules.pop(detector.__module__)


def test_code_in_a_few_words() -> None:
    code = {"commit": "0123456789abcdef", "changed": True, "framework": "f" * 64, "detector": "d" * 64}
    assert shown_code({"code": code}) == "commit 0123456789ab with changes, sources ffffffffffff"
    assert shown_code({"code": code | {"commit": "", "changed": None}}) == "sources ffffffffffff"
    assert shown_code({"code": {"commit": UNKNOWN, "changed": None, "framework": None}}) == "commit unknown"
    assert state_of({"code": code}) == ("f" * 64, "d" * 64)


@pytest.mark.parametrize("machine", [{}, {"code": None}, {"code": "text"}, {"code": []}])
def test_of_results_that_do_not_say_nothing_is_shown(machine: dict[str, object]) -> None:
    assert (shown_code(machine), state_of(machine)) == ("", ("", ""))

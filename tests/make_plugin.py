"""Distributions written to disk as pip would leave them, for tests of plugins: no pip, no network."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest


def make_plugin(
    root: Path, module: str, source: str, *, files: Mapping[str, str] | None = None, entry: str | None = None
) -> Path:
    """Write the distribution ``MODULE-dist`` 1.0 into `root`, with `module` as its entry point.

    `source` is the module's text, `files` are further modules by name, and `entry` replaces what the entry point
    names.
    """
    texts = {f"{module}.py": source} | {f"{name}.py": text for name, text in (files or {}).items()}
    folder = f"{module}_dist-1.0.dist-info"
    texts[f"{folder}/METADATA"] = f"Metadata-Version: 2.1\nName: {module}-dist\nVersion: 1.0\n"
    texts[f"{folder}/entry_points.txt"] = f"[adbench]\n{module} = {entry or module}\n"
    texts[f"{folder}/RECORD"] = "".join(f"{name},,\n" for name in (*texts, f"{folder}/RECORD"))
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return root


@contextmanager
def installed(root: Path) -> Iterator[Path]:
    """Let this process find what is in `root`, and forget it afterwards."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        importlib.invalidate_caches()
        yield root
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(root)):
            del sys.modules[name]


DETECTOR = '''
    import torch
    from adbench_tgan import Detector

    class {name}(Detector):
        """The mean of an image: as bright as it is anomalous."""

        def fit(self, train):
            {fit}
            return self

        def score(self, images):
            return images.float().mean((1, 2, 3))
'''


def detector_source(name: str = "Bright", fit: str = "pass") -> str:
    """A module with a detector; `fit` is what happens when it is trained."""
    return dedent(DETECTOR).format(name=name, fit=fit)


def offer(name: str, target: str, **more: object) -> str:
    """A plugin module that offers one detector."""
    extra = "".join(f", {key}={value!r}" for key, value in more.items())
    return dedent(f"""
        from adbench_tgan import DetectorInfo, hookimpl

        @hookimpl
        def adbench_detectors():
            yield DetectorInfo(name={name!r}, target={target!r}{extra})
    """)

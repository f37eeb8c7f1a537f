"""``adbench new-plugin``: the project of a new detector, complete and installable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adbench_tgan.commands.options import registry


def new_plugin(
    name: Annotated[
        str, typer.Argument(help="Name of the distribution; adbench-mine has a detector named mine.")
    ],
    out: Annotated[Path, typer.Option(help="Folder in which to create the project.")] = Path("."),
) -> None:
    """Create a project for a new detector. Package, tests, README, tox and CI; nothing is overwritten."""
    from adbench_tgan.scaffold import names_of, write_plugin

    names = names_of(name, registry().names("detector"))
    folder = write_plugin(names, out)
    print(f"wrote {folder}; next:")
    print(f"  cd {folder}")
    print("  python -m pip install -e .")
    print(f"  adbench run --detectors {names.detector},pca,random")
    print(f"the method is in {Path('src') / names.package / 'detector.py'}; `tox run` tests the project")

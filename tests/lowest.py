"""Write what pyproject.toml asks for at least, as constraints for pip: `python tests/lowest.py FILE`; see tox.ini."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lowest() -> list[str]:
    """``name==version`` of each dependency, but for those of development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name in extras if name != "dev" for each in extras[name])]
    return [each.replace(">=", "==") for each in wanted]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join([*lowest(), ""]))

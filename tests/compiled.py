"""Compile a new environment's packages on all cores, once: pip does so on one, which takes longer than to download them."""

import compileall
import sys
import sysconfig
from pathlib import Path

done = Path(sys.prefix) / "compiled"
if not done.exists():
    compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)  # some templates are no Python
    done.touch()

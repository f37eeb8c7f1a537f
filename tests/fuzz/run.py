"""Fuzz the readers of strangers' files: ``python tests/fuzz/run.py --seconds 600``.

By atheris, which steers by the code that an input reaches, where it is installed (Linux, ``pip install atheris``);
else by random changes of sound inputs. Prints the inputs tried and the crashes, which are kept as files.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=60, help="of all targets together")
    words.add_argument("--target", action="append", help="one reader; may be given several times")
    words.add_argument("--plain", action="store_true", help="without atheris")
    words.add_argument(
        "--crashes", type=Path, default=Path("crashes"), help="where inputs that crash are kept"
    )
    words.add_argument("--child", help=argparse.SUPPRESS)
    asked = words.parse_args()
    steered = not asked.plain and importlib.util.find_spec("atheris") is not None
    if asked.child:
        return steer(asked.child, asked.seconds, asked.crashes)
    names = asked.target or every()
    asked.crashes.mkdir(parents=True, exist_ok=True)
    print("by atheris" if steered else "by random changes", flush=True)
    total = failed = 0
    for name in names:
        tried, crashes = (parent if steered else shake)(name, asked.seconds / len(names), asked.crashes)
        print(f"{name:10} {tried:10,} inputs  {crashes} crashes", flush=True)
        total, failed = total + tried, failed + crashes
    print(f"{'all':10} {total:10,} inputs  {failed} crashes")
    return 1 if failed else 0


def every() -> list[str]:
    from targets import TARGETS

    return list(TARGETS)


def parent(name: str, seconds: float, crashes: Path) -> tuple[int, int]:
    """Let a child fuzz one target: libFuzzer ends the process that it runs in."""
    words = [sys.executable, __file__, "--child", name, "--seconds", str(seconds), "--crashes", str(crashes)]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    tried = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    if done.returncode or tried is None:
        print(done.stderr[-3000:], file=sys.stderr)
    return int(tried[1]) if tried else 0, int(done.returncode != 0)


def steer(name: str, seconds: float, crashes: Path) -> int:
    import atheris

    with atheris.instrument_imports(include=["adbench_tgan"], enable_loader_override=False):
        import targets

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(targets.SEEDS[name]):
            Path(corpus, str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={max(1, round(seconds))}",
            f"-artifact_prefix={crashes}/{name}-",
            "-timeout=20",
        ]
        options += ["-print_final_stats=1", "-rss_limit_mb=4096", "-max_len=65536", corpus]
        atheris.Setup([sys.argv[0], *options], lambda data: once(name, data))
        atheris.Fuzz()
    return 0


def shake(name: str, seconds: float, crashes: Path) -> tuple[int, int]:
    """Change sound inputs at random until the time is up or one crashes."""
    from targets import KINDS, SEEDS, mutated

    end, tried, draw = time.monotonic() + seconds, 0, random.Random(name)
    while time.monotonic() < end:
        edits = [
            (draw.random(), draw.choice(KINDS), draw.randbytes(draw.randrange(9)))
            for _ in range(draw.randrange(7))
        ]
        data, tried = mutated(draw.choice(SEEDS[name]), edits), tried + 1
        try:
            once(name, data)
        except Exception as error:
            (crashes / f"{name}-{tried}").write_bytes(data)
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            return tried, 1
    return tried, 0


def once(name: str, data: bytes) -> None:
    from targets import TARGETS, attempt

    with tempfile.TemporaryDirectory() as place:
        attempt(TARGETS[name], data, Path(place))


if __name__ == "__main__":
    sys.exit(main())

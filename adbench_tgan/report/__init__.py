"""The offline HTML page: tables, charts and examples of one dataset under one protocol, in a single file."""

from importlib.util import find_spec

from adbench_tgan.errors import AdbenchError

NEEDED = ("jinja2", "altair", "vl_convert")


def check_extra() -> None:
    """Raise `AdbenchError` if the packages that make pages, which its modules import, are not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise AdbenchError(
            f"a report needs {' and '.join(missing)}; install them with: pip install 'adbench-tgan[report]'"
        )

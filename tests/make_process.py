"""Processes that begin where the command's imports end: forked from a server that has done those once.

They are processes as any other, to be killed and raced. Where nothing may be inherited, a test starts a fresh one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

# What `adbench run` on the digits imports sooner or later.
IMPORTED = ["adbench_tgan.benchmark", "sklearn.datasets", "sklearn.metrics", "torch._dynamo"]


def imported() -> ForkServerContext:
    """Where processes are forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


class Forked:
    """``adbench WORDS`` in a process of its own, whose standard error is `stderr`, to be read line by line."""

    def __init__(self, *words: object, cwd: Path | None = None, first: Callable[[], object] | None = None):
        """Start it in the folder `cwd`; there, `first` is called before the command is."""
        context = imported()
        reader, writer = context.Pipe(duplex=False)
        given = (list(map(str, words)), cwd or Path.cwd(), dict(os.environ), first, writer)
        self.process = context.Process(target=command, args=given)
        self.process.start()
        writer.close()
        self.stderr = os.fdopen(os.dup(reader.fileno()))

    def send(self, kind: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, kind)

    def wait(self) -> int:
        """Its exit status when it has ended, of a killed one minus the signal."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def finish(self) -> str:
        """All that it says, when it has ended well."""
        said = self.stderr.read()
        assert self.wait() == 0, said
        return said


def command(
    words: list[str],
    cwd: Path,
    environment: dict[str, str],
    first: Callable[[], object] | None,
    stderr: Connection,
) -> None:
    """What the process does."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server may have been told to ignore it,
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and the tests, under nohup, this
    sys.argv = ["adbench", *words]
    if first:
        first()
    from adbench_tgan.cli import main

    main()

"""Processes of jobs and checks that begin where the framework's imports end: forked from one that did those alone.

``python -m adbench_tgan.workers.nursery`` is that one. Importing torch takes seconds, a fork some milliseconds. It loads no
plugin and touches no GPU, so its children inherit nothing of a job's.

What a process carries out is a folder, by the `main` of a module such as `worker`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import TextIO
from weakref import WeakSet

# Elsewhere libraries do not survive a fork, and each process imports for itself.
FORKS = sys.platform == "linux"
MOST = 2**16  # bytes of a request
OOM = Path("/proc/self/oom_score_adj")  # of Linux: who is killed for memory
KEPT = 2  # nurseries that wait for more, unless more are at work
END = 1.0  # seconds in which a nursery is gone whose streams have ended
END_OF_JOB = 10.0  # and in which a process is gone that was killed
LOST = 256  # in place of the exit status of a process that was not forked, or whose nursery has died
PATH = "PYTHONPATH"  # may be another for each process: plugins come to lie in other places while a script goes on
IMPORTED = (  # what every job or check imports sooner or later
    "adbench_tgan.data.tasks adbench_tgan.failures adbench_tgan.workers.packing adbench_tgan.registry adbench_tgan.results "
    "adbench_tgan.runner adbench_tgan.scoring adbench_tgan.store.stored adbench_tgan.testing.child adbench_tgan.workers.worker "
    "sklearn.metrics torch._dynamo"
).split()

# --- on the side of those who want a process ----------------------------------------------------------------------


class Child:
    """A process that was asked for: as much of `subprocess.Popen` as is needed."""

    def __init__(self, nursery: Nursery, module: str, folder: Path, path: str):
        """Ask for one in which `module` carries out `folder`, with this ``PYTHONPATH``."""
        self.pid: int | None = None  # until it has begun
        self.returncode: int | None = None  # as of `subprocess.Popen`; `LOST` if there is none
        self.nursery, self.heard = nursery, b""
        stdin, stdout, stderr, status = (os.pipe() for _ in range(4))
        theirs = stdin[0], stdout[1], stderr[1], status[1]
        self.stdin = os.fdopen(stdin[1], "wb")  # never written to: it ends when the process on this side does
        self.stdout, self.stderr = os.fdopen(stdout[0], "rb"), os.fdopen(stderr[0], "rb")
        self.status = os.fdopen(status[0], "rb", buffering=0)
        with suppress(OSError):  # the nursery has died, which is heard when no more comes
            nursery.ask({"module": module, "folder": str(folder), "cwd": os.getcwd(), PATH: path}, theirs)
        close_all(theirs)

    def poll(self) -> int | None:
        """Its exit status, minus the number of a signal that killed it; None while it runs."""
        self._listen(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit status, when it has ended.

        Raises:
            subprocess.TimeoutExpired: after `timeout` seconds.
        """
        until = monotonic() + timeout
        while self.returncode is None:
            if (rest := until - monotonic()) <= 0:
                raise subprocess.TimeoutExpired("a job's process", timeout)
            self._listen(rest)
        return self.returncode

    def _listen(self, seconds: float) -> None:
        """Hear its number and its status, as far as they are there within some seconds."""
        if self.returncode is not None:
            return
        ready = select.poll()
        ready.register(self.status)
        if not ready.poll(seconds * 1000):
            return
        more = self.status.read(MOST)
        self.heard += more
        told = [int(line) for line in self.heard.split(b"\n")[:-1]]
        if told:
            self.pid = told[0]
        if len(told) == 2:
            self.returncode = told[1]
        elif not more:
            self.returncode = LOST
            with suppress(subprocess.TimeoutExpired):  # its streams end a moment before it does
                self.nursery.process.wait(END)
        if self.returncode is not None:
            self.status.close()


class Nursery:
    """A process that forks others, all with its environment but for `PATH`."""

    def __init__(self, env: Mapping[str, str]):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = ours  # it ends when this is closed
        self.children = WeakSet[Child]()  # one that nobody waits for has ended, or will by itself
        self.words = ""
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "adbench_tgan.workers.nursery"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self.said,
                env=env,
                start_new_session=True,  # Ctrl-C is not for it
            )
        self.owner = os.getpid()
        atexit.register(self.end)

    def ask(self, request: Mapping[str, str], descriptors: Sequence[int]) -> None:
        """Send a request for a process, with its three streams and where to tell of it.

        Raises:
            OSError: it is no more.
        """
        socket.send_fds(self.socket, [json.dumps(request).encode()], descriptors)

    def last_words(self) -> str:
        """The last line that it printed, such as why it died."""
        if not self.said.closed:
            self.said.seek(0)
            self.words = "".join(self.said.read().decode(errors="replace").strip().splitlines()[-1:])
        return self.words

    def idle(self) -> bool:
        """Whether nobody waits for a process of it."""
        return all(child.returncode is not None for child in self.children)

    def end(self) -> None:
        """End it at once, and leave nothing of it; in a process that was forked from its owner, the owner's stays."""
        atexit.unregister(self.end)
        self.socket.close()
        if os.getpid() == self.owner:
            self.process.kill()
            self.process.wait()
            self.last_words()  # some of its processes may still be to tell of it
        self.said.close()


_nurseries: dict[tuple[int, frozenset[tuple[str, str]]], Nursery] = {}


def begin(module: str, folder: Path, env: Mapping[str, str]) -> Child | subprocess.Popen[bytes]:
    """A process of its own session in which a module's `main` carries out `folder`, in an environment.

    Its ``PYTHONPATH`` is all that it finds modules by, as `own_environment` makes it.
    """
    if not FORKS:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
    key = os.getpid(), frozenset((name, value) for name, value in env.items() if name != PATH)
    known = _nurseries.get(key)
    if known is None or known.process.poll() is not None:
        if known is not None:
            known.end()
        known = _nurseries[key] = Nursery(env)
    child = Child(known, module, folder, env[PATH])
    known.children.add(child)
    idle = [key for key, each in _nurseries.items() if each.idle()]
    for key in idle[: max(0, len(_nurseries) - KEPT)]:
        _nurseries.pop(key).end()
    return child


def own_environment() -> dict[str, str]:
    """This process's own, with its search path."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path if os.path.exists(entry or "."))
    return os.environ | {PATH: path}


def kill(process: Child | subprocess.Popen[bytes]) -> None:
    """Kill one, and all that it started, and do not wait for their end."""
    assert process.stdin is not None
    process.stdin.close()  # ends it too, also one that is still to begin
    process.poll()  # learns its number, if it has begun
    with suppress(ProcessLookupError, PermissionError):
        if process.pid is not None and hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)


def stop(process: Child | subprocess.Popen[bytes]) -> None:
    """Kill one, and all that it started, and wait for its end, but not for ever: a driver may keep it."""
    kill(process)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=END_OF_JOB if process.pid is not None else 0)


# --- on the side of a process -------------------------------------------------------------------------------------


def take_streams() -> TextIO:
    """Keep standard input and output for ourselves, so that a plugin that reads or prints disturbs nothing."""
    life, out = os.dup(0), os.fdopen(os.dup(1), "w", encoding="utf-8")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    threading.Thread(target=end_with_parent, args=(life,), daemon=True).start()
    return out


def end_with_parent(life: int) -> None:
    """End this process and all that it started when the other end of the pipe `life` is gone."""
    while os.read(life, 1):
        pass
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


# --- on its own side ----------------------------------------------------------------------------------------------


def main() -> None:
    """Fork a process for each request, and tell how each ended, until nobody can ask; then end those that run."""
    requests = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    import_all()
    running: dict[int, int] = {}  # by number of the process: where to tell of it
    asked = True
    with selectors.DefaultSelector() as ready:
        ready.register(requests, selectors.EVENT_READ)
        ready.register(endings(), selectors.EVENT_READ)
        while asked or running:
            for key, _ in ready.select():
                if key.fileobj is not requests:
                    os.read(key.fd, MOST)
                elif not fork(requests, running):
                    asked = False
                    ready.unregister(requests)
                    kill_all(running)
            tell_of_ended(running)


def import_all() -> None:
    """Do the imports; what cannot be imported fails in the job that needs it, which says so."""
    for module in IMPORTED:
        with suppress(Exception, SystemExit):
            import_module(module)
    gc.collect()
    gc.freeze()  # so that collecting garbage does not copy what is shared


def endings() -> int:
    """A descriptor that can be read from when a child has ended."""
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writer)
    return reader


def fork(requests: socket.socket, running: dict[int, int]) -> bool:
    """Answer a request; False if there will be no more."""
    message, descriptors, _, _ = socket.recv_fds(requests, MOST, 4)
    if not message:
        return False
    if len(descriptors) < 4:  # there are too many open here; who asked hears that no more comes
        close_all(descriptors)
        return True
    *streams, status = descriptors
    try:
        # Python warns of threads, of which libraries have some that only wait.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            pid = os.fork()
    except OSError as error:  # no memory, or too many processes
        tell(streams[2], f"{error}\n")
        os.close(status)
    else:
        if not pid:
            requests.close()
            close_all([status, *running.values()])
            live(json.loads(message), streams)
        running[pid] = status
        tell(status, f"{pid}\n")
    close_all(streams)
    return True


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def kill_all(running: Iterable[int]) -> None:
    """Kill processes, and all that they started: one in which a call keeps Python's lock does not hear of its end."""
    for pid in running:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def tell(descriptor: int, line: str) -> None:
    """Write a line to someone who may be gone."""
    with suppress(OSError):
        os.write(descriptor, line.encode())


def live(request: Mapping[str, str], streams: Sequence[int]) -> None:
    """What a child does; it does not return."""
    try:
        os.setsid()  # all that the job starts ends with it
        # Where memory runs out it goes first, not the command, nor who forks for all jobs.
        with suppress(OSError):
            OOM.write_text("1000")
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(request["cwd"])
        os.environ[PATH] = request[PATH]
        sys.path[:] = request[PATH].split(os.pathsep)
        import_module(request["module"]).main(Path(request["folder"]))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def tell_of_ended(running: dict[int, int]) -> None:
    """Tell the status of each child that has ended."""
    for pid in list(running):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            tell(running[pid], f"{os.waitstatus_to_exitcode(status)}\n")
            os.close(running.pop(pid))


if __name__ == "__main__":
    main()

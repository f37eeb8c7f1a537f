"""The command ``adbench``: thin, and quick to start, since torch is imported only by the commands that use it."""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from io import TextIOWrapper, UnsupportedOperation
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperOption

from adbench_tgan.commands import audit, bench, boards, check, data, new_plugin, offers, predict, report, run
from adbench_tgan.commands.options import no_url, registry
from adbench_tgan.commands.show import answering, descriptor_aside, fail, warn
from adbench_tgan.errors import AdbenchError
from adbench_tgan.hooks import one_line
from adbench_tgan.text import plain

PATIENCE = 10.0  # seconds for threads that are left when a command has ended: they may be storing something

RUNNING = Path("/proc/loadavg")  # of Linux alone, as are the threads that read GOMP_SPINCOUNT
# Of control groups, version 2 and 1.
RATIONS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))

# What a system's limits make of imports and threads.
LIMITED = re.compile(r"failed to map segment|can't start new thread")

URL = re.compile(r"[a-z][a-z0-9+.-]+:/")  # as a Path writes one; no drive of Windows

app = typer.Typer(
    name="adbench",
    help="A benchmark of visual anomaly detectors whose every number can be checked.",
    epilog="Every command takes --debug, to show a traceback with an error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing boxes takes half as long again as all the rest
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
data_app = typer.Typer(help="Inspect or download a dataset.", no_args_is_help=True)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Take the options that stand before a command."""
    if version:
        from adbench_tgan import __version__

        print(f"adbench-tgan {__version__}")
        raise typer.Exit


class Command(TyperCommand):
    """A command that refuses an empty option and a URL for a path, and says when only the last of two options counts."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command does."""
        given = [word.partition("=")[0] for word in args]
        empty = {word for word, value in pairwise(args) if not value}
        empty |= {word.removesuffix("=") for word in args if word.endswith("=")}
        for option in self.params:
            if empty.intersection(option.opts) and not ctx.resilient_parsing:  # which completion does
                raise AdbenchError(f"{option.opts[0]} is empty; give it a value, or leave it out")
            takes_one = isinstance(option, TyperOption) and not (option.multiple or option.is_flag)
            if takes_one and sum(word in option.opts for word in given) > 1:
                warn(f"note: {option.opts[0]} is given more than once; the last one counts")
        rest = super().parse_args(ctx, args)
        for option in self.params:
            value = ctx.params.get(option.name)
            # Before version 0.27 of typer a path is a text here, of a parameter with a type.
            typed = getattr(getattr(option, "type", None), "name", "") == "path"
            for path in value if isinstance(value, list | tuple) else [value]:
                if (typed or isinstance(path, Path)) and URL.match(str(path)):
                    raise no_url(option.opts[0] if isinstance(option, TyperOption) else "", str(path))
        return rest


COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "audit": audit.audit,
    "publish": boards.publish,
    "verify": boards.verify,
    "compare": boards.compare,
    "bench": bench.bench,
    "list": offers.list_,
    "plugins": offers.plugins,
    "info": offers.info,
    "check": check.check,
    "predict": predict.predict,
    "report": report.report,
    "new-plugin": new_plugin.new_plugin,
}
for called, function in COMMANDS.items():
    app.command(called, cls=Command)(function)
data_app.command("info", cls=Command)(data.info)
data_app.command("fetch", cls=Command)(data.fetch)
app.add_typer(data_app, name="data")


def offered(words: list[str]) -> typer.Typer:
    """The command of ours that `words` begin with, or all of ours and of plugins, of which only the one that is called is imported."""
    offer = copy(app)
    ours = {each.name for each in app.registered_commands} | {each.name for each in app.registered_groups}
    if words and words[0] in ours:  # to make the others would take a tenth of a short command's time
        offer.registered_commands = [each for each in app.registered_commands if each.name == words[0]]
        offer.registered_groups = [each for each in app.registered_groups if each.name == words[0]]
        return offer
    offer.registered_commands = list(app.registered_commands)
    if "--version" in words:
        return offer
    try:
        found = registry(quiet=True)
    except AdbenchError:  # each command that needs plugins says so itself
        return offer
    asked = next((word for word in words if not word.startswith("-")), None)
    for spec, origin in found.offers("command"):
        if spec.name in ours:
            warn(f"command {spec.name!r} of plugin {origin} is left out: adbench has one of that name")
        elif spec.name == asked:
            offer.command(spec.name, help=spec.summary)(found.load("command", spec.name))
        else:
            offer.command(spec.name, help=spec.summary)(lambda: None)
    return offer


def refuse(error: Any) -> NoReturn:
    """End after options that are wrong; a command that asks for another one shows its help."""
    message = error.format_message()
    if error.ctx and message == error.ctx.get_help():
        print(message, file=sys.stderr)
        raise SystemExit(2)
    message = plain(" ".join(message.split())).rstrip(".")
    command = error.ctx.command_path if error.ctx else "adbench"
    fail(f"{message}; {command} --help shows how")


def cores_are_free() -> bool:
    """Whether each thread of ours can have a core to itself now; where nobody can tell, it is no.

    Threads of small networks wait for each other all the time. Spinning while they wait makes training many times slower
    on a core that another program uses, or where CPU time is rationed. Elsewhere sleeping is slower: by a quarter, and
    more than twice on a virtual machine whose host is busy and wakes it late.
    """
    try:
        running = int(RUNNING.read_text().split()[3].split("/")[0])  # on the machine, with this process
        threads = len(os.sched_getaffinity(0))
        rations = {path.read_text().split()[0] for path in RATIONS if path.is_file()}
    except (OSError, AttributeError, IndexError, ValueError):
        return False
    return running - 1 + threads <= (os.cpu_count() or 1) and rations <= {"max", "-1"}


def main() -> None:
    """Run the command line; every error is one line, with a traceback only on ``--debug``."""
    if sys.platform == "win32":  # where files cannot be opened as `places` opens them
        fail("adbench does not run on Windows itself; install and run it in WSL")
    if not cores_are_free():
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    # What Pillow says of a bad image, our error says too.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    try:
        try:
            with answering(in_json="--json" in sys.argv):
                command = offered(sys.argv[1:])
                status = command(prog_name="adbench", standalone_mode=False)
        finally:
            print(end="", flush=True)  # a reader that is gone shows here, not at the interpreter's end
        if status:
            raise SystemExit(status)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        give_up_output()
    except MemoryError:
        fail("out of memory; use smaller images or fewer detectors", 1)
    except typer.Abort:
        raise SystemExit(130) from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a plugin's command may raise anything
        if hasattr(error, "format_message"):  # the library's own base class has moved between its versions
            refuse(error)
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and (reason := hindrance()):
            give_up_output()
            fail(f"cannot write to the standard output ({reason}); redirect it elsewhere")
        if isinstance(error, AdbenchError):
            fail(str(error), error.status)
        if LIMITED.search(str(error)):
            fail(f"{one_line(error)}; raise the limits of memory and processes (ulimit -v, ulimit -u)", 1)
        where = "" if debug else ": --debug shows where"
        fail(f"{one_line(error)}; a mistake in adbench or in a plugin{where}", 1)


def hindrance() -> str:
    """Why nothing can be written to the standard output; empty if it can."""
    try:
        os.write(sys.stdout.fileno(), b"\n")  # less would not show it
    except UnsupportedOperation:  # there is no file behind it
        return ""
    except OSError as error:
        return str(error.strerror)
    return ""


def give_up_output() -> None:
    """Let what is still to be written to the standard output go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def entry() -> None:
    """Be the process ``adbench``, which ends with its command: also where a plugin left threads that do not end."""
    status = 1
    # Streams that were closed: opened in this order each has its own descriptor again.
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (it is open to the end)
    if isinstance(sys.stdout, TextIOWrapper):
        # As for the error stream: a name that cannot be written there is no failure.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with not_left(), descriptor_aside() if "--json" in sys.argv else nullcontext():
            main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        raise
    except KeyboardInterrupt:  # the second one, while the first was dealt with
        status = 130
        raise SystemExit(status) from None
    finally:
        # A second Ctrl-C has nothing left to stop, and would show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if left_running():
            over = threading.Event()
            atexit.register(over.set)  # it comes once all threads have ended
            threading.Thread(target=end, args=(over, status), daemon=True).start()


@contextmanager
def not_left() -> Iterator[None]:
    """Let ``os._exit``, with which a plugin would end the command in silence and even with status 0, raise SystemExit.

    Not in processes that are forked meanwhile: they may end as they like.
    """
    own, leave = os.getpid(), os._exit

    def raising(status: int) -> NoReturn:
        if os.getpid() != own:
            leave(status)
        told = f"os._exit({status!r}) was called; raise an error instead"
        if threading.current_thread() is not threading.main_thread():
            warn(f"note: in thread {threading.current_thread().name} {told}")  # it ends without a word
        raise SystemExit(told)

    os._exit = raising
    try:
        yield
    finally:
        os._exit = leave


def left_running() -> list[threading.Thread]:
    """Threads that the interpreter waits for before it ends."""
    return [each for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]


def end(over: threading.Event, status: int) -> None:
    """End the process, unless all its threads end in time."""
    if over.wait(PATIENCE):
        return
    try:
        names = ", ".join(each.name for each in left_running())
        warn(f"note: threads that a plugin left running are not waited for: {names}")
        sys.stderr.flush()
    finally:
        os._exit(status)

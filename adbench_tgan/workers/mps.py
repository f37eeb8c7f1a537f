"""NVIDIA's Multi-Process Service (MPS), with which kernels of several processes run on one GPU at the same time.

Without it processes take turns, and however many share a GPU, it does the work of one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from adbench_tgan.machine import PIPES, mps_folder

CONTROL = "nvidia-cuda-mps-control"
PLACES = ("/usr/local/nvidia/bin", "/usr/local/cuda/bin")  # where it is in containers, beside the search path
PATIENCE = 10.0  # seconds for MPS to start, and to end


@contextmanager
def side_by_side(warn: Callable[[str], None]) -> Iterator[Mapping[str, str]]:
    """What to add to the environment of processes, so that they use the GPU at the same time; nothing if they can't.

    An MPS that runs already is used and left alone. Else one of our own is started, which ends with this block, or
    with this process however that ends. Where that fails, `warn` is told.
    """
    if folder := mps_folder():
        yield {PIPES: folder}
        return
    program = shutil.which(CONTROL, path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    if program is None:
        warn(
            f"{CONTROL} is not installed: jobs take turns on the GPU, which is no faster than one after another"
        )
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="adbench-mps-", ignore_cleanup_errors=True) as folder:
        own = {PIPES: folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        if problem := _start(program, own):
            warn(f"{CONTROL} does not start ({problem}): jobs take turns on the GPU")
            yield {}
            return
        # A shell that ends MPS when its input does: when it is closed here, or when this process is gone. It is the
        # shell that removes the folder then.
        end = subprocess.Popen(
            ["/bin/sh", "-c", 'cat > /dev/null; echo quit | "$0"; rm -rf -- "$1"', program, folder],
            env=os.environ | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield own
        finally:
            assert end.stdin is not None
            end.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                end.wait(PATIENCE)


def _start(program: str, own: Mapping[str, str]) -> str:
    """Start the daemon; why it does not, if so."""
    try:
        # All GPUs under their own numbers: the processes, which see what they are given, go by these.
        every = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        done = subprocess.run(
            [program, "-d"],
            env={**every, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    return f"exit status {done.returncode}" if done.returncode else ""

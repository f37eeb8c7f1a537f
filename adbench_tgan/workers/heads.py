"""The head of a Ray cluster, and whether it is there: Ray's own calls would hang for minutes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from time import monotonic, sleep
from typing import Any

from adbench_tgan.errors import AdbenchError
from adbench_tgan.interrupts import within

ANSWER = 10.0  # seconds that a cluster may take to answer
JOINING = 30.0  # seconds that it may take to say that it is one
GONE = 20.0  # seconds without one after which the head is gone: Ray itself waits for 60
PAUSE = 0.5  # seconds between two looks at one that does not answer


class Head:
    """The machine that a cluster hangs on. Once it is gone Ray's calls hang, and after a minute Ray ends this process."""

    def __init__(self, ray: Any):
        self.ray, self.address = ray, str(ray.get_runtime_context().gcs_address)
        self.is_there = True

    def ask(self, question: Callable[..., int], *about: Any) -> int:
        """What the cluster answers; it is asked again where an answer hangs.

        Raises:
            AdbenchError: as for `wait_for`.
        """
        answers = list[int]()
        while not answers:
            self.wait_for()
            within(ANSWER, lambda: answers.append(question(*about)))
        return answers[0]

    def wait_for(self) -> None:
        """Return when it takes connections, which it may not for a moment.

        Raises:
            AdbenchError: it has not for `GONE` seconds.
        """
        until = monotonic() + GONE
        while (reason := unanswered(self.address)) and monotonic() < until:
            sleep(PAUSE)
        if reason:
            self.is_there = False
            raise AdbenchError(
                f"the Ray cluster at {self.address} is gone ({reason}); start it and run the same command again"
            )

    def leave(self) -> None:
        """Let the cluster go; where it is gone that takes a while, and might hang."""
        if self.is_there:
            self.ray.shutdown()
        else:
            within(ANSWER, self.ray.shutdown)


def check_answers(ray: Any, address: str) -> None:
    """Refuse an address at which nobody listens, or something else than a head: Ray itself would try for minutes.

    Raises:
        AdbenchError: it is one, or none at all.
    """
    if address == "auto":
        return
    _, colon, port = address.rpartition(":")
    if "/" in address or not colon or not port.isdecimal():
        raise AdbenchError(f"--address {address}: write it as auto, or HOST:PORT of the cluster's head")
    reason = unanswered(address)
    client = getattr(getattr(ray, "_raylet", None), "GcsClient", None)  # another version of Ray has none
    if not reason and client and not within(JOINING, partial(client, address=address)):
        reason = "something else listens there"
    if reason:
        raise AdbenchError(
            f"--address {address}: no Ray cluster answers ({reason}); start one with 'ray start --head'"
        )


def unanswered(address: str) -> str:
    """Why nothing can be connected to at HOST:PORT; empty if it can."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""

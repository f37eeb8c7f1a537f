"""What the two hooks about jobs do: a line each in a file, where one is asked for."""

import os

from adbench_tgan.jobs import Job


def note(event: str, job: Job) -> None:
    """Append to the file that $ADBENCH_EXAMPLE_LOG names; without it nothing is written."""
    if path := os.environ.get("ADBENCH_EXAMPLE_LOG"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{event} {job}\n")

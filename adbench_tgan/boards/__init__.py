"""Published leaderboards: folders of tables that anyone can recompute from the scores beside them. No torch needed."""

from adbench_tgan.boards.board import Basis, Board, assemble, tabulate
from adbench_tgan.boards.choice import Choice
from adbench_tgan.boards.folder import basis, check_name, publish, put_back, read, read_content
from adbench_tgan.boards.gather import check_lost, from_runs, store_of
from adbench_tgan.boards.part import Part
from adbench_tgan.boards.rerun import rerun
from adbench_tgan.boards.settled import settled
from adbench_tgan.boards.soundness import impossible, impure
from adbench_tgan.boards.timings import find_timings, verify_timing
from adbench_tgan.boards.verify import (
    Finding,
    altered,
    find_audits,
    find_boards,
    folders_in,
    no_board,
    refuse,
    unsound,
    verify,
    verify_audit,
)

__all__ = [
    "Basis",
    "Board",
    "Choice",
    "Finding",
    "Part",
    "altered",
    "assemble",
    "basis",
    "check_lost",
    "check_name",
    "find_audits",
    "find_boards",
    "find_timings",
    "folders_in",
    "from_runs",
    "impossible",
    "impure",
    "no_board",
    "publish",
    "put_back",
    "read",
    "read_content",
    "refuse",
    "rerun",
    "settled",
    "store_of",
    "tabulate",
    "unsound",
    "verify",
    "verify_audit",
    "verify_timing",
]

"""What the kernel says of a process, whosever it is: its state, processor time, memory, age.

Reads /proc/PID/stat, proc(5), and nothing else.
"""

from __future__ import annotations

import os
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")  # a second
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes


class Stat(NamedTuple):
    """One process, at one moment."""

    state: str  # R: runs, S: sleeps, T: stopped, Z: has ended; a letter
    cpu: float  # seconds of processor time
    resident: int  # bytes of memory, pages shared with others included
    began: float  # in seconds of CLOCK_BOOTTIME


def read(pid: int) -> Stat | None:
    """What there is to know of a process; None if it has ended, or is hidden from us."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Behind the name, which may hold anything, begins the third field.
            fields = file.read().rpartition(b")")[2].split()
        return Stat(
            fields[0].decode(),
            (int(fields[11]) + int(fields[12])) / TICKS,
            int(fields[21]) * PAGE,
            int(fields[19]) / TICKS,
        )
    except (OSError, ValueError, IndexError):
        return None

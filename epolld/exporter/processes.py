"""What the kernel says of a process: processor time, memory, descriptors. Reads /proc alone."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcessFacts(NamedTuple):
    """One process; None for what cannot be known."""

    cpu: float  # seconds
    resident: int  # bytes
    descriptors: int | None
    descriptors_limit: int | None


def look(pid: int) -> ProcessFacts | None:
    """What there is to know of a process; None if it has ended."""
    folder = f"/proc/{pid}"
    try:
        with open(f"{folder}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / TICKS
        return ProcessFacts(cpu, int(fields[21]) * PAGE, _descriptors(folder), _limit(folder))
    except (OSError, ValueError, IndexError):
        return None


def _descriptors(folder: str) -> int | None:
    """How many are open. From Linux 6.2 on the folder's size says it, to everybody; before, only
    who may look into the folder can count them, which a process that has changed its user forbids.
    """
    try:
        return os.stat(f"{folder}/fd").st_size or len(os.listdir(f"{folder}/fd"))
    except OSError:
        return None


def _limit(folder: str) -> int | None:
    """The most that it may open."""
    try:
        with open(f"{folder}/limits") as file:
            found = re.search(r"^Max open files +(\d+)", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None

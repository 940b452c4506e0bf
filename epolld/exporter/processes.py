"""What the exporter shows of a process: processor time, memory, descriptors. Reads /proc alone."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from epolld.host import procstat


class ProcessFacts(NamedTuple):
    """One process; None for what cannot be known."""

    cpu: float  # seconds
    resident: int  # bytes
    descriptors: int | None
    descriptors_limit: int | None


def look(pid: int) -> ProcessFacts | None:
    """What there is to know of a process; None if it has ended."""
    stat = procstat.read(pid)
    if stat is None:
        return None
    folder = f"/proc/{pid}"
    return ProcessFacts(stat.cpu, stat.resident, _descriptors(folder), _limit(folder))


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

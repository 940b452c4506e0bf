"""What /proc says about processes: what the testing kit reads, and what only our tests ask for."""

import os
from pathlib import Path

from epolld.testing.processes import (
    Worker,
    descriptors,
    eventually,
    in_session,
    listeners,
    status,
    title,
    wait_ended,
    workers_among,
)

__all__ = [
    "Worker",
    "cpu_seconds",
    "descriptors",
    "eventually",
    "in_session",
    "listeners",
    "parent",
    "status",
    "terminal",
    "title",
    "wait_ended",
    "workers_among",
]


def parent(pid: int) -> int:
    """Whose child it is."""
    return int(status(pid)["PPid"])


def terminal(pid: int) -> int:
    """The device number of the controlling terminal; 0 without one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])


def cpu_seconds(pid: int) -> float:
    """Processor time used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

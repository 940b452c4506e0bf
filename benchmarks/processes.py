"""What /proc tells of a server: its processes, CPU time, memory and connections.

Reads only; starts and ends nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
ESTABLISHED = "01"  # include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU time since the processes began. `run` is exact; the split comes in ticks."""

    run: int  # ns on a core, from schedstat; of threads that live
    user: int  # ticks; of ended threads and children, too
    system: int  # ticks, the same

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(
            self.run - earlier.run, self.user - earlier.user, self.system - earlier.system
        )

    @property
    def user_share(self) -> float:
        """The part of the time spent outside the kernel, 0 to 1."""
        return self.user / max(1, self.user + self.system)

    @property
    def ticked(self) -> float:
        """ns by ticks of 10 ms: for a server whose threads come and go."""
        return (self.user + self.system) * 1e9 / TICKS


def family(pid: int) -> list[int]:
    """The process and all that descend from it, itself first."""
    parents: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:  # grows while it is walked
        found += sorted(parents.get(member, []))
    return found


def workers(master: int) -> list[int]:
    """The children of an epolld master that serve, by their titles."""
    return [pid for pid in family(master)[1:] if "worker" in _command(pid)]


def cpu_time(pids: Iterable[int]) -> CpuTime:
    """The sum over all threads of these processes."""
    run = user = system = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended since
            for task in (PROC / str(pid) / "task").iterdir():
                run += int((task / "schedstat").read_text().split()[0])
        if fields := _stat(pid):
            user += int(fields[11]) + int(fields[13])  # its own, and of children that ended
            system += int(fields[12]) + int(fields[14])
    return CpuTime(run, user, system)


def pss(pid: int) -> int:
    """Proportional set size in bytes: shared pages count in parts."""
    text = (PROC / str(pid) / "smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert match, "smaps_rollup has no Pss line"
    return int(match[1]) * 1024


def descriptors(pid: int) -> int:
    """How many descriptors the process has open; 0 if it is gone."""
    try:
        return os.stat(PROC / str(pid) / "fd").st_size or len(os.listdir(PROC / str(pid) / "fd"))
    except OSError:  # st_size counts them since Linux 6.2; before, it is 0
        return 0


def title(pid: int) -> str:
    """What `ps` shows of the process; empty if it is gone."""
    return _command(pid).rstrip("\0")


def connections(pids: Iterable[int], port: int) -> dict[int, int]:
    """How many established connections to the local port each process holds."""
    return {pid: len(inodes) for pid, inodes in held(pids, port).items()}


def held(pids: Iterable[int], port: int) -> dict[int, set[str]]:
    """The inodes of these connections; one may be held by several processes."""
    inodes = _established(port)
    return {pid: inodes.intersection(_sockets(pid)) for pid in pids}


def _established(port: int) -> set[str]:
    """Inodes of the sockets whose local port is this one."""
    found = set()
    for line in (PROC / "net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
            found.add(fields[9])
    return found


def _sockets(pid: int) -> Iterable[str]:
    """Inodes of the sockets that the process has open; none if it is gone."""
    try:
        entries = list(os.scandir(PROC / str(pid) / "fd"))
    except OSError:
        return
    for entry in entries:
        try:
            target = os.readlink(entry.path)
        except OSError:
            continue  # closed since
        if target.startswith("socket:["):
            yield target[8:-1]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name (state first); empty if it is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_text()
    except OSError:
        return ""

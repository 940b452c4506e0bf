"""What /proc says about processes: titles, sessions, descriptors. Reads, changes nothing."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

TITLE = re.compile(r"(?P<name>.+): worker (?P<slot>\d+) gen (?P<generation>\d+)(?: \((\w+)\))?$")


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process as `ps` shows it."""

    pid: int
    slot: int
    generation: int
    state: str  # "" while it serves


def eventually(look: Callable[[], T], timeout: float = 5.0, what: str = "") -> T:
    """What `look` returns once it is true; for states that tell nobody that they changed."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout}s: {what or look}; now {found!r}"
        time.sleep(0.01)
    return found


def in_session(session: int) -> list[int]:
    """The processes of a session that have not ended; they stay in it when they lose a parent."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is(pid, session)]


def _is(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session and status(pid)["State"][0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError, KeyError):
        return False


def title(pid: int) -> str:
    """The command line; "" of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def workers_among(pids: Iterable[int]) -> list[Worker]:
    """Those with a worker's title, by generation and slot."""
    found = []
    for pid in pids:
        match = TITLE.match(title(pid))
        if match:
            found.append(Worker(pid, int(match[2]), int(match[3]), match[4] or ""))
    return sorted(found, key=lambda worker: (worker.generation, worker.slot))


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {key: value.strip() for key, _, value in (x.partition(":") for x in text.splitlines())}


def descriptors(pid: int) -> dict[int, str]:
    """What each descriptor is, as readlink shows it."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def listeners(pid: int) -> list[int]:
    """The descriptors that are listening sockets."""
    inodes = listening(pid)
    return [fd for fd, what in descriptors(pid).items() if what in inodes]


def listening(pid: int) -> set[str]:
    """All listening sockets of a process' network, as readlink shows them. Slow where there are
    tens of thousands of connections, of whomever."""
    inodes = set()
    for table, state, listening, inode in (
        ("tcp", 3, "0A", 9),
        ("tcp6", 3, "0A", 9),
        ("unix", 3, "00010000", 6),
    ):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[state] == listening:
                inodes.add(f"socket:[{fields[inode]}]")
    return inodes


def wait_ended(pid: int, timeout: float = 5.0) -> None:
    """Wait for the end of a process that may be anybody's child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], timeout)[0], f"{pid} ({title(pid)}) goes on"
    finally:
        os.close(fd)

"""As many connections as the machine gives: held, served among them, and moved by one HUP.

A process may have 20,000 descriptors, so both the workers and the clients are many, and the clients
come from many addresses of 127.0.0.0/8, of which each has its own ports. Knows nothing of tables:
`measures/crowd.py` is the one that tells.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import loads
import processes
import servers

A_CLIENT, A_WORKER = 16_000, 15_000  # connections of a process, below its limit of descriptors
LEAST_WORKERS, BUSY, THINK_US = 8, 100, 10_000
QUIET = 10.0  # seconds in which nothing changes
MOVED_WITHIN = 600.0  # seconds
SOURCES = 16  # addresses of a client process
ROOM = 8_000  # bytes for a connection, both ends and both programs: what must be free before
SETTINGS = """\
  max_connections: 19000
  graceful_timeout: 5m
  boot_timeout: 2m
  stuck_timeout: 5m
"""
OPTIONS = "    backlog: 4096\n    idle_timeout: 0s\n"


@dataclass
class Crowd:
    """What was found. Times in seconds, latencies in ms, memory in bytes a connection."""

    wanted: int
    workers: int
    clients: int
    broke: str = "nothing"  # what broke first
    held: int = 0
    connect: float = 0.0
    program: float = 0.0  # PSS of the workers
    kernel: float = 0.0  # both ends
    quiet: dict[str, Any] = field(default_factory=dict)  # reports of the busy ones
    hup: dict[str, Any] = field(default_factory=dict)
    moved: float = 0.0  # from HUP until the last old worker was gone
    alive: int = 0  # that answered afterwards


class Broken(Exception):
    """Something broke; the message says what."""


def run(wanted: int, show: Callable[[str], None]) -> Crowd:
    """Gather a crowd, serve the busy ones in it, and move it. What breaks ends it and is told."""
    workers = max(LEAST_WORKERS, math.ceil(wanted / A_WORKER))
    crowd = Crowd(wanted, workers, math.ceil(wanted / A_CLIENT))
    with contextlib.suppress(Broken), servers.pinned(None):
        try:
            _check_room(wanted)
            _run(crowd, show)
        except servers.BenchmarkError as error:
            crowd.broke = str(error).splitlines()[0]
        except Broken as error:
            crowd.broke = str(error)
    return crowd


def _run(crowd: Crowd, show: Callable[[str], None]) -> None:
    with servers.running(
        "epolld", crowd.workers, None, SETTINGS, options=OPTIONS, within=120.0
    ) as server:
        time.sleep(1.5)  # longer than a worker's tick
        before, kernel = _pss(server), _kernel_memory()
        others = {pid: processes.descriptors(pid) for pid in server.workers()}
        show(f"connecting {crowd.wanted:,}")
        began = time.monotonic()
        with _gathered(server.port, crowd) as silent:
            crowd.connect = time.monotonic() - began
            crowd.held = _held(server, min(others.values()))
            _expect_no_failures("connecting", silent)
            time.sleep(1.5)
            crowd.program = (_pss(server) - before) / crowd.held
            crowd.kernel = (_kernel_memory() - kernel) / crowd.held
            with loads.steady(server.port, idle=0, busy=BUSY, think_us=THINK_US) as busy:
                show(f"{BUSY} busy among {crowd.held:,}")
                busy.report()
                time.sleep(QUIET)
                crowd.quiet = _expect_no_failures("serving", [busy])
                show(f"one HUP moves {crowd.held:,}")
                crowd.moved = _reload(server)
                crowd.hup = _expect_no_failures("the HUP", [busy])
            show("asking each of them")
            _expect_no_failures("the HUP", silent, "check")
            crowd.alive = _held(server, min(others.values()))


@contextlib.contextmanager
def _gathered(port: int, crowd: Crowd) -> Iterator[list[loads.Load]]:
    """The silent connections, by several processes at once."""
    with contextlib.ExitStack() as stack:
        gathered = []
        for number in range(crowd.clients):
            share = crowd.wanted // crowd.clients + (number < crowd.wanted % crowd.clients)
            gathered.append(
                stack.enter_context(
                    loads.steady(port, False, idle=share, busy=0, first=number * SOURCES)
                )
            )
        for load in gathered:
            load.expect("open")
        yield gathered


def _reload(server: servers.Server) -> float:
    """Seconds from HUP until the last old worker was gone."""
    old, seen = server.workers(), len(server.lines)
    began = time.monotonic()
    os.kill(server.pid, signal.SIGHUP)
    server.wait_line("reload done", seen, MOVED_WITHIN)
    for pid in old:
        server.wait_line(rf"\(pid {pid}, generation \d+\) exited with status 0", seen, MOVED_WITHIN)
    return time.monotonic() - began


def _expect_no_failures(when: str, gathered: list[loads.Load], ask: str = "") -> dict[str, Any]:
    """Let all report, and return the last report. Raises Broken if a client met a failure."""
    for load in gathered:
        load.send(ask)
    reports = [load.read() for load in gathered]
    found: dict[str, int] = {}
    for report in reports:
        for kind, count in report["failures"].items():
            found[kind] = found.get(kind, 0) + count
    if any(found.values()):
        text = ", ".join(f"{count:,} {kind}" for kind, count in found.items() if count)
        raise Broken(f"{when}: {text}")
    return reports[-1]


def _held(server: servers.Server, others: int) -> int:
    """Connections of all workers, by their descriptors."""
    return sum(processes.descriptors(pid) - others for pid in server.workers())


def _pss(server: servers.Server) -> int:
    return sum(processes.pss(pid) for pid in server.workers())


def _kernel_memory() -> int:
    """What the kernel has for itself: slabs, for sockets and what belongs to them."""
    return _meminfo("SUnreclaim") + _meminfo("SReclaimable")


def _check_room(wanted: int) -> None:
    """Raises Broken when the machine cannot do it, before it is tried."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 19_500:
        raise Broken(f"RLIMIT_NOFILE is {hard:,}; the crowd needs 19,500 a process")
    with open("/proc/sys/fs/file-max") as file:
        most = int(file.read())
    if most < 2.2 * wanted:
        raise Broken(f"fs.file-max is {most:,}; both ends of {wanted:,} need {2.2 * wanted:,.0f}")
    free = _meminfo("MemAvailable")
    if free < ROOM * wanted:
        raise Broken(f"{free / 1e9:.1f} GB of memory are free, {ROOM * wanted / 1e9:.1f} needed")


def _meminfo(name: str) -> int:
    with open("/proc/meminfo") as file:
        found = re.search(rf"^{name}:\s+(\d+) kB", file.read(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024

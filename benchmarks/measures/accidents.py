"""What a SIGKILL costs: in the midst of a hand-over, and until the others are even again.

Part of the `handover` measure.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import loads
import processes
import servers
import stats
from report import Bar, Result

Kill = Callable[[servers.Server], tuple[int, int]]

WORKERS, IDLE, BUSY, RATE = 4, 10_000, 50, 1_000
SLICE = 0.002  # seconds that the donor runs before it is looked at
REBALANCE = "  rebalance: true\n"
EVEN = 1.05  # largest / mean; the master is content at 1.031
EVEN_WITHIN, EVEN_FOR = 20.0, 5.0  # seconds: until when, and how long to be sure of it


def measure(result: Result, quick: bool) -> None:
    """Add bars, notes and raw figures to the result."""
    rounds = 1 if quick else 2
    for who, kill in (("giving", _kill_donor), ("taking", _kill_heir)):
        found = [_kill_amid(kill) for _ in range(rounds)]
        what = f"SIGKILL of the {who} worker amid a hand-over"
        result.raw[what] = found
        for held, shared, ended in found:
            result.notes.append(
                f"* {what}: it held {held:,} connections, {shared:,} of which others held, too; "
                f"{ended:,} ended."
            )
        # What it has given away lives on, so of a donor's only those that it alone held may end.
        beyond = max(
            ended - held + (shared if kill is _kill_donor else 0) for held, shared, ended in found
        )
        result.bars.append(Bar(f"{what}: ends beyond what was its own", max(0, beyond), 0))
    _rebalance(result)


def _kill_amid(kill: Kill) -> tuple[int, int, int]:
    """Connections that the victim held, that others held, too, and that ended."""
    with (
        servers.running("epolld", workers=WORKERS, core=None) as server,
        loads.steady(server.port, idle=IDLE, busy=BUSY, rate=RATE, think_us=5_000) as load,
    ):
        time.sleep(1)
        held, shared = kill(server)
        time.sleep(2)
        return held, shared, sum(load.report()["ended"].values())


def _kill_donor(server: servers.Server) -> tuple[int, int]:
    """Kill an old worker that has given some of its connections away."""
    old = server.workers()
    victim = old[1]
    os.kill(victim, signal.SIGSTOP)  # so that it does not begin before we watch
    _reload(server)
    full = left = processes.descriptors(victim)
    while left > full - 100:
        _run_for(SLICE, victim)
        left = processes.descriptors(victim)
    return _kill_stopped(server, victim)


def _kill_heir(server: servers.Server) -> tuple[int, int]:
    """Kill a new worker that has taken some of the connections that it is to take."""
    old = server.workers()
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    _reload(server)
    victim = next(pid for pid in server.workers() if pid not in old)
    for pid in old:
        os.kill(pid, signal.SIGCONT)
    few = processes.descriptors(victim)
    while processes.descriptors(victim) < few + 100:
        time.sleep(SLICE / 10)
    os.kill(victim, signal.SIGSTOP)
    return _kill_stopped(server, victim)


def _kill_stopped(server: servers.Server, victim: int) -> tuple[int, int]:
    """Kill it; how many connections it held, and how many of these others held, too."""
    held = processes.held(server.workers(), server.port)
    mine = held.pop(victim)
    others = set().union(*held.values())
    os.kill(victim, signal.SIGKILL)
    return len(mine), len(mine & others)


def _reload(server: servers.Server) -> None:
    seen = len(server.lines)
    os.kill(server.pid, signal.SIGHUP)
    server.wait_line("reload done", seen)


def _run_for(seconds: float, pid: int) -> None:
    """Let a stopped process run for a moment."""
    os.kill(pid, signal.SIGCONT)
    time.sleep(seconds)
    os.kill(pid, signal.SIGSTOP)


def _rebalance(result: Result) -> None:
    """SIGKILL of one of four with `rebalance: true`: how soon the others are even."""
    with (
        servers.running("epolld", workers=WORKERS, core=None, settings=REBALANCE) as server,
        loads.opened(server.port, connections=0, idle=IDLE),
    ):
        counts = server.await_connections(IDLE)
        os.kill(server.workers()[1], signal.SIGKILL)
        begin = time.monotonic()
        course: list[tuple[float, list[int]]] = []
        uneven = [0.0]
        while (after := time.monotonic() - begin) < min(EVEN_WITHIN, uneven[-1] + EVEN_FOR):
            time.sleep(0.5)
            now = list(processes.connections(server.workers(), server.port).values())
            course.append((round(after, 1), now))
            if len(now) < WORKERS or stats.imbalance(now) > EVEN:
                uneven.append(round(after, 1))
    last = course[-1][1]
    lost = sum(counts) - sum(last)
    result.raw["rebalance"] = course
    result.notes.append(
        f"* Rebalance: {' '.join(map(str, counts))} before SIGKILL of one of {WORKERS}, which cost "
        f"{lost:,} connections; even (largest / mean at most {EVEN}) "
        f"{uneven[-1]:.0f} s later, {' '.join(map(str, last))} at the end."
    )
    result.bars += [
        Bar("rebalance: connections lost beyond the victim's", max(0, lost - counts[1]), 0),
        Bar(f"rebalance: largest / mean within {EVEN_WITHIN:.0f} s", stats.imbalance(last), EVEN),
    ]

"""Memory (PSS) of a worker: idle, and for each further idle connection."""

from __future__ import annotations

import time
from collections.abc import Sequence

import loads
import processes
import servers
import stats
from report import Bar, Result

STEPS = (0, 5_000, 15_000)
SETTLE = 1.5  # seconds: longer than a worker's tick, so that it has done all it does when idle
MEGABYTE = 1_000_000


def measure(names: Sequence[str], quick: bool) -> Result:
    """Grow a crowd on each server, and look at idle workers."""
    result = Result(
        name="memory",
        title="PSS of the process that serves",
        columns=("server", *(f"with {step:,} idle, MB" for step in STEPS), "bytes a connection"),
    )
    for name in names:
        sizes = _grow(name)
        points = list(zip(STEPS, sizes, strict=True))
        each = max(stats.slope(points[0], points[-1]), stats.slope(points[1], points[-1]))
        result.raw[name] = {"connections": STEPS, "pss": sizes}
        result.rows.append((name, *(_megabytes(size) for size in sizes), f"{each:.0f}"))
        if name == "epolld":
            result.bars.append(Bar("epolld, an idle connection", each, 700, "bytes"))
    for count in (1, 4) if "epolld" in names else ():
        with servers.running("epolld", workers=count) as server:
            time.sleep(SETTLE)
            sizes = [processes.pss(pid) for pid in server.workers()]
            master = processes.pss(server.pid)
        result.raw[f"epolld, {count} workers"] = {"workers": sizes, "master": master}
        result.rows.append((f"epolld, largest of {count} idle", _megabytes(max(sizes)), "", "", ""))
        result.bars.append(
            Bar(f"epolld, largest of {count} idle workers", max(sizes) / MEGABYTE, 10, "MB")
        )
    return result


def _grow(name: str) -> list[int]:
    """PSS at each step of the crowd."""
    sizes = []
    with servers.running(name) as server:
        (pid,) = server.workers()
        time.sleep(SETTLE)
        sizes.append(processes.pss(pid))
        with loads.opened(server.port, connections=0, idle=STEPS[1]):
            server.await_connections(STEPS[1])
            sizes.append(processes.pss(pid))
            with loads.opened(server.port, connections=0, idle=STEPS[2] - STEPS[1]):
                server.await_connections(STEPS[2])
                sizes.append(processes.pss(pid))
    return sizes


def _megabytes(size: float) -> str:
    return f"{size / MEGABYTE:.2f}"

"""Coroutine handlers beside `asyncio.start_server`, and a native service beside coroutines.

The handler is one and the same function: as a service of epolld, and on a loop of its own.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import progress
import rounds
import servers
import stats
from report import Bar, Result, bars_chart

HANDLER = "benchmarks.peers.upper_asyncio_streams:handle"
PEER = "asyncio_streams"
SOURCES = 200  # addresses of clients: ports stay in TIME_WAIT for a minute

# A service of coroutines in the worker, without any client.
BESIDE = f"""\
  - name: beside
    protocol: {HANDLER}
    bind: unix:@epolld-bench-beside-{os.getpid()}
"""

STAY, CONNECT = "connections that stay", "connect, request, close"
ENTRANTS = {
    "coroutine in epolld": ("epolld", HANDLER, ""),
    "asyncio.start_server": (PEER, "", ""),
    "native in epolld": ("epolld", "upper", ""),
    "native beside coroutines": ("epolld", "upper", BESIDE),
}


def measure(names: Sequence[str], quick: bool) -> Result:
    """The two kinds in one worker, each against what it is compared with."""
    times, messages = (3, 15_000) if quick else (5, 20_000)
    result = Result(
        name="coroutines",
        title="Coroutines",
        columns=("work", "server", "CPU µs a message (spread)"),
        about=f"64 bytes, {rounds.CONNECTIONS} clients; the coroutine is the same function in "
        "epolld and under asyncio.start_server.",
    )
    if "epolld" not in names:
        return result
    stay = _alternate(times, list(ENTRANTS), messages=messages)
    connect = _alternate(
        times,
        ["coroutine in epolld", "asyncio.start_server"],
        close=True,
        messages=messages // 5,
        warmup=500,
        sources=SOURCES,
    )
    result.about += f" {rounds.made(stay)}; of connect, request, close {rounds.made(connect)}."
    for work, cpu in ((STAY, stay), (CONNECT, connect)):
        result.raw[work] = cpu
        spreads = {label: stats.summarize(found) for label, found in cpu.items()}
        result.rows += [(work, label, str(each)) for label, each in spreads.items()]
        chart = {label: (each.median, each.low, each.high) for label, each in spreads.items()}
        result.charts.append(bars_chart(work, "CPU µs a message", chart))
        _bar(result, work, cpu, "coroutine in epolld", "asyncio.start_server", 1.0)
    _bar(result, STAY, stay, "native beside coroutines", "native in epolld", 1.1)
    return result


def _alternate(times: int, labels: Sequence[str], **options: object) -> dict[str, list[float]]:
    """CPU µs a message of each entrant, in rounds."""
    cpu: dict[str, list[float]] = {label: [] for label in labels}
    for number in progress.rounds(times):
        for label in random.sample(labels, len(labels)):
            progress.show(f"round {number + 1} of {times}: {label}")
            name, protocol, more = ENTRANTS[label]
            with servers.running(name, protocol=protocol, options=more) as server:
                cpu[label].append(round(rounds.cost(server, **options).cpu, 3))
    return cpu


def _bar(
    result: Result, work: str, cpu: dict[str, list[float]], which: str, base: str, limit: float
) -> None:
    found = stats.summarize(stats.ratios(cpu[which], cpu[base]))
    what = f"{work}: {which} to {base}"
    result.bars.append(Bar(what, found.median, limit, "times", spread=found.spread))

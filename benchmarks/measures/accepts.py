"""How evenly 1,000 connections that stay spread over four workers, also after a death."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence

import loads
import progress
import servers
import stats
from report import Bar, Result, groups_chart

WORKERS, CONNECTIONS = 4, 1_000
PACE_US = 1_000


def measure(names: Sequence[str], quick: bool) -> Result:
    """Only epolld spreads over processes; the peers have one."""
    rounds = 1 if quick else 4
    result = Result(
        name="accepts",
        title="Accept balance",
        about=f"{CONNECTIONS:,} connections that stay, over {WORKERS} workers: how many each "
        f"holds, in the worst of {rounds} rounds; and again after SIGKILL of one of them and as "
        "many newcomers.",
        columns=("arrival", "held by each worker", "largest / mean"),
    )
    if "epolld" not in names:
        return result
    worst: dict[str, tuple[float, list[int]]] = {}
    for number in progress.rounds(rounds):
        progress.show(f"round {number + 1} of {rounds}")
        for arrival, options in (("1 ms apart", {"pace_us": PACE_US}), ("burst", {"burst": True})):
            first, second = _spread(options)
            for title, counts in ((arrival, first), (f"{arrival}, after SIGKILL", second)):
                found = (stats.imbalance(counts), counts)
                worst[title] = max(worst.get(title, found), found)
    groups = {}
    for title, (value, counts) in worst.items():
        label = "\n".join((*title.split(", "), f"largest / mean {value:.3f}"))
        groups[label] = {f"worker {number}": count for number, count in enumerate(counts)}
        result.rows.append((title, " ".join(map(str, counts)), f"{value:.3f}"))
        result.raw[title] = counts
        limit = 1.02 if title == "1 ms apart" else 1.10
        result.bars.append(Bar(f"{title}, largest / mean", value, limit))
    result.charts.append(groups_chart("", "connections, in the worst round", groups))
    return result


def _spread(options: Mapping[str, object]) -> tuple[list[int], list[int]]:
    """Counts after the first crowd; and after one worker was killed and as many came again."""
    with (
        servers.running("epolld", workers=WORKERS, core=None) as server,
        loads.opened(server.port, connections=0, idle=CONNECTIONS, **options),
    ):
        first = server.await_connections(CONNECTIONS)
        victim = server.workers()[1]
        os.kill(victim, signal.SIGKILL)
        if options.get("burst"):
            _await_replacement(server, victim)  # all at once would all be over before
        live = CONNECTIONS - first[1]
        with loads.opened(server.port, connections=0, idle=CONNECTIONS, **options):
            return first, server.await_connections(live + CONNECTIONS)


def _await_replacement(server: servers.Server, victim: int) -> None:
    """Wait until there are as many workers again and the new one had time to join the queue."""
    deadline = time.monotonic() + 10
    while victim in (pids := server.workers()) or len(pids) < WORKERS:
        if time.monotonic() > deadline:
            raise servers.BenchmarkError("the killed worker was not replaced in 10 s")
        time.sleep(0.02)
    time.sleep(1.0)

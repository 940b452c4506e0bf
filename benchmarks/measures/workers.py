"""One to eight workers on all cores: does more of them cost more?"""

from __future__ import annotations

import os
from collections.abc import Sequence

import progress
import rounds
import servers
import stats
from report import Result, lines_chart

COUNTS = (1, 2, 4, 8)


def measure(names: Sequence[str], quick: bool) -> Result:
    """epolld alone: the peers are one process each."""
    times, messages = (1, 15_000) if quick else (5, 30_000)
    cores = os.cpu_count() or 1
    result = Result(
        name="workers",
        title="One to eight workers",
        columns=("workers", "CPU µs (spread)", "messages/s", "p50 µs", "p99 µs"),
        about=f"The work of 64 bytes, epolld on all {cores} cores, and the load program on one of "
        "them. With more cores than this machine has, more workers would also be faster; here the "
        "figure shows what having them costs.",
    )
    if "epolld" not in names:
        return result
    costs: dict[int, list[rounds.Cost]] = {count: [] for count in COUNTS}
    for number in progress.rounds(times):
        for count in COUNTS:
            progress.show(f"round {number + 1} of {times}: {count} workers")
            with servers.running("epolld", workers=count, core=None) as server:
                costs[count].append(rounds.cost(server, messages=messages))
    result.about += f" {len(costs[1])} rounds."
    line = {}
    for count, found in costs.items():
        cpu = stats.summarize([cost.cpu for cost in found])
        line[count] = cpu.median
        figures = (
            f"{stats.summarize([getattr(cost, each) for cost in found]).median:,.0f}"
            for each in ("rate", "p50", "p99")
        )
        result.rows.append((str(count), str(cpu), *figures))
        result.raw[str(count)] = [cost.cpu for cost in found]
    result.charts.append(lines_chart("", "CPU µs a message", "workers", {"epolld": line}))
    return result

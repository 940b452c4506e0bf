"""A line for everybody who connects, and the end: beside nginx's stream module."""

from __future__ import annotations

import random
from collections.abc import Sequence

import progress
import rounds
import servers
import stats
from report import Result, bars_chart

LINE = "a line for everybody\r\n"
OPTIONS = '    options:\n      quotes: ["a line for everybody"]\n'


def measure(names: Sequence[str], quick: bool) -> Result:
    """The one thing that nginx's stream module answers by itself."""
    times, messages = (1, 3_000) if quick else (7, 6_000)
    result = Result(
        name="greeting",
        title="A line and the end, beside nginx",
        columns=("server", "CPU µs (spread)", "user", "system", "connections/s", "p99 µs"),
        about="nginx's stream module has no answer to a message; what it can do by itself is "
        "`return` a line to everybody who connects. epolld's service `qotd` does the same. One "
        "worker each.",
    )
    here = ["epolld", "nginx"]
    if servers.nginx_stream() is None or "epolld" not in names:
        result.notes.append("No nginx with its stream module here.")
        return result
    costs: rounds.Costs = {name: [] for name in here}
    for number in progress.rounds(times):
        for name in random.sample(here, len(here)):
            progress.show(f"round {number + 1} of {times}: {name}")
            with servers.running(name, protocol="qotd", options=OPTIONS) as server:
                costs[name].append(
                    rounds.cost(
                        server,
                        ask="",
                        expect=LINE,
                        close=True,
                        messages=messages,
                        warmup=500,
                        sources=200,
                    )
                )
    result.about += f" {rounds.made(costs)}."
    chart = {}
    for name, found in costs.items():
        cpu = stats.summarize([cost.cpu for cost in found])
        share = sum(cost.user for cost in found) / sum(cost.cpu for cost in found)
        rate, p99 = (
            stats.summarize([getattr(c, f) for c in found]).median for f in ("rate", "p99")
        )
        split = (f"{cpu.median * share:.2f}", f"{cpu.median * (1 - share):.2f}")
        result.rows.append((name, str(cpu), *split, f"{rate:,.0f}", f"{p99:,.0f}"))
        result.raw[name] = [cost.cpu for cost in found]
        chart[name] = (cpu.median, cpu.low, cpu.high)
    result.charts.append(bars_chart("", "CPU µs a connection", chart))
    return result

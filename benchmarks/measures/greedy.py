"""What 100 polite clients notice of one that takes all it can get."""

from __future__ import annotations

from collections.abc import Sequence

import loads
import progress
import rounds
import servers
import stats
from report import Bar, Result, bars_chart

POLITE = 100
LIMIT = 20.0  # ms


def measure(names: Sequence[str], quick: bool) -> Result:
    """The polite clients' latency with the greedy one beside them, one process that serves."""
    times, messages = (1, 5_000) if quick else (5, 10_000)
    found: dict[str, list[rounds.Cost]] = {name: [] for name in names}
    volume: dict[str, list[float]] = {name: [] for name in names}
    for number in progress.rounds(times):
        for name in names:
            if (number and name not in servers.RIVALS) or name in servers.ONE_EACH:
                continue
            if name in servers.failed:
                continue
            progress.show(f"round {number + 1} of {times}: {servers.EVERYONE[name]}")
            with (
                servers.excused(name),
                servers.running(name) as server,
                loads.greedy(server.port) as greedy,
            ):
                found[name].append(
                    rounds.cost(server, connections=POLITE, messages=messages, warmup=1_000)
                )
                report = greedy.run()
                volume[name].append(report["received"] / report["seconds"] / 1e6)
    result = Result(
        name="greedy",
        title="Beside a greedy client",
        columns=("server", "p50 ms", "p99 ms", "p99.9 ms", "the greedy one's MB/s"),
        about=f"One client sends as fast as the server takes it, without waiting for answers. "
        f"Beside it {POLITE} clients send 64 bytes and wait, one process serves them all. A "
        "server that reads from one connection for as long as there is something lets all others "
        f"wait. {rounds.made(found)}; one for those without a bar.",
    )
    chart = {}
    for name, costs in found.items():
        if not costs or name in servers.failed:
            continue
        label = servers.EVERYONE[name]
        tail = stats.summarize([cost.p99 / 1000 for cost in costs])
        chart[label] = (tail.median, tail.low, tail.high)
        p50, p999 = (
            stats.summarize([getattr(cost, each) / 1000 for cost in costs]).median
            for each in ("p50", "p999")
        )
        speed = f"{stats.summarize(volume[name]).median:,.0f}"
        result.rows.append((label, f"{p50:.2f}", str(tail), f"{p999:.2f}", speed))
        result.raw[name] = {"p99_ms": [cost.p99 / 1000 for cost in costs], "mb_s": volume[name]}
        if name == "epolld":
            what = f"epolld, p99 of {POLITE} polite clients"
            result.bars.append(Bar(what, tail.median, LIMIT, "ms", True, tail.spread))
    result.charts.append(bars_chart("", "p99 of the polite clients, ms", chart, LIMIT))
    return result

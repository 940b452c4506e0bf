"""A message and its answer over 50 connections: what it costs, by size."""

from __future__ import annotations

from collections.abc import Sequence

import rounds
import servers
import stats
from report import Bar, Result, bars_chart

LIMITS = {"uvloop": 0.97, "c": 1.12, "go": 0.95}
SIZES = {"1 KiB": 1_024, "10 KiB": 10_240, "100 KiB": 102_400}


def measure(names: Sequence[str], quick: bool) -> Result:
    """64 bytes, which is where the server costs most beside the kernel."""
    times, messages = (5, 20_000) if quick else (13, 30_000)
    costs = rounds.alternate(
        names, times, 10, lambda server: rounds.cost(server, messages=messages)
    )
    result = Result(
        name="message",
        title="A message of 64 bytes",
        columns=rounds.COLUMNS,
        about=f"{rounds.CONNECTIONS} clients send 64 bytes, wait for the answer in upper case, "
        f"check it and send the next. {rounds.made(costs)}; who has no bar takes part in every "
        "tenth.",
    )
    rounds.fill(result, costs)
    rounds.ratio_bars(result, costs, LIMITS)
    if {"epolld", "uvloop"} <= set(costs):
        tails = [[cost.p99 for cost in costs[name]] for name in ("epolld", "uvloop")]
        ratio = stats.summarize(stats.ratios(*tails))
        what = f"p99 of {rounds.CONNECTIONS} clients, epolld to uvloop, Protocol"
        result.bars.append(Bar(what, ratio.median, 1.0, "times", spread=ratio.spread))
        chart = {}
        for name, found in costs.items():
            tail = stats.summarize([cost.p99 / 1000 for cost in found])
            chart[servers.EVERYONE[name]] = (tail.median, tail.low, tail.high)
        result.charts[0]["title"] = "What it costs"
        result.charts.append(bars_chart("How long 99 of 100 take at most", "p99, ms", chart))
    return result


def measure_sizes(names: Sequence[str], quick: bool) -> Result:
    """Larger ones, where copying takes over."""
    times = 1 if quick else 2  # no bar looks at them: where there is no time, one is enough
    result = Result(
        name="sizes",
        title="Larger messages",
        columns=("size", *rounds.COLUMNS),
        about="The same with 1 KiB, 10 KiB and 100 KiB. With 100 KiB no answer fits into one "
        f"`recv` of 64 KiB. {times} rounds at most, one for those without a bar.",
    )
    for title, size in SIZES.items():
        messages = 6_000 if size < 50_000 else 2_000

        def work(server: servers.Server, size: int = size, messages: int = messages) -> rounds.Cost:
            return rounds.cost(server, size=size, messages=messages, warmup=messages // 5)

        rounds.fill(result, rounds.alternate(names, times, times, work, least=1), title)
    return result

"""CPU time of the server for a 64-byte message over 50 connections, and with a crowd idle.

The whole process tree counts. Every round starts each server anew and takes all in turn, in
an order that is drawn anew, so that no one always follows the same neighbour. A bar looks at
the median of the rounds' ratios. The ratio of the lowest figures stands beside it as a second
view, not as a better one: on a shared machine it moved by 4 % from run to run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import loads
import processes
import servers
import stats
from report import Bar, Result

CONNECTIONS, WARMUP, CROWD = 50, 20_000, 15_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one message, in µs; latencies as the client saw them."""

    cpu: float
    user: float
    system: float
    p50: float
    p99: float
    p999: float


def measure(names: Sequence[str], quick: bool) -> Result:
    """Compare the servers."""
    rounds, messages = (5, 30_000) if quick else (31, 40_000)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in random.sample(names, len(names)):
            with servers.running(name) as server:
                costs[name].append(_cost(server, messages))
    result = Result(
        name="message",
        title=f"CPU time a 64-byte message, {CONNECTIONS} connections, {rounds} rounds",
        columns=(
            "server",
            "CPU µs (spread)",
            "user µs",
            "system µs",
            "to C",
            "lowest to C",
            "p50 µs",
            "p99 µs",
        ),
        raw={name: [_plain(cost) for cost in costs[name]] for name in names},
    )
    cpu = {name: [cost.cpu for cost in costs[name]] for name in names}
    for name in names:
        result.rows.append(
            (
                name,
                str(stats.summarize(cpu[name])),
                _median(costs[name], "user"),
                _median(costs[name], "system"),
                _ratio(cpu, name, "c"),
                _lowest_ratio(cpu, name, "c"),
                _median(costs[name], "p50", 0),
                _median(costs[name], "p99", 0),
            )
        )
    for peer, limit, below in (("uvloop", 1.0, False), ("c", 1.2, False), ("go", 1.0, True)):
        if {"epolld", peer} <= set(names):
            ratio = stats.summarize(stats.ratios(cpu["epolld"], cpu[peer])).median
            result.bars.append(Bar(f"epolld to {peer}", ratio, limit, "times", below))
    return result


def measure_idle(names: Sequence[str], quick: bool) -> Result:
    """Each server with a silent crowd, against itself without, in the same process."""
    rounds, messages = (3, 30_000) if quick else (7, 60_000)
    alone: dict[str, list[Cost]] = {name: [] for name in names}
    crowded: dict[str, list[Cost]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            with servers.running(name) as server:
                alone[name].append(_cost(server, messages))
                crowded[name].append(_cost(server, messages, idle=CROWD))
    result = Result(
        name="idle",
        title=f"the same with {CROWD:,} more connections idle, {rounds} rounds",
        columns=("server", "CPU µs without", "CPU µs with", "ratio (spread)"),
    )
    for name in names:
        before = [cost.cpu for cost in alone[name]]
        after = [cost.cpu for cost in crowded[name]]
        ratio = stats.summarize(stats.ratios(after, before))
        result.raw[name] = {"without": before, "with": after}
        row = (name, str(stats.summarize(before)), str(stats.summarize(after)), str(ratio))
        result.rows.append(row)
        if name == "epolld":
            result.bars.append(Bar("epolld with to without", ratio.median, 1.25, "times"))
    return result


def _cost(server: servers.Server, messages: int, idle: int = 0) -> Cost:
    """Load one server and read its CPU time around the load alone."""
    with loads.opened(
        server.port, connections=CONNECTIONS, messages=messages, warmup=WARMUP, idle=idle
    ) as load:
        family = processes.family(server.pid)
        before = processes.cpu_time(family)
        report = load.run()
        spent = processes.cpu_time(family) - before
    cpu = spent.run / report["messages"] / 1000
    user = cpu * spent.user_share
    latencies = (report["p50_us"], report["p99_us"], report["p999_us"])
    return Cost(cpu, user, cpu - user, *latencies)


def _plain(cost: Cost) -> dict[str, Any]:
    return {name: round(getattr(cost, name), 3) for name in Cost.__slots__}


def _median(costs: Sequence[Cost], name: str, digits: int = 2) -> str:
    return f"{stats.summarize([getattr(cost, name) for cost in costs]).median:.{digits}f}"


def _ratio(cpu: dict[str, list[float]], name: str, base: str) -> str:
    if base not in cpu:
        return "-"
    return f"{stats.summarize(stats.ratios(cpu[name], cpu[base])).median:.3f}"


def _lowest_ratio(cpu: dict[str, list[float]], name: str, base: str) -> str:
    return f"{min(cpu[name]) / min(cpu[base]):.3f}" if base in cpu else "-"

"""The load program itself, held against redis-benchmark on the same server."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Sequence

import processes
import progress
import rounds
import servers
import stats
from report import Bar, Result, bars_chart

PROTOCOL = "examples.keyvalue:KeyValue"
PING, PONG = "*1\r\n$4\r\nPING\r\n", "+PONG\r\n"
OURS, THEIRS = "load", "redis-benchmark"
# Commands in a row, before the answers are waited for. With one, redis-benchmark, which is slower,
# lets the server run out of work: it went to sleep every 29 commands, under our load every 2,000.
# What it is then woken for costs more, for every server; so the bar is on what has no such share.
DEPTHS = (1, 16)
LIMIT = 0.1  # by how much the two may differ with the most in a row
RATE = re.compile(r"([\d.]+) requests per second, p50=([\d.]+) msec")


def measure(_names: Sequence[str], quick: bool) -> Result:
    """PING over 50 connections, one command at a time and several, by both."""
    times, commands = (3, 40_000) if quick else (5, 60_000)
    result = Result(
        name="check",
        title="The load program itself",
        about="The same server, `examples/keyvalue.py`, and the same work, PING over "
        f"{rounds.CONNECTIONS} connections, by our load program and by redis-benchmark. If ours "
        f"asked in another way, the server's CPU time would not be the same. One at a time it is "
        f"not: redis-benchmark is the slower one, and a server that has to wait for it pays for "
        f"more wake-ups. With {DEPTHS[-1]} in a row they count little.",
        columns=("in a row", "load", "server's CPU µs a command (spread)", "commands/s", "p50 µs"),
    )
    if shutil.which(THEIRS) is None:
        result.notes.append("No redis-benchmark here (apt install redis-tools).")
        return result
    pairs = [(depth, name) for depth in DEPTHS for name in (OURS, THEIRS)]
    found: dict[tuple[int, str], list[tuple[float, float, float]]] = {pair: [] for pair in pairs}
    for number in progress.rounds(times):
        for depth, name in random.sample(pairs, len(pairs)):
            progress.show(f"round {number + 1} of {times}: {name}, {depth} in a row")
            with servers.running("epolld", protocol=PROTOCOL) as server:
                load = _ours if name == OURS else _theirs
                found[depth, name].append(load(server, commands, depth))
    result.about += f" {rounds.made(found)}."
    for depth in DEPTHS:
        chart = {}
        for name in (OURS, THEIRS):
            each = zip(*found[depth, name], strict=True)
            cpu, rate, p50 = (stats.summarize(values) for values in each)
            row = (str(depth), name, str(cpu), f"{rate.median:,.0f}", f"{p50.median:,.0f}")
            result.rows.append(row)
            chart[name] = (cpu.median, cpu.low, cpu.high)
            result.raw[f"{name}, {depth} in a row"] = found[depth, name]
        title = f"{depth} in a row"
        result.charts.append(bars_chart(title, "the server's CPU µs a command", chart))
    costs = ([cpu for cpu, _, _ in found[DEPTHS[-1], name]] for name in (OURS, THEIRS))
    apart = abs(stats.summarize(stats.ratios(*costs)).median - 1)
    result.bars.append(Bar(f"CPU, {DEPTHS[-1]} in a row, apart by", apart, LIMIT))
    return result


def _ours(server: servers.Server, commands: int, depth: int) -> tuple[float, float, float]:
    ask, expect = PING * depth, PONG * depth
    cost = rounds.cost(server, ask=ask, expect=expect, messages=commands // depth, warmup=0)
    return cost.cpu / depth, cost.rate * depth, cost.p50


def _theirs(server: servers.Server, commands: int, depth: int) -> tuple[float, float, float]:
    work = ["-t", "ping_mbulk", "-n", str(commands), "-P", str(depth)]
    with servers.pinned(servers.LOAD_CORE):
        before = processes.cpu_time(processes.family(server.pid))
        done = subprocess.run(
            [THEIRS, "-p", str(server.port), "-q", *work],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        spent = processes.cpu_time(processes.family(server.pid)) - before
    match = RATE.findall(done.stdout)[-1]
    return spent.run / commands / 1000, float(match[0]), float(match[1]) * 1000

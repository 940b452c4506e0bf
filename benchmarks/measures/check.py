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
LIMIT = 0.1  # by how much the two may differ
RATE = re.compile(r"([\d.]+) requests per second, p50=([\d.]+) msec")


def measure(_names: Sequence[str], quick: bool) -> Result:
    """PING over 50 connections, one command at a time, by both."""
    times, commands = (3, 40_000) if quick else (5, 60_000)
    result = Result(
        name="check",
        title="The load program itself",
        about="The same server, `examples/keyvalue.py`, and the same work, PING over "
        f"{rounds.CONNECTIONS} connections, by our load program and by redis-benchmark. If ours "
        f"asked in another way, the server's CPU time would not be the same.",
        columns=("load", "server's CPU µs a command (spread)", "commands/s", "p50 µs"),
    )
    if shutil.which(THEIRS) is None:
        result.notes.append("No redis-benchmark here (apt install redis-tools).")
        return result
    found: dict[str, list[tuple[float, float, float]]] = {OURS: [], THEIRS: []}
    for number in progress.rounds(times):
        for name in random.sample((OURS, THEIRS), 2):
            progress.show(f"round {number + 1} of {times}: {name}")
            with servers.running("epolld", protocol=PROTOCOL) as server:
                found[name].append((_ours if name == OURS else _theirs)(server, commands))
    chart = {}
    for name, each in found.items():
        cpu, rate, p50 = (stats.summarize(values) for values in zip(*each, strict=True))
        result.rows.append((name, str(cpu), f"{rate.median:,.0f}", f"{p50.median:,.0f}"))
        chart[name] = (cpu.median, cpu.low, cpu.high)
    result.about += f" {rounds.made(found)}."
    result.charts.append(bars_chart("", "the server's CPU µs a command", chart))
    result.raw = dict(found)
    pairs = stats.ratios(*([cpu for cpu, _, _ in found[name]] for name in (OURS, THEIRS)))
    apart = abs(stats.summarize(pairs).median - 1)
    result.bars.append(Bar("CPU, apart by", apart, LIMIT))
    return result


def _ours(server: servers.Server, commands: int) -> tuple[float, float, float]:
    cost = rounds.cost(server, ask=PING, expect=PONG, messages=commands, warmup=0)
    return cost.cpu, cost.rate, cost.p50


def _theirs(server: servers.Server, commands: int) -> tuple[float, float, float]:
    command = [THEIRS, "-p", str(server.port), "-t", "ping_mbulk", "-q", "-n", str(commands)]
    with servers.pinned(servers.LOAD_CORE):
        before = processes.cpu_time(processes.family(server.pid))
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        spent = processes.cpu_time(processes.family(server.pid)) - before
    match = RATE.findall(done.stdout)[-1]
    return spent.run / commands / 1000, float(match[0]), float(match[1]) * 1000

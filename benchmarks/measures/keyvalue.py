"""CPU time of examples/keyvalue.py for a command of redis-benchmark, pipelined 16 deep.

Beside it the same commands on asyncio's streams: once read as one does, a line or a value at a
time, and once with `reader.read()` and the example's own parser, which shows what of the difference
is the server's and what the parser's. A server's figure is that of its whole process tree, rounds
are interleaved, a bar looks at the median of the rounds' ratios: as in `message`.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Sequence

import processes
import progress
import servers
import stats
from report import Bar, Result, bars_chart

PROTOCOL = "examples.keyvalue:KeyValue"
PEER, LEAST = "keyvalue_asyncio", 3.0  # times the commands a CPU second
BATCHED = "keyvalue_asyncio_batched"
LABELS = {"epolld": "epolld", PEER: "asyncio, readline", BATCHED: "asyncio, read"}
NAMES = tuple(LABELS)
DEPTH, KEYS = 16, 10_000
TESTS = ("ping_mbulk", "set", "get")


def measure(_names: Sequence[str], quick: bool) -> Result:
    """The example beside the same on asyncio's streams."""
    rounds, commands = (3, 60_000) if quick else (5, 100_000)
    result = Result(
        name="keyvalue",
        title="A key-value cache under redis-benchmark",
        about=f"`examples/keyvalue.py`, which speaks RESP, beside the same commands on asyncio's "
        f"streams: redis-benchmark pipelines {DEPTH} deep over 50 connections. The streams are "
        f"read by `readline` and `readexactly`; in the last two columns by `read`, with the "
        f"example's parser.",
        columns=(
            "test",
            "epolld µs (spread)",
            "streams µs",
            "streams to epolld",
            "`read` µs",
            "`read` to epolld",
        ),
    )
    if shutil.which("redis-benchmark") is None:
        result.notes.append("No redis-benchmark here (apt install redis-tools).")
        return result
    cpu: dict[tuple[str, str], list[float]] = {(name, test): [] for name in NAMES for test in TESTS}
    for number in progress.rounds(rounds):
        for name in random.sample(NAMES, len(NAMES)):
            progress.show(f"round {number + 1} of {rounds}: {name}")
            with servers.running(name, protocol=PROTOCOL) as server:
                for test in TESTS:
                    cpu[name, test].append(_cost(server, test, commands))
    result.about += f" {len(cpu['epolld', TESTS[0]])} rounds."
    for test in TESTS:
        ours, theirs = cpu["epolld", test], cpu[PEER, test]
        row = [test, str(stats.summarize(ours))]
        for name in (PEER, BATCHED):
            row.append(str(stats.summarize(cpu[name, test])))
            row.append(str(stats.summarize(stats.ratios(cpu[name, test], ours))))
        result.rows.append(tuple(row))
        share = stats.summarize(stats.ratios(ours, theirs))
        what = f"{test}: epolld to asyncio streams"
        result.bars.append(Bar(what, share.median, 1 / LEAST, "times", spread=share.spread))
        spreads = {LABELS[name]: stats.summarize(cpu[name, test]) for name in NAMES}
        chart = {label: (each.median, each.low, each.high) for label, each in spreads.items()}
        result.charts.append(bars_chart(test, "CPU µs a command", chart))
    result.raw = {f"{name} {test}": costs for (name, test), costs in cpu.items()}
    return result


def _cost(server: servers.Server, test: str, commands: int) -> float:
    """µs of CPU time a command, connections included."""
    command = ["redis-benchmark", "-p", str(server.port), "-P", str(DEPTH), "-t", test]
    family = processes.family(server.pid)
    before = processes.cpu_time(family)
    subprocess.run(
        [*command, "-n", str(commands), "-r", str(KEYS), "-q"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    spent = processes.cpu_time(family) - before
    return float(spent.run / commands / 1000)

"""CPU time of the server for a line that is answered in upper case, pipelined 16 deep.

Every batch is one message of the load. A server's figure is that of its whole process tree,
rounds are interleaved, a bar looks at the median of the rounds' ratios: as in `message`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import loads
import processes
import progress
import servers
import stats
from report import Bar, Result, bars_chart

CONNECTIONS, DEPTH, SIZE, WARMUP = 50, 16, 64, 2_000
SINGLY, TOGETHER = "epolld", "epolld, lines_received"
PROTOCOLS = {
    SINGLY: "benchmarks.peers.upper_lines_epolld:Upper",
    TOGETHER: "benchmarks.peers.upper_lines_epolld:UpperTogether",
}
PEERS = {"uvloop": "lines_uvloop_streams", "twisted": "lines_twisted"}  # by module
# Ours, whose, and how many times as many lines ours has to answer in the same time.
BARS = (
    (SINGLY, "lines_uvloop_streams", 2.5),
    (SINGLY, "lines_twisted", 3.0),
    (TOGETHER, "lines_twisted", 3.0),
)
LABELS = {
    SINGLY: "epolld, LineProtocol.line_received",
    TOGETHER: "epolld, LineProtocol.lines_received",
    "lines_uvloop_streams": "uvloop, streams",
    "lines_twisted": "Twisted, LineReceiver",
}


def measure(names: Sequence[str], quick: bool) -> Result:
    """epolld's LineProtocol, both ways, beside uvloop's streams and Twisted's LineReceiver."""
    rounds, batches = (5, 5_000) if quick else (9, 10_000)
    entrants = list(PROTOCOLS)
    entrants += [peer for module, peer in PEERS.items() if servers.installed(module)]
    cpu: dict[str, list[float]] = {name: [] for name in entrants}
    for number in progress.rounds(rounds):
        for name in random.sample(entrants, len(entrants)):
            if name in servers.failed:
                continue
            progress.show(f"round {number + 1} of {rounds}: {LABELS[name]}")
            own = SINGLY if name in PROTOCOLS else name
            protocol = PROTOCOLS.get(name, "")
            with servers.excused(own), servers.running(own, protocol=protocol) as server:
                cpu[name].append(_cost(server, batches))
    cpu = {name: found for name, found in cpu.items() if name not in servers.failed}
    result = Result(
        name="lines",
        title="Pipelined lines",
        about=f"{CONNECTIONS} clients send {DEPTH} lines of {SIZE} bytes in one go; each is "
        f"answered in upper case by what its library has for lines: a call for each, and "
        "for epolld also one for all that a receive has brought (`lines_received`). "
        f"{len(cpu[SINGLY])} rounds.",
        columns=(
            "server",
            "CPU µs a line (spread)",
            "lines a CPU second, line_received to it (spread)",
            "lines_received to it (spread)",
        ),
        raw=cpu,
    )
    for name in cpu:
        ratios = [str(stats.summarize(stats.ratios(cpu[name], cpu[own]))) for own in PROTOCOLS]
        result.rows.append((LABELS[name], str(stats.summarize(cpu[name])), *ratios))
    spreads = {LABELS[name]: stats.summarize(values) for name, values in cpu.items()}
    chart = {label: (each.median, each.low, each.high) for label, each in spreads.items()}
    result.charts.append(bars_chart("", "CPU µs a line", chart))
    for own, peer, least in BARS:
        if {own, peer} <= set(cpu):
            # A bar is a ceiling, so it looks at the share of the peer's time that epolld takes.
            share = stats.summarize(stats.ratios(cpu[own], cpu[peer]))
            what = f"{LABELS[own]} to {LABELS[peer]}"
            result.bars.append(Bar(what, share.median, 1 / least, "times", spread=share.spread))
    return result


def _cost(server: servers.Server, batches: int) -> float:
    """µs of CPU time a line, around the load alone."""
    with loads.opened(
        server.port,
        connections=CONNECTIONS,
        size=DEPTH * SIZE,
        lines=DEPTH,
        messages=batches,
        warmup=WARMUP,
    ) as load:
        family = processes.family(server.pid)
        before = processes.cpu_time(family)
        report = load.run()
        spent = processes.cpu_time(family) - before
    return float(spent.run / (report["messages"] * DEPTH) / 1000)

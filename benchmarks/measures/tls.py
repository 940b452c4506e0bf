"""CPU time of TLS: of a message, small and as long as a record, and of a handshake."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import loads
import processes
import progress
import servers
import stats
from report import Bar, Result, bars_chart

CONNECTIONS = 50
COMERS = 16  # connections at a time that shake hands

LOADS: dict[str, dict[str, Any]] = {
    "64 bytes": {"size": 64, "messages": 15_000, "warmup": 2000},
    "16 KiB": {"size": 16384, "messages": 6000, "warmup": 1000},
    "handshake": {"handshakes": 600, "warmup": 100, "connections": COMERS},
}
BARS = (
    ("64 bytes", "asyncio", 1.0),
    ("64 bytes", "uvloop", 1.05),
    ("16 KiB", "asyncio", 1.0),
    ("16 KiB", "uvloop", 1.05),
    ("handshake", "uvloop", 1.0),
)


def measure(names: Sequence[str], quick: bool) -> Result:
    """epolld, asyncio and uvloop side by side; all do the same in OpenSSL."""
    rounds = 2 if quick else 3
    result = Result(
        name="tls",
        title="TLS 1.3",
        about=f"An echo over {CONNECTIONS} connections, of 64 bytes and of a full record, and full "
        f"handshakes of {COMERS} connections at a time.",
        columns=("load", "server", "CPU µs (spread)", "to asyncio", "to uvloop"),
    )
    if not (servers.BIN / "tls_load").exists():
        result.notes.append("No libssl-dev and openssl here, to build tls_load.c.")
        return result
    names = [name for name in names if name in ("epolld", "asyncio", "uvloop")]
    costs: dict[str, dict[str, list[float]]] = {
        load: {name: [] for name in names} for load in LOADS
    }
    for number in progress.rounds(rounds):
        for name in random.sample(names, len(names)):
            if name in servers.failed:
                continue
            progress.show(f"round {number + 1} of {rounds}: {name}")
            with servers.excused(name), servers.running(name, protocol="echo", tls=True) as server:
                for load, options in LOADS.items():
                    costs[load][name].append(_cost(server, options))
    names = [name for name in names if name not in servers.failed]
    costs = {load: {name: found[name] for name in names} for load, found in costs.items()}
    result.raw = costs
    result.about += f" {len(costs['handshake'][names[0]])} rounds."
    for load, found in costs.items():
        for name in names:
            ratios = [_ratio(found, name, peer) for peer in ("asyncio", "uvloop")]
            result.rows.append((load, name, str(stats.summarize(found[name])), *ratios))
        spreads = {name: stats.summarize(found[name]) for name in names}
        chart = {name: (each.median, each.low, each.high) for name, each in spreads.items()}
        result.charts.append(bars_chart(load, "CPU µs", chart))
    for load, peer, limit in BARS:
        if {"epolld", peer} <= set(names):
            found = costs[load]
            ratio = stats.summarize(stats.ratios(found["epolld"], found[peer]))
            what = f"{load}, epolld to {peer}"
            result.bars.append(Bar(what, ratio.median, limit, "times", spread=ratio.spread))
    return result


def _cost(server: servers.Server, options: dict[str, Any]) -> float:
    """Microseconds of CPU time for each message or handshake."""
    given = {"connections": CONNECTIONS, **options}
    with loads.opened(server.port, program="tls_load", **given) as load:
        family = processes.family(server.pid)
        before = processes.cpu_time(family)
        report = load.run()
        spent = processes.cpu_time(family) - before
    return round(spent.run / report["messages"] / 1000, 3)


def _ratio(found: dict[str, list[float]], name: str, base: str) -> str:
    if base not in found:
        return "-"
    return f"{stats.summarize(stats.ratios(found[name], found[base])).median:.3f}"

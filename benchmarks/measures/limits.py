"""CPU time of a message with all limits and time-outs on, against all off."""

from __future__ import annotations

import random
from collections.abc import Sequence

import progress
import rounds
import servers
import stats
from report import Bar, Result, bars_chart

WORKERS = """\
  max_buffered: 256m
  max_lag: 1s
"""
SERVICE = """\
    idle_timeout: 5m
    first_byte_timeout: 30s
    message_timeout: 30s
    write_timeout: 30s
    max_age: 1h
    access: [{deny: 192.0.2.0/24}, {allow: all}]
    limits:
      connections: 100000
      client_connections: 1000
      client_rate: 10000
      write_buffer: 4m
      write_buffer_soft: 1m
"""


def measure(_names: Sequence[str], quick: bool) -> Result:
    """Both in turn, in an order drawn anew each round."""
    times, messages = (5, 20_000) if quick else (7, 30_000)
    cpu: dict[str, list[float]] = {"off": [], "on": []}
    for number in progress.rounds(times):
        progress.show(f"round {number + 1} of {times}")
        for name in random.sample(list(cpu), len(cpu)):
            on = name == "on"
            with servers.running(
                "epolld", settings=WORKERS if on else "", options=SERVICE if on else ""
            ) as server:
                cpu[name].append(rounds.cost(server, messages=messages).cpu)
    ratio = stats.summarize(stats.ratios(cpu["on"], cpu["off"]))
    spreads = {f"epolld, limits {name}": stats.summarize(values) for name, values in cpu.items()}
    chart = {label: (each.median, each.low, each.high) for label, each in spreads.items()}
    return Result(
        name="limits",
        title="A message with all limits on",
        about=f"As the first, with every time limit, memory limit, access rule and count of "
        f"clients set, against itself with none. {rounds.made(cpu)}.",
        columns=("limits", "CPU µs (spread)"),
        rows=[(name, str(stats.summarize(values))) for name, values in cpu.items()],
        raw=dict(cpu),
        bars=[Bar("all on to all off", ratio.median, 1.05, "times", spread=ratio.spread)],
        charts=[bars_chart("", "CPU µs a message", chart)],
    )

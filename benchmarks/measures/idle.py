"""What silent connections cost those that speak."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import loads
import progress
import rounds
import servers
import stats
from report import Bar, Result, lines_chart

CROWDS = (0, 1_000, 5_000, 15_000)
LIMIT = 1.15  # with the largest crowd to none
MOST_THREADS = 1_000  # for those with a thread or process a connection


def measure(names: Sequence[str], quick: bool) -> Result:
    """Each server with growing crowds, in the same process."""
    times, messages = (1, 10_000) if quick else (3, 15_000)
    found: dict[str, dict[int, list[float]]] = {name: {} for name in names if name != "perl"}
    for number in progress.rounds(times):
        for name, costs in found.items():
            if (number and name not in servers.RIVALS) or name in servers.failed:
                continue
            with (
                servers.excused(name),
                servers.running(name) as server,
                contextlib.ExitStack() as crowds,
            ):
                there = 0
                for crowd in CROWDS:
                    if crowd > MOST_THREADS and name in servers.ONE_EACH:
                        break
                    progress.show(
                        f"round {number + 1} of {times}: {servers.EVERYONE[name]}, {crowd:,} idle"
                    )
                    if crowd:
                        crowds.enter_context(
                            loads.opened(server.port, connections=0, idle=crowd - there)
                        )
                    there = crowd
                    share = 1 if name in servers.RIVALS else 2  # the others are the slower ones
                    cost = rounds.cost(server, messages=messages // share)
                    costs.setdefault(crowd, []).append(cost.cpu)
    return _result({name: costs for name, costs in found.items() if name not in servers.failed})


def _result(found: dict[str, dict[int, list[float]]]) -> Result:
    times = max(len(costs[0]) for costs in found.values())
    result = Result(
        name="idle",
        title="Idle crowds",
        columns=("server", *(f"CPU µs, {crowd:,} idle" for crowd in CROWDS), "most to none"),
        about="The same 50 clients with 64 bytes, while others are connected and silent. "
        f"{times} rounds; one for those without a bar. asyncio becomes cheaper with a crowd: its "
        "reads of 256 KiB are above the allocator's mmap threshold and cost two page faults each, "
        "until its heap has grown.",
        raw={name: dict(costs) for name, costs in found.items()},
    )
    medians: dict[str, dict[float, float]] = {}
    for name, costs in found.items():
        label = servers.EVERYONE[name]
        medians[label] = {crowd: stats.summarize(values).median for crowd, values in costs.items()}
        last = max(costs)
        summary = stats.summarize(stats.ratios(costs[last], costs[0]))
        ratio = summary.median
        cells = [str(stats.summarize(costs[crowd])) if crowd in costs else "-" for crowd in CROWDS]
        result.rows.append((label, *cells, f"{ratio:.2f}" if last == CROWDS[-1] else "-"))
        if name == "epolld":
            what = f"epolld, {last:,} idle to none"
            result.bars.append(Bar(what, ratio, LIMIT, "times", spread=summary.spread))
    for peer in ("uvloop", "go"):
        if {"epolld", peer} <= set(found):
            ours, theirs = (found[name][CROWDS[-1]] for name in ("epolld", peer))
            summary = stats.summarize(stats.ratios(ours, theirs))
            what = f"{CROWDS[-1]:,} idle, epolld to {servers.EVERYONE[peer]}"
            bar = Bar(what, summary.median, 1.0, "times", below=True, spread=summary.spread)
            result.bars.append(bar)
    result.charts.append(lines_chart("", "CPU µs a message", "idle connections", medians))
    return result

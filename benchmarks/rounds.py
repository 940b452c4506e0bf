"""What one message costs a server, measured in rounds in which all servers take turns.

CPU time of the server's whole process tree, read around the load alone: neither start-up nor the
opening of connections counts. The servers of a round are close in time, in an order drawn anew,
each started afresh; so a machine that is slow for a while is slow for all. Those with a bar take
part in every round, the others in some.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import loads
import processes
import progress
import servers
import stats
from report import Bar, Result, bars_chart

CONNECTIONS, WARMUP = 50, 5_000
LEAST = 7  # rounds on a machine so busy that there is no time for more


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one message: CPU time in µs, messages a second, latencies in µs as the client saw them."""

    cpu: float
    user: float
    system: float
    rate: float
    p50: float
    p99: float
    p999: float


Costs = dict[str, list[Cost]]  # one for each round that the server took part in

COLUMNS = (
    *("server", "CPU µs (spread)", "user", "system", "to epolld"),
    *("messages/s", "p50 µs", "p99 µs", "p99.9 µs"),
)


def cost(server: servers.Server, **options: object) -> Cost:
    """Load a server (options are those of `load.c`) and read its CPU time around the load."""
    defaults: dict[str, object] = {"connections": CONNECTIONS, "warmup": WARMUP}
    with loads.opened(server.port, **(defaults | options)) as load:
        before = processes.cpu_time(processes.family(server.pid))
        report = load.run()
        spent = processes.cpu_time(processes.family(server.pid)) - before
    run = spent.ticked if server.name == "socketserver" else spent.run
    cpu = run / report["messages"] / 1000
    user = cpu * spent.user_share
    rate = report["messages"] / report["seconds"]
    return Cost(cpu, user, cpu - user, rate, report["p50_us"], report["p99_us"], report["p999_us"])


def alternate(
    names: Sequence[str],
    rounds: int,
    seldom: int,
    work: Callable[[servers.Server], Cost],
    least: int = LEAST,
) -> Costs:
    """All rounds. Who has no bar takes part in every `seldom`-th, beginning with the first.

    A peer that fails once is in none of them: a figure over failures is worth nothing.
    """
    costs: Costs = {name: [] for name in names}
    for number in progress.rounds(rounds, least):
        here = [name for name in names if name in servers.RIVALS or number % seldom == 0]
        for name in random.sample(here, len(here)):
            if name in servers.failed:
                continue
            progress.show(f"round {number + 1} of {rounds}: {servers.EVERYONE[name]}")
            with servers.excused(name), servers.running(name) as server:
                costs[name].append(work(server))
    return {name: found for name, found in costs.items() if name not in servers.failed}


def made(costs: Mapping[str, Sequence[object]]) -> str:
    """How many rounds there were, for the text above the table."""
    number = max(map(len, costs.values()), default=0)
    return f"{number} round{'' if number == 1 else 's'}"


def median(found: Sequence[Cost], figure: str) -> str:
    """The median of one figure of the rounds, without decimals."""
    return f"{stats.summarize([getattr(cost, figure) for cost in found]).median:,.0f}"


def fill(result: Result, costs: Costs, title: str = "") -> None:
    """Add rows, raw figures and a chart of CPU time; `title` sets several works apart."""
    base = (
        stats.summarize([each.cpu for each in costs["epolld"]]).median if "epolld" in costs else 0
    )
    chart: dict[str, tuple[float, float, float]] = {}
    for name, found in costs.items():
        cpu = stats.summarize([each.cpu for each in found])
        label = servers.EVERYONE[name]
        chart[label] = (cpu.median, cpu.low, cpu.high)
        # The split comes in ticks of 10 ms: over all rounds it is finer than a median of splits.
        share = sum(each.user for each in found) / sum(each.cpu for each in found)
        user = cpu.median * share
        ratio = f"{cpu.median / base:.2f}" if base else "-"
        cells = [label, str(cpu), f"{user:.2f}", f"{cpu.median - user:.2f}", ratio]
        cells += [median(found, figure) for figure in ("rate", "p50", "p99", "p999")]
        result.rows.append((title, *cells) if title else tuple(cells))
        raw = [{key: round(value, 3) for key, value in asdict(each).items()} for each in found]
        result.raw.setdefault(title or "64 bytes", {})[name] = raw
    result.charts.append(bars_chart(title, "CPU µs a message", chart))


def ratio_bars(
    result: Result, costs: Costs, limits: Mapping[str, float], what: str = "CPU"
) -> None:
    """epolld against its rivals: the median of the rounds' ratios."""
    for peer, limit in limits.items():
        if costs.get("epolld") and costs.get(peer):
            pairs = stats.ratios(*([each.cpu for each in costs[name]] for name in ("epolld", peer)))
            found = stats.summarize(pairs)
            text = f"{what}, epolld to {servers.EVERYONE[peer]}"
            result.bars.append(Bar(text, found.median, limit, "times", spread=found.spread))

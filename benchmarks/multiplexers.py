"""Draws the pictures of docs/epoll.md: select, poll and epoll over ever more sockets.

    python benchmarks/multiplexers.py [--quick]

The servers are those of examples/epoll, and epolld. Each holds 10 to 15,000 connections, of which
ten ask again and again and the others are silent; then as many that all ask. What a message costs
is the CPU time of the server's processes. Beside it the bare calls: one wait in which one of N
descriptors is ready.
Writes docs/pictures/multiplexers.{png,svg}, multiplexers.json beside this file, and the tables of
docs/epoll.md. It is also the measure `multiplexers` of scripts/bench.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import select
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import loads
import pictures
import processes
import progress
import servers

ASKING = 10  # connections that ask while the others are silent
SIZES = (10, 100, 1_000, 5_000, 15_000)
SELECT_LIMIT = 1_024  # descriptors; FD_SETSIZE
MESSAGES = 5_000  # measured; poll with a crowd takes its time, and gets a quarter
TIMEOUT = 60  # seconds for an answer: poll scans them all for each newcomer
ENOUGH = 0.01  # seconds of calls that are measured as one

# The name of each server's file in examples/epoll without `upper_`, and what the page calls it.
SERVERS = {
    "select": "select",
    "poll": "poll",
    "epoll_naive": "epoll, naive",
    "epoll_edge": "epoll, edge-triggered",
    "epoll": "epoll, level-triggered",
    "epolld": "epolld",
}
DATA = servers.HERE / "multiplexers.json"
PAGE = servers.ROOT / "docs/epoll.md"

Curves = dict[str, dict[int, float]]  # µs by number of sockets, by server or call


def measure_servers(rounds: int) -> tuple[Curves, Curves]:
    """CPU µs a message, the median of the rounds: while ten ask, and while all do."""
    few: dict[str, dict[int, list[float]]] = {name: {} for name in SERVERS}
    many: dict[str, dict[int, list[float]]] = {name: {} for name in SERVERS}
    for number in progress.rounds(rounds, least=2):
        for name in random.sample(list(SERVERS), len(SERVERS)):
            progress.show(f"round {number + 1} of {rounds}: {name}")
            for size, cost in _measure_few(name):
                few[name].setdefault(size, []).append(cost)
            for size, cost in _measure_many(name):
                many[name].setdefault(size, []).append(cost)
    return _medians(few), _medians(many)


# The server ends first, its connections with it: poll would scan all that are left for each that
# goes, and so for each that comes; that is why the crowd grows and none is let go.


def _measure_few(name: str) -> Iterator[tuple[int, float]]:
    """Ten ask, in a crowd of silent ones that grows."""
    with contextlib.ExitStack() as crowd, servers.running(name) as server:
        there = 0
        for size in _sizes(name, SIZES[-1]):
            if more := size - ASKING - there:
                load = loads.opened(server.port, connections=0, idle=more, timeout=TIMEOUT)
                crowd.enter_context(load)
                there += more
            with _asking(server, ASKING, MESSAGES if there < SELECT_LIMIT else MESSAGES // 4) as it:
                yield size, _cost(server, it)


def _measure_many(name: str) -> Iterator[tuple[int, float]]:
    """All ask; with each number on a server of its own."""
    for size in _sizes(name, SIZES[-2]):
        with contextlib.ExitStack() as clients, servers.running(name) as server:
            yield size, _cost(server, clients.enter_context(_asking(server, size, MESSAGES)))


def _sizes(name: str, most: int) -> Sequence[int]:
    return [size for size in SIZES if size <= (SELECT_LIMIT if name == "select" else most)]


def _asking(
    server: servers.Server, clients: int, messages: int
) -> contextlib.AbstractContextManager[loads.Load]:
    """So many clients that will ask so many times together, or twice each."""
    return loads.opened(
        server.port,
        connections=clients,
        messages=max(messages, 2 * clients),
        warmup=max(messages // 5, 2 * clients),
        timeout=TIMEOUT,
    )


def _medians(costs: Mapping[str, Mapping[int, Sequence[float]]]) -> Curves:
    return {
        name: {size: statistics.median(values) for size, values in sizes.items()}
        for name, sizes in costs.items()
    }


def _cost(server: servers.Server, load: loads.Load) -> float:
    """CPU µs of the server for a message of the load."""
    family = processes.family(server.pid)
    before = processes.cpu_time(family)
    report = load.run()
    spent = processes.cpu_time(family) - before
    return float(spent.run / report["messages"] / 1000)


def measure_calls() -> Curves:
    """µs of one bare wait while one of N descriptors (eventfds) is ready."""
    curves: Curves = {"select": {}, "poll": {}, "epoll": {}}
    for size in SIZES:
        fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(size)]
        os.eventfd_write(fds[-1], 1)
        poll, epoll = select.poll(), select.epoll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
            epoll.register(fd, select.EPOLLIN)
        if fds[-1] < SELECT_LIMIT:
            curves["select"][size] = _time(lambda fds=fds: select.select(fds, [], [], 0))  # type: ignore[misc]
        curves["poll"][size] = _time(lambda poll=poll: poll.poll(0))  # type: ignore[misc]
        curves["epoll"][size] = _time(lambda epoll=epoll: epoll.poll(0))  # type: ignore[misc]
        epoll.close()
        for fd in fds:
            os.close(fd)
    return curves


def _time(call: Callable[[], object]) -> float:
    """The fastest of five: this is one process and the rest is disturbance."""
    best = float("inf")
    for _ in range(5):
        calls, began = 0, time.process_time()
        while (spent := time.process_time() - began) < ENOUGH:
            call()
            calls += 1
        best = min(best, spent / calls)
    return best * 1e6


def draw(few: Curves, many: Curves, calls: Curves) -> None:
    """The three sets of curves, side by side."""
    with pictures.figure("multiplexers", 1, 3, size=(14, 5)) as panels:
        for axes, curves in zip(panels, (few, many, calls), strict=True):
            for name, curve in curves.items():
                number = list(SERVERS).index(name)
                axes.plot(
                    list(curve),
                    list(curve.values()),
                    marker=pictures.MARKERS[number],
                    color=pictures.COLOURS[number],
                    label=name if curves is calls else SERVERS[name],
                )
            _style(axes)
        left, middle, right = panels
        left.set_title(f"A server: {ASKING} clients ask,\nthe others are silent")
        left.set_ylabel("CPU time of a message, µs")
        left.legend(fontsize=9, loc="upper left")
        middle.set_title("A server: all clients ask")
        middle.set_ylabel("CPU time of a message, µs")
        middle.set_ylim(left.get_ylim())
        right.set_title("The bare call: one wait,\none descriptor is ready")
        right.set_ylabel("CPU time of a call, µs")
        right.legend(fontsize=9, loc="upper left")


def _style(axes: Any) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(8, 20_000)
    axes.set_xticks(SIZES, ["10", "100", "1,000", "5k", "15k"])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("registered sockets")
    axes.axvline(SELECT_LIMIT, color="grey", linestyle=":", linewidth=1)
    axes.annotate(
        "1,024: select's end",
        (SELECT_LIMIT, 0.98),
        xycoords=("data", "axes fraction"),
        xytext=(2, 0),
        textcoords="offset points",
        rotation=90,
        ha="left",
        va="top",
        fontsize=8,
        color="grey",
    )


def table(curves: Curves) -> str:
    """The figures as the page shows them."""
    sizes = [size for size in SIZES if size in curves["epolld"]]
    lines = ["| µs a message | " + " | ".join(f"{size:,} sockets" for size in sizes) + " |"]
    lines.append("| --- |" + " --- |" * len(sizes))
    for name, label in SERVERS.items():
        cells = [f"{curves[name][s]:.1f}" if s in curves[name] else "-" for s in sizes]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def show(page: str, few: Curves) -> str:
    """The page with these figures: the table that is behind `<!-- multiplexers -->`."""
    return re.sub(
        r"(?<=<!-- multiplexers -->\n)(\|.*\n)+", lambda _: table(few) + "\n", page, count=1
    )


def run(rounds: int) -> tuple[Curves, Curves, Curves]:
    """Measure, draw, and write data and page; on the core of the load.

    The curves of servers while ten ask and while all do, and of the bare calls.
    """
    calls = measure_calls()
    few, many = measure_servers(rounds)
    DATA.write_text(json.dumps({"few": few, "many": many, "calls": calls}, indent=1) + "\n")
    PAGE.write_text(show(PAGE.read_text(), few))
    draw(few, many, calls)
    return few, many, calls


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Draws the pictures of docs/epoll.md.")
    parser.add_argument("--quick", action="store_true", help="one round")
    quick = parser.parse_args(arguments).quick
    servers.raise_descriptor_limit()
    servers.build()
    with servers.pinned(servers.LOAD_CORE):
        few, many, _ = run(1 if quick else 3)
    print(table(few), table(many), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""What ten scrapes a second cost the worker: CPU time a message with and without, in turn.

The same process serves both, so that only the scrapes differ. The exporter shares the load's core,
as it would take another core of a real machine. Only the worker's time counts.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence

import loads
import processes
import progress
import servers
import stats
from report import Bar, Result, bars_chart

CONNECTIONS, WARMUP = 50, 20_000
EVERY = 0.1  # seconds between two scrapes
LIMIT = 1.03


def measure(names: Sequence[str], quick: bool) -> Result:
    """epolld alone: its peers have no exporter."""
    rounds, messages = (5, 60_000) if quick else (5, 80_000)
    place = f"bench-scrapes-{os.getpid()}"
    settings = f"  count: 1\nmetrics:\n  bind: unix:@{place}\n"
    result = Result(
        name="scrapes",
        title="Scrapes",
        about="CPU time of the worker a message, with ten scrapes of /metrics a second and "
        "without, in turn in the same process. The exporter shares the load's core.",
        columns=("server", "CPU µs without", "CPU µs with", "ratio (spread)", "scrapes"),
    )
    if "epolld" not in names:
        return result
    without: list[float] = []
    scraped: list[float] = []
    scrapes = 0
    with servers.running("epolld", settings=settings) as server:
        for pid in processes.family(server.pid)[1:]:
            if "exporter" in processes.title(pid):
                os.sched_setaffinity(pid, {servers.LOAD_CORE})
        for number in progress.rounds(rounds):
            # Who goes first has the machine as the round before has left it: in turn.
            progress.show(f"round {number + 1} of {rounds}")
            for scraping in (False, True) if number % 2 else (True, False):
                with scraper(place) if scraping else contextlib.nullcontext([]) as done:
                    cost = _cost(server, messages)
                scrapes += len(done)
                (scraped if scraping else without).append(cost)
    ratio = stats.summarize(stats.ratios(scraped, without))
    row = ("epolld", str(stats.summarize(without)), str(stats.summarize(scraped)), str(ratio))
    result.rows.append((*row, str(scrapes)))
    result.raw["epolld"] = {"without": without, "with": scraped}
    result.about += f" {len(without)} rounds."
    chart = {}
    for name, found in (("epolld", without), ("epolld, scraped", scraped)):
        each = stats.summarize(found)
        chart[name] = (each.median, each.low, each.high)
    result.charts.append(bars_chart("", "CPU µs a message", chart))
    what = "epolld with scrapes to without"
    result.bars.append(Bar(what, ratio.median, LIMIT, "times", spread=ratio.spread))
    return result


def _cost(server: servers.Server, messages: int) -> float:
    """µs of the worker for one message."""
    with loads.opened(
        server.port, connections=CONNECTIONS, messages=messages, warmup=WARMUP
    ) as load:
        workers = server.workers()
        before = processes.cpu_time(workers)
        report = load.run()
        spent = processes.cpu_time(workers) - before
    return float(spent.run / report["messages"] / 1000)


@contextlib.contextmanager
def scraper(place: str) -> Iterator[list[int]]:
    """Ask for /metrics every tenth of a second; the list gets the length of each answer."""
    done: list[int] = []
    stop = threading.Event()

    def scrape() -> None:
        while True:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(f"\0{place}")
                sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                length = 0
                while part := sock.recv(1 << 20):
                    length += len(part)
            done.append(length)
            if stop.wait(EVERY):
                return

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()

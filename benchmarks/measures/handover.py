"""Live connections move at HUP, USR2, TTOU and recycling: what their clients notice of it.

The load (`steady.c`) holds idle connections, asks again and again over busy ones and lets
newcomers arrive, all the while that the server changes. What happens when a process dies
meanwhile is in `accidents.py`.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import loads
import plot_reload
import processes
import progress
import servers
from report import Bar, Result, Spread, bars_chart

from measures import accidents

WORKERS, IDLE, BUSY, RATE = 4, 10_000, 50, 1_000
THINK_US = 5_000  # between answer and request, for the load that leaves the processors room
GONE_WITHIN, PAUSE_WITHIN = 1_000, 100  # ms: the bars
CHANGE_WITHIN = 30.0  # seconds; a change that takes longer ends the measure
PROMINENT = ("HUP", "USR2")  # whose bars are in the overview, met or not
SETTLE = 0.3  # seconds after a change that still count as part of it
RECYCLE = "  recycle_connections: 1500\n"
RECYCLINGS = 4

EXITED = r"\(pid {}, generation \d+\) exited with status 0"


@dataclass
class Row:
    """What the clients met in all changes of one kind."""

    change: str
    load: str
    messages: int = 0
    newcomers: int = 0
    failures: int = 0
    gone: list[float] = field(default_factory=list)  # ms
    pause: list[float] = field(default_factory=list)  # ms, the longest of each change
    wait: list[float] = field(default_factory=list)  # ms, a newcomer's longest
    late: list[float] = field(default_factory=list)  # ms, the load's own delay

    def add(self, report: dict[str, Any], failures_before: int, gone: float | None) -> None:
        """One more change: the load's report on it, and when the last old worker went."""
        self.messages += report["messages"]
        self.newcomers += report["newcomers"]
        self.failures += _failures(report) - failures_before
        self.pause.append(report["busy_max_us"] / 1000)
        self.wait.append(report["new_max_us"] / 1000)
        self.late.append(report["late_max_us"] / 1000)
        if gone is not None:
            self.gone.append(gone)

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        counts = (len(self.pause), self.messages, self.newcomers, self.failures)
        spans = (self.gone, self.pause, self.wait, self.late)
        return (self.change, self.load, *(f"{n:,}" for n in counts), *map(_span, spans))


COLUMNS = (
    *("change", "busy clients", "times", "messages", "newcomers", "failures"),
    *("old gone, ms", "longest pause, ms", "newcomer's longest, ms", "load late, ms"),
)


def measure(names: Sequence[str], quick: bool) -> Result:
    """The changes one after the other, under both loads; the peers cannot."""
    result = Result(
        name="handover",
        title="The pause of a reload",
        about=f"HUP, USR2, TTOU, TTIN and recycling with {IDLE:,} idle and {BUSY} busy "
        f"connections and {RATE:,} newcomers a second on {WORKERS} workers: how long a client "
        "waited for its answer, median and worst of all changes.",
        columns=COLUMNS,
    )
    if "epolld" not in names:
        return result
    with servers.pinned(None):
        for load, think in ((f"pause {THINK_US // 1000} ms", THINK_US), ("never pause", 0)):
            rows = [*_changes(result, load, think, quick), _recycling(load, think, quick)]
            for row in rows:
                result.rows.append(row.cells())
                result.raw[f"{row.change}, {load}"] = row.__dict__
                if row.change != "none":
                    result.bars += _bars(row)
            result.charts += _charts(rows, f"Clients that {load}")
        progress.show("processes that die")
        accidents.measure(result, quick)
        if not quick:
            progress.show("five reloads for a picture")
            try:
                plot_reload.draw(*plot_reload.observe())
            except servers.BenchmarkError as error:  # what was measured is not lost for it
                result.notes.append(f"* The picture of five reloads is from before: {error}")
    result.pictures.append("reload")
    result.notes.append(
        "* Both cores serve and load at once. `none`: the same load with nothing changing, for "
        "scale. `old gone`: from `reload done` (TTOU: from the signal; recycling: from the "
        "successor being ready) to the end of the last old worker. `load late`: how late the "
        "load itself came to its own clock, a part of the pauses that is not the server's."
    )
    return result


def _bars(row: Row) -> list[Bar]:
    what = f"{row.change}, busy clients {row.load}"
    detail = row.change not in PROMINENT
    pause, gone = f"{what}: longest pause", f"{what}: old gone"
    bars = [
        Bar(f"{what}: failures", row.failures, 0, detail=True),
        Bar(pause, max(row.pause), PAUSE_WITHIN, "ms", True, _middle(row.pause), detail),
    ]
    if row.gone:
        bars.append(Bar(gone, max(row.gone), GONE_WITHIN, "ms", False, _middle(row.gone), detail))
    return bars


def _middle(values: Sequence[float]) -> str:
    """The bar looks at the worst; this tells the median."""
    return f"the worst; median {statistics.median(values):,.0f}, {len(values)} of them"


def _charts(rows: Sequence[Row], title: str) -> list[dict[str, Any]]:
    """The longest pauses, and how soon the old were gone; a whisker ends at the worst."""
    pauses = {row.change: _range(row.pause) for row in rows}
    gone = {row.change: _range(row.gone) for row in rows if row.gone}
    unit = "ms, median and worst"
    return [
        bars_chart(f"{title}: longest pause", unit, pauses, PAUSE_WITHIN),
        bars_chart(f"{title}: old workers gone", unit, gone, GONE_WITHIN),
    ]


def _range(values: Sequence[float]) -> Spread:
    return statistics.median(values), min(values), max(values)


def _changes(result: Result, load_name: str, think: int, quick: bool) -> list[Row]:
    """One server through reloads, upgrades and changes of its size."""
    none, hups, others = (2, 3, 1) if quick else (5, 10, 2)
    plan: tuple[tuple[str, int, Callable[[servers.Server], float | None]], ...] = (
        ("none", none, _wait),
        ("HUP", hups, lambda server: _replace_all(server, signal.SIGHUP)),
        ("USR2", others, lambda server: _replace_all(server, signal.SIGUSR2)),
        ("TTOU", others, _shrink),  # first: who leaves then has its share of the connections
        ("TTIN", others, _grow),
    )
    rows = []
    with servers.running("epolld", workers=WORKERS, core=None) as server:
        before = _descriptors(server)
        with loads.steady(server.port, idle=IDLE, busy=BUSY, rate=RATE, think_us=think) as load:
            time.sleep(1)
            for change, times, act in plan:
                row = Row(change, load_name)
                progress.show(f"{change}, busy clients {load_name}")
                for _ in range(times):
                    failed = _failures(load.report())
                    gone = act(server)
                    time.sleep(SETTLE)
                    row.add(load.report(), failed, gone)
                rows.append(row)
        after = _await_descriptors(server, before)
    text = f"* Descriptors of the master and of the workers, busy clients {load_name}: "
    result.notes.append(f"{text}{before} before the load, {after} after it and all changes.")
    result.raw[f"descriptors, {load_name}"] = {"before": before, "after": after}
    more = sum(after) - sum(before)
    result.bars.append(Bar(f"descriptors left over, busy clients {load_name}", more, 0))
    return rows


def _recycling(load_name: str, think: int, quick: bool) -> Row:
    """A server whose workers are replaced again and again, as they have accepted enough."""
    row = Row("recycling", load_name)
    progress.show(f"recycling, busy clients {load_name}")
    with (
        servers.running("epolld", workers=WORKERS, core=None, settings=RECYCLE) as server,
        loads.steady(server.port, idle=IDLE, busy=BUSY, rate=RATE, think_us=think) as load,
    ):
        for _ in range(2 if quick else RECYCLINGS):
            failed = _failures(load.report())
            seen = server.wait_line("recycling it", len(server.lines), CHANGE_WITHIN)
            pid = _found(r"\(pid (\d+), generation \d+\) accepted", server.lines[seen - 1])
            ready = server.wait_line(r"\) is ready", seen, CHANGE_WITHIN)
            gone = _gone([int(pid)], server, ready)
            time.sleep(SETTLE)
            row.add(load.report(), failed, gone)
    return row


# -- one change: each returns after how many ms the last old worker was gone -----------------------


def _wait(_server: servers.Server) -> None:
    time.sleep(0.5)


def _replace_all(server: servers.Server, number: signal.Signals) -> float:
    old, seen = server.workers(), len(server.lines)
    os.kill(server.pid, number)
    return _gone(old, server, server.wait_line("reload done", seen, CHANGE_WITHIN))


def _grow(server: servers.Server) -> None:
    """One worker more: nobody goes."""
    seen = len(server.lines)
    os.kill(server.pid, signal.SIGTTIN)
    server.wait_line(r"\) is ready", seen, CHANGE_WITHIN)


def _shrink(server: servers.Server) -> float:
    """One worker less, which is the last by slot."""
    leaver = max(
        server.workers(), key=lambda pid: int(_found(r"worker (\d+)", processes.title(pid)))
    )
    seen = len(server.lines)
    os.kill(server.pid, signal.SIGTTOU)
    return _gone([leaver], server, server.wait_line("workers wanted", seen, CHANGE_WITHIN))


def _gone(pids: Sequence[int], server: servers.Server, since: int) -> float:
    """Wait until all have exited: ms from the line before number `since`, by the log's clock."""
    begin = _stamp(server.lines[since - 1])
    ends = [server.wait_line(EXITED.format(pid), since - 1, CHANGE_WITHIN) for pid in pids]
    return max(_stamp(server.lines[end - 1]) for end in ends) - begin


# -- what the system tells -------------------------------------------------------------------------


def _descriptors(server: servers.Server) -> list[int]:
    """How many the master has open, and each worker."""
    return [processes.descriptors(pid) for pid in (server.pid, *sorted(server.workers()))]


def _await_descriptors(server: servers.Server, wanted: list[int]) -> list[int]:
    """The counts once all clients have gone, at most 5 s later."""
    deadline = time.monotonic() + 5
    while (found := _descriptors(server)) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _stamp(line: str) -> float:
    """The time of a log line in ms; only differences mean something."""
    clock, milliseconds = line[:19], line[20:23]
    return time.mktime(time.strptime(clock, "%Y-%m-%d %H:%M:%S")) * 1000 + int(milliseconds)


def _found(pattern: str, text: str) -> str:
    """The group of the pattern in the text. Raises BenchmarkError if it is not there."""
    match = re.search(pattern, text)
    if not match:
        raise servers.BenchmarkError(f"no {pattern!r} in {text!r}")
    return match[1]


def _failures(report: dict[str, Any]) -> int:
    return sum(report["failures"].values())


def _span(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f} / {max(values):,.0f}" if values else "-"

"""The control socket under ten thousand connections: how fast it answers, and what a list of them
all costs busy clients in pauses.

The worst case for a pause is one worker that holds them all; four share them.
"""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import loads
import progress
import servers
from report import Bar, Result, bars_chart

CONNECTIONS, BUSY, THINK_US = 10_000, 20, 2_000
STATUS_WITHIN, PAUSE_WITHIN = 50, 20  # ms: the bars
LISTS, STATUSES = 10, 50
COLUMNS = (
    *("workers", "status, ms", "list of all, ms", "in the list"),
    *("longest pause without, ms", "longest pause with, ms", "load late, ms"),
)


def measure(names: Sequence[str], quick: bool) -> Result:
    """Both, with one worker and with four; the peers have nothing to ask."""
    result = Result(
        name="control",
        title="The control socket amid a crowd",
        about=f"{CONNECTIONS:,} connections, {BUSY} of them busy: how long `status` and the list, "
        "`connections`, take, and what busy clients notice of a list. Median and worst.",
        columns=COLUMNS,
    )
    if "epolld" in names:
        for workers in (1, 4):
            progress.show(f"{workers} workers")
            _measure(result, workers, 3 if quick else LISTS)
        result.charts = _charts(result.raw)
    return result


def _measure(result: Result, workers: int, lists: int) -> None:
    idle = CONNECTIONS - BUSY
    with (
        servers.pinned(None),
        servers.running("epolld", workers=workers, core=None) as server,
        loads.steady(server.port, idle=idle, busy=BUSY, rate=0, think_us=THINK_US) as load,
        _connected(server) as sock,
    ):
        lines = sock.makefile("rb")
        time.sleep(1)  # until all are accepted and the load is at its pace

        def ask(command: str) -> tuple[float, int]:
            """Milliseconds until the whole answer is there, and how many items it had."""
            begin = time.perf_counter()
            sock.sendall(b'{"command": "%b"}\n' % command.encode())
            while True:  # only looked at as a whole: what reads it is not measured
                line = lines.readline()
                if b'"more":true' not in line[:40]:
                    took = (time.perf_counter() - begin) * 1000
                    answer = json.loads(line)["result"]
                    return took, answer.get("count", answer.get("connections", 0))

        without = _pauses(load, lists, lambda: time.sleep(0.2))
        status = [ask("status") for _ in range(STATUSES)]
        if {count for _, count in status} != {CONNECTIONS}:
            raise servers.BenchmarkError(f"status counted {status[0][1]}, not {CONNECTIONS}")
        times, counts = [], []

        def list_all() -> None:
            took, count = ask("connections")
            times.append(took)
            counts.append(count)

        with_list = _pauses(load, lists, list_all)
    if set(counts) != {CONNECTIONS}:
        raise servers.BenchmarkError(f"the lists had {counts}, not {CONNECTIONS} each")
    took = [each for each, _ in status]
    late = [each["late_max_us"] / 1000 for each in with_list]
    quiet = [each["busy_max_us"] / 1000 for each in without]
    paused = [each["busy_max_us"] / 1000 for each in with_list]
    result.rows.append(
        (
            str(workers),
            _span(took),
            _span(times),
            f"{counts[0]:,}",
            *map(_span, (quiet, paused, late)),
        )
    )
    what = f"{workers} worker{'s' if workers > 1 else ''}"
    result.raw[what] = {
        "status": took,
        "list": times,
        "quiet": quiet,
        "paused": paused,
        "late": late,
    }
    result.bars += [
        _bar(f"{what}: status, the slowest", took, STATUS_WITHIN),
        _bar(f"{what}: busy clients' longest pause during lists", paused, PAUSE_WITHIN),
    ]


def _bar(what: str, values: Sequence[float], limit: float) -> Bar:
    """The worst is what counts; the median is told."""
    middle = f"the worst; median {statistics.median(values):.3g}, {len(values)} of them"
    return Bar(what, max(values), limit, "ms", spread=middle)


def _charts(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers, and pauses; a whisker ends at the worst."""
    answers, pauses = {}, {}
    for workers, found in raw.items():
        answers[f"status, {workers}"] = _range(found["status"])
        answers[f"list of all, {workers}"] = _range(found["list"])
        pauses[f"no list, {workers}"] = _range(found["quiet"])
        pauses[f"lists, {workers}"] = _range(found["paused"])
    return [
        bars_chart("Until the whole answer is there", "ms, median and worst", answers),
        bars_chart("Longest pause of busy clients", "ms, median and worst", pauses, PAUSE_WITHIN),
    ]


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _connected(server: servers.Server) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(server.folder / "control.sock"))
    return sock


def _pauses(load: loads.Load, times: int, act: Callable[[], object]) -> list[dict[str, Any]]:
    """What busy clients met in each of so many acts."""
    reports = []
    for _ in range(times):
        before = load.report()
        act()
        report = load.report()
        if report["failures"] != before["failures"]:
            raise servers.BenchmarkError(f"failures: {report['failures']}")
        reports.append(report)
    return reports


def _span(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.1f} / {max(values):,.1f}"

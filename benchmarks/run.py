"""Measures epolld beside its peers: results.json, docs/benchmarks.md and its pictures.

    scripts/bench [--only MEASURE ...] [--servers NAME ...] [--quick]

The server runs on one core and the load on the other. Exit status 1: a bar was not met.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import charts
import pictures
import progress
import report
import servers
from measures import (
    accepts,
    check,
    connect,
    control,
    coroutines,
    crowd,
    greedy,
    greeting,
    handover,
    hostile,
    idle,
    instructions,
    keyvalue,
    limits,
    lines,
    memory,
    message,
    reload,
    scrapes,
    startup,
    tls,
    workers,
)

DATA = servers.HERE / "results.json"
PAGE = servers.ROOT / "docs/benchmarks.md"
INTRO = servers.HERE / "intro.md"


@dataclass(frozen=True, slots=True)
class Measure:
    """`measure(names, quick)`, and its seconds on two idle cores: of a whole and a quick run."""

    measure: Callable[[Sequence[str], bool], report.Result]
    seconds: int
    quick: int


# In the order of the page.
MEASURES = {
    "message": Measure(message.measure, 70, 18),
    "sizes": Measure(message.measure_sizes, 50, 30),
    "lines": Measure(lines.measure, 35, 11),
    "coroutines": Measure(coroutines.measure, 45, 15),
    "keyvalue": Measure(keyvalue.measure, 25, 15),
    "tls": Measure(tls.measure, 40, 25),
    "connect": Measure(connect.measure, 50, 18),
    "idle": Measure(idle.measure, 60, 40),
    "greedy": Measure(greedy.measure, 30, 10),
    "limits": Measure(limits.measure, 25, 10),
    "flood": Measure(hostile.measure_flood, 17, 12),
    "unread": Measure(hostile.measure_unread, 2, 2),
    "instructions": Measure(instructions.measure, 60, 40),
    "workers": Measure(workers.measure, 16, 3),
    "greeting": Measure(greeting.measure, 10, 1),
    "memory": Measure(memory.measure, 60, 21),
    "startup": Measure(startup.measure, 12, 5),
    "accepts": Measure(accepts.measure, 25, 5),
    "reload": Measure(reload.measure, 40, 25),
    "control": Measure(control.measure, 12, 8),
    "handover": Measure(handover.measure, 110, 65),
    "crowd": Measure(crowd.measure, 32, 15),
    "check": Measure(check.measure, 18, 10),
    "scrapes": Measure(scrapes.measure, 60, 30),
}


def main() -> int:
    arguments = _parse()
    if (os.cpu_count() or 1) < 2:
        print("needs two cores: one for the server, one for the load", file=sys.stderr)
        return 2
    pictures.import_pyplot()  # before the work, not after it
    servers.raise_descriptor_limit()
    servers.build()
    names = [name for name in servers.available() if name in arguments.servers]
    quick = arguments.quick
    bar = progress.current = progress.Progress(
        {name: MEASURES[name].quick if quick else MEASURES[name].seconds for name in arguments.only}
    )
    met = True
    with servers.pinned(servers.LOAD_CORE):
        for name in arguments.only:
            bar.begin(name)
            began, busy = time.monotonic(), os.getloadavg()[0]
            try:
                if name == "crowd" and arguments.connections:
                    result = crowd.gather(arguments.connections, _raw("crowd"))
                else:
                    result = MEASURES[name].measure(names, quick)
            except servers.BenchmarkError as error:
                bar.clear()
                print(f"{name} FAILED: {error}", file=sys.stderr)
                met = False
                continue  # the page keeps what was measured before
            result.facts = report.machine(quick, time.monotonic() - began, busy)
            met = met and all(each.met for each in result.bars)
            _keep(result)
            bar.clear()
            print(report.summary(result), end="\n\n", flush=True)
    return 0 if met else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures epolld beside its peers.")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument(
        "--servers", nargs="+", choices=servers.EVERYONE, default=list(servers.EVERYONE)
    )
    parser.add_argument("--connections", type=int, help="of the measure `crowd`", metavar="N")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    return parser.parse_args()


def _raw(name: str) -> dict[str, Any]:
    """The raw figures of a measure's last result."""
    old = report.from_json(DATA.read_text()) if DATA.exists() else []
    return next((result.raw for result in old if result.name == name), {})


def _keep(result: report.Result) -> None:
    """Data, page and picture hold the last result of every measure, from whichever run."""
    old = report.from_json(DATA.read_text()) if DATA.exists() else []
    results = report.merge(old, [result], list(MEASURES))
    DATA.write_text(report.to_json(results))
    PAGE.write_text(report.markdown(results, INTRO.read_text()))
    charts.draw(result)


if __name__ == "__main__":
    sys.exit(main())

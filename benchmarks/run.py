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
    """`measure(names, quick)`, and how many seconds it takes: whole, and quick."""

    measure: Callable[[Sequence[str], bool], report.Result]
    seconds: int
    quick: int


# In the order of the page.
MEASURES = {
    "message": Measure(message.measure, 120, 40),
    "sizes": Measure(message.measure_sizes, 90, 40),
    "lines": Measure(lines.measure, 60, 20),
    "coroutines": Measure(coroutines.measure, 120, 30),
    "keyvalue": Measure(keyvalue.measure, 40, 15),
    "tls": Measure(tls.measure, 60, 20),
    "connect": Measure(connect.measure, 60, 30),
    "idle": Measure(idle.measure, 90, 40),
    "greedy": Measure(greedy.measure, 60, 30),
    "limits": Measure(limits.measure, 90, 25),
    "flood": Measure(hostile.measure_flood, 50, 25),
    "unread": Measure(hostile.measure_unread, 10, 10),
    "instructions": Measure(instructions.measure, 90, 40),
    "workers": Measure(workers.measure, 40, 10),
    "greeting": Measure(greeting.measure, 20, 5),
    "memory": Measure(memory.measure, 60, 40),
    "startup": Measure(startup.measure, 20, 10),
    "accepts": Measure(accepts.measure, 50, 15),
    "reload": Measure(reload.measure, 30, 10),
    "control": Measure(control.measure, 20, 10),
    "handover": Measure(handover.measure, 150, 60),
    "crowd": Measure(crowd.measure, 60, 30),
    "check": Measure(check.measure, 20, 8),
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
            began = time.monotonic()
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
            result.facts = report.machine(quick, time.monotonic() - began)
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

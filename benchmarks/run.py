"""Measures epolld beside its peers: results.json, docs/benchmarks.md and its pictures.

    scripts/bench [--only MEASURE ...] [--servers NAME ...] [--quick] [--redraw]

The server runs on one core and the load on the other. What is measured is written at once, so
nothing is lost when a later measure fails or the run is interrupted. Exit status 1: a bar was not
met, or a measure failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
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
    multiplexers,
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
    peers: Sequence[str] = ()  # whom it would measure, so that who is not here is named


EVERYBODY = tuple(servers.EVERYONE)
CROWDED = tuple(name for name in EVERYBODY if name not in servers.ONE_EACH)

# In the order of the page.
MEASURES = {
    "message": Measure(message.measure, 60, 18, EVERYBODY),
    "sizes": Measure(message.measure_sizes, 30, 22, EVERYBODY),
    "lines": Measure(lines.measure, 25, 11, ("uvloop", "twisted")),
    "coroutines": Measure(coroutines.measure, 28, 12),
    "keyvalue": Measure(keyvalue.measure, 21, 8),
    "tls": Measure(tls.measure, 24, 24, ("uvloop",)),
    "connect": Measure(connect.measure, 36, 18, EVERYBODY),
    "idle": Measure(idle.measure, 48, 40, EVERYBODY),
    "greedy": Measure(greedy.measure, 30, 10, CROWDED),
    "limits": Measure(limits.measure, 17, 10),
    "flood": Measure(hostile.measure_flood, 17, 12),
    "unread": Measure(hostile.measure_unread, 2, 2),
    "instructions": Measure(instructions.measure, 52, 35, instructions.COUNTED),
    "workers": Measure(workers.measure, 16, 3),
    "greeting": Measure(greeting.measure, 10, 1),
    "memory": Measure(memory.measure, 48, 21, CROWDED),
    "startup": Measure(startup.measure, 12, 5, EVERYBODY),
    "accepts": Measure(accepts.measure, 20, 5),
    "reload": Measure(reload.measure, 24, 10),
    "control": Measure(control.measure, 12, 8),
    "handover": Measure(handover.measure, 95, 50),
    "crowd": Measure(crowd.measure, 32, 15),
    "check": Measure(check.measure, 14, 8),
    "scrapes": Measure(scrapes.measure, 28, 26),
    "multiplexers": Measure(multiplexers.measure, 75, 30),
}


def main() -> int:
    arguments = _parse()
    pictures.import_pyplot()  # before the work, not after it
    if arguments.redraw:
        return _redraw()
    if (os.cpu_count() or 1) < 2:
        print("needs two cores: one for the server, one for the load", file=sys.stderr)
        return 2
    servers.raise_descriptor_limit()
    servers.build()
    missing = servers.missing()
    for name, why in missing.items():
        print(f"left out: {servers.EVERYONE[name]}: {why}", file=sys.stderr)
    names = [name for name in EVERYBODY if name in arguments.servers and name not in missing]
    quick = arguments.quick
    bar = progress.current = progress.Progress(
        {name: MEASURES[name].quick if quick else MEASURES[name].seconds for name in arguments.only}
    )
    verdicts: dict[str, list[str]] = {}  # by measure: what is not as it should be
    began = time.monotonic()
    with servers.pinned(servers.LOAD_CORE):
        for name in arguments.only:
            bar.begin(name)
            try:
                result = _measure(name, names, arguments, missing)
                _keep(result)
                charts.draw(result)
                bar.clear()
                print(report.summary(result), end="\n\n", flush=True)
                verdicts[name] = [str(bar).replace("*", "") for bar in result.bars if not bar.met]
            except KeyboardInterrupt:
                bar.clear()
                print("interrupted; what was measured is written", file=sys.stderr)
                return 130
            except Exception as error:  # the others are measured all the same
                bar.clear()
                known = isinstance(error, servers.BenchmarkError)
                print("" if known else traceback.format_exc(), file=sys.stderr)
                verdicts[name] = [f"FAILED: {_first_line(error)}"]
                print(f"{name} {verdicts[name][0]}", file=sys.stderr)
                _keep_failure(name, _first_line(error))
    took = time.monotonic() - began
    print(f"{len(verdicts)} measures in {took // 60:.0f} min {took % 60:.0f} s")
    for name, wrong in verdicts.items():
        print("\n".join(f"{name:14}{line}" for line in wrong or ["met"]))
    return 1 if any(verdicts.values()) else 0


def _measure(
    name: str, names: Sequence[str], arguments: argparse.Namespace, missing: dict[str, str]
) -> report.Result:
    """One measure, with the facts of the machine and who was left out."""
    began, busy = time.monotonic(), os.getloadavg()[0]
    servers.failed.clear()
    if name == "crowd" and arguments.connections:
        result = crowd.gather(arguments.connections)
    else:
        result = MEASURES[name].measure(names, arguments.quick)
    if name == "crowd":
        result = crowd.beside(result, _raw(name))
    result.facts = report.machine(arguments.quick, time.monotonic() - began, busy)
    absent = {peer: missing[peer] for peer in MEASURES[name].peers if peer in missing}
    for peer, why in {**absent, **servers.failed}.items():
        result.notes.append(f"* Left out: {servers.EVERYONE.get(peer, peer)}: {why}.")
    return result


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures epolld beside its peers."
    )
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--servers", nargs="+", choices=EVERYBODY, default=list(EVERYBODY))
    parser.add_argument("--connections", type=int, help="of the measure `crowd`", metavar="N")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "--redraw", action="store_true", help="page and pictures anew, of what was measured before"
    )
    return parser.parse_args()


def _results() -> list[report.Result]:
    """The last result of every measure, from whichever run."""
    return report.from_json(DATA.read_text()) if DATA.exists() else []


def _raw(name: str) -> dict[str, Any]:
    """The raw figures of a measure's last result."""
    return next((result.raw for result in _results() if result.name == name), {})


def _keep(result: report.Result) -> None:
    """Add the result to data and page."""
    _write(report.merge(_results(), [result], list(MEASURES)))


def _keep_failure(name: str, why: str) -> None:
    """The last result stays, and says that a newer run failed."""
    results = _results()
    for result in results:
        if result.name == name:
            today = time.strftime("%Y-%m-%d", time.gmtime())
            result.facts["a newer run failed"] = f"{today}: {why}"
    _write(results)


def _redraw() -> int:
    results = report.merge(_results(), [], list(MEASURES))
    _write(results)
    for result in results:
        charts.draw(result)
    return 0


def _write(results: Sequence[report.Result]) -> None:
    """Data and page, whole at every moment: an interrupted run loses nothing."""
    for path, text in (
        (DATA, report.to_json(results)),
        (PAGE, report.markdown(results, INTRO.read_text())),
    ):
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        new.replace(path)


if __name__ == "__main__":
    sys.exit(main())

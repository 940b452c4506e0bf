"""Measures epolld beside its peers and writes results.json and results.md.

    python benchmarks/run.py [--only MEASURE ...] [--servers NAME ...] [--quick]

The server runs on one core and the load on the other. Exit status 1: a bar was not met.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import report
import servers
from measures import accepts, handover, keyvalue, lines, memory, message, reload, startup, tls

MEASURES: dict[str, Callable[[Sequence[str], bool], report.Result]] = {
    "message": message.measure,
    "idle": message.measure_idle,
    "lines": lines.measure,
    "keyvalue": keyvalue.measure,
    "memory": memory.measure,
    "accepts": accepts.measure,
    "startup": startup.measure,
    "reload": reload.measure,
    "handover": handover.measure,
    "tls": tls.measure,
}


def main() -> int:
    arguments = _parse()
    if (os.cpu_count() or 1) < 2:
        print("needs two cores: one for the server, one for the load", file=sys.stderr)
        return 2
    servers.raise_descriptor_limit()
    servers.build()
    names = [name for name in servers.available() if name in arguments.servers]
    met = True
    with servers.pinned(servers.LOAD_CORE):
        for name in arguments.only:
            try:
                result = MEASURES[name](names, arguments.quick)
            except servers.BenchmarkError as error:
                reason = str(error).splitlines()[0]
                result = report.Result(name=name, title=f"FAILED: {reason}", columns=())
                print(error, file=sys.stderr)
                met = False
            result.facts = report.machine()
            met = met and all(bar.met for bar in result.bars)
            print(report.section(result), end="\n\n", flush=True)
            _keep(result)
    return 0 if met else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures epolld beside its peers.")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument(
        "--servers", nargs="+", choices=servers.EVERYONE, default=list(servers.EVERYONE)
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    return parser.parse_args()


def _keep(result: report.Result) -> None:
    """Both files hold the last result of every measure, from whichever run that was."""
    data, page = servers.HERE / "results.json", servers.HERE / "results.md"
    old = report.from_json(data.read_text()) if data.exists() else []
    results = report.merge(old, [result], list(MEASURES))
    data.write_text(report.to_json(results))
    page.write_text(report.markdown(results))


if __name__ == "__main__":
    sys.exit(main())

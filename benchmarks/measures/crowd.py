"""100,000 connections on eight workers: held, served among them, moved by one HUP; or more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import crowd
import progress
from report import Bar, Result

USUAL, QUICK = 100_000, 20_000
LATENCY = 20.0  # ms, p99 of the busy ones


def measure(_names: Sequence[str], quick: bool) -> Result:
    """The usual crowd."""
    return gather(QUICK if quick else USUAL, {})


def gather(wanted: int, before: Mapping[str, Any]) -> Result:
    """A crowd of this size; `before` are the raw figures of others, which stay on the page."""
    found = crowd.run(wanted, progress.show)
    return summarize({**before, str(wanted): asdict(found)})


def summarize(raw: dict[str, Any]) -> Result:
    """The table, and the bars, of the crowds in `raw`, by size."""
    result = Result(
        name="crowd",
        title="A crowd",
        about=f"As many connections as the machine gives, of which {crowd.BUSY} are busy and ask "
        f"every {crowd.THINK_US // 1000} ms; then one HUP moves them all to new workers, and each "
        "is asked whether it lives. Both ends and all workers are on the same cores. Bytes of the "
        "program: the workers' PSS; of the kernel: both ends of a connection. "
        "`benchmarks/crowd 500000` and `benchmarks/crowd 1000000` try more.",
        columns=(
            *("connections", "workers", "connected in", "bytes, program", "bytes, kernel"),
            *("p50", "p99", "HUP took", "p99 meanwhile", "longest", "alive after", "broke first"),
        ),
        raw=raw,
    )
    for size in sorted(raw, key=int):
        result.rows.append(_row(raw[size]))
        _judge(result, raw[size])
    return result


def _row(found: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [f"{found['wanted']:,}", f"{found['workers']}"]
    cells += [f"{found['connect']:.1f} s", f"{found['program']:.0f}", f"{found['kernel']:,.0f}"]
    quiet, hup = found["quiet"], found["hup"]
    cells += [_ms(quiet, "p50"), _ms(quiet, "p99"), f"{found['moved']:.1f} s"]
    cells += [_ms(hup, "p99"), _ms(hup, "max"), f"{found['alive']:,}", found["broke"]]
    return tuple(cells)


def _ms(report: Mapping[str, Any], figure: str) -> str:
    return f"{report[f'busy_{figure}_us'] / 1000:.1f} ms" if report else "-"


def _judge(result: Result, found: Mapping[str, Any]) -> None:
    wanted = found["wanted"]
    what = f"{wanted:,} connections"
    result.bars.append(Bar(f"{what}: lost", wanted - found["alive"], 0))
    if found["quiet"]:
        p99 = found["quiet"]["busy_p99_us"] / 1000
        result.bars.append(Bar(f"{what}: p99 of the busy", p99, LATENCY, "ms", below=True))

"""100,000 connections on eight workers: held, served among them, moved by one HUP; or more."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import crowd
import progress
from report import Bar, Result, groups_chart

USUAL, QUICK = 100_000, 20_000
LATENCY = 20.0  # ms, p99 of the busy ones


def measure(_names: Sequence[str], quick: bool) -> Result:
    """The usual crowd."""
    return gather(QUICK if quick else USUAL)


def gather(wanted: int) -> Result:
    """A crowd of this size."""
    found = asdict(crowd.run(wanted, progress.show))
    found["measured"] = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return summarize({str(wanted): found})


def beside(result: Result, before: Mapping[str, Any]) -> Result:
    """The result with the crowds of other sizes that were gathered before; not with quick ones."""
    others = {size: found for size, found in before.items() if int(size) >= USUAL}
    return summarize({**others, **result.raw})


def summarize(raw: dict[str, Any]) -> Result:
    """The table, the bars and the charts of the crowds in `raw`, by size."""
    result = Result(
        name="crowd",
        title="A crowd",
        about=f"As many connections as the machine gives, of which {crowd.BUSY} are busy and ask "
        f"every {crowd.THINK_US // 1000} ms; then one HUP moves them all to new workers, and each "
        "is asked whether it lives. Both ends and all workers are on the same cores. Bytes of the "
        "program: the workers' PSS; of the kernel: both ends of a connection. *Broke first*: what "
        "ended it, if something did. `benchmarks/crowd 500000` and `benchmarks/crowd 1000000` try "
        "more.",
        columns=(
            *("connections", "workers", "connected in", "bytes, program", "bytes, kernel"),
            *("p50", "p99", "HUP took", "p99 meanwhile", "longest", "alive after", "broke first"),
            "measured",
        ),
        raw=raw,
    )
    for size in sorted(raw, key=int):
        result.rows.append(_row(raw[size]))
        _judge(result, raw[size])
    result.charts = _charts([raw[size] for size in sorted(raw, key=int)])
    return result


def _charts(crowds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Memory, times and latencies by size; nothing of a crowd that broke before."""
    memory, times, waits = {}, {}, {}
    for found in crowds:
        size = f"{found['wanted']:,}"
        if found["kernel"]:
            memory[size] = {"epolld": found["program"], "kernel, both ends": found["kernel"]}
        if found["moved"]:
            times[size] = {"all connected": found["connect"], "one HUP": found["moved"]}
        if found["quiet"] and found["hup"]:
            waits[size] = {
                "nothing changes": found["quiet"]["busy_p99_us"] / 1000,
                "during the HUP": found["hup"]["busy_p99_us"] / 1000,
            }
    drawn = (
        groups_chart("Memory", "bytes a connection", memory),
        groups_chart("Time", "seconds", times),
        groups_chart(f"p99 of the {crowd.BUSY} busy ones", "ms", waits, LATENCY),
    )
    return [chart for chart in drawn if chart["values"]]


def _row(found: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [f"{found['wanted']:,}", f"{found['workers']}"]
    cells += [f"{found['connect']:.1f} s", f"{found['program']:.0f}", f"{found['kernel']:,.0f}"]
    quiet, hup = found["quiet"], found["hup"]
    cells += [_ms(quiet, "p50"), _ms(quiet, "p99"), f"{found['moved']:.1f} s"]
    cells += [_ms(hup, "p99"), _ms(hup, "max"), f"{found['alive']:,}", found["broke"]]
    cells.append(found.get("measured", "before"))
    return tuple(cells)


def _ms(report: Mapping[str, Any], figure: str) -> str:
    return f"{report[f'busy_{figure}_us'] / 1000:.1f} ms" if report else "-"


def _judge(result: Result, found: Mapping[str, Any]) -> None:
    wanted = found["wanted"]
    what = f"{wanted:,} connections"
    detail = wanted != USUAL
    result.bars.append(Bar(f"{what}: lost", wanted - found["alive"], 0, detail=detail))
    if found["quiet"]:
        p99 = found["quiet"]["busy_p99_us"] / 1000
        what += ": p99 of the busy"
        result.bars.append(Bar(what, p99, LATENCY, "ms", below=True, detail=detail))

"""Time from the command to `ready` with eight workers, and of a command that only speaks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import progress
import servers
import stats
from report import Bar, Result, Spread, bars_chart

WORKERS = 8
VERSION, SHOW_VERSION = "epolld --version", ("-m", "epolld", "--version")
LIMITS = {"epolld": 350.0, VERSION: 60.0}  # ms


def measure(names: Sequence[str], quick: bool) -> Result:
    """epolld; for scale, a Python that does nothing; the peers, which are one process."""
    rounds = 5 if quick else 10
    times: dict[str, list[float]] = {}
    for number in progress.rounds(rounds):
        for title, arguments in (("python -c pass", ["-c", "pass"]), (VERSION, SHOW_VERSION)):
            times.setdefault(title, []).append(_command(arguments))
        for name in names if number < 3 else [name for name in names if name in servers.RIVALS]:
            if name in servers.failed:
                continue
            progress.show(f"round {number + 1} of {rounds}: {servers.EVERYONE[name]}")
            with servers.excused(name), servers.running(name, workers=WORKERS, core=None) as server:
                times.setdefault(name, []).append(server.ready_after * 1000)
    times = {name: values for name, values in times.items() if name not in servers.failed}
    result = Result(
        name="startup",
        title="Start-up",
        about=f"From exec to the line that says `ready`; epolld with {WORKERS} workers, the peers "
        f"are one process. {len(times[VERSION])} rounds; three for those without a bar.",
        columns=("server", "ms (spread)"),
        raw=dict(times),
    )
    for name, values in times.items():
        summary = stats.summarize(values)
        text = f"{summary.median:.0f} ({summary.low:.0f} to {summary.high:.0f})"
        result.rows.append((servers.EVERYONE.get(name, name), text))
        if name in LIMITS:
            what = f"ready with {WORKERS} workers" if name == "epolld" else name
            result.bars.append(Bar(what, summary.median, LIMITS[name], "ms", True, summary.spread))
    result.charts = _charts(times)
    return result


def _charts(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """The commands, which have no server to start, and the servers."""
    commands: dict[str, Spread] = {}
    ready: dict[str, Spread] = {}
    for name, values in times.items():
        summary = stats.summarize(values)
        label = f"epolld, {WORKERS} workers" if name == "epolld" else servers.EVERYONE.get(name)
        group = ready if name in servers.EVERYONE else commands
        group[label or name] = (summary.median, summary.low, summary.high)
    return [
        bars_chart("A command that only speaks", "ms", commands, LIMITS[VERSION]),
        bars_chart("From exec to ready", "ms", ready, LIMITS.get("epolld")),
    ]


def _command(arguments: Sequence[str]) -> float:
    """Milliseconds that the interpreter takes with them, from start to end."""
    with servers.pinned(None):
        began = time.monotonic()
        subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=servers.ROOT
        )
        return (time.monotonic() - began) * 1000

"""Time from the command to `ready` with four workers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

import servers
import stats
from report import Bar, Result

WORKERS = 4


def measure(names: Sequence[str], quick: bool) -> Result:
    """epolld; for scale, a Python that does nothing; the peers, which are one process."""
    rounds = 5 if quick else 10
    times: dict[str, list[float]] = {"python -c pass": []}
    for _ in range(rounds):
        times["python -c pass"].append(_bare_python())
        for name in names:
            with servers.running(name, workers=WORKERS, core=None) as server:
                times.setdefault(name, []).append(server.ready_after)
    result = Result(
        name="startup",
        title=f"seconds from exec to `ready`, epolld with {WORKERS} workers, {rounds} rounds",
        columns=("server", "s (spread)"),
        raw=dict(times),
    )
    for name, values in times.items():
        summary = stats.summarize(values)
        result.rows.append(
            (name, f"{summary.median:.3f} ({summary.low:.3f} to {summary.high:.3f})")
        )
        if name == "epolld":
            result.bars.append(Bar("epolld ready", summary.median, 0.4, "s", below=True))
    return result


def _bare_python() -> float:
    """Seconds that the interpreter takes to start and end."""
    with servers.pinned(None):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        return time.monotonic() - began

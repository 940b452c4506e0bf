"""Memory (PSS) of a worker: idle, and for each further idle connection.

epolld runs in a virtual environment made for this, with its own dependencies and nothing else:
msgspec imports typing_extensions where that is installed, which would be counted as ours.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import loads
import processes
import progress
import servers
import stats
from report import Bar, Result, Spread, bars_chart, lines_chart

STEPS = (0, 5_000, 15_000)
WORKERS = 8
SETTLE = 1.5  # seconds: longer than a worker's tick, so that it has done all it does when idle
MEGABYTE = 1_000_000
LIMIT = 512  # bytes of an idle connection
NOTE = "epolld in a virtual environment with its {count} dependencies only; the peers in this one."


def measure(names: Sequence[str], quick: bool) -> Result:
    """Grow a crowd on each server, and look at idle workers."""
    result = Result(
        name="memory",
        title="Memory",
        about="PSS, in which pages that processes share count in parts, of the process that "
        "serves: with idle connections, and of the largest of several workers without any. "
        "Memory that the kernel keeps for a connection is not in it: see the crowd.",
        columns=("server", *(f"with {step:,} idle, MB" for step in STEPS), "bytes a connection"),
    )
    lines: dict[str, dict[float, float]] = {}
    bars: dict[str, Spread] = {}
    with _plain_python() if "epolld" in names else contextlib.nullcontext("") as python:
        for name in names:
            if name in servers.ONE_EACH or (quick and name not in servers.RIVALS):
                continue
            progress.show(servers.EVERYONE[name])
            with servers.excused(name):
                sizes = _grow(name, python if name == "epolld" else sys.executable)
            if name in servers.failed:
                continue
            points = list(zip(STEPS, sizes, strict=True))
            each = max(stats.slope(points[0], points[-1]), stats.slope(points[1], points[-1]))
            result.raw[name] = {"connections": STEPS, "pss": sizes}
            result.rows.append(
                (servers.EVERYONE[name], *(_megabytes(size) for size in sizes), f"{each:.0f}")
            )
            lines[servers.EVERYONE[name]] = {at: size / MEGABYTE for at, size in points}
            bars[servers.EVERYONE[name]] = (max(each, 0.0),) * 3
            if name == "epolld":
                result.bars.append(Bar("epolld, an idle connection", each, LIMIT, "bytes"))
        for count in (1, WORKERS) if "epolld" in names else ():
            _idle_workers(result, count, python)
    result.notes.append(NOTE.format(count=len(_dependencies())))
    result.charts = [
        lines_chart("The process that serves", "PSS, MB", "idle connections", lines),
        bars_chart("One idle connection more", "bytes", bars, LIMIT),
    ]
    return result


def _idle_workers(result: Result, count: int, python: str) -> None:
    """The largest of so many workers without a connection."""
    with servers.running("epolld", workers=count, python=python) as server:
        time.sleep(SETTLE)
        sizes = [processes.pss(pid) for pid in server.workers()]
        master = processes.pss(server.pid)
    result.raw[f"epolld, {count} workers"] = {"workers": sizes, "master": master}
    result.rows.append((f"epolld, largest of {count} idle", _megabytes(max(sizes)), "", "", ""))
    if count == WORKERS:
        what = f"epolld, largest of {count} idle workers"
        result.bars.append(Bar(what, max(sizes) / MEGABYTE, 6, "MB"))


@contextlib.contextmanager
def _plain_python() -> Iterator[str]:
    """The interpreter of a new virtual environment with the dependencies alone."""
    with tempfile.TemporaryDirectory(prefix="epolld-bench-venv-") as folder:
        python = str(Path(folder) / "bin/python")
        pip = [python, "-m", "pip", "install", "--quiet", *_dependencies()]
        for command in ([sys.executable, "-m", "venv", folder], pip):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise servers.BenchmarkError(
                    f"cannot make a virtual environment with {' '.join(_dependencies())}: "
                    f"{' '.join(command[1:4])} said {(done.stdout + done.stderr).strip()[-400:]!r}"
                )
        yield python


def _dependencies() -> list[str]:
    project = tomllib.loads((servers.HERE.parent / "pyproject.toml").read_text())
    wanted: list[str] = project["project"]["dependencies"]
    return wanted


def _grow(name: str, python: str) -> list[int]:
    """PSS at each step of the crowd."""
    sizes = []
    with servers.running(name, python=python) as server:
        (pid,) = server.workers()
        time.sleep(SETTLE if name == "epolld" else SETTLE / 5)
        sizes.append(processes.pss(pid))
        with loads.opened(server.port, connections=0, idle=STEPS[1]):
            server.await_connections(STEPS[1])
            sizes.append(processes.pss(pid))
            with loads.opened(server.port, connections=0, idle=STEPS[2] - STEPS[1]):
                server.await_connections(STEPS[2])
                sizes.append(processes.pss(pid))
    return sizes


def _megabytes(size: float) -> str:
    return f"{size / MEGABYTE:.2f}"

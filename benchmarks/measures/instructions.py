"""Instructions outside the kernel for a message, counted by callgrind: the same on every run."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import loads
import progress
import servers
from report import Result, bars_chart

COUNTED = ("epolld", "c", "uvloop", "asyncio", "twisted")
FEW, MANY = 200, 1_000  # messages; the difference counts, and start and end cancel out
START_WITHIN = 120.0  # seconds; under callgrind everything is fifty times slower
TOTAL = re.compile(r"^(?:summary|totals):\s*(\d+)", re.MULTILINE)


def measure(names: Sequence[str], quick: bool) -> Result:
    """One client, so that each wake-up is for one message."""
    result = Result(
        name="instructions",
        title="Instructions for a message",
        columns=("server", "instructions a message", "to epolld"),
        about="Instructions executed outside the kernel for a message of 64 bytes and its answer, "
        "over one connection: callgrind counts them all, so the figure is the same on every run "
        "and machine with this Python. It says how much work a server does beside its system "
        "calls; those are the larger part of a message's time. epolld's engine runs without its "
        "master here, as peers/upper_engine.py.",
    )
    if not shutil.which("valgrind"):
        result.notes.append("No valgrind here.")
        return result
    counted = {}
    for name in COUNTED[:3] if quick else COUNTED:
        if name in names:
            run = "engine" if name == "epolld" else name
            with servers.excused(name), ThreadPoolExecutor(2) as both:
                few, many = both.map(_count, (run, run), (FEW, MANY))
                counted[name] = (many - few) / (MANY - FEW)
    base = counted.get("epolld", 0)
    for name, value in counted.items():
        ratio = f"{value / base:.2f}" if base else "-"
        result.rows.append((servers.EVERYONE[name], f"{value:,.0f}", ratio))
    result.raw = counted
    chart = {servers.EVERYONE[name]: (value, value, value) for name, value in counted.items()}
    if chart:
        result.charts.append(bars_chart("", "instructions a message", chart))
    return result


def _count(name: str, messages: int) -> int:
    """All instructions of the server's processes from start to end, with so many messages."""
    progress.show(f"{name}, {messages} messages under callgrind")
    with tempfile.TemporaryDirectory(prefix="epolld-bench-callgrind-") as folder:
        under = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/%p", "--quiet")
        with (
            servers.running(name, core=None, under=under, within=START_WITHIN) as server,
            loads.opened(server.port, connections=1, messages=messages, timeout=60) as load,
        ):
            load.run()
        texts = [path.read_text() for path in Path(folder).iterdir()]
    return sum(int(match[1]) for text in texts if (match := TOTAL.search(text)))

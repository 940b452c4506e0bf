"""Drives the load programs step by step, on their own core, bounded in time.

Knows their command lines and reports; nothing of servers but a port.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from servers import BIN, HERE, LOAD_CORE, BenchmarkError, pinned

LIMIT = 120.0  # seconds any load may last; it is killed then
STEADY_LIMIT = 900.0


class Load:
    """A load whose connections stand. `run()` starts it and returns what it reports."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self) -> dict[str, Any]:
        """Start the load and wait for its result; the connections stay until it is left.

        Raises BenchmarkError if anything failed: a figure over failures is worth nothing.
        """
        self.send()
        result = self.read()
        if any(result["failures"].values()):
            raise BenchmarkError(f"the load met failures: {result['failures']}")
        return result

    def finish(self) -> dict[str, Any]:
        """Tell an endless load to stop; returns its report, failures included."""
        self.send()
        return self.read()

    def report(self) -> dict[str, Any]:
        """What `steady.c` has met since the last call, and its failures since the start."""
        self.send()
        return self.read()

    def expect(self, line: str) -> None:
        """Wait for this line. Raises BenchmarkError on any other."""
        if (got := self._line()) != line:
            raise BenchmarkError(f"the load printed {got!r} instead of {line!r}")

    def send(self, text: str = "") -> None:
        """Give the load a line, which makes it start, stop or report."""
        assert self._process.stdin
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """The next report."""
        line = self._line()
        if not line:
            raise BenchmarkError("the load ended without a report (killed after its time limit?)")
        report: dict[str, Any] = json.loads(line)
        return report

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().rstrip()


@contextlib.contextmanager
def opened(port: int, program: str = "load", **options: object) -> Iterator[Load]:
    """The C load with its connections open and warm; options are those of `load.c`.

    `opened(port, connections=50, messages=1000, burst=True)`: underscores become dashes.
    """
    command = [str(BIN / program), "--steps", "--port", str(port)]
    for name, value in options.items():
        if value is not False:
            command.append("--" + name.replace("_", "-"))
            command += [] if value is True else [str(value)]
    with _running(command) as load:
        load.expect("open")
        yield load


@contextlib.contextmanager
def churning(port: int, short: int, long: int) -> Iterator[Load]:
    """`churn.py` under way: it goes on until `finish()`."""
    program = str(HERE / "churn.py")
    with _running([sys.executable, program, str(port), str(short), str(long)]) as load:
        load.expect("running")
        yield load


@contextlib.contextmanager
def greedy(port: int) -> Iterator[Load]:
    """`greedy.c` under way until `run()`, which returns its report."""
    with _running([str(BIN / "greedy"), str(port)]) as load:
        load.expect("open")
        yield load


@contextlib.contextmanager
def steady(port: int, wait: bool = True, **options: object) -> Iterator[Load]:
    """`steady.c` under way, on all cores; options are its own. `report()` says how it goes.

    With `wait` all its connections stand; without, `expect("open")` is left to the caller.
    """
    command = [str(BIN / "steady"), "--port", str(port)]
    for name, value in options.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    with _running(command, core=None, limit=STEADY_LIMIT) as load:
        if wait:
            load.expect("open")
        yield load


@contextlib.contextmanager
def _running(
    command: list[str], core: int | None = LOAD_CORE, limit: float = LIMIT
) -> Iterator[Load]:
    with pinned(core):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
    bound = threading.Timer(limit, process.kill)
    bound.start()
    try:
        yield Load(process)
        assert process.stdin
        process.stdin.close()  # the load lets its connections go
        process.wait()
    finally:
        bound.cancel()
        process.kill()
        process.wait()

"""The trial run before an upgrade: the new program's own --check, in a process of its own.

Knows how it ended and what it said; what is made of that is the master's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from epolld.master.pool import Pool
from epolld.master.upgrade import FORMAT, FORMAT_VARIABLE, Origin, command_line
from epolld.net.loop import EventLoop

TIMEOUT = 30.0  # seconds
MAX_OUTPUT = 65536  # bytes of what it prints


class Trial:
    """A trial run, at most one at a time."""

    def __init__(self, loop: EventLoop, pool: Pool) -> None:
        self._loop = loop
        self._pool = pool
        self._pid = 0  # while it is under way

    def under_way(self) -> bool:
        """Whether there is one now."""
        return bool(self._pid)

    def begin(self, origin: Origin, on_end: Callable[[int, list[str]], object]) -> None:
        """Start it; `on_end(exit status, lines that it printed)` is called once. Raises OSError."""
        self._pid, output = start(origin.config, origin.directory)
        too_long: list[str] = []

        def time_out() -> None:
            too_long.append(f"it took longer than {TIMEOUT:g}s")
            self.give_up()

        def ended(status: int) -> None:
            self._pid = 0
            deadline.cancel()
            on_end(os.waitstatus_to_exitcode(status), read(output) + too_long)

        deadline = self._loop.call_later(TIMEOUT, time_out)
        self._pool.expect(self._pid, ended)

    def give_up(self) -> None:
        """End it: nobody wants to know any more."""
        if self._pid:
            os.killpg(self._pid, signal.SIGKILL)


def start(config: str, directory: str) -> tuple[int, int]:
    """Start the new program's own --check; returns its pid and a memfd with what it prints.

    The same command line as ours, so the same interpreter and the same overrides.
    """
    output = os.memfd_create("epolld-trial", os.MFD_CLOEXEC)
    command = [*command_line(), "--config", config, "--check"]
    here = os.getcwd()
    try:
        os.chdir(directory)  # the child starts where we were started
        pid = os.posix_spawn(
            sys.executable,
            command,
            {**os.environ, FORMAT_VARIABLE: str(FORMAT)},
            file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
            setpgroup=0,
            setsigmask=(),
            setsigdef=[signal.SIGHUP, signal.SIGTERM, signal.SIGINT],
        )
    except OSError:
        os.close(output)
        raise
    finally:
        os.chdir(here)
    return pid, output


def read(output: int) -> list[str]:
    """What the trial run printed, line by line; closes the memfd."""
    with open(output, "rb") as file:
        file.seek(0)
        return file.read(MAX_OUTPUT).decode(errors="replace").strip().splitlines()

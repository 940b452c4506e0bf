"""A worker is stopped for a while under load: its siblings serve all that is new, and those whom it
has kept waiting get their answers."""

import signal
import time
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from harness import Daemon


@pytest.mark.parametrize("seconds", [1.5, pytest.param(5, marks=pytest.mark.long)])
def test_siblings_serve_everyone_new(daemon: Callable[..., Daemon], seconds: float) -> None:
    running = daemon(services=[MARKED], workers={"count": 3})
    with under_load(running, new=3, living=6, patience=seconds + 8) as load:
        stopped = running.wait_workers(3)[0].pid
        running.send(signal.SIGSTOP, stopped)
        load.wait_served(10)  # what it had answered before is counted by now
        before = load.by_pid[stopped]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # It holds at most one client of each, which it had accepted; the others go on.
            load.wait_served(20)
        assert load.by_pid[stopped] == before
        running.send(signal.SIGCONT, stopped)
        load.wait_served(50)
        assert load.by_pid[stopped] > before

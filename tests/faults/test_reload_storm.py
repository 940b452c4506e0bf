"""Reloads and upgrades in a row under load: no client notices, and no descriptor is left over."""

import signal
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from harness import Daemon


@pytest.mark.parametrize(
    ("hups", "upgrades"),
    [(3, 1), pytest.param(20, 3, marks=[pytest.mark.long, pytest.mark.timeout(180)])],
)
def test_nobody_notices(daemon: Callable[..., Daemon], hups: int, upgrades: int) -> None:
    running = daemon(services=[MARKED])
    with under_load(running) as load:
        for _ in range(hups):
            running.reload()
            load.wait_served(20)
        for _ in range(upgrades):
            before = running.count_log("reload done")
            running.send(signal.SIGUSR2)
            running.wait_log("reload done", 20, before + 1)
            load.wait_served(20)
        running.wait_workers(2, generation=1 + hups + upgrades)

"""A process of the daemon is killed every 100 ms: soon after, there is what is configured."""

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from accounts import MARKED, under_load
from harness import Daemon, free_port
from processes import eventually
from scrape import scrape


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.long)])
def test_back_to_the_configured_state(daemon: Callable[..., Daemon], seconds: float) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    running = daemon(services=[MARKED], workers={"count": 3}, metrics={"bind": metrics})
    chance = random.Random(1)
    with under_load(running, patience=20, timeout=10) as load:
        kills = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(IndexError, ProcessLookupError):
                os.kill(chance.choice([p for p in running.processes() if p != running.pid]), 9)
                kills += 1
            time.sleep(0.1)
        running.wait_workers(3, timeout=5)
        load.wait_served(50)
        eventually(lambda: scrape(metrics).sum("epolld_ready") == 1)
        load.may(reset=8 * kills, early_end=8 * kills)  # nobody is refused, or waits in vain
    running.expect("killed by SIGKILL")
    running.allow("next try in", "exporter")

"""All signals that the master knows, 200 a second: in the end there is what is configured."""

import os
import random
import signal
import time
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from control import Control
from harness import Daemon

MIXED = [
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
    signal.SIGWINCH,  # the master sits in a session without a terminal: it suspends
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.long)])
def test_the_final_state_is_the_configured_one(
    daemon: Callable[..., Daemon], seconds: float
) -> None:
    running = daemon(services=[MARKED])
    chance = random.Random(1)
    # While it is suspended clients wait, so these are patient.
    with under_load(running, patience=60, timeout=30) as load:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            os.kill(running.pid, chance.choice(MIXED))
            time.sleep(0.005)  # 200 a second
        settle(running)
        load.wait_served(20, timeout=20)
    running.allow(
        "WINCH ignored", "upgrade refused", "reload failed", "upgrade failed", "told to stop before"
    )


def settle(running: Daemon) -> None:
    """Once nothing is under way, resume, and take back what TTIN and TTOU have added or taken."""
    deadline = time.monotonic() + 40
    refused = {}
    while True:
        assert time.monotonic() < deadline, refused
        control = Control(running, timeout=40)
        try:
            control.send("resume")
            control.line()  # refused if it serves
            control.send("scale", workers=2)
            refused = control.line()
            control.send("status")
            status = control.line()
        except ConnectionError:  # the program was executed anew
            continue
        finally:
            control.close()
        if refused.get("ok") and status["result"]["state"] == "serving":
            return
        time.sleep(0.05)

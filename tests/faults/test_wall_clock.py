"""The wall clock jumps by an hour, back and forth: no timer moves, nobody is killed."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from accounts import MARKED, under_load
from harness import Config, Daemon
from processes import eventually

HOUR = 3600


def library() -> str:
    """libfaketime, which answers for the wall clock; the command knows where it is."""
    needs.tool("faketime")
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        needs.lacking("libfaketime (apt install faketime)")
    return str(found[0])


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_no_timer_moves(make_daemon: Callable[[Config], Daemon], jump: int) -> None:
    made = make_daemon({})
    clock = made.directory / "clock"
    clock.write_text("+0")
    made.environment |= {
        "LD_PRELOAD": library(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    made.write_config(
        {
            "services": [MARKED, {"name": "upper", "idle_timeout": "1s"}],
            "workers": {"stuck_timeout": "2s", "recycle_age": "30m"},
        }
    )
    made.start()
    with under_load(made) as load:
        before = made.wait_workers(2)
        idle = made.client(made.address("upper"))
        begin = time.monotonic()
        assert idle.ask(b"a") == b"A"
        clock.write_text(f"{jump:+d}")
        load.wait_served(100)
        assert made.workers() == before
        assert idle.is_ended()  # after a second, neither at once nor in an hour
        assert 0.9 < time.monotonic() - begin < 8
        made.reload()
        clock.write_text("+0")
        load.wait_served(100)
        after = made.wait_workers(2, generation=2)
        time.sleep(0.5)  # the watchdog looks every second or oftener
        assert made.workers() == after
    hours = {line[11:13] for line in made.lines if re.match(r"\d{4}-", line)}
    eventually(lambda: len(hours) > 1, 1, "the log has the wall clock's time, so the clock jumped")

"""Crowds that say nothing, or one byte at a time: their limits end them, others are served."""

import contextlib
import time
from collections.abc import Callable

import pytest
from accounts import MARKED, under_load
from harness import Daemon
from processes import cpu_seconds, eventually

COUNTS = [200, pytest.param(2000, marks=pytest.mark.long)]


@pytest.mark.parametrize("count", COUNTS)
def test_silent(daemon: Callable[..., Daemon], count: int) -> None:
    upper = {"name": "upper", "bind": "127.0.0.1:0", "first_byte_timeout": "1500ms"}
    running = daemon(services=[MARKED, upper])
    with under_load(running) as load:
        workers = running.wait_workers(2)
        crowd = [running.client(running.address("upper")) for _ in range(count)]
        load.wait_served(20)
        for client in crowd:
            assert client.is_ended()
        load.wait_served(20)
        assert running.workers() == workers
    running.expect("sent nothing for 1.5s, closing", "more like this suppressed")
    assert running.count_log("sent nothing") < 100


@pytest.mark.parametrize("count", COUNTS)
def test_one_byte_at_a_time(daemon: Callable[..., Daemon], count: int) -> None:
    """Each is heard often enough not to be idle; its message is not complete in time."""
    lines = {
        "name": "lines",
        "protocol": "framings:Lines",
        "bind": "127.0.0.1:0",
        "idle_timeout": "1s",
        "message_timeout": "2s",
    }
    running = daemon(services=[MARKED, lines])
    with under_load(running) as load:
        workers = running.wait_workers(2)
        crowd = [running.client(running.address("lines")) for _ in range(count)]
        used, begin = sum(cpu_seconds(w.pid) for w in workers), time.monotonic()

        def drip() -> bool:
            living = False
            for client in crowd:
                with contextlib.suppress(OSError):
                    client.sock.setblocking(False)
                    client.sock.send(b"x")
                    try:
                        living |= bool(client.sock.recv(10))
                    except BlockingIOError:
                        living = True
            time.sleep(0.2)  # their pace
            return not living

        eventually(drip, 10, "all have ended")
        share = (sum(cpu_seconds(w.pid) for w in workers) - used) / (time.monotonic() - begin)
        assert share < 1
        load.wait_served(20)
    running.expect("a message not whole after 2s", "more like this suppressed")
    assert running.count_log("not whole") < 100

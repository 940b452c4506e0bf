"""idle_timeout: silence ends a connection, anything said puts it off."""

import time
from collections.abc import Callable

from harness import Daemon, upper_at


def test_a_silent_connection_is_closed(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[upper_at(idle_timeout="400ms"), {"name": "echo", "bind": "[::1]:0"}])
    begin = time.monotonic()
    silent, other = running.client(), running.client(running.address("echo"))
    assert silent.ask(b"a") == b"A"
    assert silent.is_ended()
    assert 0.4 <= time.monotonic() - begin < 1.5
    assert other.ask(b"a") == b"a"


def test_a_connection_that_says_something_stays(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[upper_at(idle_timeout="900ms")])
    client = running.client()
    for _ in range(5):
        time.sleep(0.25)
        assert client.ask(b"a") == b"A"
    assert client.is_ended()

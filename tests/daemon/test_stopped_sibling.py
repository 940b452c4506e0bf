"""One worker is stopped: its siblings serve new clients, at once or after a tick."""

import signal
import time
from collections.abc import Callable

from harness import Config, Daemon

WHO: Config = {"name": "who", "protocol": "protocols:Who", "bind": "127.0.0.1:0"}


def test_siblings_serve_new_clients(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO], workers={"count": 2})
    stopped = running.wait_workers(2)[0].pid
    running.send(signal.SIGSTOP, stopped)
    waits = []
    for _ in range(60):
        begin = time.monotonic()
        assert int(running.client(running.address("who")).line()) != stopped
        waits.append(time.monotonic() - begin)
    running.send(signal.SIGCONT, stopped)
    assert max(waits) < 1.5  # a stranded wake-up is cured by the next tick
    assert sum(waits) < 4

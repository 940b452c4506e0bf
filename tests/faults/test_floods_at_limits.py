"""A flood at each limit: what is above it is refused with its cause, told in few lines, and others
are served."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from accounts import MARKED, under_load
from harness import Client, Daemon, free_port
from processes import eventually
from scrape import scrape

FLOOD = 300
LIMITS: dict[str, tuple[dict[str, Any], str]] = {
    "connections of a client": ({"limits": {"client_connections": 10}}, "client_connections"),
    "connections of the service": ({"limits": {"connections": 10}}, "service_connections"),
    "new ones a second": ({"limits": {"client_rate": 10}}, "client_rate"),
    "access": ({"access": [{"deny": "127.0.0.0/8"}]}, "denied"),
}


@pytest.mark.parametrize("what", LIMITS)
def test_above_it(daemon: Callable[..., Daemon], what: str) -> None:
    settings, cause = LIMITS[what]
    metrics = f"127.0.0.1:{free_port()}"
    upper = {"name": "upper", "bind": "127.0.0.1:0", **settings}
    running = daemon(services=[MARKED, upper], metrics={"bind": metrics})
    served: list[Client] = []

    def flood() -> None:
        for _ in range(FLOOD // 3):
            with contextlib.suppress(ConnectionError):
                client = running.client(running.address("upper"))
                if client.ask(b"a") == b"A":
                    served.append(client)
                else:
                    client.close()

    with under_load(running) as load:
        threads = [threading.Thread(target=flood) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        load.wait_served(20)
        # Two workers that count at the same moment may both find it too much, never too little.
        if cause == "denied":
            assert not served
        else:
            assert 8 <= len(served) < (FLOOD if cause == "client_rate" else 11)

        def told() -> bool:
            figures = scrape(metrics)
            refused = figures.sum("epolld_connections_refused_total", service="upper", cause=cause)
            return refused == FLOOD - len(served)

        eventually(told, 5, "each refusal is counted")
    assert 1 <= running.count_log("upper: refused") < FLOOD / 2

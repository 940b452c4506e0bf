"""A reload with bad YAML, a broken application, a port that is taken: nothing changes, no client
notices, and the next good one works. What is told is in tests/daemon/test_reload_bad.py."""

import socket
from collections.abc import Callable

from accounts import MARKED, under_load
from harness import Daemon


def test_nothing_changes(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[MARKED])
    good = running.config
    with under_load(running) as load, socket.create_server(("127.0.0.1", 0)) as taken:
        before = running.wait_workers(2, generation=1)
        running.write_text("services: [")
        running.reload(ok=False)
        load.wait_served(20)
        running.write_module("mine", "1 / 0\n")
        running.reload({**good, "services": [{**MARKED, "protocol": "mine:P"}]}, ok=False)
        load.wait_served(20)
        port = taken.getsockname()[1]
        more = {"name": "more", "bind": f"127.0.0.1:{port}"}
        running.reload({**good, "services": [MARKED, more]}, ok=False)
        load.wait_served(20)
        assert running.wait_workers(2) == before
        running.reload(good)
        load.wait_served(20)
    running.expect("reload failed: .*not YAML", "ZeroDivisionError", "Address already in use")
    running.allow("exited with status 78", "not YAML", "reload failed")

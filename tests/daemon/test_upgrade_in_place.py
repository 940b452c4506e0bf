"""USR2: the master becomes the new program under its old PID, and nobody's connection is lost."""

import signal
from collections.abc import Callable

from harness import Daemon


def test_same_pid_new_workers_live_connections(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    client = running.client()
    assert client.ask(b"a") == b"A"
    counts: list[int] = []
    running.same_descriptors = False  # it may have others, but not more each time
    for turn in (1, 2):
        running.send(signal.SIGUSR2)
        running.wait_log("upgraded from", count=turn)
        running.wait_log("reload done", count=turn)
        assert client.ask(b"b") == b"B"
        running.wait_workers(2, generation=turn + 1)
        counts.append(running.other_descriptors())
        assert int((running.runtime / "epolld.pid").read_text()) == running.pid
    assert counts[0] == counts[1]
    assert running.client().ask(b"c") == b"C"

"""Workers are replaced by connections, by age, by memory: one at a time, successor first."""

import re
import signal
from collections.abc import Callable
from itertools import pairwise

import pytest
from harness import Config, Daemon
from processes import eventually
from stream_check import Arrivals

WHERE = {"name": "mine", "protocol": "movable:Where", "bind": "127.0.0.1:0"}
UPPER = {"name": "upper", "bind": "127.0.0.1:0"}


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"recycle_connections": 20}, r"accepted \d+ connections \(recycle_connections\)"),
        ({"recycle_age": "1s"}, r"is \ds old \(recycle_age\)"),
        ({"recycle_memory": "1m"}, r"holds \d+ MiB \(recycle_memory\)"),
    ],
    ids=["connections", "age", "memory"],
)
def test_recycled(daemon: Callable[..., Daemon], limit: Config, words: str) -> None:
    running = daemon(services=[WHERE, UPPER], workers={"count": 2, **limit})
    clients = [running.client(running.address("mine")) for _ in range(20)]
    for client in clients:
        client.sock.sendall(b"?")
    first = {int(client.line()) for client in clients}
    assert len(first) == 2
    most = 0

    def gone() -> bool:
        nonlocal most
        now = running.workers()
        most = max(most, len([worker for worker in now if not worker.state]))
        return not first & {worker.pid for worker in now}

    with Arrivals(running.address("upper")):
        eventually(gone, 7, "both replaced")
    assert most <= 3  # one more while the successor comes up
    for client in clients:  # all have moved, whoever has them now
        client.sock.sendall(b"?")
        assert int(client.line()) not in first
    running.wait_log(rf"worker \d \(pid \d+, generation 1\) {words}: recycling it")
    events = [line for line in running.lines if re.search("recycling it|is ready|exited", line)]
    for before, after in pairwise(events):
        if "recycling it" in before:
            assert "is ready" in after, events  # and not the next one, nor its own end
    assert not running.find_log("reload")


def test_without_limits_nobody_is(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[UPPER])
    before = running.workers()
    with Arrivals(running.address("upper")) as arrivals:
        eventually(lambda: arrivals.served > 200, 8)
    assert running.workers() == before


def test_ttou_while_a_successor_starts(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon(
        {
            "services": [{"name": "mine", "protocol": "mine:P", "bind": "127.0.0.1:0"}],
            "workers": {"count": 2, "recycle_age": "1s"},
        }
    )
    made.write_module("mine", "import time; time.sleep(0.3)\nfrom movable import Where as P\n")
    made.start()
    made.wait_log(r"worker 1 .*recycling it", 7)
    made.send(signal.SIGTTOU)
    eventually(lambda: {worker.slot for worker in made.workers()} == {0}, 3)
    assert not made.find_log("next try")

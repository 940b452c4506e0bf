"""A hand-over is interrupted by a lack of descriptors; deaths are in tests/daemon."""

import resource
import signal
from collections.abc import Callable

from accounts import MARKED, at_rest
from harness import Client, Daemon
from processes import descriptors, eventually

COUNT = 200
ROOM = 60  # for connections, of the new worker


def owner(client: Client) -> int:
    client.send(b"who\n")
    pid, _, rest = client.line().partition(b" ")
    assert rest == b"WHO"
    return int(pid)


def test_too_few_descriptors_in_the_new_worker(daemon: Callable[..., Daemon]) -> None:
    """It takes what it can; the others stay where they are, are served, and move when there is
    room. Nobody is cut off."""
    running = daemon(services=[MARKED], workers={"count": 1})
    before = at_rest(running)
    clients = [running.client() for _ in range(COUNT)]
    (old,) = {owner(client) for client in clients}
    limit = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    few = len(descriptors(running.pid)) + ROOM
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (few, limit[1]))
    running.send(signal.SIGHUP)
    running.wait_log("reload done")
    (new,) = eventually(lambda: running.workers(generation=2, state=""))
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, limit)
    eventually(lambda: len(descriptors(new.pid)) >= few - 2, 5, "it has taken what it can")
    owners = [owner(client) for client in clients]
    assert set(owners) == {old, new.pid}
    assert 10 < owners.count(new.pid) <= few
    resource.prlimit(new.pid, resource.RLIMIT_NOFILE, limit)
    eventually(lambda: not running.workers(generation=1), 8, "the rest has moved, too")
    assert {owner(client) for client in clients} == {new.pid}
    running.hang_up()
    before.must_return(running)
    running.allow("may open only", "cannot accept: Too many open files")

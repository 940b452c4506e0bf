"""No descriptor is left: the daemon says so once, does not spin, and recovers."""

import time
from collections.abc import Callable

import needs
from harness import Config, Daemon
from processes import cpu_seconds


def test_it_waits_and_recovers(make_daemon: Callable[[Config], Daemon]) -> None:
    prlimit = needs.tool("prlimit", "util-linux")
    made = make_daemon({"workers": {"count": 1}})
    made.command = [prlimit, "--nofile=40:40", "--", *made.command]
    made.start()
    (worker,) = made.wait_workers(1)
    clients = [made.client() for _ in range(60)]  # the rest waits in the queue
    made.wait_log("cannot accept: Too many open files")
    before, begin = cpu_seconds(worker.pid), time.monotonic()
    served = [client for client in clients[:20] if client.ask(b"a") == b"A"]
    assert len(served) == 20
    time.sleep(1.2)  # what it uses over a second
    used = (cpu_seconds(worker.pid) - before) / (time.monotonic() - begin)
    assert used < 0.1
    for client in served:
        client.close()
    for client in clients[20:40]:
        assert client.ask(b"b") == b"B"
        client.close()
    for client in clients[40:]:
        assert client.ask(b"c") == b"C"
        client.close()
    assert made.count_log("cannot accept") == 1
    made.expect("error acceptor.*cannot accept: Too many open files")
    made.allow("may open only 40 files")

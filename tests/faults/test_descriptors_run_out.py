"""No descriptor is left: the daemon says so once, does not spin, and recovers."""

import resource
import time
from collections.abc import Callable

from accounts import MARKED, Load, as_before
from harness import Daemon
from processes import cpu_seconds

NOFILE = 64
CLIENTS = 200


def test_it_waits_and_recovers(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[MARKED], workers={"count": 1})
    with as_before(running):
        (worker,) = running.wait_workers(1)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (NOFILE, NOFILE))
        living = Load(running.address(), new=0, living=4)
        living.start()
        clients = [running.client() for _ in range(CLIENTS)]  # the rest waits in the queue
        running.wait_log("cannot accept: Too many open files")
        living.wait_served(50)
        living.stop()
        before, begin = cpu_seconds(worker.pid), time.monotonic()
        time.sleep(2)  # what it uses meanwhile, while most wait
        used = (cpu_seconds(worker.pid) - before) / (time.monotonic() - begin)
        assert used < 0.05
        for client in clients:  # in the order of their coming: each makes room for another
            client.send(b"it is %d\n" % worker.pid)
            assert client.line() == b"%d IT IS %d" % (worker.pid, worker.pid)
            client.close()
        living.judge()
        assert running.count_log("cannot accept") == 1
    running.expect("error acceptor.*cannot accept: Too many open files")

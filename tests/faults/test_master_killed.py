"""The master is killed under load: workers drain and leave, and a start over the remains works."""

import signal
from collections.abc import Callable

from accounts import MARKED, Load, at_rest
from harness import Config, Daemon, free_port
from processes import eventually


def test_a_restart_over_the_remains(make_daemon: Callable[[Config], Daemon]) -> None:
    port = free_port()
    first = make_daemon({})
    config = {
        "master": {"runtime_directory": str(first.runtime)},
        "services": [{**MARKED, "bind": f"127.0.0.1:{port}"}],
    }
    first.write_config(config)
    first.start()
    before = at_rest(first)
    living = Load(first.address(), new=0, living=6)
    living.start()
    old = {worker.pid for worker in first.wait_workers(2)}
    first.send(signal.SIGKILL)
    first.wait_exit()
    eventually(lambda: {w.state for w in first.workers()} == {"draining"}, 5)
    living.wait_served(50)

    second = make_daemon(config)
    second.runtime = first.runtime
    second.start()
    new = Load(second.address(), new=3, living=3)
    new.start()
    new.wait_served(50)
    living.wait_served(50)
    living.stop()
    eventually(lambda: not first.processes(), 5, "the old workers leave")
    new.wait_served(50)
    new.stop()
    for load in (living, new):
        load.judge()
    assert set(living.by_pid) <= old
    assert not set(new.by_pid) & old
    before.must_return(second)
    first.expect("the master is dead, draining")

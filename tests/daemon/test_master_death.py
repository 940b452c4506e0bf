"""The master is killed: the workers see it, finish what they have, and a new start just works."""

import os
import signal
from collections.abc import Callable

from harness import Client, Config, Daemon, free_port, upper_at
from processes import eventually, wait_ended


def kill_master(running: Daemon) -> None:
    """End it without a chance to tidy up."""
    running.send(signal.SIGKILL)
    running.wait_exit()
    running.expect("the master is dead, draining")


def tidy(running: Daemon) -> None:
    """Remove what the killed master could not."""
    for path in running.runtime.iterdir():
        path.unlink()


def test_idle_workers_leave_at_once(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    workers = running.wait_workers(2)
    kill_master(running)
    for worker in workers:
        wait_ended(worker.pid, 3)
    tidy(running)


def test_live_connections_are_served_to_their_end(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    client = running.client()
    assert client.ask(b"a") == b"A"
    kill_master(running)
    eventually(lambda: [w.state for w in running.workers()] == ["draining"], 5)
    assert client.ask(b"b") == b"B"
    client.close()
    eventually(lambda: not running.processes(), 3)
    tidy(running)


def test_at_most_until_graceful_timeout(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"graceful_timeout": "300ms"})
    client = running.client()
    assert client.ask(b"a") == b"A"
    kill_master(running)
    assert client.is_ended()
    client.close()
    eventually(lambda: not running.processes(), 3)
    tidy(running)


def test_also_in_the_middle_of_a_reload(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.write_module("slow", "import time; time.sleep(1)\nfrom protocols import Who as P\n")
    running.write_config({"services": [{**upper_at(), "protocol": "slow:P"}]})
    running.send(signal.SIGHUP)
    eventually(lambda: running.workers(generation=2), 5, "workers that boot")
    kill_master(running)
    eventually(lambda: not running.processes(), 5)
    tidy(running)


def test_a_new_start_over_the_remains(make_daemon: Callable[[Config], Daemon]) -> None:
    """The old pid file and socket are there, and an old worker still has a client."""
    first = make_daemon({})
    path, port = first.directory / "upper.sock", free_port()
    config = {
        "master": {"runtime_directory": str(first.runtime)},
        "services": [upper_at([f"unix:{path}", f"127.0.0.1:{port}"])],
    }
    first.write_config(config)
    first.start()
    old = first.client(f"unix:{path}")
    assert old.ask(b"a") == b"A"
    kill_master(first)
    eventually(lambda: [w.state for w in first.workers()] == ["draining"], 5)
    assert path.exists()
    assert int((first.runtime / "epolld.pid").read_text()) == first.pid

    second = make_daemon(config).start()
    assert int((first.runtime / "epolld.pid").read_text()) == second.pid
    for address in (f"unix:{path}", f"127.0.0.1:{port}"):
        client = Client(address)
        assert client.ask(b"b") == b"B"
        client.close()
    assert old.ask(b"c") == b"C"
    old.close()
    eventually(lambda: not first.processes(), 3)
    assert path.exists()  # the new one's: the old worker has not removed it
    second.stop()
    assert not path.exists()
    assert not os.listdir(first.runtime)

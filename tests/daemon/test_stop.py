"""TERM, QUIT, INT: how the daemon ends."""

import signal
import time
from collections.abc import Callable

import pytest
from harness import Config, Daemon
from processes import eventually


def refused(running: Daemon) -> bool:
    """Whether nobody listens any more."""
    try:
        running.client().close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_graceful_stop_waits_for_connections(
    daemon: Callable[..., Daemon], number: signal.Signals
) -> None:
    running = daemon()
    client = running.client()
    assert client.ask(b"a") == b"A"
    running.send(number)
    running.wait_log("stopping: draining for up to 30s")
    eventually(lambda: refused(running), 5, "no more clients")
    assert client.ask(b"b") == b"B"
    client.close()
    assert running.wait_exit() == 0
    assert "stopped" in running.lines[-1]


def test_clients_that_are_queued_at_the_stop_are_served(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"count": 1})
    (worker,) = running.wait_workers(1)
    running.send(signal.SIGSTOP, worker.pid)
    clients = [running.client() for _ in range(20)]
    running.send(signal.SIGTERM)
    running.wait_log("stopping: draining")
    running.send(signal.SIGCONT, worker.pid)
    for client in clients:
        assert client.ask(b"a") == b"A"
        client.close()
    assert running.wait_exit() == 0


def test_graceful_timeout_ends_the_rest(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"graceful_timeout": "300ms"})
    client = running.client()
    assert client.ask(b"a") == b"A"
    running.send(signal.SIGTERM)
    assert client.is_ended()
    client.close()
    assert running.wait_exit() == 0


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT,)],
    ids=["TERM-TERM", "TERM-INT", "INT"],
)
def test_stop_at_once(daemon: Callable[..., Daemon], signals: tuple[signal.Signals, ...]) -> None:
    running = daemon()
    client = running.client()
    assert client.ask(b"a") == b"A"
    begin = time.monotonic()
    for count, number in enumerate(signals, 1):
        running.send(number)
        running.wait_log("got SIG", count=count)  # the kernel makes one of two that wait
    running.wait_log("stopping now")
    assert client.is_ended()
    assert running.wait_exit(3) == 0
    assert time.monotonic() - begin < 2


def test_stop_at_once_although_a_client_does_not_read(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[{"name": "chargen", "bind": "127.0.0.1:0"}])
    running.client(running.address("chargen")).read(10)
    running.send(signal.SIGINT)
    assert running.wait_exit(3) == 0


def test_stop_with_a_stopped_worker(daemon: Callable[..., Daemon]) -> None:
    """It cannot leave by itself, so it is killed in the end."""
    running = daemon(workers={"count": 2})
    running.send(signal.SIGSTOP, running.wait_workers(2)[0].pid)
    running.send(signal.SIGINT)
    assert running.wait_exit(8) == 0
    running.expect("told to stop, but still there, killing it", "killed by SIGKILL")


def test_stop_during_the_start(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon(
        {"services": [{"name": "mine", "protocol": "slow:P", "bind": "127.0.0.1:0"}]}
    )
    made.write_module("slow", "import time; time.sleep(60)\n")
    made.launch()
    eventually(lambda: made.workers(generation=1), 5, "workers that boot")
    made.send(signal.SIGTERM)
    made.wait_exit(8)
    made.allow("start failed", "killing it", "SIGKILL", "SIGTERM", "exited", "next try")
    assert not made.find_log("next try")  # a daemon that stops does not try again


def test_stop_during_a_reload(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.write_module("slow", "import time; time.sleep(60)\n")
    running.write_config(
        {"services": [{"name": "upper", "protocol": "slow:P", "bind": "127.0.0.1:0"}]}
    )
    running.send(signal.SIGHUP)
    eventually(lambda: running.workers(generation=2), 5, "workers that boot")
    running.send(signal.SIGTERM)
    assert running.wait_exit(8) == 0
    running.allow("told to stop", "killing it", "killed by SIGKILL", "exited with status")

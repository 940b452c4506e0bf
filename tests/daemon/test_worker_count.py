"""TTIN and TTOU: one worker more, one less, kept over reloads."""

import signal
from collections.abc import Callable

from harness import Daemon


def test_more_and_less(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"count": 1})
    running.send(signal.SIGTTIN)
    running.wait_workers(2, generation=1)
    running.send(signal.SIGTTIN)
    assert [worker.slot for worker in running.wait_workers(3, generation=1)] == [0, 1, 2]
    assert "generation 2, 3 workers" in running.reload()
    running.wait_workers(3, generation=2)
    running.send(signal.SIGTTOU)
    assert [worker.slot for worker in running.wait_workers(2, generation=2)] == [0, 1]
    assert "generation 3, 4 workers" in running.reload({"workers": {"count": 3}})
    running.wait_workers(4, generation=3)


def test_never_fewer_than_one(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"count": 2})
    for count in range(1, 6):
        running.send(signal.SIGTTOU)
        running.wait_log("workers wanted: 1", count=count)
    running.wait_workers(1)
    running.send(signal.SIGTTIN)
    running.wait_workers(2)


def test_one_less_lets_connections_end(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"count": 2})
    clients = [running.client() for _ in range(2)]
    assert [client.ask(b"a") for client in clients] == [b"A"] * 2
    running.send(signal.SIGTTOU)
    running.wait_log("workers wanted: 1")
    assert [client.ask(b"b") for client in clients] == [b"B"] * 2
    running.hang_up()
    running.wait_workers(1)


def test_a_burst_of_both(daemon: Callable[..., Daemon]) -> None:
    running = daemon(workers={"count": 2})
    for count, number in enumerate((signal.SIGTTIN, signal.SIGTTOU) * 5, 1):
        running.send(number)
        running.wait_log("workers wanted", count=count)
    running.wait_workers(2)

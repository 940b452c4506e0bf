"""Connections spread evenly over the workers, and again after one of them has died."""

import signal
import time
from collections import Counter
from collections.abc import Callable

from harness import Client, Config, Daemon
from processes import eventually

WHO: Config = {"name": "who", "protocol": "protocols:Who", "bind": "127.0.0.1:0"}


def connect(running: Daemon, count: int, pause: float) -> list[tuple[Client, int]]:
    """New clients, each with the pid of its worker."""
    clients = []
    for _ in range(count):
        clients.append(running.client(running.address("who")))
        time.sleep(pause)  # the pace of the load, no wait for anything
    return [(client, int(client.line())) for client in clients]


def evenness(clients: list[tuple[Client, int]], workers: int) -> float:
    """The largest share over the mean; 1 is even."""
    counts = Counter(pid for _, pid in clients)
    return max(counts.values()) / (len(clients) / workers)


def test_one_after_the_other(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO], workers={"count": 4})
    assert evenness(connect(running, 200, 0.001), 4) <= 1.1


def test_in_one_burst(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO], workers={"count": 4})
    assert evenness(connect(running, 400, 0), 4) <= 1.1


def test_even_again_after_a_worker_was_killed(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO], workers={"count": 4})
    clients = connect(running, 200, 0.001)
    victim = clients[0][1]
    running.send(signal.SIGKILL, victim)
    running.wait_log("is ready")
    eventually(lambda: victim not in [worker.pid for worker in running.wait_workers(4)])
    living = [pair for pair in clients if pair[1] != victim]
    assert evenness(living + connect(running, 200, 0.001), 4) <= 1.1
    running.expect("killed by SIGKILL")
    running.allow("next try in")


def test_even_again_after_clients_of_one_worker_have_left(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO], workers={"count": 4})
    clients = connect(running, 200, 0.001)
    quitter = clients[0][1]
    for client, pid in clients:
        if pid == quitter:
            client.close()
    living = [pair for pair in clients if pair[1] != quitter]
    assert evenness(living + connect(running, 100, 0.001), 4) <= 1.1

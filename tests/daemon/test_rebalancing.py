"""workers.rebalance: after a worker's death the live connections even out; without it they stay."""

import os
import signal
from collections import Counter
from collections.abc import Callable

from harness import Client, Daemon
from processes import eventually

WHERE = {"name": "mine", "protocol": "movable:Where", "bind": "127.0.0.1:0"}


def count(clients: list[Client]) -> Counter[int]:
    """Connections by worker."""
    for client in clients:
        client.sock.sendall(b"?")
    return Counter(int(client.line()) for client in clients)


def lose_one(running: Daemon) -> tuple[list[Client], int]:
    """300 connections on three workers, one of which is killed; the clients left, and its pid."""
    clients = [running.client(running.address("mine")) for _ in range(300)]
    before = count(clients)
    assert len(before) == 3
    victim = running.workers()[1].pid
    owner = {}
    for client in clients:
        client.sock.sendall(b"?")
        owner[client] = int(client.line())
    os.kill(victim, signal.SIGKILL)
    running.expect("killed by SIGKILL")
    running.allow("next try in")
    left = [client for client in clients if owner[client] != victim]
    eventually(lambda: victim not in {w.pid for w in running.wait_workers(3)})
    return left, victim


def test_it_evens_out(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHERE], workers={"count": 3, "rebalance": True})
    clients, _ = lose_one(running)
    mean = len(clients) / 3

    def even() -> bool:
        counts = count(clients)
        return len(counts) == 3 and max(counts.values()) <= mean + 17

    eventually(even, 7)
    moves = running.count_log("connections moved")
    assert 1 <= moves <= 6
    # And then it is quiet: at two looks of the master nothing more moves.
    after = count(clients)
    beats = running.count_log("connections moved")
    try:
        running.wait_log("connections moved", 2.2, beats + 1)
        raise RuntimeError("it goes on moving")
    except AssertionError:
        pass
    assert count(clients) == after


def test_without_it_they_stay(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHERE], workers={"count": 3})
    clients, _ = lose_one(running)
    before = count(clients)
    assert len(before) == 2
    try:
        running.wait_log("connections moved", 2.2)
        raise RuntimeError("it moves")
    except AssertionError:
        pass
    assert count(clients) == before

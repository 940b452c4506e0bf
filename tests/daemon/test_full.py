"""max_connections: a full worker takes no more; clients wait until there is room."""

import select
from collections.abc import Callable

from harness import Config, Daemon

WHO: Config = {"name": "who", "protocol": "protocols:Who", "bind": "127.0.0.1:0"}


def test_the_next_client_waits_for_room(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO], workers={"count": 2, "max_connections": 3})
    clients = [running.client(running.address("who")) for _ in range(6)]
    pids = [client.line() for client in clients]
    assert sorted(pids.count(pid) for pid in set(pids)) == [3, 3]
    extra = running.client(running.address("who"))
    assert not select.select([extra.sock], [], [], 1.3)[0]  # not even after a tick
    clients[0].close()
    assert extra.line() == pids[0]
    extra.close()
    assert running.client(running.address("who")).line()
    running.expect(r"full: 3 connections \(workers.max_connections\)")
    assert running.count_log("full: ") == 2  # each says so once


def test_a_full_worker_leaves_clients_to_the_others(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO], workers={"count": 2, "max_connections": 5})
    address = running.address("who")
    clients = [running.client(address) for _ in range(10)]
    pids = [client.line() for client in clients]
    mine = [client for client, pid in zip(clients, pids, strict=True) if pid == pids[0]]
    for client in mine[:3]:
        client.close()
    for _ in range(3):
        assert running.client(address).line() == pids[0]
    running.expect("full: 5 connections")

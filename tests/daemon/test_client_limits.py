"""access and limits: who may come in and how often, counted over all workers."""

import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from harness import Client, Config, Daemon, upper_at
from processes import eventually
from test_proxy_protocol import V1, V2, heard, peers

REFUSAL = b"421 too busy\r\n"


def limited(bind: Any = "127.0.0.1:0", access: Any = (), **limits: Any) -> Config:
    """A service with limits."""
    return upper_at(bind, access=list(access), limits={"refusal": REFUSAL.decode(), **limits})


def come_from(running: Daemon, host: str) -> Client:
    """A client with this address."""
    client = Client.__new__(Client)
    running._clients.append(client)
    _, _, port = running.address().rpartition(":")
    client.sock = socket.create_connection(("127.0.0.1", int(port)), 8, (host, 0))
    return client


def is_served(client: Client) -> bool:
    """Whether it is, or was sent away with the words that it is to be sent away with."""
    try:
        answer = client.ask(b"a")
    except OSError:
        return False
    if answer == b"A":
        return True
    assert answer + client.rest() in (REFUSAL, b"")  # or its worker was killed
    return False


def test_access_rules_in_order(daemon: Callable[..., Daemon]) -> None:
    rules = [{"deny": "127.0.0.3"}, {"allow": "127.0.0.0/30"}, {"deny": "all"}]
    running = daemon(services=[upper_at(access=rules)])
    for host, allowed in (("127.0.0.1", True), ("127.0.0.3", False), ("127.0.0.4", False)):
        client = come_from(running, host)
        if allowed:
            assert client.ask(b"a") == b"A"
        else:
            assert client.is_ended()
            running.wait_log(rf"upper: refused {host}:\d+: not allowed by the access rules")


def test_live_connections_of_a_client_over_all_workers(daemon: Callable[..., Daemon]) -> None:
    """Also after one of its workers was killed, and after a reload moved the others."""
    running = daemon(services=[limited(client_connections=4)], workers={"count": 2})
    clients = [come_from(running, "127.0.0.2") for _ in range(4)]
    assert all(map(is_served, clients))
    assert not is_served(come_from(running, "127.0.0.2"))
    running.wait_log(r"refused 127.0.0.2:\d+: above the limit client_connections")
    assert is_served(come_from(running, "127.0.0.9"))
    clients.pop().close()

    def comes_back() -> bool:
        client = come_from(running, "127.0.0.2")
        if is_served(client):
            clients.append(client)
        return len(clients) == 4

    eventually(comes_back, what="a place is free again")
    running.reload()
    running.wait_workers(2, generation=2)
    assert all(map(is_served, clients))
    assert not is_served(come_from(running, "127.0.0.2"))

    victim = running.wait_workers(2, generation=2)[0]
    running.send(signal.SIGKILL, victim.pid)
    running.expect("killed by SIGKILL")
    running.allow("next try in")
    running.wait_workers(2)
    clients[:] = filter(is_served, clients)
    assert len(clients) < 4
    eventually(comes_back, what="the places of the dead worker's clients are free")
    assert not is_served(come_from(running, "127.0.0.2"))


def test_connections_of_the_service(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[limited(connections=3)])
    clients = [come_from(running, f"127.0.0.{n}") for n in range(2, 5)]
    assert all(map(is_served, clients))
    assert not is_served(come_from(running, "127.0.0.5"))
    running.wait_log("above the limit service_connections")


def test_new_connections_a_second(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[limited(client_rate=5)], workers={"count": 2})
    begin = time.monotonic()
    results = []
    while True in results[-1:] or not results:
        client = come_from(running, "127.0.0.2")
        results.append(is_served(client))
        client.close()
        assert time.monotonic() - begin < 5
    assert len(results) >= 5
    running.wait_log("above the limit client_rate")
    assert is_served(come_from(running, "127.0.0.9"))


def test_a_network_of_64_bits_is_one_client(daemon: Callable[..., Daemon]) -> None:
    """As the proxy says, for this machine has only ::1."""
    running = daemon(services=[peers(limits={"client_connections": 1})])
    first = running.client(running.address("peer"))
    first.sock.sendall(V2)
    assert heard(first)[1][0] == "2001:db8::7"
    again = running.client(running.address("peer"))
    again.sock.sendall(V2.replace(b"\0\7" + V2[30:32], b"\0\x08" + V2[30:32]))
    assert again.is_ended()
    other = running.client(running.address("peer"))
    other.sock.sendall(V1)
    assert heard(other)[1][0] == "192.0.2.7"


def test_an_upgrade_goes_on_counting(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[limited(client_connections=2)], workers={"count": 1})
    clients = [come_from(running, "127.0.0.2") for _ in range(2)]
    assert all(map(is_served, clients))
    running.send(signal.SIGUSR2)
    running.wait_log("reload done", 20)
    running.wait_workers(1, generation=2)
    assert all(map(is_served, clients))
    assert not is_served(come_from(running, "127.0.0.2"))
    clients.pop().close()
    eventually(lambda: is_served(come_from(running, "127.0.0.2")), what="a place is free again")


def test_a_reload_that_sets_limits_counts_those_who_moved(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[upper_at()])
    running.same_descriptors = False  # the master gets a table of clients
    clients = [come_from(running, "127.0.0.2") for _ in range(3)]
    assert all(map(is_served, clients))
    running.reload({"services": [limited(client_connections=3)]})
    running.wait_workers(2, generation=2)
    assert all(map(is_served, clients))
    assert not is_served(come_from(running, "127.0.0.2"))
    clients.pop().close()
    eventually(lambda: is_served(come_from(running, "127.0.0.2")), what="a place is free again")


def test_handlers_in_threads_and_coroutines_are_counted(daemon: Callable[..., Daemon]) -> None:
    limits = {"client_connections": 2, "refusal": REFUSAL.decode()}
    services: list[Config] = [
        {"name": "threads", "protocol": "blocking:Upper", "bind": "127.0.0.1:0", "limits": limits},
        {"name": "tasks", "protocol": "coroutines:upper", "bind": "127.0.0.1:0", "limits": limits},
    ]
    running = daemon(services=services)
    for name in ("threads", "tasks"):
        address = running.address(name)
        clients = [running.client(address) for _ in range(2)]
        for client in clients:
            assert client.ask(b"a\n") == b"A\n"
        assert running.client(address).rest() == REFUSAL
        clients.pop().close()

        def again(address: str = address) -> bool:
            client = running.client(address)
            try:
                return client.ask(b"a\n") == b"A\n"
            except OSError:
                return False

        eventually(again, what=f"a place of {name} is free again")

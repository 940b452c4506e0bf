"""Somebody dies, or all shall leave, in the midst of a hand-over: who owned what, ends."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable

from harness import Client, Daemon
from processes import eventually
from stream_check import Arrivals

from epolld.net.frozen import BATCH  # a receipt is for so many

COUNT = 240
SLOW = {"name": "mine", "protocol": "movable:Slow", "bind": "127.0.0.1:0"}
UPPER = {"name": "upper", "bind": "127.0.0.1:0"}


def connect(running: Daemon) -> list[Client]:
    """All of them served by generation 1."""
    clients = [running.client(running.address("mine")) for _ in range(COUNT)]
    for client in clients:
        client.sock.sendall(b"?")
    for client in clients:
        client.owners = [int(client.line())]  # type: ignore[attr-defined]
    return clients


def moved(clients: list[Client]) -> int:
    """How many have said that they are in a new worker."""
    count = 0
    for client in clients:
        client.sock.setblocking(False)
        with contextlib.suppress(OSError):
            count += bool(client.sock.recv(1, socket.MSG_PEEK))
        client.sock.settimeout(8)
    return count


def owners(client: Client) -> tuple[list[int], bool]:
    """Who had it, in order, and whether it lives: asked once more."""
    found: list[int] = client.owners  # type: ignore[attr-defined]
    try:
        client.sock.sendall(b"?")
        while line := client.line():
            if (found[-1] == int(line) and len(found) > 1) or int(line) == found[0]:
                return [*found, int(line)], True
            found.append(int(line))
    except ConnectionError:
        pass
    return found, False


def test_sigkill_of_the_giver(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[SLOW, UPPER], workers={"count": 1})
    clients = connect(running)
    (old,) = running.workers(1)
    with Arrivals(running.address("upper")):
        running.send(signal.SIGHUP)
        eventually(lambda: moved(clients), 5)
        os.kill(old.pid, signal.SIGKILL)
        running.wait_workers(1, generation=2)
    living = 0
    for client in clients:
        found, lives = owners(client)
        assert lives or found == [old.pid]  # what has arrived lives
        living += lives
    assert BATCH <= living < COUNT
    running.expect("killed by SIGKILL")
    running.allow("next try in")


def test_sigkill_of_the_taker(daemon: Callable[..., Daemon]) -> None:
    """One of two: the rest moves to the other and to the one that takes its place."""
    running = daemon(services=[SLOW, UPPER], workers={"count": 2})
    clients = connect(running)
    with Arrivals(running.address("upper"), killed=True):
        running.send(signal.SIGHUP)
        eventually(lambda: moved(clients) > 20, 5)
        victim = running.workers(generation=2, state="")[0]
        os.kill(victim.pid, signal.SIGKILL)
        running.wait_workers(2, generation=2)
    ended = [found for found, lives in map(owners, clients) if not lives]
    strangers = [found for found in ended if victim.pid not in found]
    # It had sent the receipt for a batch (of each of two givers) and not come to all of it.
    assert len(strangers) <= 2 * BATCH
    assert 0 < len(ended) < COUNT
    running.expect("killed by SIGKILL")
    running.allow("next try in")


def test_sigkill_of_the_only_taker(daemon: Callable[..., Daemon]) -> None:
    """The rest stays, and moves to its successor."""
    running = daemon(services=[SLOW, UPPER], workers={"count": 1})
    clients = connect(running)
    running.send(signal.SIGHUP)
    eventually(lambda: moved(clients) > 5, 5)
    (victim,) = running.workers(generation=2)
    os.kill(victim.pid, signal.SIGKILL)
    (heir,) = running.wait_workers(1, generation=2)
    assert heir.pid != victim.pid
    results = [owners(client) for client in clients]
    ended = [found for found, lives in results if not lives]
    assert len([found for found in ended if victim.pid not in found]) <= BATCH
    living = [found for found, lives in results if lives]
    assert len(living) >= COUNT - 2 * BATCH
    assert all(found[-1] == heir.pid for found in living)
    running.expect("killed by SIGKILL")
    running.allow("next try in")


def test_term_in_the_midst(daemon: Callable[..., Daemon]) -> None:
    """Everybody gets an orderly end."""
    running = daemon(services=[SLOW], workers={"count": 1, "graceful_timeout": "1s"})
    clients = connect(running)
    running.send(signal.SIGHUP)
    eventually(lambda: moved(clients) > 5, 5)
    begin = time.monotonic()
    running.send(signal.SIGTERM)
    for client in clients:
        assert not client.rest().replace(b"\n", b"").strip(b"0123456789")
    assert running.wait_exit() == 0
    assert time.monotonic() - begin < 6


def test_int_in_the_midst(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[SLOW], workers={"count": 1})
    clients = connect(running)
    running.send(signal.SIGHUP)
    eventually(lambda: moved(clients) > 5, 5)
    running.send(signal.SIGINT)
    assert running.wait_exit() == 0
    for client in clients:
        with contextlib.suppress(ConnectionResetError):
            client.rest()


def test_death_of_the_master_in_the_midst(daemon: Callable[..., Daemon]) -> None:
    """The workers drain, as ever; nobody is cut off in a hurry."""
    running = daemon(services=[SLOW], workers={"count": 1, "graceful_timeout": "3s"})
    clients = connect(running)
    running.send(signal.SIGHUP)
    eventually(lambda: moved(clients) > 5, 5)
    running.send(signal.SIGKILL)
    running.wait_exit()
    assert running.exit_code == -signal.SIGKILL
    assert all(lives for _, lives in map(owners, clients))
    running.hang_up()
    eventually(lambda: not running.processes(), 6)
    running.expect("the master is dead, draining")
    for file in running.runtime.iterdir():
        file.unlink()

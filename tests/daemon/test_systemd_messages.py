"""What the master tells systemd: READY, RELOADING, STOPPING, STATUS, WATCHDOG."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from harness import Config, Daemon


class Manager:
    """The receiving end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.came: list[dict[str, str]] = []

    def has_more(self) -> bool:
        """Whether anything more has come, or comes within a while; takes it."""
        self.sock.settimeout(1)
        try:
            return bool(self.sock.recv(4096))
        except TimeoutError:
            return False

    def wait(self, key: str, timeout: float = 8) -> dict[str, str]:
        """The next message that has `key`; all before it are in `came`."""
        deadline = time.monotonic() + timeout
        while True:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            lines = self.sock.recv(4096).decode().split("\n")
            self.came.append(dict(line.split("=", 1) for line in lines))
            if key in self.came[-1]:
                return self.came[-1]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.sock.close()


@pytest.fixture
def notified(manager: Manager, make_daemon: Callable[[Config], Daemon]) -> Daemon:
    made = make_daemon({})
    made.environment["NOTIFY_SOCKET"] = str(manager.path)
    return made


def test_ready_when_the_workers_are(notified: Daemon, manager: Manager) -> None:
    notified.launch()
    assert manager.wait("READY")["READY"] == "1"
    assert [message for message in manager.came if "STATUS" in message] == manager.came[-1:]
    notified.wait_log("ready: ")
    assert notified.client().ask(b"a") == b"A"


def test_not_ready_when_they_cannot(notified: Daemon, manager: Manager) -> None:
    notified.write_module("leaves", "import os\nos._exit(4)\n")
    services = [{"name": "mine", "protocol": "leaves:P", "bind": "127.0.0.1:0"}]
    notified.write_config({"services": services})
    notified.launch()
    assert notified.wait_exit() == 70
    manager.sock.setblocking(False)
    with pytest.raises((BlockingIOError, TimeoutError)):
        manager.wait("READY", 0.01)
    notified.expect("start failed", "exited with status 4")
    notified.allow("next try")


def test_a_reload_is_announced_and_ended(notified: Daemon, manager: Manager) -> None:
    notified.start()
    manager.wait("READY")
    before = time.monotonic_ns() // 1000
    notified.reload()
    reloading = manager.wait("RELOADING")
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert "generation 2" in manager.wait("READY")["STATUS"]


def test_a_failed_reload_is_ended_too(notified: Daemon, manager: Manager) -> None:
    """Else systemd would wait for it and kill the daemon in the end."""
    notified.start()
    manager.wait("READY")
    notified.write_text("nonsense: 1")
    notified.reload(ok=False)
    manager.wait("RELOADING")
    assert "reload failed" in manager.wait("READY")["STATUS"]
    notified.expect("reload failed", "nonsense", "services")


def test_status(notified: Daemon, manager: Manager) -> None:
    notified.start()
    manager.wait("READY")
    notified.client().ask(b"a")
    while "1 connections" not in (text := manager.wait("STATUS")["STATUS"]):
        pass
    assert text == "generation 1, 2 workers, 1 connections"


def test_stopping(notified: Daemon, manager: Manager) -> None:
    notified.start()
    client = notified.client()
    client.ask(b"a")
    notified.send(signal.SIGTERM)
    assert manager.wait("STOPPING")["STOPPING"] == "1"
    client.close()
    assert notified.wait_exit() == 0


def test_watchdog_comes_from_the_masters_loop(notified: Daemon, manager: Manager) -> None:
    notified.environment["WATCHDOG_USEC"] = "400000"
    notified.start()
    times = []
    for _ in range(4):
        assert manager.wait("WATCHDOG", 2)["WATCHDOG"] == "1"
        times.append(time.monotonic())
    assert max(b - a for a, b in pairwise(times)) < 0.4
    # A master that does not turn does not feed it.
    notified.send(signal.SIGSTOP)
    while manager.has_more():
        pass
    notified.send(signal.SIGCONT)
    manager.wait("WATCHDOG", 2)

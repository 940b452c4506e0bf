"""The telemetry gateway: reloads and a killed worker under load lose and double no reading."""

import functools
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import telemetry

from epolld.testing import Daemon, Peer, connect
from epolld.testing.processes import eventually

DEVICES = 8
WINDOW = 40  # readings that a device sends before it waits for the first to be stored


class Meter(threading.Thread):
    """A device: sends until it is told to stop, repeats what was not stored after a break."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__()
        self.device = name
        self.stored = 0  # the last sequence number that was acknowledged
        self.sent = 0
        self.repeated = 0
        self.breaks = 0
        self.trouble: BaseException | None = None
        self._enough = threading.Event()
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))

    def run(self) -> None:
        try:
            while not self._enough.is_set() or self.stored < self.sent:
                try:
                    self._talk()
                except (ConnectionError, EOFError):
                    self.breaks += 1
        except BaseException as trouble:
            self.trouble = trouble

    def _talk(self) -> None:
        """One connection: first what is to be repeated, then on."""
        with socket.create_connection(self._address, 15) as sock, sock.makefile("rb") as answers:
            self.repeated += self.sent - self.stored
            last = self.stored
            while not self._enough.is_set() or self.stored < self.sent:
                if not self._enough.is_set() and last - self.stored < WINDOW:
                    self.sent = max(self.sent, last + WINDOW // 2)
                lines = [f"{self.device} {n} {n / 2}\n" for n in range(last + 1, self.sent + 1)]
                last = self.sent
                sock.sendall("".join(lines).encode())
                answer = answers.readline().split()
                if not answer:
                    raise EOFError
                assert answer[0] == b"stored", answer
                self.stored = int(answer[1])

    def finish(self) -> None:
        """Send no more, wait until all is stored."""
        self._enough.set()
        self.join(20)
        assert not self.is_alive(), f"{self.device}: {self.stored} of {self.sent} stored"
        assert self.trouble is None, self.trouble


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "readings.db"


@pytest.fixture
def gateway(serve: Callable[..., Daemon], database: Path) -> Daemon:
    return serve("telemetry", database=str(database))


@pytest.fixture
def meters(gateway: Daemon) -> Iterator[list[Meter]]:
    """Devices that send already."""
    meters = [Meter(f"meter-{n}", gateway.address()) for n in range(DEVICES)]
    for meter in meters:
        meter.start()
    wait_for_more(meters)
    yield meters
    for meter in meters:
        meter._enough.set()
        meter.join(20)


def wait_for_more(meters: list[Meter], count: int = 200) -> None:
    """Wait until every device has so many more readings stored."""
    goal = {meter: meter.stored + count for meter in meters}
    eventually(lambda: all(m.stored >= goal[m] or m.trouble for m in meters), 20)


def readings(database: Path) -> dict[str, list[int]]:
    """The sequence numbers in the database, by device; and no value is wrong."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT * FROM readings ORDER BY device, sequence").fetchall()
    found: dict[str, list[int]] = {}
    for device, sequence, value in rows:
        assert value == sequence / 2
        found.setdefault(device, []).append(sequence)
    return found


def test_a_reload_under_load_loses_and_doubles_nothing(
    gateway: Daemon, meters: list[Meter], database: Path
) -> None:
    for _ in range(3):
        gateway.reload()
        wait_for_more(meters)
    for meter in meters:
        meter.finish()
    assert readings(database) == {m.device: [*range(1, m.sent + 1)] for m in meters}
    # Nobody had to come back: the connections have moved.
    assert [m.breaks for m in meters] == [0] * DEVICES


def test_killed_workers_lose_and_double_nothing(
    gateway: Daemon, meters: list[Meter], database: Path
) -> None:
    for worker in gateway.workers():
        os.kill(worker.pid, signal.SIGKILL)
        wait_for_more(meters)
    for meter in meters:
        meter.finish()
    assert readings(database) == {m.device: [*range(1, m.sent + 1)] for m in meters}
    assert sum(m.breaks for m in meters) >= DEVICES
    assert sum(m.repeated for m in meters) > 0
    gateway.expect("killed by SIGKILL")
    gateway.allow("next try in")


def device(database: Path) -> Peer:
    """A device, in memory."""
    gateway = functools.partial(telemetry.Gateway, database=str(database))
    return connect(telemetry.Device, application=gateway)


def test_nothing_is_acknowledged_before_it_is_stored(database: Path) -> None:
    peer = device(database)
    assert peer.ask(b"a 1 0.5\na 2 1\n") == b""
    assert readings(database) == {}
    peer.advance(telemetry.MAX_DELAY)
    assert peer.take() == b"stored 2\n"
    assert readings(database) == {"a": [1, 2]}


def test_a_full_batch_does_not_wait(database: Path) -> None:
    peer = device(database)
    lines = [b"a %d %f\n" % (n, n / 2) for n in range(1, telemetry.MAX_BATCH + 2)]
    assert peer.ask(b"".join(lines)) == b"stored %d\n" % telemetry.MAX_BATCH


def test_what_a_lost_connection_has_sent_is_stored(database: Path) -> None:
    peer = device(database)
    peer.send(b"a 1 0.5\n")
    peer.close()
    peer.advance(telemetry.MAX_DELAY)
    assert readings(database) == {"a": [1]}


def test_it_moves_with_half_a_line_and_all_before_it_stored(database: Path) -> None:
    peer = device(database)
    peer.send(b"a 1 0.5\na 2")
    assert peer.move()
    assert peer.take() == b"stored 1\n"
    peer.send(b" 1.0\n")
    peer.advance(1)
    assert peer.take() == b"stored 2\n"


@pytest.mark.parametrize("line", [b"", b"a 1", b"a x 1", b"a 1 x", b"a -1 1", b"a %d 1" % 2**63])
def test_what_is_no_reading(database: Path, line: bytes) -> None:
    peer = device(database)
    assert peer.ask(line + b"\n") == b"what is " + line + b"\n"

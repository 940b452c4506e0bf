"""What a worker counts into the scoreboard: exact, never falling, and cheap with a crowd."""

from __future__ import annotations

import socket
import time

import pytest
from wiring import run_until, unix_pair

from epolld.ledger import END_WORD, Count
from epolld.net.loop import EventLoop
from epolld.net.protocol import Protocol
from epolld.net.service import Service
from epolld.scoreboard import Column, Scoreboard
from epolld.worker import counting
from epolld.worker.counting import Counting


class Echo(Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Bench:
    """One worker's worth of it."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.board = Scoreboard(1)
        self.board.enlist(["a", "b"], ["a", "b"])
        row = self.board.take_row(1)
        self.counting = Counting(self.loop, self.board, row)
        self.services = [Service(self.loop, name, Echo) for name in ("a", "b")]
        for service in self.services:
            self.counting.add(service)

    def connect(self, which: int = 0) -> socket.socket:
        ours, theirs = unix_pair()
        self.services[which].open(ours.detach(), "")
        return theirs

    def ask(self, client: socket.socket, data: bytes) -> None:
        client.send(data)
        run_until(self.loop, lambda: _received(client, len(data)), "the answer")

    def words(self, which: int = 0) -> list[int]:
        return self.board.sheet(0).service(which).tolist()


def _received(client: socket.socket, size: int) -> bool:
    try:
        return len(client.recv(size)) == size
    except BlockingIOError:
        return False


def test_live_and_ended_connections_count_once() -> None:
    bench = Bench()
    first, second = bench.connect(), bench.connect(1)
    bench.ask(first, b"abc")
    bench.ask(second, b"de")
    bench.counting.publish()
    assert bench.words()[Count.BYTES_IN] == bench.words()[Count.BYTES_OUT] == 3
    assert bench.words(1)[Count.BYTES_IN] == 2
    first.close()
    run_until(bench.loop, lambda: bench.services[0].live == 0)
    bench.counting.publish()
    words = bench.words()
    assert words[Count.BYTES_IN] == 3
    assert (words[Count.LIVE], words[Count.ACCEPTED], words[END_WORD["eof"]]) == (0, 1, 1)


def test_an_unknown_cause_is_another() -> None:
    bench = Bench()
    bench.services[0].closed["never heard of"] = 2
    bench.services[0].closed["moved"] = 3
    bench.counting.publish()
    assert bench.words()[END_WORD["other"]] == 2
    assert bench.words()[Count.MOVED_OUT] == 3


def test_what_is_published_never_falls() -> None:
    """A connection that is just ending is neither in the loop nor among the ended."""
    bench = Bench()
    client = bench.connect()
    bench.ask(client, b"abc")
    bench.counting.publish()
    (transport,) = bench.services[0].transports
    transport.abort()
    assert bench.services[0].transports == []
    bench.counting.publish()
    assert bench.words()[Count.BYTES_IN] == 3


def test_a_crowd_is_swept_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    sweeps = []
    monkeypatch.setattr(bench.counting, "_sweep", lambda: sweeps.append(1) or {
        service: [0, 0] for service in bench.services
    })  # fmt: skip
    times = iter(range(100))
    monkeypatch.setattr(counting.time, "thread_time", lambda: next(times) * 0.005)
    for _ in range(11):
        bench.counting.tick(bench.loop.now, 1.0)
    assert len(sweeps) == 3  # 5 ms each: one in five seconds


def test_a_busy_machine_puts_off_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others run while we sweep: that is no cost of ours."""
    bench = Bench()
    sweeps = []

    def interrupted() -> dict[Service, list[int]]:
        time.sleep(0.02)
        sweeps.append(1)
        return {service: [0, 0] for service in bench.services}

    monkeypatch.setattr(bench.counting, "_sweep", interrupted)
    for _ in range(3):
        bench.counting.tick(bench.loop.now, 1.0)
    assert len(sweeps) == 3


def test_lag_is_the_last_and_the_most() -> None:
    bench = Bench()
    now = bench.loop.now
    bench.counting.tick(now, 1.0)
    bench.counting.tick(now + 1.25, 1.0)
    assert bench.board.column(Column.LAG)[0] == pytest.approx(0.25e9, rel=1e-3)
    bench.counting.tick(now + 1.0, 1.0)
    assert bench.board.column(Column.LAG)[0] == 0
    assert bench.board.column(Column.LAG_MAX)[0] == pytest.approx(0.25e9, rel=1e-3)
    for _ in range(2 * counting.LAG_TICKS):
        bench.counting.tick(now + 1.0, 1.0)
    assert bench.board.column(Column.LAG_MAX)[0] == 0

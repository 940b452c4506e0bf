"""net/farewell.py: goodbyes are told once, spread over time; idle connections are closed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from movers import Noted
from wiring import receive, turn, unix_pair

from epolld.net import farewell
from epolld.net.farewell import FULL_SPREAD, IDLE_AFTER, Farewell
from epolld.net.loop import EventLoop
from epolld.net.protocol import Protocol
from epolld.net.service import Service
from epolld.net.transport import Transport


class Clock:
    """Time that the test makes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Silent(Protocol):
    """Has no goodbye of its own, and a beginning, so it cannot move."""

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport


class Room:
    """A loop with a clock of ours, and connections."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loop = EventLoop(self.clock)
        self.clients: list[socket.socket] = []

    def connect(self, factory: type[Protocol], count: int) -> list[Transport]:
        """So many connections."""
        service = Service(self.loop, "test", factory)
        for _ in range(count):
            ours, theirs = unix_pair()
            self.clients.append(theirs)
            service.open(ours.detach(), "")
        return service.transports

    def wait(self, seconds: float, step: float = farewell.STEP) -> None:
        """Let time pass, a look at a time."""
        end = self.clock.now + seconds
        while self.clock.now < end - 1e-9:
            self.clock.now = min(end, self.clock.now + step)
            turn(self.loop)
            turn(self.loop)

    def farewell(self, transports: list[Transport], spread: float = 0.0) -> Farewell:
        """Say goodbye to them."""
        made = Farewell(self.loop, spread)
        for transport in transports:
            made.add(transport)
        turn(self.loop)
        turn(self.loop)
        return made


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    for client in room.clients:
        client.close()
    for watcher in room.loop.watchers():
        if isinstance(watcher, Transport):
            watcher.abort()
    turn(room.loop)
    room.loop.close()


def told(transports: list[Transport]) -> int:
    return sum("draining" in t.get_protocol().calls for t in transports)  # type: ignore[attr-defined]


def test_without_a_spread_all_are_told_at_once_and_once(room: Room) -> None:
    transports = room.connect(Noted, 5)
    room.farewell(transports)
    assert told(transports) == 5
    room.wait(60)
    assert [t.get_protocol().calls for t in transports] == [["made", "draining"]] * 5  # type: ignore[attr-defined]
    assert not any(t.is_closing() for t in transports)  # they decide themselves


def test_the_spread_is_used_in_proportion(room: Room) -> None:
    count = FULL_SPREAD // 5
    transports = room.connect(Noted, count)
    room.farewell(transports, spread=10.0)  # of which a fifth is used
    seen = [told(transports)]
    for _ in range(20):
        room.wait(0.1)
        seen.append(told(transports))
    assert seen[-1] == count
    assert seen[0] <= count * 0.05
    for place, number in enumerate(seen):
        assert abs(number - count * place / 20) <= count * 0.06


def test_one_alone_is_told_soon_whatever_the_spread(room: Room) -> None:
    transports = room.connect(Noted, 1)
    room.farewell(transports, spread=30.0)
    room.wait(0.1)
    assert told(transports) == 1


def test_one_that_has_gone_is_not_told(room: Room) -> None:
    transports = room.connect(Noted, 2)
    transports[0].abort()
    protocols: list[Any] = [transport.get_protocol() for transport in transports]
    room.farewell(transports)
    room.wait(1)
    assert ["draining" in protocol.calls for protocol in protocols] == [False, True]


def test_idle_ones_are_closed_when_they_are_idle(room: Room) -> None:
    (transport,) = room.connect(Silent, 1)
    room.wait(IDLE_AFTER - 1)
    room.farewell([transport])
    assert not transport.is_closing()
    transport.write(b"x")  # active again
    room.wait(IDLE_AFTER - 0.2)
    assert not transport.is_closing()
    room.wait(0.5)
    assert transport.is_closed()
    assert receive(room.clients[0]) == b"x"


def test_long_idle_ones_are_closed_at_their_turn(room: Room) -> None:
    transports = room.connect(Silent, FULL_SPREAD // 10)
    room.wait(IDLE_AFTER + 1, step=1)
    room.farewell(transports, spread=10.0)  # a tenth: one second
    room.wait(0.5)
    closed = sum(t.is_closed() for t in transports)
    assert 30 <= closed <= 70
    room.wait(0.6)
    assert all(t.is_closed() for t in transports)


def test_unsent_answers_are_waited_for(room: Room) -> None:
    (transport,) = room.connect(Silent, 1)
    data = bytes(2_000_000)
    transport.write(data)
    room.farewell([transport])
    room.wait(3 * IDLE_AFTER, step=1)
    assert not transport.is_closing()
    got = 0
    while got < len(data):
        got += len(receive(room.clients[0]) or b"")
        turn(room.loop)
    room.wait(IDLE_AFTER + 0.5, step=0.5)
    assert transport.is_closed()


def test_some_come_later(room: Room) -> None:
    first = room.connect(Noted, 3)
    second = room.connect(Noted, 2)
    made = room.farewell(first)
    room.wait(1)
    for transport in second:
        made.add(transport)
    room.wait(0.2)
    assert told(first + second) == 5


def test_goodbye_that_fails_ends_its_own_connection(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Noted):
        def draining(self) -> None:
            raise ValueError("no goodbye")

    transports = room.connect(Fails, 1) + room.connect(Noted, 1)
    room.farewell(transports)
    room.wait(1)
    assert [t.is_closed() for t in transports] == [True, False]
    assert "draining of" in caplog.text


def test_it_stops_looking_when_all_are_gone(room: Room) -> None:
    (transport,) = room.connect(Silent, 1)
    made = room.farewell([transport])
    transport.abort()
    room.wait(1)
    assert not made._stepping
    assert room.loop._timers.next_deadline() is None


def test_frozen_ones_are_left_in_peace(room: Room) -> None:
    """On its way to another worker while its turn comes."""
    (transport,) = room.connect(Noted, 1)
    frozen = transport.freeze()
    assert frozen is not None
    room.farewell([transport])
    room.wait(1)
    assert told([transport]) == 0
    transport.unfreeze(frozen)

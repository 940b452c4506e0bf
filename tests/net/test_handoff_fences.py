"""net/handoff.py and user code: what it raises or returns ends its own connection, no other."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
from movers import Lines, World
from wiring import receive

from epolld.net.protocol import Protocol
from epolld.net.transport import Transport

# -- user code ---------------------------------------------------------------------------------


class Fussy(Lines):
    """Some raise, some return nonsense; told by a line."""

    def data_received(self, data: bytes) -> None:
        self.order = data.decode()

    order = ""

    def freeze(self) -> Any:
        if self.order == "raise":
            raise ValueError("no way")
        if self.order == "close":
            self.transport.close()
        return "text" if self.order == "text" else b"0 "


def test_freeze_raises(world: World, caplog: pytest.LogCaptureFixture) -> None:
    old, new = world.side(Fussy), world.side()
    bad, good = world.connect(old, 2)
    bad.send(b"raise")
    world.settle()
    world.give(old, new)
    world.until(lambda: world.done)
    assert world.done == [1]
    assert "freeze failed; the connection stays" in caplog.text
    assert len(world.stuck) == 1
    bad.send(b"ok")
    world.until(lambda: old.protocols()[0].order == "ok")
    world.check_all([good])


def test_freeze_closes(world: World) -> None:
    old, new = world.side(Fussy), world.side()
    bad, good = world.connect(old, 2)
    bad.send(b"close")
    world.settle()
    world.give(old, new)
    world.until(lambda: world.done)
    world.until(lambda: not old.service.live)
    assert world.done == [1]
    assert receive(bad) == b""
    world.check_all([good])


def test_freeze_returns_text(world: World) -> None:
    old, new = world.side(Fussy), world.side()
    bad, good = world.connect(old, 2)
    bad.send(b"text")
    world.settle()
    world.give(old, new)
    world.settle(50)
    assert new.service.live == 1
    world.check_all([good])


class Refuses(Lines):
    """Refuses every second one."""

    seen: list[Any] = []  # noqa: RUF012

    def thaw(self, state: bytes) -> None:
        self.seen.append(self)
        if len(self.seen) % 2:
            raise ValueError("I do not know this")
        super().thaw(state)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc


def test_thaw_refuses(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """That connection closes with a logged reason, and no other."""
    old, new = world.side(), world.side(Refuses)
    Refuses.seen = []
    clients = world.connect(old, 6)
    world.give(old, new)
    world.until(lambda: world.done and new.service.live == 3)
    assert world.done == [6]
    assert caplog.text.count("thaw of Refuses raised ValueError; closing the connection") == 3
    assert str(Refuses.seen[0].lost) == "I do not know this"
    world.settle()
    alive = [client for client in clients if receive(client) is None]
    assert len(alive) == 3
    world.check_all(alive)


def test_factory_of_the_heir_raises(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Protocol:
        raise ValueError("out of order")

    old, new = world.side(), world.side(broken)
    clients = world.connect(old, 2)
    world.give(old, new)
    world.until(lambda: world.done)
    world.settle()
    assert [receive(client) for client in clients] == [b""] * 2
    assert "cannot make a protocol" in caplog.text


class NoTransport:
    """Moves, but its `transport` cannot be set: it keeps the one from connection_made."""

    transport = property(lambda self: self.kept)

    def connection_made(self, transport: Transport) -> None:
        self.kept = transport

    def data_received(self, data: bytes) -> None:
        self.kept.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        pass

    def freeze(self) -> bytes:
        return b""

    def thaw(self, state: bytes) -> None:
        pass


def test_transport_cannot_be_set(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def factory() -> Any:
        made.append(Lines() if made else NoTransport())
        return made[-1]

    old, new = world.side(), world.side(factory)
    first, second = world.connect(old, 2)
    world.give(old, new)
    world.until(lambda: world.done)
    second.send(b"x\n")
    world.settle()
    assert receive(second) == b"1:x\n"
    assert receive(first) == b""


def test_unknown_service(world: World, caplog: pytest.LogCaptureFixture) -> None:
    old, new = world.side(), world.side(name="other")
    (client,) = world.connect(old, 1)
    world.give(old, new)
    world.until(lambda: world.done)
    world.settle()
    assert receive(client) == b""
    assert "there is no service 'test' here" in caplog.text


class Switches(Lines):
    """At the first line it becomes another protocol, as after a handshake."""

    def data_received(self, data: bytes) -> None:
        second = Second()
        second.transport = self.transport
        self.transport.set_protocol(second)
        self.transport.write(b"ok\n")


class Second(Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.write(b"second:" + data)


def test_a_protocol_that_was_set_later(world: World) -> None:
    """It may stay, or go on as what it is; not begin anew as something else."""
    old, new = world.side(Switches), world.side(Switches)
    (client,) = world.connect(old, 1)
    client.send(b"hello\n")
    world.expect(client, b"ok\n")
    world.give(old, new)
    world.until(lambda: world.done)
    client.send(b"x\n")
    world.expect(client, b"second:x\n")


def test_a_peer_with_a_strange_name(world: World, tmp_path: Any) -> None:
    """A client of a Unix socket may bind to any path that it can write to."""

    def pair() -> tuple[socket.socket, socket.socket]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "listener"))
            listener.listen()
            theirs = socket.socket(socket.AF_UNIX)
            theirs.bind(bytes(tmp_path) + b"/\xff")
            theirs.connect(str(tmp_path / "listener"))
            ours, _ = listener.accept()
        ours.setblocking(False)
        theirs.setblocking(False)
        return ours, theirs

    old, new = world.side(), world.side()
    clients = world.connect(old, 1) + world.connect(old, 1, pair)
    with contextlib.suppress(UnicodeEncodeError):
        world.give(old, new)
    for client in clients:
        client.send(b"x\n")
    world.settle(20)
    assert [receive(client) for client in clients] == [b"1:x\n"] * 2

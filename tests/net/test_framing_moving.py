"""Framings that move: by themselves, with state of their own, or not."""

from __future__ import annotations

from typing import Any

import pytest
from framed import ALL, framed
from movers import open_world

from epolld.net.framing import Framing
from epolld.net.lines import LineProtocol
from epolld.net.prefixed import LengthPrefixedProtocol, NetstringProtocol


class Plain(LineProtocol):
    __slots__ = ()
    delimiter = b"\n"

    def line_received(self, line: bytes) -> None:
        self.send_line(line.upper())
        if line == b"p":
            self.transport.pause_reading()


class PlainPrefixed(LengthPrefixedProtocol):
    __slots__ = ()

    def message_received(self, message: bytes) -> None:
        self.send_message(message.upper())
        if message == b"p":
            self.transport.pause_reading()


class PlainNetstrings(NetstringProtocol):
    __slots__ = ()
    message_received = PlainPrefixed.message_received  # type: ignore[assignment]


PLAIN = [Plain, PlainPrefixed, PlainNetstrings]


@pytest.mark.parametrize("cls", PLAIN)
@pytest.mark.parametrize("held", [False, True], ids=["in a message", "paused"])
def test_it_moves_by_itself(cls: type[Framing], held: bool) -> None:
    with open_world() as world:
        old, new = world.side(cls), world.side(cls)
        (client,) = world.connect(old, 1)
        first = [b"p", b"b", b"c"] if held else [b"b"]
        text = framed(cls, [*first, b"half and half"])
        client.sendall(text[:-6])
        world.expect(client, framed(cls, [first[0].upper()]))
        world.give(old, new)
        world.until(lambda: new.service.live == 1)
        client.sendall(text[-6:])
        if held:
            (transport,) = new.service.transports
            world.settle()
            world.expect(client, b"")
            transport.resume_reading()
        world.expect(client, framed(cls, [*(m.upper() for m in first[1:]), b"HALF AND HALF"]))


@pytest.mark.parametrize("cls", PLAIN)
def test_between_two_messages_it_has_no_state(cls: type[Framing]) -> None:
    protocol = cls()
    assert protocol.freeze() == b""
    assert not hasattr(protocol, "__dict__")


def test_it_resumes_and_moves_before_it_goes_on() -> None:
    with open_world() as world:
        old, new = world.side(Plain), world.side(Plain)
        (client,) = world.connect(old, 1)
        client.sendall(b"p\nb\nc\n")
        world.expect(client, b"P\n")
        (transport,) = old.service.transports
        transport.resume_reading()
        state = transport.get_protocol().freeze()
        protocol = Plain()
        protocol.transport = transport
        transport.set_protocol(protocol)
        protocol.thaw(state)
        world.expect(client, b"B\nC\n")
        assert transport.batch is None
        world.give(old, new)
        world.until(lambda: new.service.live == 1)


class Slotted(Plain):
    __slots__ = ("count",)


class Greeting(Plain):
    __slots__ = ()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)


@pytest.mark.parametrize("cls", [Slotted, Greeting, *ALL])
def test_who_may_have_state_of_its_own_stays(cls: type[Framing]) -> None:
    assert cls().freeze() is None


def test_it_does_not_move_amid_a_batch() -> None:
    states = []

    class Curious(Plain):
        def line_received(self, line: bytes) -> None:
            states.append(self.freeze())

        def freeze(self) -> bytes | None:
            return super().freeze()

    with open_world() as world:
        side = world.side(Curious)
        (client,) = world.connect(side, 1)
        client.sendall(b"a\n")
        world.until(lambda: states)
        assert states == [None]


def test_another_mode_is_refused() -> None:
    with pytest.raises(KeyError):
        LineProtocol().thaw(b"?")


def test_a_transport_of_its_own_is_made_for_framings_alone() -> None:
    from epolld.net.batches import batching
    from epolld.net.protocol import Protocol
    from epolld.net.service import Service

    usual = Service.transport_type
    with open_world() as world:
        for factory, wanted in ((Plain, batching(usual)), (Protocol, usual)):
            side = world.side(factory)
            world.connect(side, 1)
            (transport,) = side.service.transports
            assert type(transport) is wanted

"""LengthPrefixedProtocol and NetstringProtocol: what is a message, and what is none."""

from __future__ import annotations

import logging
import struct

import pytest
from framed import Netstrings, Prefixed, answer, connected, framed

from epolld.net.framing import Framing
from epolld.net.loop import EventLoop
from epolld.net.prefixed import LengthPrefixedProtocol

BOTH = [Prefixed, Netstrings]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("order", ["big", "little"])
def test_the_prefixes(loop: EventLoop, size: int, order: str) -> None:
    class Some(Prefixed):
        prefix_bytes = size
        byteorder = order
        max_length = 300

    protocol = Some()
    messages = [b"", b"x", b"y" * 250]
    text = b"".join(len(each).to_bytes(size, order) + each for each in messages)
    protocol.on = {b"x": lambda self: self.send_message(b"answer")}
    with connected(loop, protocol) as peer:
        peer.send(text)
        assert protocol.got == messages
        assert peer.received() == (6).to_bytes(size, order) + b"answer"


def test_a_netstring(loop: EventLoop) -> None:
    protocol = Netstrings()
    protocol.on = {b"hello": lambda self: self.send_message(b"world!")}
    with connected(loop, protocol) as peer:
        peer.send(b"5:hello,0:,3:a,b,")
        assert protocol.got == [b"hello", b"", b"a,b"]
        assert peer.received() == b"6:world!,"


@pytest.mark.parametrize(("size", "order"), [(3, "big"), (4, "middle"), ("4", "big")])
def test_a_prefix_that_does_not_exist(size: int, order: str) -> None:
    protocol = LengthPrefixedProtocol()
    with pytest.raises(AttributeError):
        protocol.prefix_bytes = size  # it has no room for it

    class Some(LengthPrefixedProtocol):
        prefix_bytes = size
        byteorder = order

    with pytest.raises(TypeError, match=r"prefix_bytes is 1, 2, 4 or 8"):
        Some().send_message(b"")


def test_a_message_too_long_for_the_prefix() -> None:
    class Some(LengthPrefixedProtocol):
        prefix_bytes = 1

    with pytest.raises(ValueError, match="256 bytes is too long for a prefix of 1 bytes"):
        Some().send_message(bytes(256))


@pytest.mark.parametrize("cls", BOTH)
def test_the_limit(loop: EventLoop, cls: type[Framing], caplog: pytest.LogCaptureFixture) -> None:
    protocol = cls()
    caplog.set_level(logging.INFO)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, [b"x" * 20, b"y" * 21])[:-5])
        assert protocol.got == [b"x" * 20, ("lost", type(None))]
        assert peer.service.closed == {"too_long": 1}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == ("test: unix peer: a message of 21 bytes, longer than max_length (20), closing")


@pytest.mark.parametrize(
    ("cls", "head"),
    [(Prefixed, b"\xff\xff\xff\xff\xff\xff\xff\xff"), (Netstrings, b"99999999999999999999:")],
)
def test_an_absurd_announcement_allocates_nothing(
    loop: EventLoop, cls: type[Framing], head: bytes
) -> None:
    class Patient(cls):  # type: ignore[misc, valid-type]
        prefix_bytes = 8

        def message_length_exceeded(self, length: int) -> None:
            self.got.append(length)

    protocol = Patient()
    with connected(loop, protocol) as peer:
        peer.send(head)
        assert protocol.got == [99999999999999999999 if cls is Netstrings else 2**64 - 1]
        for _ in range(3):
            peer.send(bytes(1000))
            assert protocol._rest == b""


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("pieces", [1, 4, 1000])
def test_the_connection_may_stay_open(loop: EventLoop, cls: type[Framing], pieces: int) -> None:
    class Patient(cls):  # type: ignore[misc, valid-type]
        def message_length_exceeded(self, length: int) -> None:
            self.got.append(length)
            answer(self, b"500")

    protocol = Patient()
    text = framed(cls, [b"a", b"x" * 50, b"b", b"y" * 21, b"z" * 300, b"c"])
    size = -(-len(text) // pieces)
    with connected(loop, protocol) as peer:
        for start in range(0, len(text), size):
            peer.send(text[start : start + size])
        assert protocol.got == [b"a", 50, b"b", 21, 300, b"c"]
        assert peer.received() == framed(cls, [b"500"] * 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"x", "no netstring: b'x'"),
        (b"05:hello,", "no netstring: b'05:hello,'"),
        (b"-1:", "no netstring: b'-1:'"),
        (b" 1:", "no netstring: b' 1:'"),
        (b"1x:", "no netstring: b'1x:'"),
        (b":", "no netstring: b':'"),
        (b"1" * 21, "no netstring: b'11111111111111111111'"),
        (b"1:xy", "a message is followed by b'y'"),
    ],
)
def test_what_is_no_netstring_ends_the_connection(
    loop: EventLoop, text: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    protocol = Netstrings()
    protocol.on = {b"ok": lambda self: self.send_message(b"OK")}
    caplog.set_level(logging.INFO)
    with connected(loop, protocol) as peer:
        peer.send(b"2:ok," + text)
        assert protocol.got == [b"ok", ("lost", type(None))]
        assert peer.received() == b"2:OK,"
        assert peer.service.closed == {"protocol_error": 1}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"test: unix peer: {reason}, closing"


@pytest.mark.parametrize("cls", BOTH)
def test_a_long_message_is_not_copied_for_each_piece(loop: EventLoop, cls: type[Framing]) -> None:
    """Its pieces are added to one buffer."""

    class Long(cls):  # type: ignore[misc, valid-type]
        prefix_bytes = 4
        max_length = 1 << 20

    protocol = Long()
    text = framed(Long, [b"x" * 500_000])
    with connected(loop, protocol) as peer:
        peer.send(text[:100])
        peer.send(text[100:200])
        buffer = protocol._rest
        assert isinstance(buffer, bytearray)
        for start in range(200, len(text), 50_000):
            assert protocol._rest is buffer
            peer.send(text[start : start + 50_000])
        assert protocol.got == [b"x" * 500_000]
        assert protocol._rest == b""


def test_struct_has_the_same_opinion() -> None:
    class Some(LengthPrefixedProtocol):
        prefix_bytes = 2
        byteorder = "little"

    assert b"".join(Some()._frame(b"abc")) == struct.pack("<H", 3) + b"abc"

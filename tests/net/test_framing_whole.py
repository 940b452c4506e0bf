"""`lines_received` and `messages_received`: all that a receive has made whole, in one call."""

from __future__ import annotations

from typing import Any

import pytest
from framed import Noting, connected, framed
from hypothesis import given
from hypothesis import strategies as st

from epolld.net.batches import batching
from epolld.net.framing import CUT_AHEAD, Framing
from epolld.net.lines import LineProtocol
from epolld.net.loop import EventLoop
from epolld.net.prefixed import LengthPrefixedProtocol, NetstringProtocol
from epolld.net.transport import Transport


class WholeLines(Noting, LineProtocol):
    delimiter = b"\n"
    max_length = 2000

    def lines_received(self, lines: list[bytes]) -> None:
        self.note("lines", lines)
        self.send_lines(line.upper() for line in lines)

    def raw_data_received(self, data: bytes) -> None:
        self.note("raw", data)

    def line_length_exceeded(self, line: bytes) -> None:
        self.note("long", len(line))

    def note(self, kind: str, what: Any) -> None:
        self.got.append((kind, what))
        for each in what if kind == "lines" else ():
            if each in self.on:
                self.on[each](self)


class WholePrefixed(Noting, LengthPrefixedProtocol):
    prefix_bytes = 1
    max_length = 200

    def messages_received(self, messages: list[bytes]) -> None:
        self.got.append(messages)
        self.send_messages(message.upper() for message in messages)


class WholeNetstrings(Noting, NetstringProtocol):
    max_length = 200

    messages_received = WholePrefixed.messages_received  # type: ignore[assignment]


def test_a_receive_is_one_call_and_one_answer(
    loop: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = WholeLines()
    writes: list[bytes] = []
    plain = batching(Transport).write_through  # type: ignore[attr-defined]
    with connected(loop, protocol) as peer:
        monkeypatch.setattr(
            type(protocol.transport),
            "write_through",
            lambda self, data: (writes.append(data), plain(self, data)),
        )
        peer.send(b"one\ntwo\nthr")
        peer.send(b"ee\n\n")
        peer.send(b"f")
        assert protocol.got == [("lines", [b"one", b"two"]), ("lines", [b"three", b""])]
        assert writes == [b"ONE\nTWO\n", b"THREE\n\n"]
        assert peer.received() == b"ONE\nTWO\nTHREE\n\n"


def test_a_call_gets_no_more_than_so_many(loop: EventLoop) -> None:
    protocol = WholeLines()
    lines = [b"%d" % number for number in range(2 * CUT_AHEAD + 10)]
    with connected(loop, protocol) as peer:
        peer.send(b"first\n")  # from here on receives are large
        peer.send(framed(WholeLines, [b"x" * 500]))
        protocol.got.clear()
        peer.send(framed(WholeLines, lines))
        sizes = [len(got) for _, got in protocol.got]
        assert sum(sizes) == len(lines)
        assert max(sizes) == CUT_AHEAD
        assert [line for _, got in protocol.got for line in got] == lines


def test_pausing_holds_back_the_next_call(loop: EventLoop) -> None:
    protocol = WholeLines()
    protocol.on[b"0"] = lambda self: self.transport.pause_reading()
    with connected(loop, protocol) as peer:
        peer.send(framed(WholeLines, [b"x" * 500]))
        protocol.got.clear()
        peer.send(framed(WholeLines, [b"%d" % number for number in range(CUT_AHEAD + 1)]))
        assert [len(got) for _, got in protocol.got] == [CUT_AHEAD]
        protocol.transport.resume_reading()
        peer.send(b"")
        assert [len(got) for _, got in protocol.got] == [CUT_AHEAD, 1]


def test_raw_mode_begins_behind_the_last_line(loop: EventLoop) -> None:
    protocol = WholeLines()
    protocol.on[b"DATA"] = WholeLines.set_raw_mode
    with connected(loop, protocol) as peer:
        peer.send(b"DATA\nb\nc")
        peer.send(b"d\n")
        assert protocol.got[0] == ("lines", [b"DATA", b"b"])
        assert b"".join(data for _, data in protocol.got[1:]) == b"cd\n"


def test_what_is_too_long_keeps_its_place(loop: EventLoop) -> None:
    protocol = WholeLines()
    protocol.max_length = 10
    with connected(loop, protocol) as peer:
        peer.send(b"a\n" + b"x" * 50 + b"\nb\n")
        assert protocol.got == [("lines", [b"a"]), ("long", 50), ("lines", [b"b"])]


def test_lines_may_be_sent_by_many_from_anywhere(loop: EventLoop) -> None:
    class Mixed(LineProtocol):
        delimiter = b"\n"

        def line_received(self, line: bytes) -> None:
            self.send_line(line)
            self.send_lines([b"x", bytearray(b"y")])
            self.send_lines([])
            self.send_line(b"z")

    protocol = Mixed()
    with connected(loop, protocol) as peer:
        protocol.send_lines([b"hello", b"there"])
        peer.send(b"a\nb\n")
        assert peer.received() == b"hello\nthere\na\nx\ny\nz\nb\nx\ny\nz\n"


def test_a_message_for_which_there_is_no_frame(loop: EventLoop) -> None:
    protocol = WholePrefixed()
    with connected(loop, protocol) as peer:
        with pytest.raises(ValueError, match="too long for a prefix of 1 bytes"):
            protocol.send_messages([b"good", b"x" * 256])
        assert peer.received() is None  # all or nothing


@pytest.mark.parametrize("cls", [WholeLines, WholePrefixed, WholeNetstrings])
@given(data=st.data())
def test_whatever_way_it_is_cut(cls: type[Framing], data: st.DataObject) -> None:
    class Memory(batching(Transport)):  # type: ignore[misc]
        written = b""

        def __init__(self) -> None:
            self.batch = None

        def write(self, data: bytes) -> None:
            Memory.written += data

        def is_closing(self) -> bool:
            return False

        def is_reading(self) -> bool:
            return True

    messages = data.draw(st.lists(st.binary(max_size=50).map(lambda b: b.replace(b"\n", b"."))))
    stream = framed(cls, messages)
    protocol: Any = cls()
    protocol.transport = Memory()
    start = 0
    while start < len(stream):
        size = data.draw(st.integers(1, 60))
        protocol.data_received(stream[start : start + size])
        start += size
    got = [each[1] if isinstance(each, tuple) else each for each in protocol.got]
    assert all(got)  # never an empty list
    assert [message for batch in got for message in batch] == messages
    assert Memory.written == framed(cls, [message.upper() for message in messages])

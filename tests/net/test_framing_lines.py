"""LineProtocol: what is a line, raw mode, and lines that are too long."""

from __future__ import annotations

import logging

import pytest
from framed import CrLf, Lines, connected
from wiring import serve_in_python

from epolld.net.framing import NO_ANSWERS
from epolld.net.loop import EventLoop


def test_lines_come_without_their_end(loop: EventLoop) -> None:
    protocol = Lines()
    with connected(loop, protocol) as peer:
        peer.send(b"one\ntwo\n\nth")
        assert protocol.got == [b"one", b"two", b""]
        peer.send(b"ree\n")
        assert protocol.got[3:] == [b"three"]


def test_a_delimiter_may_come_in_two_pieces(loop: EventLoop) -> None:
    protocol = CrLf()
    with connected(loop, protocol) as peer:
        peer.send(b"a\nb\r")
        peer.send(b"\nc\r\n")
        assert protocol.got == [b"a\nb", b"c"]


def test_answers_of_a_receive_leave_in_one_send(loop: EventLoop, monkeypatch) -> None:
    protocol = Lines()
    protocol.note = lambda kind, line: protocol.send_line(line.upper())
    written = os_write_of(monkeypatch)
    with connected(loop, protocol) as peer:
        peer.send(b"one\ntwo\nthree\n")
        writes = list(written)
        assert peer.received() == b"ONE\nTWO\nTHREE\n"
        protocol.note = lambda kind, what: None
    assert writes == [b"ONE\nTWO\nTHREE\n"]


def os_write_of(monkeypatch) -> list[bytes]:
    """Notes what the transports write to descriptors, from the next service on."""
    from epolld.net import transport

    serve_in_python(monkeypatch)
    written: list[bytes] = []
    real = transport.os_write

    def write(fd: int, data: bytes) -> int:
        written.append(bytes(data))
        return real(fd, data)

    monkeypatch.setattr(transport, "os_write", write)
    return written


# -- raw mode ----------------------------------------------------------------------------------


def test_raw_data_begins_behind_the_line(loop: EventLoop) -> None:
    protocol = Lines()
    protocol.on[b"DATA"] = Lines.set_raw_mode
    with connected(loop, protocol) as peer:
        peer.send(b"a\nDATA\nx\ny\nz")
        assert protocol.got == [b"a", b"DATA", ("raw", b"x\ny\nz")]
        peer.send(b"\nmore")
        assert protocol.got[3:] == [("raw", b"\nmore")]


def test_back_to_lines_with_what_was_too_much(loop: EventLoop) -> None:
    protocol = Lines()
    protocol.on[b"DATA"] = Lines.set_raw_mode
    protocol.on[b"x.b\nDATA\ny.c\nd"] = lambda self: self.set_line_mode(b"b\nDATA\ny.c\nd")
    protocol.on[b"y.c\nd"] = lambda self: self.set_line_mode(b"c\nd")
    with connected(loop, protocol) as peer:
        peer.send(b"DATA\nx.b\nDATA\ny.c\nd")
        peer.send(b"e\n")
        lines = [each for each in protocol.got if isinstance(each, bytes)]
        assert lines == [b"DATA", b"b", b"DATA", b"c", b"de"]


def test_the_mode_changes_between_callbacks(loop: EventLoop) -> None:
    protocol = Lines()
    with connected(loop, protocol) as peer:
        peer.send(b"half")
        protocol.set_raw_mode()
        assert protocol.got == []
        peer.send(b" raw")
        assert b"".join(data for _, data in protocol.got) == b"half raw"
        protocol.got.clear()
        protocol.set_line_mode(b"a\nb")
        assert protocol.got == []  # not within the call
        peer.send(b"c\n")
        assert protocol.got == [b"a", b"bc"]


def test_raw_and_back_in_one_callback(loop: EventLoop) -> None:
    def twice(self: Lines) -> None:
        self.set_raw_mode()
        self.set_line_mode(b"extra\n")

    protocol = Lines()
    protocol.on[b"a"] = twice
    with connected(loop, protocol) as peer:
        peer.send(b"a\nb\nc\n")
        assert protocol.got == [b"a", b"extra", b"b", b"c"]


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Lines, CrLf])
@pytest.mark.parametrize("pieces", [1, 5, 100])
def test_the_longest_line(loop: EventLoop, cls: type[Lines], pieces: int) -> None:
    protocol = cls()
    text = b"x" * 20 + cls.delimiter + b"y" * 20 + cls.delimiter
    size = -(-len(text) // pieces)
    with connected(loop, protocol) as peer:
        for start in range(0, len(text), size):
            peer.send(text[start : start + size])
        assert protocol.got == [b"x" * 20, b"y" * 20]


@pytest.mark.parametrize("text", [b"a\n" + b"x" * 21 + b"\nb\n", b"a\n" + b"x" * 21])
def test_a_line_that_is_too_long_ends_the_connection(
    loop: EventLoop, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    protocol = Lines()
    protocol.on[b"a"] = lambda self: self.send_line(b"A")
    caplog.set_level(logging.INFO)
    with connected(loop, protocol) as peer:
        peer.send(text)
        assert peer.received() == b"A\n"
        assert protocol.got == [b"a", ("lost", type(None))]
        assert peer.service.closed == {"too_long": 1}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "test: unix peer: a line longer than max_length (20 bytes), closing"


@pytest.mark.parametrize("cls", [Lines, CrLf])
@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_the_connection_may_stay_open(loop: EventLoop, cls: type[Lines], pieces: int) -> None:
    """Then the rest of the line is dropped, however it comes."""

    class Patient(cls):  # type: ignore[misc, valid-type]
        def line_length_exceeded(self, line: bytes) -> None:
            self.got.append("too long")
            self.send_line(b"500")

    protocol = Patient()
    end = cls.delimiter
    text = end.join([b"a", b"x" * 50, b"b", b"y" * 21, b"z" * 200, b"c", b""])
    size = -(-len(text) // pieces)
    with connected(loop, protocol) as peer:
        for start in range(0, len(text), size):
            peer.send(text[start : start + size])
        assert protocol.got == [b"a", "too long", b"b", "too long", "too long", b"c"]
        assert peer.received() == (b"500" + end) * 3


def test_no_more_than_one_line_is_kept(loop: EventLoop) -> None:
    class Patient(Lines):
        def line_length_exceeded(self, line: bytes) -> None:
            self.longest = max(getattr(self, "longest", 0), len(line))

    protocol = Patient()
    with connected(loop, protocol) as peer:
        for _ in range(50):
            peer.send(b"x" * 1000)
            assert len(protocol._rest) <= 21
        assert protocol.longest <= 1021


def test_nothing_is_kept_between_lines(loop: EventLoop) -> None:
    protocol = Lines()
    with connected(loop, protocol) as peer:
        peer.send(b"a\nb")
        peer.send(b"c\n")
        assert protocol.got == [b"a", b"bc"]
        assert protocol._rest == b""
        assert protocol._held is None
        assert protocol._turn is None
        assert protocol._answers is NO_ANSWERS
        assert not NO_ANSWERS
        assert protocol.transport.batch is None


def test_what_is_sent_must_be_bytes(loop: EventLoop, caplog: pytest.LogCaptureFixture) -> None:
    protocol = Lines()
    protocol.on[b"a"] = lambda self: self.send_line(b"first")
    protocol.on[b"b"] = lambda self: self.send_line("text")
    with connected(loop, protocol) as peer:
        peer.send(b"a\nb\nc\n")
        assert peer.received() == b"first\n"  # what was answered before
        assert protocol.got == [b"a", b"b", b"c", ("lost", TypeError)]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "raised TypeError" in line
    assert str(caplog.records[0].exc_info[1]) == "what is sent must be bytes, not str"


def test_other_objects_of_bytes_are_sent_too(loop: EventLoop) -> None:
    def send(self: Lines) -> None:
        self.send_line(bytearray(b"one"))
        self.send_line(memoryview(b"two"))

    protocol = Lines()
    protocol.on[b"a"] = send
    with connected(loop, protocol) as peer:
        peer.send(b"a\n")
        send(protocol)  # and outside a batch
        assert peer.received() == b"one\ntwo\none\ntwo\n"
        with pytest.raises(TypeError):
            protocol.send_line("text")

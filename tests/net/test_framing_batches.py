"""Amid a batch of messages: order, closing, pausing, exceptions; the same for all framings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from framed import ALL, answer, connected, framed
from wiring import receive, run_until, settle

from epolld.net.framing import CUT_AHEAD, SEND_FROM, Framing
from epolld.net.loop import EventLoop

pytestmark = pytest.mark.parametrize("cls", ALL)


def answering(cls: type[Framing], **on: Callable[[Any], object]) -> Any:
    """Answers each message with itself in upper case, then does what `on` says for it."""

    class Answering(cls):  # type: ignore[misc, valid-type]
        def note(self, kind: str, what: Any) -> None:
            if kind == "message":
                answer(self, what.upper())
            super().note(kind, what)

    protocol = Answering()
    protocol.on = {name.encode(): do for name, do in on.items()}
    return protocol


ABC = [b"a", b"b", b"c"]


def test_what_is_written_directly_keeps_its_place(loop: EventLoop, cls: type[Framing]) -> None:
    other: list[Any] = []  # holds the transport itself, as a chat room would
    protocol = answering(
        cls,
        a=lambda self: self.transport.write(b"1"),
        b=lambda self: other[0].writelines([b"2", b"3"]),
    )
    with connected(loop, protocol) as peer:
        other.append(protocol.transport)
        peer.send(framed(cls, ABC))
        wanted = [framed(cls, [letter]) for letter in (b"A", b"B", b"C")]
        assert peer.received() == wanted[0] + b"1" + wanted[1] + b"23" + wanted[2]


def test_write_eof_comes_after_the_answers(loop: EventLoop, cls: type[Framing]) -> None:
    protocol = answering(cls, a=lambda self: self.transport.write_eof())
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, [b"a"]))
        assert peer.received() == framed(cls, [b"A"])
        assert peer.received() == b""


@pytest.mark.parametrize("end", ["close", "abort"])
def test_nothing_comes_after_the_end(loop: EventLoop, cls: type[Framing], end: str) -> None:
    protocol = answering(cls, b=lambda self: getattr(self.transport, end)())
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, ABC) + framed(cls, [b"d"])[:-1])
        assert protocol.got == [b"a", b"b", ("lost", type(None))]
        assert peer.received() == framed(cls, [b"A", b"B"])
        assert peer.service.closed == {"closed" if end == "close" else "aborted": 1}


def test_an_answer_after_the_end_is_dropped(loop: EventLoop, cls: type[Framing]) -> None:
    def close(self: Any) -> None:
        self.transport.close()
        answer(self, b"late")

    protocol = answering(cls, b=close)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, ABC))
        assert peer.received() == framed(cls, [b"A", b"B"])


def test_an_exception_loses_no_answer(loop: EventLoop, cls: type[Framing]) -> None:
    protocol = answering(cls, b=lambda self: 1 / 0)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, ABC))
        assert protocol.got == [b"a", b"b", ("lost", ZeroDivisionError)]
        assert peer.received() == framed(cls, [b"A", b"B"])
        assert peer.service.closed == {"callback_error": 1}


def test_the_peer_is_gone_amid_the_batch(loop: EventLoop, cls: type[Framing]) -> None:
    """The first write that fails ends the batch."""
    protocol = answering(cls, b=lambda self: self.transport.write(b"x"))
    with connected(loop, protocol) as peer:
        peer.sock.sendall(framed(cls, ABC))
        peer.sock.close()
        settle(loop)
        assert protocol.got[:2] == [b"a", b"b"]
        assert b"c" not in protocol.got
        assert protocol.got[-1][0] == "lost"


# -- pausing -----------------------------------------------------------------------------------


def pause(self: Any) -> None:
    self.transport.pause_reading()


def test_the_rest_of_the_batch_waits(loop: EventLoop, cls: type[Framing]) -> None:
    protocol = answering(cls, a=pause, b=pause)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, ABC) + framed(cls, [b"d"])[:-1])
        assert protocol.got == [b"a"]
        assert peer.received() == framed(cls, [b"A"])
        peer.send(framed(cls, [b"d"])[-1:])
        protocol.transport.resume_reading()
        assert protocol.got == [b"a"]  # not within the call
        settle(loop)
        assert protocol.got == [b"a", b"b"]
        protocol.transport.resume_reading()
        settle(loop)
        assert protocol.got == [b"a", b"b", b"c", b"d"]
        assert protocol.transport.batch is None


def test_paused_and_resumed_at_once(loop: EventLoop, cls: type[Framing]) -> None:
    def both(self: Any) -> None:
        self.transport.pause_reading()
        self.transport.resume_reading()

    protocol = answering(cls, a=both, c=both)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, ABC))
        assert protocol.got == ABC
        assert peer.received() == framed(cls, [b"A", b"B", b"C"])


def test_resumed_by_a_timer_for_each_message(loop: EventLoop, cls: type[Framing]) -> None:
    """As one does who asks a database for each; thousands are not moved again each time."""

    class Asking(cls):  # type: ignore[misc, valid-type]
        def note(self, kind: str, what: Any) -> None:
            super().note(kind, what)
            if kind == "message":
                self.transport.pause_reading()
                self.transport.call_later(0, self.transport.resume_reading)
                assert len(self._held or []) <= CUT_AHEAD

    protocol = Asking()
    messages = [b"%d" % number for number in range(2 * CUT_AHEAD + 10)]
    with connected(loop, protocol) as peer:
        peer.sock.sendall(framed(cls, messages))
        run_until(loop, lambda: len(protocol.got) == len(messages))
        assert protocol.got == messages


def test_what_comes_before_it_goes_on_may_pause_again(loop: EventLoop, cls: type[Framing]) -> None:
    protocol = answering(cls, a=pause, b=pause)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, [b"a"]))
        protocol.transport.resume_reading()
        peer.sock.sendall(framed(cls, [b"b", b"c"]))
        protocol.transport.on_ready(1)
        settle(loop)
        assert protocol.got == [b"a", b"b"]
        protocol.transport.resume_reading()
        settle(loop)
        assert protocol.got == ABC


def test_with_nothing_held_back_there_is_no_batch(loop: EventLoop, cls: type[Framing]) -> None:
    protocol = answering(cls, a=pause)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, [b"a"]) + framed(cls, [b"b"])[:-1])
        assert protocol.transport.batch is protocol
        protocol.transport.resume_reading()
        settle(loop)
        assert protocol.transport.batch is None
        peer.send(framed(cls, [b"b"])[-1:])
        assert protocol.got == [b"a", b"b"]


def test_paused_again_before_it_went_on(loop: EventLoop, cls: type[Framing]) -> None:
    protocol = answering(cls, a=pause)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, ABC))
        protocol.transport.resume_reading()
        protocol.transport.pause_reading()
        settle(loop)
        assert protocol.got == [b"a"]
        protocol.transport.resume_reading()
        settle(loop)
        assert protocol.got == ABC


def test_what_is_held_comes_before_the_end(loop: EventLoop, cls: type[Framing]) -> None:
    protocol = answering(cls, a=pause, b=pause)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, ABC))
        peer.sock.shutdown(1)
        settle(loop)
        for count in (2, 3):
            assert len(protocol.got) == count - 1
            # As in the loop: the end may be reported before it could go on by itself.
            protocol.transport.resume_reading()
            protocol.transport.on_ready(1)
            assert len(protocol.got) == count
        run_until(loop, lambda: ("lost", type(None)) in protocol.got)
        assert protocol.got == [*ABC, ("lost", type(None))]
        assert peer.received() == framed(cls, [b"A", b"B", b"C"])
        assert peer.service.closed == {"eof": 1}


def test_closed_while_messages_wait(loop: EventLoop, cls: type[Framing]) -> None:
    protocol = answering(cls, a=pause)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, ABC))
        protocol.transport.resume_reading()
        protocol.transport.close()
        settle(loop)
        assert protocol.got == [b"a", ("lost", type(None))]


# -- how much is collected -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [4000, 10_000])
def test_a_client_that_takes_no_answers_is_not_read(
    loop: EventLoop, cls: type[Framing], size: int
) -> None:
    """However small its requests are, and however much came in one receive."""

    class Big(cls):  # type: ignore[misc, valid-type]
        max_length = 2**20
        most = 0

        def note(self, kind: str, what: Any) -> None:
            super().note(kind, what)
            if kind == "message":
                answer(self, bytes(size))
                self.most = max(self.most, sum(map(len, self._answers)))

    protocol = Big()
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, [b"x"] * 2000))
        assert 1 < len(protocol.got) < 2 * CUT_AHEAD
        assert not protocol.transport.is_reading()
        assert protocol.transport.get_write_buffer_size() < CUT_AHEAD * SEND_FROM
        assert protocol.most <= CUT_AHEAD * SEND_FROM
        got = bytearray()
        wanted = framed(Big, [bytes(size)] * 2000)

        def taken() -> bool:
            got.extend(receive(peer.sock) or b"")
            return len(got) == len(wanted)

        run_until(loop, taken)
        assert got == wanted


def produce(protocol: Any, paused: Callable[[], bool]) -> None:
    """Send until it is enough."""
    for _ in range(1_000_000):
        if paused():
            return
        answer(protocol, b"more and more")
    raise AssertionError("nobody said that it is enough")


def test_who_produces_until_told_to_pause_is_told(loop: EventLoop, cls: type[Framing]) -> None:
    class Producing(cls):  # type: ignore[misc, valid-type]
        paused = False

        def note(self, kind: str, what: Any) -> None:
            if kind == "message":
                produce(self, lambda: self.paused)

        def pause_writing(self) -> None:
            self.paused = True

        def resume_writing(self) -> None:
            pass

    protocol = Producing()
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, [b"go"]))
        assert protocol.paused
        assert peer.service.closed == {}
        protocol.transport.abort()


@pytest.mark.parametrize(
    "enough",
    [
        lambda transport: not transport.is_reading(),
        lambda transport: transport.get_write_buffer_size() > 1000,
    ],
    ids=["is_reading", "get_write_buffer_size"],
)
def test_who_produces_and_asks_is_told(
    loop: EventLoop, cls: type[Framing], enough: Callable[[Any], bool]
) -> None:
    def go(self: Any) -> None:
        produce(self, lambda: enough(self.transport))

    protocol = answering(cls, go=go)
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, [b"go"]))
        assert peer.service.closed == {}
        assert protocol.transport.get_write_buffer_size() > 1000
        protocol.transport.abort()


# -- transports of somebody else -------------------------------------------------------------------


class Foreign:
    """A transport that knows nothing of batches."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


def test_on_a_foreign_transport_each_answer_is_sent_at_once(
    loop: EventLoop, cls: type[Framing]
) -> None:
    protocol = answering(cls, b=lambda self: self.transport.close())
    transport = Foreign()
    protocol.connection_made(transport)
    protocol.data_received(framed(cls, ABC))
    assert protocol.got == [b"a", b"b"]
    assert b"".join(transport.written) == framed(cls, [b"A", b"B"])


def test_it_calls_itself(loop: EventLoop, cls: type[Framing]) -> None:
    """data_received within a callback is for after the batch."""
    protocol = answering(cls, a=lambda self: self.data_received(framed(cls, [b"d"])))
    with connected(loop, protocol) as peer:
        peer.send(framed(cls, ABC))
        assert protocol.got == [*ABC, b"d"]
        assert peer.received() == framed(cls, [b"A", b"B", b"C", b"D"])

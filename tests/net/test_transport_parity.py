"""The transport against asyncio's own: the same script on both must leave the same trace.

So must the testing kit's, which is the same code over a kernel's part that is made up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stage import Scripts, SocketStage, Stage, perform
from wiring import Collected, Notes, narrow, reset, serve, tcp_pair, unix_pair

from epolld.testing import Peer, connect

BIG = bytes(range(256)) * 4096  # 1 MiB: more than the narrowed buffers and any water mark


class MemorySocket:
    """The peer of the testing kit with the methods of a socket."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def send(self, data: bytes) -> None:
        self._peer._wire.inbound += data  # without a turn, as a socket

    def recv(self, limit: int) -> bytes:
        if data := self._peer.take(limit):
            return data
        if self._peer.ended == "RESET":
            raise ConnectionResetError
        if not self._peer.ended:
            raise BlockingIOError
        return b""

    def shutdown(self, _how: int) -> None:
        self._peer.half_close()

    def close(self) -> None:
        self._peer.close()

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def getsockname(self) -> Any:
        return "192.0.2.1", 50000  # the kit's defaults

    def getpeername(self) -> Any:
        return "192.0.2.2", 1688


class MemoryStage(Stage):
    """One with the testing kit for an engine."""

    def __init__(self, notes: Notes) -> None:
        self.kit = connect(lambda: notes, window=65536)
        self.peer = MemorySocket(self.kit)
        super().__init__(notes, Collected(self.peer))  # type: ignore[arg-type]

    def turn(self) -> None:
        self.kit.advance(0)

    def reset(self) -> None:
        self.kit.reset()

    def close(self) -> None:
        self.transport.abort()
        self.turn()


class PlainStage(SocketStage):
    """One over a socket as it is."""

    def __init__(self, engine: str, notes: Notes, pair: Callable[..., Any]) -> None:
        ours, self.peer = pair()
        narrow(ours, self.peer)
        super().__init__(engine, notes, Collected(self.peer), self.peer)
        if self.on_asyncio:
            self.loop.run_until_complete(self.loop.connect_accepted_socket(lambda: notes, ours))
        else:
            serve(self.loop, ours, notes)

    def reset(self) -> None:
        """The peer breaks off."""
        reset(self.peer)


def trace_of(engine: str, script: Callable[[Stage], None], pair: Any, on: Any) -> list[Any]:
    """Run `script` on one engine."""
    notes = Notes(**on)
    return perform(
        MemoryStage(notes) if engine == "memory" else PlainStage(engine, notes, pair), script
    )


SCRIPTS = Scripts()
script = SCRIPTS.script


@script(data_received=lambda p, data: p.transport.write(data.upper()))
def echo_then_eof(s: Stage) -> None:
    s.peer.send(b"hello")
    s.until(lambda: s.notes.data)
    s.peer.shutdown(socket.SHUT_WR)
    s.read_to_end()
    s.lost()


@script()
def close_twice(s: Stage) -> None:
    s.say(s.transport.is_closing())
    s.transport.close()
    s.say(s.transport.is_closing(), s.notes.lost)  # not called from within close()
    s.transport.close()
    s.settle()
    s.transport.close()
    s.read_to_end()


@script()
def abort_after_close_and_close_after_abort(s: Stage) -> None:
    s.transport.close()
    s.transport.abort()
    s.transport.close()
    s.settle()
    s.transport.abort()
    s.settle()


@script()
def close_sends_what_is_buffered(s: Stage) -> None:
    s.transport.write(BIG)
    s.say(s.transport.get_write_buffer_size() > 0)
    s.transport.close()
    s.transport.write(b"tail")  # asyncio still appends while the buffer drains
    s.settle()
    s.say(s.notes.lost)
    s.read_to_end()
    s.lost()


@script(resume_writing=lambda p: p.transport.write(b"tail"))
def write_inside_resume_writing_while_closing(s: Stage) -> None:
    s.transport.write(BIG)
    s.transport.close()
    s.read_to_end()
    s.lost()


@script()
def abort_drops_what_is_buffered(s: Stage) -> None:
    s.transport.write(BIG)
    s.transport.abort()
    s.say(s.transport.get_write_buffer_size(), s.transport.is_closing(), s.notes.lost)
    s.lost()
    s.transport.write(b"more")


@script()
def abort_while_closing(s: Stage) -> None:
    s.transport.write(BIG)
    s.transport.close()
    s.transport.abort()
    s.lost()


@script()
def write_after_close_is_dropped(s: Stage) -> None:
    s.transport.close()
    s.transport.write(b"lost")
    s.transport.writelines([b"lost"])
    s.read_to_end()
    s.lost()
    s.transport.write(b"lost")


@script()
def write_eof_then_write(s: Stage) -> None:
    s.say(s.transport.can_write_eof())
    s.transport.write(b"last words")
    s.transport.write_eof()
    s.transport.write_eof()
    s.refused(lambda: s.transport.write(b"x"))
    s.refused(lambda: s.transport.write(b""))
    s.refused(lambda: s.transport.writelines([b"x"]))
    s.read_to_end()
    s.peer.send(b"still heard")
    s.until(lambda: s.notes.data)
    s.peer.close()
    s.lost()
    s.refused(lambda: s.transport.write(b"x"))


@script()
def write_eof_waits_for_the_buffer(s: Stage) -> None:
    s.transport.write(BIG)
    s.transport.write_eof()
    s.refused(lambda: s.transport.write(b"x"))
    s.read_to_end()
    s.say(s.transport.is_closing(), s.notes.lost)


@script()
def write_eof_after_close_changes_nothing(s: Stage) -> None:
    s.transport.close()
    s.transport.write_eof()
    s.refused(lambda: s.transport.write(b"x"))
    s.lost()


@script()
def close_after_write_eof_with_a_buffer(s: Stage) -> None:
    s.transport.write(BIG)
    s.transport.write_eof()
    s.transport.close()
    s.read_to_end()
    s.lost()


@script(eof_received=lambda p: True)
def eof_kept_open_for_writing(s: Stage) -> None:
    s.peer.send(b"question")
    s.peer.shutdown(socket.SHUT_WR)
    s.until(lambda: "eof_received" in s.notes.names)
    s.settle()
    s.say(s.transport.is_closing())
    s.transport.write(b"answer")
    s.transport.write_eof()
    s.read_to_end()
    s.say(s.notes.lost)
    s.transport.close()
    s.lost()


@script(eof_received=lambda p: p.transport.write(b"bye") or False)
def eof_answered_and_closed(s: Stage) -> None:
    s.peer.shutdown(socket.SHUT_WR)
    s.read_to_end()
    s.lost()


@script(eof_received=lambda p: p.transport.write(BIG))
def eof_closes_after_the_buffer(s: Stage) -> None:
    s.peer.shutdown(socket.SHUT_WR)
    s.read_to_end()
    s.lost()


@script(eof_received=lambda p: p.transport.close() or True)
def close_inside_eof_received(s: Stage) -> None:
    s.peer.shutdown(socket.SHUT_WR)
    s.lost()


@script(eof_received=lambda p: True)
def resume_reading_after_eof(s: Stage) -> None:
    s.peer.shutdown(socket.SHUT_WR)
    s.until(lambda: "eof_received" in s.notes.names)
    s.transport.resume_reading()
    s.settle()


@script(data_received=lambda p, data: p.transport.pause_reading())
def pause_reading_inside_data_received(s: Stage) -> None:
    s.say(s.transport.is_reading())
    s.peer.send(b"one")
    s.until(lambda: s.notes.data)
    s.say(s.transport.is_reading())
    s.peer.send(b"two")
    s.peer.shutdown(socket.SHUT_WR)
    s.settle()
    s.say("paused")
    s.notes.on.clear()
    s.transport.resume_reading()
    s.transport.resume_reading()
    s.say(s.transport.is_reading())
    s.lost()
    s.say(s.transport.is_reading())


@script()
def pause_and_resume_after_close(s: Stage) -> None:
    s.peer.send(b"never read")
    s.transport.close()
    s.transport.pause_reading()
    s.transport.resume_reading()
    s.say(s.transport.is_reading())
    s.lost()
    s.transport.pause_reading()
    s.transport.resume_reading()
    s.settle()


@script()
def nothing_is_read_while_closing(s: Stage) -> None:
    s.transport.write(BIG)
    s.transport.close()
    s.transport.resume_reading()
    s.peer.send(b"never read")
    s.settle()
    s.transport.abort()
    s.lost()


@script()
def default_water_marks(s: Stage) -> None:
    s.say(s.transport.get_write_buffer_limits())
    step = 4000
    while not s.transport.get_write_buffer_size():
        s.transport.write(b"." * step)
    while "pause_writing" not in s.notes.names:
        before = s.transport.get_write_buffer_size()
        s.transport.write(b"." * step)
    s.say(before <= 65536 < s.transport.get_write_buffer_size())
    s.transport.write(b"." * step)
    lowest = s.transport.get_write_buffer_size()
    while "resume_writing" not in s.notes.names:
        lowest = s.transport.get_write_buffer_size()
        s.got.read(8192)
        s.turn()
    s.say(s.transport.get_write_buffer_size() <= 16384 < lowest)
    s.transport.abort()  # how much it was depends on what the kernel had room for
    s.lost()


@script()
def own_water_marks(s: Stage) -> None:
    for limits in [{"high": 1000}, {"low": 100}, {"high": 7, "low": 7}, {"high": 0}, {}]:
        s.transport.set_write_buffer_limits(**limits)
        s.say(s.transport.get_write_buffer_limits())
    for limits in [{"high": 1, "low": 2}, {"low": -1}, {"high": -1}]:
        s.refused(lambda limits=limits: s.transport.set_write_buffer_limits(**limits))
        s.say(s.transport.get_write_buffer_limits())


@script()
def a_lower_mark_pauses_at_once(s: Stage) -> None:
    s.transport.set_write_buffer_limits(high=len(BIG))
    s.transport.write(BIG)
    s.say("pause_writing" in s.notes.names)
    s.transport.set_write_buffer_limits(high=0)
    s.say("pause_writing" in s.notes.names)
    s.transport.set_write_buffer_limits(high=0)
    s.transport.close()
    s.read_to_end()
    s.lost()


@script(resume_writing=lambda p: p.transport.close())
def close_inside_resume_writing(s: Stage) -> None:
    s.transport.set_write_buffer_limits(high=0)
    s.transport.write(BIG)
    s.read_to_end()
    s.lost()


@script(pause_writing=lambda p: p.transport.abort())
def abort_inside_pause_writing(s: Stage) -> None:
    s.transport.set_write_buffer_limits(high=0)
    s.transport.write(BIG)
    s.transport.write(BIG)
    s.lost()


def _twice_more_then_eof(p: Notes) -> None:
    if p.names.count("resume_writing") < 3:
        p.transport.write(BIG)
    else:
        p.transport.write_eof()


@script(resume_writing=_twice_more_then_eof)
def write_inside_resume_writing(s: Stage) -> None:
    s.transport.set_write_buffer_limits(high=0)
    s.transport.write(BIG)
    s.read_to_end()


@script(connection_made=lambda p: p.transport.close())
def close_inside_connection_made(s: Stage) -> None:
    s.peer.setblocking(False)
    s.read_to_end()
    s.lost()


@script(connection_made=lambda p: p.transport.write(BIG) or p.transport.close())
def greet_inside_connection_made(s: Stage) -> None:
    s.read_to_end()
    s.lost()


@script(data_received=lambda p, data: p.transport.close())
def close_inside_data_received(s: Stage) -> None:
    s.peer.send(b"quit")
    s.read_to_end()
    s.lost()


def _everything(p: Notes, exc: Any) -> None:
    p.transport.write(b"x")
    p.transport.close()
    p.transport.abort()


@script(connection_lost=_everything)
def everything_inside_connection_lost(s: Stage) -> None:
    s.peer.close()
    s.lost()
    s.say(s.transport.is_closing(), s.transport.is_reading())


@script()
def set_protocol_takes_over(s: Stage) -> None:
    first, second = s.notes, Notes()
    s.peer.send(b"one")
    s.until(lambda: first.data)
    s.transport.set_protocol(second)
    s.say(s.transport.get_protocol() is second)
    s.peer.send(b"two")
    s.peer.shutdown(socket.SHUT_WR)
    s.until(lambda: second.lost)
    s.say(*second.trace)


@script()
def set_protocol_between_close_and_the_end(s: Stage) -> None:
    second = Notes()
    s.transport.close()
    s.transport.set_protocol(second)
    s.until(lambda: second.lost)
    s.say(*second.trace)


@script()
def what_can_be_written(s: Stage) -> None:
    for data in [b"a", bytearray(b"b"), memoryview(b"c"), b"", bytearray(), memoryview(b"")]:
        s.refused(lambda data=data: s.transport.write(data))
    for wrong in ["text", None, 5, ["x"], object()]:
        s.refused(lambda wrong=wrong: s.transport.write(wrong))
    s.refused(lambda: s.transport.writelines([b"d", bytearray(b"e"), memoryview(b"f")]))
    s.refused(lambda: s.transport.writelines([]))
    s.refused(lambda: s.transport.writelines(["text"]))
    s.refused(lambda: s.transport.writelines(b"g" for _ in range(3)))
    s.transport.close()
    s.read_to_end()
    s.say(bytes(s.got.data))


@script()
def a_buffer_may_change_after_write(s: Stage) -> None:
    data = bytearray(BIG)
    s.transport.write(data)
    data[:] = bytes(len(data))
    s.transport.close()
    s.read_to_end()


@script()
def facts(s: Stage) -> None:
    s.say(s.transport.get_extra_info("no such thing"), s.transport.get_extra_info("x", 5))
    peer = s.transport.get_extra_info("peername") == s.peer.getsockname()
    s.say(peer, s.transport.get_extra_info("sockname") == s.peer.getpeername())
    s.say(s.transport.get_extra_info("socket").getsockname() == s.peer.getpeername())


@script()
def the_peer_is_known_after_the_end(s: Stage) -> None:
    # asyncio keeps our own address, too; for us that would be 150 bytes a connection.
    peername = s.peer.getsockname()
    s.transport.abort()
    s.lost()
    s.settle()
    s.say(s.transport.get_extra_info("peername") == peername)


@script()
def peer_closes_with_our_bytes_unread(s: Stage) -> None:
    s.transport.write(b"unread")
    s.settle()
    s.peer.close()
    s.lost()


@script()
def writing_to_a_peer_that_is_gone(s: Stage) -> None:
    s.transport.pause_reading()
    s.peer.close()
    s.settle()
    for _ in range(100):
        s.transport.write(b"x" * 1000)
        s.turn()
    s.lost()
    s.transport.write(b"x")


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Both kinds of stream."""
    return request.param


@pytest.mark.parametrize(("steps", "on"), SCRIPTS)
def test_same_trace_as_asyncio(steps: Callable[[Stage], None], on: Any, pair: Any) -> None:
    expected = trace_of("asyncio", steps, pair, on)
    assert expected[0] == ("connection_made",)
    assert trace_of("epolld", steps, pair, on) == expected


# What these write depends on how much the kernel takes.
FILLING = {"default_water_marks", "a_lower_mark_pauses_at_once"}


@pytest.mark.parametrize(("steps", "on"), [each for each in SCRIPTS if each.id != "facts"])
def test_same_trace_in_memory(steps: Callable[[Stage], None], on: Any) -> None:
    ours, real = (trace_of(engine, steps, tcp_pair, on) for engine in ("memory", "epolld"))
    if steps.__name__ in FILLING:
        ours, real = ([x for x in trace if "peer got" not in x] for trace in (ours, real))
    assert ours == real


def test_reset_by_the_peer_while_reading() -> None:
    def steps(s: Stage) -> None:
        s.reset()
        s.lost()

    expected = trace_of("asyncio", steps, tcp_pair, {})
    assert trace_of("epolld", steps, tcp_pair, {}) == expected
    assert trace_of("memory", steps, tcp_pair, {}) == expected


def test_reset_by_the_peer_with_a_full_buffer() -> None:
    def steps(s: Stage) -> None:
        s.transport.write(BIG)
        s.settle()
        s.reset()
        s.lost()

    ours, theirs = (trace_of(engine, steps, tcp_pair, {}) for engine in ("epolld", "asyncio"))
    assert ours == theirs
    assert trace_of("memory", steps, tcp_pair, {}) == ours
    assert issubclass(ours[-1][1], ConnectionError)

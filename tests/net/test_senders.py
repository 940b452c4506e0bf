"""What is written while a wake-up with several events is served: sent in the end, or before what
must not overtake it; in all else as if it had been sent at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest
from wiring import (
    Collected,
    Notes,
    in_one_wake_up,
    narrow,
    receive,
    run_until,
    serve,
    serve_in_python,
    settle,
    tcp_pair,
    turn,
    unix_pair,
)

from epolld.net import transport as transport_module
from epolld.net.loop import PROMPT, EventLoop
from epolld.net.transport import HIGH_WATER, Transport


@pytest.fixture(name="calls")
def _calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which system calls transports make, in order: "read", "write SIZE"."""
    calls: list[str] = []

    def read(fd: int, size: int) -> bytes:
        calls.append("read")
        return os.read(fd, size)

    def write(fd: int, data: bytes) -> int:
        calls.append(f"write {len(data)}")
        return os.write(fd, data)

    serve_in_python(monkeypatch)
    monkeypatch.setattr(transport_module, "os_read", read)
    monkeypatch.setattr(transport_module, "os_write", write)
    return calls


MUCH = b"x" * (1 << 20)


def nothing() -> None:
    """An event that writes nothing, for company."""


class Pair:
    """A transport, its protocol, and the peer's socket."""

    def __init__(self, loop: EventLoop, **on: Callable[..., object]) -> None:
        ours, self.peer = unix_pair()
        self.notes = Notes(**on)
        self.transport = serve(loop, ours, self.notes)

    def received(self) -> bytes | None:
        return receive(self.peer)


def test_all_are_read_before_the_first_is_answered(loop: EventLoop, calls: list[str]) -> None:
    def answer(protocol: Notes, data: bytes) -> None:
        protocol.transport.write(b"got ")
        protocol.transport.write(data)

    pairs = [Pair(loop, data_received=answer) for _ in range(3)]
    for pair in pairs:
        pair.peer.send(b"it")
    turn(loop)
    assert calls == ["read"] * 3 + ["write 6"] * 3  # and what one wrote in pieces leaves in one
    assert [pair.received() for pair in pairs] == [b"got it"] * 3


def test_a_single_client_is_answered_at_once(loop: EventLoop, calls: list[str]) -> None:
    pair = Pair(loop, data_received=lambda p, data: (p.transport.write(b"a"), calls.append("on")))
    pair.peer.send(b"x")
    turn(loop)
    assert calls == ["read", "write 1", "on"]


def test_when_events_take_long_the_next_answers_do_not_wait(calls: list[str]) -> None:
    time = 100.0
    loop = EventLoop(lambda: time)
    durations = [2 * PROMPT, 2 * PROMPT, 0.0, 0.0]  # of wake-ups, in seconds
    found: list[list[str]] = []

    def answer(protocol: Notes, data: bytes) -> None:
        nonlocal time
        protocol.transport.write(b"a")
        time += durations[len(found)] / 2

    pairs = [Pair(loop, data_received=answer) for _ in range(2)]

    def ask() -> None:
        if calls:
            found.append(calls.copy())
            calls.clear()
        if len(found) == len(durations):
            loop.stop()
            return
        for pair in pairs:
            pair.peer.send(b"x")
        loop.call_soon(ask)

    loop.call_soon(ask)
    loop.run()
    together, singly = ["read", "read", "write 1", "write 1"], ["read", "write 1"] * 2
    assert found == [together, singly, singly, together]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_it_keeps_no_reference(loop: EventLoop, kind: type[bytearray | memoryview]) -> None:
    pair = Pair(loop)
    data = bytearray(b"kept")

    def write() -> None:
        pair.transport.write(data if kind is bytearray else memoryview(data))
        data[:] = b"gone"

    in_one_wake_up(loop, write, nothing)
    assert pair.received() == b"kept"


def test_much_does_not_wait_so_that_writing_can_be_paused(
    loop: EventLoop, calls: list[str]
) -> None:
    pair = Pair(loop)
    piece = b"x" * (HIGH_WATER // 2)

    def write() -> None:
        for _ in range(3):
            pair.transport.write(piece)
        calls.append("returned")

    in_one_wake_up(loop, write, nothing)
    assert calls[:2] == [f"write {3 * len(piece)}", "returned"]


@pytest.mark.parametrize(
    ("then", "end"),
    [
        (Transport.close, "closed"),
        (Transport.abort, "aborted"),
        (lambda transport: transport.lose(None, "drained"), "drained"),
    ],
)
def test_it_leaves_before_the_end(
    loop: EventLoop, then: Callable[[Transport], object], end: str
) -> None:
    pair = Pair(loop)

    def late() -> None:
        pair.transport.write(b"late")  # is dropped

    in_one_wake_up(loop, lambda: (pair.transport.write(b"bye"), then(pair.transport)), late)
    settle(loop, 3)
    assert pair.received() == b"bye"
    assert pair.received() == b""
    assert pair.transport.service.closed == {end: 1}


def test_what_was_answered_before_an_exception_leaves(loop: EventLoop) -> None:
    def answer(protocol: Notes, data: bytes) -> None:
        protocol.transport.write(b"before")
        raise ValueError("after")

    pair = Pair(loop, data_received=answer)
    pair.peer.send(b"x")
    in_one_wake_up(loop, nothing, nothing)
    assert pair.received() == b"before"


def test_the_end_of_our_direction_comes_behind_it(loop: EventLoop) -> None:
    pair = Pair(loop)
    in_one_wake_up(
        loop, lambda: (pair.transport.write(b"last"), pair.transport.write_eof()), nothing
    )
    assert pair.received() == b"last"
    assert pair.received() == b""


@pytest.mark.parametrize("how", ["close", "write_eof", "end of the peer"])
def test_an_end_waits_for_what_the_kernel_does_not_take(loop: EventLoop, how: str) -> None:
    ours, peer = tcp_pair()
    narrow(ours, peer)
    notes = Notes(eof_received=lambda p: p.transport.write(MUCH))
    transport = serve(loop, ours, notes)
    got = Collected(peer)

    def write() -> None:
        transport.write(MUCH)
        getattr(transport, how)()

    if how == "end of the peer":
        peer.shutdown(socket.SHUT_WR)
        in_one_wake_up(loop, nothing, nothing)
    else:
        in_one_wake_up(loop, write, nothing)
    run_until(loop, lambda: got.read() or got.end, "the end")
    assert got.data == MUCH


def test_the_buffer_tells_what_the_kernel_has_not_taken(loop: EventLoop) -> None:
    pair = Pair(loop)
    sizes = []

    def write() -> None:
        pair.transport.write(MUCH)
        sizes.append(pair.transport.get_write_buffer_size())

    in_one_wake_up(loop, write, nothing)
    assert 0 < sizes[0] < len(MUCH)


def test_new_limits_pause_once(loop: EventLoop) -> None:
    pair = Pair(loop)

    def write() -> None:
        pair.transport.write(MUCH)
        pair.transport.set_write_buffer_limits(high=0)

    in_one_wake_up(loop, write, nothing)
    assert pair.notes.names.count("pause_writing") == 1


def test_it_moves_with_the_connection(loop: EventLoop) -> None:
    ours, peer = unix_pair()
    narrow(ours, peer)
    notes = Notes()
    notes.freeze = lambda: b"state"  # type: ignore[attr-defined]
    transport = serve(loop, ours, notes)
    found = []

    def move() -> None:
        transport.write(MUCH)
        frozen = transport.freeze()
        assert frozen is not None
        found.append(len(frozen.unsent) + transport.bytes_out)

    in_one_wake_up(loop, move, nothing)
    assert found == [len(MUCH)]


def test_a_socket_of_ones_own_does_not_overtake_it(loop: EventLoop) -> None:
    pair = Pair(loop)

    def write() -> None:
        pair.transport.write(b"first ")
        pair.transport.get_extra_info("socket").send(b"second")

    in_one_wake_up(loop, write, nothing)
    assert pair.received() == b"first second"


def test_a_peer_that_is_gone_is_found_in_the_end(loop: EventLoop) -> None:
    pair, other = Pair(loop), Pair(loop)
    pair.transport.pause_reading()  # or the end that it finds would be the peer's EOF
    pair.peer.close()
    in_one_wake_up(loop, lambda: pair.transport.write(b"x"), lambda: other.transport.write(b"y"))
    settle(loop, 2)
    assert isinstance(pair.notes.exc, OSError)
    assert other.received() == b"y"


def test_an_exception_through_the_loop_loses_nothing(loop: EventLoop) -> None:
    pair = Pair(loop)

    def write() -> None:
        pair.transport.write(b"x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_one_wake_up(loop, write, nothing)
    turn(loop)
    assert pair.received() == b"x"
    pair.transport.write(b"y")
    assert pair.received() == b"y"

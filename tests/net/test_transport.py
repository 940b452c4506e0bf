"""The transport alone, where there is nothing in asyncio to compare with, or more to ask for."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import socket
import weakref
from typing import Any

import pytest
from wiring import (
    Collected,
    Notes,
    narrow,
    reset,
    run_until,
    serve,
    settle,
    tcp_pair,
    turn,
    unix_pair,
)

from epolld.net.deadlines import GRAINS
from epolld.net.lines import LineProtocol
from epolld.net.linger import DISCARD_MOST, PATIENCE
from epolld.net.loop import EventLoop
from epolld.net.protocol import Protocol
from epolld.net.service import Service
from epolld.net.transport import READ_SIZE, Transport

TEN_MB = os.urandom(1 << 16) * 160


class Clock:
    """A clock that is turned by hand and counts how often it is read."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.time


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_reading_paused_in_connection_made_stays_paused(loop: EventLoop, pair) -> None:
    notes = Notes(connection_made=lambda p: p.transport.pause_reading())
    ours, peer = pair()
    serve(loop, ours, notes)
    peer.send(b"early")
    settle(loop)
    assert notes.data == b""
    notes.transport.resume_reading()
    run_until(loop, lambda: notes.data == b"early")
    notes.transport.abort()
    settle(loop)
    peer.close()


def test_a_greedy_peer_gets_one_read_a_turn(loop: EventLoop) -> None:
    ours, peer = unix_pair()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    notes = Notes()
    serve(loop, ours, notes)
    sent = peer.send(bytes(READ_SIZE * 3))
    assert sent > READ_SIZE
    turn(loop)
    assert 0 < len(notes.data) <= READ_SIZE
    run_until(loop, lambda: len(notes.data) == sent)
    peer.close()
    run_until(loop, lambda: notes.lost)


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_ten_megabytes_each_way_with_a_slow_reader(loop: EventLoop, pair) -> None:
    ours, peer = pair()
    narrow(ours)
    notes = Notes(
        data_received=lambda p, data: p.transport.write(data),
        pause_writing=lambda p: p.transport.pause_reading(),
        resume_writing=lambda p: p.transport.resume_reading(),
    )
    serve(loop, ours, notes)
    got, sent = Collected(peer), 0
    biggest, rounds = 0, 0

    def step() -> bool:
        nonlocal sent, biggest, rounds
        rounds += 1
        if sent < len(TEN_MB):
            try:
                sent += peer.send(memoryview(TEN_MB)[sent : sent + 300_000])
            except BlockingIOError:
                pass
            else:
                if sent == len(TEN_MB):
                    peer.shutdown(socket.SHUT_WR)
        biggest = max(biggest, notes.transport.get_write_buffer_size())
        if rounds % 10 == 0:
            got.read(400_000)
        return bool(got.end)

    run_until(loop, step)
    assert got.end == "EOF"
    assert bytes(got.data) == TEN_MB
    assert notes.data == TEN_MB
    assert notes.names.count("pause_writing") == notes.names.count("resume_writing") > 0
    assert biggest <= 65536 + READ_SIZE
    run_until(loop, lambda: notes.lost)
    assert notes.exc is None
    peer.close()


def test_bytes_before_the_end_arrive_when_reading_resumes_after_a_hangup(loop) -> None:
    for pair in (unix_pair, tcp_pair):
        ours, peer = pair()
        notes = Notes()
        transport = serve(loop, ours, notes)
        transport.pause_reading()
        transport.write_eof()
        peer.send(b"last words")
        peer.close()
        settle(loop)
        assert not notes.lost
        transport.resume_reading()
        run_until(loop, lambda n=notes: n.lost)
        assert notes.names == [
            "connection_made",
            "data_received",
            "eof_received",
            "connection_lost",
        ]
        assert notes.data == b"last words"


# -- no spinning -------------------------------------------------------------------------------


def reports(loop: EventLoop, turns: int = 20) -> int:
    """How many events the kernel reports on transports in so many turns."""
    kind = Service.transport_type
    count = 0
    real = kind.on_ready

    def counting(self: Transport, events: int) -> None:
        nonlocal count
        count += 1
        real(self, events)

    kind.on_ready = counting  # type: ignore[method-assign]
    try:
        settle(loop, turns)
    finally:
        kind.on_ready = real  # type: ignore[method-assign]
    return count


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_a_hangup_with_reading_paused_does_not_spin(loop: EventLoop, pair) -> None:
    ours, peer = pair()
    notes = Notes()
    transport = serve(loop, ours, notes)
    transport.pause_reading()
    transport.write_eof()
    peer.close()
    settle(loop)
    assert reports(loop) == 0
    assert not notes.lost
    transport.abort()
    run_until(loop, lambda: notes.lost)


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_an_end_that_is_kept_open_does_not_spin(loop: EventLoop, pair) -> None:
    for half_close in (True, False):
        ours, peer = pair()
        notes = Notes(eof_received=lambda p: True)
        transport = serve(loop, ours, notes)
        if half_close:
            peer.shutdown(socket.SHUT_WR)
        else:
            peer.close()
        run_until(loop, lambda n=notes: "eof_received" in n.names)
        settle(loop)
        assert reports(loop) == 0
        transport.close()
        run_until(loop, lambda n=notes: n.lost)
        assert notes.names.count("eof_received") == 1
        peer.close()


def test_unread_input_with_reading_paused_does_not_spin(loop: EventLoop) -> None:
    ours, peer = unix_pair()
    notes = Notes()
    serve(loop, ours, notes).pause_reading()
    peer.send(b"x")
    assert reports(loop) == 0
    peer.close()
    notes.transport.abort()
    settle(loop)


# -- how it ends -------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["reading", "paused", "writing", "closing", "eof written"])
def test_reset_by_the_peer(loop: EventLoop, when: str) -> None:
    ours, peer = tcp_pair()
    narrow(ours)
    notes = Notes()
    transport = serve(loop, ours, notes)
    if when == "paused":
        transport.pause_reading()
    if when in ("writing", "closing"):
        transport.write(bytes(1 << 24))
        assert transport.get_write_buffer_size()
    if when == "closing":
        transport.close()
    if when == "eof written":
        transport.write_eof()
    turn(loop)
    reset(peer)
    run_until(loop, lambda: notes.lost)
    settle(loop)
    assert isinstance(notes.exc, ConnectionError)
    assert notes.names.count("connection_lost") == 1
    assert reports(loop) == 0


ENDS = ["close", "abort", "write_eof", "fault", "peer close", "peer half-close", "write"]


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("first", ENDS)
def test_connection_lost_exactly_once_in_all_orders(loop, caplog, first: str, second: str) -> None:
    for between in (0, 1):
        ours, peer = unix_pair()

        def fail(p: Notes, data: bytes) -> None:
            raise RuntimeError

        notes = Notes(data_received=fail)
        service = Service(loop, "test", lambda notes=notes: notes)
        transport = serve(loop, ours, notes, service)
        for end in (first, second):
            if end == "fault":
                if peer.fileno() >= 0:
                    with contextlib.suppress(BrokenPipeError):
                        peer.send(b"x")
            elif end == "peer close":
                peer.close()
            elif end == "peer half-close":
                if peer.fileno() >= 0:
                    peer.shutdown(socket.SHUT_WR)
            elif end == "write":
                try:
                    transport.write(b"x")
                except RuntimeError:
                    assert "write_eof" in (first, second)
            else:
                getattr(transport, end)()
            if between:
                turn(loop)
        transport.abort()
        peer.close()
        settle(loop)
        assert notes.names.count("connection_lost") == 1
        assert notes.names[-1] == "connection_lost"
        assert notes.names.count("eof_received") <= 1
        assert service.live == 0
        assert transport.fileno() == -1
        assert service.transports == []


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_the_answer_survives_unread_input(loop: EventLoop, pair) -> None:
    """The server answers and closes while the client still talks: no RST, so all arrives."""
    ours, peer = pair()
    answer = bytes(200_000)

    def reply(p: Notes, data: bytes) -> None:
        p.transport.write(answer)
        p.transport.close()

    notes = Notes(data_received=reply)
    serve(loop, ours, notes)
    peer.send(bytes(100_000))  # more than one read: some is unread at the close
    run_until(loop, lambda: notes.data)
    got = Collected(peer)
    run_until(loop, lambda: got.read())
    assert (got.end, len(got.data)) == ("EOF", len(answer))
    peer.close()
    run_until(loop, lambda: loop.watchers() == [])


def test_lingering_ends_after_its_patience() -> None:
    clock = Clock()
    loop = EventLoop(clock)
    ours, peer = tcp_pair()
    fd = ours.fileno()
    notes = Notes(data_received=lambda p, data: p.transport.close())
    serve(loop, ours, notes)
    peer.send(bytes(100_000))
    run_until(loop, lambda: notes.lost)
    settle(loop)
    assert os.fstat(fd)
    clock.time += PATIENCE
    settle(loop)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert loop.watchers() == []
    peer.close()
    loop.close()


def test_lingering_listens_to_no_flood(loop: EventLoop) -> None:
    """The peer talks on and on: we stop reading, it can still read the answer."""
    ours, peer = tcp_pair()
    fd = ours.fileno()

    def reply(p: Notes, data: bytes) -> None:
        p.transport.write(b"too much")
        p.transport.close()

    notes = Notes(data_received=reply)
    serve(loop, ours, notes)
    peer.send(bytes(100_000))
    run_until(loop, lambda: notes.lost)
    sent = 0

    def talk_on() -> bool:
        nonlocal sent
        with contextlib.suppress(BlockingIOError):
            while sent < 64 * DISCARD_MOST:
                sent += peer.send(bytes(100_000))
        return loop.watchers() == []

    run_until(loop, talk_on)
    assert sent < 64 * DISCARD_MOST
    assert os.fstat(fd)
    assert peer.recv(100) == b"too much"
    peer.close()


# -- fences ------------------------------------------------------------------------------------


class Wrong(BaseException):
    """Not even an Exception."""


FAULTS = [ValueError, SystemExit, KeyboardInterrupt, Wrong]
CALLBACKS = [
    "connection_made",
    "data_received",
    "eof_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_fault_is_logged_and_touches_its_own_connection_only(
    loop: EventLoop, caplog: pytest.LogCaptureFixture, callback: str, fault: type[BaseException]
) -> None:
    def fail(*_args: Any) -> None:
        raise fault("mine")

    ours, peer = tcp_pair()
    other, other_peer = unix_pair()
    narrow(ours)
    bystander = Notes()
    serve(loop, other, bystander)
    notes = Notes(**{callback: fail})
    transport = serve(loop, ours, notes)
    if callback == "data_received":
        peer.send(b"x")
    elif callback.endswith("writing"):
        transport.write(bytes(1 << 20))
    else:
        peer.shutdown(socket.SHUT_WR)
    run_until(loop, lambda: receive_some(peer) or notes.lost)
    assert notes.names.count("connection_lost") == 1
    if callback != "connection_lost":
        assert isinstance(notes.exc, fault)
    (line,) = errors(caplog)
    port = peer.getsockname()[1]
    assert f"{callback} of Notes raised {fault.__name__}" in line
    assert f"127.0.0.1:{port}" in line
    other_peer.send(b"still there")
    run_until(loop, lambda: bystander.data == b"still there")
    bystander.transport.abort()
    settle(loop)
    assert transport.fileno() == -1
    peer.close()
    other_peer.close()


def receive_some(peer: socket.socket) -> None:
    """Let a sender go on."""
    with contextlib.suppress(OSError):
        peer.recv(1 << 20)


def test_a_factory_that_fails_closes_the_connection(loop: EventLoop, caplog) -> None:
    def factory() -> Any:
        raise SystemExit

    service = Service(loop, "broken", factory)
    ours, peer = unix_pair()
    service.open(ours.detach(), "")
    assert peer.recv(1) == b""
    assert service.live == 0
    assert "cannot make a protocol" in errors(caplog)[0]
    peer.close()


class FullLoop(EventLoop):
    """A loop whose epoll takes no more descriptors."""

    __slots__ = ()

    def add(self, fd: int, events: int, watcher: Any) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_epoll_ends_the_connection() -> None:
    loop = FullLoop()
    ours, peer = unix_pair()
    notes = Notes()
    service = Service(loop, "test", lambda: notes)
    try:
        service.open(ours.detach(), "")
        settle(loop)
        assert notes.lost
        assert isinstance(notes.exc, OSError)
        assert service.live == 0
    finally:
        ours.close()
        peer.close()
        loop.close()


# -- timers ------------------------------------------------------------------------------------


def test_call_later_is_fenced_and_names_the_callback(loop: EventLoop, caplog) -> None:
    def my_timer() -> None:
        raise SystemExit

    ours, peer = unix_pair()
    notes = Notes()
    serve(loop, ours, notes).call_later(0, my_timer)
    run_until(loop, lambda: notes.lost)
    assert "my_timer" in errors(caplog)[0]
    assert isinstance(notes.exc, SystemExit)
    peer.close()


def test_call_later_calls_and_can_be_cancelled_and_not_after_the_end() -> None:
    clock = Clock()
    loop = EventLoop(clock)
    ours, peer = unix_pair()
    called: list[str] = []
    notes = Notes()
    transport = serve(loop, ours, notes)
    transport.call_later(1, lambda: called.append("one"))
    transport.call_later(2, lambda: called.append("cancelled")).cancel()
    transport.call_later(5, lambda: called.append("after the end"))
    clock.time += 2
    settle(loop)
    assert called == ["one"]
    transport.abort()
    settle(loop)
    clock.time += 10
    settle(loop)
    assert called == ["one"]
    peer.close()
    loop.close()


def test_idle_timeout_counts_from_the_last_byte_in_either_direction() -> None:
    clock = Clock()
    loop = EventLoop(clock)
    ours, peer = unix_pair()
    notes = Notes()
    service = Service(loop, "test", lambda: notes, idle_timeout=16.0)
    service.open(ours.detach(), "")
    for act in (lambda: peer.send(b"x"), lambda: notes.transport.write(b"x")):
        clock.time += 15.0
        settle(loop)
        assert not notes.lost
        act()
        settle(loop)
    clock.time += 15.9
    settle(loop)
    assert not notes.lost
    clock.time += 0.2 + 16.0 / GRAINS
    settle(loop)
    assert isinstance(notes.exc, TimeoutError)
    assert service.live == 0
    peer.close()
    loop.close()


def test_idle_timeout_ends_many_and_only_those_idle() -> None:
    clock = Clock()
    loop = EventLoop(clock)
    made: list[Notes] = []
    service = Service(loop, "test", lambda: made.append(Notes()) or made[-1], idle_timeout=8.0)
    pairs = []
    for n in range(20):
        pairs.append(unix_pair())
        service.open(pairs[n][0].detach(), "")
        clock.time += 0.1
        settle(loop, 1)
    clock.time += 5.0
    settle(loop)
    for _, peer in pairs[::2]:
        peer.send(b"x")
    settle(loop)
    clock.time += 3.5
    settle(loop)
    assert [notes.lost for notes in made] == [False, True] * 10
    clock.time += 8.0
    settle(loop)
    assert all(notes.lost for notes in made)
    for _, peer in pairs:
        peer.close()
    loop.close()


def test_close_within_drops_what_is_not_sent_in_time() -> None:
    clock = Clock()
    loop = EventLoop(clock)
    ours, peer = unix_pair()
    notes = Notes()
    transport = serve(loop, ours, notes)
    transport.write(bytes(1 << 24))
    transport.close_within(3.0)
    settle(loop)
    assert not notes.lost
    clock.time += 3.0
    settle(loop)
    assert notes.lost
    assert transport.fileno() == -1
    peer.close()
    loop.close()


# -- accounts ----------------------------------------------------------------------------------


def test_bytes_are_counted_as_they_come_and_as_the_kernel_takes_them(loop: EventLoop) -> None:
    ours, peer = tcp_pair()
    narrow(ours, peer)
    notes = Notes(data_received=lambda p, data: p.transport.write(bytes(1 << 20)))
    transport = serve(loop, ours, notes)
    peer.send(b"hello")
    run_until(loop, lambda: notes.data)
    assert transport.bytes_in == 5
    assert transport.bytes_out == (1 << 20) - transport.get_write_buffer_size() < 1 << 20
    got = Collected(peer)
    run_until(loop, lambda: got.read() or len(got.data) == 1 << 20)
    assert transport.bytes_out == 1 << 20
    transport.abort()
    settle(loop)
    peer.close()


def raising(*_args: object) -> None:
    raise ValueError("on purpose")


@pytest.mark.parametrize(
    ("cause", "act", "on"),
    [
        ("eof", lambda t, peer: peer.close(), {}),
        ("closed", lambda t, peer: t.close(), {}),
        ("closed", lambda t, peer: (t.write(b"x" * (1 << 20)), t.close(), t.close()), {}),
        ("aborted", lambda t, peer: t.abort(), {}),
        ("reset", lambda t, peer: reset(peer), {}),
        ("callback_error", lambda t, peer: peer.send(b"x"), {"data_received": raising}),
        ("idle_timeout", lambda t, peer: t.time_out("idle", "idle_timeout"), {}),
        ("drained", lambda t, peer: t.close_within(1.0), {}),
        ("closed", lambda t, peer: (t.close(), t.close_within(1.0)), {}),
    ],
)
def test_each_end_is_counted_by_its_cause(loop: EventLoop, cause: str, act: Any, on: Any) -> None:
    ours, peer = tcp_pair()
    notes = Notes(**on)
    service = Service(loop, "test", lambda: notes)
    transport = serve(loop, ours, notes, service)
    act(transport, peer)
    if peer.fileno() >= 0:
        got = Collected(peer)
        run_until(loop, lambda: got.read() or notes.lost)
    run_until(loop, lambda: service.live == 0)
    assert service.closed == {cause: 1}
    peer.close()


def test_the_users_socket_is_one_and_closed_with_the_connection(loop: EventLoop) -> None:
    ours, peer = tcp_pair()
    notes = Notes()
    transport = serve(loop, ours, notes)
    sock = transport.get_extra_info("socket")
    assert transport.get_extra_info("socket") is sock
    assert sock.getpeername() == peer.getsockname()
    transport.abort()
    settle(loop)
    assert sock.fileno() == -1
    assert transport.get_extra_info("socket", "none") == "none"
    peer.close()


# -- events that come too late -------------------------------------------------------------------


def test_a_wake_up_for_nothing_is_harmless(loop: EventLoop) -> None:
    """As when a callback of the same turn has read, or sent, what there was."""
    notes = Notes()
    ours, peer = unix_pair()
    narrow(ours)
    transport = serve(loop, ours, notes)
    transport.on_ready(select.EPOLLIN)
    transport.write(TEN_MB)
    waiting = transport.get_write_buffer_size()
    transport.on_ready(select.EPOLLOUT)
    assert transport.get_write_buffer_size() == waiting
    assert notes.names == ["connection_made", "pause_writing"]
    transport.abort()
    settle(loop)
    peer.close()


def test_the_end_is_written_to_a_peer_that_is_gone(loop: EventLoop) -> None:
    notes = Notes()
    ours, peer = tcp_pair()
    transport = serve(loop, ours, notes)
    reset(peer)
    transport.write_eof()
    settle(loop)
    assert notes.names == ["connection_made", "connection_lost"]
    assert isinstance(notes.exc, OSError)


# -- what is left of it ------------------------------------------------------------------------


class Gathering(Protocol):
    """With something worth freeing, and a name to be watched by."""

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self.gathered = bytes(1 << 20)


class GatheringLines(Gathering, LineProtocol):
    """The same with a framing."""


def move(transport: Transport) -> None:
    frozen = transport.freeze()
    assert frozen is not None
    transport.release()


ENDS: dict[str, Any] = {
    "close": lambda transport: transport.close(),
    "abort": lambda transport: transport.abort(),
    "error": lambda transport: transport.lose(OSError(), "error"),
    "moved": move,
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("protocol", [Gathering, GatheringLines])
def test_nothing_is_left_for_the_collector(
    loop: EventLoop, protocol: type[Gathering], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a protocol has gathered goes with its connection, not when a collection comes round."""
    monkeypatch.setattr(protocol, "freeze", lambda self: b"")
    made: list[weakref.ref[Gathering]] = []

    def make() -> Gathering:
        one = protocol()
        made.append(weakref.ref(one))
        return one

    service = Service(loop, "test", make, idle_timeout=60)
    ours, peer = unix_pair()
    service.open(ours.detach(), "")
    settle(loop)
    gc.disable()
    try:
        ENDS[how](service.transports[0])
        run_until(loop, lambda: not service.live)
        assert made[0]() is None
    finally:
        gc.enable()
        peer.close()

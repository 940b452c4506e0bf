"""net/handoff.py and the transport's freeze and thaw: connections move, nobody notices."""

from __future__ import annotations

import contextlib
import itertools
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from movers import Lines, Noted, World, answer, open_world
from wiring import Notes, narrow, receive, tcp_pair, turn, unix_pair

from epolld.net import handoff
from epolld.net.frozen import BATCH
from epolld.net.handoff import AHEAD, can_move
from epolld.net.protocol import Protocol
from epolld.services.chargen import ROUND, Chargen
from epolld.services.echo import Echo
from epolld.services.upper import Upper

# -- the normal case ---------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [unix_pair, tcp_pair])
def test_a_connection_moves_in_the_middle_of_a_message(world: World, pair: object) -> None:
    old, new = world.side(), world.side()
    (client,) = world.connect(old, 1, pair)
    client.send(b"one\ntw")
    world.expect(client, b"1:one\n")
    world.give(old, new)
    world.until(lambda: world.done)
    assert world.done == [1]
    assert (old.service.live, new.service.live) == (0, 1)
    client.send(b"o\n")
    world.expect(client, b"2:two\n")


def test_identity_and_age_travel(world: World) -> None:
    old, new = world.side(ids=itertools.count(77)), world.side()
    transport, client = old.accept(tcp_pair)
    world.clients.append(client)
    transport.opened -= 100
    transport.last_active -= 50
    transport.set_write_buffer_limits(high=4000, low=1000)
    before = (transport.id, transport.get_extra_info("peername"))
    world.give(old, new)
    world.until(lambda: world.done)
    (moved,) = new.service.transports
    assert (moved.id, moved.get_extra_info("peername")) == before
    assert 100 <= new.loop.now - moved.opened < 105
    assert moved.silent_for(50)
    assert not moved.silent_for(55)
    assert moved.get_write_buffer_limits() == (1000, 4000)
    assert transport.fileno() == -1
    assert new.service.accepted == 0


def test_many_batches_and_the_emptiest_heirs(world: World) -> None:
    old, full, empty = world.side(), world.side(), world.side()
    clients = world.connect(old, 3 * BATCH + 5)
    world.connect(full, BATCH)
    world.give(old, full, empty)
    world.until(lambda: world.done)
    assert world.done == [3 * BATCH + 5]
    assert old.service.live == 0
    assert abs(full.service.live - empty.service.live) <= AHEAD + BATCH
    for client in clients:
        client.send(b"x\n")
    for client in clients:
        world.expect(client, b"1:x\n")


def test_fewer_than_a_batch_are_spread(world: World) -> None:
    """As after a reload of two workers with 50 connections each."""
    olds, news = [world.side(), world.side()], [world.side(), world.side()]
    for old in olds:
        world.connect(old, 50)
    for old in olds:
        world.give(old, *news)
    world.until(lambda: len(world.done) == 2)
    assert abs(news[0].service.live - news[1].service.live) <= AHEAD


def test_a_limit_and_the_rest_goes_on(world: World) -> None:
    old, new = world.side(), world.side()
    clients = world.connect(old, 10)
    world.give(old, new, limit=4)
    world.until(lambda: world.done)
    assert (old.service.live, new.service.live) == (6, 4)
    for client in clients:
        client.send(b"x\n")
        world.expect(client, b"1:x\n")


def test_what_the_old_protocol_hears(world: World) -> None:
    """Nothing after freeze, and the new one hears thaw in place of connection_made."""
    old, new = world.side(Noted), world.side(Noted)
    (client,) = world.connect(old, 1)
    client.send(b"a")
    world.settle()
    (before,) = old.protocols()
    client.send(b"b")  # unread when it moves
    world.give(old, new)
    world.until(lambda: world.done)
    world.settle()
    (after,) = new.protocols()
    client.close()
    world.until(lambda: not new.service.live)
    assert before.calls[:2] == ["made", "a"]
    assert before.calls[-1] == "freeze"
    assert "".join(before.calls).count("b") + "".join(after.calls).count("b") == 1
    assert after.calls[0] == "thaw state"
    assert after.calls[-1] == "lost"
    assert before.transport.is_closed()


def test_nothing_to_give(world: World) -> None:
    old, new = world.side(), world.side()
    donor = world.give(old, new)
    assert world.done == [0]
    assert donor.is_done()


# -- what travels ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [250_000, 2_000_000])
def test_unsent_bytes_travel(world: World, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The larger ones in a memfd."""
    marks = []
    real = socket.send_fds
    monkeypatch.setattr(
        handoff.socket, "send_fds", lambda s, d, f: (marks.append(d[0][:1]), real(s, d, f))[1]
    )
    old, new = world.side(Upper), world.side(Upper)
    transport, client = old.accept(tcp_pair)
    world.clients.append(client)
    narrow(transport.get_extra_info("socket"))
    data = bytes(i * 7 % 251 for i in range(size))
    transport.write(data)
    assert transport.get_write_buffer_size() > handoff.MAX_INLINE
    assert not transport.is_reading()  # Upper has been paused
    world.give(old, new)
    world.until(lambda: world.done)
    assert marks == [handoff.MEMFD_MARK]
    (moved,) = new.service.transports
    assert not moved.is_reading()
    world.expect(client, data)
    client.send(b"more")  # resume_writing has been called, and so resume_reading
    world.expect(client, b"MORE")
    assert moved.is_reading()


def test_a_closing_connection_sends_the_rest_and_ends(world: World) -> None:
    old, new = world.side(Upper), world.side(Upper)
    transport, client = old.accept(tcp_pair)
    narrow(transport.get_extra_info("socket"))
    data = bytes(2_000_000)
    transport.write(data)
    transport.close()
    world.give(old, new)
    world.until(lambda: world.done)
    got = bytearray()

    def look() -> bool:
        part = receive(client)
        got.extend(part or b"")
        return part == b"" or not new.service.live

    world.until(look)
    world.settle(3)
    got += receive(client) or b""
    assert len(got) == len(data)
    assert client.recv(1) == b""
    client.close()


def test_half_closed_by_the_peer(world: World) -> None:
    keep = {"eof_received": lambda _notes: True}
    old, new = world.side(lambda: MovableNotes(**keep)), world.side(lambda: MovableNotes(**keep))
    (client,) = world.connect(old, 1)
    client.shutdown(socket.SHUT_WR)
    world.until(lambda: "eof_received" in old.protocols()[0].names)
    world.give(old, new)
    world.until(lambda: world.done)
    world.settle()
    (notes,) = new.protocols()
    assert notes.names == ["thaw"]  # the end is told once
    notes.transport.write(b"bye")
    notes.transport.close()
    world.until(lambda: notes.lost)
    assert client.recv(10) == b"bye"
    assert client.recv(10) == b""


@pytest.mark.parametrize("unsent", [0, 1_000_000])
def test_half_closed_by_us(world: World, unsent: int) -> None:
    old, new = world.side(MovableNotes), world.side(MovableNotes)
    transport, client = old.accept(tcp_pair)
    world.clients.append(client)
    narrow(transport.get_extra_info("socket"))
    transport.write(bytes(unsent))
    transport.write_eof()
    world.give(old, new)
    world.until(lambda: world.done)
    (notes,) = new.protocols()
    with pytest.raises(RuntimeError):
        notes.transport.write(b"x")
    got = 0
    end = False

    def look() -> bool:
        nonlocal got, end
        part = receive(client)
        got += len(part or b"")
        with contextlib.suppress(BlockingIOError):
            end = end or part == b"" or client.recv(1, socket.MSG_PEEK) == b""
        return end

    world.until(look)
    assert got == unsent
    client.send(b"still heard")
    world.until(lambda: notes.data == b"still heard")


def test_paused_reading_stays_paused(world: World) -> None:
    old, new = world.side(MovableNotes), world.side(MovableNotes)
    transport, client = old.accept()
    world.clients.append(client)
    transport.pause_reading()
    client.send(b"later")
    world.give(old, new)
    world.until(lambda: world.done)
    world.settle()
    (notes,) = new.protocols()
    assert notes.data == b""
    notes.transport.resume_reading()
    world.until(lambda: notes.data == b"later")


def test_paused_and_hung_up_stays_unread(world: World) -> None:
    """A parked descriptor moves, too, and its last data are still there."""
    old, new = world.side(MovableNotes), world.side(MovableNotes)
    transport, client = old.accept(tcp_pair)
    transport.pause_reading()
    transport.write_eof()
    client.send(b"last words")
    client.close()
    world.settle()
    world.give(old, new)
    world.until(lambda: world.done)
    world.settle()
    (notes,) = new.protocols()
    notes.transport.resume_reading()
    world.until(lambda: notes.lost)
    assert notes.data == b"last words"


def test_unix_peers_names(world: World) -> None:
    old, new = world.side(), world.side()
    path = b"\0epolld-handoff-test"

    def pair() -> tuple[socket.socket, socket.socket]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            theirs = socket.socket(socket.AF_UNIX)
            theirs.bind(path + b"-client")
            theirs.connect(path)
            ours, _ = listener.accept()
        ours.setblocking(False)
        theirs.setblocking(False)
        return ours, theirs

    world.connect(old, 1, pair)
    world.give(old, new)
    world.until(lambda: world.done)
    (moved,) = new.service.transports
    assert moved.get_extra_info("peername") == path + b"-client"


def test_chargen_goes_on_without_a_gap(world: World) -> None:
    sides = world.side(Chargen), world.side(Chargen)
    transport, client = sides[0].accept(tcp_pair)
    world.clients.append(client)
    narrow(transport.get_extra_info("socket"))
    got = bytearray()
    for n in range(6):
        goal = len(got) + 300_000

        def look(goal: int = goal) -> bool:
            got.extend(receive(client) or b"")
            return len(got) >= goal

        world.until(look)
        world.give(sides[n % 2], sides[1 - n % 2])
        world.until(lambda n=n: len(world.done) == n + 1)
    assert bytes(got) == (ROUND * (len(got) // len(ROUND) + 1))[: len(got)]


# -- moved at any moment is as not moved -------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\r", b"\n")), max_size=8),
    moves=st.sets(st.integers(0, 8)),
    read_before=st.booleans(),
    unix=st.booleans(),
)
def test_moved_at_any_moment_equals_not_moved(
    pieces: list[bytes], moves: set[int], read_before: bool, unix: bool
) -> None:
    with open_world() as world:
        sides = world.side(), world.side()
        (client,) = world.connect(sides[0], 1, unix_pair if unix else tcp_pair)
        here = count = 0
        for n, piece in enumerate([*pieces, b"\n"]):
            if piece:
                client.send(piece)
            if n in moves:
                if read_before:
                    world.turn()
                world.give(sides[here], sides[1 - here])
                count += 1
                world.until(lambda count=count: len(world.done) == count)
                here = 1 - here
        world.expect(client, answer(b"".join(pieces) + b"\n"))
        assert sum(world.done) == count


# -- who can move ------------------------------------------------------------------------------


class MovableNotes(Notes):
    """Notes that move: they begin anew."""

    def freeze(self) -> bytes:
        return b""

    def thaw(self, state: bytes) -> None:
        self.trace.append(("thaw",))


class Plain(Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class PlainSlots(Protocol):
    __slots__ = ()


class PlainChild(Plain):
    __slots__ = ()


class WithBeginning(Protocol):
    def connection_made(self, transport: object) -> None:
        pass


class WithEnd(Plain):
    def connection_lost(self, exc: BaseException | None) -> None:
        pass


class WithSlots(Protocol):
    __slots__ = ("count",)


class WithState(Protocol):
    def __init__(self) -> None:
        self.count = 0


@pytest.mark.parametrize("cls", [Plain, PlainSlots, PlainChild, Echo, Upper, Chargen, Lines])
def test_these_can_move(cls: type[Protocol]) -> None:
    if cls is Chargen:
        protocol = cls()
        protocol._paused = False  # type: ignore[attr-defined]
        assert can_move(protocol)
    else:
        assert can_move(cls())


@pytest.mark.parametrize("cls", [WithBeginning, WithEnd, WithSlots, WithState, Notes, object])
def test_these_cannot(cls: type) -> None:
    assert not can_move(cls())


def test_the_transport_attribute_is_no_state() -> None:
    """In a class without __slots__, `transport` is in the base's slot all the same."""
    protocol = Plain()
    protocol.transport = object()  # type: ignore[assignment]
    assert can_move(protocol)


def test_what_cannot_move_is_told_and_stays(world: World) -> None:
    old, new = world.side(WithState), world.side(WithState)
    world.connect(old, 3)
    world.give(old, new)
    assert len(world.stuck) == 3
    assert world.done == [0]
    assert old.service.live == 3


# -- not now -----------------------------------------------------------------------------------


class Reluctant(Lines):
    """Moves only between lines."""

    def freeze(self) -> bytes | None:
        return None if self.part else super().freeze()


def test_not_now_then_moves(world: World) -> None:
    old, new = world.side(Reluctant), world.side(Reluctant)
    busy, idle = world.connect(old, 2)
    busy.send(b"par")
    world.settle()
    donor = world.give(old, new)
    world.until(lambda: new.service.live == 1)
    for _ in range(3):
        turn(old.loop)
    assert len(donor.not_moved()) == 1
    assert not donor.is_done()
    assert not world.stuck
    busy.send(b"t\n")
    world.expect(busy, b"1:part\n")
    world.until(lambda: world.done)
    assert world.done == [2]
    for client in (busy, idle):
        client.send(b"x\n")
    world.expect(busy, b"2:x\n")
    world.expect(idle, b"1:x\n")


def test_not_now_then_closed(world: World) -> None:
    old, new = world.side(Reluctant), world.side(Reluctant)
    (client,) = world.connect(old, 1)
    client.send(b"par")
    world.settle()
    world.give(old, new)
    client.close()
    world.until(lambda: world.done)
    assert world.done == [0]


def test_with_a_limit_not_now_is_not_asked_again(world: World) -> None:
    old, new = world.side(Reluctant), world.side(Reluctant)
    (client,) = world.connect(old, 1)
    client.send(b"par")
    world.settle()
    world.give(old, new, limit=1)
    assert world.done == [0]
    client.send(b"t\n")
    world.expect(client, b"1:part\n")
    assert old.service.live == 1

"""A connection that moves at any moment is as one that does not.

Every built-in service and every framing, over real sockets between two workers' loops: the peer
sends its text in any pieces and reads when it likes, the protocol pauses reading, its buffer runs
full, the connection moves to and fro meanwhile, or nearly does because its heir leaves. The peer
gets exactly the bytes that it would get of a connection at rest; and the protocol's lives together
hear what one alone would have heard.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from movers import Side, World
from stories import KINDS, PAUSE, RAW, Story, Told, is_legal
from wiring import Collected, narrow, tcp_pair, turn, unix_pair

from epolld.net.handoff import Donor
from epolld.net.transport import Transport
from epolld.services.chargen import BLOCK
from epolld.services.registry import BUILT_IN

WATER_MARKS = [0, 1000, 65536]  # high ones

letters = bytes(range(97, 123)) * 2000
short = st.binary(max_size=20)
special = st.sampled_from([PAUSE, PAUSE, RAW, RAW, b"", b"\r", b"\n", b","])
long = st.sampled_from([300, 6_000, 30_000, 30_001, 30_010]).map(lambda size: letters[:size])
messages = st.one_of(
    st.lists(short | special, min_size=4, max_size=14),
    st.lists(short | special | long, min_size=2, max_size=14),
)
parts = st.sampled_from([0.0, 0.03, 0.1, 0.5, 1.0])  # of what there is; at least one byte
moves = st.booleans()  # whether the connection is moved right after


class AnyMove(RuleBasedStateMachine):
    """One connection, and two workers that it may be with."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = KINDS[kind]

    @initialize(
        messages=messages,
        times=st.sampled_from([1, 1, 30]),
        tcp=st.sampled_from([False, False, True]),
        pauses=st.booleans(),
        closes=st.booleans(),
    )
    def connect(
        self, messages: list[bytes], times: int, tcp: bool, pauses: bool, closes: bool
    ) -> None:
        if not pauses:
            messages = [each for each in messages if each != PAUSE]
        if sum(map(len, messages)) < 10_000:
            messages *= times
        messages = [each[: self.kind.longest] for each in messages]
        self.text = self.kind.text(messages)
        self.answer = self.kind.answer(messages)
        self.story = Story()
        protocol: type[Any] = self.kind.protocol
        if issubclass(protocol, Told):
            protocol = type(protocol.__name__, (protocol,), {"story": self.story})
        self.descriptors = set(os.listdir("/proc/self/fd"))
        self.world = World()
        self.here, self.there = self.world.side(protocol), self.world.side(protocol)
        pair = tcp_pair() if tcp else unix_pair()
        narrow(*pair)
        if not tcp:  # as narrow as can be: what is sent soon waits for the peer
            for sock in pair:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        ours, self.peer = pair
        address = ours.getpeername()
        self.here.service.open(ours.detach(), address)
        self.world.clients.append(self.peer)
        self.got = Collected(self.peer)
        self.sent = 0  # bytes of the text
        self.half_closed = False
        self.may_pause = pauses  # if not, it is never helped to read on
        self.may_close = closes  # the protocol, of its own accord
        self.owed: int | None = None  # bytes that it has written in all, once it has closed
        self.donor: Donor | None = None
        self.limits: tuple[int, int] | None = None  # of its write buffer, once they are set

    def transport(self) -> Transport | None:
        """Where the connection is; None while it is under way, and after its end."""
        for side in self.world.sides:
            for each in side.service.transports:
                if not each.is_frozen() and not each.is_closed():
                    return each
        return None

    # -- the peer ----------------------------------------------------------------------------------

    @rule(part=parts, heard=st.booleans(), moves=moves)
    def peer_sends(self, part: float, heard: bool, moves: bool) -> None:
        left = len(self.text) - self.sent
        piece = self.text[self.sent :][: max(1, int(left * part))]
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self.sent += self.peer.send(piece) if piece else 0
        if heard:
            turn(self.here.loop)
        self.go_there(moves)

    @rule(size=st.sampled_from([1, 1000, 100_000]), moves=moves)
    def peer_reads(self, size: int, moves: bool) -> None:
        self.got.read(size)
        self.go_there(moves)

    @precondition(lambda self: self.sent == len(self.text) and not self.half_closed)
    @rule(heard=st.booleans(), moves=moves)
    def peer_half_closes(self, heard: bool, moves: bool) -> None:
        self.half_closed = True
        with contextlib.suppress(OSError):  # it is gone already
            self.peer.shutdown(socket.SHUT_WR)
        if heard:
            turn(self.here.loop)
        self.go_there(moves)

    # -- the workers -------------------------------------------------------------------------------

    @rule(which=st.sampled_from(["here", "there", "both"]), times=st.sampled_from([1, 1, 3]))
    def turn(self, which: str, times: int) -> None:
        for _ in range(times):
            for name in ("here", "there"):
                if which in (name, "both"):
                    side: Side = getattr(self, name)
                    turn(side.loop)
        self.note_arrival()

    def note_arrival(self) -> None:
        """The donor has given what it had: from now on it may be given back."""
        if self.donor is not None and self.donor.is_done():
            self.donor = None
            if self.there.service.live:
                self.here, self.there = self.there, self.here

    @precondition(lambda self: self.donor is None)
    @rule(one=st.booleans())
    def begins_to_move(self, one: bool) -> None:
        """All connections of the worker are to move, or so many as are one."""
        self.donor = self.world.give(self.here, self.there, limit=1 if one else None)
        self.note_arrival()

    def go_there(self, moves: bool) -> None:
        """All the way, if it can."""
        if moves and self.donor is None:
            self.begins_to_move(False)
        if moves:
            self.turn("both", 8)

    @precondition(lambda self: self.donor is not None)
    @rule()
    def heir_leaves(self) -> None:
        """What it has not received goes back."""
        self.there.receiver.close()

    # -- the protocol ------------------------------------------------------------------------------

    @precondition(lambda self: self.may_pause)
    @rule(moves=moves)
    def pauses_reading(self, moves: bool) -> None:
        if transport := self.transport():
            transport.pause_reading()
        self.go_there(moves)

    @precondition(lambda self: self.may_pause)
    @rule(moves=moves)
    def resumes_reading(self, moves: bool) -> None:
        """Not after the end, which the transport does not know how to read again."""
        transport = self.transport()
        if transport and not transport._eof_received:
            transport.resume_reading()
        self.go_there(moves)

    @rule(high=st.sampled_from(WATER_MARKS), moves=moves)
    def limits_its_buffer(self, high: int, moves: bool) -> None:
        if transport := self.transport():
            transport.set_write_buffer_limits(high=high)
            self.limits = high // 4, high
        self.go_there(moves)

    @precondition(lambda self: self.may_close and self.owed is None)
    @rule(moves=moves)
    def closes(self, moves: bool) -> None:
        """What is written is still to go out."""
        transport = self.transport()
        if transport and not transport.is_closing():
            self.owed = transport.bytes_out + transport.get_write_buffer_size()
            transport.close()
        self.go_there(moves)

    # -- what is always true -----------------------------------------------------------------------

    @invariant()
    def bytes_are_exact(self) -> None:
        got = bytes(self.got.data)
        if self.kind.endless:
            pattern = self.kind.endless
            assert got == (pattern * (len(got) // len(pattern) + 1))[: len(got)]
        elif not self.kind.says:
            assert got == self.answer[: len(got)]

    @invariant()
    def its_buffer_is_limited(self) -> None:
        transport = self.transport()
        if transport is not None and self.limits is not None:
            assert transport.get_write_buffer_limits() == self.limits
        if transport is not None and self.kind.endless:
            assert transport.get_write_buffer_size() <= max(WATER_MARKS) + len(BLOCK)

    @invariant()
    def lives_are_one(self) -> None:
        assert not self.story.events or is_legal(self.story.events), self.story.events
        assert sum(side.service.live for side in self.world.sides) <= 2  # one of them frozen

    # -- the end -----------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "donor"):
            return
        try:
            self.all_arrives()
        finally:
            self.world.close()
        left = set(os.listdir("/proc/self/fd")) - self.descriptors
        assert not left, f"descriptors left open: {sorted(left)}"

    def all_arrives(self) -> None:
        """The peer sends the rest and reads all; then it has what it was to have, and the end."""

        def goes_on() -> bool:
            self.peer_sends(1.0, True, False)
            if not self.half_closed and (self.sent == len(self.text) or self.owed is not None):
                self.peer_half_closes(True, False)
            if self.may_pause:
                self.resumes_reading(False)
            self.turn("both", 1)
            self.got.read()
            endless = self.kind.endless and self.owed is None
            enough = endless and len(self.got.data) > 200_000
            return bool(self.got.end) or enough

        self.world.until(goes_on, "the end")
        self.bytes_are_exact()
        if self.kind.says:
            assert self.kind.says.fullmatch(self.got.data)
        if self.owed is not None:
            assert len(self.got.data) == self.owed
        elif not self.kind.endless:
            assert self.got.end == "EOF"
            assert self.kind.says or self.got.data == self.answer
        self.peer.close()
        self.world.until(
            lambda: not any(side.service.live for side in self.world.sides), "the last goodbye"
        )
        self.lives_are_one()
        if self.story.events:
            assert self.story.events[-1][1] == "lost"


def test_every_service_is_there() -> None:
    served = {kind.protocol.__module__ for kind in KINDS.values()}
    assert {target.partition(":")[0] for target in BUILT_IN.values()} <= served


@pytest.mark.parametrize("kind", KINDS)
def test_moved_after_each_byte(kind: str) -> None:
    model = AnyMove(kind)
    messages = [b"abc", RAW, b"", PAUSE, b"held", b"\r", b"end"]
    model.connect(messages, times=1, tcp=False, pauses=True, closes=False)
    for _ in model.text:
        model.peer_sends(0.0, True, True)
        model.lives_are_one()
    model.teardown()


@pytest.mark.timeout(300)  # only to make a failure small takes so long
@pytest.mark.parametrize("kind", KINDS)
def test_moved_or_not(kind: str) -> None:
    examples = 25 if "lines" in kind else 8 if KINDS[kind].text([b"x"]) else 4
    run(kind, settings(max_examples=examples, stateful_step_count=30, deadline=None))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_moved_or_not_at_length(kind: str) -> None:
    run(kind, settings(max_examples=50, stateful_step_count=60, deadline=None))


def run(kind: str, depth: settings) -> None:
    """So many stories of one protocol."""
    run_state_machine_as_test(functools.partial(AnyMove, kind), settings=depth)

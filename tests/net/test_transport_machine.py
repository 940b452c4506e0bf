"""The transport under any order of what protocol, peer and network can do to it."""

from __future__ import annotations

import socket

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
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

from epolld.net.loop import EventLoop
from epolld.net.service import Service

sizes = st.sampled_from([1, 100, 5_000, 70_000, 300_000])


def pattern(start: int, size: int) -> bytes:
    """Bytes that tell where in a stream they belong."""
    period = bytes(range(251))
    first = start % 251
    return (period * (size // 251 + 2))[first : first + size]


class AnyOrder(RuleBasedStateMachine):
    """Bytes are exact and in order, callbacks are legal, whatever happens when."""

    @initialize(tcp=st.booleans(), keep=st.booleans())
    def connect(self, tcp: bool, keep: bool) -> None:
        self.loop = EventLoop()
        self.tcp = tcp
        self.ours, self.peer = tcp_pair() if tcp else unix_pair()
        narrow(self.ours, self.peer)
        self.notes = Notes(eof_received=lambda p: keep)
        self.service = Service(self.loop, "test", lambda: self.notes)
        self.transport = serve(self.loop, self.ours, self.notes, self.service)
        self.got = Collected(self.peer)
        self.sent_by_peer = self.accepted = 0  # bytes
        self.broken = False  # aborted or reset: then bytes may be missing, but none be wrong
        self.ended = self.eof_written = self.peer_ended = self.peer_gone = False

    @rule(size=sizes)
    def write(self, size: int) -> None:
        data = pattern(self.accepted, size)
        if self.eof_written:
            try:
                self.transport.write(data)
            except RuntimeError:
                return
            # Dropped, if write_eof() came too late: what waited before it found the peer gone.
            assert self.transport.is_closed(), "write() after write_eof() was accepted"
            return
        # As in asyncio, what is written after close() still goes while the buffer drains.
        counts = not self.transport.is_closing() or self.transport.get_write_buffer_size()
        self.transport.write(data)
        if counts:
            self.accepted += size

    @rule()
    def write_eof(self) -> None:
        self.eof_written |= not self.transport.is_closing()
        self.transport.write_eof()

    @rule()
    def pause(self) -> None:
        self.transport.pause_reading()

    @rule()
    def resume(self) -> None:
        if "eof_received" not in self.notes.names:  # a known defect, tested elsewhere
            self.transport.resume_reading()

    @rule()
    def close(self) -> None:
        self.transport.close()
        self.ended = True

    @rule()
    def abort(self) -> None:
        self.transport.abort()
        self.ended = self.broken = True

    @rule(high=st.sampled_from([0, 1000, 65536]))
    def limits(self, high: int) -> None:
        self.transport.set_write_buffer_limits(high=high)

    @precondition(lambda self: not self.peer_ended)
    @rule(size=sizes)
    def peer_writes(self, size: int) -> None:
        try:
            self.sent_by_peer += self.peer.send(pattern(self.sent_by_peer, size))
        except BlockingIOError:
            pass
        except OSError:
            assert self.transport.is_closing()

    @precondition(lambda self: not self.peer_gone)
    @rule(limit=sizes)
    def peer_reads(self, limit: int) -> None:
        self.got.read(limit)

    @precondition(lambda self: not self.peer_ended)
    @rule()
    def peer_half_closes(self) -> None:
        self.peer_ended = True
        try:
            self.peer.shutdown(socket.SHUT_WR)
        except OSError:
            assert self.transport.is_closing()

    @precondition(lambda self: not self.peer_gone)
    @rule(how=st.sampled_from(["close", "reset"]))
    def peer_goes(self, how: str) -> None:
        self.peer_gone = self.peer_ended = self.broken = True
        if how == "reset" and self.tcp:
            reset(self.peer)
        else:
            self.peer.close()

    @rule()
    def turn(self) -> None:
        self.end_wake_up()
        turn(self.loop)

    @rule()
    def begin_wake_up(self) -> None:
        """What follows happens while the loop serves several events."""
        self.loop.senders = self.loop._senders

    @rule()
    def end_wake_up(self) -> None:
        self.loop._settle_senders()

    @invariant()
    def bytes_are_exact(self) -> None:
        assert self.notes.data == pattern(0, len(self.notes.data))
        assert len(self.notes.data) <= self.sent_by_peer
        assert self.got.data == pattern(0, len(self.got.data))

    @invariant()
    def callbacks_are_legal(self) -> None:
        names = self.notes.names
        assert names[0] == "connection_made"
        assert names.count("connection_lost") <= 1
        assert names.count("eof_received") <= 1
        if "connection_lost" in names:
            assert names[-1] == "connection_lost"
            assert self.service.live == 0
        if "eof_received" in names:
            assert "data_received" not in names[names.index("eof_received") :]
        flow = [name for name in names if name.endswith("_writing")]
        assert flow[::2] == ["pause_writing"] * len(flow[::2])
        assert flow[1::2] == ["resume_writing"] * len(flow[1::2])

    def teardown(self) -> None:
        """However it went: a close ends it, and what was accepted arrives."""
        if not hasattr(self, "loop"):
            return
        self.end_wake_up()
        self.transport.close()
        if not self.peer_gone:
            run_until(self.loop, lambda: self.got.end or self.got.read(), "the peer's end")
            if not self.broken and self.got.end == "EOF":
                assert len(self.got.data) == self.accepted
            self.peer.close()
        run_until(self.loop, lambda: self.notes.lost, "connection_lost")
        run_until(self.loop, lambda: self.transport.fileno() == -1, "the descriptor's end")
        run_until(self.loop, lambda: not self.loop.watchers(), "the end of lingering")
        settle(self.loop, 3)
        self.bytes_are_exact()
        self.callbacks_are_legal()
        assert self.loop.watchers() == []
        self.loop.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)

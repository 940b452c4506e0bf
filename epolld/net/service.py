"""A protocol and its live connections inside one worker.

The acceptor hands accepted sockets in; the transports report their end. Knows no listeners.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epolld.net.deadlines import GRAINS, Deadlines
from epolld.net.descriptor import pack_peer
from epolld.net.frozen import Frozen
from epolld.net.loop import EventLoop
from epolld.net.protocol import Protocol
from epolld.net.speedups import fastest_settle_all, fastest_transport
from epolld.net.transport import Transport
from epolld.net.travel import facts_of, peer_of

if TYPE_CHECKING:
    from epolld.net.guard import Guard
    from epolld.net.handshake import TlsServer

log = logging.getLogger("epolld.connection")

MOVED = "moved"  # among the ends: the connection lives on in another worker


class Service:
    """Makes a protocol and a transport for each accepted socket, and keeps count of them.

    `factory` is called without arguments for each connection; their ids come from
    `ids`, which services of one worker share. `idle_timeout` in seconds, 0 for
    none: after so long with no byte in or out a connection is ended. `on_change` is
    called with +1 after each opening, with -1 after each end.
    """

    transport_type: type[Transport] = fastest_transport

    def __init__(
        self,
        loop: EventLoop,
        name: str,
        factory: Callable[[], Protocol],
        idle_timeout: float = 0,
        on_change: Callable[[int], object] = lambda step: None,
        ids: Iterator[int] | None = None,
    ) -> None:
        self.name = name
        self.live = 0  # connections whose protocols have not been told of their end yet
        self.accepted = 0  # connections ever opened
        self.closed: dict[str, int] = {}  # ends, by cause; "moved" to another worker is one
        self.refused: dict[str, int] = {}  # connections that were not served, by cause
        self.adopted = 0  # connections that came from another worker
        self.bytes_in = self.bytes_out = 0  # of connections that have ended; see Counting
        self.protocol_type: type | None = None  # of the protocols that the factory makes
        self.postponed: dict[object, list[Callable[[], object]]] = {}  # calls on frozen transports
        self.tls: TlsServer | None = None
        self.guard: Guard | None = None  # limits, if there are any
        self.on_end: Callable[[Transport, str], object] | None = None  # with the cause
        # What `get_extra_info` tells beside the transport's own, where there is something.
        self.facts: dict[Transport, dict[str, Any]] = {}
        self.common: Mapping[str, object] = {}  # what it tells of all: worker, application
        self.ending = False  # the daemon ends connections: their peers may be in mid-sentence
        self.sockets: dict[Transport, socket.socket] = {}  # made for users that asked
        self._ids = itertools.count(1) if ids is None else ids
        self._loop = loop
        loop.settle_all = fastest_settle_all
        self._factory = factory
        self._on_change = on_change
        self._idle_timeout = idle_timeout
        self._idle: Deadlines[Transport] | None = None
        if idle_timeout:
            self._idle = Deadlines(loop, idle_timeout, self._look_at_idle)

    def speak_tls(self, tls: TlsServer) -> None:
        """Have all connections from now on use TLS."""
        self.tls = tls
        self.transport_type = tls.transport_type

    @property
    def transports(self) -> list[Transport]:
        """The connections that are open or closing, in no order.

        The loop's table is the only list of them: another would cost 70 bytes each.
        """
        return [
            watcher
            for watcher in self._loop.watchers()
            if isinstance(watcher, Transport) and watcher.service is self
        ]

    def in_threads(self) -> Sequence[Transport]:
        """Those of the connections that no loop watches."""
        return ()

    def open(self, fd: int, peer: Any, facts: dict[str, Any] | None = None) -> bool:
        """Serve a connected non-blocking socket; it belongs to the service from now on.

        `peer` is the client's address as accept() gave it, or packed; `facts` are for
        `get_extra_info`.
        False if it could not be served and is closed.
        """
        transport = self._make(fd, pack_peer(peer), next(self._ids))
        if transport is None:
            return False
        if facts:
            self.facts[transport] = facts
        self.accepted += 1
        self._begin(transport)
        if self.guard is not None:
            self.guard.begin(transport)
        transport.start()
        return True

    def adopt(self, fd: int, frozen: Frozen) -> None:
        """Go on with a connection of another worker."""
        transport = self._make(fd, peer_of(frozen), frozen.id)
        if transport is not None:
            if frozen.facts:
                self.facts[transport] = facts_of(frozen)
            self.adopted += 1
            self.bytes_in -= frozen.bytes_in  # counted where it comes from
            self.bytes_out -= frozen.bytes_out
            self._begin(transport, frozen.silent)
            transport.thaw(frozen)
            if self.guard is not None:
                self.guard.begin(transport, moved=True)

    def _make(self, fd: int, peer: Any, id: int) -> Transport | None:
        try:
            protocol = self._factory()
        except BaseException:
            log.exception("%s: cannot make a protocol; closing the connection", self.name)
            os.close(fd)
            self.refuse("no_protocol")
            return None
        self.protocol_type = type(protocol)
        transport_type = self.transport_type
        adapt = getattr(protocol, "adapt_transport", None)  # framings have one: see batches.py
        if adapt is not None:
            transport_type = adapt(transport_type)
        if self.guard is not None:
            transport_type = self.guard.transport_type(transport_type)
        return transport_type(self._loop, fd, protocol, self, peer, id)

    def _begin(self, transport: Transport, silent: float = 0.0) -> None:
        """Count it, and its idle time."""
        self.live += 1
        self._on_change(+1)
        if self._idle is not None:
            self._idle.start(transport, self._idle_timeout - silent)

    def refuse(self, cause: str) -> None:
        """Count a connection that was not served; `cause` is a name of causes.py."""
        self.refused[cause] = self.refused.get(cause, 0) + 1

    def on_refused(self, transport: Transport, cause: str) -> None:
        """A transport has ended before its protocol was introduced to it."""
        self.refuse(cause)
        if self.on_end is not None:
            self.on_end(transport, cause)
        self._end(transport)

    def count_waiting(self, step: int) -> None:
        """A connection waits to be opened (+1), or does no more (-1): the worker has it, too."""
        self._on_change(step)

    def on_closed(self, transport: Transport, cause: str) -> None:
        """A transport has ended or left, and its descriptor is released."""
        self.closed[cause] = self.closed.get(cause, 0) + 1
        if self.on_end is not None and cause != MOVED:
            self.on_end(transport, cause)
        self._end(transport)

    def _end(self, transport: Transport) -> None:
        """Count it no more."""
        self.live -= 1
        self.bytes_in += transport.bytes_in
        self.bytes_out += transport.bytes_out
        self._on_change(-1)
        if self._idle is not None:
            self._idle.end(transport)
        if self.guard is not None:
            self.guard.end(transport)
        if self.facts:
            self.facts.pop(transport, None)

    def socket_of(self, transport: Transport) -> socket.socket:
        """A socket object over the transport's descriptor, for its user; the same each time."""
        if transport not in self.sockets:
            self.sockets[transport] = socket.socket(fileno=transport.fileno())
        return self.sockets[transport]

    def forget_socket(self, transport: Transport) -> None:
        """The transport gives its descriptor up: the user's object, if there is one, is closed."""
        sock = self.sockets.pop(transport, None)
        if sock is not None:
            sock.detach()

    def on_listener(self, sock: socket.socket) -> None:
        """Connections of this listener will be the service's."""

    def is_unfinished(self) -> bool:
        """Whether a handler still works though its connection may have ended."""
        return False

    def on_draining(self) -> None:
        """The worker begins to leave; its connections are told one by one, with time between."""

    def end_all(self, patience: float, gently: bool) -> None:
        """Close every connection; what cannot be sent within `patience` seconds is dropped.

        `gently` waits for the peers' own end, for a while: see linger.py.
        """
        self.ending = gently
        for transport in self.transports:
            transport.close_within(patience)

    def _look_at_idle(self, transport: Transport) -> None:
        """End what has been idle for too long; whoever was active meanwhile waits for the rest."""
        assert self._idle is not None
        now = self._loop.now
        rest = transport.last_active + self._idle_timeout - now
        if transport.is_frozen():  # then its time is the other worker's to judge
            rest = self._idle_timeout / GRAINS
        if rest > 0:
            self._idle.start(transport, rest)
        else:
            transport.time_out(f"idle for {now - transport.last_active:.0f}s", "idle_timeout")

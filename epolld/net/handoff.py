"""Live connections move from one worker to another; nobody notices.

The donor stops a connection between two events (`Transport.freeze`), sends its descriptor and
its state, and forgets it when the heir's receipt comes. Who owns a connection is decided by that
receipt alone: the heir touches nothing before it has sent it, so a connection for which there is
none, because the heir died or had no room, is still exactly as the donor left it and goes on
there. No byte is lost, doubled or reordered, whoever dies when.

Each pair of donor and heir has a socketpair of its own (SOCK_SEQPACKET, made by the master). A
batch whose data do not fit a message travels in a memfd, as one more descriptor.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from epolld.channel import CONTROL_SIZE, received_descriptors
from epolld.net.frozen import BATCH, Batch, Frozen, Receipt, decode_batch, decode_receipt, encode
from epolld.net.loop import EventLoop
from epolld.net.protocol import Protocol
from epolld.net.service import Service
from epolld.net.transport import Transport

log = logging.getLogger("epolld.handoff")

# Batches under way from us to one heir. The other donors keep it busy meanwhile, and more would
# only make each connection wait for longer.
WINDOW = 1

# While the emptiest heir has not answered yet, others get no more connections than it has plus
# this: the heirs come out even. But an heir that takes longer than PATIENCE is waited for no more.
AHEAD = 16  # connections
PATIENCE = 0.1  # seconds

MIN_BATCH = 4  # connections; fewer are not worth a message

# Bytes of a message; a larger batch goes by memfd. Well below SO_SNDBUF (208 KiB as a rule),
# which must hold WINDOW of them, and the kernel's own overhead.
MAX_INLINE = 32768
MEMFD_MARK = b"\xc1"  # the one byte that never begins a MessagePack value

MAX_RECEIPT = 256  # bytes

RETRY_FIRST = 0.02  # seconds until what could not move is tried again, doubled each time
RETRY_LAST = 1.0


def can_move(protocol: object) -> bool:
    """Whether connections of this protocol can be moved at all.

    Either it says how, by a `freeze` of its own, or it is an `epolld.Protocol` that plainly has
    nothing to take along: no attribute but `transport`, no code for beginnings and ends.
    """
    freeze = getattr(type(protocol), "freeze", None)
    return freeze is not None and (freeze is not Protocol.freeze or protocol.freeze() is not None)  # type: ignore[attr-defined]


class _Heir:
    """A worker that takes connections, as the donor sees it."""

    def __init__(self, sock: socket.socket, row: int) -> None:
        self.sock = sock
        self.row = row  # in the scoreboard
        self.under_way: dict[int, list[tuple[Transport, Frozen]]] = {}  # by batch number
        self.sent_at = 0.0  # the last batch, in the loop's time

    def count_under_way(self) -> int:
        """Connections sent and not acknowledged yet."""
        return sum(map(len, self.under_way.values()))


class Donor:
    """Gives connections away: all of them, or `limit` of them.

    `live_of(row)` tells how many connections a worker has. `on_stuck(transport)` is called for
    each connection that cannot move at all, `on_done(moved)` once, when nothing is left to move
    or nobody to take it.
    """

    def __init__(
        self,
        loop: EventLoop,
        live_of: Callable[[int], int],
        on_stuck: Callable[[Transport], object],
        on_done: Callable[[int], object],
    ) -> None:
        self._loop = loop
        self._live_of = live_of
        self._on_stuck = on_stuck
        self._on_done = on_done
        self._heirs: list[_Heir] = []
        self._waiting: deque[Transport] = deque()
        self._not_now: list[Transport] = []
        self._number = 0
        self._batch = BATCH  # connections a message; fewer, if that spreads them better
        self._retry_after = RETRY_FIRST
        self._retrying = False
        self._movable: Collection[str] | None = None
        self._giving = False  # told what to give
        self._persistent = True  # tries again what cannot move now
        self._done = False
        self._moved = 0  # connections that have found a new home

    def add_heirs(
        self, descriptors: Mapping[int, int], movable: Collection[str] | None = None
    ) -> None:
        """Give to these workers, by row: each descriptor is a socketpair's end, ours from now.

        They can take connections of the services that `movable` names (None: of all).
        """
        self._movable = movable
        for row, fd in descriptors.items():
            self._add_heir(_Heir(socket.socket(fileno=fd), row))
        self._send_all()

    def _add_heir(self, heir: _Heir) -> None:
        heir.sock.setblocking(False)
        self._heirs.append(heir)
        self._loop.register(heir.sock.fileno(), select.EPOLLIN, lambda _events: self._hear(heir))

    def is_done(self) -> bool:
        """Whether nothing more will happen."""
        return self._done

    def not_moved(self) -> list[Transport]:
        """The connections that could not move up to now."""
        return [*self._waiting, *self._not_now]

    def give(self, services: Iterable[Service], limit: int | None = None) -> None:
        """Give away the connections of `services`; with a `limit`, so many that can move now."""
        self._persistent = limit is None
        for service in services:
            for transport in service.transports:
                if len(self._waiting) == limit:
                    break
                protocol = transport.get_protocol()
                # In the other worker it will be what the service makes, so it must be that here.
                if type(protocol) is service.protocol_type and can_move(protocol):
                    self._waiting.append(transport)
                else:
                    self._on_stuck(transport)
        self._giving = True
        if len(self._heirs) > 1:  # several batches for each, or a few connections all go to one
            fair = len(self._waiting) // len(self._heirs)
            self._batch = min(BATCH, max(MIN_BATCH, fair // 4))
        self._send_all()

    def _send_all(self) -> None:
        """Send as much as may be under way."""
        if self._done or not self._giving:
            return
        if self._movable is not None and not self._movable:
            for transport in self.not_moved():
                self._on_stuck(transport)
            self._waiting.clear()
            self._not_now.clear()
        while self._waiting:
            heir = self._choose()
            if heir is None or not self._send_batch(heir):
                break
        left = self._waiting or self._not_now or any(heir.under_way for heir in self._heirs)
        if not left or not self._heirs:
            self._done = True
            for heir in list(self._heirs):  # nothing is under way to them
                self._forget(heir)
            self._on_done(self._moved)

    def _choose(self) -> _Heir | None:
        """The heir with the fewest connections, of those that have room for a batch."""
        load = {heir: self._live_of(heir.row) + heir.count_under_way() for heir in self._heirs}
        ready = [heir for heir in self._heirs if len(heir.under_way) < WINDOW]
        if not ready:
            return None
        best = min(ready, key=lambda heir: load[heir])
        since = self._loop.now - PATIENCE
        alive = [heir for heir in self._heirs if not heir.under_way or heir.sent_at > since]
        if alive and load[best] > min(load[heir] for heir in alive) + AHEAD:
            # Its receipt wakes us, or else this.
            self._loop.call_later(PATIENCE, self._send_all)
            return None
        return best

    def _send_batch(self, heir: _Heir) -> bool:
        """Freeze the next connections and send them; False to wait before the next."""
        frozen: list[tuple[Transport, Frozen]] = []
        while self._waiting and len(frozen) < self._batch:
            transport = self._waiting.popleft()
            if transport.is_closed():
                continue
            if self._movable is not None and transport.service.name not in self._movable:
                self._on_stuck(transport)
                continue
            try:
                rest = transport.freeze()
            except Exception:
                log.exception("%s: freeze failed; the connection stays", transport)
                self._on_stuck(transport)
                continue
            if rest is not None:
                frozen.append((transport, rest))
            elif self._persistent:
                self._not_now.append(transport)
                self._retry_later()
        if not frozen:
            return bool(self._waiting)
        self._number += 1
        batch = Batch(self._number, [rest for _, rest in frozen])
        try:
            _send(heir.sock, encode(batch), [transport.fileno() for transport, _ in frozen])
        except (TypeError, ValueError):
            log.exception("hand-over: a connection cannot be described; %d stay", len(frozen))
            for transport, rest in frozen:
                transport.unfreeze(rest)
                self._on_stuck(transport)
            return True
        except OSError as exc:
            # EAGAIN, ENOBUFS; ETOOMANYREFS: too many descriptors are in flight (unix(7)). Or the
            # heir is dead, which its end of file will tell. Nothing has left us.
            log.debug("hand-over waits: %s", exc)
            for transport, rest in frozen:
                transport.unfreeze(rest)
                self._not_now.append(transport)
            self._retry_later()
            return False
        heir.under_way[batch.number] = frozen
        heir.sent_at = self._loop.now
        return True

    def _hear(self, heir: _Heir) -> None:
        """A receipt, or the heir's end."""
        try:
            data = heir.sock.recv(MAX_RECEIPT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            # It closed with something of ours unread. The kernel says so before it hands out what
            # came from there earlier (sock_error comes first in __skb_recv_datagram), and there
            # may be receipts among that: ask again, until the end of file.
            return
        if data:
            self._settle(heir, decode_receipt(data))
            self._retry_after = RETRY_FIRST
        else:
            self._bury(heir)
        self._send_all()

    def _settle(self, heir: _Heir, receipt: Receipt) -> None:
        """Let go of what the heir has taken, take back what it has not."""
        for place, (transport, rest) in enumerate(heir.under_way.pop(receipt.number, ())):
            if place < receipt.taken:
                transport.release()
                self._moved += 1
            else:
                transport.unfreeze(rest)
                self._not_now.append(transport)
                self._retry_later()

    def _bury(self, heir: _Heir) -> None:
        """An heir is gone: what it had not acknowledged is ours, as it was."""
        for batch in heir.under_way.values():
            for transport, rest in batch:
                transport.unfreeze(rest)
                self._waiting.append(transport)
        self._forget(heir)

    def _forget(self, heir: _Heir) -> None:
        self._heirs.remove(heir)
        self._loop.unregister(heir.sock.fileno())
        self._loop.call_soon(heir.sock.close)

    def _retry_later(self) -> None:
        if not self._retrying:
            self._retrying = True
            self._loop.call_later(self._retry_after, self._retry)
            self._retry_after = min(self._retry_after * 2, RETRY_LAST)

    def _retry(self) -> None:
        self._retrying = False
        self._waiting.extend(self._not_now)
        self._not_now.clear()
        self._send_all()


class Receiver:
    """Takes connections from donors."""

    def __init__(self, loop: EventLoop) -> None:
        self.services: Mapping[str, Service] = {}  # by name; who adopts connections
        self._loop = loop
        self._donors: set[socket.socket] = set()

    def add_donor(self, fd: int) -> None:
        """Take from the worker at the other end of `fd`, a socketpair's end that is ours now."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        self._donors.add(sock)
        self._loop.register(fd, select.EPOLLIN, lambda _events: self._receive(sock))

    def close(self) -> None:
        """Take nothing more: what has been sent and not been received goes back."""
        for sock in list(self._donors):
            self._lose(sock)

    def _receive(self, sock: socket.socket) -> None:
        """Take one batch, so that others get their turn before the next."""
        received = None
        try:
            received = _receive(sock)
            batch = None if received is None else _decode(*received)
        except (BlockingIOError, ConnectionResetError):  # reset: see Donor._hear
            return
        except (OSError, ValueError, msgspec.MsgspecError) as exc:
            log.error("hand-over broken off: %s", exc)
            batch = None
        if received is None or batch is None:
            self._lose(sock)
            return
        descriptors = received[1]
        # The receipt first: with it they are ours, and not before it may we touch them. If the
        # donor is dead by now, nobody else has them.
        with contextlib.suppress(OSError):
            sock.send(encode(Receipt(batch.number, len(descriptors))))
        for fd, frozen in zip(descriptors, batch.connections, strict=False):
            self._adopt(fd, frozen)

    def _adopt(self, fd: int, frozen: Frozen) -> None:
        service = self.services.get(frozen.service)
        if service is None:
            log.error("hand-over: there is no service %r here, closing", frozen.service)
            os.close(fd)
            return
        service.adopt(fd, frozen)  # non-blocking: that is a flag of the open file, which travels

    def _lose(self, sock: socket.socket) -> None:
        self._donors.discard(sock)
        self._loop.unregister(sock.fileno())
        self._loop.call_soon(sock.close)


def _send(sock: socket.socket, data: bytes, descriptors: list[int]) -> None:
    """Send one message with descriptors, its data in a memfd if there are many."""
    if len(data) <= MAX_INLINE:
        socket.send_fds(sock, [data], descriptors)
        return
    memory = os.memfd_create("epolld-handoff", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(memory, view) :]
        socket.send_fds(sock, [MEMFD_MARK], [memory, *descriptors])
    finally:
        os.close(memory)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """One message and its descriptors, which are the caller's; None at the end.

    The descriptors may be fewer than were sent, when this process may open no more: the kernel
    hands over the first ones and drops the rest, which are the donor's still.
    """
    data, control, _flags, _ = sock.recvmsg(MAX_INLINE, CONTROL_SIZE, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    descriptors = list(received_descriptors(control))
    if data != MEMFD_MARK:
        return data, descriptors
    if not descriptors:
        raise ValueError("no room in the descriptor table even for the batch's data")
    with open(descriptors.pop(0), "rb") as file:
        file.seek(0)
        return file.read(), descriptors


def _decode(data: bytes, descriptors: list[int]) -> Batch:
    """The batch; if it is none, its descriptors are closed."""
    try:
        return decode_batch(data)
    except (ValueError, msgspec.MsgspecError):
        for fd in descriptors:
            os.close(fd)
        raise

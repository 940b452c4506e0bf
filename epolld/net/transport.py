"""A connection: bytes in, bytes out, and a protocol that is told about both.

The shape and the semantics are those of `asyncio.Transport`
(https://docs.python.org/3/library/asyncio-protocol.html#transports), edge cases included, so
that a protocol written for asyncio does not notice. The one rule behind the speed: write to the
socket at once, buffer only what the kernel did not take, and ask for EPOLLOUT only while there
is something buffered. Most answers fit, and then a message costs one recv and one send.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from epolld.net import descriptor
from epolld.net.connlog import ConnectionLogger, get_logger
from epolld.net.feeder import Feeder, fed
from epolld.net.linger import linger
from epolld.net.loop import EventLoop
from epolld.net.protocol import Protocol
from epolld.net.states import CLOSED, CLOSING, FROZEN, OPEN
from epolld.net.travel import NOTHING, Traveller

if TYPE_CHECKING:
    from epolld.net.service import Service

log = logging.getLogger("epolld.connection")

# Not `socket.recv` and `send`: these take a number, need no object, and are called faster.
os_read = os.read
os_write = os.write

EPOLLIN = select.EPOLLIN
EPOLLOUT = select.EPOLLOUT

# Bytes taken from a connection in one turn, so that a greedy peer waits for its next turn like all
# others. Below malloc's mmap threshold (128 KiB): above it every receive would map, fault in and
# unmap fresh pages, which trebles its system time.
READ_SIZE = 65536

# Bytes of each receive until one comes out full; from then on it is READ_SIZE. A bytes object of up
# to 512 bytes, 33 of them its head, comes from Python's own allocator: for small messages that
# saves a tenth of the instructions in user space (7,683 to 6,906 a message, by callgrind).
FIRST_READ_SIZE = 479

# The write buffer's water marks in bytes; asyncio's defaults.
HIGH_WATER = 65536
LOW_WATER = 16384
DEFAULT_LIMITS = LOW_WATER, HIGH_WATER

WHILE_FROZEN = 0.05  # seconds by which a timer is put off while a connection is under way

RESETS = {errno.ECONNRESET, errno.EPIPE}  # the peer is gone, with bytes under way

UNREGISTERED = -1  # a value of _events: not in the interest list; new, or parked

Buffer = bytes | bytearray | memoryview


class Transport(Traveller):
    """One connection of a service; made by the acceptor, ended by whoever comes first.

    `id` names it for as long as it lives, in whatever worker. `opened` and `last_active` are the
    loop's time (seconds) at which it was accepted and at which bytes last went in or out;
    `bytes_in` and `bytes_out` count what came and what the kernel has taken.
    """

    __slots__ = ()  # all are the base's

    def __init__(
        self,
        loop: EventLoop,
        fd: int,
        protocol: Protocol,
        service: Service,
        peer: Any,
        id: int,
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._protocol = protocol
        self._service = service
        self._peer = peer  # as descriptor.pack_peer makes it
        self._state = OPEN
        # Written in this wake-up, not yet tried. None while a write must not go to the socket:
        # something is in _out, or our direction has ended.
        self._unsent: Buffer | None = NOTHING
        self._reading = True  # the protocol wants data (it may pause that)
        self._out: bytearray | None = None  # accepted for writing, not yet sent; never empty
        self._read_size = FIRST_READ_SIZE
        self._events = UNREGISTERED
        self._eof_received = False
        self._eof_written = False
        self._writing_paused = False
        self._limits = DEFAULT_LIMITS
        self._cause = ""
        self.bytes_in = self.bytes_out = 0
        self.id = id
        self.opened = self.last_active = loop.now

    def __repr__(self) -> str:
        return f"<Transport {self._service.name} {self.describe_peer()} {self._state.value}>"

    # -- what the protocol calls ---------------------------------------------------------------

    def write(self, data: Buffer) -> None:
        """Send `data`, now or as soon as the peer takes it; never blocks, keeps no reference.

        Raises TypeError if it is not bytes-like, RuntimeError after `write_eof()`. On a
        connection that has ended the data are dropped.
        """
        senders = self._loop.senders
        if type(data) is not bytes:
            data = byte_view(data)
            if senders is not None:
                data = bytes(data)
        unsent = self._unsent
        if unsent is NOTHING:
            if data:
                self._unsent = data
                if senders is None:
                    self.settle()
                else:
                    senders.append(self)
            return
        if unsent is not None:
            self._add_unsent(data)
            return
        if self._eof_written:
            raise RuntimeError("write() after write_eof()")
        if self._out is not None:
            self._out += data
            self._pause_if_full()
        elif data and self._state is not CLOSED:
            # Frozen, it may come back. Closing, this is the last `resume_writing`: it counts.
            self._out = bytearray(data)

    def _add_unsent(self, data: Buffer) -> None:
        unsent = self._unsent
        if not isinstance(unsent, bytearray):
            assert unsent is not None
            unsent = self._unsent = bytearray(unsent)
        unsent += data
        if len(unsent) > HIGH_WATER:  # `pause_writing` shall have a say
            self.settle()

    def settle(self) -> None:
        """Send what was written in this wake-up, as far as the kernel takes it; keep the rest."""
        if self._unsent:
            settle_all((self,))

    def _keep(self, data: Buffer) -> None:
        """The kernel takes no more for now."""
        self._unsent = None
        self._out = bytearray(data)
        self._watch()
        self._pause_if_full()

    def writelines(self, chunks: Iterable[Buffer]) -> None:
        """Send the concatenation of `chunks`, as `write()`."""
        self.write(b"".join(chunks))

    def write_eof(self) -> None:
        """Send what is buffered, then end our direction; reading goes on."""
        self.settle()
        if self._state is FROZEN:
            self._postpone(self.write_eof)
        if self._eof_written or self._state is not OPEN:
            return
        self._eof_written = True
        self._unsent = None
        if self._out is None:
            self._shut_writing()

    def can_write_eof(self) -> bool:
        """Whether `write_eof()` works: always."""
        return True

    def close(self) -> None:
        """End the connection: read no more, send what is buffered, then `connection_lost(None)`."""
        self.settle()
        if self._state is OPEN:
            self._state = CLOSING
            self._reading = False
            self._cause = self._cause or "closed"
            if self._out is None:
                self.lose(None, self._cause)
            else:
                self._watch()
        elif self._state is FROZEN:
            self._postpone(self.close)

    def abort(self) -> None:
        """End the connection at once; what is buffered for writing is dropped."""
        if self._state is FROZEN:
            self._postpone(self.abort)
        else:
            self.lose(None, "aborted")

    def is_closing(self) -> bool:
        """Whether the connection is closing or closed."""
        return self._state is not OPEN

    def pause_reading(self) -> None:
        """Call `data_received` no more until `resume_reading()`; the peer is held back by TCP."""
        if self._reading:
            self._reading = False
            self._watch()
        elif self._state is FROZEN:
            self._postpone(self.pause_reading)

    def resume_reading(self) -> None:
        """Call `data_received` again."""
        if not self._reading and self._state is OPEN and not self._eof_received:
            self._reading = True
            self._watch()
        elif self._state is FROZEN:
            self._postpone(self.resume_reading)

    def is_reading(self) -> bool:
        """Whether data are being received: not paused, closing or closed."""
        return self._reading

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the water marks, in bytes, between which the protocol is told to pause writing.

        `pause_writing` is called when the buffer grows above `high`, `resume_writing` when it is
        down to `low`. Left out, `low` is a quarter of `high` and `high` four times `low`.
        Raises ValueError unless high >= low >= 0.
        """
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be >= low ({low}), and low >= 0")
        self._limits = low, high
        self._pause_if_full()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The water marks `(low, high)` in bytes."""
        return self._limits

    def get_write_buffer_size(self) -> int:
        """Bytes accepted for writing that the kernel has not taken yet."""
        self.settle()
        return 0 if self._out is None else len(self._out)

    def get_protocol(self) -> Protocol:
        """The protocol that is told about this connection; as asyncio's, None after the end."""
        protocol: Any = self._protocol
        served: Protocol = protocol.protocol if type(protocol) is Feeder else protocol
        return served

    def set_protocol(self, protocol: Protocol) -> None:
        """Tell another protocol from now on; its `connection_made` is not called."""
        self._protocol = fed(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Facts about the connection, by asyncio's names and some more; else `default`.

        'peername', 'sockname', 'socket' as of the socket module; the peer's stays known after the
        end. 'peercred': (pid, uid, gid) of who connected, on Unix sockets. 'connection_id';
        'service', its name; 'worker', its slot; 'application', the worker's.
        Behind a proxy that speaks the PROXY protocol, 'peername' is the real client; then there
        are 'proxy_peername' (the proxy), 'proxy_sockname' (the address that the client connected
        to) and 'proxy_tlvs' (a dict of bytes by type).
        """
        if name == "peername":
            return descriptor.unpack_peer(self._peer)
        if name == "socket":
            self.settle()
            return self._service.socket_of(self) if self._fd >= 0 else default
        if name == "sockname":
            return descriptor.local_address(self._fd) if self._fd >= 0 else default
        if name == "service":
            return self._service.name
        if name == "connection_id":
            return self.id
        if name == "peercred" and self._fd >= 0:
            return descriptor.peer_credentials(self._fd) or default
        service = self._service
        own = service.facts.get(self)
        if own is not None and name in own:
            return own[name]
        return service.common.get(name, default)

    @property
    def logger(self) -> ConnectionLogger:
        """A logger that names the service and the peer in each line; a new one each time."""
        return get_logger(self)

    def start_tls(self, on_secured: Callable[[], object] | None = None) -> None:
        """Begin TLS, in a service with `tls` settings and `starttls: true`.

        What was written before goes out in plain text; what is written from here on waits for the
        handshake. `on_secured()` is called when that is done; if it fails, `connection_lost` is.
        The protocol's `discard_input()`, if it has one, is called at once: what came in plain text
        behind the command may be anybody's.
        Raises RuntimeError without these settings, and on a connection that is closing.
        """
        raise RuntimeError("start_tls() needs the service's `tls` settings, with starttls: true")

    def call_later(self, delay: float, callback: Callable[[], object]) -> ConnectionTimer:
        """Call `callback()` in `delay` seconds, fenced like the protocol's own methods.

        Returns a timer that can be cancelled. It is not called once the connection has ended.
        """
        return ConnectionTimer(self, delay, callback)

    # -- what the event loop and the service call ----------------------------------------------

    def start(self) -> None:
        """Introduce the protocol to the connection and begin to read."""
        try:
            self._protocol.connection_made(self)
        except BaseException as exc:
            self._fault("connection_made", exc)
        if self._state is OPEN:
            self._watch()

    def on_ready(self, events: int) -> None:
        """Serve what epoll reported. The hot path: one recv, the protocol, maybe its send."""
        if events == EPOLLIN and self._reading:
            try:
                data = os_read(self._fd, self._read_size)
            except BlockingIOError:
                return
            except OSError as exc:
                self._break(exc)
                return
            if data:
                self.last_active = self._loop.now
                size = len(data)
                self.bytes_in += size
                if size == FIRST_READ_SIZE:
                    self._read_size = READ_SIZE
                try:
                    self._protocol.data_received(data)
                except BaseException as exc:
                    self._fault("data_received", exc)
            else:
                self._on_eof()
            return
        if self._state is FROZEN:
            return
        if events & EPOLLOUT and self._out is not None:
            self._flush()
        if events & ~EPOLLOUT:
            if self._reading:
                # With EPOLLHUP and EPOLLERR, too, recv tells what happened: rest, end or error.
                self.on_ready(EPOLLIN)
            elif self._state is not CLOSED:
                self._on_hangup()

    @property
    def service(self) -> Service:
        """The service that it belongs to."""
        return self._service

    _start_tls_compatible = True  # what asyncio's loop.start_tls() asks for

    def _force_close(self, exc: BaseException | None) -> None:
        """End the connection because of `exc`: asyncio's TLS calls it."""
        self.lose(exc, "error" if exc is not None else "aborted")

    def tell_draining(self) -> bool:
        """Call the protocol's `draining`; False if it has one of its own and decides itself."""
        own = getattr(type(self.get_protocol()), "draining", Protocol.draining)
        if own is Protocol.draining:
            return True
        return self._state is OPEN and self._guard("draining") is True

    def silent_for(self, seconds: float) -> bool:
        """Whether no byte has gone in or out for `seconds`."""
        return self._loop.now - self.last_active >= seconds

    def is_closed(self) -> bool:
        """Whether it has ended, or has left for another worker."""
        return self._state is CLOSED

    def describe_state(self) -> str:
        """Its state in a word: open, closing, frozen, closed."""
        return self._state.value

    def fileno(self) -> int:
        """The socket's descriptor; -1 once it is closed."""
        return self._fd

    def describe_peer(self) -> str:
        """The peer for a log line: `192.0.2.7:4711`, `[2001:db8::7]:4711`, `unix peer`."""
        return descriptor.describe_peer(descriptor.unpack_peer(self._peer))

    def time_out(self, reason: str, cause: str) -> None:
        """End the connection because a time limit was reached; what is buffered is dropped."""
        log.info("%s: %s: %s, closing", self._service.name, self.describe_peer(), reason)
        self.lose(TimeoutError(reason), cause)

    def close_for(self, cause: str) -> None:
        """Close as `close()`, to be counted under `cause`."""
        if self._state is OPEN:
            self._cause = cause
        self.close()

    def close_within(self, patience: float) -> None:
        """Close as `close()`, but drop what cannot be sent within `patience` seconds."""
        self.close_for("drained")
        if self._state is CLOSING:
            self._loop.call_later(patience, self.abort)

    # -- inside --------------------------------------------------------------------------------

    def _become(self, kind: type[Transport]) -> None:
        """Go on as a transport of another kind, with what is mixed into this one."""
        self.__class__ = self._mixed(kind)

    def _mixed(self, kind: type[Transport]) -> type[Transport]:
        """`kind` with what is mixed into this object's class; each mixture adds itself."""
        return kind

    def _watch(self) -> None:
        """Have epoll report what is wanted now. Errors and hang-ups it reports in any case."""
        if self._state is CLOSED or self._state is FROZEN:
            return
        wanted = EPOLLIN if self._reading else 0
        if self._out is not None:
            wanted |= EPOLLOUT
        if wanted == self._events:
            return
        if self._events == UNREGISTERED:
            try:
                self._loop.add(self._fd, wanted, self)
            except OSError as exc:  # ENOSPC: no more watches for this user; ENOMEM
                self._break(exc)
                return
        else:
            self._loop.modify(self._fd, wanted)
        self._events = wanted

    def _park(self) -> None:
        """Have epoll report nothing, not even errors and hang-ups, until `_watch`."""
        if self._events != UNREGISTERED:
            self._loop.park(self._fd)
            self._events = UNREGISTERED

    def _flush(self) -> None:
        """Send what the peer takes of the buffer now."""
        out = self._out
        assert out is not None
        try:
            sent = os_write(self._fd, out)
        except BlockingIOError:
            return
        except OSError as exc:
            self._break(exc)
            return
        self.bytes_out += sent
        self.last_active = self._loop.now
        del out[:sent]  # cheap: a bytearray only moves its start
        if not out:
            self._out = None
            if self._state is OPEN and not self._eof_written:
                self._unsent = NOTHING
        if self._writing_paused and len(out) <= self._limits[0]:
            self._writing_paused = False
            self._guard("resume_writing")  # may write again, close or abort
        if self._out is None and self._state is not CLOSED:
            if self._state is CLOSING:
                self.lose(None, self._cause)
            else:
                if self._eof_written:
                    self._shut_writing()
                self._watch()

    def _pause_if_full(self) -> None:
        size = self.get_write_buffer_size()  # first, because that may pause, too
        if not self._writing_paused and size > self._limits[1]:
            self._writing_paused = True
            self._guard("pause_writing")

    def _shut_writing(self) -> None:
        try:
            descriptor.shutdown(self._fd, socket.SHUT_WR)
        except OSError as exc:  # the peer is gone altogether
            self._break(exc)

    def _on_eof(self) -> None:
        """The peer has sent all it will; what now is the protocol's choice."""
        self._eof_received = True
        try:
            keep_open = self._protocol.eof_received()
        except BaseException as exc:
            self._fault("eof_received", exc)
        self.settle()
        if self._state is not OPEN:
            return
        if keep_open:
            # The end stays readable for ever: wait for it again and the loop spins.
            self._reading = False
            self._watch()
        elif self._out is None:
            self.lose(None, "eof")
        else:
            self.close_for("eof")

    def _on_hangup(self) -> None:
        """EPOLLHUP or EPOLLERR while nobody wants to read.

        An error ends the connection. A mere hang-up (both directions are shut) may still have
        unread data before it, so it must wait until the protocol resumes; since it cannot be
        masked, the descriptor leaves the interest list until then, or the loop would spin.
        """
        error = descriptor.pending_error(self._fd)
        if error is not None:
            self._break(error)
        elif self._out is None:
            self._park()

    def _guard(self, callback: str, *args: object) -> Any:
        """Call a method of the protocol; what it lets through ends this connection only."""
        try:
            return getattr(self._protocol, callback)(*args)
        except BaseException as exc:
            self._fault(callback, exc)
            return None

    def _fault(self, callback: str, exc: BaseException) -> None:
        """User code let an exception through: ours to contain, theirs to mend."""
        log.error(
            "%s: %s of %s raised %s; closing the connection from %s",
            self._service.name,
            callback,
            type(self.get_protocol()).__qualname__,
            type(exc).__name__,
            self.describe_peer(),
            exc_info=exc,
        )
        self.lose(exc, "callback_error")

    def _break(self, exc: OSError) -> None:
        """The network or the peer ended the connection."""
        log.debug("%s: %s: %s", self._service.name, self.describe_peer(), exc)
        self.lose(exc, "reset" if exc.errno in RESETS else "error")

    def lose(self, exc: BaseException | None, cause: str) -> None:
        """The connection is over: forget the buffer, and tell the protocol after this turn.

        `cause` is a name of causes.py, under which the end is counted.
        """
        self.settle()
        if self._state is CLOSED:
            return
        self._loop.unregister(self._fd)
        self._state = CLOSED
        self._cause = cause
        self._reading = False
        self._unsent = None
        self._out = None
        self._loop.call_soon(lambda: self._finish(exc))

    def _finish(self, exc: BaseException | None) -> None:
        """Tell the protocol and give the descriptor back: deferred, so that within one turn of
        the loop a descriptor's number never comes to mean another connection."""
        try:
            self._protocol.connection_lost(exc)
        except BaseException as fault:
            self._fault("connection_lost", fault)
        fd = self._give_up_descriptor()
        if exc is None and not self._eof_received:
            linger(self._loop, fd, self._service.ending)
        else:
            os.close(fd)
        self._service.on_closed(self, self._cause)
        # A protocol keeps its transport. Else each would wait for the other until the collector of
        # such cycles comes round, and with them whatever the protocol has gathered.
        self._protocol = None  # type: ignore[assignment]


class ConnectionTimer:
    """A call that is due on a connection; `cancel()` takes it back. As asyncio's TimerHandle."""

    __slots__ = ("_callback", "_timer", "_transport")

    def __init__(self, transport: Transport, delay: float, callback: Callable[[], object]) -> None:
        self._transport = transport
        self._callback = callback
        self._timer = transport._loop.call_later(delay, self._due)

    def cancel(self) -> None:
        """Never call back. Harmless after the call or a second time."""
        self._timer.cancel()

    def cancelled(self) -> bool:
        """Whether it was cancelled or has been called."""
        return self._timer.cancelled()

    def _due(self) -> None:
        transport = self._transport
        if transport._state is FROZEN:  # it may come back; then this is late, but not lost
            self._timer = transport._loop.call_later(WHILE_FROZEN, self._due)
        elif transport._state is not CLOSED:
            try:
                self._callback()
            except BaseException as exc:
                transport._fault(getattr(self._callback, "__qualname__", "a timer"), exc)


def settle_all(transports: Iterable[Transport]) -> None:
    """`settle` for all of them, in one loop: the second half of the hot path."""
    for transport in transports:
        unsent = transport._unsent
        if not unsent:
            continue  # settled before, because something had to follow it
        try:
            sent = os_write(transport._fd, unsent)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            transport._unsent = None
            transport._break(exc)
            continue
        transport.bytes_out += sent
        transport.last_active = transport._loop.now
        if sent == len(unsent):
            transport._unsent = NOTHING
        else:
            transport._keep(memoryview(unsent)[sent:])


def byte_view(data: Buffer) -> memoryview:
    """View any bytes-like object as plain bytes, so that its len() is its size in bytes."""
    return memoryview(data).cast("B")

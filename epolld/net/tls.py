"""TLS on a connection that epolld reads and writes itself: OpenSSL sees memory, never a socket.

    os.read → incoming → OpenSSL → data_received        write → OpenSSL → outgoing → os.write

Each phase of such a connection is a class: `Plain` (until the protocol calls `start_tls`),
`Handshake`, `TlsTransport`; the first two are in handshake.py. Moving on is to become the next
class, so that no phase asks at each event which one it is, and a service without TLS pays nothing
for those that have it. All that waits to be sent waits sealed, in the buffer that the plain
transport has; water marks, closing and lingering are the plain transport's, too.

A peer ends its direction with close_notify (RFC 8446, 6.1). An end of the connection without it
may be somebody else's doing, so it is an error: the cause "truncated".
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from epolld.net.frozen import Frozen
from epolld.net.protocol import Protocol
from epolld.net.states import OPEN
from epolld.net.transport import (
    EPOLLIN,
    EPOLLOUT,
    FIRST_READ_SIZE,
    READ_SIZE,
    Buffer,
    Transport,
    byte_view,
)

if TYPE_CHECKING:
    from epolld.net.handshake import TlsServer
    from epolld.net.loop import EventLoop
    from epolld.net.service import Service

os_read = os.read
os_write = os.write

RECORD = 16384  # bytes of plain text in a full record (RFC 8446, 5.1)

# Bytes of a long write that are sealed at a time: four full records. OpenSSL would seal all of it
# at once, and it would exist three times.
PIECE = 4 * RECORD


class TlsBase(Transport):
    """What a connection with TLS consists of, in whatever phase."""

    __slots__ = (
        "_early",
        "_ended",
        "_incoming",
        "_introduced",
        "_on_secured",
        "_outgoing",
        "_server",
        "_tls",
        "_wants_data",
    )

    def __init__(
        self, loop: EventLoop, fd: int, protocol: Protocol, service: Service, peer: Any, id: int
    ) -> None:
        super().__init__(loop, fd, protocol, service, peer, id)
        assert service.tls is not None
        self._server: TlsServer = service.tls
        self._tls: Any = None  # the ssl.SSLObject, made when the first byte of a handshake comes
        self._incoming: Any = None  # ssl.MemoryBIO: received, and not read by OpenSSL
        self._outgoing: Any = None  # ssl.MemoryBIO: written by OpenSSL, and not sent
        self._introduced = False  # connection_made has been called
        self._ended = False  # the peer's close_notify has come, and the protocol was not told yet
        self._early: bytearray | None = None  # plain text that was written during the handshake
        self._wants_data = True  # during the handshake: what _reading is to be after it
        self._on_secured: Callable[[], object] | None = None

    def freeze(self) -> Frozen | None:
        """Never: half of the connection is in OpenSSL's memory."""
        return None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of any transport; and asyncio's names for TLS, once it is established.

        'ssl_object', 'sslcontext', 'peercert', 'cipher', 'compression'; and ours: 'alpn' and
        'server_name' (by SNI), None where none was agreed upon or asked for, and 'tls_version'.
        """
        tls = self._tls
        if tls is None or name not in FACTS:
            return super().get_extra_info(name, default)
        return FACTS[name](tls)

    def _send(self, sealed: bytes) -> None:
        """Send what OpenSSL has made, after what waits already."""
        if self._out is not None:
            self._out += sealed
            return
        sent = 0
        try:
            sent = os_write(self._fd, sealed)
        except BlockingIOError:
            pass
        except OSError as exc:
            self._break(exc)
            return
        self.bytes_out += sent
        self.last_active = self._loop.now
        if sent != len(sealed):
            self._unsent = None
            self._out = bytearray(sealed[sent:])
            self._watch()

    def _break(self, exc: OSError) -> None:
        if isinstance(exc, ssl.SSLError):
            self._fail(exc, "protocol_error")
        else:
            super()._break(exc)

    def _fail(self, exc: ssl.SSLError, cause: str) -> None:
        """TLS cannot go on. The peer is told why, if that can be sent at once."""
        alert = self._outgoing.read()
        if alert and self._out is None:
            with contextlib.suppress(OSError):
                self.bytes_out += os_write(self._fd, alert)
        self.lose(exc, cause)


class TlsTransport(TlsBase):
    """A connection over which TLS is established."""

    __slots__ = ()

    def write(self, data: Buffer) -> None:
        """As `Transport.write`."""
        if type(data) is not bytes:
            data = byte_view(data)
        if self._unsent is not None:
            if not data:
                return
            try:
                if len(data) > PIECE:
                    self._write_pieces(memoryview(data))
                    return
                self._tls.write(data)
                sealed = self._outgoing.read()
                sent = os_write(self._fd, sealed)
            except BlockingIOError:
                sent = 0
            except OSError as exc:
                self._break(exc)
                return
            self.bytes_out += sent
            self.last_active = self._loop.now
            if sent != len(sealed):
                self._unsent = None
                self._out = bytearray(memoryview(sealed)[sent:])
                self._watch()
                self._pause_if_full()
            return
        if self._eof_written:
            raise RuntimeError("write() after write_eof()")
        if self._out is not None and self._state is OPEN:
            try:
                self._seal(memoryview(data), self._out)
            except ssl.SSLError as exc:
                self._break(exc)
                return
            self._pause_if_full()

    def write_eof(self) -> None:
        """Send what is buffered, then close_notify and the end of our direction; reading goes on.

        Some peers end the whole connection then, as TLS before 1.3 had it.
        """
        if self._state is OPEN and not self._eof_written:
            self._say_goodbye()
        super().write_eof()

    def close(self) -> None:
        """End the connection: as `Transport.close`, after a close_notify."""
        if self._state is OPEN and not self._eof_written:
            self._say_goodbye()
        super().close()

    def resume_reading(self) -> None:
        """Call `data_received` again."""
        super().resume_reading()
        if self._reading and (self._ended or self._incoming.pending):
            self._loop.call_soon(self.read_rest)

    def on_ready(self, events: int) -> None:
        """Serve what epoll reported; the hot path, as that of Transport."""
        if events == EPOLLIN and self._reading:
            try:
                data = os_read(self._fd, self._read_size)
            except BlockingIOError:
                return
            except OSError as exc:
                self._break(exc)
                return
            if not data:
                self._on_cut()
                return
            self.last_active = self._loop.now
            size = len(data)
            self.bytes_in += size
            if size == FIRST_READ_SIZE:
                self._read_size = READ_SIZE
            self._incoming.write(data)
            try:
                # What is sealed is longer than what is in it. So if this fills `size`, a part of
                # the record came earlier, and there is more.
                plain = self._tls.read(size)
            except ssl.SSLWantReadError:  # a record is not complete, or was none with data
                if self._outgoing.pending:
                    self._send(self._outgoing.read())
                return
            except ssl.SSLZeroReturnError:  # close_notify, after ours
                plain = b""
            except ssl.SSLError as exc:
                self._break(exc)
                return
            if self._incoming.pending or len(plain) == size:
                self._deliver(self._gather(plain))
            elif plain:
                try:
                    self._protocol.data_received(plain)
                except BaseException as exc:
                    self._fault("data_received", exc)
            else:
                self._ended = True
                self._on_eof()
            return
        if events & EPOLLOUT and self._out is not None:
            self._flush()
        if events & ~EPOLLOUT:
            if self._reading:
                self.on_ready(EPOLLIN)
            elif not self.is_closed():
                self._on_hangup()

    def read_rest(self) -> None:
        """Serve what has come and was not read, because the protocol did not want it then."""
        if self._reading:
            self._deliver(self._gather(b""))

    # -- inside --------------------------------------------------------------------------------

    def _gather(self, first: bytes) -> bytes:
        """All that can be read now, `first` before it; notes the peer's end, if that has come."""
        parts = [first] if first else []
        try:
            while part := self._tls.read(RECORD):
                parts.append(part)
                if not self._incoming.pending:  # another try would cost an exception
                    break
            else:
                self._ended = True
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLWantReadError:
            # What OpenSSL wants to say (a key update, a session ticket) leaves with our next words.
            if not parts and self._outgoing.pending:
                self._send(self._outgoing.read())
        except ssl.SSLError as exc:
            self._break(exc)
        return b"".join(parts)

    def _deliver(self, plain: bytes) -> None:
        """Give the protocol what was read, and then the end, if that was read."""
        if plain and self._reading:
            self._guard("data_received", plain)
        if self._ended and self._reading:
            self._on_eof()

    def _on_eof(self) -> None:
        """The peer has said goodbye; what now is the protocol's choice."""
        self._ended = False
        self._eof_received = True
        keep_open = self._guard("eof_received")
        if self._state is not OPEN:
            return
        if keep_open:
            self._reading = False
            self._watch()
        else:
            self.close_for("eof")

    def _on_cut(self) -> None:
        """The connection ended, and the peer had not said so in TLS: data may be missing."""
        reason = "the peer ended the connection without close_notify"
        self.lose(ssl.SSLEOFError(ssl.SSL_ERROR_EOF, reason), "truncated")

    def _write_pieces(self, rest: memoryview) -> None:
        """Send a long write; what the kernel does not take waits, sealed. Raises ssl.SSLError."""
        while rest and self._state is OPEN:
            self._tls.write(rest[:PIECE])
            rest = rest[PIECE:]
            self._send(self._outgoing.read())
            if self._out is not None:
                self._seal(rest, self._out)
                self._pause_if_full()
                return

    def _seal(self, data: memoryview, out: bytearray) -> None:
        """Append records with `data` to what waits. Raises ssl.SSLError."""
        while data:
            self._tls.write(data[:PIECE])
            data = data[PIECE:]
            out += self._outgoing.read()

    def _say_goodbye(self) -> None:
        """Send close_notify after all that was written."""
        with contextlib.suppress(ssl.SSLError):  # it wants the peer's, for which nobody waits
            self._tls.unwrap()
        self._send(self._outgoing.read())


FACTS: dict[str, Callable[[Any], Any]] = {
    "ssl_object": lambda tls: tls,
    "sslcontext": lambda tls: tls.context,
    "peercert": lambda tls: tls.getpeercert(),
    "cipher": lambda tls: tls.cipher(),
    "compression": lambda tls: tls.compression(),
    "alpn": lambda tls: tls.selected_alpn_protocol(),
    "server_name": lambda tls: getattr(tls, "server_name", None),
    "tls_version": lambda tls: tls.version(),
}

"""The beginning of TLS: from a connection of which nothing is known to one that is secured.

    Plain → Handshake → TlsTransport        with `starttls`, when the protocol says so
            Handshake → TlsTransport        else, from the first byte on
                      ↘ refused             the client cannot, will not, or takes too long

Until a handshake is done the protocol does not hear of the connection, unless it asked for the
handshake itself. It costs a client a packet and us a millisecond: so there is a time limit, and a
limit on how many are under way, beyond which the one that has waited longest goes.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable

from epolld.net.linger import linger
from epolld.net.loop import EventLoop
from epolld.net.states import OPEN
from epolld.net.timers import Timer
from epolld.net.tls import TlsBase, TlsTransport
from epolld.net.transport import EPOLLOUT, Buffer, byte_view
from epolld.net.travel import NOTHING

log = logging.getLogger("epolld.connection")

READ_SIZE = 4096  # bytes of each receive: a client's hello has some hundred, a certificate 2,000

HANDSHAKE_RECORD = 0x16  # the first byte of every handshake (RFC 8446, 5.1)

# Why it fails, in better words than OpenSSL's.
REASONS = {
    "NO_SHARED_CIPHER": "the client knows none of our ciphers",
    "UNSUPPORTED_PROTOCOL": "the client speaks older versions of TLS only",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has no certificate",
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is not accepted",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not know the authority of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept our certificate",
}


class TlsServer:
    """How one service speaks TLS, and the handshakes that are under way in this worker."""

    def __init__(
        self,
        loop: EventLoop,
        context: ssl.SSLContext,
        timeout: float = 10.0,
        most: int = 2048,
        starttls: bool = False,
    ) -> None:
        self.context = context
        self.transport_type: type[TlsBase] = Plain if starttls else Handshake
        self._loop = loop
        self.timeout = timeout  # seconds for a handshake
        self._most = most
        # With its deadline; the one that has waited longest is the first. All have the same time,
        # so that is the first to be due as well, and one timer serves them all.
        self._pending: dict[Handshake, float] = {}
        self._timer: Timer | None = None

    @property
    def pending(self) -> int:
        """How many handshakes are under way."""
        return len(self._pending)

    def begin(self, connection: Handshake) -> None:
        """A handshake begins."""
        self._pending[connection] = self._loop.now + self.timeout
        if self._timer is None:
            self._timer = self._loop.call_later(self.timeout, self._end_late)
        if len(self._pending) > self._most:
            oldest = next(iter(self._pending))
            oldest.give_up(f"{self._most} handshakes are under way (max_handshakes)", "tls_pending")

    def end(self, connection: Handshake) -> None:
        """A handshake is over, one way or the other."""
        self._pending.pop(connection, None)

    def _end_late(self) -> None:
        """Give up those that take too long."""
        self._timer = None
        for connection, deadline in list(self._pending.items()):
            if deadline > self._loop.now:
                self._timer = self._loop.call_later(deadline - self._loop.now, self._end_late)
                return
            reason = f"no handshake within {self.timeout:g}s (handshake_timeout)"
            connection.give_up(reason, "handshake_timeout")


class Plain(TlsBase):
    """A connection that is plain until its protocol calls `start_tls`."""

    __slots__ = ()

    def start_tls(self, on_secured: Callable[[], object] | None = None) -> None:
        """Begin a handshake: what comes from here on is TLS; what is buffered goes out before.

        What the client sent in plain text beyond the command that led here must not be acted upon
        once TLS is there, since anybody may have put it in: a protocol that keeps such has it
        thrown away by its method `discard_input`, if it has one. Writes wait for the handshake.
        `on_secured()` is called when it is done; if it fails, `connection_lost` is.
        Raises RuntimeError if the connection is closing or its direction has been ended.
        """
        if self._state is not OPEN or self._eof_written:
            raise RuntimeError("start_tls() on a connection that is closing")
        discard = getattr(self._protocol, "discard_input", None)
        if discard is not None:
            discard()
        self.settle()
        self._introduced = True
        self._on_secured = on_secured
        self._become(Handshake)
        Handshake.begin(self)  # type: ignore[arg-type]


class Handshake(TlsBase):
    """A connection on which TLS is being agreed upon."""

    __slots__ = ()

    def start(self) -> None:
        """Wait for the client's hello; the protocol is introduced after the handshake."""
        self.begin()

    def begin(self) -> None:
        """From here on it is TLS that comes."""
        self._early = bytearray()
        self._wants_data = self._reading
        self._reading = True
        self._unsent = None
        self._server.begin(self)
        self._watch()

    # -- what the protocol may call meanwhile --------------------------------------------------

    def write(self, data: Buffer) -> None:
        """Keep `data` until they can be sealed."""
        data = byte_view(data)
        if self._eof_written:
            raise RuntimeError("write() after write_eof()")
        if self._early is not None and self._state is OPEN:
            self._early += data
            self._pause_if_full()

    def write_eof(self) -> None:
        """End our direction after the handshake."""
        self._eof_written = True

    def close(self) -> None:
        """End the connection; nothing of it is worth a wait."""
        self.lose(None, self._cause or "closed")

    def pause_reading(self) -> None:
        """Have no data after the handshake until `resume_reading`."""
        self._wants_data = False

    def resume_reading(self) -> None:
        """Have data after the handshake."""
        self._wants_data = True

    def is_reading(self) -> bool:
        """Whether data will be received."""
        return self._wants_data and not self.is_closing()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait, sealed or not."""
        return super().get_write_buffer_size() + len(self._early or b"")

    # -- what the event loop and the service call ----------------------------------------------

    def on_ready(self, events: int) -> None:
        """A step of the handshake."""
        if events & EPOLLOUT and self._out is not None:
            self._flush()
            self._unsent = None
        if not events & ~EPOLLOUT or not self._reading:
            return
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as exc:
            self._break(exc)
            return
        if not data:
            self.give_up("the client ended the connection", "tls_handshake")
            return
        self.last_active = self._loop.now
        self.bytes_in += len(data)
        if self._tls is None:
            if data[0] != HANDSHAKE_RECORD:
                self.give_up("the client speaks plain text, not TLS", "tls_handshake")
                return
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = self._server.context.wrap_bio(self._incoming, self._outgoing, True)
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            if self._outgoing.pending:
                self._send(self._outgoing.read())
        except ssl.SSLError as exc:
            self._fail(exc, "tls_handshake")
        else:
            self._secured()

    def describe_state(self) -> str:
        """A word for it."""
        return "handshake" if self._state is OPEN else super().describe_state()

    def tell_draining(self) -> bool:
        """Nobody to tell: it is closed once it is idle, or by its time limit."""
        return True

    def give_up(self, reason: str, cause: str) -> None:
        """End the connection: there will be no TLS."""
        self._tell(reason)
        self.lose(ConnectionAbortedError(reason), cause)

    def lose(self, exc: BaseException | None, cause: str) -> None:
        """As of any transport."""
        self._server.end(self)
        super().lose(exc, cause)

    # -- inside --------------------------------------------------------------------------------

    def _break(self, exc: OSError) -> None:
        """The connection broke: as long as the protocol knows nothing of it, that is a refusal."""
        if self._introduced:
            super()._break(exc)
            return
        self._tell(f"the connection broke in the handshake: {exc.strerror}")
        self.lose(exc, "tls_handshake")

    def _tell(self, reason: str) -> None:
        """Log it; the reason is part of the text and no argument: of each, the first are logged."""
        log.info(f"%s: %s: {reason}, closing", self._service.name, self.describe_peer())

    def _fail(self, exc: ssl.SSLError, cause: str) -> None:
        reason = REASONS.get(exc.reason or "", (exc.reason or str(exc)).replace("_", " ").lower())
        detail = getattr(exc, "verify_message", "")
        log.info(
            "%s: %s: no TLS: %s, closing",
            self._service.name,
            self.describe_peer(),
            f"{reason}: {detail}" if detail else reason,
        )
        super()._fail(exc, cause)

    def _secured(self) -> None:
        """The handshake is done: become a TlsTransport and go on as such.

        The session ticket that OpenSSL has made meanwhile leaves with the protocol's first words.
        """
        self._server.end(self)
        early, self._early = self._early, None
        ending, self._eof_written = self._eof_written, False
        self._reading = self._wants_data and self._state is OPEN
        self._unsent = NOTHING if self._out is None else None
        self._become(TlsTransport)
        if not self._introduced:
            self._introduced = True
            self._guard("connection_made", self)
        if early:
            self.write(early)
        if ending:
            self.write_eof()
        if self._on_secured is not None:
            callback, self._on_secured = self._on_secured, None
            try:
                callback()
            except BaseException as exc:
                self._fault(getattr(callback, "__qualname__", "on_secured"), exc)
        if self._incoming.pending and not self.is_closing():
            TlsTransport.read_rest(self)  # type: ignore[arg-type]
        if self._outgoing.pending and not self.is_closed():
            self._send(self._outgoing.read())
        self._watch()

    def _finish(self, exc: BaseException | None) -> None:
        """As of any transport; but a protocol that was never introduced hears of no end."""
        if self._introduced:
            super()._finish(exc)
            return
        fd = self._give_up_descriptor()
        linger(self._loop, fd)  # an alert may be on its way
        self._service.on_refused(self, self._cause)

"""The other end of a connection with TLS, in full view: what it sends is sealed in memory, and goes
over a socket when and in the pieces that a test wants. Knows nothing of what is tested with it."""

from __future__ import annotations

import contextlib
import socket
import ssl


class TlsPeer:
    """A client over a non-blocking socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str = "x") -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self.data = bytearray()
        self.end = ""  # "close_notify", "EOF", or the name of an error
        self.secured = False

    def sealed(self) -> bytes:
        """What waits to be sent."""
        return self._outgoing.read()

    def seal(self, data: bytes) -> bytes:
        """Records with `data`; sent by nobody."""
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        return self.sealed()

    def goodbye(self) -> bytes:
        """A record with close_notify; sent by nobody."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.sealed()

    def say(self, data: bytes) -> None:
        """Send `data`."""
        self.sock.sendall(self.seal(data))

    def read(self, limit: int = 1 << 20) -> str:
        """Take what is there; returns the end, "" if it has not come. Goes on with a handshake."""
        self.take(limit)
        if self.end in ("", "close_notify"):
            self.step()
            with contextlib.suppress(OSError):
                if self._outgoing.pending:
                    self.sock.sendall(self._outgoing.read())
        return self.end

    def shake_hands(self) -> bool:
        """A step of the handshake; whether it is done."""
        self.read()
        return self.secured

    def take(self, limit: int = 1 << 20) -> bool:
        """Receive what is there, and look at none of it; whether there was something."""
        try:
            part = self.sock.recv(limit)
        except BlockingIOError:
            return False
        except OSError as exc:
            self.end = type(exc).__name__
            return False
        if not part:
            self.end = self.end or "EOF"
        self._incoming.write(part)
        return bool(part)

    def step(self) -> None:
        """Go on with what was received; what comes of it is sent by nobody."""
        try:
            if not self.secured:
                self.tls.do_handshake()
                self.secured = True
            while part := self.tls.read(16384):
                self.data += part
            self.end = "close_notify"
        except ssl.SSLZeroReturnError:  # the same, when ours was sent already
            self.end = "close_notify"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self.end = exc.reason or type(exc).__name__

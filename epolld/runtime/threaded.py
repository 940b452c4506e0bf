"""A connection in the hands of a thread.

What the worker knows of it: limits, drains, lists and reports treat it as they treat a transport,
though its bytes go past the loop.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from epolld.net import descriptor
from epolld.net.connlog import ConnectionLogger, get_logger
from epolld.net.linger import linger
from epolld.runtime.requests import Counted, Request

if TYPE_CHECKING:
    from epolld.runtime.threads import ThreadService

log = logging.getLogger("epolld.connection")


class Connection:
    """A connection in the hands of a thread; to the worker it looks like a transport."""

    def __init__(self, service: ThreadService, fd: int, peer: Any, id: int) -> None:
        self.service = service
        self.id = id
        self.opened = time.monotonic()
        self.request: Counted = Request(fileno=fd)
        self.request.last_used = self.opened
        self.request.settimeout(service.patience)  # blocking, if there is none
        self.thread: threading.Thread | None = None  # none yet: all are busy
        self.shaking_hands = False
        self.reported = False  # as stuck
        self.exc: BaseException | None = None  # what the handler let through
        self._peer = descriptor.unpack_peer(peer)
        self._cause = ""  # why we ended it

    def __repr__(self) -> str:
        return f"<Connection {self.service.name} {self.describe_peer()}>"

    # -- in the thread ---------------------------------------------------------------------------

    def handle(self) -> None:
        """Run the handler to its end."""
        self.thread = threading.current_thread()
        securer = self.service.securer
        try:
            if securer is not None and securer.at_once:
                self.shaking_hands = True
                self.request = securer.secure(self.request)
                self.shaking_hands = False
            self.service.handler(self.request, self.client_address, self.service.server)
        except BaseException as exc:
            self.exc = exc
        self.request.say_goodbye()

    # -- in the loop -----------------------------------------------------------------------------

    def start(self) -> None:
        """Wait for a thread."""
        self.service.submit(self)

    def finish(self) -> None:
        """The handler has returned: close, and say why."""
        cause = self._judge()
        fd = self.request.detach()
        if fd >= 0:  # the handler may have closed it
            if self.exc is None:
                os.set_blocking(fd, False)
                linger(self.service.loop, fd, self.service.ending)
            else:
                os.close(fd)
        self.service.on_closed(self, cause)  # type: ignore[arg-type]

    def _judge(self) -> str:
        """The cause of the end; what is the handler's fault is logged."""
        exc, name = self.exc, self.service.name
        if exc is None:
            return self._cause or "closed"
        if self.shaking_hands and isinstance(exc, OSError):
            log.info("%s: %s: no TLS: %s, closing", name, self.describe_peer(), exc)
            return "handshake_timeout" if isinstance(exc, TimeoutError) else "tls_handshake"
        if isinstance(exc, TimeoutError) and self.request.gettimeout() == self.service.patience:
            log.info("%s: %s: %s, closing", name, self.describe_peer(), exc)
            return "idle_timeout"
        if isinstance(exc, ConnectionError) or (self._cause and isinstance(exc, OSError)):
            log.debug("%s: %s: %s", name, self.describe_peer(), exc)
            return self._cause or "reset"
        log.error(
            "%s: %s raised %s; closing the connection from %s",
            name,
            self.service.describe_handler(),
            type(exc).__name__,
            self.describe_peer(),
            exc_info=exc,
        )
        return "callback_error"

    @property
    def client_address(self) -> Any:
        """The peer as accept() gives it."""
        return self._peer

    @property
    def bytes_in(self) -> int:
        """Bytes received."""
        return self.request.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes sent."""
        return self.request.bytes_out

    @property
    def last_active(self) -> float:
        """When the handler last used its socket."""
        return self.request.last_used

    def describe_peer(self) -> str:
        """The peer for a log line."""
        return descriptor.describe_peer(self._peer)

    def fileno(self) -> int:
        """The socket's descriptor; -1 once it is closed."""
        return self.request.fileno()

    def get_protocol(self) -> None:
        """There is none; so it cannot move to another worker."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As Transport.get_extra_info."""
        facts = {
            "peername": self._peer,
            "socket": self.request,
            "service": self.service.name,
            "connection_id": self.id,
            **self.service.facts.get(self, {}),  # type: ignore[call-overload]
            **self.service.common,
        }
        if name == "sockname" and self.fileno() >= 0:
            return self.request.getsockname()
        if name == "peercred" and self.fileno() >= 0:
            return descriptor.peer_credentials(self.fileno()) or default
        return facts.get(name, default)

    @property
    def logger(self) -> ConnectionLogger:
        """A logger for what happens on this connection."""
        return get_logger(self)

    def is_closing(self) -> bool:
        """Whether we have ended it."""
        return bool(self._cause)

    def is_closed(self) -> bool:
        """Whether the handler has returned."""
        return self.request.fileno() < 0

    def is_frozen(self) -> bool:
        """It cannot move to another worker."""
        return False

    def describe_state(self) -> str:
        """Where it is in its life, in a word."""
        return "closing" if self._cause else "open" if self.thread else "waiting"

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent: the kernel has them all."""
        return 0

    def silent_for(self, seconds: float) -> bool:
        """Whether it waits for its peer since `seconds`."""
        silent = time.monotonic() - self.last_active >= seconds
        return silent and (self.request.waiting or not seconds)

    def tell_draining(self) -> bool:
        """The service has told them all."""
        return True

    def close_for(self, cause: str) -> None:
        """Let the handler read to the end of what has come, and no more; it may still write."""
        self._shutdown(cause, socket.SHUT_RD)

    def lose(self, _exc: BaseException | None, cause: str) -> None:
        """Let the handler neither read nor write."""
        self._shutdown(cause, socket.SHUT_RDWR)

    def _shutdown(self, cause: str, how: int) -> None:
        self._cause = self._cause or cause
        try:
            # Not its own method: an ssl.SSLSocket would go on in plain text.
            socket.socket.shutdown(self.request, how)
        except OSError:  # it has ended meanwhile
            return

    def look(self, now: float, limit: float) -> None:
        """Report the handler, once, if it has done something else for too long."""
        silent = now - self.last_active
        if self.request.waiting or self.thread is None or silent <= limit:
            self.reported = False
        elif not self.reported:
            self.reported = True
            frame = sys._current_frames().get(self.thread.ident or 0)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
            log.warning(
                "%s: thread %s has not touched its connection from %s for %.0fs > %gs"
                " (stuck_timeout); it is at\n%s",
                self.service.name,
                self.thread.name,
                self.describe_peer(),
                silent,
                limit,
                stack.rstrip(),
            )

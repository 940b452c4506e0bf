"""Blocking handlers: subclasses of socketserver's, each connection in a thread of its own.

The worker's loop accepts; a connection then belongs to a thread of a bounded pool until its
handler returns. The loop knows nothing of its bytes, but the socket that the handler gets
(requests.py) does, so limits, drains and reports work as for all others.

While all threads are busy, the service's listeners leave the accept queues: the client goes to
another worker, or waits in the kernel and not here.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from epolld.net import descriptor
from epolld.net.connlog import ConnectionLogger, get_logger
from epolld.net.linger import linger
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.timers import Timer
from epolld.runtime.requests import Counted, Request

if TYPE_CHECKING:
    import ssl

    from epolld.net.handshake import TlsServer
    from epolld.runtime.tlsrequest import Securer

log = logging.getLogger("epolld.connection")

LOOK = 1.0  # seconds between two looks at what the threads do


class Server:
    """What a handler finds as `self.server`; one for all connections of a service in a worker."""

    def __init__(self, service: str, handler: Callable[..., Any]) -> None:
        self.service = service
        self.RequestHandlerClass = handler
        self.server_address: Any = None  # of its first listener
        self.socket: socket.socket | None = None  # that listener; not to be accepted from
        self.application: Any = None  # the worker's
        self.ssl_context: ssl.SSLContext | None = None  # if the service has TLS
        self.draining = threading.Event()  # the worker leaves: come to an end


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


class ThreadService(Service):
    """A service of blocking handlers, `size` of them at a time.

    `handler(request, client_address, server)` handles a connection while it is constructed, as
    socketserver's do. `idle_timeout` is the time-out of its socket. `stuck_after` seconds without
    a use of the socket it is reported; 0: never. `on_full(True)` is called when no thread is free,
    `on_full(False)` when one is again.
    """

    def __init__(
        self,
        loop: EventLoop,
        name: str,
        handler: Callable[..., Any],
        idle_timeout: float,
        *settings: Any,
        size: int,
        stuck_after: float = 0.0,
    ) -> None:
        super().__init__(loop, name, handler, 0, *settings)
        self.loop = loop
        self.handler = handler
        self.securer: Securer | None = None
        self.server = Server(name, getattr(handler, "func", handler))
        self.patience = idle_timeout or None
        self.on_full: Callable[[bool], object] = lambda full: None
        self._size = size
        self._stuck_after = stuck_after
        self._connections: dict[Connection, None] = {}  # in the order of their beginning
        self._threads: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._done: deque[Connection] = deque()  # filled by the threads, emptied by the loop
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.register(self._wakeup, select.EPOLLIN, self._on_done)
        self._looking: Timer | None = None
        self._full = False

    @property
    def transports(self) -> list[Any]:
        """The connections that threads have."""
        return list(self._connections)

    def describe_handler(self) -> str:
        """The handler's name for a log line."""
        return getattr(self.server.RequestHandlerClass, "__qualname__", "the handler")

    def on_listener(self, sock: socket.socket) -> None:
        """It is served on this listener, too."""
        if self.server.socket is None:
            self.server.socket = sock
            self.server.server_address = sock.getsockname()

    def speak_tls(self, tls: TlsServer) -> None:
        """Have all connections from now on use TLS."""
        from epolld.runtime.tlsrequest import Securer  # OpenSSL, which most services do not need

        self.securer = Securer(tls)
        self.server.ssl_context = tls.context

    def in_threads(self) -> list[Any]:
        """The connections that no loop watches."""
        return list(self._connections)

    def _make(self, fd: int, peer: Any, id: int) -> Any:
        return Connection(self, fd, peer, id)

    def submit(self, connection: Connection) -> None:
        """Have a thread serve it, now or when one is free."""
        self._connections[connection] = None
        if len(self._connections) > len(self._threads) < self._size:
            self._start_thread()
        if not self._threads:
            connection.exc = RuntimeError("no thread can be started")
            self._done.append(connection)
            self.loop.call_soon(self._finish_done)
            return
        self._jobs.put(connection)
        self._tell_full()
        if self._stuck_after and self._looking is None:
            self._looking = self.loop.call_later(LOOK, self._look)

    def is_unfinished(self) -> bool:
        """Whether a handler still works."""
        return bool(self._connections)

    def on_draining(self) -> None:
        """The worker begins to leave."""
        self.server.draining.set()

    def end_all(self, patience: float, gently: bool) -> None:
        """The time is over: no handler reads on; after `patience` seconds none writes."""
        self.ending = gently
        for connection in list(self._connections):
            if gently:
                connection.close_for("drained")
            else:
                connection.lose(None, "drained")
        if gently:
            self.loop.call_later(patience, lambda: self.end_all(0, False))

    def close(self) -> None:
        """The worker leaves, and nobody waits for a thread that does not."""
        for connection in self._connections:
            peer = connection.describe_peer()
            log.warning("%s: the handler of %s has not returned; leaving it", self.name, peer)

    # -- inside ----------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        name = f"{self.name}-{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives no more
            log.error("%s: thread %d of %d: %s", self.name, len(self._threads), self._size, error)
        else:
            self._threads.append(thread)

    def _serve(self) -> None:
        """A thread's life: one connection after the other."""
        while True:
            connection = self._jobs.get()
            connection.handle()
            self._done.append(connection)
            os.eventfd_write(self._wakeup, 1)
            del connection  # or the idle thread keeps it alive

    def _on_done(self, _events: int) -> None:
        """Threads have finished."""
        os.eventfd_read(self._wakeup)  # before the queue: what comes later writes again
        self._finish_done()

    def _finish_done(self) -> None:
        while self._done:
            connection = self._done.popleft()
            del self._connections[connection]
            connection.finish()
        self._tell_full()

    def _tell_full(self) -> None:
        full = len(self._connections) >= self._size
        if full != self._full:
            self._full = full
            self.on_full(full)

    def _look(self) -> None:
        """Once a second, while there is something to look at."""
        now = time.monotonic()
        for connection in self._connections:
            connection.look(now, self._stuck_after)
        self._looking = self.loop.call_later(LOOK, self._look) if self._connections else None

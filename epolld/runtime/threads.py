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
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.timers import Timer
from epolld.runtime.threaded import Connection

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

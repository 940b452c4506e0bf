"""epolld's transport in the place of asyncio's `_SelectorSocketTransport`, for asyncio's own tests.

The transport is epolld's, code and all. Added is only what the tests of asyncio reach for: the
constructor, the names of what is inside, asyncio's way to report errors. Where a test's socket
is a mock, what the transport asks of the kernel is asked of the mock.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections import deque
from types import SimpleNamespace
from typing import Any
from unittest import mock

from epolld.net import descriptor, transport
from epolld.net.feeder import Feeder
from epolld.net.protocol import Protocol
from epolld.net.service import Service
from epolld.net.states import CLOSED, CLOSING, OPEN
from epolld.net.transport import EPOLLIN, EPOLLOUT, Transport

FAKES: dict[int, Any] = {}  # transports over mocks of sockets, by the mock's descriptor
LAST_ASKED: deque[str] = deque(["read"], maxlen=1)  # of the kernel


class Adapted(Transport):
    """epolld's transport with asyncio's constructor and asyncio's names for what is inside."""

    def __init__(
        self,
        loop: Any,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        extra: Any = None,
        server: Any = None,
        introduce: bool = True,
        **_ssl: Any,
    ) -> None:
        FAKES.pop(sock.fileno(), None)  # of a test that did not close it
        if isinstance(sock, mock.Mock):
            FAKES[sock.fileno()] = self
        selector = getattr(loop, "_selector", None)
        native = getattr(selector, "native", None) or Watched(loop)
        service = Service(native, "suite", Protocol)
        service.on_end = self._on_end
        service.live = 1
        peer: Any = (extra or {}).get("peername")
        if peer is None:
            try:
                peer = sock.getpeername()
            except OSError:
                peer = None
        self._asyncio = loop
        self._sock = sock
        self._sock_fd = sock.fileno()
        self._server = server
        super().__init__(
            native,
            sock.fileno(),
            None,
            service,
            descriptor.pack_peer(peer),
            1,  # type: ignore[arg-type]
        )
        self.set_protocol(protocol)
        service.sockets[self] = sock
        if extra:
            service.facts[self] = dict(extra)
        if server is not None:
            attach(server, self)
        loop._transports[self._sock_fd] = self
        if introduce:
            loop.call_soon(self.start)
            if waiter is not None:
                loop.call_soon(lambda: waiter.cancelled() or waiter.set_result(None))

    def _on_end(self, _transport: Transport, _cause: str) -> None:
        self._service.on_end = None  # else they would hold each other
        FAKES.pop(self._sock_fd, None)
        if self._server is not None:
            attach(self._server, self, "_detach")

    # -- how errors are told ---------------------------------------------------------------------

    def _fault(self, callback: str, exc: BaseException) -> None:
        self._fatal_error(exc, f"Fatal error: protocol.{callback}() call failed.")
        super().lose(exc, "callback_error")  # a mock in place of the above has not done it

    def _break(self, exc: OSError) -> None:
        if isinstance(exc, ConnectionError):
            self._force_close(exc)
        else:
            self._fatal_error(exc, f"Fatal {LAST_ASKED[-1]} error on socket transport")

    def lose(self, exc: BaseException | None, cause: str) -> None:
        if cause == "eof" and self._state is OPEN:
            self.close()
        elif cause == "aborted":
            self._force_close(exc)
        else:
            super().lose(exc, cause)

    def _force_close(self, exc: BaseException | None) -> None:
        super().lose(exc, "forced")

    def _fatal_error(self, exc: BaseException, message: str = "Fatal error on transport") -> None:
        if not isinstance(exc, OSError):
            context = {"transport": self, "protocol": self.get_protocol()}
            self._asyncio.call_exception_handler({"message": message, "exception": exc, **context})
        self._force_close(exc)

    def read_mock(self, size: int) -> bytes:
        """Ask a mock for `size` bytes, by the call which asyncio uses for this kind of protocol."""
        if type(self._protocol) is not Feeder:
            return self._sock.recv(size)
        count = self._sock.recv_into(bytearray(size))
        return bytes(count if isinstance(count, int) else 1)  # a mock where it should not matter

    # -- what the tests look at, by asyncio's names ----------------------------------------------

    def _read_ready(self) -> None:
        self.on_ready(EPOLLIN)

    def _write_ready(self) -> None:
        self.on_ready(EPOLLOUT)

    @property
    def _buffer(self) -> Any:
        return Unsent(self) if self._out is None else self._out

    @_buffer.setter
    def _buffer(self, data: Any) -> None:
        Unsent(self).extend(data)

    @property
    def _paused(self) -> bool:
        return self._state is OPEN and not self._reading

    @property
    def _closing(self) -> bool:
        return self.is_closing()

    @_closing.setter
    def _closing(self, value: bool) -> None:
        assert value
        self._state, self._reading = CLOSING, False

    @property
    def _eof(self) -> bool:
        return self._eof_written

    @property
    def _conn_lost(self) -> int:
        return int(self._state is CLOSED)


class Unsent(bytearray):
    """What a test puts into the transport's buffer by hand."""

    def __init__(self, owner: Transport) -> None:
        super().__init__()
        self._owner = owner

    def extend(self, data: Any) -> None:
        self += data
        self._owner._out = self
        self._owner._unsent = None

    append = extend  # type: ignore[assignment]


class Watched:
    """The part of an event loop that a transport uses, told to asyncio's mock of a loop."""

    now = 0.0

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._watcher: Any = None

    def add(self, fd: int, events: int, watcher: Any) -> None:
        self._watcher = watcher
        self.modify(fd, events)

    def modify(self, fd: int, events: int) -> None:
        if events & EPOLLIN:
            self._loop._add_reader(fd, self._watcher._read_ready)
        else:
            self._loop._remove_reader(fd)
        if events & EPOLLOUT:
            self._loop._add_writer(fd, self._watcher._write_ready)
        else:
            self._loop._remove_writer(fd)

    def unregister(self, fd: int) -> None:
        self._loop._remove_reader(fd)
        self._loop._remove_writer(fd)

    def call_soon(self, callback: Any) -> None:
        self._loop.call_soon(callback)

    def call_later(self, delay: float, callback: Any) -> Any:
        return self._loop.call_later(delay, callback)


def attach(server: Any, transport: Transport, method: str = "_attach") -> None:
    """A server counts its connections, or from Python 3.13 on keeps them."""
    call = getattr(server, method)
    call(*[transport][: len(inspect.signature(call).parameters)])


def put_in_place() -> None:
    """From here on asyncio's loops make epolld's transports, over sockets or mocks of them."""
    module: Any = asyncio.selector_events
    module._SelectorSocketTransport = Adapted
    module._SelectorTransport = lambda loop, sock, protocol, extra=None, server=None: Adapted(
        loop, sock, protocol, None, extra, server, introduce=False
    )
    ours: Any = transport
    shutdown, linger = descriptor.shutdown, transport.linger

    def read(fd: int, size: int) -> bytes:
        LAST_ASKED.append("read")
        return FAKES[fd].read_mock(size) if fd in FAKES else os.read(fd, size)

    def write(fd: int, data: Any) -> int:
        LAST_ASKED.append("write")
        return FAKES[fd]._sock.send(data) if fd in FAKES else os.write(fd, data)

    def close(fd: int) -> None:
        FAKES[fd]._sock.close() if fd in FAKES else os.close(fd)

    ours.os_read, ours.os_write = read, write
    ours.os = SimpleNamespace(close=close)
    ours.linger = lambda loop, fd, *more: close(fd) if fd in FAKES else linger(loop, fd, *more)
    descriptor.shutdown = lambda fd, how: (
        FAKES[fd]._sock.shutdown(how) if fd in FAKES else shutdown(fd, how)
    )

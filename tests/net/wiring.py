"""What the tests of the engine share: connected sockets, a protocol that takes notes, bounded
turns of a real event loop. Knows nothing of what is tested with them."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from epolld.net import service
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.transport import Transport, settle_all

DEADLINE = 10.0  # seconds; only a test that fails waits for so long


def serve_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have services use the hot path in Python, which can be looked into."""
    monkeypatch.setattr(Service, "transport_type", Transport)
    monkeypatch.setattr(service, "fastest_settle_all", settle_all)


def serve_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have services use the hot path in C, which must be there."""
    from epolld.net import _speedups
    from epolld.net.speedups import CompiledTransport

    monkeypatch.setattr(Service, "transport_type", CompiledTransport)
    monkeypatch.setattr(service, "fastest_settle_all", _speedups.settle_all)


def turn(loop: EventLoop) -> None:
    """One turn of the loop, which does not wait."""
    loop.call_soon(loop.stop)
    loop.run()


def in_one_wake_up(loop: EventLoop, *calls: Callable[[], object]) -> None:
    """Have each of `calls`, at least two, be called for an event of one and the same wake-up."""
    assert len(calls) > 1
    for call in calls:
        fd = os.eventfd(1)

        def on_ready(events: int, fd: int = fd, call: Callable[[], object] = call) -> None:
            loop.unregister(fd)
            os.close(fd)
            call()

        loop.register(fd, select.EPOLLIN, on_ready)
    turn(loop)


def run_until(loop: EventLoop, condition: Callable[[], object], what: str = "") -> None:
    """Turn the loop until `condition()` is true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what or condition}"
        turn(loop)


def settle(loop: EventLoop, turns: int = 10) -> None:
    """Enough turns for all that is under way on loopback to have its effect."""
    for _ in range(turns):
        turn(loop)


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends, both non-blocking."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends over loopback, both non-blocking; the first is the accepted one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def narrow(*socks: socket.socket) -> None:
    """Smaller kernel buffers for sending, so that 1 MiB does not go at once.

    Not so small that TCP waits for its timers: a window below a segment costs 200 ms each time.
    """
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)


def reset(sock: socket.socket) -> None:
    """Close a TCP socket with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def receive(sock: socket.socket) -> bytes | None:
    """All that is there now; None if there is nothing and no end."""
    parts = []
    while True:
        try:
            part = sock.recv(1 << 20)
        except BlockingIOError:
            return b"".join(parts) if parts else None
        parts.append(part)
        if not part:
            return b"".join(parts)


class Collected:
    """What a peer has received: bytes, and how it ended."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = bytearray()
        self.end: str = ""  # "EOF" or the name of the error

    def read(self, limit: int = 1 << 20) -> str:
        """Take what is there, at most `limit` bytes; returns the end, "" if it has not come."""
        try:
            part = self.sock.recv(limit)
        except BlockingIOError:
            return ""
        except OSError as exc:
            self.end = type(exc).__name__
        else:
            self.data += part
            self.end = "" if part else "EOF"
        return self.end


class Notes:
    """A protocol that writes down each call; `on` says what else to do in it.

    Follows asyncio's documentation and inherits from nothing, so it runs on both engines.
    """

    def __init__(self, **on: Callable[..., Any]) -> None:
        self.on = on
        self.trace: list[Any] = []
        self.transport: Any = None

    @property
    def names(self) -> list[str]:
        """The calls without their arguments; data in one piece counts once."""
        return [entry[0] if isinstance(entry, tuple) else entry for entry in self.trace]

    @property
    def data(self) -> bytes:
        """All bytes received."""
        return b"".join(e[1] for e in self.trace if e[0] == "data_received")

    @property
    def lost(self) -> bool:
        """Whether connection_lost was called."""
        return "connection_lost" in self.names

    @property
    def exc(self) -> Any:
        """What connection_lost was called with."""
        (exc,) = (e[1] for e in self.trace if e[0] == "connection_lost")
        return exc

    def _do(self, name: str, *args: Any) -> Any:
        return self.on[name](self, *args) if name in self.on else None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.trace.append(("connection_made",))
        self._do("connection_made")

    def data_received(self, data: bytes) -> None:
        if self.trace and self.trace[-1][0] == "data_received":
            self.trace[-1] = ("data_received", self.trace[-1][1] + data)
        else:
            self.trace.append(("data_received", data))
        self._do("data_received", data)

    def eof_received(self) -> bool | None:
        self.trace.append(("eof_received",))
        return self._do("eof_received")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.trace.append(("connection_lost", exc))
        self._do("connection_lost", exc)

    def pause_writing(self) -> None:
        self.trace.append(("pause_writing",))
        self._do("pause_writing")

    def resume_writing(self) -> None:
        self.trace.append(("resume_writing",))
        self._do("resume_writing")


def serve(
    loop: EventLoop, sock: socket.socket, protocol: Any, service: Service | None = None
) -> Transport:
    """A transport over `sock`, as an acceptor would make it."""
    service = service or Service(loop, "test", lambda: protocol)
    peer = sock.getpeername()
    service.open(sock.detach(), peer)
    transport: Transport = protocol.transport
    return transport

"""What the tests of the framings share: protocols that take notes, and a connection under them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from wiring import receive, run_until, serve, settle, turn, unix_pair

from epolld.net.framing import Framing
from epolld.net.lines import LineProtocol
from epolld.net.loop import EventLoop
from epolld.net.prefixed import LengthPrefixedProtocol, NetstringProtocol
from epolld.net.service import Service


class Noting:
    """A mixin: writes down what is received; `on` says what else to do, by content."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.on: dict[Any, Callable[[Any], object]] = {}

    def note(self, kind: str, what: Any) -> None:
        self.got.append(what if kind == "message" else (kind, what))
        if what in self.on:
            self.on[what](self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note("lost", type(exc))


class Lines(Noting, LineProtocol):
    delimiter = b"\n"
    max_length = 20

    def line_received(self, line: bytes) -> None:
        self.note("message", line)

    def raw_data_received(self, data: bytes) -> None:
        self.note("raw", data)


class CrLf(Lines):
    delimiter = b"\r\n"


class Prefixed(Noting, LengthPrefixedProtocol):
    prefix_bytes = 2
    max_length = 20

    def message_received(self, message: bytes) -> None:
        self.note("message", message)


class Netstrings(Noting, NetstringProtocol):
    max_length = 20

    def message_received(self, message: bytes) -> None:
        self.note("message", message)


ALL = [Lines, CrLf, Prefixed, Netstrings]


def framed(cls: type[Framing], messages: list[bytes]) -> bytes:
    """What a peer sends for these messages."""
    protocol = cls()
    if isinstance(protocol, LineProtocol):
        return b"".join(message + protocol.delimiter for message in messages)
    return b"".join(b"".join(protocol._frame(message)) for message in messages)


def answer(protocol: Any, message: bytes) -> None:
    """Send it in the protocol's own format."""
    if isinstance(protocol, LineProtocol):
        protocol.send_line(message)
    else:
        protocol.send_message(message)


class Peer:
    """The other end, and the loop to turn."""

    def __init__(self, loop: EventLoop, sock: socket.socket, service: Service) -> None:
        self.loop = loop
        self.sock = sock
        self.service = service

    def send(self, data: bytes) -> None:
        """Send it, and let the server have it in one receive if it fits."""
        self.sock.sendall(data)
        settle(self.loop, 3)

    def received(self) -> bytes | None:
        """All that has come; None if nothing has, b"" at the end."""
        return receive(self.sock)


@contextmanager
def connected(loop: EventLoop, protocol: Any) -> Iterator[Peer]:
    """Serve `protocol` over a socket pair."""
    ours, theirs = unix_pair()
    service = Service(loop, "test", lambda: protocol)
    serve(loop, ours, protocol, service)
    peer = Peer(loop, theirs, service)
    try:
        yield peer
    finally:
        theirs.close()
        run_until(loop, lambda: service.live == 0, "end of the connection")
        settle(loop)


__all__ = ["ALL", "CrLf", "Lines", "Netstrings", "Peer", "Prefixed", "answer", "connected"]
__all__ += ["framed", "turn"]

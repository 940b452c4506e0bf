"""The sockets that blocking handlers get: they count their bytes, and know when they were used.

The one for TLS is in tlsrequest.py, because most workers need no OpenSSL.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Base = socket.socket
else:
    Base = object


class Counted(Base):
    """Mixed into a class of sockets."""

    bytes_in = bytes_out = 0
    last_used = 0.0  # by the monotonic clock
    waiting = False  # inside one of the calls below, so the peer is what it waits for

    def recv(self, *args: Any) -> bytes:
        """As socket.recv."""
        data: bytes = self.watched(super().recv, args)
        self.bytes_in += len(data)
        return data

    def recv_into(self, *args: Any) -> int:
        """As socket.recv_into; files made by `makefile` come through here."""
        count: int = self.watched(super().recv_into, args)
        self.bytes_in += count
        return count

    def send(self, *args: Any) -> int:
        """As socket.send."""
        count: int = self.watched(super().send, args)
        self.bytes_out += count
        return count

    def say_goodbye(self) -> None:
        """The handler has returned; a plain socket has nothing more to say."""

    def watched(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call `function`, in which the peer is waited for."""
        self.waiting = True
        try:
            return function(*args)
        finally:
            self.waiting = False
            self.last_used = time.monotonic()


class Request(Counted, socket.socket):
    """A plain socket."""

    def sendall(self, data: Any, *args: Any) -> None:
        """As socket.sendall."""
        self.watched(super().sendall, (data, *args))
        self.bytes_out += memoryview(data).nbytes

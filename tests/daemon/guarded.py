"""Protocols for the tests of limits, as a user would write them."""

import os
from typing import Any

from epolld import LineProtocol, Protocol, Transport


class Peer(Protocol):
    """Says who it thinks is there, and at each byte again; moves to other workers."""

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.say()

    def data_received(self, data: bytes) -> None:
        self.say(data)

    def say(self, data: bytes = b"") -> None:
        names = ("peername", "proxy_peername", "proxy_sockname", "proxy_tlvs")
        facts: list[Any] = [self.transport.get_extra_info(name) for name in names]
        self.transport.write(repr((os.getpid(), *facts, data)).encode() + b"\n")

    def freeze(self) -> bytes:
        return b""


class Pours(Protocol):
    """Writes as much as it is told, in pieces, and does not care who reads."""

    def data_received(self, data: bytes) -> None:
        for _ in range(int(data)):
            self.transport.write(bytes(65536))


class Lines(LineProtocol):
    """Answers each line with who sent it; to `pour` with a lot."""

    def line_received(self, line: bytes) -> None:
        if line == b"pour":
            self.transport.write(bytes(1 << 24))
        else:
            self.send_line(repr(self.transport.get_extra_info("peername")).encode())

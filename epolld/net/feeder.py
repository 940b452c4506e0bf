"""Lets a transport that hands out bytes serve an `asyncio.BufferedProtocol`, which has buffers.

What has been received is copied into the protocol's own buffers. A receive straight into them
would spare the copy, but then every kind of transport (TLS, framings, guarded ones) would come
in two kinds; asyncio copies as well where the bytes come from its TLS.
"""

from __future__ import annotations

from typing import Any


class Feeder:
    """Stands between a transport and a protocol with `get_buffer` and `buffer_updated`."""

    __slots__ = ("protocol",)

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol

    def data_received(self, data: bytes) -> None:
        """Hand `data` over, in as many pieces as the protocol's buffers take."""
        protocol = self.protocol
        rest = memoryview(data)
        while rest:
            buffer = protocol.get_buffer(len(rest))
            size = len(buffer)
            if not size:
                raise RuntimeError("get_buffer() returned an empty buffer")
            if size >= len(rest):
                size = len(rest)
                buffer[:size] = rest
                protocol.buffer_updated(size)
                return
            buffer[:size] = rest[:size]
            protocol.buffer_updated(size)
            rest = rest[size:]

    def __getattr__(self, name: str) -> Any:
        """All else is the protocol's own."""
        return getattr(self.protocol, name)


def fed(protocol: Any) -> Any:
    """The protocol as a transport can serve it: itself, or behind a feeder."""
    return Feeder(protocol) if hasattr(protocol, "get_buffer") else protocol

"""Who a client is, and networks of clients: `192.0.2.0/24`, `2001:db8::/32`, `unix`, `all`.

A leaf: parses, prints and compares numbers. It resolves no names and knows no sockets.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

import msgspec

# What stands for the address family in a Client or a Network.
ANY, UNIX, V4, V6 = -1, 0, 4, 6
_SIZE = {V4: 32, V6: 128}  # bits
_MAPPED = 0xFFFF  # the upper 96 bits of an IPv4 address in IPv6 clothes, ::ffff:192.0.2.7

_FORMS = "write 192.0.2.0/24, 2001:db8::/32, unix or all"


class Client(NamedTuple):
    """The address of a peer as a number; all Unix peers are one."""

    version: int
    number: int


class Network(msgspec.Struct, frozen=True):
    """All clients whose address begins with the same bits."""

    version: int
    start: int  # the bits that count, as a number
    ignored: int  # how many low bits do not count

    def __contains__(self, client: Client) -> bool:
        version = self.version
        if version != client.version:
            return version == ANY
        return client.number >> self.ignored == self.start

    def __str__(self) -> str:
        if self.version in (ANY, UNIX):
            return "all" if self.version == ANY else "unix"
        bits = _SIZE[self.version]
        family = socket.AF_INET if self.version == V4 else socket.AF_INET6
        packed = (self.start << self.ignored).to_bytes(bits // 8, "big")
        host = socket.inet_ntop(family, packed)
        return f"{host}/{bits - self.ignored}" if self.ignored else host


ALL = Network(ANY, 0, 0)
UNIX_PEERS = Network(UNIX, 0, 0)


def parse_network(text: str) -> Network:
    """The network that `text` names; an address alone is a network of one. Raises ValueError."""
    if text in ("all", "unix"):
        return ALL if text == "all" else UNIX_PEERS
    host, slash, length = text.partition("/")
    version = V6 if ":" in host else V4
    try:
        packed = socket.inet_pton(socket.AF_INET6 if version == V6 else socket.AF_INET, host)
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is not a network; {_FORMS}") from None
    bits = _SIZE[version]
    if not slash:
        length = str(bits)
    if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits):
        raise ValueError(f"{text!r}: the part after / is the number of bits, 0 to {bits}")
    ignored = bits - int(length)
    number = int.from_bytes(packed, "big")
    network = Network(version, number >> ignored, ignored)
    if number >> ignored << ignored != number:
        raise ValueError(f"{text!r} has bits set after the first {length}; write {network}")
    if version == V6 and ignored <= 32 and number >> 32 == _MAPPED:
        raise ValueError(f"{text!r}: clients of IPv4 are known as such; write it as IPv4")
    return network


def client_of(peer: Any) -> Client:
    """Who `peer`, an address as accept() gives it, is; an IPv4-mapped one counts as IPv4."""
    if not isinstance(peer, tuple):
        return Client(UNIX, 0)
    host = peer[0]
    if ":" not in host:
        return Client(V4, int.from_bytes(socket.inet_pton(socket.AF_INET, host), "big"))
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    number = int.from_bytes(packed, "big")
    if number >> 32 == _MAPPED:
        return Client(V4, number & 0xFFFFFFFF)
    return Client(V6, number)

"""The PROXY protocol's header, versions 1 and 2: bytes in, the real client out.

Pure: it reads no socket, keeps no state and decides nothing about trust. The format is that of
https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, and every deviation from it is an
error: the header says who somebody is, so a lenient reader would be a way to lie.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, NamedTuple

# The longest header of version 1, its line end included (section 2.1 of the specification).
MAX_V1 = 107
# The longest of version 2 that is taken. The format allows 65,551 bytes; 232 of them are the
# largest addresses, the rest are TLVs, of which a client certificate is the only big one.
MAX_V2 = 4096

V1 = b"PROXY "
V2 = b"\r\n\r\n\0\r\nQUIT\n"

TLV_CRC32C = 0x03
TLV_NOOP = 0x04

_FIXED = len(V2) + 4  # bytes of version 2 up to the addresses
# Address families of version 2, each with the bytes of its two addresses.
_INET, _INET6, _UNIX = 1, 2, 3
_ADDRESS_SIZE = {_INET: 12, _INET6: 36, _UNIX: 216}
_MOST_PROTOCOL = 2  # 0: unspecified, 1: stream, 2: datagram

_V1_FAMILY = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}


class ProxyError(ValueError):
    """This is no PROXY header, or a wrong one; the text says why."""


class Header(NamedTuple):
    """What a header says. Addresses are as the socket module gives them."""

    version: int
    length: int  # bytes of the whole header
    source: Any  # the client's address; None: the one who connected (LOCAL, UNKNOWN, UNSPEC)
    destination: Any  # which address the client connected to; None with `source`
    tlvs: tuple[tuple[int, bytes], ...] = ()  # (type, value) of version 2, as they came


def parse(data: bytes) -> Header | None:
    """The header that `data` begins with; None if more bytes are needed to tell.

    Raises ProxyError as soon as it is clear that none comes. What follows the header is left
    alone: `Header.length` says where that begins.
    """
    if data.startswith(V2[: len(data)]):
        return None if len(data) < _FIXED else _parse_v2(data)
    if data.startswith(V1[: len(data)]):
        return _parse_v1(data)
    raise ProxyError("no PROXY header")


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise ProxyError(f"no line end within {MAX_V1} bytes")
        return None
    length = end + 2
    words = data[len(V1) : end].split(b" ")
    if words[0] == b"UNKNOWN":  # what follows is to be ignored
        return Header(1, length, None, None)
    family = _V1_FAMILY.get(words[0])
    if family is None:
        raise ProxyError(f"unknown protocol {words[0][:16]!r}")
    if len(words) != 5:
        raise ProxyError(f"{len(words)} words, not 5")
    source = _v1_address(family, words[1], words[3])
    destination = _v1_address(family, words[2], words[4])
    return Header(1, length, source, destination)


def _v1_address(family: int, host: bytes, port: bytes) -> Any:
    try:
        packed = socket.inet_pton(family, host.decode("ascii"))
    except (OSError, ValueError):
        raise ProxyError(f"not an address: {host[:45]!r}") from None
    number = int(port) if port.isdigit() and len(port) <= 5 else -1
    if not 0 <= number <= 65535 or str(number).encode() != port:
        raise ProxyError(f"not a port: {port[:8]!r}")
    return _ip_address(family, packed, number)


def _ip_address(family: int, packed: bytes, port: int) -> Any:
    """As accept() gives it: IPv6 with flow label and scope."""
    host = socket.inet_ntop(family, packed)
    return (host, port) if family == socket.AF_INET else (host, port, 0, 0)


def _parse_v2(data: bytes) -> Header | None:
    version_command, family_protocol, rest = struct.unpack_from("!BBH", data, len(V2))
    length = _FIXED + rest
    version, command = divmod(version_command, 16)
    family, protocol = divmod(family_protocol, 16)
    if version != 2:
        raise ProxyError(f"unknown version {version}")
    if command > 1:
        raise ProxyError(f"unknown command {command}")
    if length > MAX_V2:
        raise ProxyError(f"a header of {length} bytes, more than {MAX_V2}")
    if command == 0:  # LOCAL: the proxy speaks for itself, and the rest is to be ignored
        return Header(2, length, None, None) if len(data) >= length else None
    if family > _UNIX or protocol > _MOST_PROTOCOL:
        raise ProxyError(f"unknown address family or protocol 0x{family_protocol:02x}")
    # Before the whole has come: a length that cannot be right is no reason to wait.
    size = _ADDRESS_SIZE.get(family, 0)
    if rest < size:
        raise ProxyError(f"{rest} bytes for addresses of {size}")
    if len(data) < length:
        return None
    header = data[:length]
    tlvs = _tlvs(header, _FIXED + size)
    if not size:
        return Header(2, length, None, None, tlvs)
    return Header(2, length, *_v2_addresses(family, header[_FIXED : _FIXED + size]), tlvs)


def _v2_addresses(family: int, block: bytes) -> tuple[Any, Any]:
    if family == _UNIX:
        return _unix_address(block[:108]), _unix_address(block[108:])
    size, kind = (4, socket.AF_INET) if family == _INET else (16, socket.AF_INET6)
    ports = struct.unpack_from("!HH", block, 2 * size)
    return (
        _ip_address(kind, block[:size], ports[0]),
        _ip_address(kind, block[size : 2 * size], ports[1]),
    )


def _unix_address(path: bytes) -> Any:
    """A path as text ("": it has none), an abstract name (it begins with NUL) as bytes."""
    abstract = path.rstrip(b"\0")
    if abstract.startswith(b"\0"):
        return abstract
    return os.fsdecode(path.partition(b"\0")[0])


def _tlvs(header: bytes, at: int) -> tuple[tuple[int, bytes], ...]:
    """The fields after the addresses, fillers left out; the checksum is verified."""
    found = []
    while at < len(header):
        if at + 3 > len(header):
            raise ProxyError("a TLV without length at the end")
        kind, size = struct.unpack_from("!BH", header, at)
        begin, at = at + 3, at + 3 + size
        if at > len(header):
            raise ProxyError(f"a TLV of {size} bytes, more than there are")
        value = header[begin:at]
        if kind == TLV_CRC32C:
            _verify(header, begin, value)
        if kind != TLV_NOOP:
            found.append((kind, value))
    return tuple(found)


def _verify(header: bytes, begin: int, value: bytes) -> None:
    """The checksum is that of the header with zeros in its place."""
    if len(value) != 4:
        raise ProxyError(f"a checksum of {len(value)} bytes, not 4")
    whole = header[:begin] + bytes(4) + header[begin + 4 :]
    if crc32c(whole) != int.from_bytes(value, "big"):
        raise ProxyError("the checksum is wrong")


_crc_table: list[int] = []  # made when the first header has a checksum


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), RFC 3720 appendix B.4; zlib's is another polynomial."""
    if not _crc_table:
        for byte in range(256):
            for _ in range(8):
                byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
            _crc_table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _crc_table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

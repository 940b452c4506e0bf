"""The PROXY header: every form of it, cut anywhere, and against another implementation."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyprotocol import ProxyProtocolIncompleteError
from proxyprotocol.result import (
    ProxyResult,
    ProxyResultIPv4,
    ProxyResultIPv6,
    ProxyResultLocal,
    ProxyResultUnix,
    ProxyResultUnknown,
)
from proxyprotocol.tlv import ProxyProtocolTLV
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from epolld.net.proxyproto import (
    MAX_V1,
    MAX_V2,
    TLV_CRC32C,
    V2,
    Header,
    ProxyError,
    crc32c,
    parse,
)

TCP4 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 1688\r\n"
TCP6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 1688\r\n"


def v2(block: bytes, family: int = 0x11, version_command: int = 0x21) -> bytes:
    """A header of version 2 around addresses and TLVs."""
    return V2 + struct.pack("!BBH", version_command, family, len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    """One field."""
    return struct.pack("!BH", kind, len(value)) + value


INET = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + b"\x12\x67\x06\x98"


def test_version_1() -> None:
    assert parse(TCP4) == Header(1, len(TCP4), ("192.0.2.7", 4711), ("198.51.100.1", 1688))
    assert parse(TCP6 + b"rest") == Header(
        1, len(TCP6), ("2001:db8::7", 4711, 0, 0), ("2001:db8::1", 1688, 0, 0)
    )
    for unknown in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff:: what ever\r\n"):
        assert parse(unknown) == Header(1, len(unknown), None, None)


def test_version_2() -> None:
    plain = v2(INET)
    assert parse(plain + b"x") == Header(2, 28, ("192.0.2.7", 4711), ("198.51.100.1", 1688))
    six = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + b"\0\1\0\2"
    found = parse(v2(six, 0x21))
    assert found is not None
    assert found.source == ("2001:db8::7", 1, 0, 0)
    assert found.destination == ("2001:db8::7", 2, 0, 0)
    unix = parse(v2(b"/run/a".ljust(108, b"\0") + b"\0name".ljust(108, b"\0"), 0x31))
    assert unix is not None
    assert (unix.source, unix.destination) == ("/run/a", b"\0name")
    assert parse(v2(b"", 0x00)) == Header(2, 16, None, None)
    assert parse(v2(tlv(5, b"id"), 0x00)) == Header(2, 21, None, None, ((5, b"id"),))


def test_local_ignores_all_that_follows() -> None:
    for block, family in ((b"", 0), (INET, 0x11), (b"anything at all", 0xFF)):
        header = v2(block, family, 0x20)
        assert parse(header + b"x") == Header(2, len(header), None, None)


def test_tlvs_and_checksum() -> None:
    fields = tlv(2, b"example.org") + tlv(4, b"filler") + tlv(0xE0, b"")
    found = parse(v2(INET + fields))
    assert found is not None
    assert found.tlvs == ((2, b"example.org"), (0xE0, b""))
    blank = v2(INET + fields + tlv(TLV_CRC32C, bytes(4)))
    right = blank[:-4] + struct.pack("!I", crc32c(blank))
    found = parse(right)
    assert found is not None
    assert found.tlvs[-1][0] == TLV_CRC32C
    for place in (*range(16, 28), *range(len(right) - 4, len(right))):
        damaged = right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :]
        with pytest.raises(ProxyError, match="checksum is wrong"):
            parse(damaged)


def test_crc32c_of_the_rfc() -> None:
    """RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("header", [TCP4, TCP6, v2(INET), v2(INET + tlv(1, b"h2"))])
def test_cut_anywhere_it_waits_for_the_rest(header: bytes) -> None:
    for end in range(len(header)):
        assert parse(header[:end]) is None
    assert parse(header) == parse(header + b"PROXY TCP4 ")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "no PROXY header"),
        (b"PRoXY", "no PROXY header"),
        (b"\r\n\r\n\0\r\nQUIT\r", "no PROXY header"),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "unknown protocol"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "4 words"),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "6 words"),
        (b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", "not an address"),
        (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", "not an address"),
        (b"PROXY TCP4 ::1 1.2.3.4 1 2\r\n", "not an address"),
        (b"PROXY TCP6 1.2.3.4 ::1 1 2\r\n", "not an address"),
        (b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", "not an address"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "not a port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "not a port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", "not a port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n", "not a port"),
        (b"PROXY UNKNOWN".ljust(MAX_V1, b" "), "no line end"),
        (v2(INET, version_command=0x11), "unknown version"),
        (v2(INET, version_command=0x22), "unknown command"),
        (v2(INET, 0x41), "unknown address family"),
        (v2(INET, 0x13), "unknown address family"),
        (v2(INET[:-1]), "bytes for addresses"),
        (v2(INET, 0x21), "bytes for addresses"),
        (v2(INET, 0x31), "bytes for addresses"),
        (v2(INET + b"\1\0"), "without length"),
        (v2(INET + b"\1\0\2x"), "more than there are"),
        (v2(INET + tlv(TLV_CRC32C, b"123")), "not 4"),
        (v2(INET + tlv(TLV_CRC32C, b"1234")), "checksum is wrong"),
        (v2(bytes(MAX_V2))[:16], "more than"),
    ],
)
def test_refused(data: bytes, why: str) -> None:
    with pytest.raises(ProxyError, match=why):
        parse(data)


@given(st.binary(max_size=400))
def test_no_bytes_break_it(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", V2, V2 + b"\x21\x11\0\x20", V2 + b"\x21\x31\1\0"):
        try:
            found = parse(start + data)
        except ProxyError:
            continue
        assert found is None or 0 < found.length <= len(start + data)


# -- against the proxy-protocol package --------------------------------------------------------

ports = st.integers(0, 65535)
v4 = st.tuples(st.integers(0, 2**32 - 1).map(IPv4Address), ports)
v6 = st.tuples(st.integers(0, 2**128 - 1).map(IPv6Address), ports)
path = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=108)
# Types that mean nothing to either side, and a few with a meaning.
fields = st.dictionaries(
    st.sampled_from([0x01, 0x02, 0x05, 0x30, 0xE0, 0xF1]), st.binary(max_size=40), max_size=4
).map(lambda init: ProxyProtocolTLV(init=init, auto_crc32c=True))
STREAM = socket.SOCK_STREAM
results = st.one_of(
    st.builds(lambda a, b, t: ProxyResultIPv4(a, b, protocol=STREAM, tlv=t), v4, v4, fields),
    st.builds(lambda a, b, t: ProxyResultIPv6(a, b, protocol=STREAM, tlv=t), v6, v6, fields),
    st.builds(lambda a, b, t: ProxyResultUnix(a, b, protocol=STREAM, tlv=t), path, path, fields),
)


def as_socket_gives_it(result: ProxyResult) -> Any:
    """The client as accept() would name it; the package prints IPv4-mapped ones in its own way."""
    if isinstance(result, ProxyResultIPv6):
        host = socket.inet_ntop(socket.AF_INET6, result.source[0].packed)
        return host, result.source[1], 0, 0
    return result.peername


@given(results)
def test_reads_what_the_package_writes(result: ProxyResult) -> None:
    data = ProxyProtocolV2().pack(result)
    found = parse(data + b"more")
    assert found is not None
    assert found.length == len(data)
    assert found.source == as_socket_gives_it(result)
    written = {k: v for k, v in result.tlv.items() if k != TLV_CRC32C}
    assert {k: v for k, v in found.tlvs if k != TLV_CRC32C} == written


@given(
    st.one_of(
        v4.map(lambda a: ProxyResultIPv4(a, a, protocol=STREAM)),
        v6.map(lambda a: ProxyResultIPv6(a, a, protocol=STREAM)),
        st.just(ProxyResultUnknown()),
    )
)
def test_reads_version_1_of_the_package(result: ProxyResult) -> None:
    data = ProxyProtocolV1().pack(result)
    found = parse(data)
    assert found is not None
    assert (found.length, found.version) == (len(data), 1)
    assert found.source == (
        None if isinstance(result, ProxyResultUnknown) else as_socket_gives_it(result)
    )


def test_reads_local_of_the_package() -> None:
    found = parse(ProxyProtocolV2().pack(ProxyResultLocal()))
    assert found is not None
    assert found.source is None


@given(st.binary(max_size=60), st.sampled_from([0x20, 0x21]), st.sampled_from([0x11, 0x21, 0x00]))
def test_what_it_takes_the_package_takes_too(block: bytes, command: int, family: int) -> None:
    """And with the same client: nobody can be somebody else to another receiver."""
    data = v2(block, family, command)
    try:
        found = parse(data)
    except ProxyError:
        return
    assert found is not None
    if command == 0x20:
        return  # the package reads TLVs there, where the specification says: ignore
    try:
        theirs = ProxyProtocolV2().unpack(data)
    except (ProxyProtocolIncompleteError, IndexError):
        return
    assert found.source == as_socket_gives_it(theirs)

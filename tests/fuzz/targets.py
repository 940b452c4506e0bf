"""What is fuzzed: one function a parser. It takes any bytes and raises if a promise is broken.

The promise is the same everywhere: a result that can be used, or the one exception that the
parser's own text names; never another, never a wrong place, never another result for other pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from epolld.address import parse_address
from epolld.config import loads, render
from epolld.errors import ConfigError
from epolld.host import x509
from epolld.master import requests
from epolld.net import proxyproto
from epolld.net.framing import Framing
from epolld.net.lines import LineProtocol
from epolld.net.prefixed import LengthPrefixedProtocol, NetstringProtocol
from epolld.networks import parse_network
from epolld.units import format_duration, format_size, parse_duration, parse_size

ROOT = Path(__file__).resolve().parents[2]
FOUND = Path(__file__).parent / "found"  # what once broke a promise: FOUND/TARGET/NAME


def configuration(data: bytes) -> None:
    """A configuration that says the same once written out, or problems each with its place."""
    text = data.decode(errors="replace")
    try:
        loaded = loads(text, "fuzz.yaml")
    except ConfigError as error:
        problems = error.problems
    else:
        again = loads(render(loaded.config), "again.yaml")
        assert again.config == loaded.config
        return
    assert problems
    # YAML's line ends: beside the usual, next line, line and paragraph separator.
    last = 1 + sum(map(text.count, "\n\r\x85\u2028\u2029"))
    for problem in problems:
        assert problem.message
        assert 1 <= problem.line <= last + 1, problem
        assert problem.column >= 1, problem


def proxy(data: bytes) -> None:
    """A header within the bytes, the same if it comes in pieces; or not one; or not yet one."""
    try:
        header = proxyproto.parse(data)
    except proxyproto.ProxyError:
        return
    if header is None:
        assert len(data) < proxyproto.MAX_V2
        return
    assert 0 < header.length <= len(data)
    assert proxyproto.parse(data[: header.length]) == header
    for size in range(header.length):
        assert proxyproto.parse(data[:size]) is None


def units(data: bytes) -> None:
    """What is parsed and written is parsed the same."""
    text = data.decode(errors="replace")
    for parse, write in ((parse_duration, format_duration), (parse_size, format_size)):
        parse: Callable[[str], Any]
        write: Callable[[Any], str]
        try:
            value = parse(text)
        except ValueError:
            continue
        assert value >= 0
        assert parse(write(value)) == value


def addresses(data: bytes) -> None:
    """What is parsed and written is parsed the same."""
    text = data.decode(errors="replace")
    for parse in (parse_address, parse_network):
        parse: Callable[[str], Any]
        try:
            value = parse(text)
        except ValueError:
            continue
        assert parse(str(value)) == value


def control(data: bytes) -> None:
    """A request that survives being sent, or a complaint with words."""
    try:
        request = requests.parse(data)
    except ValueError as error:
        complaint = str(error)
    else:
        assert requests.parse(msgspec.json.encode(request)) == request
        return
    assert complaint


def certificate(data: bytes) -> None:
    """Facts, or ValueError."""
    for read in (x509.read_der, x509.read_pem):
        try:
            facts = read(data)
        except ValueError:
            continue
        assert all(isinstance(name, str) for name in facts.names)


class _Memory:
    """A transport without a socket."""

    service = SimpleNamespace(name="fuzz")

    def __init__(self) -> None:
        self.closing = False

    def write(self, data: bytes) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def is_reading(self) -> bool:
        return not self.closing

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def close_for(self, cause: str) -> None:
        self.closing = True

    def describe_peer(self) -> str:
        return "nobody"

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        raise AssertionError("a framing that keeps up defers nothing")


class _Noting:
    def __init__(self) -> None:
        self.got: list[bytes] = []

    def message_received(self, message: bytes) -> None:
        self.got.append(message)

    line_received = message_received

    def freeze(self) -> bytes | None:
        """As the framing does: what was got is no state of the connection's."""
        return super().freeze()  # type: ignore[misc]


class _Lines(_Noting, LineProtocol):
    delimiter = b"\r\n"
    max_length = 30


class _Prefixed(_Noting, LengthPrefixedProtocol):
    prefix_bytes = 1
    max_length = 30


class _Netstrings(_Noting, NetstringProtocol):
    max_length = 30


def _messages(cls: type[Framing], pieces: list[bytes], moving: bool) -> tuple[list[bytes], bool]:
    """What a protocol makes of the pieces, perhaps moved to another process after each."""
    transport: Any = _Memory()
    protocol: Any = cls()
    protocol.connection_made(transport)
    got: list[bytes] = []
    for piece in pieces:
        if transport.closing:
            break
        protocol.data_received(piece)
        if moving and not transport.closing:
            got += protocol.got
            state = protocol.freeze()
            assert state is not None
            protocol = cls()
            protocol.connection_made(transport)
            protocol.thaw(state)
    return got + protocol.got, transport.closing


def framings(data: bytes) -> None:
    """However the bytes are cut, and wherever the connection moves: the same messages, and end."""
    cut, data = (data[0] % 16 + 1 if data else 1), data[1:]
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    for cls in (_Lines, _Prefixed, _Netstrings):
        whole = _messages(cls, [data] if data else [], moving=False)
        assert _messages(cls, pieces, moving=False) == whole
        assert _messages(cls, pieces, moving=True) == whole


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        addresses,
        certificate,
        configuration,
        control,
        framings,
        proxy,
        units,
    )
}


def seeds(name: str) -> list[bytes]:
    """Where the fuzzer starts: good input, and what once was found."""
    good: dict[str, list[bytes]] = {
        "addresses": [
            b"127.0.0.1:7",
            b"[::1]:80",
            b"*:0",
            b"unix:/run/x",
            b"unix:@x",
            b"fd:3",
            b"192.0.2.0/24",
            b"2001:db8::/32",
        ],
        "certificate": [_certificate()],
        "configuration": [path.read_bytes() for path in sorted((ROOT / "etc").glob("*.yaml"))],
        "control": [
            b'{"command":"kill","ids":["7"],"peers":["192.0.2.0/24"],"idle":1.5}',
            b'{"command":"scale","workers":3,"id":7}',
        ],
        "framings": [b"\3hello\r\nyou\r\n", b"\2\5hello\3you", b"\0005:hello,3:you,"],
        "proxy": [
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UNKNOWN\r\n",
            proxyproto.V2 + b"\x21\x11\0\x13" + bytes(12) + b"\4\0\4abcd",
            proxyproto.V2 + b"\x20\0\0\0",
        ],
        "units": [b"1m30s", b"500ms", b"64k", b"1.5e3", b"2GiB"],
    }
    return good[name] + [path.read_bytes() for path in found(name)]


def found(name: str) -> list[Path]:
    """The inputs that once broke the target's promise."""
    return sorted((FOUND / name).glob("*"))


def _certificate() -> bytes:
    import ssl

    import trustme

    issued = trustme.CA().issue_cert("example.org", "*.example.net")
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

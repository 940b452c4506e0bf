"""Where a service listens: `host:port`, `[v6]:port`, `*:port`, `unix:/path`, `fd:N`.

A leaf: parses and prints addresses. It opens no socket and resolves no name.
"""

import re
import socket
from typing import Any

import msgspec

# struct sockaddr_un's sun_path holds 108 bytes, the last (or, for an abstract name, the
# first) of them NUL: unix(7).
MAX_UNIX_PATH = 107
MAX_PORT = 65535

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?", re.ASCII)
_DIGITS = re.compile(r"\d{1,9}", re.ASCII)
_FORMS = "write host:port, [v6]:port, *:port, unix:/path or fd:N"


class TcpAddress(msgspec.Struct, frozen=True):
    """A TCP port on one address. Port 0 lets the kernel choose."""

    host: str  # an IPv4 or IPv6 address (no brackets) or a name; `*` is kept as "0.0.0.0"
    port: int

    def __str__(self) -> str:
        if self.host == "0.0.0.0":
            return f"*:{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(msgspec.Struct, frozen=True):
    """A Unix stream socket; `path` is absolute, or begins with "@" for an abstract name."""

    path: str
    mode: int | None = None  # of the socket file; None: what the umask leaves
    owner: str | None = None  # a user's name or number; None: who creates it
    group: str | None = None

    def __str__(self) -> str:
        return f"unix:{self.path}"


class FdAddress(msgspec.Struct, frozen=True):
    """A listening socket that the process was started with."""

    fd: int

    def __str__(self) -> str:
        return f"fd:{self.fd}"


Address = TcpAddress | UnixAddress | FdAddress


def parse_address(text: str) -> Address:
    """The address that `text` names. Raises ValueError with a remedy."""
    if text.startswith("unix:"):
        return _parse_unix(text[5:])
    if text.startswith("fd:"):
        return _parse_fd(text[3:])
    host, colon, port = text.rpartition(":")
    if not colon:
        if _DIGITS.fullmatch(text):
            raise ValueError(
                f"{text!r} has no host; write 127.0.0.1:{text} for this machine only, "
                f"*:{text} for every interface"
            )
        if text.startswith("/"):
            raise ValueError(f"{text!r} looks like a path; write unix:{text}")
        raise ValueError(f"{text!r} is not an address; {_FORMS}")
    return TcpAddress(_parse_host(host, text), _parse_port(port, text))


def _parse_host(host: str, text: str) -> str:
    """The canonical form of the part before the port."""
    if host == "*":
        return "0.0.0.0"
    if not host:
        raise ValueError(f"{text!r} has no host; write 127.0.0.1{text}, or *{text} for every one")
    if host.startswith("[") and host.endswith("]"):
        return _parse_v6(host[1:-1], text)
    if ":" in host:
        raise ValueError(f"{text!r}: put an IPv6 address in brackets, such as [::1]:1688")
    if host.replace(".", "").isdigit():
        try:
            return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host))
        except (OSError, ValueError):
            raise ValueError(f"{host!r} is not an IPv4 address; write four numbers") from None
    if len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name; {_FORMS}")
    return host


def _parse_v6(host: str, text: str) -> str:
    """The canonical IPv6 address, with its scope ("%eth0") if it has one."""
    number, percent, scope = host.partition("%")
    try:
        packed = socket.inet_pton(socket.AF_INET6, number)
    except (OSError, ValueError):
        raise ValueError(f"{text!r}: {host!r} is not an IPv6 address, such as ::1") from None
    if percent and not re.fullmatch(r"[\w.-]{1,15}", scope, re.ASCII):
        raise ValueError(f"{text!r}: {scope!r} is not an interface, such as eth0")
    return socket.inet_ntop(socket.AF_INET6, packed) + percent + scope


def _parse_port(port: str, text: str) -> int:
    if not _DIGITS.fullmatch(port):
        raise ValueError(f"{text!r} has no port number; {_FORMS}")
    if int(port) > MAX_PORT:
        raise ValueError(f"port {port} is out of range; write a number from 0 to {MAX_PORT}")
    return int(port)


def _parse_unix(path: str) -> UnixAddress:
    if "\0" in path:
        raise ValueError("a Unix socket's path cannot hold a NUL byte; remove it")
    if not path.startswith(("/", "@")) or path == "@":
        raise ValueError(
            f"'unix:{path}' is not absolute; write unix:/path, or unix:@name for an abstract one"
        )
    if path.startswith("/") and path.rsplit("/", 1)[1] in ("", ".", ".."):
        raise ValueError(f"'unix:{path}' names a directory; add the socket's file name")
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise ValueError("a Unix socket's path must be UTF-8; write another name") from None
    if length > MAX_UNIX_PATH:
        raise ValueError(
            f"a Unix socket's path has at most {MAX_UNIX_PATH} bytes, this one {length}; shorten it"
        )
    return UnixAddress(path)


def _parse_fd(number: str) -> FdAddress:
    if not _DIGITS.fullmatch(number):
        raise ValueError(f"'fd:{number}' has no descriptor number; write fd:N, such as fd:3")
    return FdAddress(int(number))


def format_peer(sockaddr: Any) -> str:
    """For people: what `accept` or `getpeername` returned ("" of an unnamed Unix peer too)."""
    if isinstance(sockaddr, tuple):
        host, port = str(sockaddr[0]), sockaddr[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(sockaddr, bytes):
        sockaddr = sockaddr.decode("utf-8", "backslashreplace")
    if not sockaddr:
        return "unix peer"
    return "unix:" + ("@" + sockaddr[1:] if sockaddr[0] == "\0" else str(sockaddr))

"""What is asked of a connected socket once in a while, by its bare descriptor.

A connection is read and written with `os.read` and `os.write`, which take a number. For all else
(shutdown, options, addresses) Python wants a socket object: 90 bytes each, and 5 µs to make in
`socket.accept()`. So it is made for the moment of the call. Also how peers are kept: an IPv4
address with its port is one integer, because a tuple of text and number costs 150 bytes more.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_UCRED = struct.Struct("3i")  # struct ucred of <sys/socket.h>: pid, uid, gid

_inet_aton = socket.inet_aton
_int_from_bytes = int.from_bytes


@contextmanager
def borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket object over `fd` for the length of a `with`; `fd` stays open."""
    # Naming family, type and protocol spares three system calls; only Python looks at them.
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


def accept(listener: socket.socket) -> tuple[int, Any]:
    """Accept a connection: its descriptor, non-blocking, and its peer as `pack_peer` makes it.

    Raises OSError as socket.accept() does.
    """
    # What socket.accept() does before it makes an object, which costs as much again as the rest:
    # 6 in place of 12 µs.
    fd, peer = listener._accept()  # type: ignore[attr-defined]
    os.set_blocking(fd, False)
    return fd, pack_peer(peer)


def shutdown(fd: int, how: int) -> None:
    """As socket.shutdown()."""
    with borrowed(fd) as sock:
        sock.shutdown(how)


def pending_error(fd: int) -> OSError | None:
    """The error that waits on the socket (SO_ERROR), taken from it; None if there is none."""
    with borrowed(fd) as sock:
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return OSError(number, os.strerror(number)) if number else None


def local_address(fd: int) -> Any:
    """As socket.getsockname()."""
    with borrowed(fd) as sock:
        return sock.getsockname()


def peer_credentials(fd: int) -> tuple[int, int, int] | None:
    """(pid, uid, gid) of who connected a Unix socket, at that time; None for other sockets."""
    sock = socket.socket(fileno=fd)
    try:
        if sock.family != socket.AF_UNIX:
            return None
        packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(packed)
        return pid, uid, gid
    finally:
        sock.detach()


def pack_peer(peer: Any) -> Any:
    """An address as accept() gives it, in less memory: `unpack_peer` makes it whole again."""
    if type(peer) is int:  # it is packed
        return peer
    try:
        host, port = peer
        return _int_from_bytes(_inet_aton(host), "big") << 16 | port
    except (OSError, TypeError, ValueError):  # another family's
        return peer


def unpack_peer(packed: Any) -> Any:
    """The address as accept() gave it: a tuple for IP, text or bytes for Unix sockets."""
    if type(packed) is int:
        return socket.inet_ntoa((packed >> 16).to_bytes(4, "big")), packed & 0xFFFF
    return packed


def describe_peer(peer: Any) -> str:
    """A peer for a log line: `192.0.2.7:4711`, `[2001:db8::7]:4711`, `unix peer`."""
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix peer"

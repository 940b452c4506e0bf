"""The kernel's part of a TCP connection, in memory: bytes under way, ends, errors, readiness.

Both ends of a `Wire` are here. Ours has numbers like descriptors, which the functions below take
as the system calls of their names do; the peer's is the object's own methods. `Readiness` is an
epoll object over such numbers. Which errno comes when is as in Linux' TCP.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP = (
    select.EPOLLIN,
    select.EPOLLOUT,
    select.EPOLLERR,
    select.EPOLLHUP,
)
UNASKED = EPOLLERR | EPOLLHUP  # reported whether asked for or not

# Above any real descriptor: what gets into a real system call by mistake fails.
_numbers = itertools.count(1_000_000)
_wires: WeakValueDictionary[int, Wire] = WeakValueDictionary()


class Wire:
    """One connection; "we" is the server."""

    def __init__(self, sockname: Any) -> None:
        self.sockname = sockname
        self.inbound = bytearray()  # the peer has sent it, we have not read it
        self.outbound = bytearray()  # we have sent it, the peer has not read it
        self.window: int | None = None  # `outbound` holds no more than this; None: no limit
        self.fin_received = False  # the peer sends no more
        self.fin_sent = False  # we send no more
        self.gone = False  # the peer has closed: it answers bytes with RST
        self.dead = False  # an RST has passed, in either direction
        self.error = 0  # SO_ERROR
        self.reset_sent = False  # the peer has got an RST
        self._open = 0  # numbers that mean our end

    def number(self) -> int:
        """A new number for our end, as from accept() or dup()."""
        fd = next(_numbers)
        _wires[fd] = self
        self._open += 1
        return fd

    # -- what the peer does ----------------------------------------------------------------------

    def peer_reset(self) -> None:
        """An RST comes from the peer."""
        if not self.dead:
            self.dead = True
            self.error = errno.EPIPE if self.fin_received else errno.ECONNRESET

    def peer_close(self) -> None:
        """The peer closes: with FIN if it has read all we sent, else with RST."""
        self.gone = True
        if self.window is not None and self.outbound:
            self.peer_reset()
        self.fin_received = True

    # -- what we do ------------------------------------------------------------------------------

    def room(self) -> int:
        """How many bytes a write would take now."""
        if self.window is None:
            return 1 << 40
        return max(0, self.window - len(self.outbound))

    def take_error(self) -> int:
        """SO_ERROR, which is cleared by asking."""
        number, self.error = self.error, 0
        return number

    def events(self) -> int:
        """What epoll would report of our end."""
        events = 0
        if self.inbound or self.fin_received or self.dead:
            events |= EPOLLIN
        if self.dead or (not self.fin_sent and self.room()):
            events |= EPOLLOUT
        if self.error:
            events |= EPOLLERR
        if self.dead or (self.fin_received and self.fin_sent):
            events |= EPOLLHUP
        return events

    def close(self, gently: bool) -> None:
        """A number of our end is closed; with the last one, the end."""
        self._open -= 1
        if self._open == 0:
            if self.inbound and not gently and not self.dead:
                self.dead = self.reset_sent = True
            self.fin_sent = True


def read(fd: int, size: int) -> bytes:
    """As os.read on a non-blocking socket."""
    wire = _wires[fd]
    if wire.inbound:
        data = bytes(wire.inbound[:size])
        del wire.inbound[:size]
        return data
    if number := wire.take_error():
        raise OSError(number, os.strerror(number))
    if wire.fin_received or wire.dead:
        return b""
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def write(fd: int, data: bytes | bytearray | memoryview) -> int:
    """As os.write on a non-blocking socket."""
    wire = _wires[fd]
    if wire.dead or wire.fin_sent:
        number = wire.take_error() or errno.EPIPE
        raise OSError(number, os.strerror(number))
    if wire.gone:
        wire.peer_reset()
        return len(data)
    sent = min(wire.room(), len(data))
    if not sent:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    wire.outbound += memoryview(data)[:sent]
    return sent


def close(fd: int) -> None:
    """As os.close: what is unread makes it an RST."""
    _wires.pop(fd).close(gently=False)


def linger(_loop: object, fd: int, _always: bool = False) -> None:
    """As epolld.net.linger, which sees to it that there is no RST; nothing is left to wait for."""
    _wires.pop(fd).close(gently=True)


def shutdown(fd: int, how: int) -> None:
    """As socket.shutdown."""
    wire = _wires[fd]
    if wire.dead:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    if how in (socket.SHUT_WR, socket.SHUT_RDWR):
        wire.fin_sent = True
    if how in (socket.SHUT_RD, socket.SHUT_RDWR):
        wire.fin_received = True


def pending_error(fd: int) -> OSError | None:
    """SO_ERROR, taken from it."""
    number = _wires[fd].take_error()
    return OSError(number, os.strerror(number)) if number else None


def local_address(fd: int) -> Any:
    """As socket.getsockname."""
    return _wires[fd].sockname


class Readiness:
    """As select.epoll, level-triggered; never waits."""

    def __init__(self) -> None:
        self._interest: dict[int, int] = {}

    def register(self, fd: int, events: int) -> None:
        """As epoll's."""
        if fd in self._interest:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._interest[fd] = events

    def modify(self, fd: int, events: int) -> None:
        """As epoll's."""
        if fd not in self._interest:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._interest[fd] = events

    def unregister(self, fd: int) -> None:
        """As epoll's."""
        if self._interest.pop(fd, None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def poll(self, _timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """What is ready now."""
        ready = []
        for fd, wanted in self._interest.items():
            if events := _wires[fd].events() & (wanted | UNASKED):
                ready.append((fd, events))
        return ready if maxevents < 0 else ready[:maxevents]

    def close(self) -> None:
        """As epoll's."""
        self._interest.clear()


# In place of the modules `os` and `epolld.net.descriptor`, for code that is run over wires.
os_over_wires = SimpleNamespace(
    close=close, fsencode=os.fsencode, fsdecode=os.fsdecode, strerror=os.strerror
)

"""Closing a socket without losing the last answer (nginx calls it lingering close).

When a socket is closed while bytes that it received are unread, or when more arrive afterwards,
Linux answers with RST (RFC 1122, 4.2.2.13), and an RST makes the peer throw away what it has
received and not read yet: our last answer. So a peer that is still talking is first told that
no more comes (FIN), then listened to, and what it says thrown away, until it closes too.
"""

from __future__ import annotations

import os
import select
import socket

from epolld.net.descriptor import shutdown
from epolld.net.loop import EventLoop

# How long, at most, to wait for the peer's end: by then it has had the answer, or never will.
PATIENCE = 2.0  # seconds
DISCARD_SIZE = 65536  # bytes a turn
# Who goes on and on shall not keep us busy: after so much we read no more, and TCP stops the peer.
# It still has the rest of our patience to read the answer.
DISCARD_MOST = 1 << 20  # bytes


def linger(loop: EventLoop, fd: int, always: bool = False) -> None:
    """Close socket `fd`, now if the peer has sent nothing that is unread, else after its end.

    `always` waits for the peer's end in any case: for a connection that is ended while its peer
    may be about to send.
    """
    try:
        wait = bool(os.read(fd, DISCARD_SIZE))
    except BlockingIOError:  # the usual case: nothing is unread
        wait = always
    except OSError:
        wait = False
    if not wait:
        os.close(fd)
        return
    try:
        shutdown(fd, socket.SHUT_WR)
        Linger(loop, fd)
    except OSError:
        os.close(fd)


class Linger:
    """A socket whose connection is over for us, kept until its peer has closed, too."""

    __slots__ = ("_fd", "_left", "_loop", "_timer")

    def __init__(self, loop: EventLoop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._left = DISCARD_MOST
        loop.add(fd, select.EPOLLIN, self)
        self._timer = loop.call_later(PATIENCE, self._close)

    def on_ready(self, _events: int) -> None:
        """Throw away what the peer says, until it has said all, or far too much."""
        try:
            count = len(os.read(self._fd, DISCARD_SIZE))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._close()
            return
        self._left -= count
        if self._left <= 0:
            self._loop.unregister(self._fd)

    def _close(self) -> None:
        self._loop.unregister(self._fd)
        self._timer.cancel()
        self._loop.call_soon(lambda: os.close(self._fd))

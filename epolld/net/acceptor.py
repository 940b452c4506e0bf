"""Accepting: several workers, one listening socket, one client each in turn.

Every worker has the shared listener in its own epoll with EPOLLEXCLUSIVE, so a new connection
wakes one of them and not all (the thundering herd). Three facts of the kernel shape the rest;
fs/eventpoll.c and the wait queue of the socket are where to look them up:

* Waiters stand in a queue in the order in which they were added and never move by themselves; a
  connection wakes the first one that sleeps. So the first worker would take everything that
  comes while it is idle. Removing and adding the listener after each accept moves the worker
  to the queue's end: 1,000 connections over four workers went 1000/0/0/0 without, and
  250/250/250/250 with it.
* EPOLLEXCLUSIVE is for EPOLL_CTL_ADD alone, and EPOLL_CTL_MOD of such an entry is EINVAL. So to
  pause is to unregister.
* A wake-up can be stranded: the worker that got it dies, stops or unregisters before it accepts,
  and the client waits while the siblings sleep. Two cures: who leaves unregisters first and
  then accepts until nothing is left; and everybody adds the listener anew once a tick, because
  adding polls the file.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
from typing import Any, Protocol

from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.speedups import fastest_accept as accept

log = logging.getLogger("epolld.acceptor")

LISTEN_EVENTS = select.EPOLLIN | select.EPOLLEXCLUSIVE

# accept(2) hands on errors of the new connection; its man page says: treat them like EAGAIN.
LOST_CONNECTION = {
    errno.ECONNABORTED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENONET,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
    errno.EPERM,  # a firewall rule forbids it
    errno.EPROTO,
    errno.ETIMEDOUT,
}

# Connections that a worker accepts in one wake-up at most, with siblings in the queues and without.
# It begins with one, and allows itself twice as many each time that it found as many as it might
# take. So what comes one by one goes to each in turn; but when all are busy and clients wait, what
# a wake-up costs, in the kernel, in this loop and in asyncio's, is shared by a few. 50 clients that
# connect, ask and close, in place of one a wake-up: two workers 66 -> 47 µs a connection, of
# coroutines 119 -> 88; one worker 48 -> 40 and 108 -> 66. 1,000 that come in a burst and stay are
# spread over four workers as evenly as before (within 2 %): see net/balance.py.
MOST_SHARED = 4
MOST_ALONE = 16

# No room for another connection (EMFILE, ENFILE, ENOBUFS, ENOMEM), or an error we do not know:
# the client stays in the queue and the listener stays ready, so trying again at once would spin.
BACKOFF_FIRST = 0.1  # seconds without accepting, doubled each time
BACKOFF_LAST = 1.0
EPISODE = 60.0  # seconds: one log line for each such time, however often it fails


class Opener(Protocol):
    """Who takes accepted connections: a service, or the entrance to one."""

    def open(self, fd: int, peer: Any) -> object:
        """Serve a connected non-blocking socket; it belongs to the opener from now on.

        `peer` is its address, as accept() gives it or as `descriptor.pack_peer` makes it.
        """


class Gate:
    """All listeners of one worker: in the accept queues, or out of them for some reasons.

    The state is the set of reasons to stay out; the listeners are in the queues exactly while
    it is empty.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._acceptors: list[Acceptor] = []
        self._reasons: set[str] = set()
        self.backoff = BACKOFF_FIRST
        self._episode_ends = 0.0
        self.alone = False  # no sibling stands in the queues, so none has to get its turn

    def add(self, sock: socket.socket, service: Service, opener: Opener | None = None) -> None:
        """Accept from a listening, non-blocking socket for `service`, or its entrance `opener`."""
        acceptor = Acceptor(self._loop, sock, service, opener or service, self)
        self._acceptors.append(acceptor)
        if not self._reasons:
            acceptor.enter()

    def is_open(self) -> bool:
        """Whether this worker stands in the accept queues."""
        return not self._reasons

    def shut(self, reason: str) -> None:
        """Stay out of the queues until `reason` is taken back, and all others."""
        if not self._reasons:
            for acceptor in self._acceptors:
                acceptor.leave()
        self._reasons.add(reason)

    def open(self, reason: str) -> None:
        """Take `reason` back."""
        if reason in self._reasons:
            self._reasons.remove(reason)
            if not self._reasons:
                for acceptor in self._acceptors:
                    acceptor.enter()

    def hold(self, service: Service, held: bool) -> None:
        """Keep one service's listeners out of the queues, for it has no room; or no longer."""
        for acceptor in self._acceptors:
            if acceptor.service is service:
                acceptor.held = held
                if held:
                    acceptor.leave()
                elif not self._reasons:
                    acceptor.enter()

    def requeue(self) -> None:
        """The tick: add all listeners anew, in case a wake-up was stranded."""
        if not self._reasons:
            for acceptor in self._acceptors:
                acceptor.requeue()

    def clients_wait(self) -> bool:
        """Whether a listener has a connection that nobody has accepted yet."""
        poll = select.poll()
        for acceptor in self._acceptors:
            if acceptor.held:
                continue
            poll.register(acceptor.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Leave for good: out of the queues first, then take what may be ours already.

        Who has never stood there has nothing to take.
        """
        has_stood = "starting" not in self._reasons
        self.shut("closing")
        for acceptor in self._acceptors:
            if has_stood and not acceptor.held:
                acceptor.accept_all()
            acceptor.close()
        self._acceptors.clear()

    def on_exhausted(self, exc: OSError) -> None:
        """accept() failed for want of a resource: stay out for a while."""
        now = self._loop.now
        if now >= self._episode_ends:
            log.error(
                "cannot accept: %s; trying again every %.1fs at most (is LimitNOFILE or"
                " workers.max_connections right?)",
                os.strerror(exc.errno or 0),
                BACKOFF_LAST,
            )
        self._episode_ends = now + EPISODE
        self.shut("exhausted")
        self._loop.call_later(self.backoff, lambda: self.open("exhausted"))
        self.backoff = min(self.backoff * 2, BACKOFF_LAST)


class Acceptor:
    """One listener inside one worker."""

    def __init__(
        self, loop: EventLoop, sock: socket.socket, service: Service, opener: Opener, gate: Gate
    ) -> None:
        self._loop = loop
        self._sock = sock
        self.service = service
        self._opener = opener
        self._gate = gate
        self._waiting = select.poll()  # whether a connection waits
        self._waiting.register(sock, select.POLLIN)
        self._most = 1  # how many the next wake-up may take
        self._queued = False
        self.held = False  # out of the queue, whatever the gate says

    def fileno(self) -> int:
        """The listener's descriptor."""
        return self._sock.fileno()

    def enter(self) -> None:
        """Stand in the accept queue, last."""
        if not self._queued and not self.held:
            try:
                self._loop.add(self.fileno(), LISTEN_EVENTS, self)
            except OSError as exc:  # ENOSPC, ENOMEM
                self._gate.on_exhausted(exc)
            else:
                self._queued = True

    def leave(self) -> None:
        """Stand in the accept queue no more."""
        if self._queued:
            self._loop.unregister(self.fileno())
            self._queued = False

    def requeue(self) -> None:
        """Go to the end of the accept queue, and find out whether somebody waits."""
        if self._queued:
            try:
                self._loop.requeue(self.fileno(), LISTEN_EVENTS)
            except OSError as exc:
                self._gate.on_exhausted(exc)

    def on_ready(self, _events: int) -> None:
        """Accept one connection, or a few while more wait than the siblings take."""
        alone = self._gate.alone
        most = min(self._most, MOST_ALONE if alone else MOST_SHARED)
        self._accept(requeue=not alone)
        for _ in range(most - 1):
            # An accept in vain costs ten times what it costs to ask (5.2 and 0.6 µs): the kernel
            # makes the new socket before it looks whether there is a connection.
            if not self._queued or not self._waiting.poll(0):
                self._most = 1
                return
            self._accept()
        self._most = 2 * most

    def accept_all(self) -> None:
        """Accept until the queue is empty."""
        while self._accept():
            pass

    def close(self) -> None:
        """Close this process' copy of the listener."""
        self.leave()
        self._sock.close()

    def _accept(self, requeue: bool = False) -> bool:
        """Accept one connection and serve it; False if there was none.

        `requeue`: before it is served, go to the end of the accept queue.
        """
        try:
            fd, peer = accept(self._sock)
        except BlockingIOError:  # a sibling was quicker
            return False
        except OSError as exc:
            if exc.errno in LOST_CONNECTION:
                return True
            self._gate.on_exhausted(exc)
            return False
        gate = self._gate
        if requeue:  # first: the siblings shall not wait for what the protocol does
            self.requeue()
        gate.backoff = BACKOFF_FIRST
        self._opener.open(fd, peer)
        return True

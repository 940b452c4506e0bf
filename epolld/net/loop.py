"""The event loop: one epoll object, a table of callbacks, timers. The heart of a worker.

epoll in five sentences. The kernel keeps, for one epoll object, an *interest list* (which
descriptors, which events) and a *ready list*. `register`, `modify` and `unregister` change the
first and are paid for once a connection, not once a wake-up: that is the difference from
`select` and `poll`, which hand the kernel the whole list at each call and have it scanned. When
a packet arrives, the kernel itself moves that one descriptor to the ready list, so `poll` costs
what is ready and not what is registered. Level-triggered, as used here, means that a descriptor
stays ready as long as there is something to read (or room to write): a callback may read a part
and leave the rest for the next turn, which is how one greedy peer is kept from starving others.
EPOLLHUP and EPOLLERR are always reported, asked for or not: a loop that ignores them spins.

This loop knows nothing of sockets, protocols or processes. It is the master's loop too.
"""

from __future__ import annotations

import logging
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

from epolld.net.timers import Timer, TimerHeap

log = logging.getLogger("epolld.loop")

EPOLLIN = select.EPOLLIN
EPOLLOUT = select.EPOLLOUT

# Events taken from the kernel in one call; what does not fit is first in line at the next. It
# bounds the time until timers and deferred calls get their turn, and until the first that is read
# of a wake-up is answered (see `senders`): with 256 the slowest answers to 50 clients took an
# eighth longer, and the processor no less.
MAX_EVENTS = 32

# Answers to several clients of one wake-up are sent when all of them have been served, unless that
# takes long: then the first shall not wait for the last. In seconds, of the last such wake-up.
PROMPT = 0.005

LONGEST_WAIT = 86400.0  # seconds; epoll_wait takes a C int of milliseconds, 24.8 days


class Watcher(Protocol):
    """Whoever has a descriptor in the loop."""

    def on_ready(self, events: int) -> object:
        """`events` are ready; may be called once too often, so expect EAGAIN."""


class Callback:
    """A watcher made of a function, for those that are no object of their own."""

    __slots__ = ("on_ready",)

    def __init__(self, function: Callable[[int], object]) -> None:
        self.on_ready = function


class EventLoop:
    """Waits for descriptors and deadlines and calls back; single-threaded.

    `now` is the time of the current wake-up in seconds of `clock` (monotonic): read once a
    wake-up and not once a message, because that is accurate enough for any time-out and a clock
    costs as much as a dict look-up.

    `senders` is a list while the events of a wake-up are served that has several, else None: whom
    to give to `settle_all` in the end, so that they send what they have written meanwhile. Reading
    from all and then writing to all is cheaper than the two in turn: the same few paths through
    kernel and interpreter stay in the caches, and a program that is the client of several
    connections is woken once, not for each answer.
    """

    __slots__ = (
        *("_clock", "_deferred", "_epoll", "_senders", "_stopping", "_timers", "_watchers"),
        *("now", "senders", "settle_all"),
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epoll = select.epoll()
        self._watchers: dict[int, Watcher] = {}  # by descriptor
        self._timers = TimerHeap()
        self._deferred: deque[Callable[[], object]] = deque()
        self._stopping = False
        self.now = clock()
        self._senders: list[Any] = []
        self.senders: list[Any] | None = None
        self.settle_all: Callable[[Iterator[Any]], object] = list  # set by who has senders

    def add(self, fd: int, events: int, watcher: Watcher) -> None:
        """Call `watcher.on_ready(ready_events)` whenever one of `events` is ready on `fd`.

        The loop keeps the object and not its bound method: with many connections, 80 bytes each.
        Raises FileExistsError if it is registered already, OSError as epoll_ctl(2) does
        (ENOSPC: /proc/sys/fs/epoll/max_user_watches is reached).
        """
        self._epoll.register(fd, events)
        self._watchers[fd] = watcher

    def register(self, fd: int, events: int, function: Callable[[int], object]) -> None:
        """As `add`, with a function to call."""
        self.add(fd, events, Callback(function))

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events on a registered `fd`."""
        self._epoll.modify(fd, events)

    def park(self, fd: int) -> None:
        """Wait for nothing on `fd`, not even for errors, until it is added again.

        EPOLLERR and EPOLLHUP cannot be masked; only who is not in the interest list is spared.
        """
        self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """Remove what is parked."""
        self._watchers.pop(fd, None)

    def unregister(self, fd: int) -> None:
        """Wait for `fd` no longer; to be called before it is closed. Harmless if it is unknown.

        Closing alone does not do: the kernel forgets a descriptor only when the last copy of the
        open file is closed, and a forked process may hold one (epoll(7), "Questions and answers").
        """
        if self._watchers.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except FileNotFoundError:
                pass  # parked

    def requeue(self, fd: int, events: int) -> None:
        """Remove and add `fd` in the kernel: its place among the waiters becomes the last.

        Also, adding polls the file: what became ready unnoticed is reported (see acceptor.py).
        """
        try:
            self._epoll.unregister(fd)
        except FileNotFoundError:
            pass  # adding failed the last time
        self._epoll.register(fd, events)

    def watcher(self, fd: int) -> Watcher | None:
        """Who has `fd` registered."""
        return self._watchers.get(fd)

    def watchers(self) -> list[Watcher]:
        """All that is registered now, parked ones included."""
        return list(self._watchers.values())

    def time(self) -> float:
        """What the clock says now; `now` is what it said at the last wake-up."""
        return self._clock()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call `callback()` when the events of this wake-up have been served."""
        self._deferred.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback()` in `delay` seconds, counted from this wake-up."""
        return self._timers.add(self.now + delay, callback)

    def run(self) -> None:
        """Serve until `stop()` is called. The hot path of every message goes through here."""
        poll = self._epoll.poll
        clock = self._clock
        watchers = self._watchers
        deferred = self._deferred
        timers = self._timers
        self._settle_senders()  # should an exception have ended the last run amid events
        quick = True  # the last wake-up with several events was
        self.now = clock()
        while not self._stopping:
            # poll rounds up to milliseconds, so a timer is never early. It may be late by what
            # this turn has taken, for which no clock is read.
            wait = 0.0 if deferred else timers.due - self.now
            if wait > LONGEST_WAIT:
                wait = LONGEST_WAIT
            elif wait < 0.0:
                wait = 0.0
            ready = poll(wait, MAX_EVENTS)
            now = self.now = clock()
            several = len(ready) > 1
            if several and quick:
                self.senders = self._senders
            for fd, events in ready:
                # Looked up anew for each event: an earlier callback of this same wake-up may have
                # closed that connection. (Its number cannot be another's yet: transports close
                # their descriptor in a deferred call, after the events.)
                try:
                    watcher = watchers[fd]
                except KeyError:
                    continue
                try:
                    watcher.on_ready(events)
                except Exception as exc:
                    self._fence(exc)
            fd = -1  # nobody's turn: see descriptor_served
            if several:
                self._settle_senders()
                quick = clock() - now < PROMPT
            if deferred:
                self._run_deferred()
            if timers.due <= now:
                timers.run_due(now, self._fence)
        self._stopping = False

    def stop(self) -> None:
        """Have `run()` return after the current turn."""
        self._stopping = True

    def close(self) -> None:
        """Close the epoll object; what is registered stays open. Also for a forked child's copy.

        A child never unregisters through its copy: the object is shared with the parent, whose
        interest list it would change.
        """
        self._epoll.close()
        self._watchers.clear()

    def _settle_senders(self) -> None:
        """The events are served: have everybody send what was written meanwhile."""
        self.senders = None
        senders = iter(self._senders)
        for _ in range(len(self._senders)):  # should one fail, those behind it have their turn
            try:
                self.settle_all(senders)
                break
            except Exception as exc:
                self._fence(exc)
        self._senders.clear()

    def _run_deferred(self) -> None:
        """Run what was deferred up to now; what that defers in turn waits for the next wake-up."""
        for _ in range(len(self._deferred)):
            try:
                self._deferred.popleft()()
            except Exception as exc:
                self._fence(exc)

    def _fence(self, exc: BaseException) -> None:
        """User code is fenced where it is called, so this is a mistake of ours: say so, go on."""
        log.error("internal error in the event loop; please report it", exc_info=exc)


def descriptor_served(frame: FrameType | None) -> int | None:
    """Which descriptor's callback the main thread is in, for a report on a stuck worker.

    Read from the frame of `run` that a signal handler finds below itself. Costs the hot path
    nothing, where keeping the number in an attribute or in shared memory would cost each message.
    """
    while frame is not None:
        if frame.f_code is EventLoop.run.__code__:
            served: int = frame.f_locals.get("fd", -1)
            return served if served >= 0 else None
        frame = frame.f_back
    return None

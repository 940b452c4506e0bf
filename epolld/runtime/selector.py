"""asyncio's view of a worker's own epoll object: one interest list for both.

An epoll object inside another one would lose EPOLLEXCLUSIVE's single wake-up, so asyncio gets no
epoll of its own. `asyncio.SelectorEventLoop` takes any `selectors.BaseSelector`; this one serves
the worker's descriptors, timers and deferred calls in place, for as long as asyncio has nothing
to do, and returns only what is asyncio's. A native message inside costs what it costs outside:
it never leaves `EventLoop.run`.

Knows nothing of what is served.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Iterator, Mapping
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from typing import Any

from epolld.net.loop import EPOLLIN, EPOLLOUT, EventLoop
from epolld.net.timers import Timer


class SharedSelector(selectors.BaseSelector):
    """Serves `loop` in `select()`, until asyncio has an event or a deadline or is woken."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._entries: dict[int, _Entry] = {}  # by descriptor
        self._map = _Map(self, self._entries)
        self._ready: list[tuple[SelectorKey, int]] = []  # asyncio's, of this turn
        self._alarm: Timer | None = None  # not later than asyncio's deadline
        self.waiting = False  # inside select(): what asyncio is given to do needs a wake()

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """As selectors.BaseSelector.register."""
        if not events or events & ~(EVENT_READ | EVENT_WRITE):
            raise ValueError(f"invalid events: {events!r}")
        fd = self.descriptor_of(fileobj)
        if fd in self._entries:
            raise KeyError(f"{fileobj!r} (descriptor {fd}) is registered already")
        entry = _Entry(self, SelectorKey(fileobj, fd, events, data))
        self._loop.add(fd, _to_epoll(events), entry)
        self._entries[fd] = entry
        return entry.key

    def unregister(self, fileobj: Any) -> SelectorKey:
        """As selectors.BaseSelector.unregister."""
        entry = self._entries.pop(self._find(fileobj).key.fd)
        # Somebody may have closed it before, and its number may be a connection's by now.
        if self._loop.watcher(entry.key.fd) is entry:
            with contextlib.suppress(OSError):  # the kernel has forgotten it
                self._loop.unregister(entry.key.fd)
        return entry.key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """As selectors.BaseSelector.modify."""
        entry = self._find(fileobj)
        key = entry.key
        if events != key.events:
            self._loop.modify(key.fd, _to_epoll(events))
        entry.key = SelectorKey(key.fileobj, key.fd, events, data)
        return entry.key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Serve the worker's own; return what is ready of asyncio's, which may be nothing.

        `timeout` as for all selectors: 0 is one turn that does not wait. It may return early.
        """
        loop = self._loop
        if timeout is not None:
            if timeout <= 0:
                loop.call_soon(loop.stop)
            else:
                self._set_alarm(time.monotonic() + timeout)
        self.waiting = True
        try:
            loop.run()
        finally:
            self.waiting = False
        ready, self._ready = self._ready, []
        return ready

    def wake(self) -> None:
        """Have a `select()` that is under way return after this turn."""
        if self.waiting:
            self._loop.stop()

    def close(self) -> None:
        """Forget all; the worker's loop stays as it is."""
        for fd in list(self._entries):
            self.unregister(fd)
        if self._alarm is not None:
            self._alarm.cancel()

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """What is registered, by file object."""
        return self._map

    def get_key(self, fileobj: Any) -> SelectorKey:
        """As selectors.BaseSelector.get_key, which is slower; asyncio asks for it all the time."""
        return self._find(fileobj).key

    def descriptor_of(self, fileobj: Any) -> int:
        """The descriptor of a file object or number. Raises ValueError."""
        try:
            fd = fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"invalid file object: {fileobj!r}") from None
        if fd < 0:  # closed: only its identity is left
            for entry in self._entries.values():
                if entry.key.fileobj is fileobj:
                    return entry.key.fd
            raise ValueError(f"invalid file descriptor: {fd}")
        return fd

    def add_ready(self, key: SelectorKey, mask: int) -> None:
        """An entry has events."""
        self._ready.append((key, mask & key.events))
        self._loop.stop()

    def _find(self, fileobj: Any) -> _Entry:
        try:
            return self._entries[fileobj if type(fileobj) is int else self.descriptor_of(fileobj)]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None

    def _set_alarm(self, deadline: float) -> None:
        """Return at `deadline`, or before: a timer that is set already is left where it is.

        Deadlines of asyncio's come and go with each message that has a time-out, and they mostly
        move on. To wake up once in vain costs less than to set a timer each time.
        """
        alarm = self._alarm
        if alarm is not None and not alarm.cancelled():
            if alarm.when <= deadline:
                return
            alarm.cancel()
        self._alarm = self._loop.call_later(deadline - self._loop.now, self.wake)


class _Entry:
    """One of asyncio's descriptors in the worker's loop."""

    __slots__ = ("_selector", "key")

    def __init__(self, selector: SharedSelector, key: SelectorKey) -> None:
        self._selector = selector
        self.key = key

    def on_ready(self, events: int) -> None:
        """As in selectors.EpollSelector, errors and hang-ups count as both."""
        mask = (events & ~EPOLLIN and EVENT_WRITE) | (events & ~EPOLLOUT and EVENT_READ)
        self._selector.add_ready(self.key, mask)


class _Map(Mapping[Any, SelectorKey]):
    """What `get_map()` shows."""

    def __init__(self, selector: SharedSelector, entries: dict[int, _Entry]) -> None:
        self._selector = selector
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, fileobj: Any) -> SelectorKey:
        return self._selector.get_key(fileobj)

    def __iter__(self) -> Iterator[int]:
        return iter(self._entries)


def _to_epoll(events: int) -> int:
    return (events & EVENT_READ and EPOLLIN) | (events & EVENT_WRITE and EPOLLOUT)

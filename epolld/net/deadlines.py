"""A timing wheel that runs: coarse time limits for very many things, with one timer for all.

Joins `TimeoutWheel`, which is pure, to an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, TypeVar

from epolld.net.loop import EventLoop
from epolld.net.timers import TimeoutWheel, Timer

Key = TypeVar("Key", bound=Hashable)

GRAINS = 16  # a limit is exceeded by at most a sixteenth of it

# Keys whose time is over that are served in one turn of the loop. Thousands may be due at one time:
# the clients of a flood that came together go together, and all others shall not wait for that.
SLICE = 32


class Deadlines(Generic[Key]):
    """Calls `on_expired(key)` when the time of a key is over, or up to limit/GRAINS later."""

    __slots__ = ("_due", "_loop", "_on_expired", "_timer", "_wheel")

    def __init__(self, loop: EventLoop, limit: float, on_expired: Callable[[Key], object]) -> None:
        self._loop = loop
        self._wheel: TimeoutWheel[Key] = TimeoutWheel(limit / GRAINS)
        self._on_expired = on_expired
        self._timer: Timer | None = None
        self._due: dict[Key, None] = {}  # their time is over, but not their turn yet

    def __len__(self) -> int:
        return len(self._wheel) + len(self._due)

    def start(self, key: Key, seconds: float) -> None:
        """Have `key` expire so many seconds from now, in place of when it would have before."""
        self._due.pop(key, None)
        self._wheel.start(key, self._loop.now + seconds)
        self._wait()

    def end(self, key: Key) -> None:
        """Forget `key`, if it is there."""
        self._wheel.end(key)
        self._due.pop(key, None)

    def _wait(self) -> None:
        """Look again when the first expires."""
        deadline = self._wheel.next_deadline()
        if self._timer is not None:
            if deadline is not None and self._timer.when <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_later(deadline - self._loop.now, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting = bool(self._due)
        self._due.update(dict.fromkeys(self._wheel.take_expired(self._loop.now)))
        self._wait()
        if not waiting:
            self._serve_due()

    def _serve_due(self) -> None:
        """Some of them now, the others in the turns to come."""
        for key in list(islice(self._due, SLICE)):
            if key in self._due:  # not ended by the one before
                del self._due[key]
                self._on_expired(key)
        if self._due:
            self._loop.call_soon(self._serve_due)

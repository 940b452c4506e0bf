"""Timers: a heap of deadlines with lazy cancellation, and a wheel for coarse time-outs.

Pure: time comes in as a value (seconds of any monotonic clock), so a test turns the clock by
hand. Neither structure sleeps or reads a clock.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

COMPACT_ABOVE = 64  # cancelled timers: below this, sweeping them is not worth the pass


class Timer:
    """A call that is due at `when`; `cancel()` takes it back. As asyncio's TimerHandle."""

    __slots__ = ("_callback", "_heap", "_sequence", "when")

    def __init__(
        self, heap: TimerHeap, when: float, sequence: int, callback: Callable[[], object]
    ) -> None:
        self.when = when
        self._sequence = sequence
        self._callback: Callable[[], object] | None = callback
        self._heap = heap

    def cancel(self) -> None:
        """Never call back. Harmless after the call or a second time."""
        if self._callback is not None:
            self._callback = None
            self._heap.note_cancelled()

    def cancelled(self) -> bool:
        """Whether it was cancelled or has been called."""
        return self._callback is None

    def __lt__(self, other: Timer) -> bool:
        # Equal deadlines fire in the order in which they were set.
        return (self.when, self._sequence) < (other.when, other._sequence)


class TimerHeap:
    """Deadlines in a binary heap: O(log n) to set, O(1) to cancel.

    A cancelled timer stays in the heap until its time comes, or until such timers are the
    majority; then one pass removes them all (asyncio does the same).
    """

    __slots__ = ("_cancelled", "_heap", "_sequence", "due")

    def __init__(self) -> None:
        # No timer is due before this; a plain attribute, because a loop looks at each wake-up.
        # The earliest timer may be later, if what was due then has been cancelled.
        self.due = math.inf
        self._heap: list[Timer] = []
        self._sequence = 0
        self._cancelled = 0  # timers in _heap that will not be called; <= len(_heap)

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def add(self, when: float, callback: Callable[[], object]) -> Timer:
        """Have `callback()` called at `when` or as soon as possible after it."""
        self._sequence += 1
        timer = Timer(self, when, self._sequence, callback)
        heapq.heappush(self._heap, timer)
        if when < self.due:
            self.due = when
        return timer

    def next_deadline(self) -> float | None:
        """When the earliest timer is due; None if there is none."""
        heap = self._heap
        while heap and heap[0]._callback is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0].when if heap else None

    def run_due(self, now: float, fence: Callable[[BaseException], object]) -> None:
        """Call everything due at `now`; timers set meanwhile wait for the next turn."""
        for timer in self._pop_due(now):
            callback = _take(timer)
            if callback is not None:
                try:
                    callback()
                except Exception as exc:
                    fence(exc)

    def _pop_due(self, now: float) -> list[Timer]:
        heap, due = self._heap, []
        while heap and heap[0].when <= now:
            timer = heapq.heappop(heap)
            if timer._callback is None:
                self._cancelled -= 1
            else:
                timer._heap = _NOWHERE
                due.append(timer)
        self.due = heap[0].when if heap else math.inf
        return due

    def note_cancelled(self) -> None:
        """A timer of this heap was cancelled; sweep when such ones are the majority."""
        self._cancelled += 1
        if self._cancelled > COMPACT_ABOVE and self._cancelled * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer._callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0


class _Nowhere(TimerHeap):
    """What a timer belongs to once it is out of its heap: cancelling it sweeps nothing."""

    __slots__ = ()

    def note_cancelled(self) -> None:
        pass


_NOWHERE = _Nowhere()


def _take(timer: Timer) -> Callable[[], object] | None:
    callback, timer._callback = timer._callback, None
    return callback


Key = TypeVar("Key", bound=Hashable)


class TimeoutWheel(Generic[Key]):
    """Coarse time-outs for very many things: a timing wheel (Varghese and Lauck, 1987).

    Deadlines are rounded up to a multiple of `grain`, and all keys of one multiple share a set:
    starting and ending cost O(1) whatever their number, and there is one timer for all, where
    a heap needs an object each. Activity does not touch the wheel: whoever takes an expired key
    looks at when that was last active, and starts it again for the rest.
    """

    __slots__ = ("_buckets", "_grain", "_number_of")

    def __init__(self, grain: float) -> None:
        self._grain = grain  # seconds; no key expires later than this after its deadline
        self._buckets: dict[int, set[Key]] = {}  # by deadline / grain; none of them is empty
        self._number_of: dict[Key, int] = {}  # which bucket a key is in

    def __len__(self) -> int:
        return len(self._number_of)

    def start(self, key: Key, deadline: float) -> None:
        """Expire `key` at `deadline`, in place of when it would have expired before."""
        self.end(key)
        number = self._number_of[key] = math.ceil(deadline / self._grain)
        self._buckets.setdefault(number, set()).add(key)

    def end(self, key: Key) -> None:
        """Forget `key`, if it is there."""
        number = self._number_of.pop(key, None)
        if number is not None:
            bucket = self._buckets[number]
            bucket.discard(key)
            if not bucket:
                del self._buckets[number]

    def next_deadline(self) -> float | None:
        """When the next keys expire; None if there are none. O(buckets): a few dozen."""
        return min(self._buckets) * self._grain if self._buckets else None

    def take_expired(self, now: float) -> list[Key]:
        """Remove and return all whose deadline has come."""
        expired: list[Key] = []
        for number in sorted(n for n in self._buckets if n * self._grain <= now):
            expired.extend(self._buckets.pop(number))
        for key in expired:
            del self._number_of[key]
        return expired

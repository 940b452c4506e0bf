"""Whether this worker keeps up: if its event loop runs late, it takes no new connections.

Those that it has would only wait for longer. How late a timer comes is how long anybody waits who
was ready at the same moment, whatever the reason: too many clients, an expensive handler, a busy
machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from epolld.net.loop import EventLoop

log = logging.getLogger("epolld.worker")

LOOK = 0.1  # seconds between two looks at the lag
# Late by less than this part of the limit for so many looks in a row, it keeps up again.
CALM = 0.5
CALM_LOOKS = 10
EPISODE = 60.0  # seconds: one warning for each such time, however often it comes and goes


class Overload:
    """Looks at the lag of a loop and calls `on_change(whether it is overloaded)`."""

    def __init__(
        self,
        loop: EventLoop,
        slot: int,
        limit: float,
        on_change: Callable[[bool], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._slot = slot
        self._limit = limit
        self._on_change = on_change
        self._clock = clock
        self._due = 0.0
        self._calm = 0  # looks in a row
        self._since = 0.0  # when it became overloaded; 0: it is not
        self._said = float("-inf")

    def start(self) -> None:
        """Look from now on."""
        self._due = self._clock() + LOOK
        # By the time of this wake-up, which may be past already: that is the lag.
        self._loop.call_later(self._due - self._loop.now, self._look)

    def _look(self) -> None:
        now = self._clock()
        self.judge(now - self._due, now)
        self.start()

    def judge(self, lag: float, now: float) -> None:
        """The loop was late by `lag` seconds."""
        self._calm = self._calm + 1 if lag < self._limit * CALM else 0
        if not self._since and lag > self._limit:
            self._since = now
            if now - self._said >= EPISODE:
                log.warning(
                    "worker %d: its event loop is %.2fs late > %gs (workers.max_lag); accepting"
                    " nobody until it keeps up",
                    self._slot,
                    lag,
                    self._limit,
                )
            self._said = now
            self._on_change(True)
        elif self._since and self._calm >= CALM_LOOKS:
            log.info("worker %d: it keeps up again after %.0fs", self._slot, now - self._since)
            self._since = 0.0
            self._said = now
            self._on_change(False)

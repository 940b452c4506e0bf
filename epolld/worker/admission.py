"""Whether this worker takes new connections: it is full, it does not keep up, it has more than the
others, or it may.

Joins the policy (net/balance.py) to the mechanism (the gate in net/acceptor.py) and to the
facts (the scoreboard).
"""

from __future__ import annotations

import logging
import time

from epolld.net.acceptor import Gate
from epolld.net.balance import should_stay_away
from epolld.net.loop import EventLoop
from epolld.net.timers import Timer
from epolld.scoreboard import NOT_ACCEPTING, Column, Scoreboard

log = logging.getLogger("epolld.worker")

EPISODE = 60.0  # seconds: one warning of a full worker for each such time

# A worker that stays away looks again after this long, then after twice that, up to a tick.
LOOK_FIRST = 0.005  # seconds
LOOK_LAST = 1.0

# A sibling whose loop has not turned for this long is stopped or stuck: it does not count among
# those that will accept. Its tick is a second.
SILENT = 2.5  # seconds


class Admission:
    """Opens and shuts the gate of one worker."""

    def __init__(
        self,
        loop: EventLoop,
        gate: Gate,
        scoreboard: Scoreboard,
        row: int,
        max_connections: int,
        only_one: bool = False,
    ) -> None:
        self._loop = loop
        self._gate = gate
        self._scoreboard = scoreboard
        self._row = row
        self._max = max_connections
        self._only_one = only_one  # the configuration wants a single worker
        self._live_column = scoreboard.column(Column.LIVE)
        self._balance_column = scoreboard.column(Column.BALANCE)
        self.live = 0  # connections of this worker
        self._serving = False
        self._away = False  # for the sake of balance
        self._look_after = LOOK_FIRST
        self._look_timer: Timer | None = None
        self._seen: list[int] = []  # what the others had at the last look
        self._stands = True  # not full
        self._overloaded = False
        self._said_full = float("-inf")
        gate.shut("starting")

    def start(self) -> None:
        """Take new connections from now on."""
        self._serving = True
        self._look_for_siblings()
        self._publish()
        self._gate.open("starting")

    def stop(self) -> None:
        """Take none any more."""
        self._serving = False
        self._publish()
        self._gate.close()

    def on_change(self, step: int) -> None:
        """A connection was opened (+1) or has ended (-1)."""
        grown = step > 0
        live = self.live = self.live + step
        self._live_column[self._row] = live
        if not self._serving:
            return
        stands = live < self._max
        if stands is not self._stands:
            self._stands = stands
            if stands:
                self._gate.open("full")
            else:
                self._gate.shut("full")
                self._say_full()
        if self._gate.alone:
            return
        self._publish()
        if self._away:
            if not grown and not should_stay_away(live, self._scoreboard.balance()):
                self._come_back()
        elif grown and should_stay_away(live, self._scoreboard.balance()):
            self._stay_away()

    def set_overloaded(self, overloaded: bool) -> None:
        """The worker does not keep up, so others take what comes; or it does again."""
        if overloaded is not self._overloaded:
            self._overloaded = overloaded
            self._publish()
            if overloaded:
                self._gate.shut("overloaded")
            else:
                self._gate.open("overloaded")

    def _say_full(self) -> None:
        now = time.monotonic()
        if now - self._said_full >= EPISODE:
            log.warning(
                "full: %d connections (workers.max_connections); others accept, or clients wait",
                self.live,
            )
        self._said_full = now

    def tick(self) -> None:
        """Once a second: cure stranded wake-ups, and tell the others how it stands."""
        if self._serving:
            self._look_for_siblings()
            self._publish()
            self._gate.requeue()

    def _look_for_siblings(self) -> None:
        """Without any, there is nobody to be fair to. A new one is noticed within a tick."""
        others = len(self._scoreboard.balance()) - (self._balance_column[self._row] >= 0)
        self._gate.alone = self._only_one and not others

    def _publish(self) -> None:
        stands = self._serving and self._stands and not self._overloaded
        self._balance_column[self._row] = self.live if stands else NOT_ACCEPTING

    def _stay_away(self) -> None:
        """Leave the queues to the others, unless these only look alive."""
        awake = self._scoreboard.balance(time.monotonic_ns() - int(SILENT * 1e9))
        if should_stay_away(self.live, awake):
            self._away = True
            self._gate.shut("uneven")
            self._look_later(LOOK_FIRST)

    def _come_back(self) -> None:
        self._away = False
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._gate.open("uneven")

    def _look_later(self, delay: float) -> None:
        self._look_after = delay
        self._look_timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        """Come back when it has become even, or when clients wait and nobody takes them."""
        if not self._away or not self._serving:
            return
        counts = self._scoreboard.balance(time.monotonic_ns() - int(SILENT * 1e9))
        unchanged, self._seen = counts == self._seen, counts
        if not should_stay_away(self.live, counts) or (unchanged and self._gate.clients_wait()):
            self._come_back()
        else:
            self._look_later(min(self._look_after * 2, LOOK_LAST) if unchanged else LOOK_FIRST)

"""Ending connections that cannot move, when their worker has to leave.

Each is told once (`Protocol.draining`), spread over some time so that a thousand clients do not
come back in one instant. A protocol that has its own idea of a goodbye decides from there;
for all others, connections end once they are idle. What is left at the deadline is not ours.
"""

from __future__ import annotations

from collections import deque

from epolld.net.loop import EventLoop
from epolld.net.transport import Transport

# Silent for so long, and with nothing left to send, a connection counts as idle. Shorter, and a
# slow answer would be cut off; longer, and a stop would take longer without need.
IDLE_AFTER = 5.0  # seconds

STEP = 0.05  # seconds between two looks
FULL_SPREAD = 1000  # connections from which on the whole spread is used; fewer take their share


class Farewell:
    """Says goodbye to connections, `spread` seconds long."""

    def __init__(self, loop: EventLoop, spread: float) -> None:
        self._loop = loop
        self._spread = spread
        self._known: set[Transport] = set()  # each is told once, however often it is added
        self._untold: deque[Transport] = deque()
        self._told: list[Transport] = []  # and left to us to close
        self._begin = 0.0
        self._total = 0
        self._stepping = False

    def add(self, transport: Transport) -> None:
        """Say goodbye to this one, too."""
        if transport in self._known:
            return
        self._known.add(transport)
        if not self._untold:
            self._begin, self._total = self._loop.now, 0
        self._untold.append(transport)
        self._total += 1
        if not self._stepping:
            self._stepping = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        """Tell those whose turn it is, close those that are idle."""
        spread = self._spread * min(1.0, self._total / FULL_SPREAD)
        share = (self._loop.now - self._begin) / spread if spread else 1.0
        left = 0 if share >= 1 else int(self._total * (1 - share))
        while len(self._untold) > left:
            transport = self._untold.popleft()
            if transport.tell_draining():
                self._told.append(transport)
        self._told = [transport for transport in self._told if not self._end(transport)]
        self._stepping = bool(self._untold or self._told)
        if self._stepping:
            self._loop.call_later(STEP, self._step)

    def _end(self, transport: Transport) -> bool:
        """Whether this one needs no more attention; closes it if it is idle."""
        if transport.is_closing():
            return True
        if transport.get_write_buffer_size() or not transport.silent_for(IDLE_AFTER):
            return False
        transport.close_for("drained")
        return True

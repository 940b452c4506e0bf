"""Which worker is stuck: its loop has not turned for too long. Pure.

What counts is the silence that the master has watched, look by look, and not the difference of
two clocks: if the machine or the master itself slept, one look comes late, and a look counts
for no more than MOST. So nobody is killed for a sleep that was not his.
"""

from __future__ import annotations

LOOK = 1.0  # seconds between two looks
MOST = 2.0 * LOOK


class Silence:
    """What the master has watched of one worker."""

    def __init__(self, now: float) -> None:
        self._beat = 0  # the heartbeat seen last
        self._looked = now
        self.seconds = 0.0  # for how long it has not changed, as far as we have watched

    def look(self, beat: int, now: float) -> float:
        """Note the heartbeat seen at `now`; returns for how long it has been silent."""
        if beat != self._beat:
            self.seconds = 0.0
        else:
            self.seconds += min(now - self._looked, MOST)
        self._beat = beat
        self._looked = now
        return self.seconds

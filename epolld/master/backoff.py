"""How long to wait before a worker is started again. Pure.

A worker that dies before it was ready, or right after, will die again: the program or the
machine is broken, and starting it in a loop would only add load. One that has served for a
while may be replaced at once.
"""

from __future__ import annotations

FIRST = 0.1  # seconds, doubled with each failure in a row
LAST = 4.0  # an operator who has mended the cause does not wait for longer
RIGHT_AFTER = 1.0  # seconds after being ready; a death within counts as a failure


class Backoff:
    """The failures in a row of one slot."""

    def __init__(self) -> None:
        self._failures = 0

    def on_death(self, served: float | None) -> float:
        """Seconds to wait; `served` is how long it had been ready, None if it never was."""
        if served is not None and served > RIGHT_AFTER:
            self._failures = 0
            return 0.0
        delay = FIRST * 2.0**self._failures
        if delay >= LAST:
            return LAST
        self._failures += 1
        return delay

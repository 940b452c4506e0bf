"""Log lines that an attacker can cause: some of them, then only how many there were.

Pure: time comes in as a value.
"""

from __future__ import annotations

BURST = 20  # lines
PERIOD = 10.0  # seconds


class LogLimit:
    """Lets BURST lines through in each PERIOD."""

    __slots__ = ("_begin", "_count")

    def __init__(self) -> None:
        self._begin = float("-inf")
        self._count = 0

    def admit(self, now: float) -> tuple[bool, int]:
        """Whether a line may be written now, and how many were left out before it."""
        left_out = 0
        if now - self._begin >= PERIOD:
            left_out = max(0, self._count - BURST)
            self._begin, self._count = now, 0
        self._count += 1
        return self._count <= BURST, left_out

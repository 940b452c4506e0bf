"""How many log lines of a kind are let through: a flood must not drown the rest. A leaf; pure."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A place in the program that logs, and what was raised there."""

    name: str  # the logger's
    level: int
    text: str  # the message before its arguments
    raised: type[BaseException] | None


class Floods:
    """Lets BURST events of a kind through in each SECONDS, and counts the others. Pure.

    A peer may cause an event as often as it likes, and the log must not drown in it; the first few
    say what happens. Kinds are few: they are places in the program, not texts.
    """

    BURST = 20
    SECONDS = 10.0

    def __init__(self) -> None:
        self._seen: dict[Kind, list[float]] = {}  # when it began, and how many came
        self.held: dict[Kind, int] = {}  # how many were left out

    def allow(self, kind: Kind, now: float) -> bool:
        """Whether to log another of `kind` at `now` (seconds)."""
        seen = self._seen.get(kind)
        if seen is None or now - seen[0] >= self.SECONDS:
            self._seen[kind] = [now, 1]
            return True
        seen[1] += 1
        if seen[1] <= self.BURST:
            return True
        self.held[kind] = self.held.get(kind, 0) + 1
        return False

    def take(self, now: float) -> list[tuple[Kind, int]]:
        """Kinds of which some were left out and whose time is over at `now`, with how many."""
        over = [kind for kind in self.held if now - self._seen[kind][0] >= self.SECONDS]
        return [(kind, self.held.pop(kind)) for kind in over]

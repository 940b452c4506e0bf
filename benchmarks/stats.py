"""Medians, spreads and ratios of repeated measurements. Pure: numbers in, numbers out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """What a table shows of one figure measured several times."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"

    @property
    def spread(self) -> str:
        """The lowest and the highest, and of how many; nothing of a single one."""
        if self.rounds == 1:
            return "1 round"
        return f"{self.low:.3g} to {self.high:.3g}, {self.rounds} rounds"


def summarize(values: Sequence[float]) -> Summary:
    """Median and extremes. Raises ValueError if there are no values."""
    if not values:
        raise ValueError("no values to summarize: measure at least one round")
    return Summary(statistics.median(values), min(values), max(values), len(values))


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Each round's value over the base's of the same round.

    Rounds are seconds long and interleaved, so that a machine that is slow for a while is
    slow for both: their ratio stays when the figures move.
    """
    return [value / divisor for value, divisor in zip(values, base, strict=True)]


def imbalance(counts: Sequence[int]) -> float:
    """Largest over mean: 1.0 is even, len(counts) is all on one. Raises ValueError if empty."""
    if not counts or not sum(counts):
        raise ValueError("nothing was counted: no worker holds a connection")
    return max(counts) / statistics.mean(counts)


def slope(first: tuple[float, float], last: tuple[float, float]) -> float:
    """Growth of y for one x between two (x, y) points."""
    return (last[1] - first[1]) / (last[0] - first[0])

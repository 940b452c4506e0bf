"""Which worker gives live connections to which, when they have become uneven. Pure.

Slowly, and not at all within a band: moving costs, and connections that come and go even out
by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

BAND = 1 / 32  # of the mean; above it a worker is too full
SLACK = 16  # connections; below this a difference is noise
STEP = 500  # connections a move; one move a second

Worker = TypeVar("Worker")


def next_move(live: Mapping[Worker, int]) -> tuple[Worker, Worker, int] | None:
    """From whom, to whom, and how many; None if it is even enough."""
    if len(live) < 2:
        return None
    mean = sum(live.values()) / len(live)
    fullest = max(live, key=lambda worker: live[worker])
    emptiest = min(live, key=lambda worker: live[worker])
    excess = live[fullest] - mean
    if excess <= max(SLACK, mean * BAND):
        return None
    return fullest, emptiest, min(STEP, int(min(excess, max(1, mean - live[emptiest]))))

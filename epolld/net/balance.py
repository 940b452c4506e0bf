"""Which worker leaves the accept queue, so that live connections stay even. Pure.

What arrived evenly does not stay even: a respawned worker starts at nothing, and clients leave
as they like. So workers compare what they hold *now*.
"""

from __future__ import annotations

from collections.abc import Sequence

# Above the mean by more than this, a worker stays away. Below 8 connections it is noise: keeping
# away a worker for one connection more would cost latency and even out nothing.
BAND = 1 / 64  # of the mean
SLACK = 4  # connections


def should_stay_away(own: int, counts: Sequence[int]) -> bool:
    """Whether a worker with `own` live connections leaves the accepting to others.

    `counts` holds the live connections of all workers that could accept, this one included.
    The one with the fewest never stays away, so there is always somebody.
    """
    if len(counts) < 2 or own <= min(counts):
        return False
    mean = sum(counts) / len(counts)
    return own > mean + max(SLACK, mean * BAND)

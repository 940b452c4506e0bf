"""When a worker has served long enough, and is to be replaced by a fresh one. Pure."""

from __future__ import annotations

from typing import NamedTuple

from epolld.config import Workers

# Each worker's limits are off by up to this much, so that those of one start do not all go at once.
JITTER = 0.1

# A fresh worker that is over the limit of memory at once will be so again: then not in a loop.
MIN_AGE = 3.0  # seconds


class Facts(NamedTuple):
    """What the master knows of a worker."""

    accepted: int  # connections
    age: float  # seconds since it was started
    memory: int  # bytes, RSS


def jitter(chance: int) -> float:
    """A factor around 1, from a byte of chance."""
    return 1 - JITTER + 2 * JITTER * chance / 255


def reason_to_recycle(facts: Facts, limits: Workers, factor: float) -> str:
    """Why the worker is to be replaced, with the numbers that decided; "" if it is not."""
    most = limits.recycle_connections * factor
    if most and facts.accepted >= most:
        return f"accepted {facts.accepted} connections (recycle_connections)"
    oldest = limits.recycle_age * factor
    if oldest and facts.age >= oldest:
        return f"is {facts.age:.0f}s old (recycle_age)"
    if limits.recycle_memory and facts.memory >= limits.recycle_memory and facts.age >= MIN_AGE:
        return f"holds {facts.memory >> 20} MiB (recycle_memory)"
    return ""

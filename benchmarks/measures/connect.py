"""A connection for each message: connect, request, answer, close."""

from __future__ import annotations

from collections.abc import Sequence

import rounds
from report import Result

SOURCES = 200  # addresses of clients: ports stay in TIME_WAIT for a minute
LIMITS = {"uvloop": 1.0, "c": 1.12}


def measure(names: Sequence[str], quick: bool) -> Result:
    """Compare the servers."""
    times, messages = (3, 4_000) if quick else (7, 6_000)
    costs = rounds.alternate(
        names,
        times,
        10,
        lambda server: rounds.cost(
            server, close=True, messages=messages, warmup=500, sources=SOURCES
        ),
    )
    result = Result(
        name="connect",
        title="Connect, request, close",
        columns=rounds.COLUMNS,
        about=f"Each message of 64 bytes has a connection of its own; {rounds.CONNECTIONS} at a "
        f"time. {rounds.made(costs)}; who has no bar takes part in every tenth.",
    )
    rounds.fill(result, costs)
    rounds.ratio_bars(result, costs, LIMITS)
    return result

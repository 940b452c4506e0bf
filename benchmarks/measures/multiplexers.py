"""select, poll and epoll over ever more sockets: the picture and the table of docs/epoll.md."""

from __future__ import annotations

from collections.abc import Sequence

import multiplexers
from report import Result


def measure(_names: Sequence[str], quick: bool) -> Result:
    """The six servers of the lesson, and the bare calls."""
    rounds = 1 if quick else 3
    few, many, calls = multiplexers.run(rounds)
    result = Result(
        name="multiplexers",
        title="select, poll and epoll",
        about="The same server by each of them, over ever more registered sockets: what they mean "
        f"is on the page [epoll, from select on](epoll.md#the-picture). {rounds} "
        f"round{'' if rounds == 1 else 's'} at most; CPU µs a message, and of a bare call.",
        columns=("server", "who asks", *(f"{size:,} sockets" for size in multiplexers.SIZES)),
        raw={"few": few, "many": many, "calls": calls},
        pictures=["multiplexers"],
    )
    asking = f"{multiplexers.ASKING} clients"
    for curves, who in ((few, asking), (many, "all clients"), (calls, "bare call")):
        for name, curve in curves.items():
            cells = [f"{curve[n]:.1f}" if n in curve else "-" for n in multiplexers.SIZES]
            result.rows.append((multiplexers.SERVERS[name], who, *cells))
    return result

"""The states of a transport, and the moves between them."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a connection is in its life: OPEN → CLOSING → CLOSED.

    Never back, except from FROZEN to where it was, when a hand-over does not come about.
    """

    OPEN = "open"
    CLOSING = "closing"  # reads no more; sends what is buffered, then CLOSED
    FROZEN = "frozen"  # on its way to another worker: touches the socket no more
    CLOSED = "closed"  # connection_lost is due or has been called; or another worker has it


# A module's global is one dict look-up; the enum's attribute would be two.
OPEN, CLOSING, FROZEN, CLOSED = State.OPEN, State.CLOSING, State.FROZEN, State.CLOSED

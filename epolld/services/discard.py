"""discard: throws away what comes in and never answers (RFC 863)."""

from __future__ import annotations

from epolld.net.protocol import Protocol


class Discard(Protocol):
    """Reads until the client has sent all, then closes: `Protocol`'s defaults do just that."""

    __slots__ = ()

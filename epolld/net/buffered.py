"""What waits to be sent in a whole worker: added up, and bounded.

When it comes near the limit, nothing more is read from those for whom something waits: they get
no further answers before they have taken some. When it is above, the one for whom most waits is
cut off, then the next, until there is some room again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epolld.net.guard import Guard
    from epolld.net.transport import Transport

HOLD_AT = 0.75  # of the limit: from here on the slow are read no more
RELEASE_AT = 0.5
# Not just below the limit: to look for the biggest of very many at each write would cost too much.
CUT_TO = 0.9


class Buffered:
    """Bytes that wait in one worker, at most `limit`.

    `on_held(total)` and `on_released(total)` are told when reading is held back and when no more.
    """

    def __init__(
        self,
        limit: int,
        on_held: Callable[[int], object] = lambda total: None,
        on_released: Callable[[int], object] = lambda total: None,
    ) -> None:
        self.limit = limit
        self.total = 0
        self._sizes: dict[Transport, int] = {}
        self._held = False
        self._on_held = on_held
        self._on_released = on_released
        self._cutting = False

    def is_held(self, transport: Transport) -> bool:
        """Whether nothing is to be read from this one for now."""
        return self._held and transport in self._sizes

    def put(self, transport: Transport, size: int) -> None:
        """So many bytes wait for this one now."""
        fresh = transport not in self._sizes
        self.total += size - self._sizes.get(transport, 0)
        self._sizes[transport] = size
        if self._held:
            if self.total <= self.limit * RELEASE_AT:
                self._release()
            elif fresh:
                _watch_again(transport)
        elif self.total > self.limit * HOLD_AT:
            self._held = True
            self._on_held(self.total)
            for each in list(self._sizes):
                _watch_again(each)
        if self.total > self.limit and not self._cutting:
            self._cut_biggest()

    def forget(self, transport: Transport) -> None:
        """Nothing waits for this one any more."""
        if transport not in self._sizes:
            return
        self.total -= self._sizes.pop(transport)
        if self._held:
            if not transport.is_closed():
                _watch_again(transport)
            if self.total <= self.limit * RELEASE_AT:
                self._release()

    def _release(self) -> None:
        self._held = False
        self._on_released(self.total)
        for transport in list(self._sizes):
            _watch_again(transport)

    def _cut_biggest(self) -> None:
        self._cutting = True
        try:
            for transport in sorted(self._sizes, key=lambda each: -self._sizes[each]):
                if self.total <= self.limit * CUT_TO:
                    break
                guard: Guard | None = transport.service.guard
                size = self._sizes.get(transport)
                if guard is None or size is None or transport.is_frozen():
                    continue
                why = (
                    f"{size} bytes wait to be sent to it, {self.total} in this worker, more than "
                    f"max_buffered ({self.limit})"
                )
                guard.cut(transport, "buffered_bytes", why)
        finally:
            self._cutting = False


def _watch_again(transport: Transport) -> None:
    """Have epoll report what is wanted now."""
    transport.watch_again()  # type: ignore[attr-defined]

"""How coroutines learn that their worker leaves: `epolld.draining()`.

Which connection a piece of code works for is kept where asyncio keeps such things, in its
context: tasks that a handler starts inherit it.
"""

from __future__ import annotations

import asyncio
import contextvars

from epolld.net.transport import Transport

_current: contextvars.ContextVar[Goodbye] = contextvars.ContextVar("epolld_goodbye")


def draining() -> asyncio.Event:
    """The event that says that this worker leaves: of the connection whose handler asks.

    A handler that asks decides itself when to end, until `workers.graceful_timeout`; then it is
    cancelled. For one that never asks, epolld closes the connection once it is idle, so that its
    reader comes to an end. In a task that belongs to no connection it is the worker's. Outside
    of epolld it is never set, so a handler runs under `asyncio.start_server`, too.
    """
    goodbye = _current.get(None)
    return asyncio.Event() if goodbye is None else goodbye.event()


def connection_at_work() -> Transport | None:
    """The connection for which the code works that is running now, if it is a coroutine's."""
    goodbye = _current.get(None)
    return None if goodbye is None else goodbye.transport


class Goodbye:
    """Whether somebody wants to know that it is time to go, and whether it is."""

    __slots__ = ("_event", "_said", "lost", "transport")

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None  # made when asked for: few ask
        self._said = False
        self.transport: Transport | None = None  # None: the worker's own
        self.lost: BaseException | None = None  # what broke the connection

    def event(self) -> asyncio.Event:
        """Set once `say` has been called."""
        if self._event is None:
            self._event = asyncio.Event()
            if self._said:
                self._event.set()
        return self._event

    def say(self) -> bool:
        """It is time; returns whether anybody has asked."""
        self._said = True
        if self._event is None:
            return False
        self._event.set()
        return True

    def enter(self) -> None:
        """Be what `draining()` means in the current context, and in tasks made from it."""
        _current.set(self)

"""Coroutine handlers: `async def handle(reader, writer)`, exactly as for `asyncio.start_server`.

Reader, writer and the protocol between them and the transport are asyncio's own. Added is what a
daemon needs: the handlers' tasks are known, so a drain can wait for them, tell them and at last
cancel them; and what a handler lets through is logged with the peer and ends its connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from epolld.runtime.aio import AsyncioTransport

log = logging.getLogger("epolld.connection")

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, object]]

LIMIT = 65536  # bytes of a line, and half of what a reader buffers; asyncio's default

_goodbye: contextvars.ContextVar[Goodbye] = contextvars.ContextVar("epolld_goodbye")


def draining() -> asyncio.Event:
    """The event that says that this worker leaves: of the connection whose handler asks.

    A handler that asks decides itself when to end, until `workers.graceful_timeout`; then it is
    cancelled. For one that never asks, epolld closes the connection once it is idle, so that its
    reader comes to an end. In a task that belongs to no connection it is the worker's. Outside
    of epolld it is never set, so a handler runs under `asyncio.start_server`, too.
    """
    goodbye = _goodbye.get(None)
    return asyncio.Event() if goodbye is None else goodbye.event()


class Goodbye:
    """Whether somebody wants to know that it is time to go, and whether it is."""

    __slots__ = ("_event", "_said")

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None  # made when asked for: few ask
        self._said = False

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
        _goodbye.set(self)


class StreamProtocol(asyncio.StreamReaderProtocol):
    """What is between a transport and a handler's streams."""

    def __init__(self, handlers: Handlers) -> None:
        loop = handlers.loop
        super().__init__(asyncio.StreamReader(LIMIT, loop), handlers.begin, loop)
        self.goodbye = Goodbye()

    def draining(self) -> bool:
        """As Protocol.draining: true leaves the end to the daemon."""
        return not self.goodbye.say()


class Handlers:
    """The handlers of one service's connections, each in a task of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, handle: Handler) -> None:
        self.loop = loop
        self._name = name  # the service's
        self._handle = handle
        self._tasks: dict[asyncio.Task[object], AsyncioTransport] = {}

    def __len__(self) -> int:
        """How many have not come to their end."""
        return len(self._tasks)

    def make_protocol(self) -> StreamProtocol:
        """The protocol of a new connection."""
        return StreamProtocol(self)

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client is connected."""
        transport: Any = writer.transport
        context = contextvars.copy_context()
        context.run(_goodbye.set, transport.get_protocol().goodbye)
        task = self.loop.create_task(self._handle(reader, writer), context=context)
        self._tasks[task] = transport
        task.add_done_callback(self._on_done)

    def cancel(self) -> None:
        """The time is over: cancel all; each connection is closed when its handler has ended."""
        for task in list(self._tasks):
            task.cancel()

    def _on_done(self, task: asyncio.Task[object]) -> None:
        """A handler has returned, which alone closes nothing, or failed, which does."""
        transport = self._tasks.pop(task)
        if task.cancelled():
            transport.close()
        elif (exc := task.exception()) is not None:
            self._report(transport, exc)
            transport.close()

    def _report(self, transport: AsyncioTransport, exc: BaseException) -> None:
        if isinstance(exc, ConnectionError) and transport.is_closed():
            log.debug("%s: %s: %s", self._name, transport.describe_peer(), exc)
            return
        log.error(
            "%s: %s raised %s; closing the connection from %s",
            self._name,
            getattr(self._handle, "__qualname__", "the handler"),
            type(exc).__name__,
            transport.describe_peer(),
            exc_info=exc,
        )

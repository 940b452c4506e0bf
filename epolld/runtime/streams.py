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

from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.transport import Transport
from epolld.runtime.goodbye import Goodbye

log = logging.getLogger("epolld.connection")

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, object]]

LIMIT = 65536  # bytes of a line, and half of what a reader buffers; asyncio's default


class StreamProtocol(asyncio.StreamReaderProtocol):
    """What is between a transport and a handler's streams."""

    def __init__(self, handlers: Handlers) -> None:
        loop = handlers.loop
        super().__init__(asyncio.StreamReader(LIMIT, loop), handlers.begin, loop)
        self._handlers = handlers
        self.goodbye = Goodbye()

    def connection_made(self, transport: Any) -> None:
        """A client is connected."""
        self.goodbye.transport = transport
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended; its handler may still be at work."""
        self.goodbye.transport = None
        self.goodbye.lost = exc
        super().connection_lost(exc)  # type: ignore[arg-type]
        if self._handlers.draining:
            self.goodbye.say()

    def draining(self) -> bool:
        """As Protocol.draining: true leaves the end to the daemon."""
        return not self.goodbye.say()


class StreamService(Service):
    """A service whose connections are handled by coroutines; arguments as for `Service`."""

    def __init__(
        self,
        loop: EventLoop,
        name: str,
        handle: Handler,
        *settings: Any,
        asyncio_loop: asyncio.AbstractEventLoop,
        **more: Any,
    ) -> None:
        self._handlers = Handlers(asyncio_loop, name, handle)
        factory: Any = self._handlers.make_protocol  # a protocol in all but name
        super().__init__(loop, name, factory, *settings, **more)

    def is_unfinished(self) -> bool:
        """Whether a handler still works, though its connection may have ended."""
        return len(self._handlers) > 0

    def on_draining(self) -> None:
        """The worker begins to leave."""
        self._handlers.tell_draining()

    def end_all(self, patience: float, gently: bool) -> None:
        """Cancel the handlers; each connection ends with its own. Half the time is for that."""
        self._handlers.cancel()
        if gently and self._handlers:
            self.ending = True
            rest = patience / 2
            self._loop.call_later(rest, lambda: super(StreamService, self).end_all(rest, gently))
        else:
            super().end_all(patience, gently)


class Handlers:
    """The handlers of one service's connections, each in a task of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, handle: Handler) -> None:
        self.loop = loop
        self._name = name  # the service's
        self._handle = handle
        self._tasks: dict[asyncio.Task[object], tuple[Transport, Goodbye]] = {}
        self.draining = False  # the worker leaves

    def __len__(self) -> int:
        """How many have not come to their end."""
        return len(self._tasks)

    def make_protocol(self) -> StreamProtocol:
        """The protocol of a new connection."""
        return StreamProtocol(self)

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client is connected."""
        transport: Any = writer.transport
        goodbye: Goodbye = transport.get_protocol().goodbye
        context = contextvars.copy_context()
        context.run(goodbye.enter)
        task = self.loop.create_task(self._handle(reader, writer), context=context)
        self._tasks[task] = transport, goodbye
        task.add_done_callback(self._on_done)

    def tell_draining(self) -> None:
        """Tell those whose connection has ended; all others are told with theirs."""
        self.draining = True
        for transport, goodbye in self._tasks.values():
            if transport.is_closed():
                goodbye.say()

    def cancel(self) -> None:
        """The time is over: cancel all; each connection is closed when its handler has ended."""
        for task in list(self._tasks):
            task.cancel()

    def _on_done(self, task: asyncio.Task[object]) -> None:
        """A handler has returned, which alone closes nothing, or failed, which does."""
        transport, goodbye = self._tasks.pop(task)
        if task.cancelled():
            transport.close_for("drained")
        elif (exc := task.exception()) is not None:
            self._report(transport, goodbye, exc)
            transport.close_for("callback_error")

    def _report(self, transport: Transport, goodbye: Goodbye, exc: BaseException) -> None:
        lost = isinstance(exc, ConnectionError) and transport.is_closed()
        if lost or exc is goodbye.lost:  # the network's doing
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

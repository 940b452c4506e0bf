"""Which loop a worker runs, and which kind of service each handler gets.

Imports a runtime only when a handler needs it: a worker without coroutines has no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from epolld.config import Service as Settings
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.transport import Transport
from epolld.services.handlers import Runtime

if TYPE_CHECKING:
    from epolld.runtime.aio import AsyncioRuntime
    from epolld.runtime.threads import ThreadService


class Handler(NamedTuple):
    """What serves the connections of a service."""

    factory: Callable[..., Any]  # called for each, with what the runtime passes
    runtime: Runtime


class Runtimes:
    """The runtimes of one worker around its event loop.

    `reserved` are the worker's signals. `hold(service, True)` keeps a service's listeners out of
    the accept queues. `stuck_after` seconds of silence a blocking handler is reported.
    """

    def __init__(
        self,
        loop: EventLoop,
        reserved: Collection[int],
        hold: Callable[[Service, bool], object],
        stuck_after: float,
    ) -> None:
        self._loop = loop
        self._reserved = reserved
        self._hold = hold
        self._stuck_after = stuck_after
        self._threads: list[ThreadService] = []
        self.facts: dict[str, object] = {}  # what all connections know, beside their own
        self._asyncio: AsyncioRuntime | None = None

    def make_service(self, settings: Settings, handler: Handler, *rest: Any) -> Service:
        """The service of these settings; `rest` are the last arguments of `Service`."""
        service = self._make_service(settings, handler, rest)
        service.common = self.facts
        return service

    def _make_service(self, settings: Settings, handler: Handler, rest: tuple[Any, ...]) -> Service:
        arguments = (settings.name, handler.factory, settings.idle_timeout, *rest)
        if handler.runtime == "coroutines":
            from epolld.runtime.streams import StreamService

            loop = self.need_asyncio().loop
            return StreamService(self._loop, *arguments, asyncio_loop=loop)
        if handler.runtime == "asyncio":
            from epolld.runtime.aio import AsyncioService

            self.need_asyncio()
            return AsyncioService(self._loop, *arguments)
        if handler.runtime == "threads":
            from epolld.runtime.threads import ThreadService

            service = ThreadService(
                self._loop, *arguments, size=settings.threads, stuck_after=self._stuck_after
            )
            service.server.application = self.facts.get("application")
            service.on_full = lambda full: self._hold(service, full)
            self._threads.append(service)
            return service
        return Service(self._loop, *arguments)

    def need_asyncio(self) -> AsyncioRuntime:
        """asyncio, from now on part of this worker."""
        if self._asyncio is None:
            from epolld.runtime.aio import AsyncioRuntime

            self._asyncio = AsyncioRuntime(self._loop, self._reserved)
        return self._asyncio

    def run(self) -> None:
        """Serve until `stop()` is called."""
        (self._asyncio or self._loop).run()

    def stop(self) -> None:
        """Have `run()` return after the current turn."""
        (self._asyncio or self._loop).stop()

    def on_draining(self) -> None:
        """The worker begins to leave."""
        if self._asyncio is not None:
            self._asyncio.goodbye.say()

    def connection_at_work(self) -> Transport | None:
        """The connection whose coroutine is running now."""
        if self._asyncio is None:
            return None
        from epolld.runtime.goodbye import connection_at_work

        return connection_at_work()

    def close(self, patience: float) -> None:
        """End what still runs in the background, within `patience` seconds."""
        if self._asyncio is not None:
            self._asyncio.close(patience)
        for service in self._threads:
            service.close()

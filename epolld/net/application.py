"""The contract with applications: what epolld calls in the life of a worker.

An application is what all connections of a worker share, such as a pool of connections to a
database: one instance a worker, made by each for itself. Any class with some of these methods
will do; each may be a coroutine function, which needs no other than that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from epolld.net.loop import EventLoop
from epolld.net.timers import Timer

log = logging.getLogger("epolld.application")


class WorkerContext:
    """The worker, as its application sees it.

    `slot` is its stable number, from 0; `generation` that of the configuration in force, from 1.
    """

    __slots__ = ("_loop", "generation", "slot")

    def __init__(self, loop: EventLoop, slot: int, generation: int) -> None:
        self._loop = loop
        self.slot = slot
        self.generation = generation

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback()` in `delay` seconds; what it raises is logged. `cancel()` takes it back.

        In the thread that serves, between two connections' turns: it must not block.
        """

        def due() -> None:
            try:
                callback()
            except BaseException:
                log.exception("%s failed", getattr(callback, "__qualname__", "a timer"))

        # From now, and not from the loop's last wake-up, which may be long ago in a start hook.
        return self._loop.call_later(self._loop.time() - self._loop.now + delay, due)


class Application:
    """Base for applications; every method may be left out, or be `async def`."""

    def start(self, worker: WorkerContext) -> Awaitable[object] | None:
        """The worker boots: open what connections will need. Nothing is accepted before the end.

        What it raises is a failed boot, and so a failed start or reload of the daemon.
        """
        return None

    def draining(self) -> Awaitable[object] | None:
        """The worker begins to leave: it accepts no more, its connections still live."""
        return None

    def stop(self) -> Awaitable[object] | None:
        """The last connection has ended: close what `start` opened. A coroutine gets 2 seconds.

        Not called if `start` failed, nor when the worker is killed.
        """
        return None

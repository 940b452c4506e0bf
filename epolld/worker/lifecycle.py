"""The application in a worker's life: started before it is ready, stopped at its end.

Its hooks may be coroutines; then, and only then, the worker gets asyncio for their sake.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from epolld.net.application import WorkerContext
from epolld.services.handlers import HOOKS, is_coroutine_function
from epolld.worker.runtimes import Runtimes

log = logging.getLogger("epolld.application")

# What a coroutine may take to stop; the master kills a worker that takes much longer.
STOP_WITHIN = 2.0  # seconds


class Lifecycle:
    """One application, from `start` to `stop`; without one, nothing happens."""

    def __init__(self, runtimes: Runtimes) -> None:
        self._runtimes = runtimes
        self._application: Any = None
        self._name = ""

    @property
    def application(self) -> Any:
        """The application that has been started; None without one."""
        return self._application

    def start(self, factory: Callable[[], Any], context: WorkerContext) -> None:
        """Make the application and call its `start`; lets through what they raise."""
        application = factory()
        self._name = type(application).__qualname__
        hooks = [getattr(application, hook, None) for hook in HOOKS]
        if any(hook is not None and is_coroutine_function(hook) for hook in hooks):
            self._runtimes.need_asyncio()
        start = hooks[0]
        if start is not None and is_awaitable(found := start(context)):
            self._runtimes.need_asyncio().run_until_complete(_wait_for(found))
        self._application = application

    def draining(self) -> None:
        """The worker begins to leave."""
        self._call("draining")

    def stop(self) -> None:
        """The last connection has ended, and the loop has stopped."""
        self._call("stop")

    def _call(self, hook: str) -> None:
        """Call a hook, fenced; a coroutine of `draining` runs beside everything else."""
        function = getattr(self._application, hook, None)
        if function is None:
            return
        try:
            found = function()
            if is_awaitable(found):
                runtime = self._runtimes.need_asyncio()
                if hook == "draining":
                    runtime.spawn(_fenced(found, f"{hook} of {self._name}"))
                else:
                    runtime.run_until_complete(_wait_for(found, STOP_WITHIN))
        except BaseException as exc:
            log.error("%s of %s raised %s", hook, self._name, type(exc).__name__, exc_info=exc)


def is_awaitable(found: object) -> bool:
    """Whether a hook has returned something to wait for."""
    return hasattr(found, "__await__")


async def _wait_for(work: Any, seconds: float | None = None) -> None:
    import asyncio

    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        if seconds is None:
            raise
        raise TimeoutError(f"not done within {seconds:g}s") from None


async def _fenced(work: Any, name: str) -> None:
    try:
        await work
    except Exception as exc:
        log.error("%s raised %s", name, type(exc).__name__, exc_info=exc)

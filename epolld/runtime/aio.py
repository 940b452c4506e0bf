"""asyncio inside a worker: its loop, and services of its protocols.

A worker that needs asyncio runs `AsyncioRuntime.run()` in place of `EventLoop.run()`. All of
asyncio works inside: tasks, timers, subprocesses, executors, signals, the clients of other
libraries. Connections of epolld's services are not asyncio's own: they keep epolld's transport,
which has the same contract and costs less. Only workers that need it import this module.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import signal
import sys
from collections.abc import Callable, Collection, Coroutine
from types import FrameType
from typing import Any, TypeVarTuple

from epolld.net.feeder import fed
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.runtime.goodbye import Goodbye
from epolld.runtime.selector import SharedSelector

log = logging.getLogger("epolld.asyncio")

Args = TypeVarTuple("Args")


class WorkerLoop(asyncio.SelectorEventLoop):
    """asyncio's loop over a worker's epoll object.

    `reserved` are the signals that the worker itself takes.
    """

    def __init__(self, selector: SharedSelector, reserved: Collection[int] = ()) -> None:
        self._shared = selector
        self._reserved = reserved
        self._handled: set[int] = set()  # signals
        super().__init__(selector)

    # Native callbacks run inside select(): what they give asyncio to do must end it. (What comes
    # from other threads and from descriptors does so by itself.)

    def call_soon(
        self,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As asyncio's."""
        if self._shared.waiting:
            self._shared.wake()
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's; `call_later` comes through here."""
        if self._shared.waiting:
            self._shared.wake()
        return super().call_at(when, callback, *args, context=context)

    # asyncio's own would take away the descriptor that the worker's signals wake it by.

    def add_signal_handler(
        self, sig: int, callback: Callable[[*Args], object], *args: *Args
    ) -> None:
        """As asyncio's; RuntimeError for a signal that is the worker's."""
        if sig in self._reserved:
            name = signal.Signals(sig).name
            raise RuntimeError(f"{name} is the worker's own; see epolld.draining() for its end")
        if inspect.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            self.call_soon_threadsafe(callback, *args)

        try:
            signal.signal(sig, on_signal)
        except OSError as exc:
            raise RuntimeError(f"sig {sig} cannot be caught") from exc
        signal.siginterrupt(sig, False)
        self._handled.add(sig)

    def remove_signal_handler(self, sig: int) -> bool:
        """As asyncio's."""
        if sig not in self._handled:
            return False
        self._handled.remove(sig)
        signal.signal(sig, signal.SIG_DFL)
        return True


class AsyncioRuntime:
    """Runs a worker's event loop together with asyncio's."""

    def __init__(self, loop: EventLoop, reserved: Collection[int] = ()) -> None:
        self.selector = SharedSelector(loop)
        self.loop = WorkerLoop(self.selector, reserved)
        self.goodbye = Goodbye()  # of tasks that belong to no connection
        self.goodbye.enter()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running = self._stopping = False
        asyncio.set_event_loop(self.loop)
        if sys.version_info < (3, 12):  # from there on asyncio's own choice; no thread a child
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(self.loop)
            asyncio.set_child_watcher(watcher)

    def run(self) -> None:
        """Serve until `stop()` is called."""
        self._running = True
        while not self._stopping:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as exc:
                # asyncio lets these two through after it has ended the task that raised them.
                log.error("%s in a task; it ends the task, not the worker", type(exc).__name__)
        self._running = self._stopping = False

    def stop(self) -> None:
        """Have `run()` return after the current turn."""
        if self._running:  # and not in run_until_complete, which would fail
            self._stopping = True
            self.loop.stop()
            self.selector.wake()

    def run_until_complete(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Serve until `work` is done; its result, or what it raised."""
        return self.loop.run_until_complete(work)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do `work` beside everything else."""
        task = self.loop.create_task(work)
        self._tasks.add(task)  # the loop itself holds no task
        task.add_done_callback(self._tasks.discard)

    def close(self, patience: float) -> None:
        """Cancel what still runs, and give it `patience` seconds for its last words."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=patience))
        for task in tasks:
            if not task.done():
                log.warning("%s goes on after it was cancelled; leaving it", task)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())


class AsyncioService(Service):
    """A service whose protocols are asyncio's; arguments as for `Service`."""

    def __init__(self, loop: EventLoop, name: str, factory: Callable[[], Any], *more: Any) -> None:
        # Where the class shows that it takes bytes, nothing stands between.
        takes_bytes = isinstance(factory, type) and not hasattr(factory, "get_buffer")
        super().__init__(loop, name, factory if takes_bytes else lambda: fed(factory()), *more)

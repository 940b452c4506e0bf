"""asyncio inside a worker: its loop, and services of its protocols.

A worker that needs asyncio runs `AsyncioRuntime.run()` in place of `EventLoop.run()`. All of
asyncio works inside: tasks, timers, subprocesses, executors, signals, the clients of other
libraries. Connections of epolld's services are not asyncio's own: they keep epolld's transport,
which has the same contract and costs less. Only workers that need it import this module.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import inspect
import logging
import signal
import sys
from collections.abc import Callable, Collection, Coroutine
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple

from epolld.net.feeder import fed
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.runtime.goodbye import Goodbye
from epolld.runtime.selector import SharedSelector

log = logging.getLogger("epolld.asyncio")

Args = TypeVarTuple("Args")
Scheduled = TypeVar("Scheduled", bound=asyncio.Handle)


class WorkerLoop(asyncio.SelectorEventLoop):
    """asyncio's loop over a worker's epoll object.

    `reserved` are the signals that the worker itself takes.
    """

    def __init__(self, selector: SharedSelector, reserved: Collection[int] = ()) -> None:
        self._shared = selector
        self._reserved = reserved
        self._handled: dict[int, asyncio.Handle] = {}  # by signal
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
        return _hide_ours(super().call_soon(callback, *args, context=context))

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
        return _hide_ours(super().call_at(when, callback, *args, context=context))

    # asyncio's own would take away the descriptor that the worker's signals wake it by.

    def add_signal_handler(
        self, sig: int, callback: Callable[[*Args], object], *args: *Args
    ) -> None:
        """As asyncio's; RuntimeError for a signal that is the worker's."""
        if inspect.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        _check_signal(sig)
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        if sig in self._reserved:
            name = signal.Signals(sig).name
            raise RuntimeError(f"{name} is the worker's own; see epolld.draining() for its end")
        try:
            signal.signal(sig, self._on_signal)
        except ValueError as exc:  # not in the main thread
            raise RuntimeError(str(exc)) from exc
        except OSError as exc:
            raise _uncatchable(sig, exc) from exc
        signal.siginterrupt(sig, False)
        self._handled[sig] = asyncio.Handle(callback, args, self)

    def remove_signal_handler(self, sig: int) -> bool:
        """As asyncio's."""
        _check_signal(sig)
        if self._handled.pop(sig, None) is None:
            return False
        default = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            signal.signal(sig, default)
        except OSError as exc:
            raise _uncatchable(sig, exc) from exc
        return True

    def close(self) -> None:
        """As asyncio's; signals that were handled are no more."""
        super().close()
        for sig in list(self._handled):
            self.remove_signal_handler(sig)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """It may come in anybody's turn: the handler gets one of its own."""
        if not self.is_closed():
            self.call_soon_threadsafe(self._handle_one, number)

    def _handle_one(self, number: int) -> None:
        handle = self._handled.get(number)
        if handle is not None:  # else it was removed meanwhile
            handle._run()


def _hide_ours(handle: Scheduled) -> Scheduled:
    """In debug mode, where it was scheduled from: without the line of this file."""
    made: Any = handle
    if made._source_traceback:
        del made._source_traceback[-1]
    return handle


def _check_signal(sig: int) -> None:
    """Raises TypeError or ValueError, as asyncio."""
    if not isinstance(sig, int):
        raise TypeError(f"sig must be an int, not {sig!r}")
    if sig not in signal.valid_signals():
        raise ValueError(f"invalid signal number {sig}")


def _uncatchable(sig: int, exc: OSError) -> Exception:
    """What asyncio raises if the kernel refuses."""
    return RuntimeError(f"sig {sig} cannot be caught") if exc.errno == errno.EINVAL else exc


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

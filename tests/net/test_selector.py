"""asyncio over a worker's own epoll: all of asyncio works, and native descriptors are served."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from wiring import Notes, serve, tcp_pair, unix_pair

from epolld.net.loop import EPOLLIN, EventLoop
from epolld.runtime.aio import AsyncioRuntime, WorkerLoop
from epolld.runtime.selector import SharedSelector

LIMIT = 10.0  # seconds; only a test that fails waits for so long


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.close()


@pytest.fixture
def runtime(loop: EventLoop) -> Iterator[AsyncioRuntime]:
    runtime = AsyncioRuntime(loop, reserved=(signal.SIGTERM,))
    yield runtime
    runtime.close(1.0)
    runtime.loop.close()
    asyncio.set_event_loop(None)
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(None)


@pytest.fixture
def run(runtime: AsyncioRuntime) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    return lambda work: runtime.run_until_complete(asyncio.wait_for(work, LIMIT))


Run = Callable[[Coroutine[Any, Any, Any]], Any]


# -- asyncio -------------------------------------------------------------------------------------


def test_timers_fire_in_order_and_not_early(run: Run) -> None:
    async def work() -> list[float]:
        loop = asyncio.get_running_loop()
        begin, seen = loop.time(), []
        done = loop.create_future()
        for delay in (0.03, 0.01, 0.02):
            loop.call_later(delay, lambda d=delay: seen.append((d, loop.time() - begin)))
        loop.call_later(0.04, done.set_result, None)
        await done
        return seen

    seen = run(work())
    assert [delay for delay, _ in seen] == [0.01, 0.02, 0.03]
    assert all(after >= delay for delay, after in seen)


def test_tasks_gather_and_cancel(run: Run) -> None:
    async def number(n: int) -> int:
        await asyncio.sleep(0)
        return n

    async def forever() -> None:
        await asyncio.Event().wait()

    async def work() -> list[int]:
        task = asyncio.create_task(forever())
        found = await asyncio.gather(*(number(n) for n in range(100)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(forever(), 0.01)
        return found

    assert run(work()) == list(range(100))


def test_calls_from_another_thread_wake_it(run: Run) -> None:
    async def work() -> str:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(done.set_result, "x"))
        loop.call_later(0.01, thread.start)
        found: str = await done
        thread.join()
        return found + await loop.run_in_executor(None, lambda: "y")

    assert run(work()) == "xy"


def test_subprocesses(run: Run) -> None:
    async def work() -> tuple[bytes, int | None]:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; print(sys.stdin.read().upper()); sys.exit(3)",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await child.communicate(b"hello")
        return out, child.returncode

    threads = set(threading.enumerate())
    assert run(work()) == (b"HELLO\n", 3)
    assert set(threading.enumerate()) <= threads  # a pidfd, not a thread, waits for the child


def test_asyncio_s_own_servers_and_clients(run: Run) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async def work() -> bytes:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            data = os.urandom(3_000_000)
            writer.write(data)
            writer.write_eof()
            found = await reader.read()
            writer.close()
            await writer.wait_closed()
            return found == data

    assert run(work())


def test_signals_that_the_worker_does_not_take(run: Run) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGWINCH, came.set)
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        os.kill(os.getpid(), signal.SIGWINCH)
        await came.wait()
        assert loop.remove_signal_handler(signal.SIGWINCH)
        assert not loop.remove_signal_handler(signal.SIGWINCH)
        with pytest.raises(RuntimeError, match="SIGTERM is the worker's own"):
            loop.add_signal_handler(signal.SIGTERM, came.set)

    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    run(work())
    assert signal.set_wakeup_fd(before) == before


def test_a_signal_s_handler_runs_in_the_context_that_it_was_added_in(run: Run) -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place")

    async def work() -> str:
        loop = asyncio.get_running_loop()
        came = loop.create_future()
        place.set("here")
        loop.add_signal_handler(signal.SIGWINCH, lambda: came.set_result(place.get("nowhere")))
        contextvars.Context().run(signal.raise_signal, signal.SIGWINCH)
        found: str = await came
        loop.remove_signal_handler(signal.SIGWINCH)
        return found

    assert run(work()) == "here"


def test_a_signal_whose_handler_was_removed_meanwhile(run: Run) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        calls: list[int] = []
        loop.add_signal_handler(signal.SIGWINCH, calls.append, 1)
        signal.raise_signal(signal.SIGWINCH)
        loop.remove_signal_handler(signal.SIGWINCH)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not calls

    run(work())


def test_signals_that_nobody_can_handle(run: Run, runtime: AsyncioRuntime) -> None:
    async def work() -> None:
        loop: Any = asyncio.get_running_loop()
        for change in (loop.remove_signal_handler, lambda sig: loop.add_signal_handler(sig, print)):
            with pytest.raises(TypeError, match="must be an int"):
                change("HUP")
            with pytest.raises(ValueError, match="invalid signal number 4711"):
                change(4711)
        with pytest.raises(RuntimeError, match="cannot be caught"):
            loop.add_signal_handler(signal.SIGKILL, print)
        with pytest.raises(RuntimeError, match="main thread"):
            await asyncio.to_thread(loop.add_signal_handler, signal.SIGWINCH, print)
        assert not loop.remove_signal_handler(signal.SIGWINCH)

    run(work())


def test_a_closed_loop_handles_no_signals(loop: EventLoop) -> None:
    aio = WorkerLoop(SharedSelector(loop))
    before = signal.getsignal(signal.SIGWINCH)
    aio.add_signal_handler(signal.SIGWINCH, print)
    aio.close()
    assert signal.getsignal(signal.SIGWINCH) == before
    with pytest.raises(RuntimeError, match="closed"):
        aio.add_signal_handler(signal.SIGWINCH, print)


def test_debug_mode_names_who_scheduled_a_call(run: Run) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        for handle in (loop.call_soon(print), loop.call_later(9, print), loop.call_at(9e9, print)):
            made: Any = handle
            assert made._source_traceback[-1].filename == __file__
            handle.cancel()

    run(work())


def test_exit_in_a_task_does_not_end_the_worker(
    runtime: AsyncioRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        sys.exit(1)

    async def stop() -> None:
        runtime.stop()

    task = runtime.loop.create_task(leave())
    task.add_done_callback(lambda done: (done.exception(), runtime.loop.create_task(stop())))
    runtime.run()
    assert task.done()
    assert "SystemExit in a task" in caplog.text


def test_what_does_not_end_is_cancelled_and_left(runtime: AsyncioRuntime) -> None:
    ends = []

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.append("tidy")

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    tasks = [runtime.loop.create_task(tidy()), runtime.loop.create_task(stubborn())]
    runtime.run_until_complete(asyncio.sleep(0))
    runtime.close(0.05)
    assert ends == ["tidy"]
    assert [task.done() for task in tasks] == [True, False]
    tasks[1].cancel()


# -- native things in the same loop --------------------------------------------------------------


def test_native_connections_are_served_while_asyncio_waits(loop: EventLoop, run: Run) -> None:
    ours, theirs = tcp_pair()
    notes = Notes(data_received=lambda self, data: self.transport.write(data.upper()))
    serve(loop, ours, notes)

    async def work() -> bytes:
        aio = asyncio.get_running_loop()
        for _ in range(100):
            await aio.sock_sendall(theirs, b"hello")
            assert await aio.sock_recv(theirs, 100) == b"HELLO"
        return notes.data

    assert run(work()) == b"hello" * 100
    theirs.close()
    run(_until(lambda: notes.lost))


async def _until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_native_events_alone_do_not_turn_asyncio(loop: EventLoop, runtime: AsyncioRuntime) -> None:
    """A native message never leaves the native loop: that is its speed."""
    ours, theirs = unix_pair()
    selects = []
    select = runtime.selector.select

    def counted(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        selects.append(timeout)
        return select(timeout)

    runtime.selector.select = counted  # type: ignore[method-assign]
    left = 50

    def on_ready(_events: int) -> None:
        nonlocal left
        ours.recv(1)
        left -= 1
        if left:
            theirs.send(b"x")
        else:
            runtime.stop()

    loop.register(ours.fileno(), EPOLLIN, on_ready)
    theirs.send(b"x")
    runtime.run()
    assert len(selects) == 1


@pytest.mark.parametrize("how", ["call_soon", "call_later", "create_task", "future"])
def test_native_callbacks_give_asyncio_work(
    loop: EventLoop, runtime: AsyncioRuntime, how: str
) -> None:
    """Nothing but the callback itself says that asyncio has something to do."""
    future = runtime.loop.create_future()

    async def finish() -> None:
        runtime.stop()

    future.add_done_callback(lambda _done: runtime.stop())

    def on_ready(_events: int) -> None:
        assert asyncio.get_running_loop() is runtime.loop
        loop.unregister(ours.fileno())
        if how == "call_soon":
            runtime.loop.call_soon(runtime.stop)
        elif how == "call_later":
            runtime.loop.call_later(0.01, runtime.stop)
        elif how == "create_task":
            tasks.append(runtime.loop.create_task(finish()))
        else:
            future.set_result(None)

    tasks: list[object] = []
    ours, theirs = unix_pair()
    loop.register(ours.fileno(), EPOLLIN, on_ready)
    theirs.send(b"x")
    watchdog = threading.Timer(LIMIT, lambda: runtime.loop.call_soon_threadsafe(runtime.stop))
    watchdog.start()
    runtime.run()
    assert watchdog.is_alive(), "asyncio was never told"
    watchdog.cancel()
    watchdog.join()


def test_native_things_get_their_turn_while_asyncio_never_rests(loop: EventLoop, run: Run) -> None:
    ours, theirs = unix_pair()
    served, timed, deferred = [], [], []
    loop.register(ours.fileno(), EPOLLIN, lambda _events: served.append(ours.recv(1)))

    async def work() -> None:
        theirs.send(b"x")
        loop.call_later(0.001, lambda: timed.append(1))
        loop.call_soon(lambda: deferred.append(1))
        while not (served and timed and deferred):
            await asyncio.sleep(0)

    run(work())


def test_deadlines_of_asyncio_and_of_ours_do_not_wait_for_each_other(
    loop: EventLoop, run: Run
) -> None:
    seen = []

    async def work() -> None:
        loop.call_later(0.02, lambda: seen.append("ours"))
        await asyncio.sleep(0.01)
        seen.append("asyncio")
        await asyncio.sleep(0.02)
        seen.append("asyncio")
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.001)

    begin = time.monotonic()
    run(work())
    assert seen == ["asyncio", "ours", "asyncio"]
    assert time.monotonic() - begin < 1


def test_stop_from_a_native_callback(loop: EventLoop, runtime: AsyncioRuntime) -> None:
    loop.call_later(0.01, runtime.stop)
    runtime.run()


def test_only_one_epoll_object(loop: EventLoop) -> None:
    def count() -> int:
        gc.collect()  # leftovers of other tests
        found = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                found += os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]"
        return found

    before = count()
    runtime = AsyncioRuntime(loop)
    assert count() == before
    runtime.loop.close()
    asyncio.set_event_loop(None)


# -- the selector itself -------------------------------------------------------------------------


def test_it_refuses_what_other_selectors_refuse(loop: EventLoop) -> None:
    selector = SharedSelector(loop)
    ours, theirs = unix_pair()
    selector.register(ours, selectors.EVENT_READ, "data")
    with pytest.raises(KeyError):
        selector.register(ours.fileno(), selectors.EVENT_READ)
    with pytest.raises(ValueError, match="invalid events"):
        selector.register(theirs, 0)
    with pytest.raises(ValueError, match="invalid file object"):
        selector.register("no file", selectors.EVENT_READ)
    with pytest.raises(KeyError):
        selector.unregister(theirs)
    with pytest.raises(KeyError):
        selector.modify(theirs, selectors.EVENT_READ)
    assert selector.get_key(ours).data == "data"
    assert dict(selector.get_map()) == {ours.fileno(): selector.get_key(ours)}
    selector.close()
    assert not selector.get_map()
    theirs.close()
    ours.close()


def test_events_and_modify(loop: EventLoop) -> None:
    selector = SharedSelector(loop)
    ours, theirs = unix_pair()
    selector.register(ours, selectors.EVENT_READ)
    assert selector.select(0) == []
    theirs.send(b"x")
    assert selector.select() == [(selector.get_key(ours), selectors.EVENT_READ)]
    key = selector.modify(ours, selectors.EVENT_READ | selectors.EVENT_WRITE, "more")
    assert selector.select(1) == [(key, selectors.EVENT_READ | selectors.EVENT_WRITE)]
    key = selector.modify(ours, selectors.EVENT_WRITE, "less")
    assert selector.select(1) == [(key, selectors.EVENT_WRITE)]
    theirs.close()
    assert selector.select(1) == [(key, selectors.EVENT_WRITE)]
    selector.unregister(ours)
    assert selector.select(0) == []


def test_a_closed_file_can_still_be_unregistered(loop: EventLoop) -> None:
    selector = SharedSelector(loop)
    ours, _theirs = unix_pair()
    selector.register(ours, selectors.EVENT_READ)
    ours.close()
    assert selector.get_key(ours).fileobj is ours
    selector.unregister(ours)
    with pytest.raises(ValueError, match="invalid file descriptor"):
        selector.get_key(ours)


def test_a_number_that_is_another_s_by_now_is_left_alone(loop: EventLoop) -> None:
    """Somebody closed a socket behind asyncio's back, and a connection got its number."""
    selector = SharedSelector(loop)
    ours, theirs = unix_pair()
    selector.register(ours, selectors.EVENT_READ)
    number = ours.detach()
    os.close(number)
    other, peer = unix_pair()
    if (fd := other.detach()) != number:
        os.dup2(fd, number)
        os.close(fd)
    served = []
    loop.register(number, EPOLLIN, lambda _events: served.append(os.read(number, 1)))
    selector.unregister(number)
    peer.send(b"x")
    selector.select(0)
    assert served == [b"x"]
    os.close(number)
    theirs.close()
    peer.close()

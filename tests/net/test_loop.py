"""The event loop on real descriptors: order, fences, deferred calls, timers, registrations."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from collections.abc import Iterator

import pytest
from wiring import run_until, settle, turn, unix_pair

from epolld.net.loop import EventLoop, descriptor_served

IN, OUT = select.EPOLLIN, select.EPOLLOUT


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Three pairs; the first of each is readable."""
    pairs = [unix_pair() for _ in range(3)]
    for _, theirs in pairs:
        theirs.send(b"x")
    yield pairs
    for pair in pairs:
        for sock in pair:
            sock.close()


def expect_internal_error(caplog: pytest.LogCaptureFixture, *causes: type[BaseException]) -> None:
    """The fence has logged exactly these, which the fixture for all tests forgives then."""
    errors = [r for r in caplog.records if r.name == "epolld.loop" and r.levelno == logging.ERROR]
    assert [r.exc_info[0] for r in errors] == list(causes)
    for record in errors:
        record.expected = True


def test_a_ready_descriptor_is_called_with_its_events(loop: EventLoop, pairs) -> None:
    seen = []
    ours, theirs = pairs[0]
    loop.register(ours.fileno(), IN | OUT, seen.append)
    turn(loop)
    assert seen == [IN | OUT]
    loop.modify(ours.fileno(), OUT)
    turn(loop)
    assert seen[1:] == [OUT]
    loop.modify(ours.fileno(), 0)
    turn(loop)
    assert len(seen) == 2
    theirs.close()
    turn(loop)
    assert seen[2] & select.EPOLLHUP  # cannot be masked


def test_level_triggered_what_is_left_is_reported_again(loop: EventLoop, pairs) -> None:
    ours, theirs = pairs[0]
    theirs.send(b"yz")
    got = []
    loop.register(ours.fileno(), IN, lambda _: got.append(ours.recv(1)))
    run_until(loop, lambda: len(got) == 3)
    turn(loop)
    assert got == [b"x", b"y", b"z"]


def test_events_first_then_deferred_then_timers(loop: EventLoop, pairs) -> None:
    order: list[str] = []
    loop.call_later(0, lambda: order.append("timer"))
    loop.call_soon(lambda: order.append("deferred"))
    loop.register(pairs[0][0].fileno(), IN, lambda _: order.append("event"))
    turn(loop)
    assert order == ["event", "deferred", "timer"]


def test_deferred_in_order_and_what_they_defer_waits_a_turn(loop: EventLoop) -> None:
    order: list[object] = []

    def first() -> None:
        order.append(1)
        loop.call_soon(lambda: order.append("next turn"))

    loop.call_soon(first)
    loop.call_soon(lambda: order.append(2))
    loop.call_soon(loop.stop)
    loop.run()
    assert order == [1, 2]
    turn(loop)
    assert order == [1, 2, "next turn"]


def test_an_exception_is_fenced_wherever_it_comes_from(loop, pairs, caplog) -> None:
    order: list[str] = []

    def event(_events: int) -> None:
        loop.unregister(pairs[0][0].fileno())
        raise ValueError

    def deferred() -> None:
        raise KeyError

    loop.register(pairs[0][0].fileno(), IN, event)
    loop.register(pairs[1][0].fileno(), IN, lambda _: order.append("sibling"))
    loop.call_soon(deferred)
    loop.call_soon(lambda: order.append("deferred"))
    loop.call_later(0, lambda: 1 / 0)
    loop.call_later(0, lambda: order.append("timer"))
    turn(loop)
    assert order == ["sibling", "deferred", "timer"]
    expect_internal_error(caplog, ValueError, KeyError, ZeroDivisionError)


def test_a_registration_is_looked_up_again_within_a_wake(loop: EventLoop, pairs) -> None:
    called = []

    def first(fd: int) -> None:
        called.append(fd)
        for ours, _ in pairs:  # whoever comes first takes the others away
            loop.unregister(ours.fileno())

    for ours, _ in pairs:
        fd = ours.fileno()
        loop.register(fd, IN, lambda _, fd=fd: first(fd))
    settle(loop)
    assert len(called) == 1
    assert loop.watchers() == []


def test_registering_twice_is_refused_and_unknown_is_harmless(loop: EventLoop, pairs) -> None:
    fd = pairs[0][0].fileno()
    called = []
    loop.register(fd, IN, called.append)
    with pytest.raises(FileExistsError):
        loop.register(fd, IN, print)
    turn(loop)
    assert called == [IN]
    loop.unregister(fd)
    loop.unregister(fd)
    loop.unregister(12345)
    turn(loop)
    assert called == [IN]


def test_parked_hears_nothing_until_added_again(loop: EventLoop, pairs) -> None:
    ours, theirs = pairs[0]
    called = []
    loop.register(ours.fileno(), 0, called.append)
    theirs.close()
    loop.park(ours.fileno())
    settle(loop)
    assert called == []
    assert len(loop.watchers()) == 1
    loop.unregister(ours.fileno())  # harmless though the kernel does not know it
    loop.register(ours.fileno(), IN, called.append)
    turn(loop)
    assert len(called) == 1


def test_requeue_keeps_the_callback(loop: EventLoop, pairs) -> None:
    called = []
    loop.register(pairs[0][0].fileno(), IN, called.append)
    loop.requeue(pairs[0][0].fileno(), IN)
    turn(loop)
    assert called == [IN]


def test_requeue_recovers_from_a_failure_to_add(loop: EventLoop, pairs) -> None:
    called = []
    fd = pairs[0][0].fileno()
    loop.register(fd, IN, called.append)
    with pytest.raises(OSError, match="Invalid argument"):  # for want of a way to run into ENOSPC
        loop.requeue(fd, IN | select.EPOLLEXCLUSIVE | select.EPOLLONESHOT)
    loop.requeue(fd, IN)
    turn(loop)
    assert called == [IN]


def test_now_is_read_once_a_wake_and_timers_follow_the_clock(pairs) -> None:
    time = 100.0
    loop = EventLoop(clock=lambda: time)
    fired = []
    loop.call_later(5.0, lambda: fired.append(loop.now))
    cancelled = loop.call_later(5.0, lambda: fired.append("cancelled"))
    cancelled.cancel()
    time = 104.9
    turn(loop)
    assert fired == []
    assert loop.now == 104.9
    time = 105.0
    turn(loop)
    assert fired == [105.0]
    loop.close()


def test_a_timer_wakes_the_loop_and_is_never_early(loop: EventLoop) -> None:
    start = loop.now
    loop.call_later(0.02, loop.stop)
    loop.run()
    assert loop.now - start >= 0.02


def test_a_timer_may_be_months_away(loop: EventLoop) -> None:
    loop.call_later(90 * 86400, loop.stop)
    pairs = unix_pair()
    loop.register(pairs[0].fileno(), IN, lambda _: loop.stop())
    pairs[1].send(b"x")
    try:
        loop.run()
    finally:
        for sock in pairs:
            sock.close()


def test_an_idle_loop_does_not_turn() -> None:
    wakes = 0

    def clock() -> float:
        nonlocal wakes
        wakes += 1
        return real()

    from time import monotonic as real

    loop = EventLoop(clock)
    loop.call_later(0.05, loop.stop)
    loop.run()
    assert wakes <= 5
    loop.close()


def test_stop_before_run_returns_at_once_and_run_can_be_repeated(loop: EventLoop) -> None:
    loop.stop()
    loop.run()
    turn(loop)
    turn(loop)


def test_many_ready_descriptors_all_get_their_turn(loop: EventLoop) -> None:
    fds = [os.eventfd(1) for _ in range(600)]  # more than one call of poll takes
    seen: set[int] = set()
    for fd in fds:
        loop.register(fd, IN, lambda _, fd=fd: seen.add(fd))
    run_until(loop, lambda: len(seen) == len(fds))
    for fd in fds:
        loop.unregister(fd)
        os.close(fd)


def test_descriptor_served_is_seen_from_a_signal_handler(loop: EventLoop, pairs) -> None:
    seen: list[int | None] = []
    before = signal.signal(signal.SIGUSR1, lambda _, frame: seen.append(descriptor_served(frame)))
    try:
        fd = pairs[0][0].fileno()

        def deep(n: int = 5) -> None:
            if n:
                deep(n - 1)
            else:
                signal.raise_signal(signal.SIGUSR1)

        def event(_events: int) -> None:
            deep()
            loop.unregister(fd)

        loop.register(fd, IN, event)
        loop.call_later(0, deep)  # nobody's turn
        turn(loop)
        deep()  # outside of the loop
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [fd, None, None]


def test_a_child_closes_its_copy_and_the_parent_goes_on(loop: EventLoop, pairs) -> None:
    called = []
    loop.register(pairs[0][0].fileno(), IN, called.append)
    pid = os.fork()
    if pid == 0:
        loop.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    turn(loop)
    assert called == [IN]

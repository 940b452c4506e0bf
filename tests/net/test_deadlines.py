"""A wheel on a loop: who is due is called, a few a turn, and nobody who was forgotten."""

from __future__ import annotations

from wiring import settle, turn

from epolld.net.deadlines import SLICE, Deadlines
from epolld.net.loop import EventLoop


class Bench:
    def __init__(self, limit: float = 16.0) -> None:
        self.time = 100.0
        self.loop = EventLoop(lambda: self.time)
        self.called: list[int] = []
        self.deadlines: Deadlines[int] = Deadlines(self.loop, limit, self.called.append)

    def wait(self, seconds: float) -> None:
        self.time += seconds
        settle(self.loop)


def test_due_in_order_and_never_early() -> None:
    b = Bench()
    for key, seconds in ((1, 16), (2, 8), (3, 30)):
        b.deadlines.start(key, seconds)
    b.wait(7.9)
    assert b.called == []
    b.wait(1.2)
    assert b.called == [2]
    b.wait(8)
    assert b.called == [2, 1]
    assert len(b.deadlines) == 1
    b.deadlines.end(3)
    b.wait(100)
    assert b.called == [2, 1]
    b.loop.close()


def test_many_at_one_time_take_turns() -> None:
    b = Bench()
    for key in range(5 * SLICE):
        b.deadlines.start(key, 16)
    b.time += 18
    turn(b.loop)
    assert len(b.called) <= 2 * SLICE
    b.deadlines.end(5 * SLICE - 1)
    b.deadlines.start(5 * SLICE - 2, 16)
    settle(b.loop)
    assert sorted(b.called) == list(range(5 * SLICE - 2))
    assert len(b.deadlines) == 1
    b.wait(18)
    assert len(b.called) == 5 * SLICE - 1
    b.loop.close()


def test_a_callback_may_end_and_start_others() -> None:
    b = Bench()

    def on_expired(key: int) -> None:
        b.called.append(key)
        b.deadlines.end(key + 1)
        if key == 1:
            b.deadlines.start(1, 16)

    b.deadlines = Deadlines(b.loop, 16.0, on_expired)
    for key in (1, 2):
        b.deadlines.start(key, 16)
    b.wait(17.5)
    first = b.called[0]
    assert b.called in ([1], [2, 1])
    b.wait(17.5)
    assert b.called.count(1) == 2
    assert b.called.count(2) == (first == 2)
    b.loop.close()

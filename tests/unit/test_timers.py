"""The heap of deadlines and the wheel of time-outs, against naive models; time is a value."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from epolld.net.timers import COMPACT_ABOVE, TimeoutWheel, Timer, TimerHeap

whens = st.integers(0, 50).map(float)


def never(exc: BaseException) -> None:
    """A fence for callbacks that raise nothing."""
    raise AssertionError(exc)


class HeapAgainstList(RuleBasedStateMachine):
    """Any mixture of setting, cancelling and turning the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.heap = TimerHeap()
        self.now = 0.0
        self.fired: list[int] = []
        self.expected: list[int] = []
        self.live: dict[int, Timer] = {}  # not fired, not cancelled
        self.all: list[Timer] = []

    @rule(delay=whens)
    def add(self, delay: float) -> None:
        number = len(self.all)
        timer = self.heap.add(self.now + delay, lambda: self.fired.append(number))
        self.all.append(timer)
        self.live[number] = timer

    @rule(many=st.integers(1, 3 * COMPACT_ABOVE), delay=whens)
    def add_and_cancel_many(self, many: int, delay: float) -> None:
        for timer in [self.heap.add(self.now + delay, lambda: None) for _ in range(many)]:
            timer.cancel()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.all:
            number = data.draw(st.integers(0, len(self.all) - 1))
            self.all[number].cancel()
            self.all[number].cancel()
            self.live.pop(number, None)

    @rule(step=whens)
    def turn_the_clock(self, step: float) -> None:
        self.now += step
        due = [
            n
            for n in sorted(self.live, key=lambda n: (self.live[n].when, n))
            if self.live[n].when <= self.now
        ]
        self.expected += due
        self.heap.run_due(self.now, never)
        for number in due:
            assert self.live.pop(number).cancelled()

    @invariant()
    def agrees(self) -> None:
        assert self.fired == self.expected
        assert len(self.heap) == len(self.live)
        assert self.heap.next_deadline() == min((t.when for t in self.live.values()), default=None)
        # The loop sleeps until `due`: it may be too early, for what is cancelled, but never late.
        assert self.heap.due <= min((t.when for t in self.live.values()), default=math.inf)


TestHeap = HeapAgainstList.TestCase


class WheelAgainstDict(RuleBasedStateMachine):
    """Any mixture of starting, ending and turning the clock."""

    GRAIN = 4.0

    def __init__(self) -> None:
        super().__init__()
        self.wheel: TimeoutWheel[int] = TimeoutWheel(self.GRAIN)
        self.deadlines: dict[int, float] = {}
        self.now = 0.0

    @rule(key=st.integers(0, 9), delay=whens)
    def start(self, key: int, delay: float) -> None:
        self.wheel.start(key, self.now + delay)
        self.deadlines[key] = self.now + delay

    @rule(key=st.integers(0, 9))
    def end(self, key: int) -> None:
        self.wheel.end(key)
        self.deadlines.pop(key, None)

    @rule(step=whens)
    def turn_the_clock(self, step: float) -> None:
        self.now += step
        for key in self.wheel.take_expired(self.now):
            assert self.deadlines.pop(key) <= self.now  # never early
        for deadline in self.deadlines.values():
            assert self.now < deadline + self.GRAIN  # never later than a grain

    @invariant()
    def agrees(self) -> None:
        assert len(self.wheel) == len(self.deadlines)
        soonest = self.wheel.next_deadline()
        if not self.deadlines:
            assert soonest is None
        else:
            assert 0 <= soonest - min(self.deadlines.values()) < self.GRAIN


TestWheel = WheelAgainstDict.TestCase


def test_equal_deadlines_fire_in_the_order_of_setting() -> None:
    heap, fired = TimerHeap(), []
    for n in range(20):
        heap.add(1.0, lambda n=n: fired.append(n))
    heap.run_due(1.0, never)
    assert fired == list(range(20))


def test_a_timer_is_never_early() -> None:
    heap, fired = TimerHeap(), []
    heap.add(1.0, lambda: fired.append(1))
    heap.run_due(0.999, never)
    assert fired == []


def test_a_callback_that_raises_is_fenced_and_the_next_is_called() -> None:
    heap, fired, fenced = TimerHeap(), [], []
    heap.add(1.0, lambda: 1 / 0)
    heap.add(1.0, lambda: fired.append(1))
    heap.run_due(1.0, fenced.append)
    assert fired == [1]
    assert [type(exc) for exc in fenced] == [ZeroDivisionError]


def test_a_timer_set_by_a_timer_waits_for_the_next_turn() -> None:
    heap, fired = TimerHeap(), []

    def again() -> None:
        fired.append(1)
        heap.add(0.0, again)

    heap.add(0.0, again)
    heap.run_due(5.0, never)
    assert fired == [1]
    heap.run_due(5.0, never)
    assert fired == [1, 1]


def test_a_timer_may_cancel_another_that_is_due_in_the_same_turn() -> None:
    heap, fired = TimerHeap(), []
    heap.add(1.0, lambda: second.cancel())
    second = heap.add(1.0, lambda: fired.append(2))
    heap.run_due(1.0, never)
    assert fired == []
    assert len(heap) == 0


@given(st.integers(1, 500))
def test_the_length_is_right_after_many_cancellations(count: int) -> None:
    heap = TimerHeap()
    timers = [heap.add(float(n), lambda: None) for n in range(count)]
    for timer in timers[1:]:
        timer.cancel()
    assert len(heap) == 1
    assert heap.next_deadline() == 0.0

"""Whether a worker accepts, with a gate and a loop that only take notes and a real scoreboard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from epolld.net.loop import EventLoop
from epolld.net.timers import Timer, TimerHeap
from epolld.scoreboard import NOT_ACCEPTING, Column, Scoreboard
from epolld.worker.admission import LOOK_LAST, SILENT, Admission


class FakeGate:
    """The reasons, and whether clients wait."""

    def __init__(self) -> None:
        self.reasons: set[str] = set()
        self.waiting = False
        self.requeued = 0
        self.closed = False

    def shut(self, reason: str) -> None:
        self.reasons.add(reason)

    def open(self, reason: str) -> None:
        self.reasons.discard(reason)

    def clients_wait(self) -> bool:
        return self.waiting

    def requeue(self) -> None:
        self.requeued += 1

    def close(self) -> None:
        self.closed = True


class FakeLoop:
    """Timers and a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.heap = TimerHeap()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        return self.heap.add(self.now + delay, callback)

    def turn(self, seconds: float) -> None:
        """Turn the clock, stopping at each deadline."""
        end = self.now + seconds
        while (when := self.heap.next_deadline()) is not None and when <= end:
            self.now = max(self.now, when)
            self.heap.run_due(self.now, lambda exc: pytest.fail(repr(exc)))
        self.now = end


class Stand:
    """One worker under test, and rows for its siblings."""

    def __init__(self, siblings: int = 1, most: int = 1000) -> None:
        self.loop, self.gate, self.board = FakeLoop(), FakeGate(), Scoreboard(8)
        self.row = self.board.take_row(1)
        self.siblings = [self.board.take_row(n + 2) for n in range(siblings)]
        self.admission = Admission(
            cast(EventLoop, self.loop), cast(Any, self.gate), self.board, self.row, most
        )
        self.beat(self.row)
        for row in self.siblings:
            self.sibling(0, row)

    def beat(self, row: int, ago: float = 0.0) -> None:
        self.board.column(Column.HEARTBEAT)[row] = time.monotonic_ns() - int(ago * 1e9)

    def sibling(self, live: int, row: int | None = None, ago: float = -60.0) -> None:
        """A sibling has `live` connections, and its loop turned `ago` seconds ago.

        The default is in the future: the test may be slow.
        """
        row = self.siblings[0] if row is None else row
        self.board.column(Column.BALANCE)[row] = live
        self.beat(row, ago)

    def hold(self, live: int) -> None:
        """So many connections are there now."""
        self.admission.on_change(live - self.admission.live)

    def grow(self, live: int) -> None:
        """Connections come one by one."""
        for n in range(1, live + 1):
            self.hold(n)

    @property
    def is_open(self) -> bool:
        return not self.gate.reasons

    @property
    def published(self) -> int:
        return self.board.column(Column.BALANCE)[self.row]


@pytest.fixture
def stand() -> Stand:
    """A worker that serves, and one sibling with nothing."""
    stand = Stand()
    stand.admission.start()
    return stand


def test_it_starts_shut_and_counts_for_nobody() -> None:
    stand = Stand()
    assert not stand.is_open
    assert stand.published == NOT_ACCEPTING
    stand.admission.start()
    assert stand.is_open
    assert stand.published == 0


def test_live_connections_are_published(stand: Stand) -> None:
    stand.hold(1)
    stand.hold(2)
    assert stand.board.column(Column.LIVE)[stand.row] == 2
    assert stand.published == 2
    stand.hold(1)
    assert stand.published == 1


def test_full_shuts_and_one_leaving_opens() -> None:
    stand = Stand(siblings=0, most=3)
    stand.admission.start()
    stand.grow(2)
    assert stand.is_open
    stand.hold(3)
    assert stand.gate.reasons == {"full"}
    assert stand.published == NOT_ACCEPTING
    assert stand.board.column(Column.LIVE)[stand.row] == 3
    stand.hold(2)
    assert stand.is_open
    assert stand.published == 2


def test_well_above_the_sibling_it_stays_away(stand: Stand) -> None:
    stand.grow(50)
    assert stand.gate.reasons == {"uneven"}
    assert stand.published == 50  # it still counts


def test_a_connection_that_ends_brings_it_back_when_even(stand: Stand) -> None:
    stand.grow(50)
    stand.sibling(48)
    assert not stand.is_open
    stand.hold(49)
    assert stand.is_open


def test_it_looks_again_and_comes_back_when_the_sibling_has_caught_up(stand: Stand) -> None:
    stand.grow(50)
    stand.loop.turn(3.0)
    assert not stand.is_open
    stand.sibling(48)
    stand.loop.turn(LOOK_LAST)
    assert stand.is_open


def test_a_silent_sibling_does_not_count(stand: Stand) -> None:
    stand.sibling(0, ago=SILENT + 0.5)
    stand.grow(50)
    assert stand.is_open


def test_a_sibling_that_falls_silent_brings_it_back(stand: Stand) -> None:
    stand.grow(50)
    assert not stand.is_open
    stand.sibling(0, ago=SILENT + 0.5)
    stand.loop.turn(LOOK_LAST)
    assert stand.is_open


def test_a_sibling_that_does_not_accept_does_not_count(stand: Stand) -> None:
    stand.sibling(NOT_ACCEPTING)
    stand.grow(50)
    assert stand.is_open


def test_it_comes_back_when_clients_wait_and_nobody_accepts(stand: Stand) -> None:
    stand.grow(50)
    stand.gate.waiting = True
    stand.loop.turn(LOOK_LAST)
    assert stand.is_open


def test_it_stays_away_while_clients_wait_and_the_sibling_accepts(stand: Stand) -> None:
    stand.grow(500)
    stand.gate.waiting = True
    for live in range(1, 200):
        stand.sibling(live)
        stand.loop.turn(0.004)  # less than the shortest time between two looks
        assert not stand.is_open, live


def test_the_tick_requeues_while_serving(stand: Stand) -> None:
    stand.admission.tick()
    assert stand.gate.requeued == 1
    stand.admission.stop()
    stand.admission.tick()
    assert stand.gate.requeued == 1


def test_the_tick_publishes_anew(stand: Stand) -> None:
    stand.hold(1)
    stand.board.column(Column.BALANCE)[stand.row] = 77
    stand.admission.tick()
    assert stand.published == 1


def test_stopping_closes_and_counts_for_nobody(stand: Stand) -> None:
    stand.grow(50)
    stand.admission.stop()
    assert stand.gate.closed
    assert stand.published == NOT_ACCEPTING
    before = set(stand.gate.reasons)
    stand.hold(1)
    stand.loop.turn(10.0)
    assert stand.gate.reasons == before
    assert stand.board.column(Column.LIVE)[stand.row] == 1


def test_coming_and_going_leaves_one_timer(stand: Stand) -> None:
    stand.grow(50)
    for _ in range(100):
        stand.sibling(48)
        stand.hold(49)
        assert stand.is_open
        stand.sibling(0)
        stand.hold(50)
        assert not stand.is_open
    assert len(stand.loop.heap) <= 2

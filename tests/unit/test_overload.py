"""A worker that does not keep up takes nobody, says so once, and recovers."""

import logging
from typing import Any

import pytest

from epolld.net.loop import EventLoop
from epolld.worker.overload import CALM_LOOKS, EPISODE, Overload


@pytest.fixture(name="changes")
def _changes() -> list[bool]:
    return []


@pytest.fixture(name="overload")
def _overload(changes: list[bool]) -> Any:
    loop = EventLoop()
    yield Overload(loop, 1, 0.2, changes.append)
    loop.close()


def test_late_and_calm_again(overload: Overload, changes: list[bool]) -> None:
    overload.judge(0.19, 1.0)
    assert changes == []
    overload.judge(0.21, 2.0)
    assert changes == [True]
    for look in range(CALM_LOOKS - 1):
        overload.judge(0.05, 3.0 + look / 10)
    overload.judge(0.15, 4.0)  # not calm: counts anew
    for look in range(CALM_LOOKS):
        assert changes == [True]
        overload.judge(0.05, 5.0 + look / 10)
    assert changes == [True, False]


def test_it_says_so_once_an_episode(overload: Overload, caplog: pytest.LogCaptureFixture) -> None:
    def go(now: float) -> float:
        overload.judge(0.5, now)
        for _ in range(CALM_LOOKS):
            overload.judge(0.0, now + 1)
        return now + 2

    with caplog.at_level(logging.INFO, "epolld.worker"):
        now = go(100.0)
        for _ in range(5):
            now = go(now)
        assert sum(r.levelno == logging.WARNING for r in caplog.records) == 1
        go(now + EPISODE)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "0.50s late > 0.2s (workers.max_lag)" in warnings[0]


def test_the_lag_of_a_real_loop(changes: list[bool]) -> None:
    time = [100.0]
    loop = EventLoop(lambda: time[0])
    Overload(loop, 1, 0.2, changes.append, lambda: time[0]).start()

    def turn(seconds: float) -> None:
        time[0] += seconds
        loop.call_soon(loop.stop)
        loop.run()

    for _ in range(5):
        turn(0.1)
    assert changes == []
    turn(0.4)
    assert changes == [True]
    for _ in range(CALM_LOOKS + 2):
        turn(0.1)
    assert changes == [True, False]
    loop.close()

"""master/recycle.py: when a worker is to be replaced, and that not all are at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epolld.config.schema import Workers
from epolld.master.recycle import JITTER, Facts, jitter, reason_to_recycle

FRESH = Facts(accepted=0, age=0.0, memory=30 << 20)
OLD = Facts(accepted=10**9, age=1e9, memory=1 << 40)


def test_without_limits_never() -> None:
    assert reason_to_recycle(OLD, Workers(), 1.0) == ""


@pytest.mark.parametrize(
    ("limits", "below", "reached", "words"),
    [
        (
            Workers(recycle_connections=100),
            Facts(99, 1e9, 1 << 40),
            Facts(100, 0, 0),
            "accepted 100 connections (recycle_connections)",
        ),
        (
            Workers(recycle_age=60.0),
            Facts(10**9, 59.9, 1 << 40),
            Facts(0, 60.0, 0),
            "is 60s old (recycle_age)",
        ),
        (
            Workers(recycle_memory=64 << 20),
            Facts(10**9, 1e9, (64 << 20) - 1),
            Facts(0, 3.0, 64 << 20),
            "holds 64 MiB (recycle_memory)",
        ),
    ],
)
def test_each_limit_alone(limits: Workers, below: Facts, reached: Facts, words: str) -> None:
    assert reason_to_recycle(below, limits, 1.0) == ""
    assert reason_to_recycle(reached, limits, 1.0) == words


def test_a_fresh_worker_is_within_every_limit() -> None:
    limits = Workers(recycle_connections=1, recycle_age=1.0, recycle_memory=64 << 20)
    assert reason_to_recycle(FRESH, limits, 1.0) == ""


def test_jitter_moves_connections_and_age() -> None:
    limits = Workers(recycle_connections=100)
    assert reason_to_recycle(Facts(95, 0, 0), limits, 0.9)
    assert not reason_to_recycle(Facts(105, 0, 0), limits, 1.1)
    limits = Workers(recycle_age=100.0)
    assert reason_to_recycle(Facts(0, 95, 0), limits, 0.9)
    assert not reason_to_recycle(Facts(0, 105, 0), limits, 1.1)


def test_one_connection_is_a_limit_whatever_the_jitter() -> None:
    limits = Workers(recycle_connections=1)
    assert not reason_to_recycle(FRESH, limits, 1 - JITTER)
    assert reason_to_recycle(Facts(2, 0, 0), limits, 1 + JITTER)


@given(st.integers(0, 255))
def test_the_factor_stays_around_one(chance: int) -> None:
    assert 1 - JITTER <= jitter(chance) <= 1 + JITTER + 1e-9


def test_the_whole_range_is_used() -> None:
    assert jitter(0) == pytest.approx(1 - JITTER)
    assert jitter(255) == pytest.approx(1 + JITTER)
    assert len({jitter(chance) for chance in range(256)}) == 256


def test_a_fresh_worker_over_the_limit_of_memory_stays_a_while() -> None:
    limits = Workers(recycle_memory=1 << 20)
    assert reason_to_recycle(Facts(0, 2.9, 1 << 30), limits, 1.0) == ""
    assert reason_to_recycle(Facts(0, 3.0, 1 << 30), limits, 1.0) != ""

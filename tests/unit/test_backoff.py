"""The waits between a worker's deaths."""

import pytest

from epolld.master.backoff import FIRST, LAST, RIGHT_AFTER, Backoff


def test_deaths_before_ready_double_the_wait_up_to_the_last() -> None:
    backoff = Backoff()
    waits = [backoff.on_death(None) for _ in range(8)]
    assert waits == [min(FIRST * 2**n, LAST) for n in range(8)]
    assert waits[-1] == LAST


@pytest.mark.parametrize("served", [0.0, RIGHT_AFTER / 2, RIGHT_AFTER])
def test_a_death_right_after_ready_counts_as_a_failure(served: float) -> None:
    backoff = Backoff()
    assert backoff.on_death(served) == FIRST
    assert backoff.on_death(served) == 2 * FIRST


def test_success_resets() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.on_death(None)
    assert backoff.on_death(RIGHT_AFTER + 0.001) == 0.0
    assert backoff.on_death(None) == FIRST


def test_a_program_may_stay_broken_for_days() -> None:
    backoff = Backoff()
    waits = [backoff.on_death(None) for _ in range(100_000)]
    assert set(waits[10:]) == {LAST}

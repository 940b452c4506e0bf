"""Who leaves the accepting to others."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epolld.net.balance import BAND, SLACK, should_stay_away

counts = st.lists(st.integers(0, 20_000), min_size=1, max_size=16)


@given(counts)
def test_the_fewest_never_stays_away(live: list[int]) -> None:
    assert not should_stay_away(min(live), live)


@given(st.integers(0, 20_000), st.integers(1, 16))
def test_equal_counts_never_stay_away(live: int, workers: int) -> None:
    assert not should_stay_away(live, [live] * workers)


@given(st.integers(0, 20_000))
def test_alone_never_stays_away(live: int) -> None:
    assert not should_stay_away(live, [live])
    assert not should_stay_away(live, [])


@given(counts)
def test_the_order_of_workers_is_of_no_account(live: list[int]) -> None:
    for other in (sorted(live), live[::-1]):
        assert all(should_stay_away(n, live) == should_stay_away(n, other) for n in live)


@given(counts)
def test_who_has_more_stays_away_sooner(live: list[int]) -> None:
    away = [n for n in live if should_stay_away(n, live)]
    here = [n for n in live if not should_stay_away(n, live)]
    assert not away or max(here) < min(away)


@given(counts)
def test_within_the_slack_nobody_stays_away(live: list[int]) -> None:
    mean = sum(live) / len(live)
    for n in live:
        if n <= mean + SLACK:
            assert not should_stay_away(n, live)


@given(counts)
def test_well_above_the_mean_it_stays_away(live: list[int]) -> None:
    mean = sum(live) / len(live)
    for n in live:
        if n > mean + SLACK + mean * BAND and len(live) > 1:
            assert should_stay_away(n, live)


def test_a_new_worker_gets_all_until_it_has_caught_up() -> None:
    live = [250, 250, 250, 0]
    for _ in range(250):
        takers = [i for i, n in enumerate(live) if not should_stay_away(n, live)]
        assert takers
        live[min(takers, key=live.__getitem__)] += 1
    assert max(live) - min(live) <= 1


@pytest.mark.parametrize("live", [[0, 500], [100, 0, 0, 7], [3, 3, 3], [400, 390, 380, 1, 1]])
def test_whoever_accepts_the_spread_ends_in_the_band(live: list[int]) -> None:
    chance = random.Random(1)
    for _ in range(4000):
        takers = [i for i, n in enumerate(live) if not should_stay_away(n, live)]
        live[chance.choice(takers)] += 1
    mean = sum(live) / len(live)
    assert max(live) <= mean + max(SLACK, mean * BAND) + 1

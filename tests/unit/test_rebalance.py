"""master/rebalance.py: from whom to whom, and that it comes to an end."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epolld.master.rebalance import BAND, SLACK, STEP, next_move

COUNTS = st.lists(st.integers(0, 20_000), max_size=40)


@pytest.mark.parametrize("live", [[], [5000], [0, 0], [100, 100, 100], [SLACK * 2, 0]])
def test_nothing_to_do(live: list[int]) -> None:
    assert next_move(dict(enumerate(live))) is None


def test_from_the_fullest_to_the_emptiest() -> None:
    assert next_move({"a": 300, "b": 900, "c": 0}) == ("b", "c", 400)


def test_a_step_is_bounded() -> None:
    assert next_move({"a": 10_000, "b": 0}) == ("a", "b", STEP)


def test_within_the_band_nothing_moves() -> None:
    mean = 10_000
    excess = int(mean * BAND)
    assert next_move({"a": mean + excess, "b": mean - excess}) is None
    assert next_move({"a": mean + excess + 1, "b": mean - excess - 1}) is not None


@given(COUNTS)
def test_a_move_makes_it_more_even(counts: list[int]) -> None:
    move = next_move(dict(enumerate(counts)))
    if move is not None:
        giver, taker, count = move
        mean = sum(counts) / len(counts)
        assert giver != taker
        assert count <= STEP
        assert counts[giver] - count >= mean - 1e-6
        assert counts[taker] + count <= mean + 1


@given(COUNTS)
@example([100] + [83] * 19)
def test_a_move_moves_something(counts: list[int]) -> None:
    move = next_move(dict(enumerate(counts)))
    assert move is None or move[2] > 0


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=8))
def test_it_comes_to_an_end_within_the_band(counts: list[int]) -> None:
    live = dict(enumerate(counts))
    for _ in range(sum(counts) // SLACK + 10):
        move = next_move(live)
        if move is None:
            break
        giver, taker, count = move
        live[giver] -= count
        live[taker] += count
    else:
        pytest.fail(f"goes on for ever: {live}")
    assert sum(live.values()) == sum(counts)
    mean = sum(counts) / len(counts)
    assert max(live.values()) <= mean + max(SLACK, mean * BAND)

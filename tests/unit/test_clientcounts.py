"""Counting clients over all workers: never too few, emptied with a dead worker, no growth."""

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epolld.clientcounts import (
    DEPTH,
    MOST,
    ROW_SIZE,
    WIDTH,
    ClientCounts,
    client_key,
    total_key,
)


@pytest.fixture
def counts() -> Iterator[ClientCounts]:
    table = ClientCounts(rows=4)
    yield table
    table.close()


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.sampled_from([1, 1, -1]))),
)
def test_live_connections_are_those_of_all_rows(changes: list[tuple[int, int, int]]) -> None:
    table = ClientCounts(rows=4)
    truth: Counter[tuple[int, int]] = Counter()
    for row, number, by in changes:
        if truth[row, number] + by >= 0:
            truth[row, number] += by
            table.change(row, table.cells_of(client_key(1, 4, number)), by)
    for number in range(21):
        expected = sum(truth[row, number] for row in range(4))
        assert table.live(table.cells_of(client_key(1, 4, number)), 4) == expected
    table.close()


def test_a_dead_worker_is_subtracted(counts: ClientCounts) -> None:
    cells = counts.cells_of(client_key(1, 4, 7))
    for row in range(3):
        counts.change(row, cells, 10)
        counts.note_new(row, cells, 50.0)
    assert counts.live(cells, 3) == 30
    counts.clear(1)
    assert counts.live(cells, 3) == 20
    assert counts.recent(cells, 3, 50.0) == 2


def test_a_flood_of_addresses_takes_no_more_memory_and_lets_nobody_exceed(
    counts: ClientCounts,
) -> None:
    """20,000 clients with a connection each: one of them with 8 is not hidden, a new one not
    mistaken for one with many."""
    numbers = random.Random(1)
    for _ in range(20_000):
        cells = counts.cells_of(client_key(1, 6, numbers.getrandbits(128)))
        counts.change(0, cells, 1)
        counts.note_new(0, cells, 9.0)
    size = os.fstat(counts.fileno())
    assert size.st_blocks * 512 <= ROW_SIZE + 3 * 4096
    known = counts.cells_of(client_key(1, 4, 1))
    counts.change(0, known, 8)
    assert counts.live(known, 1) >= 8
    strangers = [counts.live(counts.cells_of(client_key(1, 4, 5000 + n)), 1) for n in range(2000)]
    assert sum(count >= 3 for count in strangers) < 10
    counts.clear(0)
    assert os.fstat(counts.fileno()).st_blocks * 512 <= 2 * 4096


def test_new_connections_slide(counts: ClientCounts) -> None:
    cells = counts.cells_of(client_key(1, 4, 7))
    for row, now in ((0, 10.0), (0, 10.2), (1, 10.9), (2, 11.1)):
        counts.note_new(row, cells, now)
    assert counts.recent(cells, 3, 11.1) == pytest.approx(1 + 3 * 0.9)
    assert counts.recent(cells, 3, 11.99) == pytest.approx(1 + 3 * 0.01)
    assert counts.recent(cells, 3, 12.5) == pytest.approx(0.5)
    assert counts.recent(cells, 3, 14.0) == 0
    assert counts.recent(cells, 1, 11.0) == pytest.approx(2)


def test_a_count_of_new_ones_does_not_run_over(counts: ClientCounts) -> None:
    cells = counts.cells_of(1)
    for _ in range(MOST + 10):
        counts.note_new(0, cells, 1.5)
    assert counts.recent(cells, 1, 1.5) == MOST


def test_a_client_of_ipv6_is_its_64(counts: ClientCounts) -> None:
    base = 0x20010DB8 << 96
    assert client_key(1, 6, base + 1) == client_key(1, 6, base + (1 << 63))
    assert client_key(1, 6, base) != client_key(1, 6, base + (1 << 64))
    keys = [client_key(s, v, n) for s in (1, 2) for v, n in ((4, 5), (6, 5 << 64), (0, 0))]
    keys += [total_key(1), total_key(2)]
    assert len(set(keys)) == len(keys)


def test_neighbours_are_spread_by_every_hash_function() -> None:
    keys = [client_key(1, 4, number) for number in range(1000)]
    for _ in range(200):
        counts = ClientCounts(rows=1)
        for n in range(DEPTH):
            assert len({counts.cells_of(key)[n] for key in keys[::5]}) > 180
        counts.close()


def test_cells_are_spread_and_secret() -> None:
    one, other = ClientCounts(rows=1), ClientCounts(rows=1)
    keys = [client_key(1, 4, number) for number in range(1000)]
    assert [one.cells_of(key) for key in keys] != [other.cells_of(key) for key in keys]
    for n in range(DEPTH):
        cells = {one.cells_of(key)[n] for key in keys}
        assert len(cells) > 950
        assert all(n * WIDTH <= cell < (n + 1) * WIDTH for cell in cells)
    one.close()
    other.close()


def test_an_upgrade_keeps_it(counts: ClientCounts) -> None:
    cells = counts.cells_of(5)
    counts.change(2, cells, 3)
    again = ClientCounts(rows=4, fd=os.dup(counts.fileno()))
    assert again.cells_of(5) == cells
    assert again.live(cells, 4) == 3
    again.close()

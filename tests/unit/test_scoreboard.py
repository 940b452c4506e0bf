"""The shared table, over a real fork."""

from __future__ import annotations

import os
import time

import pytest

from epolld.scoreboard import NOT_ACCEPTING, ROWS, Column, Scoreboard


def in_child(function) -> None:
    """Run `function` in a forked process and wait for its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_a_child_writes_the_parent_and_siblings_read() -> None:
    board = Scoreboard(4)
    rows = [board.take_row(1000 + n) for n in range(2)]

    def worker(row: int) -> None:
        board.column(Column.LIVE)[row] = 100 + row
        board.column(Column.BALANCE)[row] = 100 + row
        board.column(Column.HEARTBEAT)[row] = 1 << 62  # a whole 64-bit word

    for row in rows:
        in_child(lambda row=row: worker(row))
    assert board.column(Column.LIVE)[:2].tolist() == [100, 101]
    assert board.column(Column.HEARTBEAT)[rows[1]] == 1 << 62

    def sibling() -> None:
        assert sorted(board.balance()) == [100, 101]

    in_child(sibling)


def test_a_row_taken_after_the_fork_is_seen_by_older_workers() -> None:
    board = Scoreboard(4)
    board.take_row(1)
    read, write = os.pipe()
    back_read, back_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os.write(back_write, str(board.balance()).encode())
        os._exit(0)
    row = board.take_row(2)
    board.column(Column.BALANCE)[row] = 7
    os.write(write, b"x")
    assert os.read(back_read, 100) == b"[7]"
    os.waitpid(pid, 0)
    for fd in (read, write, back_read, back_write):
        os.close(fd)


def test_rows_are_taken_freed_and_taken_again() -> None:
    board = Scoreboard(3)
    rows = [board.take_row(10 + n) for n in range(3)]
    assert sorted(rows) == [0, 1, 2]
    assert board.column(Column.PID).tolist() == [10, 11, 12]
    with pytest.raises(OverflowError, match="3 rows"):
        board.take_row(13)
    board.column(Column.LIVE)[rows[1]] = 9
    board.column(Column.BALANCE)[rows[1]] = 9
    board.clear(rows[1])
    assert board.column(Column.LIVE)[rows[1]] == 0
    assert board.take_row(13) == rows[1]
    assert board.balance() == []


def test_a_row_is_clean_when_it_is_taken() -> None:
    board = Scoreboard(1)
    board.column(Column.ACCEPTED)[0] = 5  # a late write of a killed worker
    row = board.take_row(1)
    assert board.column(Column.ACCEPTED)[row] == 0
    assert board.column(Column.BALANCE)[row] == NOT_ACCEPTING


def test_balance_leaves_out_who_does_not_stand() -> None:
    board = Scoreboard(4)
    for n, value in enumerate([5, NOT_ACCEPTING, 0]):
        board.column(Column.BALANCE)[board.take_row(n + 1)] = value
    assert sorted(board.balance()) == [0, 5]


def test_balance_leaves_out_who_is_silent() -> None:
    board = Scoreboard(4)
    now = time.monotonic_ns()
    for n, (value, beat) in enumerate([(5, now), (6, now - 10**10), (7, now - 10)]):
        row = board.take_row(n + 1)
        board.column(Column.BALANCE)[row] = value
        board.column(Column.HEARTBEAT)[row] = beat
    assert sorted(board.balance(now - 10**9)) == [5, 7]
    assert sorted(board.balance()) == [5, 6, 7]


def test_columns_do_not_overlap() -> None:
    board = Scoreboard()
    for column in Column:
        for row in (0, ROWS - 1):
            board.column(column)[row] = column * 10 + bool(row)
    for column in Column:
        assert board.column(column)[0] == column * 10
        assert board.column(column)[ROWS - 1] == column * 10 + 1

"""The shared table, over a real fork."""

from __future__ import annotations

import os
import time

import pytest

from epolld import causes, totals
from epolld.ledger import END_WORD, SERVICES, Count, Declared, Kind, MasterWord, ProcessWord
from epolld.scoreboard import NOT_ACCEPTING, ROWS, Column, ListenerFacts, Scoreboard


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


# -- what is counted ---------------------------------------------------------------------------


def count(board: Scoreboard, row: int, service: str, word: int, value: int) -> None:
    board.sheet(row).service(board.service_index(service))[word] = value


def test_a_buried_row_is_in_the_totals_of_its_slot() -> None:
    board = Scoreboard(4)
    board.enlist(["a", "b"], {"a", "b"})
    for value in (5, 7):
        row = board.take_row(1, slot=2, generation=1)
        count(board, row, "b", Count.ACCEPTED, value)
        count(board, row, "b", END_WORD["reset"], 1)
        count(board, row, "b", Count.LIVE, 3)
        board.bury(row, cpu=0.5)
        assert board.sheet(row).service(1)[Count.ACCEPTED] == 0
    totals = board.totals(2).service(board.service_index("b"))
    assert totals[Count.ACCEPTED] == 12
    assert totals[END_WORD["reset"]] == 2
    assert totals[Count.LIVE] == 0  # those are gone
    assert board.totals(2).process[ProcessWord.CPU] == 1_000_000
    assert board.slots() == 3


def test_the_sequence_tells_a_reader_that_numbers_are_moved() -> None:
    board = Scoreboard(2)
    before = board.sequence()
    with board.moving():
        assert board.sequence() % 2 == 1
    assert board.sequence() % 2 == 0
    assert board.sequence() != before


def test_services_beyond_the_last_place_share_it() -> None:
    board = Scoreboard(2)
    names = [f"s{n}" for n in range(SERVICES + 5)]
    board.enlist(names, names)
    assert board.service_index("s0") == 0
    assert board.service_index(names[-1]) == board.service_index("unheard") == SERVICES - 1
    assert board.service_names()[-1] == "other"


def test_a_new_service_takes_the_place_of_one_that_is_gone_and_counts_from_zero() -> None:
    board = Scoreboard(2)
    names = [f"s{n}" for n in range(SERVICES - 1)]
    board.enlist(names, names)
    row = board.take_row(1)
    count(board, row, "s3", Count.ACCEPTED, 5)
    board.bury(row)
    board.enlist(["new"], {*names, "new"} - {"s3"})
    assert board.service_index("new") == 3
    assert board.totals(0).service(3)[Count.ACCEPTED] == 0
    assert "s3" not in board.service_names()


def test_a_long_name_is_cut_between_characters() -> None:
    board = Scoreboard(1)
    board.publish_listeners([ListenerFacts("é" * 300, 1, 2)])
    assert board.listeners() == [ListenerFacts("é" * 120, 1, 2)]


def test_listeners_that_went_are_forgotten() -> None:
    board = Scoreboard(1)
    facts = [ListenerFacts(f"s{n} 127.0.0.1:{n}", n, 128) for n in range(3)]
    board.publish_listeners(facts)
    assert board.listeners() == facts
    board.publish_listeners(facts[1:])
    assert board.listeners() == facts[1:]


def test_application_counters_add_up_by_name_and_gauges_end() -> None:
    board = Scoreboard(2)
    orders, hot = Declared(Kind.COUNTER, "orders", "h"), Declared(Kind.GAUGE, "hot", "")
    for declared in ([orders, hot], [hot, orders]):  # the order may change with the program
        row = board.take_row(1)
        for place, metric in enumerate(declared):
            board.sheet(row).declare(place, metric)
            board.sheet(row).values[place] = 2.5
        board.bury(row)
    assert board.totals(0).declared() == [orders]
    assert board.totals(0).values[0] == 5.0


def test_what_is_no_metric_is_not_believed() -> None:
    board = Scoreboard(1)
    sheet = board.sheet(board.take_row(1))
    sheet.declare(0, Declared(Kind.COUNTER, 'x{y="', ""))
    assert sheet.declared() == []


def test_untouched_counters_take_no_memory() -> None:
    board = Scoreboard()
    blocks = os.fstat(board.fileno()).st_blocks * 512
    assert blocks < 200_000
    rows = [board.take_row(n + 1) for n in range(100)]
    count(board, rows[0], "x", Count.ACCEPTED, 1)
    used = os.fstat(board.fileno()).st_blocks * 512
    board.clear(rows[0])
    assert os.fstat(board.fileno()).st_blocks * 512 < used < blocks + 100_000


def test_other_causes_are_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Scoreboard(4)
    assert board.layout() == Scoreboard(4).layout()
    before = board.layout()
    monkeypatch.setattr(causes, "ENDS", (*causes.ENDS[::-1],))
    assert board.layout() != before


def test_totals_travel_by_name() -> None:
    board = Scoreboard(4)
    board.enlist(["a", "b"], ["a", "b"])
    dead = board.take_row(1, slot=1)
    count(board, dead, "b", Count.ACCEPTED, 5)
    board.bury(dead)
    alive = board.take_row(2, slot=1)
    count(board, alive, "b", Count.ACCEPTED, 2)
    count(board, alive, "b", Count.LIVE, 2)
    count(board, alive, "b", END_WORD["eof"], 1)
    board.master[MasterWord.UPGRADES] = 3
    saved, said = totals.save(board), totals.save_master(board)
    assert saved == {"b": {"1": {"ACCEPTED": 7, "end eof": 1}}}
    saved["b"]["1"]["end of another time"] = 9
    other = Scoreboard(8)
    other.enlist(["c"], ["c"])
    totals.restore(other, saved)
    totals.restore_master(other, {**said, "unheard": 1})
    words = other.totals(1).service(other.service_index("b"))
    assert (words[Count.ACCEPTED], words[END_WORD["eof"]], words[Count.LIVE]) == (7, 1, 0)
    assert other.slots() == 2
    assert other.master[MasterWord.UPGRADES] == 3

"""What the pool's machine has found, step by step; each was a fault once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_pool_machine import AnyDisturbance, configuration, settle_chance

from epolld.ledger import RESTART_WORD


@pytest.fixture(name="model")
def _model(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnyDisturbance]:
    """A daemon of one worker; in the end, all must be well."""
    settle_chance(monkeypatch)
    model = AnyDisturbance()
    model.start(configuration(1, 1, "a"), mortal=False, booted=True)
    try:
        yield model
        model.is_sound()
    finally:
        model.teardown()


def test_of_two_back_offs_of_a_slot_the_last_counts(model: AnyDisturbance) -> None:
    """A worker that is recycled and its successor die at once."""
    model.serves_many(0, False)
    model.all_sleep(1.2)
    assert len(model.pool) == 2
    model.all_die(0)
    assert not len(model.pool)  # nobody is started at once because the first had served


def test_who_is_killed_while_it_drains_is_not_replaced(model: AnyDisturbance) -> None:
    model.suspends()
    model.all_sleep(30.0)
    assert model.pool.scoreboard.master[RESTART_WORD["killed"]] == 0


def test_one_more_is_one_more_after_a_reload_with_fewer(model: AnyDisturbance) -> None:
    reload(model, 3)
    model.changes_count(False)
    model.changes_count(False)
    reload(model, 1)
    model.changes_count(True)  # which looks at what is wanted before and after


def reload(model: AnyDisturbance, count: int) -> None:
    """To so many workers."""
    model.edits(configuration(count, 1, "a"), False)
    model.hup()
    model.all_boot()
    model.calm(model.is_as_configured)

"""The words for ends and refusals."""

from __future__ import annotations

import re

import pytest

from epolld.causes import ENDS, OTHER, REFUSALS, TIMEOUTS


@pytest.mark.parametrize("causes", [ENDS, REFUSALS], ids=["ends", "refusals"])
def test_each_is_a_plain_word_named_once(causes: tuple[str, ...]) -> None:
    assert len(set(causes)) == len(causes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", cause) for cause in causes)


@pytest.mark.parametrize("causes", [ENDS, REFUSALS], ids=["ends", "refusals"])
def test_what_is_unknown_has_the_first_place(causes: tuple[str, ...]) -> None:
    assert causes[0] == OTHER


def test_timeouts_are_ends() -> None:
    assert "idle_timeout" in TIMEOUTS
    assert "eof" not in TIMEOUTS

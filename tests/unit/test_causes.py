"""The words for ends and refusals."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from epolld.causes import ENDS, OTHER, REFUSALS

PACKAGE = Path(__file__).parents[2] / "epolld"


@pytest.mark.parametrize("causes", [ENDS, REFUSALS], ids=["ends", "refusals"])
def test_each_is_a_plain_word_named_once(causes: tuple[str, ...]) -> None:
    assert len(set(causes)) == len(causes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", cause) for cause in causes)


@pytest.mark.parametrize("causes", [ENDS, REFUSALS], ids=["ends", "refusals"])
def test_what_is_unknown_has_the_first_place(causes: tuple[str, ...]) -> None:
    assert causes[0] == OTHER


SAYS_WHY = {"refuse", "lose", "time_out", "close_for", "on_refused"}


def causes_in_use() -> set[str]:
    """Every cause that the sources give to a call which takes one."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if "master" in path.parts:
            continue  # the control socket has refusals of its own
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in SAYS_WHY
                and node.args
                and isinstance(node.args[-1], ast.Constant)
                and isinstance(node.args[-1].value, str)
            ):
                found.add(node.args[-1].value)
    return found


def test_the_program_uses_no_other() -> None:
    used = causes_in_use()
    assert {"aborted", "full"} & used
    assert used <= {*ENDS, *REFUSALS}

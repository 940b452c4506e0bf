"""docs/operations.md has every message that asks for something, every metric, cause and command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from epolld import ctl
from epolld.causes import ENDS, REFUSALS, RESTARTS
from epolld.exporter import snapshot
from epolld.exporter.families import families
from epolld.scoreboard import ListenerFacts, Scoreboard

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
LOUD = {"warning", "error", "critical", "exception"}
PLACEHOLDER = re.compile(r"%(?:\.\d+)?[a-z]")


def section(title: str) -> str:
    """The text under one heading, up to the next of its rank."""
    start = PAGE.index(f"\n{title}\n")
    rank = title.split(" ")[0]
    end = PAGE.find(f"\n{rank} ", start + len(title) + 1)
    return PAGE[start : end if end > 0 else None]


def loud_messages() -> Iterator[tuple[str, str]]:
    """Where and what the sources log as a warning or worse: each message that is written there."""
    for path in sorted((ROOT / "epolld").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LOUD
                and re.search(r"log|Logger", ast.unparse(node.func.value))
                and isinstance(node.args[0], ast.Constant)
            ):
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield where, str(node.args[0].value).replace("\n", " ")


MESSAGES = sorted(set(loud_messages()))


def is_described(template: str) -> bool:
    """Whether the table has it, with `...` for each placeholder."""
    parts = PLACEHOLDER.split(template)
    if not any(re.search(r"[a-z]{3}", part) for part in parts):
        return True  # only what others say
    spans = re.findall(r"`([^`]+)`", section("## Messages that ask for something"))
    pattern = ".*?".join(re.escape(part.strip()) for part in parts if part.strip())
    return any(re.search(pattern, span) for span in spans)


def test_the_walk_sees_messages() -> None:
    assert len(MESSAGES) > 40
    assert not is_described("%s: a message that nobody has ever described")


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message[0])
def test_each_message_says_what_to_do(message: tuple[str, str]) -> None:
    assert is_described(message[1]), f"{message[0]}: {message[1]!r} is not in docs/operations.md"


def shown() -> set[str]:
    """The names of all metrics that there can be."""
    board = Scoreboard(1)
    board.enlist(["upper"], ["upper"])
    board.take_row(1)
    board.publish_listeners([ListenerFacts("upper 127.0.0.1:1", 0, 1)])
    found = families(snapshot.take(board), True, 1)
    return {sample.name for family in found for sample in family.samples}


def test_each_metric_is_described_and_no_other() -> None:
    rows = re.findall(r"^\| (`epolld_[^|]+) \|", section("## Figures"), re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert described == shown()


@pytest.mark.parametrize("causes", [ENDS, REFUSALS], ids=["ends", "refusals"])
def test_each_cause_is_described(causes: tuple[str, ...]) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("### Causes"), re.MULTILINE)
    assert set(causes) <= set(rows)
    assert set(rows) == {*ENDS, *REFUSALS}


def test_each_cause_of_a_restart_is_named() -> None:
    (row,) = re.findall(r"^\| `epolld_worker_restarts_total`.*$", PAGE, re.MULTILINE)
    assert all(cause in row for cause in RESTARTS)


def test_each_command_is_described() -> None:
    (commands,) = [
        action.choices for action in ctl.make_parser()._actions if isinstance(action.choices, dict)
    ]
    words = re.findall(r"`([a-z-]+)", section("## epolldctl"))
    assert set(commands) <= set(words)
    assert len(commands) > 10

"""docs/reliability.md names tests that exist, and all of the fault suite."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)


def test_the_tests_exist() -> None:
    assert len(NAMED) > 40
    for path, function in NAMED:
        assert (ROOT / path).exists(), path
        text = (ROOT / path).read_text()
        assert not function or f"def {function}(" in text, f"{path}::{function}"


def test_each_fault_is_on_the_page() -> None:
    for path in (ROOT / "tests" / "faults").glob("test_*.py"):
        if path.name != "test_accounts.py":
            assert (f"tests/faults/{path.name}", "") in NAMED, path.name


def test_each_row_names_a_test() -> None:
    """Of the tables that have a column for it; others hold figures."""
    tables = [block.splitlines() for block in PAGE.split("\n\n") if block.startswith("| ")]
    of_tests = [table for table in tables if table[0].endswith("| test |")]
    assert len(of_tests) >= 4
    for row in (row for table in of_tests for row in table[2:]):
        assert "`tests/" in row, row

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
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "| --- " not in line]
    for row in rows:
        assert row.endswith("| test |") or "`tests/" in row, row

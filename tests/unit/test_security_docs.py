"""docs/security.md: each test that it names exists, and each table row names one."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_the_tests_exist(file: str) -> None:
    tree = ast.parse((TESTS / file).read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    missing = [name for each, name in NAMED if each == file and name not in defined]
    assert not missing, f"not in tests/{file}"


def test_each_attack_has_a_test() -> None:
    for section in PAGE.split("\n## ")[1:]:
        rows = [line for line in section.splitlines() if line.startswith("| ")]
        if not rows or not rows[0].rstrip().endswith("| test |"):
            continue
        for row in rows[2:]:
            assert "::" in row.split("|")[3], row

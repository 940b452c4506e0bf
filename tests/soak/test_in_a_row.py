"""A form of the million connections in a row: `scripts/soak --in-a-row` has all of them."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "arguments", [["--connections", "100000"], ["--connections", "20000", "--addresses"]]
)
def test_memory_is_flat(arguments: list[str]) -> None:
    program = Path(__file__).with_name("in_a_row.py")
    done = subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: flat" in done.stdout

"""A minute of the soak; `scripts/soak --minutes N` takes as long as one likes."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_minute(tmp_path: Path) -> None:
    program = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, str(program), "--minutes", "1", "--report", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: nothing was lost" in (tmp_path / "report.txt").read_text()
    assert "<polyline" in (tmp_path / "soak.svg").read_text()

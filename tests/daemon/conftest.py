"""Runs the command."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import COMMAND


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command to its end."""

    def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            cwd=tmp_path,
            check=False,
            **settings,
        )

    return run

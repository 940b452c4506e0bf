"""The fixtures of the shipped plugin under the names that these tests use."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import COMMAND, Config, Daemon


@pytest.fixture
def make_daemon(
    make_epolld_daemon: Callable[[Config | str], Daemon],
) -> Callable[[Config | str], Daemon]:
    """Makes daemons that are not started yet; each is stopped and judged at the end."""
    return make_epolld_daemon


@pytest.fixture
def daemon(make_daemon: Callable[[Config], Daemon]) -> Callable[..., Daemon]:
    """Starts a daemon with these sections of the configuration, and waits until it is ready."""

    def start(*arguments: str, **config: Any) -> Daemon:
        return make_daemon(config).start(*arguments)

    return start


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

"""Puts the black-box harness on the import path, and its fixtures under their usual names."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "daemon"))

from harness import Config, Daemon


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

"""Puts this folder on the import path, so that all tests can `import needs`, sees to it that the
project's own pytest plugin is there, gives its daemons the names that our tests use, and leaves out
what takes long unless it is asked for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from epolld.testing import Config, Daemon

# A shell's background job ignores these, and what it starts inherits that: no Ctrl-C, no HUP.
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("epolld", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("epolld")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`, or EPOLLD_LONG=1: run the tests that are marked `long`, too."""
    parser.addoption("--long", action="store_true", help="run the long tests, too")


def pytest_configure(config: pytest.Config) -> None:
    """In an environment that was set up before the plugin had an entry point, load it by name."""
    if not config.pluginmanager.has_plugin("epolld"):
        config.pluginmanager.import_plugin("epolld.testing.plugin")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the long ones, and say how to run them."""
    if config.getoption("--long") or os.environ.get("EPOLLD_LONG", "0") not in ("", "0"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long: run with --long or EPOLLD_LONG=1"))


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

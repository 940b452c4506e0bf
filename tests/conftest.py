"""Puts this folder on the import path, so that all tests can `import needs`, and sees to it that
the project's own pytest plugin is there."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """In an environment that was set up before the plugin had an entry point, load it by name."""
    if not config.pluginmanager.has_plugin("epolld"):
        config.pluginmanager.import_plugin("epolld.testing.plugin")

"""Puts the examples on the import path, and runs the daemon with their configurations."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from epolld.testing import Daemon

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))


@pytest.fixture
def serve(epolld_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """Runs the daemon with an example's YAML file, on free ports; `options` are added to the
    application's, or to the first service's."""

    def serve(name: str, **options: Any) -> Daemon:
        config = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
        for service in config["services"]:
            service["bind"] = "127.0.0.1:0"
        if options:
            whose = config.get("application", config["services"][0])
            whose["options"] = {**whose.get("options", {}), **options}
        return epolld_daemon(config)

    return serve

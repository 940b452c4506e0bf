"""The shipped testing kit, with the short cuts that only our own tests want."""

from pathlib import Path
from typing import Any

from epolld.testing import Client, Config, Daemon, free_port
from epolld.testing.client import TIMEOUT
from epolld.testing.daemon import COMMAND

__all__ = ["COMMAND", "HERE", "TIMEOUT", "Client", "Config", "Daemon", "free_port", "upper_at"]

HERE = Path(__file__).parent


def upper_at(bind: Any = "127.0.0.1:0", **settings: Any) -> Config:
    """A service of the configuration."""
    return {"name": "upper", "bind": bind, **settings}

"""The testing kit: a protocol driven in memory, and the real daemon run for a test.

`epolld.testing.plugin` makes both into pytest fixtures; pip installs it as a plugin. Nothing of
the daemon imports this package.
"""

from __future__ import annotations

from epolld.testing.client import Client, free_port
from epolld.testing.daemon import Config, Daemon
from epolld.testing.memory import Peer, connect

__all__ = ["Client", "Config", "Daemon", "Peer", "connect", "free_port"]

"""epolld: a pre-fork server daemon for every protocol that is not HTTP.

from epolld import Protocol

class Upper(Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epolld.net.application import Application, WorkerContext
    from epolld.net.connlog import get_logger
    from epolld.net.lines import LineProtocol
    from epolld.net.prefixed import LengthPrefixedProtocol, NetstringProtocol
    from epolld.net.protocol import Protocol
    from epolld.net.transport import Transport
    from epolld.runtime.goodbye import draining

__version__ = "0.1.0.dev0"

__all__ = [
    "Application",
    "LengthPrefixedProtocol",
    "LineProtocol",
    "NetstringProtocol",
    "Protocol",
    "Transport",
    "WorkerContext",
    "__version__",
    "draining",
    "get_logger",
]

_HOMES = {
    "Application": "epolld.net.application",
    "LengthPrefixedProtocol": "epolld.net.prefixed",
    "LineProtocol": "epolld.net.lines",
    "NetstringProtocol": "epolld.net.prefixed",
    "Protocol": "epolld.net.protocol",
    "Transport": "epolld.net.transport",
    "WorkerContext": "epolld.net.application",
    "draining": "epolld.runtime.goodbye",
    "get_logger": "epolld.net.connlog",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `epolld --version` does not load the engine."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""epolld: a pre-fork server daemon for every protocol that is not HTTP.

from epolld import Protocol

class Upper(Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epolld.net.protocol import Protocol
    from epolld.net.transport import Transport
    from epolld.runtime.goodbye import draining

__version__ = "0.1.0.dev0"

__all__ = ["Protocol", "Transport", "__version__", "draining"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `epolld --version` does not load the engine."""
    if name == "Protocol":
        from epolld.net.protocol import Protocol

        return Protocol
    if name == "Transport":
        from epolld.net.transport import Transport

        return Transport
    if name == "draining":
        from epolld.runtime.goodbye import draining

        return draining
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A logger that knows its connection: every line names the service and the peer.

In the JSON format the facts are fields of their own, the connection's number among them.
"""

from __future__ import annotations

import logging
from typing import Any

from epolld.net import descriptor


class ConnectionLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds `service: peer: ` before each message, and the facts for machines."""

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        """As Logger.log, and so all others; `extra` of the call is kept."""
        if not self.isEnabledFor(level):
            return
        facts: Any = self.extra
        head = f"{facts['service']}: {facts['peer']}: "
        if args:  # then the whole is a format
            head = head.replace("%", "%%")
        kwargs["extra"] = {"epolld": facts, **(kwargs.get("extra") or {})}
        self.logger.log(level, head + str(msg), *args, **kwargs)


def get_logger(transport: Any, name: str = "epolld.connection") -> ConnectionLogger:
    """A logger for what happens on one connection; `name` is the logger's, for its level.

    `transport` may be a transport, a coroutine's writer, or anything else with
    `get_extra_info`. Keep it: each call makes a new one.
    """
    facts = {
        "service": transport.get_extra_info("service", "-"),
        "connection": transport.get_extra_info("connection_id", "-"),
        "peer": descriptor.describe_peer(transport.get_extra_info("peername")),
    }
    return ConnectionLogger(logging.getLogger(name), facts)

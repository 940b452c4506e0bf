"""What a set of workers is made from, and what one of them is told at its birth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from epolld.channel import Channel
from epolld.clientcounts import ClientCounts
from epolld.config import Config, Loaded
from epolld.host.listeners import Listener
from epolld.host.privileges import Identity
from epolld.scoreboard import Scoreboard

if TYPE_CHECKING:
    from epolld.errors import Problem
    from epolld.host.certificates import ServerTls


class Generation(msgspec.Struct, frozen=True, eq=False):
    """A configuration in force: replaced as a whole at a reload, never changed."""

    number: int  # from 1
    loaded: Loaded
    listeners: tuple[Listener, ...]
    identity: Identity | None  # whom the workers become; None: they stay who they are
    tls: dict[str, Any] = {}  # ServerTls, by the name of the service

    @property
    def config(self) -> Config:
        """The settings."""
        return self.loaded.config

    def counts_clients(self) -> bool:
        """Whether a service has limits for which all workers count together."""
        return any(
            limits.connections or limits.client_connections or limits.client_rate
            for limits in (service.limits for service in self.config.services)
        )

    def expiring(self) -> list[Problem]:
        """A warning for each certificate that has ended, or that ends soon."""
        if not self.tls:
            return []
        from epolld.host.certificates import expiring

        return expiring(self.loaded, self.tls)


def open_tls(loaded: Loaded) -> dict[str, ServerTls]:
    """Read all certificates and keys; raises ConfigError with the places of those that are bad.

    OpenSSL and what belongs to it are imported only where a service speaks TLS.
    """
    if not any(service.tls for service in loaded.config.services):
        return {}
    from epolld.host.certificates import open_contexts

    return open_contexts(loaded)


class Assignment(msgspec.Struct, frozen=True, eq=False):
    """What the master hands a new worker through the fork."""

    slot: int  # the worker's stable number, from 0
    row: int  # its row in the scoreboard
    generation: Generation
    channel: Channel
    scoreboard: Scoreboard
    clients: ClientCounts | None = None  # where its generation counts clients


# A worker's life; returns its exit status. Passed in by cli.py, so that the master knows none.
WorkerMain = Callable[[Assignment], int]

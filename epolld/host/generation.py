"""What a set of workers is made from, and what one of them is told at its birth."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from epolld.channel import Channel
from epolld.config import Config, Loaded
from epolld.host.listeners import Listener
from epolld.host.privileges import Identity
from epolld.scoreboard import Scoreboard


class Generation(msgspec.Struct, frozen=True, eq=False):
    """A configuration in force: replaced as a whole at a reload, never changed."""

    number: int  # from 1
    loaded: Loaded
    listeners: tuple[Listener, ...]
    identity: Identity | None  # whom the workers become; None: they stay who they are

    @property
    def config(self) -> Config:
        """The settings."""
        return self.loaded.config


class Assignment(msgspec.Struct, frozen=True, eq=False):
    """What the master hands a new worker through the fork."""

    slot: int  # the worker's stable number, from 0
    row: int  # its row in the scoreboard
    generation: Generation
    channel: Channel
    scoreboard: Scoreboard


# A worker's life; returns its exit status. Passed in by cli.py, so that the master knows none.
WorkerMain = Callable[[Assignment], int]

"""From the settings of a service to what enforces them, where there is something to enforce."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from epolld.config import Config
from epolld.config import Service as Settings
from epolld.host.generation import Assignment
from epolld.net.loop import EventLoop
from epolld.net.service import Service

if TYPE_CHECKING:
    from epolld.net.acceptor import Opener
    from epolld.net.buffered import Buffered
    from epolld.net.counting import Counting

log = logging.getLogger("epolld.worker")


class Limits:
    """Makes guards and entrances for the services of one worker; imports what they need."""

    def __init__(self, loop: EventLoop, assignment: Assignment) -> None:
        self._loop = loop
        self._assignment = assignment
        self._buffered = _buffered(assignment.slot, assignment.generation.config)

    def protect(self, service: Service, settings: Settings) -> Opener:
        """Have the limits of `settings` enforced; returns where acceptors are to open to."""
        counting = self._counting(settings)
        limits = settings.limits
        values = (
            settings.first_byte_timeout,
            settings.message_timeout,
            settings.write_timeout,
            settings.max_age,
            limits.write_buffer,
            limits.write_buffer_soft,
        )
        if any(values) or counting is not None or self._buffered is not None:
            from epolld.net import guard

            watched = guard.Settings(*values, limits.write_buffer_soft_time)
            service.guard = guard.Guard(self._loop, watched, counting, self._buffered)
        if not (settings.access or settings.proxy_protocol == "required" or counting is not None):
            return service
        from epolld.net.entrance import Entrance

        return Entrance(
            self._loop,
            service,
            [
                (rule.allow is not None, rule.allow or rule.deny)  # type: ignore[misc]
                for rule in settings.access
            ],
            counting,
            (limits.refusal or "").encode(),
            settings.proxy_trusted if settings.proxy_protocol == "required" else None,
            settings.proxy_timeout,
        )

    def _counting(self, settings: Settings) -> Counting | None:
        limits, table = settings.limits, self._assignment.clients
        if table is None or not (
            limits.connections or limits.client_connections or limits.client_rate
        ):
            return None
        from epolld.net.counting import Counting

        return Counting(
            table,
            self._assignment.row,
            self._assignment.scoreboard.top,
            time.monotonic,
            settings.name,
            limits.connections,
            limits.client_connections,
            limits.client_rate,
        )


def _buffered(slot: int, config: Config) -> Buffered | None:
    limit = config.workers.max_buffered
    if not limit:
        return None
    from epolld.net.buffered import Buffered

    def held(total: int) -> None:
        log.warning(
            "worker %d: %d bytes wait to be sent, near max_buffered (%d): reading no more from"
            " those who do not take them",
            slot,
            total,
            limit,
        )

    def released(total: int) -> None:
        log.info("worker %d: only %d bytes wait to be sent now, reading on", slot, total)

    return Buffered(limit, held, released)

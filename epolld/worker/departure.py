"""How connections leave a worker: to other workers, with a goodbye, or because time is over.

Knows when the last of them is gone, and stops the loop then; when it begins, the worker says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from epolld.net.farewell import Farewell
from epolld.net.handoff import Donor
from epolld.net.linger import Linger
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.transport import Transport
from epolld.worker.admission import Admission
from epolld.worker.runtimes import Runtimes

log = logging.getLogger("epolld.worker")

LAST_WORDS = 1.0  # seconds of graceful_timeout left for ending what has not ended by itself
LAST_LOOK = 0.05  # seconds between two looks whether the last descriptor is closed


class Departure:
    """The ways out of one worker."""

    def __init__(
        self,
        loop: EventLoop,
        slot: int,
        live: Sequence[int],
        services: list[Service],
        admission: Admission,
        runtimes: Runtimes,
    ) -> None:
        self._loop = loop
        self._slot = slot
        self._live = live  # connections of every worker, by row: the scoreboard's column
        self._services = services
        self._admission = admission
        self._runtimes = runtimes
        self._donor: Donor | None = None  # once connections move because the worker leaves
        self._farewell = Farewell(loop, 0.0)
        self._began = float("inf")  # in the loop's time
        self._deadline = 0.0  # by the monotonic clock

    def begin(self, patience: float, spread: float) -> None:
        """Have `patience` seconds for all to leave, and take `spread` of them for the goodbyes."""
        self._began = self._loop.now
        self._farewell = Farewell(self._loop, spread)
        self._deadline = time.monotonic() + patience
        last_words = min(LAST_WORDS, patience / 2)
        self._loop.call_later(patience - last_words, lambda: self._end_all(last_words))
        self._loop.call_later(patience, self._runtimes.stop)
        self._stop_when_done()

    def send_away(self, movable: Collection[str], heirs: Mapping[int, int]) -> None:
        """Connections of the services in `movable` go to the heirs, if there are any, all others
        are told goodbye; may be called again with other heirs.

        `heirs` maps the rows of workers to descriptors towards them.
        """
        moving = [service for service in self._services if heirs and service.name in movable]
        for service in self._services:
            if service not in moving:
                for transport in service.transports:
                    self._farewell.add(transport)  # harmless a second time
        if self._donor is not None and not self._donor.is_done():
            self._donor.add_heirs(heirs, movable)
        elif moving:
            self._donor = self._give(moving, heirs, self._farewell.add)

    def share(self, count: int, heirs: Mapping[int, int]) -> None:
        """Give `count` connections away, while the worker stays."""
        movable = [service for service in self._services if service.tls is None]
        self._give(movable, heirs, lambda _transport: None, count)

    def send_latecomers_away(self) -> None:
        """Those whose PROXY header came when all others were on the move already."""
        for service in self._services:
            for transport in service.transports:
                if transport.opened >= self._began:
                    self._farewell.add(transport)

    def end_now(self) -> None:
        """Close all connections, with what the kernel still takes."""
        self._end_all(0)
        self._loop.call_later(LAST_LOOK, self._runtimes.stop)

    def time_left(self) -> float:
        """Seconds for the last words of what is no connection any more."""
        return min(max(LAST_LOOK, self._deadline - time.monotonic()), LAST_WORDS)

    def _give(
        self,
        services: list[Service],
        heirs: Mapping[int, int],
        on_stuck: Callable[[Transport], object],
        limit: int | None = None,
    ) -> Donor:
        """Begin to hand connections over."""
        begin = time.monotonic()

        def done(moved: int) -> None:
            took = (time.monotonic() - begin) * 1000
            log.info("worker %d: %d connections moved in %.0f ms", self._slot, moved, took)

        donor = Donor(self._loop, lambda row: self._live[row], on_stuck, done)
        donor.add_heirs(heirs, [service.name for service in services])
        donor.give(services, limit)
        return donor

    def _end_all(self, patience: float) -> None:
        """Time is over: end every connection, and wait for as long as a goodbye takes."""
        gently = patience > 0
        live = self._admission.live
        if live:
            log.info("worker %d: closing the last %d connections", self._slot, live)
        if gently and self._donor is not None:
            for transport in self._donor.not_moved():
                transport.tell_draining()
        for service in self._services:
            service.end_all(patience / 2, gently)
        self._stop_when_done()

    def _stop_when_done(self) -> None:
        """Stop the loop once no connection is left, no handler that still works, and no socket
        that lingers for its peer."""
        if (
            self._admission.live
            or any(service.is_unfinished() for service in self._services)
            or any(isinstance(watcher, Linger) for watcher in self._loop.watchers())
        ):
            self._loop.call_later(LAST_LOOK, self._stop_when_done)
        else:
            self._runtimes.stop()

"""What a worker counts, into the scoreboard, once a second.

The services keep plain numbers; here they are added up and written where the exporter and the
master read them. Nothing of it is on the way of a message: what live connections have sent and
received is gathered in one pass over them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from epolld.causes import OTHER
from epolld.ledger import END_WORD, REFUSAL_WORD, USED_WORDS, Count
from epolld.net.loop import EventLoop
from epolld.net.service import MOVED, Service
from epolld.net.transport import Transport
from epolld.scoreboard import Column, Scoreboard

# The part of a processor's time that sweeps may take: with very many connections they are rarer.
# About 0.17 µs a connection, so up to 6,000 are swept every second and 50,000 every nine.
SWEEP_SHARE = 0.001

LAG_TICKS = 60  # after so many ticks, or up to twice as many, the greatest lag is forgotten


class Counting:
    """The counters of one worker."""

    def __init__(self, loop: EventLoop, scoreboard: Scoreboard, row: int) -> None:
        self._loop = loop
        self._scoreboard = scoreboard
        self._row = row
        self._sheet = scoreboard.sheet(row)
        self._services: list[tuple[Service, int]] = []  # with the index of their counters
        self._due = 0.0  # when the tick ought to come, in seconds of CLOCK_MONOTONIC
        self._most = [0, 0]  # lag: of the LAG_TICKS before, and of these
        self._ticks = 0
        self._rest = 0.0  # seconds until the next sweep

    def add(self, service: Service) -> None:
        """Count for this service, too."""
        self._services.append((service, self._scoreboard.service_index(service.name)))

    def tick(self, now: float, period: float) -> None:
        """Publish; the next call shall come in `period` seconds of the loop."""
        if self._due:
            self._measure_lag(now - self._due)
        self._due = self._loop.now + period
        self._rest -= period
        if self._rest > 0:
            self.publish(sweep=False)
            return
        begin = time.thread_time()  # what it costs us: others may run meanwhile
        self.publish()
        self._rest = (time.thread_time() - begin) / SWEEP_SHARE

    def _sweep(self) -> dict[Service, list[int]]:
        """What the live connections of each service have received and sent."""
        sums = {service: [0, 0] for service, _ in self._services}
        for watcher in self._loop.watchers():
            if isinstance(watcher, Transport):
                found = sums[watcher.service]
                found[0] += watcher.bytes_in
                found[1] += watcher.bytes_out
        for service, found in sums.items():
            for connection in service.in_threads():
                found[0] += connection.bytes_in
                found[1] += connection.bytes_out
        return sums

    def publish(self, sweep: bool = True) -> None:
        """Write all that is counted; the bytes only with a sweep over the connections."""
        bytes_by_service = self._sweep() if sweep else None
        sums: dict[int, list[int]] = {}
        for service, index in self._services:  # which is one and the same for very many services
            numbers = sums.setdefault(index, [0] * USED_WORDS)
            numbers[Count.LIVE] += service.live
            numbers[Count.ACCEPTED] += service.accepted
            if bytes_by_service is not None:
                received, sent = bytes_by_service[service]
                numbers[Count.BYTES_IN] += service.bytes_in + received
                numbers[Count.BYTES_OUT] += service.bytes_out + sent
            numbers[Count.MOVED_IN] += service.adopted
            numbers[Count.MOVED_OUT] += service.closed.get(MOVED, 0)
            _add(numbers, service.closed, END_WORD)
            _add(numbers, service.refused, REFUSAL_WORD)
        for index, numbers in sums.items():
            words = self._sheet.service(index)
            words[Count.LIVE] = numbers[Count.LIVE]
            for word in range(Count.LIVE + 1, USED_WORDS):
                # A connection that is just ending is in neither sum: never fall.
                if numbers[word] > words[word]:
                    words[word] = numbers[word]

    def _measure_lag(self, late: float) -> None:
        lag = max(0, int(late * 1e9))
        self._ticks += 1
        if self._ticks % LAG_TICKS == 0:
            self._most = [self._most[1], 0]
        self._most[1] = max(self._most[1], lag)
        self._scoreboard.column(Column.LAG)[self._row] = lag
        self._scoreboard.column(Column.LAG_MAX)[self._row] = max(self._most)


def _add(numbers: list[int], counts: Mapping[str, int], words: Mapping[str, int]) -> None:
    for cause, count in counts.items():
        if cause != MOVED:
            numbers[words.get(cause, words[OTHER])] += count

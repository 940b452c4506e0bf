"""The limits of a service on live connections, of each client and of all, and on new ones.

Joins the table in which all workers count (clientcounts.py) to one service of one worker. Who
comes is counted first and then judged, so of two workers that do so at one time both see both:
a limit is never exceeded, but just below it both may say no.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from epolld.clientcounts import ClientCounts, client_key, total_key
from epolld.networks import UNIX, Client, client_of


class Counting:
    """Counts the connections of a service in a worker's row, and says who is too many.

    `rows` tells how many rows of the table are in use, `clock` the time in seconds (monotonic,
    the same for all workers). A limit of 0 is none.
    """

    def __init__(
        self,
        table: ClientCounts,
        row: int,
        rows: Callable[[], int],
        clock: Callable[[], float],
        service: str,
        connections: int,
        client_connections: int,
        client_rate: int,
    ) -> None:
        self._table = table
        self._row = row
        self._rows = rows
        self._clock = clock
        self._service = zlib.crc32(service.encode())  # the same over reloads
        self._connections = connections
        self._client_connections = client_connections
        self._client_rate = client_rate
        self._total_cells = table.cells_of(total_key(self._service))

    def come(self, client: Client) -> str:
        """Count a new connection; the cause if it is too many, and then it is not counted."""
        table, rows = self._table, self._rows()
        limited = client.version != UNIX
        cells = self._cells(client)
        if limited and self._client_rate:
            now = self._clock()
            table.note_new(self._row, cells, now)  # refused ones, too: who insists, waits longer
            if table.recent(cells, rows, now) > self._client_rate:
                return "client_rate"
        self._change(cells, +1)
        if self._connections and table.live(self._total_cells, rows) > self._connections:
            cause = "service_connections"
        elif (
            limited
            and self._client_connections
            and table.live(cells, rows) > self._client_connections
        ):
            cause = "client_connections"
        else:
            return ""
        self._change(cells, -1)
        return cause

    def arrive(self, peer: Any) -> None:
        """Count a connection that has moved here; it was judged when it came."""
        self._change(self._cells(client_of(peer)), +1)

    def leave(self, peer: Any) -> None:
        """A connection has ended here or moved away."""
        self._change(self._cells(client_of(peer)), -1)

    def _cells(self, client: Client) -> list[int]:
        return self._table.cells_of(client_key(self._service, *client))

    def _change(self, cells: list[int], by: int) -> None:
        if self._client_connections:
            self._table.change(self._row, cells, by)
        if self._connections:
            self._table.change(self._row, self._total_cells, by)

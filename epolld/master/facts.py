"""What the master says of itself in the scoreboard, for the exporter.

Everything here survives an upgrade in place as the scoreboard does.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from epolld.causes import OTHER
from epolld.config import METRICS
from epolld.host.listeners import Listener
from epolld.ledger import CERTIFICATE_ENDS, RESTART_WORD, SERVICES, MasterState, MasterWord
from epolld.master.pool import Pool, WorkerHandle
from epolld.scoreboard import ListenerFacts

if TYPE_CHECKING:
    from epolld.host.certificates import ServerTls

# struct tcp_info begins with eight bytes and four words; of a listening socket the next two are
# how many connections wait to be accepted and how many may (net/ipv4/tcp.c, tcp_get_info).
TCP_INFO = struct.Struct("=24xII")


class Facts:
    """The master's words."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool  # whose scoreboard may become another one

    def _words(self) -> memoryview:
        return self._pool.scoreboard.master

    def started(self) -> None:
        """The daemon begins, or goes on as another program."""
        if not self._words()[MasterWord.STARTED]:
            self._words()[MasterWord.STARTED] = int(time.time())

    def say(self, state: MasterState, generation: int, wanted: int) -> None:
        """How it stands."""
        words = self._words()
        words[MasterWord.STATE] = state
        words[MasterWord.GENERATION] = generation
        words[MasterWord.WORKERS_WANTED] = wanted

    def reload_ended(self, done: bool) -> None:
        """A reload worked, or changed nothing."""
        words = self._words()
        words[MasterWord.RELOADS_DONE if done else MasterWord.RELOADS_FAILED] += 1
        words[MasterWord.LAST_RELOAD_DONE] = done
        words[MasterWord.LAST_RELOAD] = int(time.time())

    def upgraded(self) -> None:
        """This program has taken over from another."""
        self._words()[MasterWord.UPGRADES] += 1

    def restarted(self, cause: str) -> None:
        """A worker has to be replaced; `cause` is one of causes.RESTARTS."""
        self._words()[RESTART_WORD.get(cause, RESTART_WORD[OTHER])] += 1

    def exporter_restarted(self) -> None:
        """The exporter has to be replaced."""
        self._words()[MasterWord.EXPORTER_RESTARTS] += 1

    def say_certificates(self, tls: dict[str, ServerTls]) -> None:
        """When the certificates of the services end."""
        words = self._words()
        names = self._pool.scoreboard.service_names()
        for index in range(SERVICES):
            service = tls.get(names[index]) if index < len(names) else None
            words[CERTIFICATE_ENDS + index] = 0 if service is None else service.ends_first

    def look_at_listeners(self, listeners: Iterable[Listener]) -> None:
        """How full the accept queues are."""
        found = []
        for listener in listeners:
            queue = accept_queue(listener.sock)
            if queue is not None and listener.service.name != METRICS:
                found.append(ListenerFacts(f"{listener.service.name} {listener}", *queue))
        self._pool.scoreboard.publish_listeners(found)


def accept_queue(sock: socket.socket) -> tuple[int, int] | None:
    """How many clients wait in a listening socket, and how many may; None but for TCP."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
        waiting, limit = TCP_INFO.unpack(info)
    except (OSError, struct.error):
        return None
    return waiting, limit


def restart_cause(worker: WorkerHandle, how: str) -> str:
    """Why a worker that was to go on has ended; `how` as the pool says it."""
    if worker.aborted:
        return "stuck"
    if worker.failure is not None:
        return "boot_failed"
    if worker.killed_for:
        return "killed"
    return "signal" if how.startswith("killed by") else "exit"

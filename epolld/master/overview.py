"""What the master knows of itself, its workers and its services, as JSON-able facts.

Reads the scoreboard and /proc; asks nobody, so it costs the workers nothing.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Any

from epolld import __version__
from epolld.config import worker_count
from epolld.host.generation import Generation
from epolld.host.listeners import Listener
from epolld.master.pool import Pool, State, WorkerHandle
from epolld.scoreboard import NOT_ACCEPTING, Column

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

# struct tcp_info, as far as it matters: of a listening socket tcpi_unacked (the 7th of the 32-bit
# words after the first 8 bytes) is how many clients wait to be accepted, tcpi_sacked how many may.
TCP_INFO_WORDS = struct.Struct("8x7I")
UNACKED, SACKED = 4, 5

# Columns of the scoreboard that are told under a name and in a unit of their own.
KNOWN = {
    Column.PID,
    Column.HEARTBEAT,
    Column.LIVE,
    Column.ACCEPTED,
    Column.BALANCE,
    Column.SLOT,
    Column.GENERATION,
    Column.STATE,
    Column.LAG,
    Column.LAG_MAX,
}


def process_facts(pid: int) -> dict[str, Any]:
    """CPU time in seconds, memory in bytes, open descriptors; {} of a process that has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return {}
    return {
        "cpu": (int(fields[11]) + int(fields[12])) / TICKS,
        "memory": int(fields[21]) * PAGE,
        "process_state": fields[0].decode(),
    }


def uptime(pid: int) -> float:
    """Seconds since a process began; 0 if unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            start = int(file.read().rpartition(b")")[2].split()[19]) / TICKS
    except (OSError, ValueError, IndexError):
        return 0.0
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - start, 2)


def master_facts() -> dict[str, Any]:
    """The master itself."""
    pid = os.getpid()
    return {
        "version": __version__,
        "pid": pid,
        "uptime": uptime(pid),
        **{k: v for k, v in process_facts(pid).items() if k != "process_state"},
    }


def generation_facts(generation: Generation, wanted: int) -> dict[str, Any]:
    """The configuration in force, in numbers."""
    return {
        "generation": generation.number,
        "workers_wanted": wanted,
        "workers_configured": worker_count(generation.config.workers),
    }


def worker_facts(pool: Pool, worker: WorkerHandle, now: float) -> dict[str, Any]:
    """One worker process."""
    board = pool.scoreboard
    row = worker.row
    facts = {
        "worker": worker.slot,
        "pid": worker.pid,
        "generation": worker.generation.number,
        "state": worker.state.value,
        "age": round(now - worker.born, 2),
        "silent": round(worker.silence.seconds, 2),
        "connections": board.column(Column.LIVE)[row],
        "accepted": board.column(Column.ACCEPTED)[row],
        "lag": board.column(Column.LAG)[row] / 1e9,
        "lag_max": board.column(Column.LAG_MAX)[row] / 1e9,
        "accepting": board.column(Column.BALANCE)[row] != NOT_ACCEPTING,
        **process_facts(worker.pid),
    }
    for column in Column:
        if column not in KNOWN:
            facts.setdefault(column.name.lower(), board.column(column)[row])
    return facts


def connections(pool: Pool) -> int:
    """Live connections, of all generations."""
    return sum(pool.scoreboard.column(Column.LIVE))


def ready_workers(pool: Pool, generation: Generation) -> int:
    """How many of the generation in force serve."""
    return len(pool.of(generation, State.READY))


def service_facts(generation: Generation) -> list[dict[str, Any]]:
    """What is served, and where."""
    return [
        {
            "service": service.name,
            "protocol": service.protocol,
            "listeners": [
                _listener_facts(each) for each in generation.listeners if each.service is service
            ],
        }
        for service in generation.config.services
    ]


def _listener_facts(listener: Listener) -> dict[str, Any]:
    """Where it listens, how many clients wait in its queue, and how many may."""
    waiting, most = _queue(listener.sock)
    return {"address": str(listener), "waiting": waiting, "backlog": most}


def _queue(sock: socket.socket) -> tuple[int | None, int | None]:
    """Of a TCP listener: clients that wait, and how many may; None where the kernel tells none."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None, None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        found = TCP_INFO_WORDS.unpack_from(info)
    except (OSError, struct.error):
        return None, None
    return found[UNACKED], found[SACKED]

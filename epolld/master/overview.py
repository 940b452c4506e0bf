"""What the master knows of itself, its workers and its services, as JSON-able facts.

Reads the scoreboard and /proc; asks nobody, so it costs the workers nothing.
"""

from __future__ import annotations

import os
import time
from typing import Any

from epolld import __version__
from epolld.config import worker_count
from epolld.host import procstat
from epolld.host.generation import Generation
from epolld.host.listeners import Listener
from epolld.ledger import END_WORD, REFUSAL_WORD, Count
from epolld.master.facts import accept_queue
from epolld.master.pool import Pool, State, WorkerHandle
from epolld.scoreboard import NOT_ACCEPTING, Column, Scoreboard


def master_facts() -> dict[str, Any]:
    """The master itself. Uptime and CPU time in seconds, memory in bytes."""
    facts: dict[str, Any] = {"version": __version__, "pid": os.getpid(), "uptime": 0.0}
    stat = procstat.read(os.getpid())
    if stat is not None:
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - stat.began
        facts |= {"uptime": round(age, 2), "cpu": stat.cpu, "memory": stat.resident}
    return facts


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
    return {
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
        "bytes_in": sum(_of_services(board, row, Count.BYTES_IN)),
        "bytes_out": sum(_of_services(board, row, Count.BYTES_OUT)),
        "accepting": board.column(Column.BALANCE)[row] != NOT_ACCEPTING,
        **_process_facts(worker.pid),
    }


def _process_facts(pid: int) -> dict[str, Any]:
    """CPU time in seconds, memory in bytes; {} of a process that has ended."""
    stat = procstat.read(pid)
    if stat is None:
        return {}
    return {"cpu": stat.cpu, "memory": stat.resident, "process_state": stat.state}


def connections(pool: Pool) -> int:
    """Live connections, of all generations."""
    return sum(pool.scoreboard.column(Column.LIVE))


def ready_workers(pool: Pool, generation: Generation) -> int:
    """How many of the generation in force serve."""
    return len(pool.of(generation, State.READY))


def _of_services(board: Scoreboard, row: int, count: Count) -> list[int]:
    """What a worker has counted, service by service."""
    sheet = board.sheet(row)
    return [sheet.service(index)[count] for index in range(len(board.service_names()))]


def service_facts(pool: Pool, generation: Generation) -> list[dict[str, Any]]:
    """What is served, where, and what came of it since the daemon began."""
    return [
        {
            "service": service.name,
            "protocol": service.protocol,
            **_service_counts(pool.scoreboard, service.name),
            "listeners": [
                _listener_facts(each)
                for each in generation.listeners
                if each.service.name == service.name
            ],
        }
        for service in generation.config.services
    ]


def _service_counts(board: Scoreboard, name: str) -> dict[str, Any]:
    """Summed over all workers, those that have ended included."""
    index = board.service_index(name)
    living = [board.sheet(row).service(index) for row in board.used_rows()]
    ended = [board.totals(slot).service(index) for slot in range(board.slots())]

    def total(word: int) -> int:
        return sum(words[word] for words in (*living, *ended))

    def causes(words: dict[str, int]) -> dict[str, int]:
        return {cause: count for cause, word in words.items() if (count := total(word))}

    return {
        "connections": sum(words[Count.LIVE] for words in living),
        "accepted": total(Count.ACCEPTED),
        "bytes_in": total(Count.BYTES_IN),
        "bytes_out": total(Count.BYTES_OUT),
        "closed": causes(END_WORD),
        "refused": causes(REFUSAL_WORD),
    }


def _listener_facts(listener: Listener) -> dict[str, Any]:
    """Where it listens, how many clients wait in its queue, and how many may."""
    waiting, most = accept_queue(listener.sock) or (None, None)
    return {"address": str(listener), "waiting": waiting, "backlog": most}

"""The scoreboard read at one moment: what was counted, added up by service and slot.

Pure but for reading shared memory; knows no format and no process.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from epolld import ledger
from epolld.ledger import Declared, MasterState, MasterWord, ProcessWord
from epolld.scoreboard import Column, ListenerFacts, Scoreboard, WorkerState

TRIES = 100  # to read while the master moves no number; then whatever is there
PAUSE = 0.001  # seconds between two of them

# A worker whose loop has not turned for this long serves nobody. Its tick is a second.
SILENT = 5.0


class WorkerFacts(NamedTuple):
    """One worker process."""

    pid: int
    slot: int
    state: WorkerState
    heartbeat: int  # ns of CLOCK_MONOTONIC
    lag: int  # ns
    lag_max: int  # ns


class ApplicationMetric(NamedTuple):
    """A counter or gauge of user code."""

    declared: Declared
    by_slot: dict[int, float]


class Snapshot(NamedTuple):
    """All of it."""

    sequence: int  # of the scoreboard: while it is the same, no worker has ended
    master: list[int]  # by MasterWord
    restarts: list[int]  # as causes.RESTARTS
    services: list[str]  # names by index
    certificate_ends: list[int]  # as services; seconds since 1970, 0 without one
    counts: dict[tuple[int, int], list[int]]  # by slot and service: the words of ledger.Count
    workers: list[WorkerFacts]
    cpu_of_gone: dict[int, float]  # by slot: seconds of processes that have ended
    listeners: list[ListenerFacts]
    application: list[ApplicationMetric]


def take(board: Scoreboard) -> Snapshot:
    """Read everything, so that what belongs together fits together."""
    for _ in range(TRIES):
        before = board.sequence()
        found = _read(board)
        if before % 2 == 0 and board.sequence() == before:
            break
        time.sleep(PAUSE)
    return found


def _read(board: Scoreboard) -> Snapshot:
    names = board.service_names()
    workers = [_worker(board, row) for row in board.used_rows()]
    counts: dict[tuple[int, int], list[int]] = {}
    application: dict[str, ApplicationMetric] = {}
    cpu = {}
    sheets = [(slot, board.totals(slot), False) for slot in range(board.slots())]
    slots = board.column(Column.SLOT)
    sheets += [(slots[row], board.sheet(row), True) for row in board.used_rows()]
    for slot, sheet, lives in sheets:
        if not lives:
            cpu[slot] = sheet.process[ProcessWord.CPU] / 1e6
        for index in range(len(names)):
            words = sheet.service(index)[: ledger.USED_WORDS].tolist()
            if lives or any(words):
                sums = counts.setdefault((slot, index), [0] * ledger.USED_WORDS)
                for word, value in enumerate(words):
                    sums[word] += value
        for place, metric in enumerate(sheet.declared()):
            # By name: the help, and even the kind, may have changed with the program.
            first = application.setdefault(metric.name, ApplicationMetric(metric, {}))
            if first.declared.kind is metric.kind:
                sum = first.by_slot.get(slot, 0.0) + sheet.values[place]
                first.by_slot[slot] = sum
    return Snapshot(
        board.sequence(),
        board.master[: len(MasterWord)].tolist(),
        board.master[ledger.FIRST_RESTART : max(ledger.RESTART_WORD.values()) + 1].tolist(),
        names,
        board.master[ledger.CERTIFICATE_ENDS :][: len(names)].tolist(),
        counts,
        workers,
        cpu,
        board.listeners(),
        list(application.values()),
    )


def _worker(board: Scoreboard, row: int) -> WorkerFacts:
    state = board.column(Column.STATE)[row]
    return WorkerFacts(
        board.column(Column.PID)[row],
        board.column(Column.SLOT)[row],
        WorkerState(state) if state in list(WorkerState) else WorkerState.BOOTING,
        board.column(Column.HEARTBEAT)[row],
        board.column(Column.LAG)[row],
        board.column(Column.LAG_MAX)[row],
    )


def why_not_ready(board: Scoreboard, now: int) -> str:
    """ "" if clients are served; else the reason. `now` in ns of CLOCK_MONOTONIC."""
    state = board.master[MasterWord.STATE]
    if state != MasterState.SERVING:
        return MasterState(state).name.lower() if state in list(MasterState) else "unknown"
    oldest = now - int(SILENT * 1e9)
    for row in board.used_rows():
        worker = _worker(board, row)
        # No beat at all: a worker of the program before an upgrade, whose beats are not for us.
        if worker.state is WorkerState.SERVING and not 0 < worker.heartbeat < oldest:
            return ""
    return "no worker serves"

"""What the processes tell each other all the time: one shared table, one row a worker.

Shared memory made by the master before it forks; it has no name, needs no clean-up and costs a
worker a page or two. Each row has one writer, the worker that it is assigned
to; everybody may read. A value is one aligned 64-bit word, which the processor writes whole,
so there are no locks that a killed worker could leave behind. Beside the rows stand what is counted
for the metrics (ledger.py says how) and what the master says of itself. Part of the contract
between master and workers (the other part is channel.py); it imports neither.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
import os
import zlib
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from epolld import causes, ledger
from epolld.ledger import MasterWord, ProcessWord, Sheet, read_text, write_text

ROWS = 512  # worker processes at a time, old generations included
WORD = 8  # bytes

NOT_ACCEPTING = -1


class Column(enum.IntEnum):
    """The columns; each is an array with a word a row, so that one can be read as a whole."""

    PID = 0  # 0: the row is free; written by the master, as are SLOT and GENERATION
    HEARTBEAT = 1  # CLOCK_MONOTONIC in ns of the worker's last tick
    LIVE = 2  # live connections
    ACCEPTED = 3  # connections accepted by this process
    BALANCE = 4  # live connections, while it stands for accepting; else NOT_ACCEPTING
    SLOT = 5
    GENERATION = 6
    STATE = 7  # WorkerState
    LAG = 8  # ns by which the last tick was late
    LAG_MAX = 9  # the same, the most in about the last minute


class WorkerState(enum.IntEnum):
    """What a worker is about, as it says."""

    BOOTING = 0
    WAITING = 1
    SERVING = 2
    DRAINING = 3


class ListenerFacts(NamedTuple):
    """A listening socket, as the kernel describes it."""

    name: str  # "SERVICE ADDRESS"
    queued: int  # connections that wait to be accepted
    limit: int  # the most that may


def _align(size: int) -> int:
    return -(-size // ledger.SHEET) * ledger.SHEET


class Scoreboard:
    """The table; the master makes it, workers inherit it over fork.

    `fd` is a scoreboard's `fileno()` that has survived an execve: the same table again.
    """

    def __init__(self, rows: int = ROWS, fd: int | None = None) -> None:
        self.rows = rows
        head = WORD * (2 + ledger.MASTER_WORDS + rows * len(Column))
        names_end = head + ledger.SERVICES * ledger.NAME_BYTES
        listeners_end = names_end + ledger.LISTENERS * ledger.LISTENER_BYTES
        self._sheets = _align(listeners_end)  # where they begin: first the rows', then the slots'
        size = self._sheets + 2 * rows * ledger.SHEET
        # A memfd and not simply anonymous memory: that would not survive an upgrade in place.
        self._fd = os.memfd_create("epolld-scoreboard", os.MFD_CLOEXEC) if fd is None else fd
        if fd is None:
            os.ftruncate(self._fd, size)
        self._memory = mmap.mmap(self._fd, size)
        self._bytes = memoryview(self._memory)
        words = self._bytes[:head].cast("q")
        # One more than the highest row in use; written by the master. Readers look no further.
        self._top = words[:1]
        self._slots = words[1:2]  # the same of slots
        self.master = words[2 : 2 + ledger.MASTER_WORDS]  # by MasterWord
        first = 2 + ledger.MASTER_WORDS
        self._columns = [
            words[first + n * rows : first + (n + 1) * rows] for n in range(len(Column))
        ]
        self._names = self._bytes[head:names_end]
        self._listeners = self._bytes[names_end:listeners_end]
        if fd is None:
            for row in range(rows):
                self._columns[Column.BALANCE][row] = NOT_ACCEPTING

    def fileno(self) -> int:
        """The descriptor of the memory; -1 in a worker, which has only the mapping."""
        return self._fd

    def layout(self) -> list[int]:
        """What must be equal for two programs to understand the same table."""
        words = [*causes.ENDS, "|", *causes.REFUSALS, "|", *causes.RESTARTS]
        sizes = (
            ledger.SERVICES,
            ledger.SERVICE_WORDS,
            ledger.APPLICATION,
            ledger.LISTENERS,
            ledger.MASTER_WORDS,
        )
        enums = [f"{each.name}={each.value}" for each in (*ledger.Count, *MasterWord, *Column)]
        digest = zlib.crc32(" ".join([*words, *map(str, sizes), *enums]).encode())
        return [self.rows, len(self._memory), digest]

    def close_descriptor(self) -> None:
        """In a worker: keep the mapping alone (which in Python has a duplicate of its own)."""
        os.close(self._fd)
        self._fd = -1

    # -- rows --------------------------------------------------------------------------------------

    def column(self, column: Column) -> memoryview:
        """The words of one column, by row; to read and, in one's own row, to write."""
        return self._columns[column]

    def top(self) -> int:
        """How many rows, from the first, are or were in use."""
        return self._top[0]

    def used_rows(self) -> list[int]:
        """The rows that belong to a worker."""
        top = self._top[0]
        return [row for row, pid in enumerate(self._columns[Column.PID][:top].tolist()) if pid]

    def take_row(self, pid: int, slot: int = 0, generation: int = 0) -> int:
        """Assign a free row to process `pid`; the master alone does that.

        Raises OverflowError if there is none.
        """
        for row, owner in enumerate(self._columns[Column.PID]):
            if owner == 0:
                self.clear(row)
                self._columns[Column.PID][row] = pid
                self._columns[Column.SLOT][row] = slot
                self._columns[Column.GENERATION][row] = generation
                self.use_slot(slot)
                self._top[0] = max(self._top[0], row + 1)
                return row
        raise OverflowError(f"all {self.rows} rows of the scoreboard are taken by workers")

    def clear(self, row: int) -> None:
        """Free a row; the master does it when it has reaped the process."""
        for column in self._columns:
            column[row] = 0
        self._columns[Column.BALANCE][row] = NOT_ACCEPTING
        start = self._sheets + row * ledger.SHEET
        try:
            self._memory.madvise(mmap.MADV_REMOVE, start, ledger.SHEET)  # zeroes, and gives back
        except OSError:  # pages larger than a sheet
            self._bytes[start : start + ledger.SHEET] = bytes(ledger.SHEET)

    def bury(self, row: int, cpu: float = 0.0) -> None:
        """Free a row, and keep what its worker has counted in the totals of the slot.

        `cpu` is the processor time in seconds that it has used in its life.
        """
        with self.moving():
            slot = self._columns[Column.SLOT][row]
            if 0 <= slot < self.slots():
                totals = self.totals(slot)
                totals.add(self.sheet(row), len(self.service_names()))
                totals.process[ProcessWord.CPU] += int(cpu * 1e6)
            self.clear(row)

    def use_slot(self, slot: int) -> None:
        """There is, or was, a worker in this slot."""
        self._slots[0] = max(self._slots[0], min(slot + 1, self.rows))

    def slots(self) -> int:
        """One more than the highest slot that there has been."""
        found: int = self._slots[0]
        return found

    def balance(self, since: int = 0) -> list[int]:
        """The live connections of all workers that stand for accepting, in no useful order.

        With `since` (ns of CLOCK_MONOTONIC): only of those whose loop has turned since then.
        """
        top = self._top[0]
        counts = self._columns[Column.BALANCE][:top].tolist()
        if not since:
            return [count for count in counts if count >= 0]
        beats = self._columns[Column.HEARTBEAT][:top].tolist()
        return [n for n, beat in zip(counts, beats, strict=True) if n >= 0 and beat >= since]

    # -- what is counted ---------------------------------------------------------------------------

    def sheet(self, row: int) -> Sheet:
        """The counters of a row's worker, which alone writes them."""
        start = self._sheets + row * ledger.SHEET
        return Sheet(self._bytes[start : start + ledger.SHEET])

    def totals(self, slot: int) -> Sheet:
        """What workers of a slot had counted when they ended; written by the master."""
        return self.sheet(self.rows + slot)

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """In the master: numbers are moved meanwhile, so that a reader might count them twice."""
        self.master[MasterWord.SEQUENCE] |= 1
        try:
            yield
        finally:
            self.master[MasterWord.SEQUENCE] += 1

    def sequence(self) -> int:
        """The same even number before and after reading says that what was read fits together."""
        found: int = self.master[MasterWord.SEQUENCE]
        return found

    def service_names(self) -> list[str]:
        """The services that have counters, by index."""
        names = []
        for index in range(ledger.SERVICES):
            name = read_text(self._name(index))
            if not name:
                break
            names.append(name)
        return names

    def service_index(self, name: str) -> int:
        """Where a service's counters stand; the last place for one that has none of its own."""
        names = self.service_names()
        return names.index(name) if name in names else ledger.SERVICES - 1

    def enlist(self, services: Iterable[str], in_use: Collection[str]) -> None:
        """Give services a place, if need be that of one which is not `in_use` any more."""
        names = self.service_names()
        for name in services:
            if name in names:
                continue
            index = len(names)
            if index == ledger.SERVICES - 1:
                gone = [old for old in names if old not in in_use]
                if not gone:
                    write_text(self._name(index), ledger.OVERFLOW)
                    return
                index = names.index(gone[0])
                with self.moving():
                    for slot in range(self.slots()):
                        self.totals(slot).forget_service(index)
                    write_text(self._name(index), name)
                names[index] = name
            else:
                write_text(self._name(index), name)
                names.append(name)

    def _name(self, index: int) -> memoryview:
        return self._names[index * ledger.NAME_BYTES : (index + 1) * ledger.NAME_BYTES]

    # -- listeners ---------------------------------------------------------------------------------

    def publish_listeners(self, listeners: Iterable[ListenerFacts]) -> None:
        """In the master: say how full the accept queues are."""
        place = 0
        for facts in listeners:
            if place == ledger.LISTENERS:
                return
            entry = self._listener(place)
            text = entry[2 * WORD :]
            if read_text(text) != facts.name:
                write_text(text, facts.name)
            words = entry[: 2 * WORD].cast("q")
            words[0], words[1] = facts.queued, facts.limit
            place += 1
        if place < ledger.LISTENERS and read_text(self._listener(place)[2 * WORD :]):
            for rest in range(place, ledger.LISTENERS):
                write_text(self._listener(rest)[2 * WORD :], "")

    def listeners(self) -> list[ListenerFacts]:
        """The accept queues, as the master last saw them."""
        found = []
        for place in range(ledger.LISTENERS):
            entry = self._listener(place)
            name = read_text(entry[2 * WORD :])
            if not name:
                break
            queued, limit = entry[: 2 * WORD].cast("q")
            found.append(ListenerFacts(name, queued, limit))
        return found

    def _listener(self, place: int) -> memoryview:
        start = place * ledger.LISTENER_BYTES
        return self._listeners[start : start + ledger.LISTENER_BYTES]

"""What the processes tell each other all the time: one shared table, one row a worker.

Shared memory made by the master before it forks; it has no name, needs no clean-up and costs a
worker a page or two. Each row has one writer, the worker that it is assigned
to; everybody may read. A value is one aligned 64-bit word, which the processor writes whole,
so there are no locks that a killed worker could leave behind. Part of the contract between
master and workers (the other part is channel.py); it imports neither.
"""

from __future__ import annotations

import enum
import mmap
import os

ROWS = 512  # worker processes at a time, old generations included
WORD = 8  # bytes

NOT_ACCEPTING = -1


class Column(enum.IntEnum):
    """The columns; each is an array with a word a row, so that one can be read as a whole."""

    PID = 0  # 0: the row is free
    HEARTBEAT = 1  # CLOCK_MONOTONIC in ns of the worker's last tick
    LIVE = 2  # live connections
    ACCEPTED = 3  # connections accepted by this process
    BALANCE = 4  # live connections, while it stands for accepting; else NOT_ACCEPTING


class Scoreboard:
    """The table; the master makes it, workers inherit it over fork.

    `fd` is a scoreboard's `fileno()` that has survived an execve: the same table again.
    """

    def __init__(self, rows: int = ROWS, fd: int | None = None) -> None:
        self.rows = rows
        size = WORD * (1 + rows * len(Column))
        # A memfd and not simply anonymous memory: that would not survive an upgrade in place.
        self._fd = os.memfd_create("epolld-scoreboard", os.MFD_CLOEXEC) if fd is None else fd
        if fd is None:
            os.ftruncate(self._fd, size)
        self._memory = mmap.mmap(self._fd, size)
        words = memoryview(self._memory).cast("q")
        # One more than the highest row in use; written by the master. Readers look no further.
        self._top = words[:1]
        self._columns = [words[1 + n * rows : 1 + (n + 1) * rows] for n in range(len(Column))]
        if fd is None:
            for row in range(rows):
                self.clear(row)

    def fileno(self) -> int:
        """The descriptor of the memory; -1 in a worker, which has only the mapping."""
        return self._fd

    def layout(self) -> list[int]:
        """What must be equal for two programs to understand the same table."""
        return [self.rows, *Column]

    def close_descriptor(self) -> None:
        """In a worker: keep the mapping alone (which in Python has a duplicate of its own)."""
        os.close(self._fd)
        self._fd = -1

    def column(self, column: Column) -> memoryview:
        """The words of one column, by row; to read and, in one's own row, to write."""
        return self._columns[column]

    def top(self) -> int:
        """How many rows, from the first, are or were in use."""
        return self._top[0]

    def take_row(self, pid: int) -> int:
        """Assign a free row to process `pid`; the master alone does that.

        Raises OverflowError if there is none.
        """
        for row, owner in enumerate(self._columns[Column.PID]):
            if owner == 0:
                self.clear(row)
                self._columns[Column.PID][row] = pid
                self._top[0] = max(self._top[0], row + 1)
                return row
        raise OverflowError(f"all {self.rows} rows of the scoreboard are taken by workers")

    def clear(self, row: int) -> None:
        """Free a row; the master does it when it has reaped the process."""
        for column in self._columns:
            column[row] = 0
        self._columns[Column.BALANCE][row] = NOT_ACCEPTING

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

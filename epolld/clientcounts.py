"""How many connections each client has, and how many are new, counted over all workers.

Shared memory of a fixed size, made by the master before it forks: whatever floods it, it does not
grow, nothing is looked for in it, and nothing has to be thrown out. It is a count-min sketch
(Cormode and Muthukrishnan, 2005): a client's number is hashed in DEPTH ways to one of WIDTH cells
each, and its count is the smallest of its cells. Another client in the same cell can only make
that too large, so a limit is never exceeded; and it takes one collision in every way at once: with
65,000 live connections, all of different clients, a count is too large by 3 or more for one client
in 2,000. The hash functions are random (Carter and Wegman) and the secret stays in this memory,
so nobody can choose addresses that collide.

Each worker writes a table of its own and reads all of them: no locks, and nothing that a killed
worker could leave half done. When it is dead, the master empties its table, and so its
connections, which died with it, are no longer counted. The same holds for a worker that left.

Part of the contract between master and workers; a leaf.
"""

from __future__ import annotations

import mmap
import os

DEPTH = 3  # hash functions
WIDTH = 1 << 15  # cells for each of them
CELL = 4  # bytes

# New connections are counted by the second. A cell says which second it is about and how many;
# odd and even seconds have tables of their own, so that the last one can be read, too.
STAMP_BITS = 16
_COUNT = (1 << STAMP_BITS) - 1
MOST = _COUNT  # the largest count; what is above it is not counted

_KINDS = 3  # tables: live connections, new ones in even seconds, new ones in odd seconds
ROW_SIZE = _KINDS * DEPTH * WIDTH * CELL  # bytes of one worker: 1.1 MiB, as far as they are used
_ROW_CELLS = ROW_SIZE // CELL

_PRIME = (1 << 127) - 1  # above every key
_64_BITS = (1 << 64) - 1
_SECRETS = 32 * DEPTH  # bytes


class ClientCounts:
    """The table; the master makes it, workers inherit it over fork.

    `rows` as the scoreboard's. `fd` is another table's `fileno()` that survived an execve.
    """

    def __init__(self, rows: int, fd: int | None = None) -> None:
        self.rows = rows
        # Sparse: only cells that were written to cost memory.
        size = mmap.PAGESIZE + rows * ROW_SIZE
        self._fd = os.memfd_create("epolld-clients", os.MFD_CLOEXEC) if fd is None else fd
        if fd is None:
            os.ftruncate(self._fd, size)
        self._memory = mmap.mmap(self._fd, size)
        if fd is None:
            self._memory[:_SECRETS] = os.urandom(_SECRETS)
        secrets = [self._memory[n * 16 : n * 16 + 16] for n in range(2 * DEPTH)]
        numbers = [int.from_bytes(secret, "big") % _PRIME for secret in secrets]
        self._hashes = list(zip(numbers[::2], numbers[1::2], strict=True))
        self._cells = memoryview(self._memory)[mmap.PAGESIZE :].cast("I")

    def fileno(self) -> int:
        """The descriptor of the memory; -1 in a worker, which has only the mapping."""
        return self._fd

    def layout(self) -> list[int]:
        """What must be equal for two programs to understand the same table."""
        return [self.rows, _KINDS, DEPTH, WIDTH, STAMP_BITS]

    def close_descriptor(self) -> None:
        """In a worker: keep the mapping alone (which in Python has a duplicate of its own)."""
        os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        """In a process that does not count: give all of it back."""
        self._cells.release()
        self._memory.close()
        if self._fd >= 0:
            self.close_descriptor()

    def clear(self, row: int) -> None:
        """Empty the table of a worker that is gone; its memory goes back to the kernel."""
        self._memory.madvise(mmap.MADV_REMOVE, mmap.PAGESIZE + row * ROW_SIZE, ROW_SIZE)

    def cells_of(self, key: int) -> list[int]:
        """Where `key` is counted, within a row: below DEPTH * WIDTH."""
        key = _scatter(key)
        return [(a * key + b) % _PRIME % WIDTH + n * WIDTH for n, (a, b) in enumerate(self._hashes)]

    # -- live connections ------------------------------------------------------------------------

    def change(self, row: int, cells: list[int], by: int) -> None:
        """One's own row: so many live connections more (or fewer, if `by` is below 0)."""
        base = row * _ROW_CELLS
        for cell in cells:
            self._cells[base + cell] = max(0, self._cells[base + cell] + by)

    def live(self, cells: list[int], top: int) -> int:
        """The live connections in the first `top` rows: right, or a little too many."""
        end = top * _ROW_CELLS
        return min(sum(self._cells[cell:end:_ROW_CELLS].tolist()) for cell in cells)

    # -- new connections -------------------------------------------------------------------------

    def note_new(self, row: int, cells: list[int], now: float) -> None:
        """One's own row: one more, at the time `now` (seconds, monotonic)."""
        second = int(now)
        stamp = second & _COUNT
        base = row * _ROW_CELLS + (1 + second % 2) * DEPTH * WIDTH
        for cell in cells:
            known = self._cells[base + cell]
            count = (known & _COUNT) + 1 if known >> STAMP_BITS == stamp else 1
            self._cells[base + cell] = stamp << STAMP_BITS | min(count, MOST)

    def recent(self, cells: list[int], top: int, now: float) -> float:
        """The new connections of the last second in the first `top` rows.

        This second's, and of those of the last one the share by which that still reaches into the
        last 1,000 ms: as if they had come evenly (a sliding window counter).
        """
        second = int(now)
        return min(
            self._sum(cell, top, second) + self._sum(cell, top, second - 1) * (second + 1 - now)
            for cell in cells
        )

    def _sum(self, cell: int, top: int, second: int) -> int:
        start = cell + (1 + second % 2) * DEPTH * WIDTH
        stamp = second & _COUNT
        found = self._cells[start : top * _ROW_CELLS : _ROW_CELLS].tolist()
        return sum(value & _COUNT for value in found if value >> STAMP_BITS == stamp)


def _scatter(key: int) -> int:
    """Another key for each key, without the order that neighbouring addresses have.

    Of an arithmetic sequence, one in some dozens of the random functions makes few cells. The
    finalizer of SplitMix64 (Steele, Lea and Flood, 2014), over the lower 64 bits.
    """
    low = key & _64_BITS
    low = (low ^ low >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    low = (low ^ low >> 27) * 0x94D049BB133111EB & _64_BITS
    return key >> 64 << 64 | low ^ low >> 31


def client_key(service: int, version: int, number: int) -> int:
    """What a client is counted under, by service: an IPv4 address, or a /64 of IPv6.

    A single customer is given a whole /64, so counting addresses would count nothing.
    """
    return service << 72 | version << 64 | (number >> 64 if version == 6 else number)


def total_key(service: int) -> int:
    """What all clients of a service are counted under together."""
    return service << 72 | 1 << 64

"""A gateway for telemetry: devices send readings in lines, several workers store them in SQLite.

    → meter-7 1041 21.5        device, sequence number, value
    ← stored 1041              all of this connection up to here are on the disk

A device repeats what was not acknowledged when it lost its connection. A reading that is stored
already is stored no second time, for device and sequence number are its key. At a reload the
connections move to the new workers with all that is not stored yet stored before.
"""

import fcntl
import sqlite3

from epolld import Application, LineProtocol, WorkerContext
from epolld.net.timers import Timer

MAX_BATCH = 500  # readings of one transaction
MAX_SEQUENCE = 1 << 63  # SQLite's integers
MAX_DELAY = 0.02  # seconds that a reading may wait for others

TABLE = """
CREATE TABLE IF NOT EXISTS readings (
    device TEXT, sequence INTEGER, value REAL, PRIMARY KEY (device, sequence)
) WITHOUT ROWID
"""
INSERT = "INSERT OR IGNORE INTO readings VALUES (?, ?, ?)"


class Gateway(Application):
    """What the connections of one worker share: a batch, and the database that it goes to.

    A commit blocks the worker for as long as the disk takes, and while another worker commits.
    That is the price of "stored", paid once a batch; the lines that come meanwhile wait in the
    kernel and are the next batch.
    """

    def __init__(self, *, database: str) -> None:
        self._path = database
        self._batch: list[tuple[str, int, float]] = []
        self._senders: dict[Device, int] = {}  # the last sequence number of each in the batch
        self._timer: Timer | None = None

    def start(self, worker: WorkerContext) -> None:
        self._worker = worker
        # Each statement is a transaction of its own, but for those that `commit` puts into one.
        self._database = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        with open(f"{self._path}.lock", "w") as lock:  # two that switch to WAL at once would fail
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._database.execute("PRAGMA journal_mode = WAL")  # commits do not wait for readers
            self._database.execute(TABLE)
        self._database.execute("PRAGMA synchronous = FULL")  # a commit returns after the fsync

    def stop(self) -> None:
        self.commit()
        self._database.close()

    def add(self, sender: "Device", reading: tuple[str, int, float]) -> None:
        """Store a reading with the next batch."""
        self._batch.append(reading)
        self._senders[sender] = reading[1]
        if len(self._batch) >= MAX_BATCH:
            self.commit()
        elif self._timer is None:
            self._timer = self._worker.call_later(MAX_DELAY, self.commit)

    def commit(self) -> None:
        """Store the batch, then tell its senders. What cannot be stored stays for the next try."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._batch:
            return
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:  # COMMIT, or ROLLBACK if something raises
            self._database.executemany(INSERT, self._batch)
        senders = self._senders
        self._batch, self._senders = [], {}
        for sender, sequence in senders.items():
            sender.send_line(b"stored %d" % sequence)


class Device(LineProtocol):
    """The connection of one device."""

    __slots__ = ()

    delimiter = b"\n"
    max_length = 200

    @property
    def gateway(self) -> Gateway:
        return self.transport.get_extra_info("application")

    def line_received(self, line: bytes) -> None:
        try:
            device, sequence, value = line.decode().split()
            reading = (device, int(sequence), float(value))
            if not 0 <= reading[1] < MAX_SEQUENCE:
                raise ValueError
        except ValueError:
            self.send_line(b"what is " + line)
        else:
            self.gateway.add(self, reading)

    def freeze(self) -> bytes | None:
        self.gateway.commit()  # so that nothing but half a line is left to take along
        return super().freeze()

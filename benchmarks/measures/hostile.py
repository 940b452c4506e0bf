"""Clients that mean harm: thousands that say nothing or next to nothing, and one that never reads.

The load is a plain Python loop here, for it has little to do.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import progress
import servers
from report import Bar, Result, bars_chart, course_chart

SILENT, SLOW = 5_000, 5_000
LIMIT = 10  # seconds, of a first byte and of a message
P99_WITHIN = 50  # ms, of the new clients
EVERY = 0.01  # seconds between two new clients
MIB = 1 << 20

PROTOCOLS = """\
from epolld import LineProtocol, Protocol


class Lines(LineProtocol):
    def line_received(self, line):
        self.send_line(line)


class Pours(Protocol):
    def data_received(self, data):
        for _ in range(int(data)):
            self.transport.write(bytes(65536))
"""


class Memory:
    """Memory of a worker from now on: by how much it was higher than now, at its highest.

    The kernel keeps the highest (VmHWM), so no short moment is missed; 5 sets it back (proc(5)).
    """

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        (self._folder / "clear_refs").write_text("5")
        self._first = self._kib("VmRSS")

    def grown(self) -> int:
        """Bytes."""
        return 1024 * (self._kib("VmHWM") - self._first)

    def _kib(self, name: str) -> int:
        text = (self._folder / "status").read_text()
        return int(text.partition(f"{name}:")[2].split()[0])


@contextlib.contextmanager
def _protocols() -> object:
    """The module with the protocols, where the server finds it: in its working directory."""
    path = servers.ROOT / "hostile_protocols.py"
    path.write_text(PROTOCOLS)
    try:
        yield
    finally:
        path.unlink()


def measure_flood(_names: Sequence[str], quick: bool) -> Result:
    """New clients are answered while thousands hold the door."""
    silent, slow = (1_000, 1_000) if quick else (SILENT, SLOW)
    service = (
        f"    first_byte_timeout: {LIMIT}s\n    message_timeout: {LIMIT}s\n    backlog: 4096\n"
    )
    with (
        _protocols(),
        servers.running("epolld", protocol="hostile_protocols:Lines", options=service) as server,
    ):
        memory = Memory(server.workers()[0])
        progress.show(f"{silent + slow:,} that say next to nothing")
        flood = _Flood(server.port, silent, slow)
        course = flood.run()
        grown = memory.grown() / (silent + slow)
    latencies = [latency for _, latency in course]
    p99 = sorted(latencies)[len(latencies) * 99 // 100] * 1000
    return Result(
        name="flood",
        title="New clients amid silent and slow ones",
        about=f"{silent:,} connections that say nothing and {slow:,} that send a byte a second, "
        f"all with {LIMIT} s for a first byte and for a message, while {len(latencies):,} new "
        f"clients connect and ask one thing each.",
        columns=("new clients, p99 ms", "longest ms", "memory a hostile one", "last gone after s"),
        rows=[
            (
                f"{p99:.1f}",
                f"{max(latencies) * 1000:.1f}",
                f"{grown:.0f} bytes",
                f"{flood.last_end:.1f}",
            )
        ],
        raw={"course": [(round(when, 3), round(latency, 5)) for when, latency in course]},
        charts=[
            course_chart(
                f"{silent + slow:,} hold the door, the last until {flood.last_end:.1f} s",
                "a new client waits for its answer, ms",
                [(round(when, 2), round(latency * 1000, 2)) for when, latency in course],
                limit=P99_WITHIN,
            )
        ],
        bars=[
            Bar("p99 of new clients", p99, P99_WITHIN, "ms", True),
            Bar("memory for each", grown, 4096, "bytes"),
            Bar("all gone after", flood.last_end, LIMIT * 1.4, "s"),
        ],
    )


class _Flood:
    """The hostile crowd, and new clients beside it until it is gone."""

    def __init__(self, port: int, silent: int, slow: int) -> None:
        self._address = "127.0.0.1", port
        self._poll = select.epoll()
        self._crowd: dict[int, socket.socket] = {}
        self._slow: set[int] = set()
        for number in range(silent + slow):
            sock = socket.create_connection(self._address)
            sock.setblocking(False)
            self._crowd[sock.fileno()] = sock
            self._poll.register(sock.fileno(), select.EPOLLIN)
            if number >= silent:
                self._slow.add(sock.fileno())
        self._begin = time.monotonic()
        self.last_end = 0.0

    def run(self) -> list[tuple[float, float]]:
        """When each new client came and how long it waited for its answer, in seconds."""
        course = []
        tick = self._begin
        while self._crowd:
            if time.monotonic() - self._begin > 4 * LIMIT:
                raise servers.BenchmarkError(f"{len(self._crowd)} are still there")
            if time.monotonic() >= tick:
                tick += 1
                for fd in self._slow:
                    with contextlib.suppress(OSError):
                        self._crowd[fd].send(b"x")
            course.append((time.monotonic() - self._begin, self._ask()))
            for fd, _ in self._poll.poll(EVERY, 1000):
                self._forget(fd)
        return course

    def _forget(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            if self._crowd[fd].recv(100):
                return
        self._crowd.pop(fd).close()
        self._slow.discard(fd)
        self.last_end = time.monotonic() - self._begin

    def _ask(self) -> float:
        begin = time.monotonic()
        with socket.create_connection(self._address, 10) as sock:
            sock.sendall(b"hello\r\n")
            if sock.recv(100) != b"hello\r\n":
                raise servers.BenchmarkError("a new client was not answered")
        return time.monotonic() - begin


def measure_unread(_names: Sequence[str], _quick: bool) -> Result:
    """One asks for 1 GB and never reads: once within its own limit, once within the worker's."""
    rows, bars, chart = [], [], {}
    for title, settings, service, limit in (
        ("write_buffer 8m", "", "    limits: {write_buffer: 8m}\n", 8),
        ("max_buffered 16m", "  max_buffered: 16m\n", "", 16),
    ):
        with (
            _protocols(),
            servers.running(
                "epolld",
                protocol="hostile_protocols:Pours",
                settings=settings,
                options=service,
            ) as server,
        ):
            memory = Memory(server.workers()[0])
            with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
                sock.sendall(b"16384")
                server.wait_line(r"bytes wait to be sent.*, closing", within=30)
                grown = memory.grown() / MIB
        rows.append((title, f"{grown:.1f} MiB"))
        chart[title] = (grown, grown, grown)
        # The buffer grows in place, a piece at a time, and realloc may hold it twice for a moment.
        bars.append(Bar(f"growth with {title}", grown, limit * 1.125 + 1, "MiB"))
    return Result(
        name="unread",
        title="1 GB for a client that never reads",
        about="The service writes it in pieces of 64 KiB and does not look whether they leave.",
        columns=("limit", "the worker grew by"),
        rows=rows,
        bars=bars,
        charts=[bars_chart("", "MiB that the worker grew by", chart)],
    )

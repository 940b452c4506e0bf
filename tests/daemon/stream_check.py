"""Clients that know each byte that has to come: one thread, many connections, one verdict.

Every stream has both directions numbered (records, or a pattern), is cut into pieces that have
nothing to do with its records, and is compared as it comes. Refuses to know what the daemon is
doing meanwhile.
"""

import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

PATIENCE = 40.0  # seconds for all that is under way when it stops; one core serves many tests
AHEAD = 20_000  # bytes that a brisk client has under way at most

Answer = Callable[[bytes], bytes]  # what comes back for whole records


def same(data: bytes) -> bytes:
    """The service `echo`."""
    return data


def upper(data: bytes) -> bytes:
    """The service `upper`."""
    return data.upper()


class Numbered:
    """The service `movable:Records`."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, data: bytes) -> bytes:
        answer = b""
        for line in data.split(b"\n")[:-1]:
            self.count += 1
            answer += b"%d:%s\n" % (self.count, line)
        return answer


class Stream:
    """One connection: sends records, and knows what is to come."""

    pace = 0.0  # seconds between two reads
    bite = 1 << 16  # bytes a read
    ahead = AHEAD
    piece = 3000  # bytes a write, at most
    half_close_after = 0  # bytes

    def __init__(self, address: str, answer: Answer, seed: int) -> None:
        host, _, port = address.rpartition(":")
        self.sock = socket.socket()
        self._shape()
        self.sock.settimeout(PATIENCE)
        self.sock.connect((host, int(port)))
        self.sock.setblocking(False)
        self.name = f"{type(self).__name__} {seed}"
        self.chance = random.Random(seed)
        self.answer = answer
        self.number = 0
        self.to_send = bytearray()
        self.expected = bytearray()
        self.sent = self.received = 0
        self.read_at = 0.0
        self.stopped = self.shut = False
        self.trouble = ""
        self.ended = False

    def _shape(self) -> None:
        """Before it connects."""

    def more(self) -> None:
        """The next record."""
        filler = bytes(self.chance.choices(b"abcdefgh XYZ.", k=self.chance.randrange(400)))
        record = b"%d %s\n" % (self.number, filler)
        self.number += 1
        self.to_send += record
        self.expected += self.answer(record)

    def wants(self, now: float) -> int:
        """The selector's events."""
        if not self.stopped and not self.to_send and len(self.expected) < self.ahead:
            self.more()
        return (selectors.EVENT_READ if now >= self.read_at else 0) | (
            selectors.EVENT_WRITE if self.to_send else 0
        )

    def serve(self, events: int, now: float) -> None:
        """Do what can be done."""
        try:
            if events & selectors.EVENT_WRITE and self.to_send:
                count = self.sock.send(self.to_send[: self.chance.randrange(1, self.piece)])
                self.sent += count
                del self.to_send[:count]
            if events & selectors.EVENT_READ:
                data = self.sock.recv(self.bite)
                self.read_at = now + self.pace
                self.judge(data)
        except BlockingIOError:
            return
        except OSError as error:
            self.trouble = f"{error!r}"

    def judge(self, data: bytes) -> None:
        """Exactly what is to come?"""
        if not data:
            self.ended = True
            if not self.shut or self.expected:
                self.trouble = f"ended, {len(self.expected)} bytes short"
            return
        if self.expected[: len(data)] != data:
            place = next(i for i, b in enumerate(data) if self.expected[i : i + 1] != bytes([b]))
            self.trouble = (
                f"byte {self.received + place}: {data[place : place + 40]!r} came, "
                f"not {bytes(self.expected[place : place + 40])!r}"
            )
        del self.expected[: len(data)]
        self.received += len(data)

    def stop(self) -> None:
        """No new records: what is under way is to come."""
        self.stopped = True
        self.pace, self.read_at, self.bite = 0.0, 0.0, 1 << 20

    def is_over(self) -> bool:
        """All has come."""
        return bool(self.trouble) or self.ended or not (self.expected or self.to_send)


class Brisk(Stream):
    """Reads as it comes."""


class Slow(Stream):
    """Sends all it can and hardly reads: the server's write buffer is full, its reading paused."""

    pace = 0.05
    bite = 3000
    ahead = 6_000_000
    piece = 500_000

    def _shape(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

    def more(self) -> None:
        """A large one, so that the buffers of the kernel are full soon."""
        record = b"%d %s\n" % (self.number, b"many words, " * self.chance.randrange(5000, 20_000))
        self.number += 1
        self.to_send += record
        self.expected += self.answer(record)


class HalfClosed(Slow):
    """Sends some, ends its direction and reads the rest slowly, up to the end of file."""

    bite = 2000
    ahead = 3_000_000

    def wants(self, now: float) -> int:
        if not self.stopped and len(self.expected) + self.received > self.ahead:
            self.stopped = True
        if self.stopped and not self.to_send and not self.shut:
            self.shut = True
            self.sock.shutdown(socket.SHUT_WR)
        return super().wants(now)

    def is_over(self) -> bool:
        return bool(self.trouble) or self.ended


class Halting(Stream):
    """Sends a piece of a record, and falls silent for a while."""

    pace = 0.02

    def serve(self, events: int, now: float) -> None:
        if self.stopped or self.chance.random() < 0.2:
            super().serve(events, now)
        else:
            super().serve(events & ~selectors.EVENT_WRITE, now)


class Pattern(Stream):
    """Only listens: a pattern without end."""

    ahead = 0
    pace = 0.01
    bite = 20_000

    def __init__(self, address: str, pattern: bytes, seed: int) -> None:
        super().__init__(address, same, seed)
        self.pattern = pattern

    def judge(self, data: bytes) -> None:
        place = self.received % len(self.pattern)
        times = len(data) // len(self.pattern) + 2
        self.expected[:] = (self.pattern * times)[place : place + len(data)]
        super().judge(data)


class Streams:
    """All streams, served by a thread."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self._thread = threading.Thread(target=self._run)
        self._stopping = False

    def __enter__(self) -> "Streams":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._thread.join()
        for stream in self.streams:
            stream.sock.close()
        if kind is None:
            troubles = [f"{each.name}: {each.trouble}" for each in self.streams if each.trouble]
            troubles += [
                f"{each.name}: {len(each.expected)} bytes did not come"
                for each in self.streams
                if not each.is_over()
            ]
            assert not troubles, "\n".join(troubles[:10])
            assert all(each.received for each in self.streams)

    def _run(self) -> None:
        deadline = 0.0
        while True:
            now = time.monotonic()
            if self._stopping and not deadline:
                deadline = now + PATIENCE
                for each in self.streams:
                    each.stop()
            living = [each for each in self.streams if not each.trouble and not each.ended]
            if deadline and (now > deadline or all(each.is_over() for each in living)):
                return
            self._serve(living, now)

    def _serve(self, living: list[Stream], now: float) -> None:
        with selectors.PollSelector() as selector:
            for each in living:
                if events := each.wants(now):
                    selector.register(each.sock, events, each)
            for key, ready in selector.select(0.01) if selector.get_map() else ():
                key.data.serve(ready, now)
        time.sleep(0.001)  # leave some of the processor to the daemon


class Arrivals:
    """New clients, one after the other, each asks once; none may be refused or reset.

    But for one, if a worker is killed that accepts: who was being served then ends with it.
    """

    def __init__(
        self, address: str, ask: bytes = b"abc\n", want: bytes = b"ABC\n", killed: bool = False
    ) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._ask, self._want = ask, want
        self._lost = 1 if killed else 0  # at most
        self.served = 0
        self.troubles: list[str] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Arrivals":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._thread.join()
        if kind is None:
            assert not self.troubles, f"{len(self.troubles)}: {self.troubles[:5]}"
            assert self.served

    def _run(self) -> None:
        while not self._stopping:
            got, trouble = b"", ""
            try:
                with socket.create_connection(self._address, PATIENCE) as sock:
                    sock.sendall(self._ask)
                    while len(got) < len(self._want) and (more := sock.recv(100)):
                        got += more
                self.served += 1
            except OSError as error:
                trouble = repr(error)
            if not trouble and got != self._want:
                trouble = f"got {got!r}"
            if trouble and self._lost and not got:
                self._lost -= 1
            elif trouble:
                self.troubles.append(trouble)
            time.sleep(0.002)

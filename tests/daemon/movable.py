"""Protocols whose connections move, or do not, for the tests of reloads and upgrades."""

import os
import time

from epolld import Protocol, Transport


class Records(Protocol):
    """Answers each line with its number and its text; a piece of a line waits for the rest."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix.encode()
        self.part = b""
        self.count = 0

    def data_received(self, data: bytes) -> None:
        *lines, self.part = (self.part + data).split(b"\n")
        answers = []
        for line in lines:
            self.count += 1
            answers.append(b"%s%d:%s\n" % (self.prefix, self.count, line))
        self.transport.write(b"".join(answers))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def freeze(self) -> bytes | None:
        return b"%d %s" % (self.count, self.part)

    def thaw(self, state: bytes) -> None:
        count, _, self.part = state.partition(b" ")
        self.count = int(count)


class Where(Protocol):
    """Says which process serves, at each byte; moves."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"%d\n" % os.getpid())


class Stays(Protocol):
    """Says which process serves, at each byte; cannot move, and says goodbye."""

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"%d\n" % os.getpid())

    def draining(self) -> None:
        self.transport.write(b"goodbye\n")


class Later(Where):
    """Moves only once a '!' has come; says goodbye if told to."""

    __slots__ = ("may",)

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.may = False

    def data_received(self, data: bytes) -> None:
        self.may = self.may or b"!" in data
        super().data_received(data)

    def freeze(self) -> bytes | None:
        return b"" if self.may else None

    def thaw(self, state: bytes) -> None:
        self.may = False

    def draining(self) -> None:
        self.transport.write(b"goodbye\n")


class Slow(Where):
    """Says who has it now, and takes its time when it arrives, so that a hand-over lasts."""

    __slots__ = ()

    def thaw(self, state: bytes) -> None:
        self.transport.write(b"%d\n" % os.getpid())
        time.sleep(0.005)


class Sleeper(Where):
    """Is silent until it is asked; the same as Where, of another class."""

    __slots__ = ()

"""Protocols for the fault suite, as a user would write them."""

import os

from epolld import Protocol


class Marked(Protocol):
    """Answers a question with its pid and the question in upper case; moves, for it keeps nothing.

    A question is short and a client waits for its answer, so it comes in one piece."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"%d %s" % (os.getpid(), data.upper()))


class Ample(Protocol):
    """Answers each line with its pid, the line in upper case, and a lot of filler; for clients who
    send in pieces and take their time to read. Moves, with the piece of a line that it has."""

    FILLER = b"." * 200_000

    def __init__(self) -> None:
        self.part = b""

    def data_received(self, data: bytes) -> None:
        *lines, self.part = (self.part + data).split(b"\n")
        for line in lines:
            self.transport.write(b"%d %s %s\n" % (os.getpid(), line.upper(), self.FILLER))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def freeze(self) -> bytes:
        return self.part

    def thaw(self, state: bytes) -> None:
        self.part = state

"""Protocols for the fault suite, as a user would write them."""

import os

from epolld import Protocol


class Marked(Protocol):
    """Answers a question with its pid and the question in upper case; moves, for it keeps nothing.

    A question is short and a client waits for its answer, so it comes in one piece."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"%d %s" % (os.getpid(), data.upper()))

"""Scripts that run on two engines, asyncio's and ours, and must leave the same trace on both.

What the tests of parity share; how a connection is made, and who its peer is, is theirs to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from wiring import DEADLINE, Notes
from wiring import turn as loop_turn

from epolld.net.loop import EventLoop


class Got(Protocol):
    """What the peer has received, and how it ended; "" before that."""

    data: bytearray
    end: str

    def read(self) -> str:
        """Take what is there; returns the end."""


class Stage:
    """A connection: its protocol's notes, what its peer gets, and turns of its engine."""

    peer: Any  # who says something; each kind of stage has its own

    def __init__(self, notes: Notes, got: Got) -> None:
        self.notes = notes
        self.got = got

    @property
    def transport(self) -> Any:
        return self.notes.transport

    def turn(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        for _ in range(10):
            self.turn()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, (self.notes.trace, self.got.end)
            self.turn()

    def say(self, *facts: Any) -> None:
        """Put something that both engines must agree on into the trace."""
        self.notes.trace.append(("said", *facts))

    def refused(self, function: Callable[[], object]) -> None:
        """Note which exception `function` raises."""
        try:
            function()
        except Exception as exc:
            self.say(type(exc).__name__)
        else:
            self.say("accepted")

    def read_to_end(self) -> None:
        self.until(self.got.read)
        self.say("peer got", len(self.got.data), hash(bytes(self.got.data)), self.got.end)

    def lost(self) -> None:
        self.until(lambda: self.notes.lost)


class SocketStage(Stage):
    """One with a real socket, on a loop of the engine's."""

    def __init__(self, engine: str, notes: Notes, got: Got, theirs: socket.socket) -> None:
        super().__init__(notes, got)
        self.theirs = theirs
        self.on_asyncio = engine == "asyncio"
        self.loop: Any = asyncio.SelectorEventLoop() if self.on_asyncio else EventLoop()

    def turn(self) -> None:
        if self.on_asyncio:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        else:
            loop_turn(self.loop)

    def close(self) -> None:
        if not self.notes.lost:
            self.transport.abort()
        self.settle()
        self.theirs.close()
        self.settle()
        self.loop.close()


class Scripts(list[Any]):
    """As parameters of a test: a script, and what to do inside its protocol's callbacks."""

    def script(self, **on: Callable[..., Any]) -> Callable[[Any], Any]:
        """Adds the function that it decorates."""

        def register(function: Any) -> Any:
            self.append(pytest.param(function, on, id=function.__name__))
            return function

        return register


def perform(stage: Any, script: Callable[[Any], None]) -> list[Any]:
    """Run the script; returns the trace, with exceptions as their types."""
    with contextlib.closing(stage):
        script(stage)
    trace = stage.notes.trace
    return [tuple(type(x) if isinstance(x, Exception) else x for x in entry) for entry in trace]

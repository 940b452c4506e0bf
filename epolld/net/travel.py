"""The part of a transport that moves it to another worker: at rest, under way, back or gone.

    freeze → release        the other worker has it
           → unfreeze       the hand-over did not come about: it goes on here
    thaw                    in the other worker, in a new transport

What is asked of a transport while it is frozen waits for what becomes of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from epolld.net import descriptor
from epolld.net.frozen import Frozen
from epolld.net.states import CLOSED, CLOSING, FROZEN, OPEN, State

if TYPE_CHECKING:
    from epolld.net.loop import EventLoop
    from epolld.net.protocol import Protocol
    from epolld.net.service import Service


NOTHING = b""  # a value of _unsent: a write may go to the socket


class Traveller:
    """The base of `Transport`: what a connection consists of, and how it travels."""

    __slots__ = (
        "_cause",
        "_eof_received",
        "_eof_written",
        "_events",
        "_fd",
        "_limits",
        "_loop",
        "_out",
        "_peer",
        "_protocol",
        "_read_size",
        "_reading",
        "_service",
        "_state",
        "_unsent",
        "_writing_paused",
        "batch",  # for Batching. Here, because transports that become others must look alike
        "bytes_in",
        "bytes_out",
        "id",
        "last_active",
        "opened",
    )

    if TYPE_CHECKING:
        bytes_in: int
        bytes_out: int
        id: int
        opened: float
        last_active: float
        _cause: str  # why it ends, once that is known
        _eof_received: bool
        _eof_written: bool
        _fd: int
        _limits: tuple[int, int]
        _loop: EventLoop
        _out: bytearray | None
        _peer: Any
        _protocol: Protocol
        _read_size: int
        _reading: bool
        _service: Service
        _state: State
        _unsent: bytes | bytearray | memoryview | None
        _writing_paused: bool

        def _fault(self, callback: str, exc: BaseException) -> None: ...
        def _park(self) -> None: ...
        def _watch(self) -> None: ...
        def settle(self) -> None: ...

    def freeze(self) -> Frozen | None:
        """Come to rest, so that another worker can go on; None if the protocol says "not now".

        From here on the socket is not touched, until either `release` or `unfreeze`. Lets through
        what the protocol's `freeze` raises; TypeError if that returns no bytes.
        """
        if self._state is FROZEN or self._state is CLOSED:
            return None
        state = self._protocol.freeze()
        self.settle()
        if state is None or self._state is CLOSED:  # freeze() itself may have ended it
            return None
        if not isinstance(state, bytes):
            raise TypeError(f"freeze() returned {type(state).__name__}, not bytes or None")
        frozen = Frozen(
            self.id,
            self._service.name,
            # A path need not be text; and in a list, since an abstract name is bytes already.
            [os.fsencode(self._peer)] if isinstance(self._peer, str) else self._peer,
            self._loop.now - self.opened,
            self._loop.now - self.last_active,
            self._reading,
            self._state is CLOSING,
            self._eof_received,
            self._eof_written,
            self._writing_paused,
            self._limits,
            self.bytes_in,
            self.bytes_out,
            b"" if self._out is None else bytes(self._out),
            state,
            self._service.facts.get(self, {}),  # type: ignore[call-overload]
        )
        self._park()
        self._state = FROZEN
        # Events of this very turn may still come: they must find nothing to do.
        self._reading = False
        self._unsent = None
        return frozen

    def unfreeze(self, frozen: Frozen) -> None:
        """Go on as if nothing had been: the connection stays here."""
        if self._state is CLOSED:
            return
        self._reading = frozen.reading
        self._state = CLOSING if frozen.closing else OPEN
        may_send = self._out is None and not frozen.closing and not frozen.eof_written
        self._unsent = NOTHING if may_send else None
        self._watch()
        for call in self._service.postponed.pop(self, ()):
            call()

    def release(self) -> None:
        """Another worker has the connection: forget it. The protocol hears no more of it."""
        if self._state is CLOSED:
            return
        calls = self._service.postponed.pop(self, ())
        if any(call.__name__ in ("close", "abort") for call in calls):
            # Somebody wanted it closed and cannot reach it any more. The end of its input does,
            # because it is the same connection: the other worker reads it and closes.
            with contextlib.suppress(OSError):
                descriptor.shutdown(self._fd, socket.SHUT_RD)
        self._loop.forget(self._fd)
        self._state = CLOSED
        self._reading = False
        self._out = None
        fd = self._give_up_descriptor()
        self._loop.call_soon(lambda: os.close(fd))  # our copy; the connection lives
        self._service.on_closed(self, "moved")  # type: ignore[arg-type]
        self._protocol = None  # type: ignore[assignment]  # they would keep each other

    def thaw(self, frozen: Frozen) -> None:
        """In a new transport: be the connection that was frozen in another worker."""
        self.opened = self._loop.now - frozen.age
        self.last_active = self._loop.now - frozen.silent
        self._state = CLOSING if frozen.closing else OPEN
        self._reading = frozen.reading
        self._eof_received = frozen.eof_received
        self._eof_written = frozen.eof_written
        self._writing_paused = frozen.writing_paused
        self._limits = frozen.limits
        self.bytes_in = frozen.bytes_in
        self.bytes_out = frozen.bytes_out
        if frozen.unsent:
            self._out = bytearray(frozen.unsent)
        may_send = not (frozen.unsent or frozen.closing or frozen.eof_written)
        self._unsent = NOTHING if may_send else None
        try:
            self._protocol.transport = self  # type: ignore[assignment]
            self._protocol.thaw(frozen.state)
        except BaseException as exc:
            self._fault("thaw", exc)
        self._watch()

    def is_frozen(self) -> bool:
        """Whether it is on its way to another worker."""
        return self._state is FROZEN

    def _give_up_descriptor(self) -> int:
        """The descriptor is no longer ours, nor a socket object's that was made for the user."""
        fd, self._fd = self._fd, -1
        if self._service.sockets:
            self._service.forget_socket(self)  # type: ignore[arg-type]
        return fd

    def _postpone(self, call: Callable[[], object]) -> None:
        """Do it when, and if, the connection comes back."""
        self._service.postponed.setdefault(self, []).append(call)


def peer_of(frozen: Frozen) -> Any:
    """The peer's address as the transport keeps it."""
    peer = frozen.peer
    if not isinstance(peer, list):
        return peer
    return os.fsdecode(peer[0]) if len(peer) == 1 else tuple(peer)


def facts_of(frozen: Frozen) -> dict[str, Any]:
    """What `get_extra_info` tells beside the transport's own; tuples travel as lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in frozen.facts.items()}

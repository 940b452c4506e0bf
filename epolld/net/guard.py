"""What a service watches over while its connections live: time limits, memory limits, counts.

A service has a guard only if one of these limits is set, and then each of them costs only those
whom it is about: time limits are looked at now and then, on a wheel, and not at each message; and
the buffer of what waits to be sent is watched where it grows, which is the case of the client
that reads too slowly and of no other. See `Guarded` at the end for how that is hooked in.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from epolld.net.buffered import Buffered
from epolld.net.counting import Counting
from epolld.net.deadlines import Deadlines
from epolld.net.loop import EventLoop
from epolld.net.transport import Transport

log = logging.getLogger("epolld.connection")

# Looks at a connection in the time that a message or an answer may take. It is never ended too
# early, and at most about a quarter too late: what begins right after a look is seen at the next.
LOOKS = 8

# A connection at its maximum age is ended when it has been silent for this long; or, if it never
# is, and whatever its protocol says, after LAST_WORDS more.
BETWEEN_MESSAGES = 1.0  # seconds
LAST_WORDS = 10.0  # seconds
JITTER = 0.1  # of the maximum age, earlier or later


class Settings(NamedTuple):
    """Limits in seconds and bytes; 0 is none."""

    first_byte_timeout: float = 0.0
    message_timeout: float = 0.0
    write_timeout: float = 0.0
    max_age: float = 0.0
    write_buffer: int = 0
    write_buffer_soft: int = 0
    write_buffer_soft_time: float = 60.0


class Guard:
    """Watches the connections of one service of one worker.

    `counting` counts them for the limits of clients, `buffered` adds up what waits to be sent in
    the whole worker.
    """

    def __init__(
        self,
        loop: EventLoop,
        settings: Settings,
        counting: Counting | None = None,
        buffered: Buffered | None = None,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._counting = counting
        self.buffered = buffered
        first, message, write, age = settings[:4]
        self._first = Deadlines(loop, first, self._look_for_first_byte) if first else None
        self._age = Deadlines(loop, age, self._look_at_age) if age else None
        self._aging: dict[Transport, float] = {}  # at their maximum age, and when that is over
        self._messages = Deadlines(loop, message, self._look_at_message) if message else None
        # The message that was under way at the last look, and since when it is known.
        self._begun: dict[Transport, tuple[object, float]] = {}
        self._writes = Deadlines(loop, write, self._look_at_write) if write else None
        # Those for whom something waits: what they had taken at some look, and at which.
        self._slow: dict[Transport, tuple[int, float]] = {}
        soft = settings.write_buffer_soft
        self._soft = (
            Deadlines(loop, settings.write_buffer_soft_time, self._end_soft) if soft else None
        )
        self._above_soft: set[Transport] = set()
        self._watches_buffers = bool(write or soft or settings.write_buffer or buffered is not None)

    def transport_type(self, base: type[Transport]) -> type[Transport]:
        """The transports of the service: `base`, or, if buffers are watched, one that tells."""
        return guarded(base) if self._watches_buffers else base

    def begin(self, transport: Transport, moved: bool = False) -> None:
        """A connection is there; `moved` from another worker, it was counted in that."""
        settings = self._settings
        if self._counting is not None and moved:
            self._counting.arrive(transport.get_extra_info("peername"))
        age = self._loop.now - transport.opened
        if self._first is not None and not transport.bytes_in:
            self._first.start(transport, settings.first_byte_timeout - age)
        if self._age is not None:
            self._age.start(transport, settings.max_age * jitter(transport.id) - age)
        if self._messages is not None:
            self._messages.start(transport, settings.message_timeout / LOOKS)
        if moved and transport.get_write_buffer_size():
            self.on_grown(transport)

    def end(self, transport: Transport) -> None:
        """It has ended, or has moved away."""
        if self._counting is not None:
            self._counting.leave(transport.get_extra_info("peername"))
        for deadlines in (self._first, self._age, self._messages, self._writes, self._soft):
            if deadlines is not None:
                deadlines.end(transport)
        self._aging.pop(transport, None)
        self._begun.pop(transport, None)
        self.forget_buffer(transport)

    def cut(self, transport: Transport, cause: str, why: str) -> None:
        """End a connection at once; what waits to be sent is dropped."""
        # The cause is part of the text and no argument: of each, the first are logged.
        text = f"%s: %s: %s, closing ({cause})"
        log.warning(text, transport.service.name, transport.describe_peer(), why)
        transport.lose(TimeoutError(why) if "timeout" in cause else BufferError(why), cause)

    # -- time ------------------------------------------------------------------------------------

    def _is_under_way(self, transport: Transport, deadlines: Deadlines[Transport] | None) -> bool:
        """Whether it is on its way to another worker, whose time it is to judge; look again."""
        if not transport.is_frozen():
            return False
        assert deadlines is not None
        deadlines.start(transport, 0.0)
        return True

    def _look_for_first_byte(self, transport: Transport) -> None:
        if not transport.bytes_in and not self._is_under_way(transport, self._first):
            limit = self._settings.first_byte_timeout
            self.cut(transport, "first_byte_timeout", f"sent nothing for {limit:g}s")

    def _look_at_age(self, transport: Transport) -> None:
        """First it is told; then it is closed between two messages; then in any case."""
        assert self._age is not None
        now = self._loop.now
        if self._is_under_way(transport, self._age) or transport.is_closed():
            return
        if transport not in self._aging:
            theirs = not transport.tell_draining()  # the protocol says goodbye in its own way
            self._aging[transport] = now + LAST_WORDS
            if theirs:
                self._age.start(transport, LAST_WORDS)
                return
        over = now >= self._aging[transport]
        if over and transport.is_closing():
            self.cut(transport, "max_age", "did not take the rest of its answer at max_age")
            return
        idle = transport.silent_for(BETWEEN_MESSAGES) and not transport.get_write_buffer_size()
        if over or idle:
            transport.close_for("max_age")
        self._age.start(transport, LAST_WORDS if over or idle else BETWEEN_MESSAGES)

    def _look_at_message(self, transport: Transport) -> None:
        """Whether the same message has been under way for too long.

        A protocol that knows where messages begin and end tells by `message_under_way()`: None
        between two messages, else an object that is the same for as long as the message is.
        While we do not read, it is not the client who is slow.
        """
        assert self._messages is not None
        if self._is_under_way(transport, self._messages):
            return
        now = self._loop.now
        limit = self._settings.message_timeout
        tell = getattr(transport.get_protocol(), "message_under_way", None)
        message = tell() if tell is not None and transport.is_reading() else None
        if message is None:
            self._begun.pop(transport, None)
        elif transport not in self._begun or self._begun[transport][0] is not message:
            self._begun[transport] = message, now
        elif now - self._begun[transport][1] >= limit:
            self.cut(transport, "message_timeout", f"a message not whole after {limit:g}s")
            return
        self._messages.start(transport, _next_look(limit, now, self._begun.get(transport)))

    def _look_at_write(self, transport: Transport) -> None:
        """Whether it has taken nothing of what waits for it for too long."""
        assert self._writes is not None
        if self._is_under_way(transport, self._writes) or transport not in self._slow:
            return
        now = self._loop.now
        limit = self._settings.write_timeout
        taken, since = self._slow[transport]
        if transport.bytes_out != taken:
            self._slow[transport] = transport.bytes_out, now
        elif now - since >= limit:
            self.cut(transport, "write_timeout", f"took nothing of its answer for {limit:g}s")
            return
        self._writes.start(transport, _next_look(limit, now, self._slow[transport]))

    # -- what waits to be sent -------------------------------------------------------------------

    def on_grown(self, transport: Transport) -> None:
        """More waits to be sent than before; not on the way of an answer that is taken at once."""
        if transport.is_frozen():
            return
        settings = self._settings
        size = transport.get_write_buffer_size()
        if settings.write_buffer and size > settings.write_buffer:
            why = f"{size} bytes wait to be sent, more than write_buffer ({settings.write_buffer})"
            self.cut(transport, "write_buffer", why)
            return
        if self._writes is not None and transport not in self._slow:
            self._slow[transport] = transport.bytes_out, self._loop.now
            self._writes.start(transport, settings.write_timeout / LOOKS)
        if (
            self._soft is not None
            and size > settings.write_buffer_soft
            and transport not in self._above_soft
        ):
            self._above_soft.add(transport)
            self._soft.start(transport, settings.write_buffer_soft_time)
        if self.buffered is not None:
            self.buffered.put(transport, size)

    def on_shrunk(self, transport: Transport) -> None:
        """The peer has taken some of it."""
        size = transport.get_write_buffer_size()
        if not size:
            self.forget_buffer(transport)
            return
        if transport in self._above_soft and size <= self._settings.write_buffer_soft:
            self._above_soft.remove(transport)
            assert self._soft is not None
            self._soft.end(transport)
        if self.buffered is not None:
            self.buffered.put(transport, size)

    def forget_buffer(self, transport: Transport) -> None:
        """Nothing waits any more."""
        if self._slow.pop(transport, None) is not None:
            assert self._writes is not None
            self._writes.end(transport)
        if transport in self._above_soft:
            self._above_soft.remove(transport)
            assert self._soft is not None
            self._soft.end(transport)
        if self.buffered is not None:
            self.buffered.forget(transport)

    def _end_soft(self, transport: Transport) -> None:
        if not self._is_under_way(transport, self._soft):
            settings = self._settings
            self.cut(
                transport,
                "write_buffer",
                f"more than {settings.write_buffer_soft} bytes have waited to be sent for "
                f"{settings.write_buffer_soft_time:g}s (write_buffer_soft)",
            )


def _next_look(limit: float, now: float, known: tuple[object, float] | None) -> float:
    """Seconds until the next look, not after the limit of what is `known` since then."""
    return limit / LOOKS if known is None else min(limit / LOOKS, known[1] + limit - now)


def jitter(id: int) -> float:
    """A factor near 1, the same for a connection in every worker."""
    return 1 + JITTER * ((id * 2654435761 >> 8 & 0xFFFF) / 0x7FFF - 1)


if TYPE_CHECKING:
    Base = Transport
else:
    Base = object


class Guarded(Base):
    """Mixed into a class of transports: tells the guard when a buffer grows, shrinks, or is gone.

    It overrides nothing that an answer passes which the peer takes at once.
    """

    __slots__ = ()

    def _mixed(self, kind: type[Transport]) -> type[Transport]:
        return guarded(super()._mixed(kind))

    def _pause_if_full(self) -> None:
        super()._pause_if_full()
        guard = self._service.guard
        if self._out is not None and guard is not None:
            guard.on_grown(self)

    def _flush(self) -> None:
        super()._flush()
        guard = self._service.guard
        if guard is not None:
            guard.on_shrunk(self)

    def lose(self, exc: BaseException | None, cause: str) -> None:
        super().lose(exc, cause)
        guard = self._service.guard
        if guard is not None:
            guard.forget_buffer(self)

    def _watch(self) -> None:
        guard = self._service.guard
        buffered = None if guard is None else guard.buffered
        if buffered is None or not self._reading or not buffered.is_held(self):
            super()._watch()
            return
        self._reading = False  # for as long as epoll is told
        super()._watch()
        self._reading = not self.is_closed()

    def watch_again(self) -> None:
        """Whether it is held back has changed."""
        self._watch()


_classes: dict[type[Transport], type[Transport]] = {}


def guarded(base: type[Transport]) -> type[Transport]:
    """A class of transports as `base`, with a guard; the same each time."""
    if base not in _classes:
        made: Any = type(f"Guarded{base.__name__}", (Guarded, base), {"__slots__": ()})
        _classes[base] = made
    return _classes[base]

"""Framings: bytes become messages, a callback each, and the answers of a turn leave in one send.

Here is what all of them share; the formats are in `lines.py` and `prefixed.py`. They follow
Twisted's (`twisted.protocols.basic`: LineReceiver, IntNStringReceiver, NetstringReceiver), with
names in the manner of asyncio.

A receive is cut into messages in one pass, and the answers to them are collected: a client that
sends 16 requests in one go costs one recv and one send. A connection between two messages keeps no
buffer, and one in a message no more than `max_length` and one receive.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any, Self

from epolld.net.batches import Batching, batching
from epolld.net.protocol import Protocol, keeps_nothing

log = logging.getLogger("epolld.connection")

# Messages cut off the input in one go. Only these have to be moved when the batch is stopped
# (pause_reading) or put together again (raw mode), so no client can make that cost the square of
# what it sends. If a receive holds more, what is left of it is copied each time.
CUT_AHEAD = 256

# How much is collected before it is sent, so that `pause_writing` has a say before the memory is
# full: pieces, and bytes from which on a piece waits for no other.
COLLECT = 256
SEND_FROM = 4096

NO_ANSWERS: list[bytes] = []  # outside a batch; nobody appends to it

Buffer = bytes | bytearray | memoryview
Delivery = tuple[Callable[[list[Any]], object], list[Any]]  # who takes messages, and which


class Framing(Protocol):
    """The base of the framings; a subclass says how messages are cut off and put together."""

    __slots__ = ("_answers", "_collect_below", "_held", "_rest", "_turn")

    adapt_transport = staticmethod(batching)  # the service calls it with its class of transports
    max_length = 99999  # bytes of a message
    _appends_below = SEND_FROM  # what `_collect_below` is in a batch

    _answers: list[bytes]  # to be sent at the end of the batch
    _collect_below: int  # bytes from which an answer is no matter of a mere append; 0: any is
    _turn: Iterator[Any] | None  # the messages that are being handed out
    # Cut, but not handed out because the batch was stopped. None if nothing was stopped, and then
    # there is no whole message in `_rest` between two callbacks.
    _held: list[Any] | None
    _rest: bytes | bytearray  # not cut yet: mostly the beginning of a message

    def __new__(cls, *args: object, **options: object) -> Self:
        """Set up here, so that an `__init__` of one's own need not call this class's."""
        self = super().__new__(cls)
        self._answers = NO_ANSWERS
        self._collect_below = 0
        self._turn = self._held = None
        self._rest = b""
        return self

    def __init_subclass__(cls, **options: object) -> None:
        """A class with a `pause_writing` of its own may send until that is called: see `_send`."""
        super().__init_subclass__(**options)
        cls._appends_below = SEND_FROM if cls.pause_writing is Framing.pause_writing else 0

    # -- what a format defines -------------------------------------------------------------------

    def _cut(self) -> Delivery | None:
        """Take whole messages off `_rest`, at most CUT_AHEAD; None if there is none."""
        raise NotImplementedError

    def _deliver(self, messages: list[bytes]) -> None:
        """Give whole messages to the callback for them."""
        raise NotImplementedError

    def _uncut(self, messages: list[bytes]) -> bytes:
        """The bytes that these were cut from."""
        raise NotImplementedError

    def _join(self, answers: list[bytes]) -> bytes:
        """What to write for answers that were collected."""
        return b"".join(answers)

    # -- input -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand out what is held back and what is whole now; the rest waits for its end."""
        self._append(data)
        if self._turn is None:  # else it was called by a callback, whose batch goes on with it
            self._serve()

    def _append(self, data: bytes) -> None:
        if not self._rest:
            self._rest = data
        elif data:
            if isinstance(self._rest, bytes):
                self._rest = bytearray(self._rest)
            self._rest += data

    def _serve(self) -> None:
        """Hand out one batch after the other, while there is one and the transport wants it."""
        while True:
            if self._held:
                delivery: Delivery | None = (self._deliver, self._held)
            else:
                delivery = self._cut()
            self._held = None
            if delivery is None:
                return
            deliver, messages = delivery
            deliver(messages)
            if (self._held or self._rest) and self._has_to_wait():
                return

    def _singly(self, receive: Callable[[Any], object]) -> Callable[[list[Any]], object]:
        """Who takes messages and calls `receive` for each."""
        return functools.partial(self._hand_out, receive)

    def _hand_out(self, receive: Callable[[Any], object], messages: list[Any]) -> None:
        """Call back for each message until the batch is stopped; then send the answers."""
        transport: Any = self.transport
        self._turn = turn = iter(messages)
        try:
            transport.batch  # noqa: B018
        except AttributeError:  # somebody else's transport, which does not stop a batch
            self._hand_out_singly(receive, turn)
            return
        transport.batch = self
        answers: list[bytes] = []
        self._answers = answers
        self._collect_below = self._appends_below
        try:
            for message in turn:
                receive(message)
        finally:
            self._turn = transport.batch = None
            self._answers = NO_ANSWERS
            self._collect_below = 0
            if answers:
                self._write(answers)

    def _hand_out_singly(self, receive: Callable[[Any], object], turn: Iterator[Any]) -> None:
        """Send each answer at once, and look after each message whether that was the last."""
        try:
            for message in turn:
                receive(message)
                if self.transport.is_closing():
                    self.stop()
        finally:
            self._turn = None

    def _has_to_wait(self) -> bool:
        """Between two batches: whether the rest has to wait, or to be forgotten."""
        transport = self.transport
        if transport.is_closing():
            self._held, self._rest = None, b""
            return True
        if isinstance(transport, Batching) and not transport.is_reading():
            self._held = self._held or []
            transport.batch = self  # it lets us know
            return True
        return False

    def _look_again(self) -> None:
        """What waits may be a message now; outside a batch, hand it out after this callback."""
        if self._turn is None and (self._held or self._rest) and not self._has_to_wait():
            self._held = self._held or []
            transport = self.transport
            if isinstance(transport, Batching):
                transport.batch = self
                transport.go_on_soon()
            else:
                self._serve()

    # -- what the transport calls ----------------------------------------------------------------

    def flush(self) -> None:
        """Send what was answered up to now; by itself that happens at the end of the batch."""
        if self._answers:
            answers = self._answers.copy()
            self._answers.clear()
            self._write(answers)

    def stop(self) -> None:
        """Hand out no more; the batch ends when the callback in which we are has returned."""
        if self._turn is not None and not self._held:
            self._held = list(self._turn)  # which leaves nothing for the loop

    def discard_input(self) -> None:
        """Forget what has come and is not handed out; `transport.start_tls` calls this."""
        if self._turn is not None:
            for _ in self._turn:  # which leaves nothing for the loop
                pass
        self._held, self._rest = None, b""

    def message_under_way(self) -> object:
        """For `message_timeout`: None between two messages, else an object that is the same for as
        long as the message is. It costs a message nothing: what is cut off leaves another rest,
        and what is added does not, once the rest can grow."""
        if not self._rest or self._held is not None:
            return None
        if isinstance(self._rest, bytes):
            self._rest = bytearray(self._rest)
        return self._rest

    def pause_writing(self) -> None:
        """The client does not take the answers: by default, take no more from it.

        A class that pauses reading for other reasons has to override both, so that they do not
        undo each other.
        """
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self.transport.resume_reading()

    # -- output ----------------------------------------------------------------------------------

    def _send(self, answer: Buffer) -> None:
        """Send what is not merely to be appended: outside a batch, or much, or in doubt.

        Collecting is bounded here; where it is not, somebody else sees to it: `_collect_below`
        bounds the answers, CUT_AHEAD the messages, and whoever asks the transport how full it is
        has all sent first.
        """
        if not isinstance(answer, bytes):
            answer = bytes(memoryview(answer))  # TypeError for all that is not bytes-like
        if self._turn is None or not isinstance(self.transport, Batching):
            self.transport.write(self._join([answer]))
        else:
            self._answers.append(answer)
            if len(answer) >= SEND_FROM or len(self._answers) >= COLLECT:
                self.flush()

    def _write(self, answers: list[bytes]) -> None:
        """Write what was collected, up to anything that is not bytes."""
        transport: Any = self.transport
        try:
            data = self._join(answers)
        except TypeError:
            good = list(itertools.takewhile(lambda each: isinstance(each, Buffer), answers))
            bad = type(answers[len(good)]).__name__
            if good:
                transport.write_through(self._join(good))
            raise TypeError(f"what is sent must be bytes, not {bad}") from None
        transport.write_through(data)

    def _end(self, reason: str, cause: str) -> None:
        """End the connection because of what the peer sent; `cause` is a name of causes.py."""
        transport = self.transport
        if isinstance(transport, Batching):
            log.info(
                "%s: %s: %s, closing", transport.service.name, transport.describe_peer(), reason
            )
            transport.close_for(cause)
        else:
            log.info("%s: %s, closing", transport.get_extra_info("peername"), reason)
            transport.close()

    # -- moving ----------------------------------------------------------------------------------

    def freeze(self) -> bytes | None:
        """As of any protocol: what has no state but the framing's moves by itself.

        A class with state of its own overrides this and `thaw`, and calls these for the framing's
        part: a message that has come in part, messages that are held back, raw mode.
        """
        plain = type(self).freeze is not Framing.freeze or keeps_nothing(self, Framing)
        return self._frozen() if plain and self._turn is None else None

    def thaw(self, state: bytes) -> None:
        """Go on with what `freeze` of this class has returned."""
        self._thawed(state)
        self._look_again()

    def _frozen(self) -> bytes:
        """All there is to know; b"" between two messages."""
        return self._uncut(self._held or []) + self._rest

    def _thawed(self, state: bytes) -> None:
        self._rest = state

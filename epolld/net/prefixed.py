"""Messages with their length before them: as a binary number, or as a netstring's decimal one.

After Twisted's IntNStringReceiver and NetstringReceiver. The length is looked at before anything
of the message is kept, and memory is taken for what has come, not for what is announced.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Literal, Self

from epolld.net.framing import CUT_AHEAD, Buffer, Delivery, Framing

CODECS = {
    (size, order): struct.Struct(sign + letter)
    for order, sign in (("big", ">"), ("little", "<"))
    for size, letter in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))
}

# Of a netstring: its length, and what may become one. No more digits than 64 bits have.
LENGTH = re.compile(rb"(0|[1-9][0-9]{0,19}):")
LENGTH_SO_FAR = re.compile(rb"(0|[1-9][0-9]{0,19})?\Z")


class Malformed(Exception):
    """What came is no frame; the message says why."""


class Prefixed(Framing):
    """What both have in common: a message's length is known before it comes.

    `max_length` is in bytes, of a message without its frame.
    """

    __slots__ = ("_skip",)

    _skip: int  # bytes still to come of a message that is too long
    _trailer = b""  # what stands behind each message

    def __new__(cls, *args: object, **options: object) -> Self:
        self = super().__new__(cls, *args, **options)
        self._skip = 0
        return self

    # -- for the subclass to write ---------------------------------------------------------------

    def message_received(self, message: bytes) -> None:
        """A message has come."""

    def messages_received(self, messages: list[bytes]) -> None:
        """The messages that one receive has made whole have come, at least one and at most 256.

        The default calls `message_received` for each. Write this one in its place to deal with all
        at once, and answer with `send_messages`. All of them are yours then: closing or pausing
        does not take back the later ones.
        """
        self._hand_out(self.message_received, messages)

    def message_length_exceeded(self, length: int) -> None:
        """A message is announced that is longer than `max_length`: it has `length` bytes.

        The default logs that and closes the connection. If it stays open, the message is dropped
        as it comes, and `message_received` is called with the next.
        """
        self._end(
            f"a message of {length} bytes, longer than max_length ({self.max_length})", "too_long"
        )

    # -- for the subclass to call ----------------------------------------------------------------

    def send_message(self, message: Buffer) -> None:
        """Send `message` in its frame. Raises ValueError if no frame can hold it."""
        if not isinstance(message, bytes):
            message = bytes(memoryview(message))  # TypeError for all that is not bytes-like
        frame = self._frame(message)
        if len(message) < self._collect_below:
            self._answers += frame
        else:
            self._send(b"".join(frame))

    def send_messages(self, messages: Iterable[bytes]) -> None:
        """Send all of `messages`, each in its frame, in one piece. Raises as `send_message`."""
        self.transport.write(self._uncut(messages))

    # -- the formats -----------------------------------------------------------------------------

    def _frame(self, message: bytes) -> tuple[bytes, ...]:
        """The pieces of what is sent for a message."""
        raise NotImplementedError

    def _parse(self, data: bytes | bytearray, start: int) -> tuple[int, int] | None:
        """Where the message of the frame at `start` begins and ends; None: too little has come.

        Raises Malformed.
        """
        raise NotImplementedError

    def _cut(self) -> Delivery | None:
        if self._skip:
            self._drop(self._skip)
        try:
            found = self._parse(self._rest, 0)
            if found is None:
                return None
            begin, end = found
            if end - begin > self.max_length:
                self._drop(end + len(self._trailer))
                return self._singly(self.message_length_exceeded), [end - begin]
            if end + len(self._trailer) > len(self._rest):
                return None  # and nothing of it has been copied
            return self.messages_received, self._cut_whole(bytes(self._rest))
        except Malformed as error:
            return self._singly(self._malformed), [str(error)]

    def _cut_whole(self, data: bytes) -> list[bytes]:
        """Take messages off `data`, up to one that is too long, or not there, or no message."""
        messages: list[bytes] = []
        trailer = self._trailer
        start = 0
        try:
            while len(messages) < CUT_AHEAD and (found := self._parse(data, start)):
                begin, end = found
                after = end + len(trailer)
                if end - begin > self.max_length or after > len(data):
                    break
                if data[end:after] != trailer:
                    raise Malformed(f"a message is followed by {data[end:after]!r}")
                messages.append(data[begin:end])
                start = after
        except Malformed:
            if not messages:  # else these come first
                raise
        self._rest = data[start:]
        return messages

    def _drop(self, size: int) -> None:
        """Drop the next `size` bytes, also those that have not come yet."""
        self._skip = max(0, size - len(self._rest))
        self._rest = self._rest[size:]

    def _malformed(self, reason: str) -> None:
        self._end(reason, "protocol_error")

    def _deliver(self, messages: list[bytes]) -> None:
        self.messages_received(messages)

    def _uncut(self, messages: Iterable[bytes]) -> bytes:
        return b"".join(piece for message in messages for piece in self._frame(message))

    def _frozen(self) -> bytes:
        state = super()._frozen()
        return b"%d " % self._skip + state if state or self._skip else b""

    def _thawed(self, state: bytes) -> None:
        if state:
            skip, _, self._rest = state.partition(b" ")
            self._skip = int(skip)


class LengthPrefixedProtocol(Prefixed):
    """Receives messages with a binary length before each; write `message_received`.

    `prefix_bytes` (1, 2, 4 or 8), `byteorder` ("big" or "little") and `max_length` may be set in
    the class or, before the first message comes, on the object. The length does not count the
    prefix. What is sent in a callback leaves when the messages of the same receive have been
    handled, in one piece; whatever is done to `transport` meanwhile keeps its place in the order.
    """

    __slots__ = ()

    prefix_bytes: Literal[1, 2, 4, 8] = 4
    byteorder: Literal["big", "little"] = "big"

    def _codec(self) -> struct.Struct:
        try:
            return CODECS[self.prefix_bytes, self.byteorder]
        except KeyError:
            raise TypeError(
                f"no prefix of {self.prefix_bytes!r} bytes, byte order {self.byteorder!r}: "
                "prefix_bytes is 1, 2, 4 or 8, byteorder 'big' or 'little'"
            ) from None

    def _parse(self, data: bytes | bytearray, start: int) -> tuple[int, int] | None:
        codec = self._codec()
        begin = start + codec.size
        if begin > len(data):
            return None
        (length,) = codec.unpack_from(data, start)
        return begin, begin + length

    def _frame(self, message: bytes) -> tuple[bytes, ...]:
        try:
            return self._codec().pack(len(message)), message
        except struct.error:
            raise ValueError(
                f"a message of {len(message)} bytes is too long for a prefix of "
                f"{self.prefix_bytes} bytes"
            ) from None


class NetstringProtocol(Prefixed):
    """Receives netstrings, such as `5:hello,`; write `message_received`.

    The format is https://cr.yp.to/proto/netstrings.txt. What is none ends the connection: nobody
    can know where the next one begins. All else is as of `LengthPrefixedProtocol`.
    """

    __slots__ = ()

    _trailer = b","

    def _parse(self, data: bytes | bytearray, start: int) -> tuple[int, int] | None:
        match = LENGTH.match(data, start)
        if match:
            return match.end(), match.end() + int(match[1])
        if LENGTH_SO_FAR.match(data, start):
            return None
        raise Malformed(f"no netstring: {bytes(data[start : start + 20])!r}")

    def _frame(self, message: bytes) -> tuple[bytes, ...]:
        return b"%d:" % len(message), message, b","

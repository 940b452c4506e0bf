"""Protocols for the model of moving: what a peer sends to each, and what it must get for that.

Written apart from the protocols: the answer to a text does not depend on how the text was cut, on
who was paused when, or on how often the connection has moved.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from epolld.net.lines import LineProtocol
from epolld.net.prefixed import LengthPrefixedProtocol, NetstringProtocol
from epolld.net.protocol import Protocol
from epolld.net.transport import Transport
from epolld.services.chargen import ROUND, Chargen
from epolld.services.daytime import Daytime
from epolld.services.discard import Discard
from epolld.services.echo import Echo
from epolld.services.qotd import Qotd
from epolld.services.time import Time
from epolld.services.upper import Upper

LONGEST = 30_000  # bytes of a message, where the framing allows so many
PAUSE, RAW = b"p", b"r"  # messages that have the protocol pause reading, or take raw bytes

Event = tuple[int, str]  # which of the protocol's lives, and the callback


class Story:
    """All lives of one connection's protocol."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.lives = 0

    def begin(self) -> int:
        """A new object."""
        self.lives += 1
        return self.lives


class Told:
    """A mixin that writes down each call; its freeze and thaw take along what the base has."""

    story: ClassVar[Story]

    def __init__(self) -> None:
        self.life = self.story.begin()

    def note(self, name: str) -> None:
        self.story.events.append((self.life, name))

    def connection_made(self, transport: Transport) -> None:
        self.note("made")
        super().connection_made(transport)  # type: ignore[misc]

    def eof_received(self) -> bool | None:
        self.note("eof")
        ended: bool | None = super().eof_received()  # type: ignore[misc]
        return ended

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note("lost")

    def pause_writing(self) -> None:
        self.note("pause")
        super().pause_writing()  # type: ignore[misc]

    def resume_writing(self) -> None:
        self.note("resume")
        super().resume_writing()  # type: ignore[misc]

    def freeze(self) -> bytes | None:
        self.note("freeze")
        state: bytes | None = super().freeze()  # type: ignore[misc]
        return state

    def thaw(self, state: bytes) -> None:
        self.note("thaw")
        super().thaw(state)  # type: ignore[misc]


RING = bytes(range(251))


def mix(data: bytes, place: int) -> bytes:
    """Each byte XORed with its place in the stream."""
    first = place % len(RING)
    ring = (RING * (len(data) // len(RING) + 2))[first : first + len(data)]
    mixed = int.from_bytes(data) ^ int.from_bytes(ring)
    return mixed.to_bytes(len(data))


class Counted(Told, Protocol):
    """A stream with state of its own: it must know how much has come before."""

    def __init__(self) -> None:
        super().__init__()
        self.place = 0

    def data_received(self, data: bytes) -> None:
        self.note("data")
        self.transport.write(mix(data, self.place))
        self.place += len(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.resume_reading()

    def freeze(self) -> bytes | None:
        self.note("freeze")
        return b"%d" % self.place

    def thaw(self, state: bytes) -> None:
        super().thaw(b"")
        self.place = int(state)


class PlainLines(LineProtocol):
    """Moves by itself, as what has no state but the framing's."""

    __slots__ = ()
    delimiter = b"\n"
    max_length = LONGEST

    def line_received(self, line: bytes) -> None:
        self.send_line(line.upper())
        if line == PAUSE:
            self.transport.pause_reading()

    def line_length_exceeded(self, line: bytes) -> None:
        self.send_line(b"too long")


class ToldLines(Told, PlainLines):
    """After RAW comes a line with a number, and then so many raw bytes."""

    delimiter = b"\r\n"

    def __init__(self) -> None:
        super().__init__()
        self.left = 0  # raw bytes still to come
        self.number_comes = False

    def line_received(self, line: bytes) -> None:
        self.note("data")
        super().line_received(line)
        if self.number_comes and int(line):
            self.left = int(line)
            self.set_raw_mode()
        self.number_comes = line == RAW

    def raw_data_received(self, data: bytes) -> None:
        self.note("data")
        raw, rest = data[: self.left], data[self.left :]
        self.left -= len(raw)
        self.transport.write(raw)
        if not self.left:
            self.set_line_mode(rest)

    def freeze(self) -> bytes | None:
        state = super().freeze()
        return None if state is None else b"%d %d " % (self.left, self.number_comes) + state

    def thaw(self, state: bytes) -> None:
        left, comes, rest = state.split(b" ", 2)
        self.left, self.number_comes = int(left), bool(int(comes))
        super().thaw(rest)


class PlainPrefixed(LengthPrefixedProtocol):
    """As PlainLines."""

    __slots__ = ()
    max_length = LONGEST

    def message_received(self, message: bytes) -> None:
        self.send_message(message.upper())
        if message == PAUSE:
            self.transport.pause_reading()

    def message_length_exceeded(self, length: int) -> None:
        self.send_message(b"too long")


class ToldPrefixed(Told, PlainPrefixed):
    """With notes."""

    def message_received(self, message: bytes) -> None:
        self.note("data")
        super().message_received(message)


class PlainNetstrings(NetstringProtocol):
    """As PlainLines."""

    __slots__ = ()
    max_length = LONGEST
    message_received = PlainPrefixed.message_received  # type: ignore[assignment]
    message_length_exceeded = PlainPrefixed.message_length_exceeded  # type: ignore[assignment]


class ToldNetstrings(Told, PlainNetstrings):
    """With notes."""

    def message_received(self, message: bytes) -> None:
        self.note("data")
        super().message_received(message)


class Kind(NamedTuple):
    """A protocol, what is sent to it for these messages, and what comes back."""

    protocol: type[Protocol]
    text: Callable[[list[bytes]], bytes]
    answer: Callable[[list[bytes]], bytes]
    longest: int = LONGEST + 10  # bytes of a message, so that some are too long
    says: re.Pattern[bytes] | None = None  # all that it ever says, before it closes
    endless: bytes = b""  # what it sends again and again until the peer has enough


def _speaker(protocol: type[Protocol], says: str = "", endless: bytes = b"") -> Kind:
    """One that does not care for what it is told."""
    pattern = re.compile(says.encode(), re.DOTALL) if says else None
    return Kind(protocol, lambda m: b"", lambda m: b"", says=pattern, endless=endless)


def _upper(message: bytes) -> bytes:
    return message.upper() if len(message) <= LONGEST else b"too long"


def _stream(protocol: type[Protocol], answer: Callable[[bytes], bytes]) -> Kind:
    return Kind(protocol, b"".join, lambda messages: answer(b"".join(messages)))


def _lines(delimiter: bytes, raw: bool) -> Kind:
    def text(messages: list[bytes]) -> bytes:
        return b"".join(_line(message, delimiter, raw, lambda each: each) for message in messages)

    def answer(messages: list[bytes]) -> bytes:
        return b"".join(_line(message, delimiter, raw, _upper) for message in messages)

    return Kind(ToldLines if raw else PlainLines, text, answer)


def _line(message: bytes, delimiter: bytes, raw: bool, said: Callable[[bytes], bytes]) -> bytes:
    """One message as a line, and behind RAW some that is none."""
    line = message.replace(delimiter, b"..")
    if raw and line == RAW:
        piece = delimiter + b"raw" * 10 + delimiter
        return said(RAW) + delimiter + b"%d" % len(piece) + delimiter + piece
    return said(line) + delimiter


def _prefixed(protocol: type[Protocol], size: int, order: Any) -> Kind:
    def frames(messages: list[bytes]) -> bytes:
        return b"".join(len(each).to_bytes(size, order) + each for each in messages)

    settings = {"__slots__": (), "prefix_bytes": size, "byteorder": order}
    cls = type(protocol.__name__, (protocol,), settings)
    longest = min(LONGEST + 10, 256**size - 1)
    return Kind(cls, frames, lambda messages: frames(list(map(_upper, messages))), longest)


def _netstrings(protocol: type[Protocol]) -> Kind:
    def frames(messages: list[bytes]) -> bytes:
        return b"".join(b"%d:%s," % (len(each), each) for each in messages)

    return Kind(protocol, frames, lambda messages: frames(list(map(_upper, messages))))


KINDS: dict[str, Kind] = {
    "echo": _stream(Echo, bytes),
    "upper": _stream(Upper, bytes.upper),
    "discard": _stream(Discard, lambda data: b""),
    "chargen": _speaker(Chargen, endless=ROUND),
    "daytime": _speaker(Daytime, r"\w+, \w+ \d+, \d{4} \d\d:\d\d:\d\d-\w*\r\n"),
    "qotd": _speaker(Qotd, r"We have two ears .*\r\n"),
    "time": _speaker(Time, r".{4}"),
    "counted": _stream(Counted, lambda data: mix(data, 0)),
    "lines": _lines(b"\n", raw=False),
    "lines and raw": _lines(b"\r\n", raw=True),
    "netstrings": _netstrings(PlainNetstrings),
    "told netstrings": _netstrings(ToldNetstrings),
    **{
        f"{protocol.__name__} {size} {order}": _prefixed(protocol, size, order)
        for protocol, order in ((PlainPrefixed, "big"), (ToldPrefixed, "little"))
        for size in (1, 2, 4, 8)
    },
}


def is_legal(events: list[Event]) -> bool:
    """Whether a protocol's lives heard what a single one that did not move would have."""
    names = [name for _, name in events]
    heard = [name for name in names if name not in ("freeze", "thaw")]
    flow = [name for name in heard if name in ("pause", "resume")]
    eof = heard.index("eof") if "eof" in heard else len(heard)
    lives = [life for life, _ in events]
    changes = [place for place in range(1, len(lives)) if lives[place] != lives[place - 1]]
    return (
        heard[:1] == ["made"]
        and heard.count("made") == 1
        and heard.count("lost") <= 1
        and heard.count("eof") <= 1
        and ("lost" not in heard or names[-1] == "lost")
        and "data" not in heard[eof:]
        and flow == ["pause", "resume"] * (len(flow) // 2) + ["pause"] * (len(flow) % 2)
        and lives == sorted(lives)  # an old life is never heard of again
        and all(names[place] == "thaw" for place in changes)
        and all("freeze" in names[:place] for place in changes)
        and names.count("thaw") == len(changes)
    )

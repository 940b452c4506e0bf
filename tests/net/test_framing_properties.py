"""Whatever way the bytes are cut, and whenever the connection moves: the same messages."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from framed import Lines, Netstrings, Prefixed, answer, framed
from hypothesis import given, settings
from hypothesis import strategies as st

from epolld.net.batches import batching


class Memory:
    """A transport without a socket; what is deferred waits for `run`."""

    service = SimpleNamespace(name="test")

    def __init__(self) -> None:
        self.written = b""
        self.reading = True
        self.closing = False
        self.deferred: list[Callable[[], object]] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = not self.closing

    def is_reading(self) -> bool:
        return self.reading

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing, self.reading = True, False

    def describe_peer(self) -> str:
        return "nobody"

    def close_for(self, cause: str) -> None:
        self.close()

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        self.deferred.append(callback)

    def run(self) -> None:
        while self.deferred:
            self.deferred.pop(0)()

    def get_write_buffer_size(self) -> int:
        return 0


BatchingMemory: Any = batching(Memory)  # type: ignore[arg-type]


class Talk:
    """A mixin: answers, pauses at `p`, and closes at `q`."""

    def note(self, kind: str, what: Any) -> None:
        if kind == "raw" and self.got and self.got[-1][0] == "raw":
            self.got[-1] = ("raw", self.got[-1][1] + what)  # its pieces mean nothing
        else:
            super().note(kind, what)
        if kind != "raw":
            answer(self, what)
        if kind == "message" and what == b"p":
            self.transport.pause_reading()
        if kind == "message" and what == b"q":
            self.transport.close()

    def line_length_exceeded(self, line: bytes) -> None:
        self.note("too long", b"")

    def message_length_exceeded(self, length: int) -> None:
        self.note("too long", b"")


class TalkingLines(Talk, Lines):
    """Beside lines, `N` and so many raw bytes; that is state of its own, which it takes along."""

    max_length = 5
    left = 0  # raw bytes still to come

    def line_received(self, line: bytes) -> None:
        super().line_received(line)
        if line.isdigit() and int(line):
            self.left = int(line)
            self.set_raw_mode()

    def raw_data_received(self, data: bytes) -> None:
        raw, extra = data[: self.left], data[self.left :]
        self.left -= len(raw)
        super().raw_data_received(raw)
        if not self.left:
            self.set_line_mode(extra)

    def freeze(self) -> bytes | None:
        state = super().freeze()
        return None if state is None else b"%d " % self.left + state

    def thaw(self, state: bytes) -> None:
        left, _, rest = state.partition(b" ")
        self.left = int(left)
        super().thaw(rest)


class TalkingCrLf(TalkingLines):
    delimiter = b"\r\n"


class TalkingPrefixed(Talk, Prefixed):
    max_length = 5

    def freeze(self) -> bytes | None:
        return super().freeze()


class TalkingNetstrings(Talk, Netstrings):
    max_length = 5

    def freeze(self) -> bytes | None:
        return super().freeze()


CLASSES = [TalkingLines, TalkingCrLf, TalkingPrefixed, TalkingNetstrings]


class Conversation:
    """A protocol that is fed, and that moves; `got` and `sent` are of all its lives."""

    def __init__(self, cls: type[Any]) -> None:
        self.protocol = cls()
        self.transport = BatchingMemory()
        self.protocol.connection_made(self.transport)

    def feed(self, data: bytes) -> None:
        """As the event loop would: not while it is paused."""
        self.resume()
        if data and self.transport.reading:
            self.protocol.data_received(data)

    def resume(self) -> None:
        """Until it does not pause again."""
        self.transport.run()
        while not self.transport.reading and not self.transport.closing:
            self.transport.resume_reading()
            self.transport.run()

    def move(self) -> None:
        """To a new object and a new transport, by bytes alone."""
        state = self.protocol.freeze()
        assert isinstance(state, bytes)
        old, self.protocol = self.protocol, type(self.protocol)()
        transport, self.transport = self.transport, BatchingMemory()
        for name in ("written", "reading", "closing"):
            setattr(self.transport, name, getattr(transport, name))
        self.protocol.got = old.got
        self.protocol.transport = self.transport
        self.protocol.thaw(state)

    def result(self) -> tuple[list[Any], bytes]:
        """After everything."""
        self.resume()
        assert not self.transport.closing or not self.protocol._held
        return self.protocol.got, self.transport.written


MESSAGES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"p", b"p", b"q", b"1", b"12", b"", b"\r", b"\r\r", b"123456", b"x" * 5]),
)


def whole(cls: type[Any], text: bytes) -> tuple[list[Any], bytes]:
    conversation = Conversation(cls)
    conversation.feed(text)
    return conversation.result()


@pytest.mark.parametrize("cls", CLASSES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_cut_and_moved_anywhere(cls: type[Any], data: st.DataObject) -> None:
    text = framed(cls, data.draw(st.lists(MESSAGES, max_size=12), "messages"))
    text += data.draw(st.sampled_from([b"", b"1", b"\r", b"abc"]), "rest")
    wanted = whole(cls, text)
    conversation = Conversation(cls)
    while text:
        size = data.draw(st.integers(1, len(text)), "size")
        conversation.feed(text[:size])
        text = text[size:]
        if data.draw(st.booleans(), "moves"):
            conversation.move()
    assert conversation.result() == wanted


@pytest.mark.parametrize("cls", CLASSES)
def test_byte_by_byte(cls: type[Any]) -> None:
    messages = [b"a", b"", b"3", b"p", b"12345", b"123456", b"\r", b"p", b"p", b"end"]
    text = framed(cls, messages)
    conversation = Conversation(cls)
    for place in range(len(text)):
        conversation.feed(text[place : place + 1])
        conversation.move()
    assert conversation.result() == whole(cls, text)


@pytest.mark.parametrize("cls", [TalkingLines, TalkingCrLf])
@settings(max_examples=100, deadline=None)
@given(text=st.binary(max_size=60), ends=st.lists(st.integers(0, 60), max_size=20))
def test_lines_are_what_split_says(cls: type[Any], text: bytes, ends: list[int]) -> None:
    """The definition, without limits and modes."""

    class Plain(cls):  # type: ignore[misc, valid-type]
        max_length = 100

        def line_received(self, line: bytes) -> None:
            self.got.append(line)

    for end in ends:
        text = text[:end] + cls.delimiter + text[end:]
    conversation = Conversation(Plain)
    for start in range(0, len(text), 7):
        conversation.feed(text[start : start + 7])
    assert conversation.result()[0] == text.split(cls.delimiter)[:-1]

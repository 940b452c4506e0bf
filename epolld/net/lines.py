"""LineProtocol: messages that end with a delimiter, and stretches of raw data between them.

After Twisted's LineReceiver, with one difference: a line that is too long is forgotten up to its
end if the protocol leaves the connection open.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from epolld.net.framing import CUT_AHEAD, Delivery, Framing

# What the input is, and the letters for it in a frozen state.
LINES, RAW, SKIPPING = b"L", b"R", b"S"  # SKIPPING: up to the end of a line that is too long


class LineProtocol(Framing):
    """Receives lines; write `line_received`, and answer with `send_line`.

    `delimiter` and `max_length` (bytes of a line without it) may be set in the class or, before
    the first line comes, on the object. Lines come without the delimiter. What is sent in a
    callback leaves when the lines of the same receive have been handled, in one piece; whatever is
    done to `transport` meanwhile keeps its place in the order.
    """

    __slots__ = ("_mode",)

    delimiter = b"\r\n"
    max_length = 16384

    _mode: bytes

    def __new__(cls, *args: object, **options: object) -> Self:
        self = super().__new__(cls)
        self._mode = LINES
        return self

    # -- for the subclass to write ---------------------------------------------------------------

    def line_received(self, line: bytes) -> None:
        """A line has come."""

    def lines_received(self, lines: list[bytes]) -> None:
        """The lines that one receive has made whole have come, at least one and at most 256.

        The default calls `line_received` for each. Write this one in its place to deal with all at
        once, and answer with `send_lines`: a Python call for each line is half of what a short one
        costs. All of them are yours then: closing or pausing does not take back the later ones,
        and raw mode begins behind the last.
        """
        self._hand_out(self.line_received, lines)

    def raw_data_received(self, data: bytes) -> None:
        """Some bytes have come in raw mode, at least one."""

    def line_length_exceeded(self, line: bytes) -> None:
        """A line is longer than `max_length`; `line` is what there is of it.

        The default logs that and closes the connection. If it stays open, the rest of the line is
        dropped, and `line_received` is called with the next.
        """
        self._end(f"a line longer than max_length ({self.max_length} bytes)", "too_long")

    # -- for the subclass to call ----------------------------------------------------------------

    def send_line(self, line: bytes) -> None:
        """Send `line` and the delimiter. Other bytes-like objects do as long as none changes."""
        if len(line) < self._collect_below:
            self._answers.append(line)
        else:
            self._send(line)

    def send_lines(self, lines: Iterable[bytes]) -> None:
        """Send all of `lines`, each with the delimiter behind it, in one piece."""
        self.transport.write(self.delimiter.join([*lines, b""]))

    def set_raw_mode(self) -> None:
        """Take what comes next, beginning behind the current line, as raw data."""
        if self._mode is not RAW:
            self.stop()
            if self._held:
                self._rest = self._uncut(self._held) + self._rest
                self._held = []
            self._mode = RAW
            self._look_again()

    def set_line_mode(self, extra: bytes = b"") -> None:
        """Take what comes next as lines, beginning with `extra`: raw data that were too many."""
        if self._mode is RAW:
            self._mode = LINES
            self._rest = extra + self._rest
            self._look_again()

    # -- the format ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Cut `data` into lines and hand them out; the usual case is all here, for its speed."""
        if (
            self._rest
            or self._held
            or self._turn is not None
            or self._mode is not LINES
            or len(data) > self.max_length
        ):
            self._unusual_data_received(data)
            return
        lines = data.split(self.delimiter, CUT_AHEAD)
        self._rest = lines.pop()
        if lines:
            self.lines_received(lines)
        if (self._held is not None or len(lines) == CUT_AHEAD) and not self._has_to_wait():
            self._serve()

    def _unusual_data_received(self, data: bytes) -> None:
        """Look for the end of a line only in what is new, and copy nothing before it is there."""
        searched = len(self._rest)
        self._append(data)
        delimiter = self.delimiter
        if (
            searched
            and self._mode is LINES
            and self._held is None
            and self._rest.find(delimiter, max(0, searched - len(delimiter) + 1)) < 0
            and len(self._rest) < self.max_length + len(delimiter)
        ):
            return
        if self._turn is None:
            self._serve()
        else:
            self.stop()  # it was called by a callback: have its batch go on with this

    def _cut(self) -> Delivery | None:
        rest = bytes(self._rest)
        if self._mode is SKIPPING:
            rest = self._skip(rest)
        if not rest:
            return None
        if self._mode is RAW:
            self._rest = b""
            return self._singly(self.raw_data_received), [rest]
        lines = rest.split(self.delimiter, CUT_AHEAD)
        self._rest = lines.pop()
        if len(rest) > self.max_length and max(map(len, (*lines, self._rest))) > self.max_length:
            return self._cut_too_long(lines)
        return (self.lines_received, lines) if lines else None

    def _cut_too_long(self, lines: list[bytes]) -> Delivery | None:
        """Either the lines before the first that is too long, or that one."""
        for number, line in enumerate(lines):
            if len(line) > self.max_length:
                count = max(1, number)
                self._rest = self._uncut(lines[count:]) + self._rest
                if number:
                    return self.lines_received, lines[:count]
                return self._singly(self.line_length_exceeded), [line]
        if lines:
            return self.lines_received, lines
        line = bytes(self._rest)
        if len(line) < self.max_length + len(self.delimiter):  # may end with a piece of that
            return None
        self._mode = SKIPPING
        self._skip(line)
        return self._singly(self.line_length_exceeded), [line]

    def _skip(self, data: bytes) -> bytes:
        """Drop the rest of a line that is too long; returns what comes after it."""
        _, found, after = data.partition(self.delimiter)
        if found:
            self._mode = LINES
            self._rest = after
        else:  # but the delimiter may have come in part
            self._rest = data[len(data) - len(self.delimiter) + 1 :]
        return after

    def _deliver(self, messages: list[bytes]) -> None:
        self.lines_received(messages)

    def _uncut(self, messages: list[bytes]) -> bytes:
        return self.delimiter.join([*messages, b""])

    def _join(self, answers: list[bytes]) -> bytes:
        answers.append(b"")
        return self.delimiter.join(answers)

    def _frozen(self) -> bytes:
        state = super()._frozen()
        return self._mode + state if state or self._mode is not LINES else b""

    def _thawed(self, state: bytes) -> None:
        if state:
            # The very objects: they are compared with `is`.
            self._mode = {mode: mode for mode in (LINES, RAW, SKIPPING)}[state[:1]]
            self._rest = state[1:]

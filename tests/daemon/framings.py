"""A protocol of each framing, for the tests of hand-overs; each answers in upper case."""

from epolld import LengthPrefixedProtocol, LineProtocol, NetstringProtocol


class Lines(LineProtocol):
    """Beside lines, `DATA n`, and n bytes behind it that are answered as one line."""

    __slots__ = ("_left",)

    delimiter = b"\n"

    def __init__(self) -> None:
        self._left = 0  # raw bytes still to come

    def line_received(self, line: bytes) -> None:
        if line.startswith(b"DATA "):
            self._left = int(line[5:])
            self.set_raw_mode()
        else:
            self.send_line(line.upper())

    def raw_data_received(self, data: bytes) -> None:
        data, extra = data[: self._left], data[self._left :]
        self._left -= len(data)
        self.transport.write(data.upper())
        if not self._left:
            self.set_line_mode(extra)

    def freeze(self) -> bytes | None:
        state = super().freeze()
        return None if state is None else b"%d %s" % (self._left, state)

    def thaw(self, state: bytes) -> None:
        left, _, rest = state.partition(b" ")
        self._left = int(left)
        super().thaw(rest)


class Prefixed(LengthPrefixedProtocol):
    __slots__ = ()

    def message_received(self, message: bytes) -> None:
        self.send_message(message.upper())


class Netstrings(NetstringProtocol):
    __slots__ = ()

    def message_received(self, message: bytes) -> None:
        self.send_message(message.upper())

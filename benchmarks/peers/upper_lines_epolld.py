"""The line server on epolld, as a user would write it."""

from epolld import LineProtocol


class Upper(LineProtocol):
    """Answers each line with the line in upper case."""

    __slots__ = ()

    delimiter = b"\n"

    def line_received(self, line: bytes) -> None:
        self.send_line(line.upper())


class UpperTogether(LineProtocol):
    """The same for all lines of a receive at once."""

    __slots__ = ()

    delimiter = b"\n"

    def lines_received(self, lines: list[bytes]) -> None:
        self.send_lines([line.upper() for line in lines])

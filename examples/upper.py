"""Ten lines: every byte that comes in goes out again in upper case."""

from epolld import Protocol


class Upper(Protocol):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())

"""echo: every byte that comes in goes out again (RFC 862)."""

from __future__ import annotations

from epolld.net.protocol import Protocol


class Echo(Protocol):
    """Answers with what was sent, until the client has sent all."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    # Who does not read the echo is not read either; see `upper`.

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

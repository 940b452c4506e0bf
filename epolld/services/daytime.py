"""daytime: says what time it is, in words, and closes (RFC 867)."""

from __future__ import annotations

import time

from epolld.net.protocol import Protocol
from epolld.net.transport import Transport

# "Tuesday, February 22, 1982 17:37:43-PST", the form that the RFC suggests (it demands none).
FORMAT = "%A, %B %d, %Y %H:%M:%S-%Z"


class Daytime(Protocol):
    """Sends one line of ASCII, ended by CRLF, and closes. Input is ignored, as the RFC says.

    `format` is strftime(3)'s. Names of days and months are English, because the process stays in
    the C locale; the time zone is that of the machine (`TZ`). What is not ASCII is sent as `?`.
    """

    __slots__ = ("_format",)

    def __init__(self, *, format: str = FORMAT) -> None:
        self._format = format

    def connection_made(self, transport: Transport) -> None:
        line = time.strftime(self._format)
        transport.write(line.encode("ascii", "replace") + b"\r\n")
        transport.close()  # after what was written is sent

    def freeze(self) -> bytes:
        return b""  # all is said; what is not sent yet travels by itself

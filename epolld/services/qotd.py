"""qotd: sends the quote of the day and closes (RFC 865)."""

from __future__ import annotations

import functools
import time

from epolld.errors import PathError
from epolld.net.protocol import Protocol
from epolld.net.transport import Transport

LIMIT = 512  # a quote is shorter than this, in bytes: RFC 865 says characters, and means ASCII
DAY = 24 * 60 * 60  # seconds
DEFAULT = ("We have two ears and one mouth, so that we can listen twice as much as we speak.",)


def split_quotes(text: str) -> tuple[str, ...]:
    """The quotes of a fortune(6) file: what lies between lines that hold a `%` alone."""
    quotes = [""]
    for line in text.splitlines():
        if line.rstrip() == "%":
            quotes.append("")
        else:
            quotes[-1] += line.rstrip() + "\n"
    return tuple(quote.strip("\n") for quote in quotes if quote.strip())


def render(quote: str) -> bytes:
    """A quote as it is sent: lines end with CRLF, and it is shorter than LIMIT.

    What is not ASCII is sent as UTF-8, though the RFC, of 1983, recommends ASCII. A quote that
    is too long is cut after a whole character and ends with "...".
    """
    data = ("\r\n".join(quote.splitlines()) + "\r\n").encode("utf-8", "replace")
    if len(data) < LIMIT:
        return data
    ending = b"...\r\n"
    head = data[: LIMIT - 1 - len(ending)].decode("utf-8", "ignore").rstrip()
    return head.encode() + ending


@functools.cache  # read once a worker and not once a connection
def read_quotes(file: str) -> tuple[str, ...]:
    """The quotes in a file. Raises PathError."""
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            quotes = split_quotes(stream.read())
    except OSError as error:
        raise PathError(f"cannot read the quotes in {file}: {error.strerror}") from None
    if not quotes:
        raise PathError(f"{file} holds no quotes; separate them by lines that hold a % alone")
    return quotes


class Qotd(Protocol):
    """Sends one quote and closes. Input is ignored, as the RFC says.

    The quotes are those of `file` (as for fortune(6)), then those of `quotes`. All clients get
    the same quote on the same day (UTC), whichever worker serves them, and the next one tomorrow.
    """

    __slots__ = ("_quotes",)

    def __init__(self, *, file: str | None = None, quotes: list[str] | None = None) -> None:
        self._quotes = (read_quotes(file) if file is not None else ()) + tuple(
            quotes or ()
        ) or DEFAULT

    def connection_made(self, transport: Transport) -> None:
        today = int(time.time()) // DAY
        transport.write(render(self._quotes[today % len(self._quotes)]))
        transport.close()

    def freeze(self) -> bytes:
        return b""  # all is said; what is not sent yet travels by itself

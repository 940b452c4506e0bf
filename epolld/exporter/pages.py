"""As much of HTTP/1.1 as scrapers and probes need, as one more protocol on our own event loop.

GET and HEAD of three pages, one answer after the other on a connection, and nothing that a peer
could make large. Knows no metrics: a page is a function.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from epolld.net.protocol import Protocol
from epolld.net.transport import Transport

log = logging.getLogger("epolld.exporter")

MAX_HEAD = 8192  # bytes of a request, which has no body
PATIENCE = 10.0  # seconds for a request to come, from the answer before on


class Answer(NamedTuple):
    """What a page says."""

    status: HTTPStatus
    content_type: str
    body: bytes


# By path; the argument is the request's Accept header.
Pages = Mapping[str, Callable[[str], Answer]]


def plain(status: HTTPStatus, text: str) -> Answer:
    """A line of text."""
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


class Http(Protocol):
    """One connection of a scraper."""

    def __init__(self, pages: Pages, leaving: Callable[[], bool]) -> None:
        self._pages = pages
        self._leaving = leaving  # no further request on this connection
        self._head = bytearray()
        self._answered = False  # at least one request

    def leave(self) -> None:
        """Let the connection end: at once between two requests, else after the answer."""
        if self._answered and not self._head:
            self.transport.close()

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self._timer = transport.call_later(PATIENCE, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._head += data
        while not self.transport.is_closing():
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                if len(self._head) > MAX_HEAD:
                    self._send(plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too long"))
                return
            self._head = rest
            self._answer(head.decode("latin-1"))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._timer.cancel()

    def _answer(self, head: str) -> None:
        request, *lines = head.split("\r\n")
        words = request.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._send(plain(HTTPStatus.BAD_REQUEST, "not a request of HTTP/1.1"))
            return
        method, target, version = words
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        if method not in ("GET", "HEAD") or "transfer-encoding" in fields:
            self._send(plain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD, without a body"))
            return
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            answer = plain(HTTPStatus.NOT_FOUND, f"there are {' '.join(self._pages)}")
        else:
            try:
                answer = page(fields.get("accept", ""))
            except Exception:
                log.exception("cannot answer %.100r", target)
                answer = plain(HTTPStatus.INTERNAL_SERVER_ERROR, "see the log")
        connection = fields.get("connection", "").lower()
        keep = version == "HTTP/1.1" and connection != "close" and "content-length" not in fields
        self._send(answer, method == "HEAD", keep and not self._leaving())

    def _send(self, answer: Answer, head_only: bool = False, keep: bool = False) -> None:
        status, content_type, body = answer
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self.transport.write(head.encode() + (b"" if head_only else body))
        self._answered = True
        self._timer.cancel()
        if keep:
            self._timer = self.transport.call_later(PATIENCE, self.transport.abort)
        else:
            self.transport.close()

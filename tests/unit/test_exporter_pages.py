"""The exporter's HTTP, byte by byte: what scrapers send, and what they must not."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from epolld.exporter.pages import MAX_HEAD, Http, plain


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def call_later(self, delay: float, callback: Any) -> Wire:
        return self

    def cancel(self) -> None:
        pass


def broken(_accept: str) -> Any:
    raise RuntimeError("no")


def serve(leaving: bool = False) -> tuple[Http, Wire]:
    pages = {"/a": lambda accept: plain(HTTPStatus.OK, f"a{accept}"), "/broken": broken}
    http, wire = Http(pages, lambda: leaving), Wire()
    http.connection_made(wire)  # type: ignore[arg-type]
    return http, wire


def ask(request: bytes, leaving: bool = False) -> tuple[bytes, bytes, Wire]:
    http, wire = serve(leaving)
    http.data_received(request)
    head, _, body = wire.sent.partition(b"\r\n\r\n")
    return head, body, wire


def test_a_page_and_the_connection_stays() -> None:
    head, body, wire = ask(b"GET /a?x=1 HTTP/1.1\r\nHost: x\r\nACCEPT: text\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"atext\n"
    assert b"Content-Length: 6\r\n" in head
    assert not wire.closed


def test_requests_in_pieces_and_in_one_piece() -> None:
    http, wire = serve()
    request = b"GET /a HTTP/1.1\r\n\r\n"
    for byte in request:
        http.data_received(bytes([byte]))
    http.data_received(request * 3)
    assert wire.sent.count(b"HTTP/1.1 200 OK") == 4


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /b HTTP/1.1", b"404"),
        (b"POST /a HTTP/1.1", b"405"),
        (b"GET /a", b"400"),
        (b"\x16\x03\x01 TLS", b"400"),
        (b"GET /broken HTTP/1.1", b"500"),
    ],
)
def test_what_is_refused(request_line: bytes, status: bytes) -> None:
    head, _, _ = ask(request_line + b"\r\n\r\n")
    assert head.split(b" ")[1] == status


def test_a_head_has_a_limit() -> None:
    head, _, wire = ask(b"GET /a HTTP/1.1\r\n" + b"x" * MAX_HEAD)
    assert head.startswith(b"HTTP/1.1 431 ")
    assert wire.closed


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET /a HTTP/1.0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nGET /a HTTP/1.1\r\n\r\n",
    ],
)
def test_when_the_connection_ends_after_the_answer(request_text: bytes) -> None:
    head, body, wire = ask(request_text)
    assert b"Connection: close" in head
    assert body == b"a\n"
    assert wire.closed


def test_head_has_no_body() -> None:
    head, body, _ = ask(b"HEAD /a HTTP/1.1\r\n\r\n")
    assert b"Content-Length: 2\r\n" in head
    assert body == b""


def test_who_leaves_answers_once_more_and_closes() -> None:
    head, _, wire = ask(b"GET /a HTTP/1.1\r\n\r\n", leaving=True)
    assert b"200 OK" in head
    assert wire.closed
    http, fresh = serve()
    http.leave()
    assert not fresh.closed  # its first request is still to come
    http.data_received(b"GET /a HTTP/1.1\r\n\r\n")
    http.leave()
    assert fresh.closed

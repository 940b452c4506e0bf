"""Framings over TLS: batches, pauses and ends are as on a plain connection; STARTTLS by lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from certificates import Authority
from test_tls import Stage
from tls_peer import TlsPeer
from wiring import settle, tcp_pair

from epolld.net.handshake import Handshake
from epolld.net.lines import LineProtocol
from epolld.net.loop import EventLoop
from epolld.net.tls import TlsTransport


class Words(LineProtocol):
    """Answers lines; some are commands."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.ended = self.secured = False

    def line_received(self, line: bytes) -> None:
        self.lines.append(line)
        if line == b"STARTTLS":
            self.send_line(b"go ahead")
            self.transport.start_tls(self.on_secured)
            return
        if line == b"pause":
            self.transport.pause_reading()
        self.send_line(line.upper())

    def on_secured(self) -> None:
        self.secured = True
        self.send_line(b"welcome")

    def eof_received(self) -> bool | None:
        self.ended = True
        return None


@pytest.fixture(name="words")
def _words(
    loop: EventLoop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., tuple[Stage, Words]]]:
    ca = Authority(tmp_path_factory.mktemp("ca"))
    pair = ca.issue("x")
    made: list[Stage] = []

    def make(**settings: Any) -> tuple[Stage, Words]:
        s = Stage(loop, ca, pair, {}, **settings)
        s.transport.abort()
        settle(loop)
        s.theirs.close()
        protocol = Words()
        s.service._factory = lambda: protocol
        s.sock, s.theirs = tcp_pair()
        s.service.open(s.sock.detach(), ("192.0.2.7", 4711))
        (s.transport,) = s.service.transports
        s.peer = TlsPeer(s.theirs, ca.client())
        made.append(s)
        return s, protocol

    yield make
    for each in made:
        each.transport.abort()
        settle(loop)
        each.theirs.close()


def secure(s: Stage) -> None:
    s.until(lambda: s.peer.shake_hands() and isinstance(s.transport, TlsTransport))


def test_a_batch_is_one_record(words: Any) -> None:
    s, protocol = words()
    secure(s)
    s.peer.say(b"one\r\ntwo\r\nthr")
    s.answer(b"ONE\r\nTWO\r\n")
    s.peer.say(b"ee\r\n")
    s.answer(b"ONE\r\nTWO\r\nTHREE\r\n")
    assert protocol.lines == [b"one", b"two", b"three"]


def test_a_pause_amid_a_batch_holds_back_lines_and_the_end(words: Any) -> None:
    s, protocol = words()
    secure(s)
    s.theirs.sendall(s.peer.seal(b"one\r\npause\r\ntwo\r\npause\r\nthree\r\n") + s.peer.goodbye())
    s.until(lambda: protocol.lines == [b"one", b"pause"])
    settle(s.loop)
    assert protocol.lines == [b"one", b"pause"]
    s.transport.resume_reading()
    s.until(lambda: len(protocol.lines) == 4)
    settle(s.loop)
    assert not protocol.ended
    s.transport.resume_reading()
    s.until(lambda: protocol.ended)
    assert protocol.lines[-1] == b"three"
    s.ended()
    assert s.service.closed["eof"] == 1


def test_lines_behind_starttls_are_thrown_away(words: Any) -> None:
    s, protocol = words(starttls=True)
    s.theirs.sendall(b"hello\r\nSTARTTLS\r\nevil\r\nworse\r\nhal")
    s.until(lambda: isinstance(s.transport, Handshake))
    got = b""
    s.theirs.setblocking(True)
    s.theirs.settimeout(5)
    while not got.endswith(b"go ahead\r\n"):
        got += s.theirs.recv(100)
    s.theirs.setblocking(False)
    assert got == b"HELLO\r\ngo ahead\r\n"
    secure(s)
    s.peer.say(b"good\r\n")
    s.answer(b"welcome\r\nGOOD\r\n")
    assert protocol.lines == [b"hello", b"STARTTLS", b"good"]
    assert protocol.secured
    s.peer.say(b"pause\r\nmore\r\n")  # batches work over TLS, too
    s.until(lambda: protocol.lines[-1] == b"pause")
    s.transport.resume_reading()
    s.until(lambda: protocol.lines[-1] == b"more")

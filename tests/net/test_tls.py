"""The transport with TLS: every way in which bytes, ends and errors can come."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from certificates import Authority
from tls_peer import TlsPeer
from wiring import Notes, narrow, reset, run_until, settle, tcp_pair, turn, unix_pair

from epolld.causes import REFUSALS
from epolld.net.handshake import Handshake, Plain, TlsServer
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.tls import TlsTransport

BIG = bytes(range(256)) * 4096  # 1 MiB
ECHO: dict[str, Callable[..., Any]] = {"data_received": lambda p, data: p.transport.write(data)}


@pytest.fixture(name="ca", scope="session")
def _ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(name="pair", scope="session")
def _pair(ca: Authority) -> dict[str, str]:
    return ca.issue("x")


class Stage:
    """A service that speaks TLS, one connection of it, and its client."""

    def __init__(
        self,
        loop: EventLoop,
        ca: Authority,
        pair: dict[str, str],
        on: dict[str, Callable[..., Any]],
        sockets: Callable[[], Any] = tcp_pair,
        maximum: ssl.TLSVersion | None = None,
        **settings: Any,
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair["certificate"], pair["key"])
        self.loop = loop
        self.notes = Notes(**on)
        self.service = Service(loop, "test", lambda: self.notes)
        self.server = TlsServer(loop, context, **settings)
        self.service.speak_tls(self.server)
        self.sock, self.theirs = sockets()
        client = ca.client()
        if maximum is not None:
            client.maximum_version = maximum
        self.peer = TlsPeer(self.theirs, client)
        # The service owns the descriptor from here on.
        self.service.open(self.sock.detach(), ("192.0.2.7", 4711))
        (transport,) = self.service.transports
        self.transport: Any = transport

    def secure(self) -> Stage:
        """Shake hands, to the end."""
        self.until(lambda: self.peer.shake_hands() and type(self.transport) is TlsTransport)
        return self

    def until(self, condition: Callable[[], object]) -> None:
        run_until(self.loop, condition, f"{self.notes.trace} {self.peer.end}")

    def ended(self) -> None:
        """Until the protocol was told of the end, or would have been."""
        self.until(lambda: not self.service.live)

    def answer(self, data: bytes) -> None:
        """Until the client has so much."""
        self.until(lambda: self.peer.read() or len(self.peer.data) >= len(data))
        assert self.peer.data == data


@pytest.fixture(name="stage")
def _stage(loop: EventLoop, ca: Authority, pair: dict[str, str]) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(settings: dict[str, Any] | None = None, **on: Callable[..., Any]) -> Stage:
        made.append(Stage(loop, ca, pair, on, **(settings or {})))
        return made[-1]

    yield make
    for each in made:
        each.transport.abort()
        settle(loop)
        each.theirs.close()


V12 = {"maximum": ssl.TLSVersion.TLSv1_2}
V13 = {"maximum": ssl.TLSVersion.TLSv1_3}
versions = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])


@versions
@pytest.mark.parametrize("size", [1, 64, 479, 16384, 16385, 1 << 20])
def test_echo(stage: Callable[..., Stage], version: dict[str, Any], size: int) -> None:
    s = stage(version, **ECHO).secure()
    data = (BIG * 2)[:size]
    s.peer.sock.setblocking(True)
    sealed = s.peer.seal(data)
    s.peer.sock.setblocking(False)
    rest = memoryview(sealed)

    def feed() -> bool:
        nonlocal rest
        if rest:
            with contextlib.suppress(BlockingIOError):
                rest = rest[s.theirs.send(rest) :]
        s.peer.read()
        return len(s.peer.data) >= size

    s.until(feed)
    assert s.peer.data == data
    assert s.notes.names[0] == "connection_made"
    assert s.transport.bytes_in > size
    assert s.transport.bytes_out > size


def test_the_protocol_hears_nothing_before_the_handshake_is_done(
    stage: Callable[..., Stage],
) -> None:
    s = stage(**ECHO)
    assert type(s.transport) is Handshake
    assert s.server.pending == 1
    assert s.transport.describe_state() == "handshake"
    s.until(lambda: s.peer.read() or s.transport.bytes_out)
    assert s.notes.trace == []
    s.secure()
    assert s.notes.names == ["connection_made"]
    assert s.server.pending == 0
    assert (s.service.live, s.service.accepted, s.service.refused) == (1, 1, {})


@versions
def test_every_byte_on_its_own(stage: Callable[..., Stage], version: dict[str, Any]) -> None:
    """From the client's hello to its goodbye, one byte a turn."""
    s = stage(version, **ECHO)

    def send(data: bytes) -> None:
        for byte in data:
            s.theirs.sendall(bytes([byte]))
            turn(s.loop)

    while not s.peer.secured:
        s.peer.step()
        send(s.peer.sealed())
        settle(s.loop, 3)
        s.peer.take()
    send(s.peer.seal(b"hello") + s.peer.seal(b" there"))
    s.answer(b"hello there")
    send(s.peer.goodbye())
    s.ended()
    assert s.notes.names == ["connection_made", "data_received", "eof_received", "connection_lost"]
    assert s.notes.exc is None


def test_records_that_come_together_are_one_call(stage: Callable[..., Stage]) -> None:
    calls: list[bytes] = []
    s = stage(data_received=lambda p, data: calls.append(data)).secure()
    s.theirs.sendall(b"".join(s.peer.seal(b"%d," % i) for i in range(10)))
    s.until(lambda: calls)
    assert calls == [b"0,1,2,3,4,5,6,7,8,9,"]


def test_the_end_that_comes_with_data_comes_after_them(stage: Callable[..., Stage]) -> None:
    s = stage(**ECHO).secure()
    s.theirs.sendall(s.peer.seal(b"one") + s.peer.seal(b"two") + s.peer.goodbye())
    s.ended()
    assert s.notes.names == ["connection_made", "data_received", "eof_received", "connection_lost"]
    assert s.service.closed == {"eof": 1}
    s.until(s.peer.read)
    assert (s.peer.data, s.peer.end) == (b"onetwo", "close_notify")


def test_data_that_come_with_the_clients_finished(stage: Callable[..., Stage]) -> None:
    """A client may send its first request right behind its last handshake message."""
    s = stage(**ECHO)
    s.peer.step()
    s.theirs.sendall(s.peer.sealed())
    s.until(lambda: s.peer.take())
    s.peer.step()
    assert s.peer.secured
    s.theirs.sendall(s.peer.seal(b"at once"))
    s.answer(b"at once")


@versions
def test_half_close_by_the_peer(stage: Callable[..., Stage], version: dict[str, Any]) -> None:
    s = stage(version, eof_received=lambda p: True).secure()
    s.theirs.sendall(s.peer.seal(b"all I have") + s.peer.goodbye())
    s.until(lambda: "eof_received" in s.notes.names)
    settle(s.loop)
    assert not s.transport.is_closing()
    s.transport.write(BIG)
    s.transport.close()
    s.until(lambda: s.peer.read() == "close_notify")
    assert s.peer.data == BIG
    s.ended()
    assert s.service.closed == {"closed": 1}


def test_half_close_by_us(stage: Callable[..., Stage]) -> None:
    s = stage(V13).secure()
    assert s.transport.can_write_eof()
    s.transport.write(BIG)
    s.transport.write_eof()
    s.transport.write_eof()
    with pytest.raises(RuntimeError):
        s.transport.write(b"x")
    s.until(lambda: s.peer.read() == "close_notify")
    assert s.peer.data == BIG
    s.peer.say(b"still heard")
    s.until(lambda: s.notes.data == b"still heard")
    s.theirs.sendall(s.peer.goodbye())
    s.ended()
    assert s.service.closed == {"eof": 1}


def test_close_sends_what_is_buffered_and_close_notify(stage: Callable[..., Stage]) -> None:
    s = stage().secure()
    s.transport.write(BIG * 8)
    s.transport.write(BIG)
    assert s.transport.get_write_buffer_size() > 0
    s.transport.close()
    s.transport.close()
    s.transport.write(b"dropped")
    s.until(lambda: s.peer.read() == "close_notify")
    assert s.peer.data == BIG * 9
    s.ended()
    assert s.notes.exc is None


def test_abort_sends_no_close_notify(stage: Callable[..., Stage]) -> None:
    s = stage().secure()
    s.transport.abort()
    s.transport.write(b"dropped")
    s.ended()
    s.until(s.peer.read)
    assert s.peer.end == "EOF"
    assert s.service.closed == {"aborted": 1}


def test_an_end_without_close_notify_is_an_error(stage: Callable[..., Stage]) -> None:
    s = stage(**ECHO).secure()
    s.peer.say(b"hello")
    s.theirs.close()
    s.ended()
    assert s.notes.names == ["connection_made", "data_received", "connection_lost"]
    assert isinstance(s.notes.exc, ssl.SSLEOFError)
    assert s.service.closed in ({"truncated": 1}, {"reset": 1})


def test_a_reset(stage: Callable[..., Stage]) -> None:
    s = stage().secure()
    reset(s.theirs)
    s.ended()
    assert isinstance(s.notes.exc, ConnectionResetError)
    assert s.service.closed == {"reset": 1}


def test_a_damaged_record_ends_the_connection_with_an_alert(stage: Callable[..., Stage]) -> None:
    s = stage(**ECHO).secure()
    sealed = bytearray(s.peer.seal(b"hello"))
    sealed[-1] ^= 1
    s.theirs.sendall(sealed)
    s.ended()
    assert s.notes.data == b""
    assert isinstance(s.notes.exc, ssl.SSLError)
    assert s.service.closed == {"protocol_error": 1}
    s.until(s.peer.read)
    assert "ALERT_BAD_RECORD_MAC" in s.peer.end


def test_pausing_stops_data_and_ends_until_they_are_wanted(stage: Callable[..., Stage]) -> None:
    s = stage(data_received=lambda p, data: p.transport.pause_reading()).secure()
    s.peer.say(b"one")
    s.until(lambda: s.notes.data)
    s.theirs.sendall(s.peer.seal(b"two") + s.peer.seal(b"three") + s.peer.goodbye())
    settle(s.loop)
    assert s.notes.data == b"one"
    s.transport.resume_reading()
    s.until(lambda: s.notes.data == b"onetwothree")
    settle(s.loop)
    assert "eof_received" not in s.notes.names
    s.transport.resume_reading()
    s.ended()
    assert s.notes.names[-2:] == ["eof_received", "connection_lost"]


def test_paused_from_the_first_call_on(stage: Callable[..., Stage]) -> None:
    """Data that came with the end of the handshake wait in memory; no event tells of them."""
    s = stage(connection_made=lambda p: p.transport.pause_reading())
    s.peer.step()
    s.theirs.sendall(s.peer.sealed())
    s.until(lambda: s.peer.take())
    s.peer.step()
    assert s.peer.secured
    s.theirs.sendall(s.peer.seal(b"at once") + s.peer.goodbye())
    settle(s.loop)
    assert s.notes.names == ["connection_made"]
    s.transport.resume_reading()
    s.ended()
    assert s.notes.data == b"at once"


def test_a_slow_reader_pauses_the_writer(stage: Callable[..., Stage]) -> None:
    s = stage().secure()
    narrow(s.theirs)
    while "pause_writing" not in s.notes.names:
        s.transport.write(b"x" * 5000)
    s.until(lambda: s.peer.read() or "resume_writing" in s.notes.names)
    assert s.transport.get_write_buffer_limits() == (16384, 65536)


def test_a_huge_write_exists_only_once_more(stage: Callable[..., Stage]) -> None:
    s = stage().secure()
    data = bytes(64 << 20)
    tracemalloc.start()
    try:
        s.transport.write(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.15 * len(data)  # the buffer, which grows by an eighth at a time


def test_writes_inside_callbacks_and_after_them_keep_their_order(
    stage: Callable[..., Stage],
) -> None:
    s = stage(connection_made=lambda p: p.transport.writelines([b"a", bytearray(b"b")])).secure()
    s.transport.write(memoryview(b"c"))
    s.transport.write(b"")
    s.answer(b"abc")
    with pytest.raises(TypeError):
        s.transport.write("text")


def test_an_exception_ends_the_connection(
    stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture
) -> None:
    s = stage(data_received=lambda p, data: 1 / 0).secure()
    s.peer.say(b"x")
    s.ended()
    assert s.service.closed == {"callback_error": 1}
    assert "data_received of Notes raised ZeroDivisionError" in caplog.text


def test_facts(stage: Callable[..., Stage]) -> None:
    s = stage(V13)
    assert s.transport.get_extra_info("cipher", "?") == "?"
    s.secure()
    info = s.transport.get_extra_info
    assert info("ssl_object").version() == info("tls_version") == "TLSv1.3"
    assert info("sslcontext") is s.server.context
    assert info("cipher")[0].startswith("TLS_")
    assert info("compression") is None
    assert info("peercert") in (None, {})
    assert info("alpn", "x") is None
    assert info("peername") == ("192.0.2.7", 4711)
    assert s.transport.freeze() is None


# -- handshakes that come to nothing -------------------------------------------------------------


def refused(s: Stage, cause: str) -> None:
    """The protocol has not heard of it, and it is counted."""
    s.ended()
    assert s.notes.trace == []
    assert s.service.refused == {cause: 1}
    assert s.service.closed == {}
    assert s.server.pending == 0


def test_plain_text(stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    s = stage()
    s.theirs.sendall(b"GET / HTTP/1.0\r\n\r\n")
    refused(s, "tls_handshake")
    assert "test: 192.0.2.7:4711: the client speaks plain text, not TLS, closing" in caplog.text


def test_a_client_that_hangs_up(stage: Callable[..., Stage]) -> None:
    s = stage()
    s.theirs.close()
    refused(s, "tls_handshake")


def test_a_client_that_breaks_off(
    stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture
) -> None:
    """As load balancers do to find out whether somebody listens."""
    caplog.set_level("INFO")
    s = stage()
    reset(s.theirs)
    refused(s, "tls_handshake")
    assert "the connection broke in the handshake: Connection reset by peer" in caplog.text


@pytest.mark.parametrize("cause", ["drained", "idle_timeout", "max_age", "killed"])
def test_an_end_from_here_amid_the_handshake(stage: Callable[..., Stage], cause: str) -> None:
    s = stage()
    if cause == "drained":
        s.transport.close_within(1)
    elif cause == "killed":
        s.transport.lose(ConnectionAbortedError(), cause)
    else:
        s.transport.time_out("time is over", cause)
    refused(s, cause)
    assert cause in REFUSALS


def test_a_client_that_does_not_trust_us(
    stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    s = stage()
    s.peer = TlsPeer(s.theirs, ssl.create_default_context())
    s.until(lambda: s.peer.read() or not s.service.live)
    refused(s, "tls_handshake")
    assert "no TLS: the client does not know the authority of our certificate" in caplog.text


def test_a_hello_that_is_none(stage: Callable[..., Stage]) -> None:
    s = stage()
    s.theirs.sendall(b"\x16\x03\x01\x00\x05hello")
    refused(s, "tls_handshake")
    s.until(s.peer.read)
    assert "ALERT" in s.peer.end  # it is told why


def test_the_time_limit(loop: EventLoop, stage: Callable[..., Stage]) -> None:
    s = stage({"timeout": 0.05})
    s.theirs.sendall(b"\x16")
    refused(s, "handshake_timeout")


def test_the_time_limit_is_each_ones_own(ca: Authority, pair: dict[str, str]) -> None:
    now = 100.0
    loop = EventLoop(lambda: now)
    first = Stage(loop, ca, pair, {}, timeout=3.0)
    second = tcp_pair()
    now += 2.0
    turn(loop)
    first.service.open(second[0].detach(), ("192.0.2.8", 1))
    assert first.service.live == 2
    now += 2.0
    settle(loop)
    assert first.service.refused == {"handshake_timeout": 1}
    now += 2.0
    settle(loop)
    assert first.service.refused == {"handshake_timeout": 2}
    loop.close()


def test_one_too_many_ends_the_oldest(loop: EventLoop, ca: Authority, pair: dict[str, str]) -> None:
    s = Stage(loop, ca, pair, {}, most=2)
    others = [tcp_pair() for _ in range(2)]
    for ours, _ in others:
        s.service.open(ours.detach(), ("192.0.2.8", 1))
    run_until(loop, lambda: s.service.live == 2)
    assert s.service.refused == {"tls_pending": 1}
    assert s.transport.is_closed()
    for transport in s.service.transports:
        transport.abort()
    settle(loop)


# -- TLS from a plain connection -----------------------------------------------------------------


class Mail(Notes):
    """Says ok to STARTTLS, and echoes all else, with what it knows of the connection before it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = bytearray()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.kept += data
        while b"\n" in self.kept:
            line, _, self.kept = self.kept.partition(b"\n")
            if line == b"STARTTLS":
                self.transport.write(b"ok\n")
                self.transport.start_tls(lambda: self.trace.append(("secured",)))
                self.transport.write(b"welcome\n")
            else:
                secured = self.transport.get_extra_info("cipher") is not None
                self.transport.write((b"secured " if secured else b"plain ") + line + b"\n")

    def discard_input(self) -> None:
        self.kept.clear()


@pytest.fixture(name="mail")
def _mail(stage: Callable[..., Stage]) -> Stage:
    s = stage({"starttls": True, "sockets": unix_pair})
    s.transport.abort()
    settle(s.loop)
    s.theirs.close()
    s.notes = Mail()
    s.sock, s.theirs = unix_pair()
    s.service.closed.clear()
    s.service.open(s.sock.detach(), "")
    s.transport = s.notes.transport
    s.peer = TlsPeer(s.theirs, s.peer.tls.context)
    return s


def hear(s: Stage) -> bytes:
    """What the client gets next, as it is."""
    got = b""

    def look() -> bytes:
        nonlocal got
        with contextlib.suppress(BlockingIOError):
            got += s.theirs.recv(1 << 16)
        return got

    s.until(look)
    return got


def test_start_tls(mail: Stage) -> None:
    assert type(mail.transport) is Plain
    assert mail.notes.names == ["connection_made"]
    mail.theirs.sendall(b"hello\n")
    assert hear(mail) == b"plain hello\n"
    mail.theirs.sendall(b"STARTTLS\n")
    assert hear(mail) == b"ok\n"
    mail.secure()
    mail.peer.say(b"hello\n")
    mail.answer(b"welcome\nsecured hello\n")
    assert mail.notes.names.count("connection_made") == 1
    assert ("secured",) in mail.notes.trace
    mail.theirs.sendall(mail.peer.goodbye())
    mail.ended()
    assert mail.service.closed == {"eof": 1}


def test_plain_text_behind_the_command_is_thrown_away(mail: Stage) -> None:
    """CVE-2011-0411: what somebody put between must not count as the client's own words."""
    mail.theirs.sendall(b"STARTTLS\nevil\nmore ev")
    assert hear(mail) == b"ok\n"
    mail.secure()
    mail.peer.say(b"hello\n")
    mail.answer(b"welcome\nsecured hello\n")


def test_plain_text_that_comes_later_is_no_handshake(mail: Stage) -> None:
    mail.theirs.sendall(b"STARTTLS\n")
    assert hear(mail) == b"ok\n"
    mail.theirs.sendall(b"evil\n")
    mail.ended()
    assert mail.notes.names[-1] == "connection_lost"
    assert isinstance(mail.notes.exc, ConnectionAbortedError)
    assert mail.service.closed == {"tls_handshake": 1}
    assert mail.service.refused == {}


def test_what_is_buffered_goes_out_in_plain_text_before_it(mail: Stage) -> None:
    narrow(mail.theirs)
    mail.transport.write(BIG)
    assert mail.transport.get_write_buffer_size()
    mail.transport.start_tls()
    got = bytearray()
    while len(got) < len(BIG):
        got += hear(mail)
    assert got == BIG
    mail.secure()
    mail.transport.write(b"sealed")
    mail.answer(b"sealed")


def test_start_tls_twice_or_too_late(mail: Stage) -> None:
    mail.transport.write_eof()
    with pytest.raises(RuntimeError, match="closing"):
        mail.transport.start_tls()


def test_start_tls_where_it_is_not_configured(stage: Callable[..., Stage]) -> None:
    s = stage().secure()
    with pytest.raises(RuntimeError, match="starttls: true"):
        s.transport.start_tls()


def test_what_is_asked_during_the_handshake_waits(mail: Stage) -> None:
    mail.theirs.sendall(b"STARTTLS\n")
    assert hear(mail) == b"ok\n"
    transport = mail.transport
    transport.pause_reading()
    assert not transport.is_reading()
    transport.write(b"x" * 100_000)
    assert "pause_writing" in mail.notes.names
    transport.write_eof()
    with pytest.raises(RuntimeError):
        transport.write(b"more")
    mail.secure()
    mail.peer.say(b"hello\n")
    mail.until(lambda: mail.peer.read() == "close_notify")
    assert mail.peer.data == b"welcome\n" + b"x" * 100_000
    assert b"hello" not in mail.notes.data
    transport.resume_reading()
    mail.until(lambda: b"hello" in mail.notes.data)


# -- a socket that takes nothing, or that is gone ------------------------------------------------


def fill(fd: int) -> int:
    """Fill a Unix socket with what is no TLS, until it takes nothing; returns how much it was."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            count += os.write(fd, bytes(4096))
    return count


def drain(sock: socket.socket, count: int) -> None:
    """Take so much of it."""
    while count:
        count -= len(sock.recv(count))


def test_a_first_write_of_which_the_kernel_takes_nothing(stage: Callable[..., Stage]) -> None:
    s = stage({"sockets": unix_pair}).secure()
    s.peer.read()
    filled = fill(s.transport.fileno())
    s.transport.write(b"hello")
    s.transport.write(b" again")
    assert s.transport.get_write_buffer_size() > len(b"hello again")
    drain(s.theirs, filled)
    s.answer(b"hello again")
    assert s.transport.get_write_buffer_size() == 0


def test_a_handshake_of_which_the_kernel_takes_nothing(stage: Callable[..., Stage]) -> None:
    s = stage({"sockets": unix_pair}, **ECHO)
    s.peer.step()
    s.theirs.sendall(s.peer.sealed())
    filled = fill(s.transport.fileno())
    settle(s.loop)
    assert s.transport.get_write_buffer_size() > 0
    drain(s.theirs, filled)
    s.secure()
    s.peer.say(b"hello")
    s.answer(b"hello")


def test_a_client_that_is_gone_after_its_hello(stage: Callable[..., Stage]) -> None:
    """Its hello can still be read; our answer cannot be sent."""
    s = stage({"sockets": unix_pair})
    s.peer.step()
    s.theirs.sendall(s.peer.sealed())
    s.theirs.close()
    refused(s, "tls_handshake")


def test_a_write_to_a_client_that_is_gone(stage: Callable[..., Stage]) -> None:
    s = stage().secure()
    reset(s.theirs)
    s.transport.write(b"hello")
    assert s.transport.is_closing()
    s.ended()
    assert isinstance(s.notes.exc, ConnectionError)
    assert s.service.closed == {"reset": 1}


def test_a_reset_while_nothing_is_read(stage: Callable[..., Stage]) -> None:
    s = stage(connection_made=lambda p: p.transport.pause_reading()).secure()
    reset(s.theirs)
    s.ended()
    assert s.notes.names == ["connection_made", "connection_lost"]
    assert s.service.closed == {"reset": 1}


def test_the_protocol_ends_it_when_the_peer_says_goodbye(stage: Callable[..., Stage]) -> None:
    s = stage(eof_received=lambda p: p.transport.abort()).secure()
    s.theirs.sendall(s.peer.goodbye())
    s.ended()
    assert s.notes.names == ["connection_made", "eof_received", "connection_lost"]
    assert s.service.closed == {"aborted": 1}


def test_a_wake_up_for_nothing_is_harmless(stage: Callable[..., Stage]) -> None:
    """As when a callback of the same turn has read what was there."""
    s = stage(**ECHO)
    s.transport.on_ready(select.EPOLLIN)  # in the handshake
    s.secure().transport.on_ready(select.EPOLLIN)
    s.peer.say(b"hello")
    s.answer(b"hello")
